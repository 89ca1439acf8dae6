"""What `--help` says: every command has an example that it takes, and nothing is cut or said in two ways."""

from __future__ import annotations

import shlex

import pytest
import typer
from typer.core import TyperGroup

from sta_hw.bench import BENCHES
from sta_hw.cli.app import SECTIONS, app
from sta_hw.cli.main import HERE, MODULES, add_commands
from sta_hw.run.backends import BACKENDS
from sta_hw.spec.config import MULTIPLIERS

COMMANDS = sorted([*HERE, *(command for commands in MODULES.values() for command in commands)])


def group() -> TyperGroup:
    """All commands."""
    add_commands()
    found = typer.main.get_command(app)
    assert isinstance(found, TyperGroup)
    return found


def said(name: str = "") -> str:
    """The help of a command, or of all of them, as a terminal of 80 columns shows it."""
    chosen = group().commands[name] if name else group()
    with chosen.make_context(name or "sta-hw", [], resilient_parsing=True, terminal_width=78) as context:
        return chosen.get_help(context)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_that_it_takes(command: str) -> None:
    text = said(command)
    assert max(map(len, text.splitlines())) <= 80
    example = " ".join(text.split("Example: sta-hw ")[1].split())
    name, *rest = shlex.split(example)
    assert name == command
    group().commands[command].make_context(command, rest)


def test_the_list_of_commands_is_cut_nowhere() -> None:
    """Each is once in a section, its sentence whole."""
    text = said()
    assert sorted(command for commands in SECTIONS.values() for command in commands) == COMMANDS
    assert "..." not in text.split(f"{next(iter(SECTIONS))}:")[1]
    for title, commands in SECTIONS.items():
        for command in commands:
            assert f"\n  {command} " in text.split(f"\n{title}:")[1].split("\n\n")[0]


def test_every_benchmark_has_a_line() -> None:
    lines = [line.split()[0] for line in said("bench").splitlines() if line.startswith("  ") and line.strip()]
    assert [name for name in lines if name in BENCHES] == list(BENCHES)


def test_options_of_one_name_say_one_thing() -> None:
    """But those that mean another thing to another command, which are listed."""
    commands = group().commands
    told: dict[str, set[str]] = {}
    for command in COMMANDS:
        for parameter in commands[command].params:
            if parameter.param_type_name == "option":
                told.setdefault(parameter.opts[0], set()).add(parameter.help or "")
            for word in ("repeatable", "several times"):
                assert word not in (parameter.help or ""), f"{command} {parameter.opts[0]}: it is 'may be repeated'"
    for option in ("--json", "--port", "--pruner", "--drafts", "--activations", "--weights", "--truncate"):
        assert len(told[option] - {"Serial port; sim simulates the whole board."}) == 1, option


def test_lists_of_names_are_whole() -> None:
    generated = " ".join(said("generate").split())
    for multiplier in MULTIPLIERS:
        assert multiplier in generated.split("--multiplier")[1].split("--window-memory")[0], multiplier
    for command in ("run", "embed", "classify"):
        backends = said(command).split("--backend <str>")[1].split("[default")[0]
        assert all(name in backends for name in BACKENDS), command

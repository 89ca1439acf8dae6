"""The documents hold: every command line in them runs as written, every figure has its command, every file is there.

What takes minutes or needs what a test has not is listed with the reason, checked against the command line's own
parser, and run by `make docs-commands`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from boards import BOARDS
from sim import verilator
from sta_hw.bench import BENCHES
from sta_hw.cli.app import app
from sta_hw.cli.main import add_commands
from sta_hw.formats import bits_per_weight
from sta_hw.fpga.parts import LIBERTY, PARTS
from sta_hw.rtl.engine.array import multiplier_latency
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import BOARD_PRESETS, PRESETS

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
"""In this order: the README's `evaluate` finds what docs/sparsity.md's `prune` leaves."""
PROGRAMS = ("sta-hw", "make", "python", "litex_server", "fusesoc", "verilator", "iverilog")
LOOPS = ("for ", "one beat")
"""What indented lines also begin with: loop nests."""

SLOW = {
    "sta-hw demo": "builds the reference accelerator and runs a sentence through it: a minute",
    "sta-hw prune --nm 8:16 --steps 600 --aware-steps 50": "fine-tunes all-MiniLM-L6-v2: some minutes",
    "sta-hw run": "builds the reference accelerator: a minute",
    "sta-hw report": "the same",
    "sta-hw trace": "builds an accelerator that writes waveforms",
    "sta-hw generate-text": "reads SmolLM2, which make llm installs",
    "sta-hw chat": "the same",
    "sta-hw prune --decoder": "the same, and prunes it: minutes",
    "sta-hw plan": "prunes and measures each N:M: a minute",
    "sta-hw explore": "a minute or more: some dozens of points of all-MiniLM-L6-v2, or accuracy and synthesis",
    "sta-hw bench": "minutes each",
    "sta-hw synth": "Yosys and nextpnr: minutes",
    "sta-hw build": "the same",
    "sta-hw selftest --board ulx3s-25f": "builds a whole board with its SDRAM",
    "python scripts/": "minutes to hours each",
    "python -m sim.accelerator": "builds the reference accelerator: a minute",
    "python -m sim.soc": "builds a SoC; tests/sim/test_soc.py runs it",
    "python -m boards.soc": "Yosys: minutes",
}
"""Beginnings of commands that `make docs-commands` runs."""
NEVER = {
    "sta-hw run --model FOLDER": "FOLDER stands for one's own; tests/cli/test_cli_families.py runs some",
    "sta-hw classify sentences.txt --model FOLDER": "the same; tests/cli/test_cli_batch.py runs some",
    "make": "sets up or tests all of the project, this file among it; `make -n` knows the target",
    "litex_server": "does not end; tests/sim/test_terminal.py runs it",
    "fusesoc": "builds simulations; tests/generate/test_fusesoc.py runs every target",
    "verilator": "NAME stands for one's own; tests/generate/test_generate.py lints so",
    "iverilog": "the same; tests/generate/test_fusesoc.py runs the benches",
}
WITHOUT_A_BOARD = {
    "sta-hw flash": "there is no bitstream, or nothing to write it to",
    "sta-hw selftest --board ulx3s-25f --port": "there is no such port",
}
"""Commands that end, where no board is connected, with a sentence and exit status 2 or 3."""


@dataclass(frozen=True)
class Command:
    """A command line of a document; `block`: of an indented block, to be pasted."""

    place: str
    text: str
    block: bool

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def commands() -> list[Command]:
    """All, in the order of the documents; ``NAME`` stands for every case of a script."""
    found = []
    for document in DOCUMENTS:
        fenced = False  # diagrams
        for number, line in enumerate(document.read_text().splitlines(), 1):
            place = f"{document.name}:{number}"
            fenced ^= line.startswith("```")
            if line.startswith("    ") and not fenced:
                text = re.sub(r"\s+# .*", "", line.strip())
                if not text.startswith(LOOPS):
                    found.append(Command(place, text, True))
            for text in re.findall(r"`([^`]+)`", line):
                if text.split(" ")[0] in PROGRAMS and " " in text:
                    found.append(Command(place, text, False))
    return found


def beginning(command: Command, table: dict) -> str | None:
    """The table's entry that the command begins with."""
    return next(
        (b for b in table if command.text == b or command.text.startswith(b if b[-1] == "/" else b + " ")), None
    )


COMMANDS = commands()
QUICK = [
    c for c in COMMANDS
    if c.block and (beginning(c, WITHOUT_A_BOARD) or not any(beginning(c, t) for t in (SLOW, NEVER)))
]  # fmt: skip


def script(path: str):
    """A script's module."""
    specification = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert specification and specification.loader, f"{path} is no script"
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module
    specification.loader.exec_module(module)
    return module


def known_values(words: list[str]) -> Iterator[tuple[str, bool]]:
    """Of options and arguments whose values are names: the value, and whether there is such a one."""
    known = {
        "--board": BOARDS, "--part": PARTS, "--preset": PRESETS | BOARD_PRESETS,
        "--top": ("engine", "accelerator", "softmax", "decoder", "board"),
    }  # fmt: skip
    for option, value in pairwise(words):
        if option in known:
            yield value, value in known[option] or Path(value).suffix == ".json" or value.startswith(LIBERTY)
        if option == "--nm":
            yield value, all(parse_nm(part) for part in value.split(","))
        if option == "--set":
            yield value, value.split("=")[0] in Config.__dataclass_fields__
        if option == "bench":
            yield value, value in BENCHES


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.place} {c.text}")
def test_a_command_is_one(command: Command) -> None:
    """Program, command, options and names are there; their values convert."""
    add_commands()
    program, *rest = command.words
    assert program in PROGRAMS
    assert "[" not in command.text and "..." not in command.text.replace('..."', ""), "not as one would paste it"
    if program == "make":
        result = subprocess.run(["make", "-n", *rest], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    elif program == "litex_server":
        assert shutil.which(program, path=Path(sys.executable).parent)
    elif program in ("fusesoc", "verilator", "iverilog"):
        assert beginning(command, NEVER)
    elif program == "sta-hw":
        group = typer.main.get_command(app)
        with group.make_context("sta-hw", list(rest)) as context:
            name, chosen, arguments = group.resolve_command(context, rest)
            chosen.make_context(name, list(arguments), parent=context)
        for value, there in known_values(command.words):
            assert there, value
    elif rest[0] == "-m":
        assert importlib.util.find_spec(rest[1])
    else:
        module = script(rest[0])
        if hasattr(module, "options"):
            module.options().parse_args(rest[1:])
        else:
            parser = typer.Typer()
            parser.command()(module.main)
            typer.main.get_command(parser).make_context(rest[0], rest[1:])
        names = [*getattr(module, "CASES", ()), *BOARDS, "NAME"]
        for option, value in pairwise(rest):
            assert option != "--case" or value in names, value


def test_the_lists_are_those_of_the_documents() -> None:
    """Nothing is called slow that no document has."""
    for table in (SLOW, NEVER, WITHOUT_A_BOARD):
        for entry in table:
            assert any(beginning(c, {entry: 0}) for c in COMMANDS), entry


def workplace(folder: Path) -> dict[str, str]:
    """A copy of the project with the inputs that the documents name; the environment to run commands in."""
    from onnx_export import export_text
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    left_out = shutil.ignore_patterns(".*", "build", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=left_out, dirs_exist_ok=True)
    export_text(folder / "model.onnx", hidden_size=64, max_position_embeddings=512, vocab_size=50)
    words = ["[PAD]", "[UNK]", "the", "a", "of", "to", "and", "in", "is", "for", "that", "with", "on", "as", "by", "if"]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "sentences.txt").write_text("Hardware that skips zeros.\nRain in the mountains.\n")
    return verilator.environment() | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}


def run(command: Command, folder: Path, environment: dict[str, str]) -> None:
    """As written, in a shell."""
    result = subprocess.run(command.text, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    wanted = (2, 3) if beginning(command, WITHOUT_A_BOARD) else (0,)
    said = f"{command.place}: {command.text}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    assert result.returncode in wanted, said
    assert "Traceback" not in result.stderr, said
    if result.returncode:
        assert result.stderr.startswith("sta-hw: ") and len(result.stderr.splitlines()) == 1, said


def test_what_is_quick_runs_as_written(tmp_path: Path) -> None:
    """In the order of the documents, in one folder: what a command leaves, the next ones find; none runs twice."""
    environment = workplace(tmp_path)
    for command in {command.text: command for command in QUICK}.values():
        run(command, tmp_path, environment)
    assert len(QUICK) >= 10


@pytest.mark.slow
def test_everything_runs_as_written(tmp_path: Path) -> None:
    """The slow ones too, every case of every script among them: hours."""
    environment = workplace(tmp_path)
    done = set()
    for command in COMMANDS:
        text = command.text.replace(" --case NAME", "")  # without one, the scripts run them all
        if beginning(command, NEVER) or text in done or not (command.block or beginning(command, SLOW)):
            continue
        done.add(text)
        libraries = [Path(word.removeprefix(LIBERTY)) for word in command.words if word.startswith(LIBERTY)]
        if gone := [library for library in libraries if not library.exists()]:
            print(command.place, "left out:", *gone, "is not installed", flush=True)
            continue
        print(command.place, text, flush=True)
        run(dataclasses.replace(command, text=text), tmp_path, environment)


def sections() -> Iterator[tuple[str, list[str]]]:
    """The documents cut at their headings: place and lines."""
    for document in DOCUMENTS:
        lines: list[str] = []
        place = document.name
        for line in document.read_text().splitlines():
            if line.startswith("#"):
                yield place, lines
                place, lines = f"{document.name}, {line.lstrip('# ')}", []
            lines.append(line)
        yield place, lines


FIGURE = re.compile(r"\| \**[\d,]*(\d\.\d+|\d,\d{3}|\d %)[^|a-z]*\|")
"""A cell with nothing but a measured number."""


def test_every_table_of_figures_has_its_command() -> None:
    """In the paragraph before the table or after it."""
    tables = 0
    for place, lines in sections():
        text = "\n".join(lines)
        paragraphs = [p for p in text.split("\n\n") if p.strip()]
        for number, paragraph in enumerate(paragraphs):
            rows = [line for line in paragraph.splitlines() if line.startswith("|")]
            if sum(bool(FIGURE.search(row)) for row in rows) < 2:
                continue
            tables += 1
            near = " ".join(paragraphs[max(0, number - 1) : number + 2])
            assert re.search(r"`(sta-hw|make|python|tests/|sta_hw\.formats)", near), f"{place}: {rows[0]}"
    assert tables >= 6


def test_every_file_that_is_named_is_there() -> None:
    """Paths in the documents, from the project's folder or from the package."""
    for document in DOCUMENTS:
        for name in re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|md|json|cpp|v|txt))(?:::\w+)?`", document.read_text()):
            if name.startswith("build/"):
                continue
            assert any((base / name).exists() for base in (ROOT, ROOT / "sta_hw", document.parent)), (document, name)
        for name, test in re.findall(r"`(tests/(?:\w+/)*\w+\.py)::(\w+)`", document.read_text()):
            assert f"def {test}(" in (ROOT / name).read_text(), (document, test)


def test_every_row_has_the_cells_of_its_heading() -> None:
    for document in DOCUMENTS:
        cells = 0
        for line in document.read_text().splitlines():
            if not line.startswith("|"):
                cells = 0
                continue
            found = len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line)))
            assert cells in (0, found), (document.name, line)
            cells = found


def test_the_bits_per_weight_of_the_format() -> None:
    """The table of docs/format.md, computed again."""
    rows = re.findall(
        r"^\| (\d+:\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", (ROOT / "docs/format.md").read_text(), re.M
    )
    assert len(rows) == 7
    for nm, *cells in rows:
        computed = [f"{bits_per_weight(parse_nm(nm), e):.2f}" for e in ("index", "bitmap", "limit")]
        assert cells == computed, nm


def test_the_latencies_of_the_multipliers() -> None:
    """Those of docs/architecture.md."""
    rows = dict(
        re.findall(r"^\| (Multiplier\w*)\b.*\| ([\d, ]+) \|$", (ROOT / "docs/architecture.md").read_text(), re.M)
    )
    assert int(rows["Multiplier"]) == multiplier_latency(Config(multiplier="dsp"))
    pair, mac16 = (multiplier_latency(Config(multiplier=kind)) for kind in ("dsp-pair", "mac16"))
    assert rows["MultiplierPair"] == f"{pair}, {mac16}"


def test_every_command_has_json() -> None:
    """As the README says."""
    add_commands()
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        assert any("--json" in parameter.opts for parameter in command.params), name

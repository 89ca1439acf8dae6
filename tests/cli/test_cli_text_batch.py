"""generate-text --batch: a line for each prompt, what it counts, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from decoder_files import decoder_folder
from test_cli_text import PROMPT, run

from sta_hw.cli.terminal import printable

PROMPTS = (PROMPT, "We'll see", "def main(x):")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder")
    decoder_folder(path)
    return path


def test_texts_are_what_they_are_alone(folder: Path, tmp_path: Path) -> None:
    """Of programs in fewer passes; by numpy one after the other."""
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS))
    common = ("--model", folder, "--max-tokens", 8, "--temperature", 2, "--top-k", 5, "--seed", 1)
    alone = [
        json.loads(run("generate-text", p, *common, "--preset", "ci", "--backend", "fast", "--json").stdout)
        for p in PROMPTS
    ]
    for name, more in (("fast", ()), ("reference", ()), ("rtl", ("--sequences", 2))):
        done = run("generate-text", "--batch", file, *common, "--preset", "ci", "--backend", name, *more, "--json")
        found = json.loads(done.stdout)
        for one, wanted in zip(found["texts"], alone, strict=True):
            for key in ("text", "ids", "prompt_ids", "ended"):
                assert one[key] == wanted[key]
        if name == "fast":
            assert found["sequences"] == found["tokens_per_weight_pass"] == 1 and "passes" not in found
            continue
        assert found["equal_to_integers"] is True and found["sequences"] == (3 if name == "reference" else 2)
        assert found["tokens_per_weight_pass"] == found["tokens"] / found["weight_passes"] > 1.3
        assert len(found["passes"]) == found["weight_passes"] + found["prompt_passes"]
        several = [p for p in found["passes"] if "positions" in p]
        assert several and all(len(p["positions"]) == p["tokens"] > 1 for p in several)
    assert all(0.1 < p["bandwidth"] < 1 for p in found["passes"])


def test_a_line_each(folder: Path) -> None:
    """Of standard input; line ends of a text are escapes, and a full context is a sentence."""
    common = ("--model", folder, "--max-tokens", 60, "--backend", "reference", "--preset", "ci")
    done = run("generate-text", "--batch", "-", "--chat", *common, given="Hi\nAnd\n")
    alone = [json.loads(run("generate-text", p, "--chat", *common, "--json").stdout) for p in ("Hi", "And")]
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[:2] == [printable(a["text"]) for a in alone]
    assert "passes over the weights behind the prompts'" in lines[2] and len(lines) == 3
    full = [str(n) for n, a in enumerate(alone, 1) if a["ended"] == "context"]
    assert full and f"is full for prompt{'s' * (len(full) > 1)} {', '.join(full)}" in done.stderr


@pytest.mark.parametrize(
    ("lines", "arguments", "sentence"),
    [
        ("", (), "holds no text; write one a line"), ("a\n\nb\n", (), "line 2: it is empty"),
        ("a\n", ("x",), "TEXT is not used with --batch"), ("a\n", ("--drafts", 2), "--drafts is not used with --batch"),
        ("a\n", ("--sequences", 2), "--sequences is not used with --backend fp32 or fast"),
        (f"a\n{PROMPT * 3}\n", ("--context", 20), "prompt 2: the prompt has"),
        ("a\n", ("--sequences", 5, "--preset", "ci", "--backend", "reference"), "batch of 5 sequences is out of range"),
    ],
)  # fmt: skip
def test_refusals(folder: Path, lines: str, arguments: tuple[object, ...], sentence: str) -> None:
    done = run("generate-text", *arguments, "--batch", "-", "--model", folder, given=lines)
    assert done.returncode == 2 and not done.stdout, done.stdout
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_neither_prompt_nor_file(folder: Path) -> None:
    done = run("generate-text", "--model", folder)
    assert done.returncode == 2 and "give TEXT, or a file of prompts with --batch" in done.stderr
    done = run("generate-text", "--model", folder, "--sequences", 2, "x")
    assert done.returncode == 2 and "--sequences is not used without --batch" in done.stderr
    done = run("generate-text", "--model", folder, "--batch", folder / "no.txt")
    assert done.returncode == 2 and "no.txt" in done.stderr and len(done.stderr.splitlines()) == 1

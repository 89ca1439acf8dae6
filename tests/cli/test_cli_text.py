"""generate-text and chat: what they print, how they end, what they refuse."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from decoder_files import decoder_folder
from support import hears_ctrl_c

from sta_hw.cli.text import chat
from sta_hw.errors import InputError
from sta_hw.spec.presets import PRESETS
from sta_hw.tasks.text import load_text_model

PROMPT = "The quick brown fox"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder")
    decoder_folder(path)
    return path


def run(*arguments: object, given: str | None = None) -> subprocess.CompletedProcess[str]:
    code = "from sta_hw.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input=given, encoding="utf-8")


def test_text_and_figures(folder: Path) -> None:
    plain = run("generate-text", PROMPT, "--model", folder, "--max-tokens", 6)
    figures = json.loads(run("generate-text", "-", "--model", folder, "--max-tokens", 6, "--json", given=PROMPT).stdout)
    wanted = load_text_model(folder).generate(PROMPT, max_tokens=6)
    assert plain.returncode == 0, plain.stderr
    assert figures["ids"] == wanted.ids and figures["text"] == wanted.text and figures["prompt_ids"] == wanted.prompt
    assert len(plain.stdout.replace("\n", "")) >= len(wanted.text.replace("\n", "").strip())


def test_a_prompt_in_utf_16(folder: Path) -> None:
    done = run("generate-text", "-", "--model", folder, given="H\0i\0")
    assert done.returncode == 2 and done.stderr == (
        "sta-hw: the prompt has NUL in it, as text in UTF-16 has; give it in UTF-8.\n"
    )


def test_a_message_in_utf_16(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("H\0i\0\n\0"))
    with pytest.raises(InputError, match="a line of standard input has NUL in it"):
        chat(model=folder, backend_name="fp32")


def test_a_conversation_that_fills_the_context(folder: Path) -> None:
    done = run("chat", "--model", folder, "--max-tokens", 2, "--json", given="Hi\nAnd now?\nAnd now?\nAnd now?\n")
    answers = json.loads(done.stdout)["answers"]
    assert done.returncode == 0 and 1 < len(answers) < 4
    assert answers[-1]["ended"] == "context" and answers[0]["ended"] != "context"
    assert "tokens is full" in done.stderr and len(done.stderr.splitlines()) == 1


def test_in_integers(folder: Path) -> None:
    figures = json.loads(
        run("generate-text", PROMPT, "--model", folder, "--max-tokens", 5, "--backend", "fast", "--json").stdout
    )
    model = load_text_model(folder).in_integers(config=PRESETS["reference"])
    assert figures["prompt_ids"][0] == 1 and figures["ids"] == model.generate(PROMPT, max_tokens=5).ids
    done = run("generate-text", "Hi", "--chat", "--model", folder, "--max-tokens", 5, "--backend", "fast", "--json")
    assert done.returncode == 0, done.stderr
    model = model.in_integers(model.language.chat_prefix(), config=PRESETS["reference"])
    wanted = model.generate([{"role": "user", "content": "Hi"}], max_tokens=5)
    assert json.loads(done.stdout)["ids"] == wanted.ids


def test_as_programs(folder: Path) -> None:
    """The same text from programs, with drafts in fewer passes; figures of each pass; every logit compared."""
    common = ("generate-text", PROMPT * 2, "--model", folder, "--max-tokens", 8, "--preset", "ci", "--json")
    fast, reference, rtl = (
        json.loads(run(*common, "--backend", *more).stdout)
        for more in (("fast",), ("reference", "--drafts", 3), ("rtl", "--drafts", 3))
    )  # fmt: skip
    assert fast["ids"] == reference["ids"] == rtl["ids"] and fast["text"] == rtl["text"] and "passes" not in fast
    assert rtl["equal_to_integers"] is True and rtl["weight_passes"] + rtl["accepted"] == len(rtl["ids"]) - 1
    for passes in (reference["passes"], rtl["passes"]):
        assert passes[0]["position"] == 1 and sum(p["tokens"] for p in passes) >= len(rtl["prompt_ids"])
    for p in rtl["passes"]:
        assert p["bandwidth"] == p["least_bytes"] / (p["cycles"] * PRESETS["ci"].bus_bytes) and 0.1 < p["bandwidth"] < 1
        assert p["read_bytes"] > 0.9 * p["least_bytes"] and p["written_bytes"] > 0
    few = ("generate-text", PROMPT, "--model", folder, "--max-tokens", 3, "--preset", "ci", "--json")
    bits = ("--activations", 15, "--weights", 4)
    fast, rtl = (json.loads(run(*few, *bits, "--backend", name).stdout) for name in ("fast", "rtl"))
    assert fast["ids"] == rtl["ids"] and rtl["equal_to_integers"] is True
    eight = json.loads(run(*few, "--backend", "reference").stdout)
    assert eight["prompt_ids"] == rtl["prompt_ids"] and eight["hash"] == rtl["hash"]
    assert rtl["passes"][-1]["least_bytes"] < 0.9 * passes[-1]["least_bytes"]
    done = run("generate-text", PROMPT, "--model", folder, "--max-tokens", 2, "--preset", "ci", "--backend", "rtl")
    assert (
        "2 passes over the weights" not in done.stdout
        and "Every list of the 8 largest logits equals the integers'" in done.stdout
    )


def test_chat_of_lines(tmp_path: Path) -> None:
    folder = tmp_path
    decoder_folder(folder, max_position_embeddings=200)
    done = run("chat", "--model", folder, "--max-tokens", 4, "--json", given="Hi\n\nAnd now?\n")
    answers = json.loads(done.stdout)["answers"]
    assert [a["message"] for a in answers] == ["Hi", "And now?"]
    model = load_text_model(folder)
    messages = [{"role": "user", "content": "Hi"}]
    first = model.generate(messages, max_tokens=4)
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And now?"}]
    assert [a["ids"] for a in answers] == [first.ids, model.generate(messages, max_tokens=4).ids]


def test_a_mark_of_utf8_is_no_part_of_what_is_said(folder: Path) -> None:
    settings = ("--model", folder, "--max-tokens", 2, "--json")
    assert json.loads(run("chat", *settings, given="\ufeffHi\n").stdout)["answers"][0]["message"] == "Hi"
    found, wanted = (json.loads(run("generate-text", "-", *settings, given=g).stdout) for g in ("\ufeffHi", "Hi"))
    assert found["prompt_ids"] == wanted["prompt_ids"]


def test_a_closed_standard_input(folder: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -c 'from sta_hw.cli.main import main; main()' chat --model {folder} <&-"
    done = subprocess.run(command, shell=True, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout, done.stderr) == (0, "standard input has no message.\n", "")


def test_a_line_without_an_end(folder: Path) -> None:
    done = run("chat", "--model", folder, given="\0" * ((1 << 20) + 1))
    assert (done.returncode, done.stdout) == (2, "") and len(done.stderr.splitlines()) == 1
    assert "a line of standard input has more than 1,048,576 characters" in done.stderr


def test_a_full_context_is_a_sentence(folder: Path) -> None:
    done = run("generate-text", PROMPT, "--model", folder, "--context", 20, "--temperature", 5, "--max-tokens", 40)
    assert done.returncode == 0
    assert "the context of 20 tokens is full" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("generate-text", PROMPT, "--context", 3), "the prompt has"), (("generate-text", ""), "no tokens"),
        (("generate-text", PROMPT, "--temperature", -1), "temperature -1.0 is out of range"),
        (("generate-text", PROMPT, "--top-k", 5), "--top-k is not used without --temperature"),
        (("generate-text", PROMPT, "--system", "x"), "--system is not used without --chat"),
        (("generate-text", PROMPT, "--drafts", 3, "--temperature", 1), "with --temperature there is none"),
        (("generate-text", PROMPT, "--backend", "vhdl"), "backend 'vhdl' is unknown; it is fp32, fast, reference"),
        (("generate-text", PROMPT, "--preset", "ci"), "--preset is not used with --backend fp32"),
        (("chat", "--weights", 4), "--weights is not used with --backend fp32"),
        (("generate-text", PROMPT, "--backend", "fast", "--activations", 16), "activations of 16 bits are not"),
        (("generate-text", PROMPT, "--backend", "rtl", "--board", "x"), "--board is not used except with --backend"),
        (("generate-text", PROMPT, "--no-check"), "is not used with --backend fp32"),
        (("chat", "--backend", "rtl", "--preset", "engine"), "preset 'engine' is unknown"),
        (("chat", "--context", 3), "the prompt has"), (("chat", "--context", 5000), "made for 1 to 60"),
    ],
)  # fmt: skip
def test_refusals(folder: Path, arguments: tuple[object, ...], sentence: str) -> None:
    done = run(*arguments, "--model", folder, given="Hi\n")
    assert done.returncode == 2 and not done.stdout, done.stdout
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0")
    done = run("generate-text", PROMPT, "--model", path)
    assert done.returncode == 2 and "truncated" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_ctrl_c_at_the_prompt_ends_a_conversation(folder: Path) -> None:
    leader, follower = os.openpty()
    code = "from sta_hw.cli.main import main; main()"
    command = [sys.executable, "-c", code, "chat", "--model", str(folder), "--max-tokens", "2"]
    with subprocess.Popen(
        command, stdin=follower, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr
        os.write(leader, b"Hi\n")
        assert process.stderr.read(2) == "> "
        process.stdout.readline()
        assert process.stderr.read(2) == "> "
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    os.close(leader)
    os.close(follower)
    assert process.returncode == 0 and "Traceback" not in err and "sta-hw:" not in err, (out, err)


@pytest.mark.slow  # a minute and a half: it builds the board, and simulates it from its pins in
def test_on_a_simulated_board(folder: Path) -> None:
    common = ("generate-text", PROMPT, "--model", folder, "--max-tokens", 3, "--json")
    fast = json.loads(run(*common, "--backend", "fast", "--preset", "ecp5-25f").stdout)
    board = json.loads(run(*common, "--backend", "board", "--board", "ulx3s-25f").stdout)
    assert board["ids"] == fast["ids"] and board["equal_to_integers"] is True
    assert all(p["cycles"] > 10_000 for p in board["passes"])

"""The tutorial's blocks run as they stand; and what the interface refuses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import sta_hw
from sta_hw.errors import InputError
from sta_hw.model.random import random_ids

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"


def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", TUTORIAL.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(TUTORIAL), "exec"), names)
    assert (tmp_path / "minilm.npz").exists()


def test_what_is_refused() -> None:
    model = sta_hw.load()
    with pytest.raises(InputError, match="pruner 'magic' is unknown; it is"):
        model.prune("2:4", method="magic")
    with pytest.raises(InputError, match="needs tokens, or a text"):
        model.compile("ci")
    with pytest.raises(InputError, match="backend 'fpga' is unknown here"):
        model.embed(["A text."], "ci", on="fpga")
    for tokens in (1.5, "4", True, float("nan")):
        with pytest.raises(InputError, match=r"tokens is .*; it is a whole number"):
            model.compile("ci", tokens=tokens)
        with pytest.raises(InputError, match=r"tokens is .*; it is a whole number"):
            model.prune("2:4", hardware="ci", tokens=tokens)
        with pytest.raises(InputError, match=r"a size is .*; it is a whole number"):
            model.compile_sizes([4, tokens], "ci")
        with pytest.raises(InputError, match=r"most is .*; it is a whole number"):
            model.embed(["A text."], "ci", most=tokens)
    for text in (5, None, b"x", "a\ud800", ["A text."]):
        with pytest.raises(InputError, match="the text "):
            model.embed([text], "ci")
    for texts in ("A text.", None, 5, {"A text.": 1}):
        with pytest.raises(InputError, match=r"embed's inputs is .*; it is a list of texts or files"):
            model.embed(texts, "ci")
    for hardware in (None, 5):
        with pytest.raises(InputError, match="a configuration is a"):
            model.compile(hardware, tokens=4)
    with pytest.raises(InputError, match="backend 5 is none"):
        model.embed(["A text."], "ci", on=5)
    with pytest.raises(InputError, match="leave the calibration file out"):
        model.prune("2:4", calibration="images.npy")
    for path in (5, b"x", "x" * 5000, "a\0b"):
        with pytest.raises(InputError, match=r"^folder is "):
            sta_hw.load(path)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = sta_hw.lode
    assert random_ids(0, 3)  # the names of the package do not hide its folders


def test_a_text_longer_than_the_program() -> None:
    program = sta_hw.load().prune("2:4", method="magnitude").compile("ci", tokens=4)
    with pytest.raises(InputError, match=r"up to 4 tokens, and the input has \d+"):
        program.run("This is a text of more than four tokens.", on="reference")


def test_the_smallest_program_that_holds_a_text_runs_it() -> None:
    """The same bits as that program's own, whatever else there is; sizes in any order."""
    model = sta_hw.load().prune("2:4", method="magnitude")
    assert model.prune(method="magnitude").patterns == model.patterns
    with pytest.raises(InputError, match=r"N:M 1:4 would prune the model once more \(.*\): it was pruned to 2:4"):
        model.prune("1:4", method="magnitude")
    programs = model.compile_sizes([32, 8, 16, 8], "reference")
    assert [p.compiled.tokens for p in programs.programs] == [8, 16, 32]
    assert [programs.choose(n).compiled.tokens for n in (1, 8, 9, 16, 17, 32)] == [8, 8, 16, 16, 32, 32]
    text = "This is a text of more than eight tokens."
    assert 8 < len(model.embedder.token_ids(text)) <= 16
    found = programs.run(text, on="reference")
    assert np.array_equal(found.values, programs.programs[1].run(text, on="reference").values)
    assert found.cosine > 0.95
    with pytest.raises(InputError, match="33 tokens, and there are programs for up to 8, 16, 32; compile a larger one"):
        programs.choose(33)
    with pytest.raises(InputError, match="at least one"):
        model.compile_sizes([], "ci")

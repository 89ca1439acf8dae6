"""The tutorial's blocks run as they stand; and what the interface refuses."""

from __future__ import annotations

import re
from pathlib import Path

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
    with pytest.raises(InputError, match="method 'magic' is unknown; it is"):
        model.prune("2:4", method="magic")
    with pytest.raises(InputError, match="needs tokens, or a text"):
        model.compile("ci")
    with pytest.raises(InputError, match="backend 'fpga' is unknown here"):
        model.embed(["A text."], "ci", on="fpga")
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = sta_hw.lode
    assert random_ids(0, 3)  # the names of the package do not hide its folders


def test_a_text_longer_than_the_program() -> None:
    program = sta_hw.load().prune("2:4", method="magnitude").compile("ci", tokens=4)
    with pytest.raises(InputError, match=r"up to 4 tokens, and the input has \d+"):
        program.run("This is a text of more than four tokens.", on="reference")

"""A program in C, on the CPU of a simulated LiteX SoC, runs the accelerator in its SDRAM on the interrupt."""

from __future__ import annotations

from pathlib import Path

import pytest

from boards.example import Example, example
from boards.firmware import find_compiler
from sim.soc import run_example
from sta_hw.errors import CheckError, ToolError
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
pytestmark = pytest.mark.xdist_group("LiteX SoC")  # one worker builds the model that all share


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    try:
        find_compiler()
    except ToolError as error:
        pytest.skip(str(error))


def test_boots_and_answers_as_the_reference(tmp_path: Path) -> None:
    found = run_example(CONFIG, tmp_path)
    assert found["said"][0] == "STA-HW in a LiteX SoC" and found["said"][-1] == "done"
    runs = [(int(run["result"], 16), int(run["memory"], 16)) for run in found["runs"]]
    assert runs == example(CONFIG).checksums and len({result for result, _ in runs}) == 2
    assert [run["interrupts"] for run in found["runs"]] == [1, 2]  # each run ended by its own


def test_other_bytes_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte of the image that changes on its way is the driver's sentence; another result is no `equal`."""
    small = example(CONFIG, inputs=1)
    image = bytearray(small.files["image.bin"])
    image[1000] ^= 1
    monkeypatch.setattr("sim.soc.example", lambda _: replaced(small, "image.bin", bytes(image)))
    with pytest.raises(CheckError, match="the last line is 'failed'"):
        run_example(CONFIG, tmp_path)
    inputs = bytearray(small.files["image.inputs"])
    inputs[32 + 4 + 1] ^= 8  # behind header and length: 2,048 more or less in the first value
    monkeypatch.setattr("sim.soc.example", lambda _: replaced(small, "image.inputs", bytes(inputs)))
    with pytest.raises(CheckError, match=r"the SoC says 0x\w{8} 0x\w{8} .*, and the reference"):
        run_example(CONFIG, tmp_path)


def replaced(small: Example, name: str, content: bytes) -> Example:
    return Example(small.files | {name: content}, small.checksums)

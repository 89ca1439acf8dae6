"""The native harness: it names what stalls, refuses wrong beats, sees beats too many, builds once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.native import NativeModel, StalledError, build
from sta_hw.errors import ToolError
from sta_hw.generate.generator import component
from sta_hw.host import beats
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]


@pytest.fixture(scope="module")
def model() -> NativeModel:
    hardware = component("softmax", CONFIG)
    streams = streams_of(hardware)
    return NativeModel(build(emit_verilog(hardware, "softmax"), "softmax", streams), streams)


def test_what_waits_is_named(model: NativeModel) -> None:
    sent = beats.logit_beats(np.arange(8), None, CONFIG, wide=True)
    with pytest.raises(StalledError, match=r"totals at beat 1 of 2 \(ready, not valid\)"):
        model.run({"logits": sent}, {"probabilities": len(sent), "totals": 2}, patience=200)
    model.reset()
    many = np.concatenate([sent] * 100)
    with pytest.raises(StalledError, match=r"logits at beat \d+ of 400 \(valid, not ready\)"):
        model.run({"logits": many}, {"probabilities": len(many)}, patience=200, stall={"totals": 1.0})
    model.reset()
    model.run({"logits": sent}, {"probabilities": len(sent), "totals": 1})


def test_beats_too_many(model: NativeModel) -> None:
    sent = beats.logit_beats(np.arange(8), None, CONFIG, wide=True)
    with pytest.raises(StalledError, match="stream probabilities gave 1 beats more than the 3 expected"):
        model.run({"logits": sent}, {"probabilities": len(sent) - 1, "totals": 1}, linger=30)
    model.reset()


def test_beats_of_the_wrong_width(model: NativeModel) -> None:
    with pytest.raises(ValueError, match="stream logits takes uint32 beats of 2 words"):
        model.run({"logits": np.zeros((4, 3), np.uint32)}, {})


def test_a_module_that_does_not_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STA_HW_CACHE", str(tmp_path))
    with pytest.raises(ToolError, match="verilator_bin failed"):
        build("module nothing(;", "nothing", [])
    assert not list(tmp_path.iterdir())

"""The Verilog kept for simulation is what the generator emits, for each configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim import verilog
from sta_hw.config import Config
from sta_hw.generate import component
from sta_hw.rtl.emit import emit_verilog

CONFIG = Config(rows=2, groups=2, columns=16)


def test_kept_by_configuration_and_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STA_HW_CACHE", str(tmp_path))
    text = verilog.module_verilog("decoder", CONFIG)
    assert text == emit_verilog(component("decoder", CONFIG), "decoder")
    assert verilog.module_verilog("decoder", Config(rows=2, groups=4, columns=16)) != text
    assert len(list(tmp_path.iterdir())) == 2

    monkeypatch.setattr(verilog, "emit_verilog", lambda *_: "emitted again")
    assert verilog.module_verilog("decoder", CONFIG) == text
    monkeypatch.setattr(verilog, "_generator", lambda: "another version")
    assert verilog.module_verilog("decoder", CONFIG) == "emitted again"

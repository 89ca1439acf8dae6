"""The Verilog kept for simulation is what the generator emits, for each configuration."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sim import verilog
from sta_hw.generate.generator import component
from sta_hw.rtl.emit import emit_verilog
from sta_hw.sources import sources_of
from sta_hw.spec.config import Config

CONFIG = Config(rows=2, groups=2, columns=16)


def test_kept_by_configuration_and_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STA_HW_CACHE", str(tmp_path))
    text = verilog.module_verilog("decoder", CONFIG)
    assert text == emit_verilog(component("decoder", CONFIG), "decoder")
    assert verilog.module_verilog("decoder", Config(rows=2, groups=4, columns=16)) != text
    assert len(list(tmp_path.iterdir())) == 2
    deep = verilog.module_verilog("decoder", CONFIG, hierarchy=True)
    assert deep == emit_verilog(component("decoder", CONFIG), "decoder", hierarchy=True) != text

    monkeypatch.setattr(verilog, "emit_verilog", lambda *_, **__: "emitted again")
    assert verilog.module_verilog("decoder", CONFIG) == text
    monkeypatch.setattr(verilog, "_generator", lambda: "another version")
    assert verilog.module_verilog("decoder", CONFIG) == "emitted again"


def test_what_the_generator_imports_is_all_that_counts() -> None:
    """Every file that the RTL loads is a source of the emitted text; no command, compiler or reference is one."""
    program = (
        "import sys, sta_hw.rtl.tops, sta_hw.rtl.emit; "
        "print('\\n'.join(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'sta_hw'))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {Path(line) for line in run.stdout.splitlines()}
    sources = set(sources_of(*verilog.SOURCES))
    # A folder's docstring alone changes nothing.
    assert {p for p in loaded if len(ast.parse(p.read_text()).body) > 1} <= sources
    assert not [p for p in sources if p.parent.name in ("cli", "compiler", "reference", "host", "run", "formats")]

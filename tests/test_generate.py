"""What `generate` writes: a manifest that agrees with the Verilog, a core file, an example that elaborates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.native import PRIMITIVES
from sta_hw.config import Config
from sta_hw.errors import InputError
from sta_hw.generate import TOPS, component, generate
from sta_hw.presets import PRESETS
from sta_hw.rtl.emit import run_yosys


@pytest.mark.parametrize("top", TOPS)
def test_files(top: str, tmp_path: Path) -> None:
    config = PRESETS["ci"]
    files = generate(top, config, tmp_path / "new" / "folder")
    names = [f"{top}.v", f"{top}.json", f"{top}.core", f"{top}_example.v"]
    assert [f.name for f in files] == names + (["sta_hw_registers.h"] if top == "accelerator" else [])
    manifest = json.loads(files[1].read_text())
    assert manifest["hash"] == config.hash and manifest["configuration"] == config.as_dict()
    assert Config(**manifest["configuration"]).hash == config.hash
    assert all(v > 0 for v in manifest["latency_cycles"].values())
    assert {p["name"] for p in manifest["ports"]} >= {"clk", "rst"}
    assert files[2].read_text().startswith("CAPI=2:\n") and f"toplevel: {top}" in files[2].read_text()
    again = generate(top, config, tmp_path / "again")
    assert [a.read_bytes() for a in again] == [f.read_bytes() for f in files]
    # The example elaborates with every port connected and of the right width.
    (files[0].parent / "primitives.v").write_text(PRIMITIVES.read_text())
    run_yosys(
        f"read_verilog {top}.v {top}_example.v\nhierarchy -check -top {top}_example\nproc\ncheck -assert\n",
        files[0].parent,
    )


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output folder .*file.* cannot be written"):
        generate("softmax", PRESETS["ci"], tmp_path / "file" / "below")


def test_an_unknown_top() -> None:
    with pytest.raises(InputError, match="top 'cpu' is unknown; it is engine, softmax, decoder"):
        component("cpu", PRESETS["ci"])

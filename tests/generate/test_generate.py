"""What `generate` writes: a manifest that agrees with the Verilog, files that other tools take as they are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sim import verilator
from sim.verilog import module_verilog
from sta_hw.errors import InputError, ToolError
from sta_hw.generate.generator import PRIMITIVES_FILES, TOPS, component, file_names, generate
from sta_hw.rtl.emit import run_yosys
from sta_hw.spec.config import Config
from sta_hw.spec.presets import PRESETS


def lint(folder: Path, top: str, *files: str) -> list[str]:
    """What Verilator says about files with every warning on."""
    run = subprocess.run(
        [str(verilator.root() / "bin" / "verilator_bin"), "--lint-only", "-Wall", "--top-module", top, *files],
        cwd=folder, env=verilator.environment(), capture_output=True, text=True,
    )  # fmt: skip
    return [line for line in run.stderr.splitlines() if line.startswith("%")]


@pytest.mark.parametrize("top", TOPS)
def test_files(top: str, tmp_path: Path) -> None:
    config = PRESETS["ci"]
    files = generate(top, config, tmp_path / "new" / "folder")
    assert {f.name for f in files} == {f.name for f in (tmp_path / "new" / "folder").iterdir()}
    assert {*file_names(top)} == {f.name for f in files} | {*PRIMITIVES_FILES.values()}
    manifest = json.loads(files[1].read_text())
    assert manifest["files"] == [f.name for f in files] and manifest["name"] == top
    assert manifest["hash"] == config.hash and manifest["configuration"] == config.as_dict()
    assert Config(**manifest["configuration"]).hash == config.hash
    assert all(v > 0 for v in manifest["latency_cycles"].values())
    assert {p["name"] for p in manifest["ports"]} >= {"clk", "rst"}
    assert manifest["primitives"] == [] and not manifest["hierarchy"]  # what a preset of a size has is portable
    again = generate(top, config, tmp_path / "again", module_verilog(top, config))
    assert [a.read_bytes() for a in again] == [f.read_bytes() for f in files]
    # The example elaborates with every port connected and of the right width.
    run_yosys(
        f"read_verilog {top}.v {top}_example.v\nhierarchy -check -top {top}_example\nproc\ncheck -assert\n",
        files[0].parent,
    )


@pytest.mark.parametrize("name", PRESETS)
def test_presets_of_sizes_are_portable(name: str) -> None:
    assert not PRESETS[name].instantiates_primitives and not Config().instantiates_primitives


@pytest.mark.parametrize(
    ("top", "multiplier", "cells"),
    [("engine", "dsp", ["MULT18X18D"]), ("engine", "dsp-pair", ["MULT18X18D"]), ("engine", "mac16", ["SB_MAC16"]),
     ("engine", "nexus", ["MULT9X9", "MULT18X18"]), ("engine", "gowin", ["MULT9X9", "MULT18X18"]),
     ("decoder", "dsp", []), ("engine", "lut", [])],
)  # fmt: skip
@pytest.mark.parametrize("hierarchy", [False, True])
def test_cells_of_vendors_come_with_their_models(
    top: str, multiplier: str, cells: list[str], hierarchy: bool, tmp_path: Path
) -> None:
    config = Config(rows=2, groups=2, columns=16, nm=("2:4",), multiplier=multiplier)
    generate(top, config, tmp_path, name="one", hierarchy=hierarchy)
    manifest = json.loads((tmp_path / "one.json").read_text())
    assert [p["cell"] for p in manifest["primitives"]] == cells
    models = [PRIMITIVES_FILES[multiplier]] if cells else []
    assert all(p["simulation_model"] in models for p in manifest["primitives"])
    assert [f for f in manifest["files"] if f in PRIMITIVES_FILES.values()] == models
    assert [f.name for f in tmp_path.iterdir() if f.name in PRIMITIVES_FILES.values()] == models
    # With what is there, and the waivers, and no more, every warning is answered.
    assert lint(tmp_path, "one", "one.vlt", "one.v", *models) == []
    for cell in cells:
        model = tmp_path / models[0]
        text = model.read_text()
        model.write_text(text.replace(f"module {cell} ", "module another "))
        assert lint(tmp_path, "one", "one.vlt", "one.v", *models)
        model.write_text(text)


def test_names_of_what_is_inside(tmp_path: Path) -> None:
    """A port's is refused; that of a function's argument is waived; and only there."""
    config = Config(rows=1, groups=1, columns=4, nm=("dense",))
    with pytest.raises(InputError, match="clk is what a signal in the module is called"):
        generate("decoder", config, tmp_path, name="clk")
    assert not [*tmp_path.iterdir()]
    for name in ("a", "one"):
        generate("decoder", config, tmp_path, name=name)
        assert ("VARHIDDEN" in (tmp_path / f"{name}.vlt").read_text()) == (name == "a")
        assert lint(tmp_path, name, f"{name}.vlt", f"{name}.v") == []


def test_every_waiver_has_a_reason_and_is_for_this_file_alone(tmp_path: Path) -> None:
    generate("decoder", Config(rows=1, groups=2, nm=("2:4",)), tmp_path, name="one")
    text = (tmp_path / "one.vlt").read_text()
    waivers = json.loads((tmp_path / "one.json").read_text())["waivers"]["one.v"]
    for rule, reason in waivers.items():
        assert f"// {rule}: {reason}." in re.sub(r"\n// (?!\w+: )", " ", text)
    # The same text under another name: nothing is waived in a file whose name ends alike.
    (tmp_path / "another_one.v").write_text((tmp_path / "one.v").read_text())
    found = {re.match(r"%Warning-(\w+)", line)[1] for line in lint(tmp_path, "one", "one.vlt", "another_one.v")[:-1]}
    assert found & set(waivers)


def _two(tmp_path: Path, hierarchy: bool, top: str) -> list[str]:
    """Two configurations in one design; the files to compile."""
    configs = {
        "first": Config(rows=4, groups=2, columns=16, lanes=4, drain_lanes=2, multiplier="dsp", weight_words=512),
        "second": Config(rows=8, groups=2, columns=32, lanes=8, drain_lanes=4, multiplier="mac16", weight_words=512),
    }
    files, instances = [], []
    for name, config in configs.items():
        generate(top, config, tmp_path / name, name=name, hierarchy=hierarchy)
        files += [
            f"{name}/{name}.vlt",
            f"{name}/{name}.v",
            f"{name}/{PRIMITIVES_FILES[config.multiplier]}",
            f"{name}/{name}_example.v",
        ]
        ports = json.loads((tmp_path / name / f"{name}.json").read_text())["ports"]
        nets = "".join(f"wire [{p['width'] - 1}:0] {name}_{p['name']};\n" for p in ports)
        pins = ", ".join(f".{p['name']}({name}_{p['name']})" for p in ports)
        instances.append(f"{nets}{name}_example u_{name}({pins});\n")
    (tmp_path / "both.v").write_text(f"module both;\n{''.join(instances)}endmodule\n")
    return [*files, "both.v"]


@pytest.mark.parametrize(
    ("top", "hierarchy"),
    [("engine", False), ("engine", True), pytest.param("accelerator", True, marks=pytest.mark.slow)],
)
def test_two_configurations_in_one_design(top: str, hierarchy: bool, tmp_path: Path) -> None:
    files = _two(tmp_path, hierarchy, top)
    found = lint(tmp_path, "both", "-Wno-fatal", *files)
    assert not [line for line in found if line.startswith("%Error") or "MODDUP" in line], found
    modules = [m for f in files if f.endswith(".v") and "primitives" not in f
               for m in re.findall(r"^module (\S+?)[ (;]", (tmp_path / f).read_text(), re.M)]  # fmt: skip
    assert len(modules) == len(set(modules)) and (len(modules) > 20) == hierarchy
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus is not installed (Debian: iverilog); Verilator took the design")
    run = subprocess.run(
        ["iverilog", "-g2005-sv", "-s", "both", "-o", "both.vvp", *(f for f in files if f.endswith(".v"))],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[:2000]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolError, match=r"below/softmax\.v.* cannot be written"):
        generate("softmax", PRESETS["ci"], tmp_path / "file" / "below")
    (tmp_path / "decoder.v").mkdir()
    with pytest.raises(ToolError, match=r"decoder\.v, .* cannot be written"):
        generate("decoder", PRESETS["ci"], tmp_path)


def test_an_unknown_top() -> None:
    with pytest.raises(InputError, match="top 'cpu' is unknown; it is engine, softmax, decoder"):
        component("cpu", PRESETS["ci"])

"""The commands for FPGAs: tables, JSON, refusals; a block placed, routed and timed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_cli import run

from boards import BOARDS
from sta_hw.fpga.fit import ESTIMATE_ERROR, estimate, refusal
from sta_hw.fpga.parts import PARTS
from sta_hw.fpga.routing import named
from sta_hw.fpga.synthesis import cell_counts
from sta_hw.spec.config import Config
from sta_hw.spec.presets import preset

FITTED = Path(__file__).parents[2] / "scripts" / "results" / "fpga-fit.json"


def test_fit_tells_what_runs_out_first() -> None:
    result = run("fit", "--part", "lfe5u-25f", "--json")
    assert result.returncode == 0, result.stderr
    presets = {p["preset"]: p for p in json.loads(result.stdout)["parts"]["lfe5u-25f"]}
    assert presets["ecp5-25f"]["fits"] != "no" and presets["ecp5-25f"]["macs"] == 32
    assert presets["reference"]["fits"] == "no" and presets["reference"]["first"] == "memories"
    table = run("fit", "--part", "lfe5u-85f")
    assert table.returncode == 0 and "runs out first" in table.stdout


def test_fit_of_every_part() -> None:
    result = run("fit", "--json")
    assert result.returncode == 0, result.stderr
    parts = json.loads(result.stdout)["parts"]
    assert list(parts) == ["lfe5u-25f", "lfe5u-45f", "lfe5u-85f", "lfe5um5g-85f", "ice40up5k", "ice40hx8k"]
    fits = {(name, p["preset"]): p["fits"] for name, presets in parts.items() for p in presets}
    for each in BOARDS.values():  # what is placed and routed is not called too large
        if each.sdram is not None or each.part == "ice40up5k":
            assert fits.get((each.part, each.preset), "yes") != "no"
    assert fits["ice40up5k", "reference"] == "no"
    table = run("fit")
    assert table.returncode == 0 and "✗ LUTs" in table.stdout and "✓ mult" in table.stdout


def test_estimates_are_as_far_from_synthesis_as_is_said() -> None:
    """Of what `scripts/bench_fit.py` synthesized; it says what changed since."""
    rows = json.loads(FITTED.read_text())["rows"]
    assert len(rows) > 20
    for row in rows:
        config = preset(row["preset"]) if "preset" in row else Config(**row["configuration"])
        found = estimate(row["kind"], config, row["family"])
        assert abs(found["logic"] / row["logic"] - 1) <= ESTIMATE_ERROR, row
        assert found["multipliers"] == row["multipliers"], row
        if "date" in row or row["kind"] == "engine" or row["family"] == "ice40":
            # Accelerators without a date are of older RTL, which had fewer.
            assert found["memories"] == row["memories"], row


def test_refusals_stay_clear_of_the_estimates_error() -> None:
    config = preset("up5k")
    room = replace(PARTS["ice40up5k"], logic=round(estimate("board", config, "ice40")["logic"] / 1.03))
    assert not refusal("engine", config, room)
    tight = replace(room, logic=round(room.logic / 1.05))
    assert "logic cells do not fit ice40up5k" in "".join(refusal("engine", config, tight))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "--board", "ulx3s-25f", "--preset", "reference"], "do not fit lfe5u-25f, which has"),
        (["build", "--board", "ulx4s"], "board 'ulx4s' is unknown"),
        (["synth", "--part", "lfe5u-95f"], "part 'lfe5u-95f' is unknown; there are lfe5u-12f"),
        (["fit", "--part", "ultrascale+"], "there is no estimate of the board on xcup"),
        (["fit", "--part", "ice40up5k", "--top", "engine"], "there is no estimate of the engine on ice40"),
        (["build", "--board", "icebreaker", "--preset", "ci"], "logic cells do not fit ice40up5k, which has 5,280"),
        (["selftest", "--board", "icebreaker", "--port", "/dev/nowhere"], "cannot open /dev/nowhere"),
    ],
)
def test_refusals(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2 and not result.stdout
    assert message in result.stderr


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("core.engine.pending_LUT4_Z_A[3]_TRELLIS_FF_Q", "core.engine.pending"),
        ("array.multiplier_6_2.a[2][2]", "array.multiplier_6_2.a[2]"),
        ("rows[2][3]", "rows[2][3]"),
        ("$auto$alumacc.cc:485:replace_alu$2", ""),
    ],
)
def test_names_of_the_critical_path(cell: str, name: str) -> None:
    assert named(cell) == name


def test_synth_places_and_routes(tmp_path: Path) -> None:
    """A decoder on the smallest ECP5: cells, Fmax, a critical path in the design's terms, log and picture."""
    result = run(
        "synth", "--top", "decoder", "--preset", "ci", "--part", "lfe5u-25f", "-o", str(tmp_path), "--json"
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["cells"]["LUT4"] > 100 and found["cells"]["TRELLIS_FF"] > 50
    (seed,) = found["seeds"]
    assert seed["fmax"] > 20 and seed["path"] and not any("$" in name for name in seed["path"])
    assert (tmp_path / "nextpnr-1.log").read_text() and (tmp_path / found["picture"]).stat().st_size > 1000


@pytest.mark.parametrize("part", ["ultrascale+", pytest.param("ice40hx8k", marks=pytest.mark.slow)])
def test_synth_of_other_families(part: str, tmp_path: Path) -> None:
    """Xilinx is counted; a block with more ports than an iCE40 has pins is placed all the same."""
    result = run("synth", "--top", "decoder", "--preset", "ci", "--part", part, "-o", str(tmp_path), "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    cells = found["cells"]
    assert cells["registers"] > 50 and max(cells.get("LUT", 0), cells.get("SB_LUT4", 0)) > 100
    assert [seed["fmax"] > 20 and len(seed["path"]) > 1 for seed in found["seeds"]] == [True] * (part == "ice40hx8k")


def test_cells_of_ultrascale(tmp_path: Path) -> None:
    """Carry cells, and LUTs that are memory, are not forgotten."""
    kinds = {"LUT2": 5, "LUT6": 7, "CARRY4": 3, "RAM32M16": 2, "RAM64X1D": 1, "SRL16E": 4, "FDRE": 9, "FDSE": 1}
    (tmp_path / "stat.json").write_text(json.dumps({"design": {"num_cells_by_type": kinds}}))
    cells = cell_counts(tmp_path, "xcup")
    assert (cells["LUT"], cells["LUT_memory"], cells["CARRY4"], cells["registers"]) == (12, 22, 3, 10)


def test_selftest_of_a_simulated_board() -> None:
    result = run("selftest", "--board", "icebreaker", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["equal"] is True


@pytest.mark.slow
def test_a_bitstream_from_end_to_end(tmp_path: Path) -> None:
    """The engine with 8 MACs behind ULX3S's serial line: synthesized, placed, routed, timed and packed."""
    result = run("build", "--board", "ulx3s-25f-engine", "--preset", "ci", "-o", str(tmp_path), "--json")
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["hash"] == preset("ci").hash and manifest["routed"]["fmax"] >= manifest["frequency_mhz"] == 80
    bits = (tmp_path / manifest["bitstream"]).read_bytes()
    assert hashlib.sha256(bits).hexdigest() == manifest["sha256"]
    # The preamble of ECP5's configuration, and the device's number, LFE5U-25F, in what follows.
    assert bytes.fromhex("ffffbdb3") in bits[:1000] and bytes.fromhex("e2000000 41111043") in bits[:1000]


@pytest.mark.slow
def test_a_design_too_large_for_the_part(tmp_path: Path) -> None:
    """Yosys' cells are few enough, with what is packed apart they are not: nextpnr finds out; one sentence says so."""
    result = run("synth", "--part", "ice40up5k", "--preset", "up5k", "--top", "engine", "-o", str(tmp_path))
    assert result.returncode == 2 and "engine does not fit ice40up5k: nextpnr says" in result.stderr

"""The accelerator's buses in its wrapper, driven by cocotbext-axi and watched by the protocol checker.

Pauses on every channel, bus errors, the interrupt; 64-bit addresses, wide identifiers, buses of every width.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from cocotb_tools.runner import get_runner
from support import embed

from sim import verilator
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import ConfigError
from sta_hw.generate.generator import component
from sta_hw.generate.wrapper import axi_wrapper
from sta_hw.model.random import random_ids, random_model
from sta_hw.reference.program import run_program
from sta_hw.rtl.emit import emit_verilog
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error, Opcode

CHECKER = Path(verilator.__file__).with_name("axi_checker.v")
HIGH = 0xFEDCBA98
"""Bits 63 to 32 of the memory's addresses."""
COUNTED = (
    "violations", "reads", "writes", "most_reads", "most_writes", "lite_violations", "lite_reads", "lite_writes"
)  # fmt: skip
"""What the checkers count."""
MOST_WRITES = 17
"""Bursts of writes under way at most, in every configuration: docs/axi.md."""
OUTSTANDING = {4: 1, 8: 2, 16: 5, 32: 3, 64: 8}
"""By bytes of the bus: `outstanding`, the most bursts of reads under way."""


def configuration(lanes: int) -> Config:
    """A small accelerator with a bus of so many bytes."""
    return Config(
        rows=max(4, lanes), groups=2, window=max(8, lanes // 2), lanes=lanes, drain_lanes=max(1, lanes // 8),
        columns=32, weight_words=512, parameter_words=64, norm_columns=16, burst=8,
        outstanding=OUTSTANDING[lanes],
    )  # fmt: skip


def bench(config: Config, base: int, size: int) -> str:
    """A module with the wrapper's ports around it and the checkers, for an image of `size` bytes at `base`."""
    text, width = axi_wrapper("accelerator", config), 64
    parameters = {"ADDRESS_WIDTH": str(width), "ADDRESS_HIGH": f"32'h{HIGH:x}", "ID_WIDTH": "4", "ID": "4'd9"}
    ports = re.findall(r"(input|output) +wire (\[[^\]]+\] )?(\w+)", text)
    for name, value in (("ADDRESS_WIDTH", str(width)), ("ID_WIDTH", "4")):
        ports = [(d, span.replace(name, value), p) for d, span, p in ports]
    declared = ",\n".join(f"{d} wire {span}{p}" for d, span, p in ports)
    connected = ", ".join(f".{p}({p})" for _, _, p in ports)
    given = ", ".join(f".{n}({v})" for n, v in parameters.items())
    names = [p for _, _, p in ports if p != "irq"]
    master = ", ".join(f".{p.removeprefix('m_axi_')}({p})" for p in names if not p.startswith("s_axi"))
    slave = ", ".join(f".{p.removeprefix('s_axi_')}({p})" for p in names if not p.startswith("m_axi"))
    return (
        f"module bench (\n{declared},\n" + ",\n".join(f"output wire [31:0] {n}" for n in COUNTED) + "\n);\n"
        f"accelerator_axi #({given}) dut ({connected});\n"
        f"axi_checker #(.ADDRESS_WIDTH({width}), .DATA_BYTES({config.bus_bytes}), .ID_WIDTH(4),\n"
        f"    .BOUNDARY({config.burst * config.bus_bytes}),\n"
        f"    .MOST_READS({OUTSTANDING[config.lanes]}), .MOST_WRITES({MOST_WRITES}),\n"
        f"    .WINDOW_BASE(64'h{HIGH << 32 | base:x}), .WINDOW_BYTES({size})) checker_i ({master},\n    "
        + ", ".join(f".{n}({n})" for n in COUNTED if "lite" not in n) + ");\n"
        # A second write is taken while the first one's answer waits.
        f"axi_lite_checker #(.ADDRESS_WIDTH(12), .MOST_READS(1), .MOST_WRITES(2)) lite_i ({slave},\n    "
        + ", ".join(f".{n.removeprefix('lite_')}({n})" for n in COUNTED if "lite" in n) + ");\nendmodule\n"
    )  # fmt: skip


@pytest.mark.parametrize("lanes", [4, 16, *(pytest.param(lanes, marks=pytest.mark.slow) for lanes in (8, 32, 64))])
def test_programs_over_axi(lanes: int, tmp_path: Path) -> None:
    config = configuration(lanes)
    config.require_accelerator()
    model = random_model(5, hidden=8, heads=2, intermediate=8)
    program = compile_encoder(quantize(model, [random_ids(i, 6) for i in range(3)]), config, 6)
    image = program.with_input(embed(model, random_ids(1, 6)))
    expected = run_program(image, program.program_address, config, length=program.length)
    image.tofile(tmp_path / "image.bin")
    product = next(i for i in program.expanded() if i.opcode == Opcode.PRODUCT)
    number = program.expanded().index(product)
    load = program.expanded()[0]
    assert load.opcode == Opcode.LOAD
    base = {"image": "image.bin", "program": program.program_address, "length": program.length, "error": [0, 0],
            "limit": 200_000, "reset": False}  # fmt: skip
    base |= {"block": []}
    good = [base | {"pause": p} for p in (0.0, 0.3, 0.7)]
    bad_read = base | {"pause": 0.2, "error": [load["address"], load["address"] + 1], "reset": True}
    bad_write = base | {
        "pause": 0.2,
        "error": [product["result_address"], product["result_address"] + 4],
        "reset": True,
    }
    piled = [base | {"pause": 0.0, "block": [channel]} for channel in ("r", "b")]
    cases = [good[0], bad_read, good[1], bad_write, good[2], bad_read | {"reset": False}, good[0], *piled]
    # What is under way behind an error is many bursts.
    cases += [bad_read | {"pause": 0.0, "block": ["r"], "reset": reset} for reset in (False, True)] + [good[0]]
    place = 3 * config.burst * config.bus_bytes
    (tmp_path / "cases.json").write_text(json.dumps({"high": HIGH, "base": place, "counted": COUNTED, "cases": cases}))
    (tmp_path / "accelerator.v").write_text(emit_verilog(component("accelerator", config), "accelerator"))
    (tmp_path / "accelerator_axi.v").write_text(axi_wrapper("accelerator", config))
    (tmp_path / "bench.v").write_text(bench(config, place, len(image)))
    (tmp_path / "public.vlt").write_text(verilator.public({"bench": ["*"], "axi_checker": ["*"]}))
    with mock.patch.dict(os.environ, verilator.environment() | {"STA_HW_VECTORS": str(tmp_path)}):
        runner = get_runner("verilator")
        runner.build(
            sources=[tmp_path / "public.vlt", tmp_path / "accelerator.v", tmp_path / "accelerator_axi.v", CHECKER,
                     tmp_path / "bench.v"],
            hdl_toplevel="bench", build_dir=tmp_path / "build", timescale=("1ns", "1ps"), always=True,
            build_args=verilator.COCOTB_ARGUMENTS, log_file=tmp_path / "build.log",
        )  # fmt: skip
        runner.test(
            hdl_toplevel="bench", test_module="sim.cocotb_accelerator", build_dir=tmp_path / "build",
            test_dir=tmp_path / "build", timescale=("1ns", "1ps"), log_file=tmp_path / "test.log",
        )  # fmt: skip
    log = (tmp_path / "test.log").read_text()
    assert (tmp_path / "results.json").exists(), log[-3000:]
    found = json.loads((tmp_path / "results.json").read_text())
    told = "\n".join(line for line in log.splitlines() if "violation at" in line)[:2000]
    assert not found["violations"] and not found["lite_violations"] and not told, told
    assert found["reads"] > 100 and found["writes"] > 20  # the checkers saw them
    assert found["lite_reads"] > 30 and found["lite_writes"] > 40
    print(f"{lanes} bytes, outstanding {config.outstanding}: at most {found['most_reads']} reads and "
          f"{found['most_writes']} writes under way")  # fmt: skip
    results = found["cases"]
    assert len(results) == len(cases)
    for position, (case, result) in enumerate(zip(cases, results, strict=True)):
        assert result["status"] is not None, f"case {position} did not end"
        if case["error"] == [0, 0]:
            assert result["status"] & 0xFF06 == 0b010
            after = np.fromfile(tmp_path / f"after{position}.bin", np.uint8)
            np.testing.assert_array_equal(after, expected)
        else:
            error = Error.READ if case["error"] == bad_read["error"] else Error.WRITE
            assert result["status"] & 0xFF06 == int(error) << 8 | 0b100
            assert result["instruction"] == (0 if error == Error.READ else number)


def test_a_burst_is_no_longer_than_axi_allows() -> None:
    with pytest.raises(ConfigError, match=r"exceed AXI's 4,096 bytes; the nearest is 64"):
        Config(rows=64, lanes=64, burst=128).require_accelerator()

"""The accelerator's buses, driven and checked by cocotbext-axi: pauses on every channel, bus errors, the interrupt."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest import mock

import numpy as np
from cocotb_tools.runner import get_runner
from support import embed

from sim import verilator
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.generate.generator import component
from sta_hw.model.random import random_ids, random_model
from sta_hw.reference.program import run_program
from sta_hw.rtl.emit import emit_verilog
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error, Opcode

CONFIG = Config(
    rows=4, groups=2, window=8, lanes=4, drain_lanes=1, columns=32, weight_words=512, parameter_words=64,
    norm_columns=16, burst=8, outstanding=2,
)  # fmt: skip


def test_programs_over_axi(tmp_path: Path) -> None:
    model = random_model(5, hidden=8, heads=2, intermediate=8)
    program = compile_encoder(quantize(model, [random_ids(i, 6) for i in range(3)]), CONFIG, 6)
    image = program.with_input(embed(model, random_ids(1, 6)))
    expected = run_program(image, program.program_address, CONFIG)
    image.tofile(tmp_path / "image.bin")
    product = next(i for i in program.instructions if i.opcode == Opcode.PRODUCT)
    number = program.instructions.index(product)
    load = program.instructions[0]
    assert load.opcode == Opcode.LOAD
    base = {"image": "image.bin", "program": program.program_address, "error": [0, 0], "limit": 200_000, "reset": False}
    good = [base | {"pause": p} for p in (0.0, 0.3, 0.7)]
    bad_read = base | {"pause": 0.2, "error": [load["address"], load["address"] + 1], "reset": True}
    bad_write = base | {
        "pause": 0.2,
        "error": [product["result_address"], product["result_address"] + 4],
        "reset": True,
    }
    cases = [good[0], bad_read, good[1], bad_write, good[2], bad_read | {"reset": False}, good[0]]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    (tmp_path / "accelerator.v").write_text(emit_verilog(component("accelerator", CONFIG), "accelerator"))
    with mock.patch.dict(os.environ, verilator.environment() | {"STA_HW_VECTORS": str(tmp_path)}):
        runner = get_runner("verilator")
        runner.build(
            sources=[tmp_path / "accelerator.v"], hdl_toplevel="accelerator", build_dir=tmp_path / "build",
            build_args=["-Wno-fatal", "-Wno-lint", "--x-initial", "fast"], timescale=("1ns", "1ps"), always=True,
            log_file=tmp_path / "build.log",
        )  # fmt: skip
        runner.test(
            hdl_toplevel="accelerator", test_module="sim.cocotb_accelerator", build_dir=tmp_path / "build",
            test_dir=tmp_path / "build", timescale=("1ns", "1ps"), log_file=tmp_path / "test.log",
        )  # fmt: skip
    assert (tmp_path / "results.json").exists(), (tmp_path / "test.log").read_text()[-3000:]
    results = json.loads((tmp_path / "results.json").read_text())
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

"""The synthesized ECP5 netlist against the RTL and the reference: the same bits, in the same cycles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import covering_products, embed
from test_softmax import mixed_rows

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.fpga.netlist import netlist_verilog
from sta_hw.generate.generator import component
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.reference.program import run_program
from sta_hw.run.outcome import compare
from sta_hw.run.rtl import EngineModel, SoftmaxModel
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error
from sta_hw.spec.patterns import parse_nm

ENGINES = {
    "dsp": Config(rows=2, groups=2, columns=16, multiplier="dsp"),
    "pairs, one short": Config(
        rows=3, groups=2, lanes=1, columns=16, nm=("2:4", "dense"), multiplier="dsp-pair", array_multipliers=3
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dsp", "pairs, one short"])
def test_engine(name: str, tmp_path: Path) -> None:
    config = ENGINES[name]
    netlist = netlist_verilog(component("engine", config), "engine", tmp_path)
    assert netlist.count("  MULT18X18D #(") >= config.hard_multipliers
    products = covering_products(config, 3, limit=40)
    after, before = EngineModel(config, netlist), EngineModel(config)
    for stall, seed in ((0.0, 1), (0.4, 2)):
        runs = [model.run(products, stall=stall, seed=seed) for model in (before, after)]
        assert runs[0].cycles == runs[1].cycles


def test_softmax(tmp_path: Path) -> None:
    config = Config(softmax_lanes=2, softmax_block=8)
    netlist = netlist_verilog(component("softmax", config), "softmax", tmp_path)
    rng = np.random.default_rng(4)
    for wide, gain, stall in ((False, 0, 0.0), (True, 3, 0.4)):
        rows, masks = mixed_rows(rng, 120)
        ends = []
        for text in (None, netlist):
            _, cycles = SoftmaxModel(config, text).run(
                rows, masks=masks, wide=wide, gain=gain, stall=stall, seed=gain + 1
            )
            ends.append(cycles["totals"].tolist())
        assert ends[0] == ends[1]


@pytest.mark.slow
def test_accelerator(tmp_path: Path) -> None:
    """A whole encoder layer, attention and all, on 4 x 2 multipliers."""
    config = Config(
        rows=4, groups=2, lanes=4, columns=32, drain_lanes=1, softmax_lanes=1, softmax_block=8, weight_words=512,
        parameter_words=256, norm_columns=16, burst=8, outstanding=2, multiplier="dsp", nm=("2:4", "dense"),
    )  # fmt: skip
    model = random_model(0, hidden=16, heads=2, layers=1, intermediate=32)
    quantized = quantize(model, [random_ids(0, 12)], mixed_patterns([parse_nm("2:4"), parse_nm("dense")]))
    program = compile_encoder(quantized, config, 5)
    image = program.with_input(embed(model, random_ids(1, 5)))
    expected = run_program(image, program.program_address, config, length=program.length)
    netlist = netlist_verilog(component("accelerator", config), "accelerator", tmp_path)
    cycles = []
    for text in (None, netlist):
        hardware = AcceleratorModel(config, netlist=text)
        for memory in (MemoryModel(), MemoryModel(latency=20, stall=0.4, seed=3)):
            run = hardware.run(image, program.program_address, memory=memory, patience=50_000, length=program.length)
            assert run.error == Error.NONE
            compare(program, run.image, expected)
            cycles.append(run.cycles)
    assert cycles[:2] == cycles[2:]

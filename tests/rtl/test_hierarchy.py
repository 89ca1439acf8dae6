"""Hierarchical Verilog: equal to the flat one in every cycle, with the names of the source."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
from small_programs import compiled
from support import covering_products

from sim.accelerator import AcceleratorModel, MemoryModel
from sim.library import PRIMITIVES
from sim.native import NativeModel, StalledError, build
from sta_hw.host import beats
from sta_hw.reference.program import run_program
from sta_hw.rtl.emit import emit_verilog, ports_of, streams_of
from sta_hw.rtl.hierarchy import shared_modules
from sta_hw.rtl.tops import component
from sta_hw.run.outcome import compare
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Error
from sta_hw.spec.presets import PRESETS

SMALL = Config(rows=4, groups=2, columns=32, drain_lanes=2, multiplier="dsp", softmax_lanes=2)


@cache
def emitted(top: str, config: Config, hierarchy: bool) -> str:
    hardware = component(top, config)
    return emit_verilog(hardware, "deep" if hierarchy else "flat", hierarchy=hierarchy)


def both(top: str, config: Config, deep: str) -> str:
    """A module called as the top level, with its ports and the flat and the hierarchical one in it, on the same inputs.

    From the first clock edge on at which any output of the two differs, all outputs are 0.
    """
    hardware = component(top, config)
    hardware._MustUse__silence = True
    ports = ports_of(hardware)
    outputs = [p for p in ports if p.direction == "output"]
    lines = [f"module {top}(" + ", ".join(p.name for p in ports) + ");"]
    for port in ports:
        size = f"[{port.width - 1}:0] "
        lines.append(f"  {port.direction} wire {size}{port.name};")
        if port in outputs:
            lines += [f"  wire {size}flat_{port.name}, deep_{port.name};"]
            lines += [f"  assign {port.name} = differs ? {port.width}'d0 : flat_{port.name};"]
    for name in ("flat", "deep"):
        pins = ", ".join(f".{p.name}({f'{name}_' if p in outputs else ''}{p.name})" for p in ports)
        lines.append(f"  {name} u_{name}({pins});")
    different = [f"{{{', '.join(f'{name}_{p.name}' for p in outputs)}}}" for name in ("flat", "deep")]
    lines.insert(1, "  reg differs = 0;")
    lines.append(f"  always @(posedge clk) if (!rst && {different[0]} != {different[1]}) differs <= 1;\nendmodule\n")
    return "\n".join([emitted(top, config, False), deep, *lines])


def streamed(top: str, config: Config, deep: str) -> NativeModel:
    streams = streams_of(component(top, config))
    return NativeModel(build(both(top, config, deep), top, streams, extra=[PRIMITIVES], fast=False), streams)


def run_engine(deep: str) -> None:
    model = streamed("engine", SMALL, deep)
    products = covering_products(SMALL, 3, limit=40)
    sent = [p.streams(SMALL) for p in products]
    inputs = {name: np.concatenate([s[name] for s in sent]) for name in sent[0]}
    count = sum(p.weights.columns for p in products) * SMALL.rows // SMALL.drain_lanes
    for seed, stall in enumerate((0.0, 0.3, 0.7)):
        model.run(inputs, {"results": count, "status": len(products)}, stall=stall, seed=seed + 1, linger=20)


def test_engine_equal_in_every_cycle() -> None:
    run_engine(emitted("engine", SMALL, True))


def test_a_difference_would_be_found() -> None:
    """An adder that subtracts, in one of the modules, stops the run above."""
    text = emitted("engine", SMALL, True)
    place = re.search(r"module deep__array_tree.*? (\+) ", text, re.S)
    assert place is not None
    with pytest.raises(StalledError):
        run_engine(text[: place.start(1)] + "-" + text[place.end(1) :])


def test_softmax_and_decoder_equal_in_every_cycle() -> None:
    rng = np.random.default_rng(5)
    model = streamed("softmax", SMALL, emitted("softmax", SMALL, True))
    rows = [beats.logit_beats(rng.integers(-32768, 32768, n), None, SMALL, wide=True) for n in (1, 7, 30, 100)]
    inputs = {"logits": np.concatenate(rows)}
    for seed, stall in enumerate((0.0, 0.5)):
        model.run(inputs, {"probabilities": len(inputs["logits"]), "totals": 4}, stall=stall, seed=seed + 1, linger=9)
    model = streamed("decoder", SMALL, emitted("decoder", SMALL, True))
    products = covering_products(SMALL, 4, limit=30)
    sent = [p.streams(SMALL) for p in products]
    inputs = {n: np.concatenate([s[n] for s in sent]) for n in ("command", "values", "positions")}
    count = {"beats": len(inputs["values"]), "faults": len(products)}
    for seed, stall in enumerate((0.0, 0.5)):
        model.run(inputs, count, stall=stall, seed=seed + 1, linger=9)


def test_accelerator_equal_in_every_cycle() -> None:
    config = PRESETS["ci"]
    text = both("accelerator", config, emitted("accelerator", config, True))
    model = AcceleratorModel(config, netlist=text)
    for seed, tokens in ((0, 5), (1, 17)):
        program, image = compiled("ci", tokens, seed)
        expected = run_program(image, program.program_address, program.config, length=program.length)
        memory = MemoryModel(latency=30, stall=0.4 * seed, seed=seed + 1)
        run = model.run(image, program.program_address, memory=memory, patience=50_000, length=program.length)
        assert run.error == Error.NONE
        compare(program, run.image, expected)


def test_modules_and_signals_are_called_as_in_the_source() -> None:
    text = emitted("accelerator", PRESETS["ci"], True)
    modules = dict(re.findall(r"^module (\w+)\((.*?)^endmodule", text, re.M | re.S))
    assert set(modules) >= {"deep", "deep__core", "deep__core_engine", "deep__core_engine_array", "deep__core_softmax"}
    assert all(name == "deep" or name.startswith("deep__") for name in modules)
    # One module for a kind of block: eight multipliers, one module.
    assert len(re.findall(r"^  deep__core_engine_array_multiplier multiplier_\d_\d \(", text, re.M)) == 8
    assert re.search(r"^  reg \[\d:0\] controller_state\b", text, re.M)
    assert re.search(r"^  reg \[7:0\] operand_3_1\b", modules["deep__core_engine_array"], re.M)
    assert not re.search(r"\\[^$\s]\S*\$\d", text)  # no name of Amaranth's own numbering; Yosys's begin with $
    body = modules["deep__core_engine_decoder"]
    source = set(re.findall(r"^  (?:reg|wire) (?:signed )?(?:\[\d+:0\] )?([a-z]\w*)", body, re.M))
    own = set(re.findall(r"^  (?:reg|wire) (?:signed )?(?:\[\d+:0\] )?(_\d+_)", body, re.M))
    assert len(source) > 100 and own


def test_names_of_one_design() -> None:
    """A number of Amaranth's own, an element of an array, a port of an instance, a signal called as an instance is."""
    text = (
        "module \\top\n  wire width 1 \\x\n  wire width 1 \\x$7\n  wire width 2 \\a$3\n  wire width 1 \\a$3[0]\n"
        "  cell \\top.b_0 \\b_0\n    connect \\q \\x$7\n  end\n  cell \\top.b_1 \\b_1\n    connect \\q \\x\n  end\n"
        "  cell \\top.x$8 \\x$8\n  end\nend\n\n"
        "module \\top.b_0\n  wire width 1 output 0 \\q\nend\n\nmodule \\top.b_1\n  wire width 1 output 0 \\q\nend\n\n"
        "module \\top.x$8\nend\n"
    )
    assert shared_modules(text, "top") == (
        "attribute \\top 1\nmodule \\top\n  wire width 1 \\x\n  wire width 1 \\b_0__q\n  wire width 2 \\a\n"
        "  wire width 1 \\a_0\n  cell \\top__b \\b_0\n    connect \\q \\b_0__q\n  end\n  cell \\top__b \\b_1\n"
        "    connect \\q \\x\n  end\n  cell \\top__x \\x_block\n  end\nend\n\n"
        "module \\top__b\n  wire width 1 output 0 \\q\nend\n\nmodule \\top__x\n\nend\n"
    )
    with pytest.raises(ValueError, match="more than modules"):
        shared_modules(text + "process $1\n", "top")

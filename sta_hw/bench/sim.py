"""Benchmark of the simulation: cycles per second of the whole accelerator, and against the bare engine."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ..host.products import Requantization, tile_linear
from ..run.backends import RtlBackend
from ..run.rtl import EngineModel
from ..spec.patterns import Pattern
from ..spec.presets import PRESETS
from ..tasks.embedder import Embedder
from ..tasks.patterns import read_patterns
from .report import Figure, Report

__all__ = ["run"]

BAR = 150_000


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """One core; a sentence of 16 tokens at 2:4 on the accelerator, dense products on the engine."""
    config = PRESETS["reference"]
    report("loading the model")
    embedder = Embedder.load()
    ids = embedder.token_ids("A sparse network skips every second weight and still knows what is meant")
    model = embedder.compile(read_patterns("2:4", None, embedder.linears), config, len(ids))
    report("compiling the RTL")
    hardware, engine = RtlBackend(config), EngineModel(config)
    report("running the accelerator")
    start = time.perf_counter()
    cycles = hardware.run(model, embedder.part.embed("ids", ids)).run.cycles
    whole = cycles / (time.perf_counter() - start)
    report("running the engine")
    rng = np.random.default_rng(1)
    same = np.ones(384, np.int64)
    parameters = Requantization(same, same * 5000, same)
    products = []
    for _ in range(40):
        weights = rng.integers(-127, 128, (384, 384)).astype(np.int8)
        activations = rng.integers(-127, 128, (16, 384))
        products += [t[0] for t in tile_linear(config, activations, weights, parameters, pattern=Pattern(1, 1))]
    streams = [p.streams(config) for p in products]
    inputs = {name: np.concatenate([s[name] for s in streams]) for name in streams[0]}
    expected = {"results": 384 * len(products) * config.rows // config.drain_lanes, "status": len(products)}
    start = time.perf_counter()
    engine_cycles = engine.raw_run(inputs, expected)
    bare = engine_cycles / (time.perf_counter() - start)
    rows = [
        {"model": "whole accelerator with memory", "cycles": cycles, "cycles_per_second": whole},
        {"model": "engine alone", "cycles": engine_cycles, "cycles_per_second": bare},
    ]
    figures = [
        Figure("whole accelerator, one core", whole, "cycles/s", f">= {BAR}"),
        Figure("whole accelerator against the bare engine", whole / bare, "1", ">= 0.1"),
    ]
    return Report("sim", config, rows, figures)

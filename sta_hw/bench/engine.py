"""Benchmark of the engine: fraction of ideal, every cycle from the first activation in to the last result out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ..formats import prune
from ..host.products import Product, Requantization, tile_batch, tile_linear
from ..run.rtl import EngineModel
from ..spec.config import Config
from ..spec.patterns import Pattern, parse_nm
from ..spec.presets import PRESETS
from .report import Figure, Report

__all__ = ["fraction_of_ideal", "run"]

PRODUCTS, TOKENS, WIDTH = 8, 16, 384
PATTERN_BARS = {
    "dense": 0.97, "8:16": 0.97, "2:4": 0.97, "4:8": 0.97, "1:4": 0.97, "4:16": 0.97, "2:16": 0.95, "1:16": 0.90,
}  # fmt: skip
ATTENTION_TOKENS, ATTENTION_BAR = 128, 0.80


def _parameters(rng: np.random.Generator, count: int, **more: bool) -> Requantization:
    return Requantization(
        rng.integers(-10_000, 10_000, count), rng.integers(1 << 12, 1 << 16, count), np.full(count, 2), **more
    )


def _products(config: Config, rng: np.random.Generator, pattern: Pattern) -> list[Product]:
    """Eight linear layers of 384 x 384, each for 16 tokens or for as many as there are rows."""
    products: list[Product] = []
    for _ in range(PRODUCTS):
        weights = prune(rng.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8), pattern)
        activations = rng.integers(-127, 128, (max(TOKENS, config.rows), WIDTH))
        tiles = tile_linear(config, activations, weights, _parameters(rng, WIDTH), pattern=pattern)
        products += [tile[0] for tile in tiles]
    return products


def fraction_of_ideal(config: Config, pattern: Pattern) -> float:
    """Ideal cycles over cycles counted in RTL, of eight products of 384 x 384; results are checked."""
    products = _products(config, np.random.default_rng(2022), pattern)
    cycles = EngineModel(config).run(products).cycles
    work = PRODUCTS * max(TOKENS, config.rows) * WIDTH**2 * pattern.density
    return work / config.macs / cycles


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """Eight products of 16 x 384 x 384 per pattern, and attention at 128 tokens; results are checked."""
    # The reference array, drained as fast as it loads: at 1:16 it gives more than four results a cycle.
    config = dataclasses.replace(PRESETS["reference"], drain_lanes=8)
    model = EngineModel(config)
    rng = np.random.default_rng(2022)
    rows, figures = [], []

    def measure(name: str, products: list[Product], work: float, bar: float) -> None:
        cycles = model.run(products, layer=name).cycles
        ideal = work / config.macs
        rows.append(
            {"product": name, "commands": len(products), "cycles": cycles, "ideal": ideal, "fraction": ideal / cycles}
        )
        figures.append(Figure(f"{name}: fraction of ideal", ideal / cycles, "1", f">= {bar}"))

    def parameters(count: int, **more: bool) -> Requantization:
        return _parameters(rng, count, **more)

    for name, bar in PATTERN_BARS.items():
        report(name)
        pattern = parse_nm(name)
        products = _products(config, rng, pattern)
        measure(f"{PRODUCTS} x {name}", products, PRODUCTS * TOKENS * WIDTH**2 * pattern.density, bar)

    tokens = ATTENTION_TOKENS
    blocks = tokens // config.rows
    for size in (32, 64):
        report(f"attention, head dimension {size}")
        queries = rng.integers(-127, 128, (blocks, config.rows, size))
        keys = np.repeat(rng.integers(-127, 128, (1, tokens, size)).astype(np.int8), blocks, 0)
        scores = tile_batch(config, queries, keys, [parameters(tokens, wide=True)] * blocks)
        measure(f"Q x K^T, head dimension {size}", [t[0] for t in scores], tokens**2 * size, ATTENTION_BAR)
        probabilities = rng.integers(0, 254, (blocks, config.rows, tokens))
        values = np.repeat(rng.integers(-127, 128, (1, size, tokens)).astype(np.int8), blocks, 0)
        by_row = [parameters(config.rows, per_row=True) for _ in range(blocks)]
        weighted = tile_batch(config, probabilities, values, by_row, unsigned=True)
        measure(f"P x V, head dimension {size}", [t[0] for t in weighted], tokens**2 * size, ATTENTION_BAR)
    return Report("engine", config, rows, figures)

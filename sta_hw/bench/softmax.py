"""Benchmark of the softmax: accuracy of the RTL's output against exact softmax, and its rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..reference.softmax import SoftmaxRow
from ..run.rtl import SoftmaxModel
from ..spec.config import Config
from ..spec.presets import PRESETS
from .report import Figure, Report

__all__ = ["distributions", "normalised", "run"]

LENGTHS = (1, 2, 64, 128, 512, 4096)
DEVIATIONS = (0.5, 1.0, 2.0, 4.0, 8.0)
ROWS = 24


def distributions(rng: np.random.Generator, length: int, rows: int = ROWS) -> dict[str, list[NDArray[np.int64]]]:
    """Rows of quantized logits (base-2 units, 6 fraction bits) by the name of their distribution."""

    def quantized(x: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.clip(np.round(x * np.log2(np.e) * 64), -32768, 32767).astype(np.int64)

    found = {f"normal, deviation {d}": [quantized(rng.normal(0, d, length)) for _ in range(rows)] for d in DEVIATIONS}
    one_hot = []
    for i in range(rows):
        x = np.full(length, -(4.0 + i))
        x[rng.integers(length)] = rng.normal(0, 1)
        one_hot.append(quantized(x))
    found["one-hot"] = one_hot
    found["flat"] = [quantized(np.full(length, rng.normal(0, 4))) for _ in range(rows)]
    return found


def normalised(row: SoftmaxRow) -> NDArray[np.float64]:
    """Probabilities as P x V sees them: scaled to the row's exponent, times the row's requantization."""
    factor = row.multiplier / 2.0 ** (12 + 4 * row.shift)
    return row.probabilities * 2.0 ** (row.exponents - row.exponent) * factor


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """Accuracy over lengths and distributions in both widths; rate for several lanes and blocks."""
    reference = PRESETS["reference"]
    # The block that changes the exponent most often: every beat.
    config = dataclasses.replace(reference, softmax_block=reference.softmax_lanes)
    model = SoftmaxModel(config)
    rng = np.random.default_rng(2022)
    table, figures = [], []
    for wide in (True, False):
        bits = 16 if wide else 8
        worst, low, high = 0.0, 1.0, 1.0
        for length in LENGTHS:
            report(f"{bits} bits, length {length}")
            for name, logits in distributions(rng, length).items():
                found, _ = model.run(logits, wide=wide)
                exact = [np.exp2((x - x.max()) / 64) for x in logits]
                errors = [np.abs(normalised(r) - e / e.sum()).max() for r, e in zip(found, exact, strict=True)]
                sums = [normalised(r).sum() for r in found]
                table.append(
                    {
                        "bits": bits, "length": length, "logits": name, "largest_error": float(max(errors)),
                        "smallest_sum": float(min(sums)), "largest_sum": float(max(sums)),
                    }
                )  # fmt: skip
                if wide or length <= 512:
                    worst = max(worst, float(max(errors)))
                low, high = min(low, float(min(sums))), max(high, float(max(sums)))
        figures.append(Figure(f"{bits} bits: largest absolute error", worst, "1", f"<= {0.002 if wide else 0.012}"))
        if wide:
            figures += [
                Figure("16 bits: smallest row sum", low, "1", ">= 0.995"),
                Figure("16 bits: largest row sum", high, "1", "<= 1.005"),
            ]
    for lanes, block in ((8, 8), (8, 128), (4, 4), (16, 16)):
        report(f"rate, {lanes} lanes, block {block}")
        row, own = _rate(dataclasses.replace(reference, softmax_lanes=lanes, softmax_block=block), rng)
        table.append(row)
        figures += own
    return Report("softmax", config, table, figures)


def _rate(config: Config, rng: np.random.Generator) -> tuple[dict, list[Figure]]:
    """Rows of mixed lengths back to back: beats per cycle, and the latency."""
    model = SoftmaxModel(config)
    lanes, block = config.softmax_lanes, config.softmax_block
    lengths = rng.permutation([lanes] * 100 + [5 * lanes] * 60 + [512] * 20)
    _, cycles = model.run([rng.integers(-1000, 1000, n) for n in lengths], wide=True)
    sent, given = cycles["logits"], cycles["probabilities"]
    bubbles = int(sent[-1] - sent[0] + 1 - len(sent))
    _, single = model.run([rng.integers(-1000, 1000, block)], wide=True)
    latency = int(single["probabilities"][0] - single["logits"][-1])
    name = f"{lanes} lanes, block {block}"
    gaps = int((np.diff(given) - 1).sum()) if block == lanes else bubbles
    row = {
        "bits": 16, "length": "mixed", "logits": f"rate, {name}", "beats": len(sent), "input_bubbles": bubbles,
        "latency_cycles": latency,
    }  # fmt: skip
    rate = len(sent) * lanes / (int(sent[-1] - sent[0]) + 1)
    return row, [
        Figure(f"rate, {name}", rate, "elements/cycle", f">= {lanes}"),
        Figure(f"bubbles between rows, {name}", gaps, "cycles", "<= 0"),
        Figure(f"latency from a block's last beat, {name}", latency, "cycles", "<= 24"),
    ]

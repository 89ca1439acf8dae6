"""Benchmarks: each gives a `Report`; `sta-hw bench NAME` runs one."""

from __future__ import annotations

from collections.abc import Callable

from . import (
    accuracy,
    batch,
    decode,
    decode_batch,
    decode_blocks,
    digits,
    encoder,
    engine,
    explore,
    model,
    perplexity,
    sim,
    softmax,
)
from .report import Figure, Report, tool_versions

__all__ = ["BENCHES", "Figure", "Report", "tool_versions"]

BENCHES: dict[str, Callable[..., Report]] = {
    "engine": engine.run,
    "softmax": softmax.run,
    "encoder": encoder.run,
    "batch": batch.run,
    "accuracy": accuracy.run,
    "model": model.run,
    "sim": sim.run,
    "digits": digits.run,
    "explore": explore.run,
    "perplexity": perplexity.run,
    "decode": decode.run,
    "decode-full": decode.run_full,
    "decode-batch": decode_batch.run,
    "decode-blocks4": decode_blocks.run,
}
"""Benchmarks by name."""

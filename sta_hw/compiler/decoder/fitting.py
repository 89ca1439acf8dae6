"""Steps, gains and parameters of a decoder's integers that fit what calibration saw, with the least squared error."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...model.fp32 import FUNCTIONS
from ...model.operations import Array
from ...spec.patterns import DENSE
from ..parameters import LinearParameters
from ..scales import LARGEST_FACTOR, factors, least_squares_scale, linear_steps
from .integers import Floats

__all__ = ["INDEX_MARGIN", "best_gain", "function_table", "index_step", "product_parameters", "scale_of"]

_MOST_SEEN, _LARGEST_SEEN = 60_000, 4096
"""Values that a step is chosen for: every so many, and the largest."""
INDEX_MARGIN = 1.05
"""A table's index covers this times the largest value that calibration saw."""


def scale_of(values: NDArray) -> float:
    """`least_squares_scale` of values drawn at random, where there are many: a stride would meet some channels only."""
    flat = values.reshape(-1)
    if len(flat) > _MOST_SEEN:
        flat = flat[np.random.default_rng(0).integers(0, len(flat), _MOST_SEEN)]
    return least_squares_scale(flat)


def product_parameters(
    weight: Array, bias: Array, input_scale: Floats, output_scale: Floats | float, second: NDArray | int
) -> LinearParameters:
    """A product of INT8 weights with scales of its inputs' channels and of its results, and the `second` multiplier."""
    columns = len(weight)
    absorbed = weight.astype(np.float64) * input_scale
    results = np.broadcast_to(np.asarray(output_scale, np.float64), (columns,))
    steps = np.minimum(linear_steps(absorbed, bias.astype(np.float64), results), LARGEST_FACTOR * results)
    weights = np.clip(np.round(absorbed / steps[:, None]), -127, 127).astype(np.int8)
    multiplier, shift = factors(steps / results)
    return LinearParameters(
        weights, DENSE, np.round(bias / steps).astype(np.int64), multiplier, shift,
        np.broadcast_to(np.asarray(second, np.int64), (columns,)).copy(), input_scale, steps,
    )  # fmt: skip


def best_gain(context: Array, scale: float) -> int:
    """The power of two that stores contexts with the least squared error."""
    values = context.reshape(-1).astype(np.float64) / scale
    errors = [((np.clip(np.round(values * 2**g), -127, 127) / 2**g - values) ** 2).sum() for g in range(8)]
    return int(np.argmin(errors))


def function_table(function: str, step: float) -> tuple[NDArray[np.int16], float]:
    """The table of a function of ``index * step``, and the scale of its entries."""
    index = np.concatenate([np.arange(128), np.arange(-128, 0)]) * step
    results = FUNCTIONS[function](index.astype(np.float32)).astype(np.float64)
    scale = (float(np.abs(results).max()) or 1.0) / 32767
    return np.round(results / scale).astype(np.int16), scale


def index_step(function: str, inputs: Array, results: Array, up: Array | None) -> float:
    """The step of a table's index with the least squared error of what is made of its entries.

    Beyond its ends the index saturates, which costs little where the function is near zero, and little where such
    values are rare; a coarse step costs everywhere.
    """
    at, wanted = (values.astype(np.float64).reshape(-1) for values in (inputs, results))
    weight = np.ones(len(at)) if up is None else up.astype(np.float64).reshape(-1) ** 2
    every = len(at) // _MOST_SEEN + 1
    largest = np.argsort(-np.abs(wanted * np.sqrt(weight)))[:_LARGEST_SEEN]
    at, wanted, weight = (np.concatenate([a[::every], a[largest]]) for a in (at, wanted, weight * every))
    weight[-len(largest) :] /= every  # those count once
    end = INDEX_MARGIN * float(np.abs(at).max()) / 127
    best, least = end, math.inf
    for step in end * np.linspace(0.1, 1.0, 37):
        index = np.clip(np.round(at / step), -127, 127) * step
        error = float((weight * (FUNCTIONS[function](index.astype(np.float32)) - wanted) ** 2).sum())
        if error < least:
            best, least = float(step), error
    return best

"""Whether integers give what fp32 does: every calibration text runs in both before anything is compiled."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..model.fp32 import value_of
from ..model.graph import Graph
from .calibration import Calibration
from .stepwise import Integers

__all__ = ["LEAST_COSINE", "cosine", "require_faithful"]

LEAST_COSINE = 0.98
"""Of a text's output with fp32's. Eight bits cost all-MiniLM-L6-v2 0.005 at most, pruned to 2:16 0.01."""
_MOST_TOKENS = 1024
"""That are looked at: all 48 texts of the project's own calibration; a second or two for all-MiniLM-L6-v2."""


def cosine(found: NDArray, exact: NDArray) -> float:
    """Of all values together; 0 where nothing is left."""
    found, exact = (a.astype(np.float64).reshape(-1) for a in (found, exact))
    lengths = float(np.linalg.norm(found) * np.linalg.norm(exact))
    return float(found @ exact) / lengths if lengths else 0.0


def _pool(graph: Graph, outputs: NDArray) -> NDArray:
    """All tokens' outputs, (tokens, width), to one, as the graph's end says; the first, if it does not pool."""
    last = graph.by_name[graph.operations[-1].inputs[0]]
    return outputs[0] if len(graph.shapes[last.name]) == 2 else value_of(last, outputs)


def require_faithful(calibration: Calibration, quantized: Graph) -> None:
    """Check that the integers' outputs are fp32's, but for what eight bits cost: pooled, and of all tokens together.

    Raises
    ------
    InputError
        Names the worst text, its cosine and the limit; the operation that costs most of it (alone in integers, or,
        where none does alone, alone in real numbers), where it is furthest off, by token, channel and values; and the
        model's largest weight.
    """
    graph, begins = calibration.part.inner, calibration.part.begins
    texts = _spread([run[begins] for run in calibration.runs])
    integers = Integers(graph, quantized, [calibration.runs[t][begins] for t in texts])
    found = integers.run()
    worst, least = 0, 1.0
    for text, output in zip(texts, np.split(found[integers.last], integers.ends), strict=True):
        exact = calibration.runs[text][integers.last]
        each = min(cosine(_pool(graph, output), _pool(graph, exact)), cosine(output, exact))
        worst, least = (text, each) if each < least else (worst, least)
    if least < LEAST_COSINE:
        why = _blame(Integers(graph, quantized, [calibration.runs[worst][begins]]))
        raise InputError(
            f"calibration text {worst}: the cosine of the integers' output with fp32's is {least:.4f}, and "
            f"{LEAST_COSINE} is the limit; {why}{calibration.blame(integers.last, True)}."
        )


def _spread(texts: list[NDArray]) -> list[int]:
    """Numbers of texts, evenly spread over all, of no more than `_MOST_TOKENS` together; at least one."""
    count = len(texts)
    while count > 1:
        chosen = [int(i) for i in np.linspace(0, len(texts) - 1, count)]
        if sum(len(texts[i]) for i in chosen) <= _MOST_TOKENS:
            return chosen
        count -= 1
    return [0]


def _blame(integers: Integers) -> str:
    """The step of one text that costs most, and where it is furthest off."""
    exact, whole = integers.run(()), integers.run()

    def left(found: Mapping[str, NDArray]) -> float:
        """What is left of the output."""
        pooled = (_pool(integers.graph, each[integers.last]) for each in (found, exact))
        return cosine(*pooled)

    alone = {step: integers.run({step}) for step in exact}
    step = min(exact, key=lambda name: left(alone[name]))
    if left(alone[step]) < LEAST_COSINE:
        values, why = alone[step][step], f"most is lost in {step}, in integers alone {left(alone[step]):.4f}"
    else:
        without = {step: left(integers.run(exact.keys() - {step})) for step in exact}
        step = max(exact, key=lambda name: without[name])
        values, why = whole[step], f"no step alone loses so much; with {step} in real numbers {without[step]:.4f}"
    token, channel = (int(i) for i in np.unravel_index(np.abs(values - exact[step]).argmax(), values.shape))
    return (
        f"{why}: furthest off at token {token}, channel {channel}, which is {values[token, channel]:.4g}, and "
        f"{exact[step][token, channel]:.4g} in fp32"
    )

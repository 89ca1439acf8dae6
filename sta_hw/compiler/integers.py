"""Operations with integer parameters: a quantized graph is the fp32 graph with these in the others' places."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model.graph import Graph
from ..model.operations import Activate, Attention, Input, Linear, Norm, Operation, Output
from ..spec.patterns import DENSE, Pattern
from .parameters import Ints, LinearParameters, NormParameters

__all__ = [
    "IntegerActivate",
    "IntegerAttention",
    "IntegerInput",
    "IntegerLinear",
    "IntegerNorm",
    "IntegerOutput",
    "blank",
    "linear_of",
]


def _flat(o: Operation, *records: Any) -> dict[str, object]:
    """An operation's attributes, and those of records that it has."""
    found = Operation.attributes(o)
    inner = {f.name: getattr(r, f.name) for r in records if r is not None for f in dataclasses.fields(r)}
    return {k: v for k, v in found.items() if not dataclasses.is_dataclass(v) and v is not None} | inner


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerInput(Input):
    """The sum of embeddings in 16 bits.

    Attributes
    ----------
    scale : float
        0 if each token has its own (sta_hw/compiler/embedded.py).
    """

    scale: float = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerLinear(Linear):
    """A product and its requantization.

    Attributes
    ----------
    parameters : LinearParameters
    wide : LinearParameters or None
        Where a residual sum takes the results too (ELECTRA's projection): the same to 16 bits.
    """

    parameters: LinearParameters
    wide: LinearParameters | None = None

    @staticmethod
    def of(o: Linear, parameters: LinearParameters, wide: LinearParameters | None = None) -> IntegerLinear:
        """`o` in integers."""
        weight: Any = parameters.weights
        bias: Any = parameters.bias
        return IntegerLinear(o.name, o.inputs, weight, bias, parameters=parameters, wide=wide)

    def attributes(self) -> dict[str, object]:
        """Its integers by name, without the weights that the operation has already."""
        own = _flat(self, self.parameters)
        del own["weights"]
        return own


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerNorm(Norm):
    """A LayerNorm in integers; the epsilon is none of the hardware's."""

    parameters: NormParameters

    @staticmethod
    def of(o: Norm, parameters: NormParameters) -> IntegerNorm:
        """`o` in integers."""
        scale: Any = parameters.scale
        shift: Any = parameters.shift
        return IntegerNorm(o.name, o.inputs, scale, shift, o.epsilon, parameters=parameters)

    def attributes(self) -> dict[str, object]:
        """Its integers by name, without what is the real numbers'."""
        own = _flat(self, self.parameters)
        for name in ("weight", "bias", "epsilon"):
            del own[name]
        return own


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerAttention(Attention):
    """Scores, softmax and context in integers.

    Attributes
    ----------
    score_multiplier, score_shift : int64 arrays, shape (heads,)
        Requantization of the products of queries and keys.
    coarse : int64 array, shape (heads,)
        1 where scores have 3 fraction bits instead of 6.
    gain : int64 array, shape (heads,)
        The context's scale is the value's over ``2**gain``.
    """

    score_multiplier: Ints
    score_shift: Ints
    coarse: Ints
    gain: Ints


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerActivate(Activate):
    """An activation function as a table: of the 256 values of 8 bits, 0 to 127 and -128 to -1."""

    table: NDArray[np.int16]


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerOutput(Output):
    """The result.

    Attributes
    ----------
    scale : float
        Of the 8 bits that are pooled; pooled results are in units of it over `POOL_FACTOR`.
    wide_scale : float
        Of every token's output in 16 bits.
    """

    scale: float = 1.0
    wide_scale: float = 1.0


def linear_of(graph: Graph, name: str) -> IntegerLinear:
    """A linear operation by its name."""
    found = graph.by_name[name]
    assert isinstance(found, IntegerLinear)
    return found


def blank(graph: Graph, patterns: Mapping[str, Pattern] | None = None) -> Graph:
    """A graph in integers that are all zero: for what depends on shapes alone.

    Its arrays take no memory, whatever their shapes.
    """
    patterns = patterns or {}

    def zeros(*shape: int, kind: type[np.generic] = np.int64) -> NDArray[Any]:
        return np.broadcast_to(kind(0), shape)

    def of(o: Operation) -> Operation:
        if isinstance(o, Linear):
            columns, reduction = o.weight.shape
            parameters = LinearParameters(
                zeros(columns, reduction, kind=np.int8), patterns.get(o.name, DENSE), *(zeros(columns),) * 4
            )
            alone = len(graph.takers(o.name)) == 1
            return IntegerLinear.of(o, parameters, None if alone else parameters)
        if isinstance(o, Norm):
            return IntegerNorm.of(o, NormParameters(*(zeros(len(o.weight)),) * 3))
        if isinstance(o, Attention):
            each = zeros(o.heads)
            return IntegerAttention(
                o.name, o.inputs, o.heads, o.causal, score_multiplier=each, score_shift=each, coarse=each, gain=each
            )
        if isinstance(o, Activate):
            return IntegerActivate(o.name, o.inputs, o.function, table=zeros(256, kind=np.int16))
        if isinstance(o, Input):
            return IntegerInput(o.name, o.inputs, o.given, scale=1.0)
        return IntegerOutput(o.name, o.inputs) if isinstance(o, Output) else o

    return Graph(graph.name, tuple(map(of, graph.operations)), graph.sources)

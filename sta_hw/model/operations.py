"""What a network computes: operations, each of which gives one value that later ones name.

A value has a shape: the number of tokens (`TOKENS` where the text decides it, an integer where an image does), then
its width; the result of a pooling has the width alone. Arrays are float32. An operation is a dataclass here, a
function in `fp32`, and a row of docs/models.md.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "TOKENS",
    "Activate",
    "Add",
    "Array",
    "Attention",
    "Convolution",
    "Embed",
    "Input",
    "Linear",
    "Maximum",
    "Mean",
    "Multiply",
    "Norm",
    "Normalize",
    "Operation",
    "Output",
    "Prepend",
    "RmsNorm",
    "Rotary",
    "Select",
    "Shape",
    "ShapeError",
]

Array = NDArray[np.float32]
Shape = tuple[int | str, ...]

TOKENS = "tokens"
"""The number of tokens, where it is that of the text."""


class ShapeError(Exception):
    """What is wrong with an operation, as a sentence."""


def _expect(condition: bool, sentence: str) -> None:
    if not condition:
        raise ShapeError(sentence)


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation, and the value it gives.

    Attributes
    ----------
    name : str
        The value's, unique in its graph.
    inputs : names of values that earlier operations give
    """

    name: str
    inputs: tuple[str, ...]

    arity = 1

    def shape(self, *given: Shape) -> Shape:
        """The value's shape, from those of the inputs; one input of any shape gives the same."""
        return given[0]

    def attributes(self) -> dict[str, object]:
        """What there is beside name and inputs."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("name", "inputs")]
        return {n: getattr(self, n) for n in names}


@dataclass(frozen=True, eq=False)
class Input(Operation):
    """What is given: token ids of shape (tokens,), an image (height, width, channels), features (frames, bins)."""

    given: Shape

    arity = 0

    def shape(self, *given: Shape) -> Shape:
        _expect(
            bool(self.given) and all(s == TOKENS or (isinstance(s, int) and s > 0) for s in self.given),
            f"has the shape {self.given}; its sizes are positive, or {TOKENS!r}",
        )
        return self.given


@dataclass(frozen=True, eq=False)
class Embed(Operation):
    """A row of a table for every token.

    Attributes
    ----------
    table : Array, shape (rows, width)
    rows : str
        Which row: ``token``, the token's id; ``position``, its number in the text; ``first``, row 0 for all.
    offset : int
        Row of position 0.
    padding : int or None
        RoBERTa's positions: they count the tokens that are not this one; this one always has the row before
        the first position's.
    """

    table: Array
    rows: str = "token"
    offset: int = 0
    padding: int | None = None

    def shape(self, *given: Shape) -> Shape:
        wanted = 2 if self.rows == "position" and len(given[0]) == 2 else 1  # Positions ask for the number alone.
        _expect(len(given[0]) == wanted, f"takes token ids, not a value of shape {given[0]}")
        _expect(self.table.ndim == 2, f"has a table of shape {self.table.shape}; it is (rows, width)")
        _expect(self.offset >= 0, f"has an offset of {self.offset}; the least is 0")
        _expect(self.rows in ("token", "position", "first"), f"has rows {self.rows!r}")
        return (given[0][0], self.table.shape[1])


@dataclass(frozen=True, eq=False)
class Convolution(Operation):
    """A convolution over one or two dimensions, channels last; its result is (positions, channels), row after row.

    Attributes
    ----------
    weight : Array, shape (channels out, channels in, size) or (channels out, channels in, height, width)
    bias : Array, shape (channels out,)
    stride, padding : one integer for each dimension
    """

    weight: Array
    bias: Array
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def shape(self, *given: Shape) -> Shape:
        *sizes, channels = given[0]
        kernel = self.weight.shape[2:]
        _expect(len(sizes) == len(kernel), f"has a kernel of {len(kernel)} dimensions for a value of shape {given[0]}")
        _expect(channels == self.weight.shape[1], f"takes {self.weight.shape[1]} channels, not {channels}")
        _expect(min(self.stride) > 0 and min(self.padding) >= 0, f"has strides {self.stride}, padding {self.padding}")
        count = 1
        for size, length, stride, padding in zip(sizes, kernel, self.stride, self.padding, strict=True):
            _expect(isinstance(size, int), "takes a fixed size")
            _expect(int(size) + 2 * padding >= length, f"has a kernel of {length} for a size of {size}")
            count *= (int(size) + 2 * padding - length) // stride + 1
        return (count, self.weight.shape[0])


@dataclass(frozen=True, eq=False)
class Prepend(Operation):
    """Constant tokens ahead of the others: a class token, a distillation token.

    Attributes
    ----------
    rows : Array, shape (tokens, width)
    """

    rows: Array

    def shape(self, *given: Shape) -> Shape:
        count, width = given[0]
        _expect(width == self.rows.shape[1], f"puts tokens of width {self.rows.shape[1]} ahead of a width of {width}")
        _expect(isinstance(count, int), "takes a fixed number of tokens")
        return (int(count) + len(self.rows), width)


@dataclass(frozen=True, eq=False)
class Linear(Operation):
    """``x @ weight.T + bias``.

    Attributes
    ----------
    weight : Array, shape (width out, width in)
    bias : Array, shape (width out,)
    """

    weight: Array
    bias: Array

    def shape(self, *given: Shape) -> Shape:
        out, into = self.weight.shape
        _expect(given[0][-1] == into, f"takes a width of {into}, not {given[0][-1]}")
        _expect(self.bias.shape == (out,), f"has {out} rows of weights and a bias of shape {self.bias.shape}")
        return (*given[0][:-1], out)


@dataclass(frozen=True, eq=False)
class Norm(Operation):
    """LayerNorm over the width.

    Attributes
    ----------
    weight, bias : Arrays, shape (width,)
    epsilon : float
        Added to the variance.
    """

    weight: Array
    bias: Array
    epsilon: float

    def shape(self, *given: Shape) -> Shape:
        for array in (self.weight, self.bias):
            _expect(array.shape == (given[0][-1],), f"has {array.shape[0]} parameters for a width of {given[0][-1]}")
        return given[0]


@dataclass(frozen=True, eq=False)
class RmsNorm(Operation):
    """``x / sqrt(mean(x^2) + epsilon) * weight``, over the width or over each of its heads.

    Attributes
    ----------
    weight : Array, shape (width of a head,)
    epsilon : float
        Added to the mean of the squares.
    heads : int
        Parts of the width that are normalized each for itself, with the same weights.
    """

    weight: Array
    epsilon: float
    heads: int = 1

    def shape(self, *given: Shape) -> Shape:
        _expect(self.heads > 0, f"has {self.heads} heads; the least is 1")
        wanted = self.heads * len(self.weight)
        _expect(self.weight.ndim == 1, f"has weights of shape {self.weight.shape}; it is (width of a head,)")
        _expect(given[0][-1] == wanted, f"has {self.heads} heads of {len(self.weight)} for a width of {given[0][-1]}")
        return given[0]


@dataclass(frozen=True, eq=False)
class Rotary(Operation):
    """Rotary positions (arXiv 2104.09864): pairs of a head's elements turn by the token's position.

    Element i of a head's first half and element i of its second half are a pair, as in transformers.

    Attributes
    ----------
    frequencies : Array, shape (half the width of a head,)
        Radians that a pair turns from one position to the next.
    heads : int
    """

    frequencies: Array
    heads: int

    def shape(self, *given: Shape) -> Shape:
        _expect(self.heads > 0, f"has {self.heads} heads; the least is 1")
        wanted = self.heads * 2 * len(self.frequencies)
        _expect(
            given[0][-1] == wanted,
            f"has {self.heads} heads of {len(self.frequencies)} pairs for a width of {given[0][-1]}",
        )
        return given[0]


@dataclass(frozen=True, eq=False)
class Attention(Operation):
    """Softmax of scaled scores times values, from query, key and value, in so many heads.

    Scores are divided by the square root of a head's width.

    Attributes
    ----------
    heads : int
        Of the query.
    causal : bool
        A token attends to itself and those before it alone.
    shared : int
        Heads of the query that attend to one head of key and value (grouped queries), in order.
    """

    heads: int
    causal: bool = False
    shared: int = 1

    arity = 3

    def shape(self, *given: Shape) -> Shape:
        tokens, width = given[0]
        _expect(self.heads > 0, f"has {self.heads} heads; the least is 1")
        _expect(int(width) % self.heads == 0, f"has {self.heads} heads, which do not divide a width of {width}")
        _expect(self.shared > 0, f"has {self.shared} heads of the query for one of the key; the least is 1")
        _expect(self.heads % self.shared == 0, f"has {self.heads} heads, {self.shared} for each one of the key")
        narrow = (tokens, int(width) // self.shared)
        kind = "one shape" if self.shared == 1 else f"shapes {given[0]}, {narrow}, {narrow}"
        _expect(given[1] == given[2] == narrow, f"takes query, key, value of {kind}, not {', '.join(map(str, given))}")
        return given[0]


@dataclass(frozen=True, eq=False)
class Activate(Operation):
    """A function of every element: one of `fp32.FUNCTIONS`."""

    function: str


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """The sum of two values."""

    arity = 2

    def shape(self, *given: Shape) -> Shape:
        _expect(given[0] == given[1], f"adds values of shapes {given[0]} and {given[1]}")
        return given[0]


@dataclass(frozen=True, eq=False)
class Multiply(Operation):
    """The product of two values, element by element: a gate and what it lets through."""

    arity = 2

    def shape(self, *given: Shape) -> Shape:
        _expect(given[0] == given[1], f"multiplies values of shapes {given[0]} and {given[1]}")
        return given[0]


def _expect_token(token: int, given: Shape, does: str) -> None:
    """Every value of a shape has a token of this number; a text has a first one, and may have no other."""
    count = 1 if given[0] == TOKENS else int(given[0])
    has = "a text may have one alone" if given[0] == TOKENS else f"there are {count}"
    _expect(token < count, f"{does} token {token}, counted from 0; {has}")


class _Pooling(Operation):
    def shape(self, *given: Shape) -> Shape:
        _expect(len(given[0]) == 2, f"takes tokens, not a value of shape {given[0]}")
        return given[0][1:]


@dataclass(frozen=True, eq=False)
class Select(_Pooling):
    """One token's: `token` 0 is the first, -1 the last."""

    token: int

    def shape(self, *given: Shape) -> Shape:
        _expect(self.token >= -1, f"selects token {self.token}; the last one is -1")
        found = super().shape(*given)
        _expect_token(self.token, given[0], "selects")
        return found


@dataclass(frozen=True, eq=False)
class Mean(_Pooling):
    """The mean over the tokens from number `first` on."""

    first: int = 0

    def shape(self, *given: Shape) -> Shape:
        _expect(self.first >= 0, f"begins with token {self.first}; the least is 0")
        found = super().shape(*given)
        _expect_token(self.first, given[0], "begins with")
        return found


@dataclass(frozen=True, eq=False)
class Maximum(_Pooling):
    """The largest over the tokens, for each element of the width."""


@dataclass(frozen=True, eq=False)
class Normalize(Operation):
    """Scaled to Euclidean length 1 over the width."""


@dataclass(frozen=True, eq=False)
class Output(Operation):
    """A result under its name."""

"""A network's operations under the names that families' importers give them, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable

from ..families.layers import LINEAR
from ..graph import Graph
from ..operations import (
    Activate,
    Add,
    Attention,
    Convolution,
    Embed,
    Input,
    Linear,
    Maximum,
    Mean,
    Norm,
    Normalize,
    Operation,
    Output,
    Prepend,
    Select,
)
from .values import NotUnderstoodError, Term

__all__ = ["named"]


class _AtError(NotUnderstoodError):
    """What is not understood, and where."""

    def __init__(self, term: Term, why: str) -> None:
        super().__init__(f"at {term.node}, {term.called.lower()}: {why}")


def named(result: Term, output: str) -> Graph:
    """The graph that ends in a term.

    Parameters
    ----------
    output : str
        The result's name: ``embedding`` or ``logits``.

    Raises
    ------
    NotUnderstoodError
        If it is no encoder; it says at which node it stops being one.
    """
    order = _ordered(result)
    if wrong := next((t for t in order if isinstance(t.kind, str)), None):
        raise _AtError(wrong, "it is no part of a layer")
    layers = _Layers(order)
    layers.find()
    names = layers.names
    _name_before(names, order)
    _name_behind(names, order, output)
    operations: list[Operation] = []
    for term in order:
        inputs = tuple(names[id(t)] for t in layers.sums.get(id(term), term.inputs))
        assert not isinstance(term.kind, str)
        operations.append(term.kind(names[id(term)], inputs, **term.attributes))
    return Graph("onnx", (*operations, Output(output, (names[id(result)],))))


def _ordered(result: Term) -> list[Term]:
    """All terms, each after those it takes."""
    found: dict[int, Term] = {}
    stack = [(result, False)]
    while stack:
        at, done = stack.pop()
        if done:
            found.setdefault(id(at), at)
        elif id(at) not in found:
            stack += [(at, True), *((t, False) for t in reversed(at.inputs))]
    return list(found.values())


class _Layers:
    """Names of what layers are made of.

    Attributes
    ----------
    names : dict
        By a term's identity.
    sums : dict
        By a sum's identity: what the layer computes, and what goes on beside it.
    """

    def __init__(self, order: list[Term]) -> None:
        self.order = order
        self.names: dict[int, str] = {}
        self.sums: dict[int, tuple[Term, Term]] = {}
        self._takers: dict[int, list[Term]] = {}
        for term in order:
            for source in {id(t): t for t in term.inputs}.values():
                self._takers.setdefault(id(source), []).append(term)

    def find(self) -> None:
        """Name all."""
        attentions = [t for t in self.order if t.kind is Attention]
        if not attentions:
            raise _AtError(self.order[-1], "there is no attention on the way to it")
        last: Term | None = None
        for number, attention in enumerate(attentions):
            begin, end = self._layer(number, attention)
            if last is not None and begin is not last:
                raise _AtError(attention, f"layer {number} does not take what layer {number - 1} gives")
            last = end

    def _name(self, term: Term, kind: type[Operation], name: str) -> Term:
        if term.kind is not kind:
            raise _AtError(term, f"it is where {name}, {kind.__name__.lower()}, is expected")
        if self.names.setdefault(id(term), name) != name:
            raise _AtError(term, f"it is {self.names[id(term)]} and {name} at once")
        return term

    def _taker(self, term: Term, kind: type[Operation], name: str) -> Term:
        """The only operation of a kind that takes a value."""
        found = [t for t in self._takers.get(id(term), []) if t.kind is kind]
        if len(found) != 1:
            what = kind.__name__.lower()
            raise _AtError(term, f"{len(found)} operations {what} take it; for {name} it is one")
        return self._name(found[0], kind, name)

    def _sum(self, side: Term, name: str) -> Term:
        found = self._taker(side, Add, name)
        one, other = found.inputs
        self.sums[id(found)] = (side, other if one is side else one)
        return found

    def _layer(self, number: int, attention: Term) -> tuple[Term, Term]:
        """One layer's input and output."""
        roles = [f"{number}.{LINEAR[r]}" for r in ("query", "key", "value")]
        sources = [self._name(t, Linear, name).inputs[0] for t, name in zip(attention.inputs, roles, strict=True)]
        x = sources[0]
        if any(s is not x for s in sources):
            raise _AtError(attention, "query, key and value are made of different values")
        self._name(attention, Attention, f"{number}.context")
        projection = self._taker(attention, Linear, f"{number}.{LINEAR['projection']}")
        first = self._sum(projection, f"{number}.sum1")
        begin = self.sums[id(first)][1]
        if x is not begin and self._name(x, Norm, f"{number}.input").inputs[0] is not begin:
            raise _AtError(x, "it is of another value than the one that goes on")
        middle = self._taker(first, Norm, f"{number}.normed")
        wide = self._taker(middle, Linear, f"{number}.{LINEAR['expand']}")
        active = self._taker(wide, Activate, f"{number}.activated")
        second = self._sum(self._taker(active, Linear, f"{number}.{LINEAR['contract']}"), f"{number}.sum2")
        if self.sums[id(second)][1] is not (middle if x is begin else first):
            raise _AtError(second, "the feed-forward part is added to another value than the one that goes on")
        return begin, self._taker(second, Norm, f"{number}.output") if x is begin else second


def _name_before(names: dict[int, str], order: list[Term]) -> None:
    """What is ahead of the first layer: embeddings, patches, frames."""
    tables = {"token": "word", "position": "position", "first": "token_type"}
    image = next(t for t in order if t.kind is Input).attributes["given"]
    text = not isinstance(image[0], int)
    sums: list[Term] = []
    convolutions = [t for t in order if t.kind is Convolution]
    for term in order:
        if id(term) in names:
            return  # the first layer's
        name = term.called.lower()
        if term.kind is Input:
            name = "ids" if text else "pixels" if len(image) == 3 else "features"
        elif term.kind is Embed:
            name = tables[term.attributes["rows"]] if text else "positions"
        elif term.kind is Convolution:
            name = "patches" if len(image) == 3 else f"conv{convolutions.index(term) + 1}"
        elif term.kind is Activate:
            name = f"{names[id(term.inputs[0])]}.gelu"
        elif term.kind is Prepend:
            name = "tokens"
        elif term.kind is Add:
            sums.append(term)
            if len(sums) > 1:
                names[id(sums[-2])] = "+".join(names[id(t)] for t in sums[-2].inputs)
            name = "embedded"
        elif term.kind is Norm:
            name = "embeddings"
        elif term.kind is Linear:
            name = "embeddings_project"
        names[id(term)] = _free(name, names.values())


def _name_behind(names: dict[int, str], order: list[Term], output: str) -> None:
    """What follows the layers: poolings, heads."""
    free = [t for t in order if id(t) not in names]
    activated = {id(t.inputs[0]) for t in free if t.kind is Activate}
    linears = [t for t in free if t.kind is Linear]
    simple = {Norm: "layernorm", Activate: "pooler", Mean: "mean", Maximum: "maximum", Normalize: "normalized"}
    for term in free:
        name = simple.get(term.kind, term.called.lower()) if not isinstance(term.kind, str) else ""
        if term.kind is Select:
            name = {0: "first", 1: "second", -1: "last"}.get(term.attributes["token"], "token")
        elif term.kind is Linear:
            last = "scores" if output == "logits" else "projection"
            name = "pooler.dense" if id(term) in activated else last if term is linears[-1] else "projector"
        names[id(term)] = _free(name, names.values())


def _free(name: str, taken: Iterable[str]) -> str:
    """A name that is not taken."""
    used, number, found = set(taken), 1, name
    while found in used:
        number += 1
        found = f"{name}{number}"
    return found

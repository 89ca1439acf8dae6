"""The one form of what exporters and optimizers write in several: sums of embeddings, the order of poolings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..operations import TOKENS, Activate, Add, Convolution, Embed, Input, Linear, Maximum, Mean, Norm, Prepend, Select
from .values import NotUnderstoodError, Term

__all__ = ["canonical", "pooled"]

IDS = Term(Input, (), (1,), "the token ids", {"given": (TOKENS,)})


def pooled(term: Term, pooling: str) -> Term:
    """A pooling of all tokens' values: ``mean``, ``first``, ``max``, ``last``."""
    kind, about = {
        "mean": (Mean, {"first": 0}), "max": (Maximum, {}), "first": (Select, {"token": 0}),
        "last": (Select, {"token": -1}),
    }[pooling]  # fmt: skip
    return Term(kind, (term,), term.shape[1:], term.node, about)


def canonical(term: Term) -> Term:
    """The same network as families' importers build it.

    A sum of embeddings is of words, positions, then token types; a LayerNorm of one token's value is that of all, of
    which the token is taken, as the hardware does it; a product of a mean is taken behind it; tokens that are put ahead
    of others are put there at once.

    Raises
    ------
    NotUnderstoodError
        If a sum is not one of embeddings, as it should be.
    """
    done: dict[int, Term] = {}

    def walk(at: Term) -> Term:
        if id(at) not in done:
            if (leaves := _embeddings(at)) is not None:
                others = [walk(leaf) for leaf in leaves if leaf.kind != "table"]
                done[id(at)] = _sum(at, [leaf for leaf in leaves if leaf.kind == "table"], others)
            else:
                inputs = tuple(walk(t) for t in at.inputs)
                same = all(a is b for a, b in zip(inputs, at.inputs, strict=True))
                done[id(at)] = _swapped(at if same else replace(at, inputs=inputs))
        return done[id(at)]

    return walk(term)


def _swapped(term: Term) -> Term:
    first = term.inputs[0] if term.inputs else None
    if first is None:
        return term
    if term.kind is Norm and first.kind is Select and first.inputs[0].kind is Add:
        norm = replace(term, inputs=first.inputs, shape=first.inputs[0].shape)
        return replace(first, inputs=(norm,))
    if term.kind is Mean and first.kind is Linear and first.inputs[0].kind is Norm:
        mean = replace(term, inputs=first.inputs, shape=first.inputs[0].shape[1:])
        return replace(first, inputs=(mean,), shape=first.shape[1:])
    if term.kind is Prepend and first.kind is Prepend:
        rows = np.concatenate([term.attributes["rows"], first.attributes["rows"]])
        return replace(term, inputs=first.inputs, attributes={"rows": rows})
    return term


def _leaves(term: Term) -> Iterator[Term]:
    if term.kind is Add:
        for source in term.inputs:
            yield from _leaves(source)
    else:
        yield term


def _embeddings(term: Term) -> list[Term] | None:
    """Parts of a sum of rows of tables, and of at most one value of patches or frames; None if it is another sum."""
    if term.kind is not Add or not any(t.kind == "table" or t.kind is Add for t in term.inputs):
        return None
    found: list[Term] = []
    others = 0
    for leaf in _leaves(term):
        found.append(leaf)
        if leaf.kind != "table":
            others += 1
            source = leaf.inputs[0] if leaf.kind is Activate else leaf
            if others > 1 or source.kind not in (Prepend, Convolution):
                return None
    return found if len(found) > others else None


def _sum(term: Term, tables: list[Term], others: list[Term]) -> Term:
    kinds: dict[str, list[dict[str, Any]]] = {"token": [], "position": [], "first": []}
    for part in tables:
        kinds[part.attributes["rows"]].append(dict(part.attributes))
    if len(kinds["first"]) > 1:
        row = np.sum([p["table"][:1] for p in kinds["first"]], axis=0)
        kinds["first"] = [{"table": row, "rows": "first"}]
    for kind, what, wanted in (("token", "words", 0 if others else 1), ("position", "positions", 1)):
        if len(kinds[kind]) != wanted:
            raise NotUnderstoodError(f"a sum of embeddings with {len(kinds[kind])} tables of {what}, not {wanted}")
    if others and kinds["first"]:
        # The same row for all: it is one with the positions'.
        kinds["position"][0]["table"] = kinds["position"][0]["table"] + kinds["first"][0]["table"][:1]
        kinds["first"] = []
    source = others[0] if others else IDS
    parts = [
        Term(Embed, (source,), term.shape, term.node, about)
        for about in (*kinds["token"], *kinds["position"], *kinds["first"])
    ]
    total = others[0] if others else parts.pop(0)
    for part in parts:
        total = Term(Add, (total, part), term.shape, term.node)
    return total

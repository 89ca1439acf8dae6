"""Operations in integers: what their text form says, and graphs whose integers are all zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from sta_hw.compiler.integers import (
    IntegerActivate,
    IntegerAttention,
    IntegerInput,
    IntegerLinear,
    IntegerNorm,
    IntegerOutput,
    blank,
    linear_of,
)
from sta_hw.compiler.parameters import LinearParameters, NormParameters
from sta_hw.compiler.shapes import shape_graph
from sta_hw.model.operations import Linear, Norm
from sta_hw.model.part import accelerator_part
from sta_hw.model.random import random_model
from sta_hw.spec.parameters import COLUMN, SHORT_COLUMN
from sta_hw.spec.patterns import DENSE, Pattern
from sta_hw.spec.presets import PRESETS


def test_attributes_of_integers() -> None:
    """Those of the parameters, but nothing twice and nothing of the real numbers."""
    ones = np.ones(2, np.int64)
    q = LinearParameters(np.ones((2, 4), np.int8), Pattern(2, 4), ones, 2 * ones, 3 * ones, 4 * ones)
    linear = IntegerLinear.of(Linear("l", ("x",), np.zeros((2, 4)), np.zeros(2)), q)
    assert linear.wide is None and linear.weight is q.weights and linear.bias is q.bias
    found = linear.attributes()
    assert found["pattern"] == Pattern(2, 4) and found["shift"] is q.shift
    assert not {"weights", "parameters", "wide"} & found.keys() and "weight" in found
    both = IntegerLinear.of(linear, q, q)
    assert both.wide is q and both.attributes().keys() == found.keys()
    norm = IntegerNorm.of(Norm("n", ("l",), np.ones(2), np.ones(2), 1e-5), NormParameters(ones, ones, 2 * ones, 0.5))
    assert norm.epsilon == 1e-5 and norm.attributes().keys() == {"scale", "shift", "multiplier", "wide_scale"}


def test_blank_graphs() -> None:
    """Of the shapes that a graph has, in the kinds that quantization gives, and without any memory."""
    part = accelerator_part(random_model(0, layers=1, embedding=16)).inner
    found = blank(part, {"0.output.dense": Pattern(2, 4)})
    assert [o.name for o in found.operations] == [o.name for o in part.operations] and found.name == part.name
    for o in part.operations:
        if isinstance(o, Linear):
            p = linear_of(found, o.name).parameters
            assert p.weights.shape == o.weight.shape and p.weights.dtype == np.int8
            for each in (p.bias, p.multiplier, p.shift, p.second):
                assert (
                    each.shape == (len(o.weight),)
                    and each.dtype == np.int64
                    and not any(each.strides)
                    and not each.any()
                )
            assert p.input_scale.tolist() == p.steps.tolist() == [1.0] and p.offset.tolist() == [0.0]
            assert p.pattern == (Pattern(2, 4) if o.name == "0.output.dense" else DENSE)
    # ELECTRA's projection alone goes on in 8 bits and in 16.
    twice = [o.name for o in found.operations if isinstance(o, IntegerLinear) and o.wide is not None]
    assert twice == ["embeddings_project"]
    assert linear_of(found, twice[0]).wide is linear_of(found, twice[0]).parameters
    attention = found.by_name["0.context"]
    assert isinstance(attention, IntegerAttention)
    assert attention.heads == 2 and attention.gain.shape == attention.coarse.shape == (2,)
    activated = found.by_name["0.activated"]
    assert isinstance(activated, IntegerActivate)
    assert activated.table.shape == (256,) and activated.table.dtype == np.int16
    norm = found.by_name["0.output"]
    assert isinstance(norm, IntegerNorm)
    assert norm.parameters.scale.shape == norm.parameters.shift.shape == norm.parameters.multiplier.shape == (32,)
    assert norm.parameters.wide_scale == 1.0
    begins, ends = found.operations[0], found.operations[-1]
    assert isinstance(begins, IntegerInput) and begins.scale == 1.0
    assert isinstance(ends, IntegerOutput) and ends.scale == ends.wide_scale == 1.0


def test_shapes_of_a_graph_without_a_projection() -> None:
    found = shape_graph(32, 2, 1, 64)
    assert not any(isinstance(o, IntegerLinear) and o.wide is not None for o in found.operations)


def test_records_of_columns() -> None:
    """Short beside weights in blocks, on hardware that takes them, if every bias fits."""
    bias = SHORT_COLUMN.field("bias")
    ones = np.ones(2, np.int64)
    weights = np.ones((2, 32), np.int8)
    blocks: Any = object()
    config = PRESETS["decoder"]
    assert "blocks4" in config.features and "blocks4" not in PRESETS["ci"].features
    plain = LinearParameters(weights, DENSE, ones, ones, ones, ones)
    assert plain.record_on(config) is COLUMN and plain.blocks_on(config) is None
    for ends, record in (
        ((bias.lowest, bias.highest), SHORT_COLUMN), ((bias.lowest - 1, 0), COLUMN), ((0, bias.highest + 1), COLUMN),
        ((bias.lowest - 1, bias.highest + 1), COLUMN),
    ):  # fmt: skip
        given = LinearParameters(weights, DENSE, np.array(ends), ones, ones, ones, blocks=blocks)
        assert given.record_on(config) is record and given.blocks_on(config) is blocks
        assert given.record_on(PRESETS["ci"]) is COLUMN and given.blocks_on(PRESETS["ci"]) is None

"""An encoder computed step by step equals what programs give, and what integers make wrong is refused by its cause."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from support import embed, inner

from sta_hw.compiler.calibration import Calibration
from sta_hw.compiler.check import require_faithful
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.integers import IntegerAttention, IntegerLinear, IntegerNorm, IntegerOutput, linear_of
from sta_hw.compiler.quantize import quantize
from sta_hw.compiler.scales import head_scales, least_squares_scale
from sta_hw.compiler.stepwise import Integers
from sta_hw.errors import InputError
from sta_hw.model.families.layers import LINEAR
from sta_hw.model.fp32 import evaluate
from sta_hw.model.graph import Graph
from sta_hw.model.part import accelerator_part
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.run.backends import ReferenceBackend
from sta_hw.spec.patterns import DENSE, Pattern
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["small"]
TEXTS = [random_ids(s, 24) for s in range(6)]


def make(seed: int, **kind: Any) -> Graph:
    return random_model(seed, hidden=64, heads=2, layers=2, intermediate=96, **kind)


MODELS = {
    "bert": make(0), "vit": make(1, norm_first=True), "relu, first token": make(2, activation="relu", pooling="first"),
    "electra": make(3, embedding=32),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tokens", [1, 7, 8])
def test_steps_give_what_the_program_gives(name: str, tokens: int) -> None:
    """To the bit, where keys come in their own order: in this configuration for 8 tokens."""
    model = MODELS[name]
    patterns = {} if name == "bert" else mixed_patterns([Pattern(2, 4), DENSE])
    quantized = quantize(model, TEXTS, patterns)
    embedded = embed(model, random_ids(9, tokens))
    program = compile_encoder(quantized, CONFIG, tokens)
    image = ReferenceBackend(CONFIG).run(program, embedded).image
    steps = Integers(inner(model), quantized, [embedded])
    result = quantized.operations[-1]
    assert isinstance(result, IntegerOutput)
    found = np.round(steps.run()[steps.last] / result.scale)
    narrow = next(b for b in program.info.values[steps.last].buffers if b.endswith(".8"))
    address, width, _ = program.info.buffers[narrow]
    kept = image[address : address + CONFIG.rows * width].view(np.int8).reshape(width, CONFIG.rows).T
    np.testing.assert_array_equal(found, kept[:tokens])


@pytest.mark.parametrize("name", MODELS)
def test_steps_in_real_numbers_give_what_fp32_gives(name: str) -> None:
    """Every value of the graph that an operation gives."""
    part = accelerator_part(MODELS[name])
    texts = [part.embed("ids", t) for t in TEXTS]
    steps = Integers(part.inner, quantize(part.graph, TEXTS), texts)
    found = steps.run(())
    exact = [evaluate(part.inner, {part.begins: text}) for text in texts]
    for value, outputs in found.items():
        for output, run in zip(np.split(outputs, steps.ends), exact, strict=True):
            np.testing.assert_allclose(output, run[value], atol=3e-5, err_msg=value)


def damaged(quantized: Graph, name: str) -> Graph:
    """With an operation that is wrong in every other channel."""
    o = quantized.by_name[name]
    if isinstance(o, IntegerAttention):
        return quantized.replaced({name: dataclasses.replace(o, gain=o.gain * 0 + 7)})
    if isinstance(o, IntegerNorm):
        p = o.parameters
        scale = np.where(np.arange(len(p.scale)) % 2, p.scale, p.scale // 8)
        return quantized.replaced({name: IntegerNorm.of(o, dataclasses.replace(p, scale=scale))})
    linear = linear_of(quantized, name)
    q = linear.parameters
    weights = np.where(np.arange(len(q.weights))[:, None] % 2, q.weights, q.weights // 8)
    wrong = IntegerLinear.of(linear, dataclasses.replace(q, weights=weights.astype(np.int8)))
    return quantized.replaced({name: wrong})


VALUES = {"attention.output.dense": "sum1", "intermediate.dense": "activated", "output.dense": "sum2"}
"""Of linear operations whose results hardware goes on with: what it makes of them."""


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("step", [*list(LINEAR.values())[2:], "context", "normed", "last"])
def test_what_is_wrong_is_named(step: str, layer: int, norm_first: bool) -> None:
    model = make(4, norm_first=norm_first)
    found = Calibration(accelerator_part(model), TEXTS)
    quantized = quantize(model, TEXTS)
    require_faithful(found, quantized)
    name = f"{layer}.{step}"
    if step == "last":  # the LayerNorm behind the layer
        name = f"{layer}.output"
        if norm_first:
            name = "layernorm" if layer else "1.input"
    value = f"{layer}.{VALUES[step]}" if step in VALUES else name
    wanted = rf"calibration text \d: .* is -?0\.\d+, and 0\.98 .* in {re.escape(value)}, in integers alone .*token \d"
    with pytest.raises(InputError, match=wanted):
        require_faithful(found, damaged(quantized, name))


def test_contexts_are_not_cut_off() -> None:
    """Their scale is a power of two below the values', the best of them; the nearest cuts off a third of some."""
    rng = np.random.default_rng(0)
    for reach in np.linspace(0.1, 1.5, 29):
        value = rng.uniform(-1, 1, (512, 32))
        context = rng.uniform(-reach, reach, (512, 32))
        one = np.ones(32)
        found = head_scales(value, value, value, context, [0 * one] * 3, 2, least_squares_scale)
        scale = found.value / 2.0 ** np.repeat(found.gain, 16)
        stored = np.clip(np.round(context / scale), -127, 127) * scale
        assert np.sqrt(((stored - context) ** 2).mean()) < 0.006 * max(reach, 0.5) or reach > 1

"""An encoder computed step by step equals what programs give, and what integers make wrong is refused by its cause."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from sta_hw.compiler.calibration import Calibration
from sta_hw.compiler.check import require_faithful
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.parameters import LinearParameters, NormParameters, QuantizedEncoder
from sta_hw.compiler.quantize import quantize
from sta_hw.compiler.scales import head_scales, least_squares_scale
from sta_hw.compiler.stepwise import Integers
from sta_hw.errors import InputError
from sta_hw.model.bert import LINEAR_NAMES, PROJECTION, BertModel
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.run.backends import ReferenceBackend
from sta_hw.spec.patterns import DENSE, Pattern
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["small"]
TEXTS = [random_ids(s, 24) for s in range(6)]


def make(seed: int, **kind: object) -> BertModel:
    model = random_model(seed, hidden=64, heads=2, layers=2, intermediate=96)
    return dataclasses.replace(model, **kind)  # type: ignore[arg-type]


def projected(seed: int) -> BertModel:
    """With narrower embeddings, as ELECTRA has them."""
    rng = np.random.default_rng(seed)
    model = make(seed)
    tensors = {n: t[..., :32] if n.startswith("embeddings") else t for n, t in model.tensors.items()}
    tensors[f"{PROJECTION}.weight"] = rng.normal(size=(64, 32)).astype(np.float32) / 5
    tensors[f"{PROJECTION}.bias"] = rng.normal(size=64).astype(np.float32)
    return model.with_tensors(tensors)


MODELS = {
    "bert": make(0), "vit": make(1, norm_first=True), "relu, first token": make(2, activation="relu", pooling="first"),
    "electra": projected(3),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tokens", [1, 7, 8])
def test_steps_give_what_the_program_gives(name: str, tokens: int) -> None:
    """To the bit, where keys come in their own order: in this configuration for 8 tokens."""
    model = MODELS[name]
    patterns = {} if name == "bert" else mixed_patterns([Pattern(2, 4), DENSE])
    encoder = quantize(model, TEXTS, patterns)
    embedded = model.embed(random_ids(9, tokens))
    program = compile_encoder(encoder, CONFIG, tokens)
    image = ReferenceBackend(CONFIG).run(program, embedded).image
    steps = Integers(model, encoder, [embedded])
    found = np.round(steps.run()[steps.last] / encoder.output_scale)
    address = program.info["buffers"]["x8"][0]
    kept = image[address : address + CONFIG.rows * model.hidden].view(np.int8).reshape(model.hidden, CONFIG.rows).T
    np.testing.assert_array_equal(found, kept[:tokens])


@pytest.mark.parametrize("name", MODELS)
def test_steps_in_real_numbers_give_what_fp32_gives(name: str) -> None:
    model = MODELS[name]
    texts = [model.embed(t) for t in TEXTS]
    steps = Integers(model, quantize(model, TEXTS), texts)
    found = np.split(steps.run(())[steps.last], steps.ends)
    for output, text in zip(found, texts, strict=True):
        np.testing.assert_allclose(output, model.forward(text)[0][-1]["output"], atol=2e-5)


def damaged(encoder: QuantizedEncoder, layer: int, step: str) -> QuantizedEncoder:
    """With a step that is wrong in every other channel."""
    p = encoder.layers[layer]

    def of_linear(q: LinearParameters) -> LinearParameters:
        weights = np.where(np.arange(len(q.weights))[:, None] % 2, q.weights, q.weights // 8)
        return dataclasses.replace(q, weights=weights.astype(np.int8))

    def of_norm(q: NormParameters) -> NormParameters:
        return dataclasses.replace(q, scale=np.where(np.arange(len(q.scale)) % 2, q.scale, q.scale // 8))

    if step in LINEAR_NAMES:
        changed = dataclasses.replace(p, linear={**p.linear, step: of_linear(p.linear[step])})
    elif step == "attention":
        changed = dataclasses.replace(p, gain=p.gain * 0 + 7)
    else:
        changed = dataclasses.replace(p, **{step: of_norm(getattr(p, step))})
    return dataclasses.replace(
        encoder, layers=tuple(changed if i == layer else q for i, q in enumerate(encoder.layers))
    )


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("step", [*LINEAR_NAMES[2:], "attention", "norm1", "norm2"])
def test_what_is_wrong_is_named(step: str, layer: int, norm_first: bool) -> None:
    model = make(4, norm_first=norm_first)
    calibration = Calibration(model, TEXTS)
    encoder = quantize(model, TEXTS)
    require_faithful(model, calibration, encoder)
    name = {"norm1": model.norm_between(layer), "norm2": model.norm_behind(layer)}.get(step)
    name = f"{name}.LayerNorm" if name else f"encoder.layer.{layer}.{step}"
    wanted = rf"calibration text \d: .* is -?0\.\d+, and 0\.98 .* in {re.escape(name)}, in integers alone .*token \d"
    with pytest.raises(InputError, match=wanted):
        require_faithful(model, calibration, damaged(encoder, layer, step))


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

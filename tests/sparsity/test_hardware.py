"""Quantization-aware tuning: its forward pass is the compiled program's integers, and it learns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import InputError
from sta_hw.formats.nm import prune
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.run.backends import ReferenceBackend
from sta_hw.sparsity.encoder import Encoder
from sta_hw.sparsity.hardware import HardwareEncoder
from sta_hw.spec.patterns import Pattern
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["small"]


def make(*, norm_first: bool = False, pooling: str = "mean", activation: str = "gelu") -> HardwareEncoder:
    model = random_model(0, layers=2, hidden=64, intermediate=128, activation=activation)
    model = dataclasses.replace(model, norm_first=norm_first, pooling=pooling)
    patterns = mixed_patterns([Pattern(2, 4), Pattern(1, 1), Pattern(3, 16)])
    model = model.replaced({k: prune(model.linear(*k)[0], p) for k, p in patterns.items()})
    quantized = quantize(model, [model.embed(random_ids(i, 20)) for i in range(6)], patterns)
    return HardwareEncoder(Encoder(model), quantized, CONFIG)


@pytest.mark.parametrize(("norm_first", "pooling"), [(False, "mean"), (True, "first"), (True, "mean")])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_forward_is_the_compiled_program(norm_first: bool, pooling: str, activation: str) -> None:
    hardware = make(norm_first=norm_first, pooling=pooling, activation=activation)
    model = hardware.encoder.model
    texts = [model.embed(random_ids(100 + n, n)) for n in (1, 7, 8, 9, 17, 33)]
    with torch.no_grad():
        found = hardware(texts).numpy()
    for text, pooled in zip(texts, found, strict=True):
        program = compile_encoder(hardware.to_quantized(), CONFIG, len(text))
        exact = program.pooled(ReferenceBackend(CONFIG).run(program, text).image)
        # The accelerator rounds the mean to a fifteenth of an 8-bit step; ours is not rounded.
        step = hardware.quantized.output_scale / 15
        np.testing.assert_allclose(pooled, exact, atol=0.51 * step + 1e-6 if pooling == "mean" else 2e-6)


@pytest.mark.parametrize("norm_first", [False, True])
def test_forward_is_the_compiled_program_with_odd_numbers_too(norm_first: bool) -> None:
    """Rows of zeros, a dead head, one head with coarse scores and one with a scale of its own, a loud neuron."""
    model = random_model(1, layers=2, hidden=64, heads=4, intermediate=128)
    tensors = {k: v.copy() for k, v in model.tensors.items()}
    prefix = "encoder.layer.0."
    tensors[prefix + "intermediate.dense.weight"][:8] = 0
    tensors[prefix + "intermediate.dense.bias"][:8] = 2
    tensors[prefix + "intermediate.dense.weight"][9] *= 300
    tensors[prefix + "output.dense.weight"][:, 9] /= 300
    tensors[prefix + "attention.output.dense.bias"] += 1000
    for part in ("weight", "bias"):
        tensors[f"{prefix}attention.self.value.{part}"][:16] = 0
        tensors[f"{prefix}attention.self.query.{part}"][16:32] *= 3000
        tensors[f"{prefix}attention.self.query.{part}"][32:48] *= 1e-6
        tensors[f"{prefix}attention.self.key.{part}"][32:48] *= 1e6
    model = dataclasses.replace(model.with_tensors(tensors), norm_first=norm_first)
    texts = [model.embed(random_ids(100 + n, n)) for n in (1, 9, 33)]
    quantized = quantize(model, texts)
    assert quantized.layers[0].coarse.tolist() == [0, 1, 0, 0]
    hardware = HardwareEncoder(Encoder(model), quantized, CONFIG)
    found = hardware(texts)
    found.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in hardware.parameters())
    for text, pooled in zip(texts, found.detach().numpy(), strict=True):
        program = compile_encoder(hardware.to_quantized(), CONFIG, len(text))
        exact = program.pooled(ReferenceBackend(CONFIG).run(program, text).image)
        np.testing.assert_allclose(pooled, exact, atol=0.51 * quantized.output_scale / 15 + 1e-6)


def test_gradients_reach_everything_and_tuning_helps() -> None:
    hardware = make()
    model = hardware.encoder.model
    texts = [model.embed(random_ids(i, 12)) for i in range(8)]
    with torch.no_grad():
        teacher = Encoder(random_model(0, layers=2, hidden=64, intermediate=128))
        wanted = torch.stack([teacher(torch.from_numpy(t)[None])[0] for t in texts])
    optimizer = torch.optim.Adam(hardware.parameters(), 2e-3)
    masks = {k: linear.weight != 0 for k, linear in hardware.encoder.linears.items()}
    losses = []
    for _ in range(15):
        loss = (1 - torch.cosine_similarity(hardware(texts), wanted)).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in hardware.parameters())
        optimizer.step()
        for key, linear in hardware.encoder.linears.items():
            linear.weight.data *= masks[key]
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    compile_encoder(hardware.to_quantized(), CONFIG, 12)


def test_refusals() -> None:
    hardware = make()
    with pytest.raises(InputError, match="129 tokens"):
        hardware([hardware.encoder.model.embed(random_ids(0, 129))])
    hardware.encoder.linears[0, "attention.self.query"].weight.data += 1.0
    with pytest.raises(InputError, match=r"attention\.self\.query: the weights do not satisfy 2:4"):
        hardware.to_quantized()

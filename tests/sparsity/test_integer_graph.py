"""Quantization-aware tuning: its forward pass is the compiled program's integers, and it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from support import embed, inner

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.integers import IntegerAttention
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import InputError
from sta_hw.formats.nm import prune
from sta_hw.model.families import load_network
from sta_hw.model.graph import Graph
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.run.backends import ReferenceBackend
from sta_hw.sparsity.integer_graph import IntegerGraph
from sta_hw.sparsity.torch_graph import TorchGraph
from sta_hw.spec.patterns import Pattern
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["small"]


def make(*, norm_first: bool = False, pooling: str = "mean", activation: str = "gelu") -> tuple[IntegerGraph, Graph]:
    model = random_model(
        0, layers=2, hidden=64, intermediate=128, activation=activation, norm_first=norm_first, pooling=pooling
    )
    patterns = mixed_patterns([Pattern(2, 4), Pattern(1, 1), Pattern(3, 16)])
    model = model.with_weights({n: prune(model.linear(n).weight, p) for n, p in patterns.items()})
    quantized = quantize(model, [embed(model, random_ids(i, 20)) for i in range(6)], patterns)
    return IntegerGraph(TorchGraph(inner(model)), quantized, CONFIG), model


@pytest.mark.parametrize(("norm_first", "pooling"), [(False, "mean"), (True, "first"), (True, "mean")])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_forward_is_the_compiled_program(norm_first: bool, pooling: str, activation: str) -> None:
    hardware, model = make(norm_first=norm_first, pooling=pooling, activation=activation)
    texts = [embed(model, random_ids(100 + n, n)) for n in (1, 7, 8, 9, 17, 33)]
    with torch.no_grad():
        found = hardware(texts).numpy()
    for text, pooled in zip(texts, found, strict=True):
        program = compile_encoder(hardware.to_quantized(), CONFIG, len(text))
        exact = program.pooled(ReferenceBackend(CONFIG).run(program, text).image)
        # The accelerator rounds the mean to a fifteenth of an 8-bit step; ours is not rounded.
        step = hardware.scale / 15
        np.testing.assert_allclose(pooled, exact, atol=0.51 * step + 1e-6 if pooling == "mean" else 2e-6)


def test_forward_is_the_compiled_program_of_projected_embeddings(tmp_path: Path) -> None:
    """ELECTRA's, whose projection is computed to 8 bits and to 16."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64,
             "embedding_size": 16, "vocab_size": 50, "initializer_range": 0.3}  # fmt: skip
    hf.ElectraModel(hf.ElectraConfig(**sizes)).save_pretrained(tmp_path)
    model = load_network(tmp_path).graph
    texts = [embed(model, random_ids(100 + n, n)) for n in (3, 17)]
    hardware = IntegerGraph(TorchGraph(inner(model)), quantize(model, texts), CONFIG)
    found = hardware(texts)
    found.sum().backward()
    assert all(p.grad is not None for p in hardware.parameters())
    for text, pooled in zip(texts, found.detach().numpy(), strict=True):
        program = compile_encoder(hardware.to_quantized(), CONFIG, len(text))
        exact = program.pooled(ReferenceBackend(CONFIG).run(program, text).image)
        np.testing.assert_allclose(pooled, exact, atol=0.51 * hardware.scale / 15 + 1e-6)


@pytest.mark.parametrize("norm_first", [False, True])
def test_forward_is_the_compiled_program_with_odd_numbers_too(norm_first: bool) -> None:
    """Rows of zeros, a dead head, one head with coarse scores and one with a scale of its own, a loud neuron."""
    model = random_model(1, layers=2, hidden=64, heads=4, intermediate=128, norm_first=norm_first)
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
    model = model.with_tensors(tensors)
    texts = [embed(model, random_ids(100 + n, n)) for n in (1, 9, 33)]
    quantized = quantize(model, texts)
    attention = quantized.by_name["0.context"]
    assert isinstance(attention, IntegerAttention) and attention.coarse.tolist() == [0, 1, 0, 0]
    hardware = IntegerGraph(TorchGraph(inner(model)), quantized, CONFIG)
    found = hardware(texts)
    found.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in hardware.parameters())
    for text, pooled in zip(texts, found.detach().numpy(), strict=True):
        program = compile_encoder(hardware.to_quantized(), CONFIG, len(text))
        exact = program.pooled(ReferenceBackend(CONFIG).run(program, text).image)
        np.testing.assert_allclose(pooled, exact, atol=0.51 * hardware.scale / 15 + 1e-6)


def test_gradients_reach_everything_and_tuning_helps() -> None:
    hardware, model = make()
    texts = [embed(model, random_ids(i, 12)) for i in range(8)]
    with torch.no_grad():
        teacher = TorchGraph(inner(random_model(0, layers=2, hidden=64, intermediate=128)))
        wanted = torch.stack([teacher(torch.from_numpy(t)[None])[0] for t in texts])
    optimizer = torch.optim.Adam(hardware.parameters(), 2e-3)
    masks = {k: linear.weight != 0 for k, linear in hardware.network.linears.items()}
    losses = []
    for _ in range(15):
        loss = (1 - torch.cosine_similarity(hardware(texts), wanted)).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in hardware.parameters())
        optimizer.step()
        for key, linear in hardware.network.linears.items():
            linear.weight.data *= masks[key]
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    compile_encoder(hardware.to_quantized(), CONFIG, 12)


def test_refusals() -> None:
    hardware, model = make()
    with pytest.raises(InputError, match="129 tokens"):
        hardware([embed(model, random_ids(0, 129))])
    hardware.network.linears["0.attention.self.query"].weight.data += 1.0
    with pytest.raises(InputError, match=r"attention\.self\.query: the weights do not satisfy 2:4"):
        hardware.to_quantized()

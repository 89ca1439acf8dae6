"""Decoders in torch, and distillation of pruned ones: what stays, what is gained, the road from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decoder_files import decoder_folder
from test_cli_text import run
from test_decoders import CASES, GPT2, SIZES
from test_families import saved

from sta_hw.compiler.prune import prune_model
from sta_hw.errors import InputError
from sta_hw.formats.nm import satisfies
from sta_hw.model.families import load_network
from sta_hw.model.families.decoders import NEXT
from sta_hw.model.fp32 import evaluate
from sta_hw.model.graph import Graph
from sta_hw.sparsity.distill import NextTokenDistillation, distill_decoder
from sta_hw.sparsity.finetune import Tuning
from sta_hw.sparsity.torch_graph import TorchGraph
from sta_hw.spec.patterns import DENSE, parse_nm
from sta_hw.tasks.text import load_text_model

TEXTS = [[1, *np.random.default_rng(i).integers(0, 50, n).tolist()] for i, n in enumerate((30, 30, 11, 30, 1, 30) * 16)]
OTHERS = [[1, *np.random.default_rng(100 + i).integers(0, 50, 30).tolist()] for i in range(8)]
FAMILIES = {
    "llama": ("LlamaForCausalLM", SIZES),
    "qwen2": ("Qwen2ForCausalLM", SIZES),
    "gpt2": ("GPT2LMHeadModel", GPT2),
}
TUNING = Tuning(steps=100, batch=8, rate=2e-3)


def decoder(folder: Path, family: str) -> Graph:
    name, sizes = FAMILIES[family]
    saved(folder, name, sizes)
    return load_network(folder).graph


def divergence(graph: Graph, dense: Graph, texts: list[list[int]]) -> float:
    """From the dense decoder's next tokens, in numpy."""
    found = []
    for ids in texts:
        own, wanted = (evaluate(g, {"ids": ids}, keep=(NEXT,))[NEXT].astype(np.float64) for g in (graph, dense))
        own, wanted = (x - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)) - x.max(1, keepdims=True)
                       for x in (own, wanted))  # fmt: skip
        found.append((np.exp(wanted) * (wanted - own)).sum(1))
    return float(np.concatenate(found).mean())


@pytest.mark.parametrize(
    ("name", "sizes", "changes"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v))[:40]
)
def test_numpy_and_torch_agree(name: str, sizes: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    """Turned, normalized and grouped heads, gates, positions: every logit of two texts at once."""
    saved(tmp_path, name, sizes, **changes)
    graph = load_network(tmp_path).graph
    with torch.no_grad():
        found = TorchGraph(graph)(torch.tensor(TEXTS[:2])).numpy()
    for ids, got in zip(TEXTS, found, strict=False):
        np.testing.assert_allclose(got, evaluate(graph, {"ids": ids}, keep=(NEXT,))[NEXT], rtol=1e-3, atol=1e-3)


def test_the_loss_is_the_divergence(tmp_path: Path) -> None:
    """Of all tokens of texts of several lengths; what fills up the shorter ones counts for nothing."""
    dense = decoder(tmp_path, "llama")
    pruned = prune_model(dense, dict.fromkeys(dense.linears, parse_nm("2:4")), [], method="magnitude")
    task = NextTokenDistillation(TorchGraph(dense), TEXTS[:6])
    arguments, target = task.batch(np.random.default_rng(0), 99)
    with torch.no_grad():
        found = task.loss(TorchGraph(pruned)(*arguments), target).item()
        assert abs(task.loss(TorchGraph(dense)(*arguments), target).item()) < 1e-5
    assert found == pytest.approx(divergence(pruned, dense, TEXTS[:6]), rel=1e-3)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_distilled(family: str, tmp_path: Path) -> None:
    """Nearer to the dense decoder on other texts, too; zeros stay, and so does everything but the layers' products."""
    dense = decoder(tmp_path, family)
    patterns = dict.fromkeys(dense.linears, parse_nm("2:4")) | {next(iter(dense.linears)): DENSE}
    pruned = prune_model(dense, patterns, TEXTS)
    state = tmp_path / "state.safetensors"
    made, found = distill_decoder(dense, pruned, patterns, TEXTS, TUNING, state=state)
    assert len(found.losses) == TUNING.steps and np.mean(found.losses[-5:]) < np.mean(found.losses[:5])
    assert divergence(made, dense, OTHERS) < 0.9 * divergence(pruned, dense, OTHERS)
    assert all(made.by_name[o.name] is o for o in pruned.operations if o.name not in patterns)
    for name, o in made.linears.items():
        assert satisfies(o.weight, patterns[name]) and not np.array_equal(o.weight, pruned.linears[name].weight)
        assert patterns[name].dense or not o.weight[pruned.linears[name].weight == 0].any()
        assert pruned.linears[name].bias.any() or not o.bias.any()
    again, _ = distill_decoder(dense, pruned, patterns, TEXTS, TUNING, state=state)  # of a run that was at its end
    assert all(np.array_equal(again.tensors[n], t) for n, t in made.tensors.items())


def test_products_in_bfloat16(tmp_path: Path) -> None:
    """About the same losses, from other sums; a state of fp32 is not gone on from."""
    dense = decoder(tmp_path, "llama")
    patterns = dict.fromkeys(dense.linears, parse_nm("2:4"))
    pruned = prune_model(dense, patterns, TEXTS)
    tuning, state = Tuning(steps=10, batch=8, rate=2e-3), tmp_path / "state.safetensors"
    exact, half = (
        distill_decoder(dense, pruned, patterns, TEXTS, tuning, bfloat16=b, state=None if b else state)[1].losses
        for b in (False, True)
    )
    assert exact != half
    np.testing.assert_allclose(half, exact, rtol=0.05)
    with pytest.raises(InputError, match="saved"):
        distill_decoder(dense, pruned, patterns, TEXTS, tuning, bfloat16=True, state=state)


def test_no_text(tmp_path: Path) -> None:
    dense = decoder(tmp_path, "llama")
    with pytest.raises(InputError, match="no text to distil with"):
        distill_decoder(dense, dense, {}, [], TUNING)


def test_from_the_command_line(tmp_path: Path) -> None:
    """Pruned, distilled and kept: other weights than without, the same zeros; what is finished is not made again."""
    decoder_folder(tmp_path / "dense")
    common = ("prune", "--model", tmp_path / "dense", "--method", "magnitude", "--nm", "2:4", "-o", tmp_path / "out",
              "--json")  # fmt: skip
    plain, tuned = (json.loads(run(*common, *more).stdout) for more in ((), ("--steps", 3, "--rate", 1e-3)))
    assert (tuned["steps"], tuned["batch"], tuned["rate"], tuned["seed"]) == (3, 2, 1e-3, 0) and "steps" not in plain
    one, other = (load_text_model(Path(x["folder"])) for x in (plain, tuned))
    assert one.patterns == other.patterns
    for name, o in other.language.graph.linears.items():
        before = one.language.graph.linears[name].weight
        assert not np.array_equal(o.weight, before) and not o.weight[before == 0].any()
    assert not list((tmp_path / "out").rglob("tuning.safetensors"))
    again = run(*common, "--steps", 3, "--rate", 1e-3)
    assert "is there already" in again.stderr and json.loads(again.stdout)["folder"] == tuned["folder"]

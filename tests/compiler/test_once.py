"""A quantized decoder from the cache is the one that was made, whatever its rules; and is made anew for another."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_decoder_integers import network

from sta_hw.compiler.decoder import once
from sta_hw.compiler.decoder.integers import WIDE, Rules
from sta_hw.compiler.decoder.quantize import quantize_decoder
from sta_hw.compiler.decoder.run import IntegerDecoder
from sta_hw.compiler.prune import prune_model_once
from sta_hw.errors import InputError
from sta_hw.spec.patterns import Pattern

PREFIX = [1, 5]
TEXTS = [np.random.default_rng(n).integers(0, 320, 40).tolist() for n in range(3)]
BASE = Rules(block=32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv("STA_HW_CACHE", str(place))
    return place


def same(a: Any, b: Any) -> bool:
    """Of every type, and every array of every dtype."""
    if type(a) is not type(b) and not (isinstance(a, float | int) and isinstance(b, float | int)):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("kind", ["INT8", "15 bits", "4 bits", "2:4"])
def test_what_comes_back(family: str, kind: str, folder: Path, tmp_path: Path) -> None:
    graph = network(tmp_path / "model", family)
    rules = {"15 bits": replace(BASE, wide=WIDE), "4 bits": replace(BASE, blocks=frozenset({"gate", "head"}))}.get(
        kind, BASE
    )
    patterns = {}
    if kind == "2:4":
        patterns = {name: Pattern(2, 4) for name in graph.linears if name != "head"}
        graph = prune_model_once(graph, patterns, TEXTS, method="magnitude")
    wanted = quantize_decoder(graph, TEXTS, PREFIX, rules, patterns=patterns)
    told: list[str] = []
    for times in range(2):
        found = once.quantize_decoder_once(graph, TEXTS, PREFIX, rules, told.append, patterns)
        for f in fields(found):
            if f.name != "graph":
                assert same(getattr(found, f.name), getattr(wanted, f.name)), (times, f.name)
        for a, b in zip(found.graph.operations, wanted.graph.operations, strict=True):
            assert (a.name, a.inputs) == (b.name, b.inputs) and same(a.attributes(), b.attributes())
        ids = [*PREFIX, *TEXTS[0]]
        np.testing.assert_array_equal(IntegerDecoder(found, 50).logits(ids), IntegerDecoder(wanted, 50).logits(ids))
    assert len(told) == len(graph.operations)  # the second time nothing is computed
    assert len(list(folder.glob("*.quantized.safetensors"))) == 1


def test_another_is_made_anew(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other texts, prefix, rules, weights, or modules; and what is damaged."""
    graph = network(tmp_path / "model", "llama")
    count = 0

    def made(*given: Any) -> int:
        once.quantize_decoder_once(*given)
        return len(list(folder.glob("*.quantized.safetensors")))

    other = graph.with_tensors({name: 2 * tensor for name, tensor in graph.tensors.items() if "v_proj.weight" in name})
    assert other.operations != graph.operations
    for given in (
        (graph, TEXTS, PREFIX, BASE), (graph, TEXTS[1:], PREFIX, BASE), (graph, TEXTS, PREFIX[:1], BASE),
        (graph, TEXTS, PREFIX, replace(BASE, rotate=np.False_, block=np.int64(64))), (other, TEXTS, PREFIX, BASE),
    ):  # fmt: skip
        count += 1
        assert made(*given) == made(*given) == count
    monkeypatch.setattr(once, "sources_digest", lambda *_: "another version")
    assert made(graph, TEXTS, PREFIX, BASE) == count + 1
    wanted = once.quantize_decoder_once(graph, TEXTS, PREFIX, BASE)
    for path in folder.glob("*.quantized.safetensors"):
        path.write_bytes(path.read_bytes()[:-100])
    assert same(once.quantize_decoder_once(graph, TEXTS, PREFIX, BASE).linears, wanted.linears)


def test_the_six_that_were_used_last_stay(folder: Path, tmp_path: Path) -> None:
    graph = network(tmp_path / "model", "llama")
    told: list[str] = []

    def used(first: int) -> bool:
        """Whether it had to be made."""
        before = len(told)
        once.quantize_decoder_once(graph, TEXTS, [first], BASE, told.append)
        return len(told) > before

    assert all(used(n) for n in range(6))
    assert not used(0)
    assert used(6) and len(list(folder.glob("*.quantized.safetensors"))) == 6
    assert not used(0) and used(1)


def test_what_is_refused_is_not_kept(folder: Path, tmp_path: Path) -> None:
    graph = network(tmp_path / "model", "llama")
    for _ in range(2):
        with pytest.raises(InputError, match="constant prefix"):
            once.quantize_decoder_once(graph, TEXTS, [], BASE)
    assert not list(folder.glob("*.safetensors"))

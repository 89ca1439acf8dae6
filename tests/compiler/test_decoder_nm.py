"""Decoders with N:M sparse weights: their programs give the integers' logits, on the reference and on RTL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_decoder_program import ALL, CAPACITY, CONFIG, FAMILIES, PREFIX, RULES, Both
from test_families import saved

from sta_hw.compiler.decoder.integers import BLOCKED
from sta_hw.compiler.decoder.program import DecoderImage, compile_decoder
from sta_hw.compiler.decoder.quantize import quantize_decoder
from sta_hw.compiler.decoder.run import IntegerDecoder
from sta_hw.compiler.lower.parts import WindowPart, window_parts
from sta_hw.errors import InputError
from sta_hw.formats.nm import prune, satisfies
from sta_hw.model.families import load_network
from sta_hw.model.graph import Graph
from sta_hw.run.decoder import ProgramDecoder
from sta_hw.run.machines import ReferenceMachine
from sta_hw.spec.isa import Opcode, disassemble
from sta_hw.spec.patterns import DENSE, Pattern, parse_nm
from sta_hw.spec.presets import PRESETS

TEXTS = [np.random.default_rng(i).integers(0, 96, 30).tolist() for i in range(4)]
MIXED = {
    "query": "2:4", "key": "4:16", "value": "dense", "output": "8:16", "gate": "2:4", "up": "4:16", "down": "1:4",
}  # fmt: skip
"""Another N:M for each product, gate and up among them, whose columns alternate in one product."""


UNEVEN = {"hidden_size": 40, "intermediate_size": 84}
"""No whole passes of 2 groups of 16: what is left over is a product of its own."""


def network(folder: Path, family: str = "llama", **changes: int) -> Graph:
    name, sizes = FAMILIES[family.removesuffix("-uneven")]
    saved(folder, name, sizes | (UNEVEN if family.endswith("-uneven") else {}) | changes)
    return load_network(folder).graph


def patterns_of(graph: Graph, nm: str) -> dict[str, Pattern]:
    """One N:M for all of the layers' products, or another for each."""
    if nm != "mixed":
        return dict.fromkeys(graph.linears, parse_nm(nm))
    chosen = dict(zip(sorted({n.partition(".")[2] for n in graph.linears}), MIXED.values(), strict=False))
    return {name: parse_nm(chosen[name.partition(".")[2]]) for name in graph.linears}


def pruned(graph: Graph, patterns: Mapping[str, Pattern]) -> Graph:
    return graph.with_weights({n: prune(graph.linears[n].weight, p) for n, p in patterns.items()})


def used(compiled: DecoderImage) -> set[tuple[int, int]]:
    """N and M of the products of the last program."""
    found = disassemble(compiled.image[compiled.programs[-1] :].tobytes(), compiled.config)
    return {(i["n"], 1 << i["m_log2"]) for i in found if i.opcode == Opcode.PRODUCT}


CASES: list[tuple[str, str, str, bool, dict[str, Any]]] = [
    ("llama", "2:4", "", False, {}), ("llama", "8:16", "", False, {}), ("llama", "2:4", ALL, False, {}),
    ("llama", "8:16", "down head", True, {}), ("llama", "mixed", "gate down", True, {}),
    ("qwen3", "mixed", "gate down", False, {}), ("gpt2", "mixed", "", False, {}),
    ("llama-uneven", "8:16", "gate head", False, {}), ("llama-uneven", "mixed", "", False, {}),
    ("qwen2", "8:16", "", False, {"encodings": ("index",)}), ("llama", "mixed", "", False, {"encodings": ("bitmap",)}),
]  # fmt: skip
"""Family, N:M, the products with 15-bit activations, whether weights have 4 bits, and other hardware: on the reference,
which spares a build; else on RTL."""


@pytest.mark.parametrize(("family", "nm", "wide", "blocks", "changes"), CASES)
def test_programs(family: str, nm: str, wide: str, blocks: bool, changes: dict[str, Any], tmp_path: Path) -> None:
    """A prompt of several row tiles, then single tokens over a block's end: every byte, and the logits."""
    config = replace(CONFIG, **changes)
    graph = network(tmp_path, family)
    patterns = patterns_of(graph, nm)
    rules = replace(RULES, wide=frozenset(wide.split()), blocks=BLOCKED if blocks else frozenset())
    of = quantize_decoder(pruned(graph, patterns), TEXTS, PREFIX, rules, patterns=patterns)
    assert all(satisfies(of.linears[n].weights, p) for n, p in patterns.items() if n in of.linears)
    compiled = compile_decoder(of, config, CAPACITY)
    if nm != "mixed":
        pattern = parse_nm(nm)
        assert (pattern.n, pattern.m) in used(compiled)
    else:
        assert len(used(compiled)) > 3
    decoder = ProgramDecoder(of, compiled, ReferenceMachine(config) if changes else Both(config))
    ids = [*PREFIX, *np.random.default_rng(7).integers(0, 96, 35).tolist()]
    wanted = IntegerDecoder(of, CAPACITY).logits(ids)
    prompt = 28
    np.testing.assert_array_equal(decoder.feed(ids[: 2 + prompt]), wanted[prompt - 1])
    assert max(r.tokens for r in decoder.runs) > CONFIG.rows
    for place in range(prompt, len(wanted)):
        np.testing.assert_array_equal(decoder.feed(ids[2 + place :][:1]), wanted[place])


def test_values_that_go_with_a_word_of_positions() -> None:
    """All of a dense part, a pass's with a bitmap, and as many indices as a window has room for."""
    at = {"dense": math.inf, "bitmap": 6, "index": 8}
    for encoding, values in at.items():
        part = WindowPart(0, 192, parse_nm("2:4"), encoding, 12, 1)
        assert part.values_per_position(16) == values, encoding


def test_a_rest_that_saves_too_little_stays() -> None:
    """Of 600 weights 2:4 a second product would save fewer than two bytes of a hundred; of 264 it saves more."""
    config = PRESETS["decoder"]
    for reduction, parts in ((600, 1), (264, 2)):
        weights = prune(np.random.default_rng(0).integers(-9, 9, (4, reduction)).astype(np.int8), parse_nm("2:4"))
        assert len(window_parts(config, weights, parse_nm("2:4"), rest_apart=True)) == parts


def test_what_whole_passes_leave_over() -> None:
    """It has a smaller M that its weights have; no byte is moved for groups that have none, and all else is dense."""
    config = PRESETS["decoder"]  # 16 groups of 16
    weights = np.random.default_rng(0).integers(-127, 128, (32, 576)).astype(np.int8)
    sparse = prune(weights, parse_nm("8:16"))
    assert [(p.first, p.stop, p.depth, p.passes) for p in window_parts(config, weights, DENSE, rest_apart=True)] == [
        (0, 576, 12, 3)
    ]
    (whole,) = window_parts(config, sparse, parse_nm("8:16"), rest_apart=False)
    assert (whole.depth, whole.passes) == (16, 3)
    head, rest = window_parts(config, sparse, parse_nm("8:16"), rest_apart=True)
    assert (head.first, head.stop, head.depth, head.passes, head.pattern) == (0, 512, 16, 2, parse_nm("8:16"))
    assert (rest.first, rest.stop, rest.depth, rest.passes, rest.pattern) == (512, 576, 4, 1, DENSE)
    assert head.bits(config) + rest.bits(config) == 512 * 5 + 64 * 8 < whole.bits(config)
    sparse[:, 512:] = prune(weights[:, 512:], parse_nm("2:4"))
    head, rest = window_parts(config, sparse, parse_nm("8:16"), rest_apart=True)
    assert rest.pattern == parse_nm("2:4") and head.bits(config) + rest.bits(config) == 576 * 5
    (even,) = window_parts(config, prune(weights[:, :512], parse_nm("8:16")), parse_nm("8:16"), rest_apart=True)
    assert even.passes == 2


def test_groups_run_along_the_reduction_dimension(tmp_path: Path) -> None:
    """As the hardware groups it: M neighbours of a column's own input, at every place of its order in memory."""
    graph = network(tmp_path)
    patterns = patterns_of(graph, "2:4")
    of = quantize_decoder(pruned(graph, patterns), TEXTS, PREFIX, RULES, patterns=patterns)
    for name in patterns:
        weights = of.linears[name].weights
        counts = (weights.reshape(len(weights), -1, 4) != 0).sum(-1)
        assert counts.max() == 2 and counts.mean() > 1.5
    # A group with a third weight is refused where the weights are laid out.
    of.linears["0.mlp.down_proj"].weights[3, 8:12] = 1
    with pytest.raises(InputError, match="column 3, weights 8 to 11: 4 non-zeros where 2:4 allows 2"):
        compile_decoder(of, CONFIG, CAPACITY)


def test_what_is_refused(tmp_path: Path) -> None:
    graph = network(tmp_path)
    patterns = patterns_of(graph, "2:4")
    with pytest.raises(InputError, match="q_proj: its weights are not pruned to 2:4; prune the model first"):
        quantize_decoder(graph, TEXTS, PREFIX, RULES, patterns=patterns)
    with pytest.raises(InputError, match=r"N:M 2:4 is given for 0\.norm, which is no linear operation"):
        quantize_decoder(graph, TEXTS, PREFIX, RULES, patterns={"0.norm": Pattern(2, 4)})
    of = quantize_decoder(pruned(graph, patterns), TEXTS, PREFIX, RULES, patterns=patterns)
    with pytest.raises(InputError, match="2:4"):
        compile_decoder(of, replace(CONFIG, nm=("8:16",)), CAPACITY)
    wide = patterns_of(graph, "16:32")
    of = quantize_decoder(pruned(graph, wide), TEXTS, PREFIX, RULES, patterns=wide)
    with pytest.raises(InputError, match="16:32"):
        compile_decoder(of, CONFIG, CAPACITY)

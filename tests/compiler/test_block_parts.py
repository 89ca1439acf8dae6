"""Weights of 4 bits where whole passes leave some over: those are a product of their own, which continues the first."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from decoder_files import SIZES
from test_families import saved
from test_more_groups import TWICE

from sta_hw.compiler.decoder.integers import ROLES, Rules
from sta_hw.compiler.decoder.program import compile_decoder
from sta_hw.compiler.decoder.quantize import quantize_decoder
from sta_hw.compiler.lower.parts import block_parts
from sta_hw.errors import InputError
from sta_hw.formats.blocks import BlockedWeights
from sta_hw.model.families import load_network
from sta_hw.run.decoder import CheckedDecoder
from sta_hw.run.machines import ReferenceMachine, RtlMachine
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Opcode, disassemble
from sta_hw.spec.patterns import DENSE, parse_nm
from sta_hw.spec.presets import PRESETS

CONFIG = replace(TWICE, window=8, softmax_block=64)
WITH_WIDE = replace(TWICE, window=32, softmax_block=256, weight_words=4096)


def blocks_of(reduction: int, size: int, columns: int = 3) -> BlockedWeights:
    """Blocks of so many weights, and what is left: no two have the same header."""
    least, rng = math.gcd(reduction, size), np.random.default_rng(reduction)
    number = np.arange(0, reduction, least) // size
    scales = number[None, :] + np.zeros((columns, 1), np.int64)
    return BlockedWeights(least, rng.integers(0, 16, (columns, reduction)).astype(np.uint8), scales, scales)


def test_parts() -> None:
    """SmolLM2's shapes take 4.78 and 4.75 bits a weight, its head 4.33, and files in blocks of 128 take 4.25; what fits
    is not divided."""
    config = PRESETS["decoder"]
    two = [(0, 512, 16, 2, False), (512, 576, 4, 1, True)]
    for reduction, size, places, words in (
        (576, 32, two, 21.5),
        (1536, 32, [(0, 1536, 16, 6, False)], 57),
        (576, 128, [(*two[0][:4], True), two[1]], 19.5),
        (2048, 128, [(0, 2048, 16, 8, True)], 68),
        (2048, 64, [(0, 2048, 8, 16, True)], 72),
    ):
        parts = block_parts(config, "", blocks_of(reduction, size), DENSE, rest_apart=True)
        assert [(p.first, p.stop, p.depth, p.passes, p.wide) for p in parts] == places
        assert sum(p.words(config) for p in parts) == words
    assert len(block_parts(config, "", blocks_of(576, 32), DENSE, rest_apart=False)) == 1
    assert len(block_parts(config, "", blocks_of(576, 32), parse_nm("2:4"), rest_apart=True)) == 1
    with pytest.raises(InputError, match="blocks of 1 weights, 15 in a column, have no depth"):
        block_parts(config, "here", blocks_of(15, 32), DENSE, rest_apart=True)


@pytest.mark.parametrize(("first", "stop", "size"), [(0, 64, 32), (64, 96, 32), (16, 48, 16), (8, 96, 8)])
def test_some_of_a_columns_weights(first: int, stop: int, size: int) -> None:
    rng = np.random.default_rng(first)
    blocks = BlockedWeights(
        32, rng.integers(0, 16, (5, 96)).astype(np.uint8), rng.integers(0, 900, (5, 3)),
        rng.integers(-900, 900, (5, 3)), rng.random((5, 96)) < 0.5,
    )  # fmt: skip
    found = blocks.between(first, stop)
    assert found.size == size
    np.testing.assert_array_equal(found.weights, blocks.weights[:, first:stop])


@pytest.mark.parametrize(
    ("wide", "config", "sizes", "formats", "machine"),
    [(frozenset(), CONFIG, (96, 160), {0, 1}, ReferenceMachine),
     (frozenset(ROLES), WITH_WIDE, (160, 288), {0, 1, 2}, RtlMachine)],
    ids=["8 bits, reference", "15 bits and wide blocks, RTL"],
)  # fmt: skip
def test_a_decoder(
    wide: frozenset[str], config: Config, sizes: tuple[int, int], formats: set[int],
    machine: type[ReferenceMachine | RtlMachine], tmp_path: Path,
) -> None:  # fmt: skip
    """Every logit is the integers' own, with both digits of 15 bits too."""
    hidden, intermediate = sizes
    shape = {"vocab_size": 96, "hidden_size": hidden, "intermediate_size": intermediate}
    saved(tmp_path, "LlamaForCausalLM", SIZES | shape)
    texts = [np.random.default_rng(i).integers(0, 96, 30).tolist() for i in range(4)]
    rules = Rules(wide, config.groups * config.window, config.groups, frozenset(ROLES))
    of = quantize_decoder(load_network(tmp_path).graph, texts, [1, 5], rules)
    compiled = compile_decoder(of, config, 40, best=True)
    code = disassemble(compiled.image[compiled.programs[-1] :].tobytes(), config)
    halved = [i for i in code if i.opcode == Opcode.PRODUCT and i["value_format"] and i["unfinished"]]
    assert len(halved) >= 2 * 4
    assert {i["value_format"] for i in code if i.opcode == Opcode.PRODUCT} == formats
    decoder = CheckedDecoder(of, compiled, machine(config))
    decoder.feed_last([1, 5, *range(7, 19)], 9)
    decoder.feed([3])

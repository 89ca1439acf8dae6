"""Decoders in integers: each step of the arithmetic is the rule's, and together they give what fp32 gives."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_files import SIZES
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decoders import GPT2
from test_families import saved

from sta_hw.compiler.decoder import arithmetic
from sta_hw.compiler.decoder.integers import Rules, limit_of
from sta_hw.compiler.decoder.quantize import quantize_decoder
from sta_hw.compiler.decoder.run import IntegerDecoder
from sta_hw.compiler.parameters import NormParameters
from sta_hw.errors import InputError
from sta_hw.model.families import load_network
from sta_hw.model.fp32 import evaluate
from sta_hw.reference.requantizer import requantize
from sta_hw.reference.softmax import softmax_row
from sta_hw.reference.vector import gated, inverse_root_table, layer_norm, rotated

BLOCK = Rules(block=32, groups=8)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", SIZES | {"max_position_embeddings": 100}),
    "qwen2": ("Qwen2ForCausalLM", SIZES | {"max_position_embeddings": 100}),
    "qwen3": ("Qwen3ForCausalLM", SIZES | {"head_dim": 12, "max_position_embeddings": 100}),
    "gpt2": ("GPT2LMHeadModel", GPT2 | {"vocab_size": 320, "n_positions": 100}),
}


def rounded(value: int, places: int, limit: int) -> int:
    return max(-limit, min(limit, (value + (1 << (places - 1))) >> places))


def test_products_are_exact() -> None:
    """At the ends of their ranges, over more elements than float32 holds the sum of."""
    rng = np.random.default_rng(0)
    weights = rng.choice(np.array([-127, 127], np.int8), (5, 3000))
    for bits in (8, 15):
        x = rng.choice([-limit_of(bits), limit_of(bits)], (3, 3000)).astype(np.int64)
        found = arithmetic.Weights(weights).sums(x, bits)
        np.testing.assert_array_equal(found, x @ weights.T.astype(np.int64))
        x = np.sign(weights[:1].astype(np.int64)) * limit_of(bits)
        assert arithmetic.Weights(weights).sums(x, bits)[0, 0] == 3000 * 127 * limit_of(bits)


@pytest.mark.parametrize("columns", [12, 32, 576])
@pytest.mark.parametrize("size", [1, 300, 32767])
def test_layer_norm_is_the_references(columns: int, size: int) -> None:
    rng = np.random.default_rng(columns + size)
    x = rng.integers(-size, size + 1, (40, columns))
    x[0], x[1] = 0, 7
    p = NormParameters(rng.integers(-131071, 131072, columns), rng.integers(-9, 9, columns),
                       rng.integers(0, 65536, columns))  # fmt: skip
    inverse = round(2**33 / columns)
    found = arithmetic.norm(x, p, inverse, 0, 8, rms=False)
    np.testing.assert_array_equal(found, layer_norm(x, p.scale, p.shift, p.multiplier, inverse)[1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-32767, 32767), min_size=3, max_size=40), st.integers(0, (1 << 28) - 1))
def test_rms_norm_by_the_rule(values: list[int], epsilon: int) -> None:
    """Step by step in Python's integers."""
    count = len(values)
    variance = count * sum(v * v for v in values) + (epsilon << 14)
    exponent = max(variance.bit_length() - 1, 0)
    places = max(0, exponent // 2 + 5 - (count.bit_length() - 1))
    table = inverse_root_table()
    inverse = int(table[512 * (exponent & 1) + ((variance << 9 >> exponent) - 512)]) if variance else 0
    scale, multiplier = 40000, 30000
    wanted = []
    for v in values:
        normal = max(-131071, min(131071, (((2 * v * inverse << 1) >> places) + 1) >> 1))
        wide = max(-32767, min(32767, (normal * scale + (1 << 15)) >> 16))
        wanted.append(rounded(wide * multiplier, 16, 127))
    p = NormParameters(np.full(count, scale), np.zeros(count, np.int64), np.full(count, multiplier))
    assert arithmetic.norm(np.array([values]), p, 0, epsilon, 8, rms=True)[0].tolist() == wanted


def test_the_references_functions() -> None:
    """RMSNorm, turns and gates are those of the reference of programs."""
    rng = np.random.default_rng(5)
    for columns, epsilon in ((12, 0), (64, 5), (576, (1 << 28) - 1)):
        x = rng.integers(-3000, 3000, (30, columns))
        x[0] = 0
        p = NormParameters(rng.integers(-131071, 131072, columns), np.zeros(columns, np.int64),
                           rng.integers(0, 65536, columns))  # fmt: skip
        for bits in (8, 15):
            wide, narrow = layer_norm(x, p.scale, p.shift, p.multiplier, 0, rms=True, epsilon=epsilon, short=bits == 15)
            wanted = wide if bits == 15 else narrow
            np.testing.assert_array_equal(arithmetic.norm(x, p, 0, epsilon, bits, rms=True), wanted)
    # Variances of every few bits; and one value that is more than 32 deviations.
    small = np.tile(np.arange(-20, 21)[:, None], 12) * (np.arange(12) < 4)
    for x, shift in ((small, 0), (np.eye(1, 2048, dtype=np.int64) * 30000, -32000)):
        ones = np.ones(x.shape[1], np.int64)
        p = NormParameters(24000 * ones, shift * ones, 500 * ones)
        wide, narrow = layer_norm(x, p.scale, p.shift, p.multiplier, 0, rms=True)
        np.testing.assert_array_equal(arithmetic.norm(x, p, 0, 0, 8, rms=True), narrow)
        np.testing.assert_array_equal(arithmetic.norm(x, p, 0, 0, 15, rms=True), np.clip(wide, -16383, 16383))
    x = rng.integers(-32767, 32768, (50, 3, 16))
    cosine, sine = arithmetic.cosines(rng.random(8).astype(np.float32), 100, 50)
    wanted = np.concatenate(rotated(x[..., :8], x[..., 8:], cosine[:, None], sine[:, None]), -1)
    np.testing.assert_array_equal(arithmetic.turn(x, cosine, sine), wanted)
    table, second = rng.integers(-32767, 32768, 256).astype(np.int16), rng.integers(0, 65536, 40)
    index, up = rng.integers(-300, 300, (9, 40)), rng.integers(-32767, 32768, (9, 40))
    wanted = gated(index, up, table, second, wide=False)
    np.testing.assert_array_equal(arithmetic.gate(index, up, table, second, 8), wanted)


def test_turns_and_gates_by_the_rule() -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(-32767, 32768, (5, 2, 6))
    frequencies = np.array([1.0, 0.1, 0.01], np.float32)
    found = arithmetic.turn(x, *arithmetic.cosines(frequencies, 7, 5))
    for t, h, i in np.ndindex(5, 2, 3):
        angle = (7 + t) * float(frequencies[i])
        c, s = round(math.cos(angle) * 2**14), round(math.sin(angle) * 2**14)
        a, b = int(x[t, h, i]), int(x[t, h, i + 3])
        assert found[t, h, i] == rounded(a * c - b * s, 20, 127)
        assert found[t, h, i + 3] == rounded(a * s + b * c, 20, 127)
    table = rng.integers(-32767, 32768, 256).astype(np.int16)
    index, up = rng.integers(-300, 300, (4, 50)), rng.integers(-32767, 32768, (4, 50))
    second = rng.integers(0, 65536, 50)
    for bits in (8, 15):
        found = arithmetic.gate(index, up, table, second, bits)
        for t, j in np.ndindex(4, 50):
            entry = int(table[max(-127, min(127, int(index[t, j]))) & 255])
            opened = (entry * int(second[j]) + (1 << 15)) >> 16
            assert found[t, j] == rounded(opened * int(up[t, j]), 16, limit_of(bits))


def test_attention_is_the_references_row_by_row() -> None:
    """Blocks of 32 keys in the softmax's order; sums are rescaled between blocks; the row's sum divides them."""
    rng = np.random.default_rng(2)
    tokens, heads, width, count = 5, 4, 8, 71
    query = rng.integers(-127, 128, (tokens, heads, width))
    keys, values = (rng.integers(-127, 128, (count, 2, width)).astype(np.int8) for _ in range(2))
    scores = (np.array([40000, 60000, 3000, 65535]), np.array([1, 0, 0, 1]), np.array([0, 0, 1, 1]),
              np.array([0, 1, 2, 7]))  # fmt: skip
    found = arithmetic.attend(query, keys, values, scores, 2, 32, 8)
    in_15 = arithmetic.attend(query, keys, values, scores, 2, 32, 8, 15)
    number = np.arange(32)
    order = 8 * (number % 4) + number // 4
    for t, h in np.ndindex(tokens, heads):
        multiplier, shift, coarse, gain = (int(a[h]) for a in scores)
        products = keys[:, h // 2].astype(np.int64) @ query[t, h]
        logits = requantize(products, 0, multiplier, shift, wide=True).astype(np.int64)
        places = np.concatenate([b + order for b in range(0, count, 32)])
        keep = places <= count - tokens + t
        inside = np.minimum(places, count - 1)
        row = softmax_row(logits[inside], keep, block=32, wide=False, gain=gain, coarse=coarse)
        sums, before = np.zeros(width, np.int64), None
        for b in range(0, len(places), 32):
            part = slice(b, b + 32)
            exponent = int(row.exponents[b])
            if before is not None:
                sums >>= min(exponent - before, 31)
            before = exponent
            sums += row.probabilities[part] @ values[inside[part], h // 2].astype(np.int64)
        wanted = requantize(sums, 0, row.multiplier, row.shift, wide=False)
        np.testing.assert_array_equal(found[t, h], wanted)
        wanted = requantize(sums, 0, row.multiplier, row.shift, wide=True)
        np.testing.assert_array_equal(in_15[t, h], np.clip(wanted.astype(np.int64), -16383, 16383))


def test_attention_over_a_long_block() -> None:
    """The sum of 1,024 values times probabilities that are all large is beyond what float32 holds exactly."""
    width = 400
    query, keys = np.zeros((1, 1, width), np.int64), np.full((1024, 1, width), 32, np.int8)
    query[..., 0] = 127
    values = np.random.default_rng(3).integers(100, 128, keys.shape).astype(np.int8)
    scores = (np.array([37]), np.array([0]), np.array([0]), np.array([7]))
    found = arithmetic.attend(query, keys, values, scores, 1, 1024, 8, 15)
    row = softmax_row(np.full(1024, (127 * 32 * 37 + (1 << 11)) >> 12), block=1024, wide=False, gain=7, coarse=0)
    order = 8 * (np.arange(1024) % 128) + np.arange(1024) // 128
    sums = row.probabilities @ values[order, 0].astype(np.int64)
    assert sums.min() > 1 << 24
    wanted = requantize(sums, 0, row.multiplier, row.shift, wide=True).astype(np.int64)
    assert wanted.max() < 16383
    np.testing.assert_array_equal(found[0, 0], wanted)


def network(folder: Path, family: str) -> Any:
    name, sizes = FAMILIES[family]
    saved(folder, name, sizes)
    return load_network(folder).graph


@pytest.mark.parametrize("family", FAMILIES)
def test_against_fp32(family: str, tmp_path: Path) -> None:
    """Logits are fp32's within what eight bits cost; 15 bits cost less; token by token they are the same bits."""
    graph = network(tmp_path, family)
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 320, 40).tolist() for _ in range(4)]
    prefix = [1, 5]
    ids = [*prefix, *rng.integers(0, 320, 90).tolist()]
    exact = evaluate(graph, {"ids": ids})["next_token"][2:].astype(np.float64)
    errors = []
    for wide in ({}, {"attention", "output", "gate", "down", "head"}):
        quantized = quantize_decoder(graph, texts, prefix, Rules(frozenset(wide), 32, 8))
        found = IntegerDecoder(quantized, 92).logits(ids)
        errors.append(float(np.linalg.norm(found - exact) / np.linalg.norm(exact)))
        decoder = IntegerDecoder(quantized, 92)
        steps = [decoder.feed(ids[:7]), *(decoder.feed([i]) for i in ids[7:50]), decoder.feed(ids[50:])]
        assert np.array_equal(steps[:-1], found[4:48]) and np.array_equal(steps[-1], found[-1])
        decoder.length = 30  # back, and on in another way
        assert np.array_equal(decoder.feed(ids[30:40]), found[37])
    assert errors[0] < 0.2 and errors[1] < (1 if family == "gpt2" else 0.75) * errors[0]


def test_what_is_refused(tmp_path: Path) -> None:
    graph = network(tmp_path, "llama")
    texts = [list(range(20))]
    for wrong, sentence in (((texts, []), "constant prefix"), (([], [1]), "no calibration"), (([[]], [1]), "no calib")):
        with pytest.raises(InputError, match=sentence):
            quantize_decoder(graph, *wrong, BLOCK)
    quantized = quantize_decoder(graph, texts, [1, 2], BLOCK)
    with pytest.raises(InputError, match="no room behind the prefix of 2"):
        IntegerDecoder(quantized, 2)
    decoder = IntegerDecoder(quantized, 6)
    with pytest.raises(InputError, match="does not begin with the 2 tokens"):
        decoder.feed([1, 3, 4])
    with pytest.raises(InputError, match="the prefix alone"):
        decoder.feed([1, 2])
    with pytest.raises(InputError, match="holds 6 tokens and is full: 0 are in it, and 7"):
        decoder.feed([1, 2, 3, 4, 5, 6, 7])
    assert np.isfinite(decoder.feed([1, 2, 3])).all()


def test_rules_are_of_known_products() -> None:
    for wrong in ({"wide": frozenset({"query"})}, {"blocks": frozenset({"ffn"})}, {"block_size": 48},
                  {"head_block_size": 96}):  # fmt: skip
        with pytest.raises(InputError, match=r"there are attention|32, 64, 128 are"):
            Rules(**wrong)

"""Attention's instructions, by hand: what is loaded, multiplied and stored, of which text, head, tile and block."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from sta_hw.compiler.integers import IntegerAttention, IntegerLinear
from sta_hw.compiler.lower.attention import attention, counters, key_counters
from sta_hw.compiler.lower.state import Lowering
from sta_hw.compiler.packing import Packing
from sta_hw.compiler.schedule import Step
from sta_hw.compiler.shapes import shape_graph
from sta_hw.errors import InputError
from sta_hw.model.graph import Graph
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Mask, Opcode, Result, Target
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
"""4 rows, 2 groups, windows of 16, a bus of 4 bytes: 4 tokens of a head, 16 wide, are 64 bytes, 32 words on chip."""
STACKED = replace(CONFIG, groups=8)
"""A beat of values as weights has 8 bytes, of two row tiles: 8 tokens of a head are 16 words."""
NAME, QUERY, KEY, VALUE = "0.context", *(f"0.attention.self.{x}" for x in ("query", "key", "value"))


def lowered(config: Config, packing: Packing) -> tuple[Lowering, list[Step], int]:
    """Two heads of 16; the steps behind the linear layers', and how many LOAD groups those have."""
    low = Lowering(shape_graph(32, 2, 1, 64), config, packing)
    o = low.graph.by_name[NAME]
    assert isinstance(o, IntegerAttention)
    attention(low, replace(o, gain=np.array([11, 12]), coarse=np.array([3, 4])))
    first = next(i for i, step in enumerate(low.steps) if step.label == NAME)
    assert all(step.opcode == Opcode.PRODUCT for step in low.steps[:first])
    return low, low.steps[first:], low.steps[first].group


def start(low: Lowering, value: str) -> int:
    return low.buffers[low.narrow[value]]


def test_counters() -> None:
    assert counters([(5, 1)]) == {
        "count0": 5, "stride0": 1, "count1": 1, "stride1": 0, "count2": 1, "stride2": 0, "count3": 1, "stride3": 0
    }  # fmt: skip
    assert counters([(2, 3), (4, 5), (6, 7), (8, 9)])["stride3"] == 9
    with pytest.raises(AssertionError):
        counters([(1, 1)] * 5)


@pytest.mark.parametrize(("config", "stacks"), [(CONFIG, 3), (CONFIG, 1), (STACKED, 3), (replace(CONFIG, groups=4), 2)])
def test_keys_come_as_values_do(config: Config, stacks: int) -> None:
    """Key g of each beat of values, then the next one of each; a key of a row tile is a word of the tile's."""
    size, rows, groups = 16, config.rows, config.groups
    steps = key_counters(config, size, stacks)
    found = [
        sum(i * stride for i, (_, stride) in zip(at, reversed(steps), strict=True))
        for at in itertools.product(*(range(count) for count, _ in reversed(steps)))
    ]
    tokens = [beat * groups + g for g in range(groups) for beat in range(stacks * max(rows, groups) // groups)]
    assert found == [token // rows * (size * rows // groups) + token % rows for token in tokens]


def test_one_text() -> None:
    """9 tokens, 3 row tiles and a block of 12 keys: scores run one step ahead of contexts, over the heads, too."""
    low, steps, group = lowered(CONFIG, Packing.aligned([9], 4))
    order = [
        (s.opcode.name, s.group - group, s.fields.get("result_address", s.fields.get("window_address"))) for s in steps
    ]
    query, context = start(low, QUERY), start(low, NAME)
    # A tile is 32 columns of 4 bytes, and the second head begins 16 columns on.
    tiles = [(head, 128 * tile + 64 * head) for head in range(2) for tile in range(3)]
    scores = [("SCORES", head, query + at) for head, at in tiles]
    contexts = [("CONTEXT", head, context + at) for head, at in tiles]
    pairs = itertools.chain(*zip(scores[1:], contexts[:-1], strict=True))
    assert order == [scores[0], *pairs, contexts[-1]]
    of_scores = [s for s in steps if s.opcode == Opcode.SCORES]
    of_context = [s for s in steps if s.opcode == Opcode.CONTEXT]
    for number, step in enumerate(of_scores):
        head, tile = divmod(number, 3)
        assert step.fields == {
            "window_address": query + 128 * tile + 64 * head, "window_beats": 16, "n": 1, "depth": 8, "columns": 12,
            "passes": 1, "wide": 1, "mask": int(Mask.LENGTH), "keys": 0, "key_start": 0, "row_first": 1, "row_last": 1,
            "gain": 11 + head, "coarse": 3 + head,
            **counters([(8, 4), (2, 2), (3, 32), (2, 1)]),
        }  # fmt: skip
        assert (step.needs, step.gives, step.uses, step.weight) == (((QUERY, tile),), (), (0, 2), 1.0)
    for number, step in enumerate(of_context):
        head, tile = divmod(number, 3)
        assert step.fields == {
            "window_beats": 12, "n": 1, "depth": 6, "columns": 16, "passes": 1, "continues": 0, "unfinished": 0,
            "count0": 2, "stride0": 1, "count1": 3, "stride1": 32, "count2": 16, "stride2": 2, "count3": 1,
            "result": int(Result.STORE8), "result_address": context + 128 * tile + 64 * head,
            "rows_before": 0, "rows_after": 0,
        }  # fmt: skip
        assert (step.needs, step.uses, step.weight) == ((), (2, 3), 1.0)
        assert step.gives == (((NAME, tile),) if head else ())


def test_loads_of_a_head() -> None:
    """Keys and values of all tiles, 16 columns of each; the values' last, so that scores do not wait for them."""
    low, steps, group = lowered(CONFIG, Packing.aligned([9], 4))
    assert len(low.groups) == group + 2
    for head, loads in enumerate(low.groups[group:]):
        keys, parameters, values = loads
        for load, value in ((keys, KEY), (values, VALUE)):
            assert (load.target, load.words, load.beats) == (Target.VALUES, 96, 16)
            assert (load.address, load.rows, load.stride) == (start(low, value) + 64 * head, 3, 128)
            assert load.needs == tuple((value, tile) for tile in range(3))
        assert (parameters.target, parameters.words, parameters.beats, parameters.needs) == (
            Target.PARAMETERS,
            1,
            4,
            (),
        )
        mine = [s for s in steps if s.group == group + head]
        assert {tuple(s.bases.items()) for s in mine} == {
            (("values_base", (keys.base, 0)), ("parameters_base", (parameters.base, 0))),
            (("values_base", (values.base, 0)),),
        }
    first, second = (low.groups[group + head][1].address for head in range(2))
    assert second - first == 64  # the image aligns what is added
    (told,) = [layer for layer in low.layers if layer.layer == NAME]
    assert (told.columns, told.reduction, told.depth, told.passes, told.chunk) == (9, 16, 8, 1, 12)
    assert (told.work, told.bytes, told.used) == (2 * 9 * 9 * 16 * 2.0, 0, "dense")


def test_keys_and_values_that_two_tiles_have_side_by_side() -> None:
    """Values of 8 tokens lie in a beat; keys in row tiles still, and of the fourth, which has no token, bytes alone."""
    low, steps, group = lowered(STACKED, Packing.aligned([9], 4))
    keys, _, values = low.groups[group]
    assert (keys.words, keys.beats, keys.rows, keys.stride) == (32, 16, 4, 128)
    assert (values.words, values.beats, values.rows, values.stride) == (32, 32, 2, 256)
    assert low.groups[group + 1][2].address == start(low, VALUE) + 128
    assert [load.needs for load in (keys, values)] == [tuple((v, t) for t in range(3)) for v in (KEY, VALUE)]
    scores, context = steps[0].fields, steps[2].fields
    assert (scores["depth"], scores["columns"], scores["window_beats"]) == (2, 16, 16)
    assert {k: scores[k] for k in counters([])} == counters([(2, 4), (2, 16), (4, 1), (2, 8)])
    assert (context["depth"], context["columns"], context["window_beats"]) == (2, 16, 16)
    assert [context[f"{c}{n}"] for n in range(3) for c in ("count", "stride")] == [1, 1, 2, 16, 16, 1]


def test_texts_that_share_a_row_tile() -> None:
    """5 and 6 tokens: tile 1 has the first one's last and the second one's first three."""
    low, steps, group = lowered(CONFIG, Packing.dense([5, 6], 4))
    scores = [s for s in steps if s.opcode == Opcode.SCORES and s.group == group]
    contexts = [s for s in steps if s.opcode == Opcode.CONTEXT and s.group == group + 1]
    query, context = start(low, QUERY), start(low, NAME)
    # Both have a block of 8 keys, of 2 tiles; the second text's begin with the row that is the first one's.
    assert [s.fields["window_address"] - query for s in scores] == [0, 128, 128, 256]
    assert [(s.fields["keys"], s.fields["key_start"], s.fields["columns"]) for s in scores] == [(5, 0, 8)] * 2 + [
        (6, -1, 8)
    ] * 2
    assert {s.fields["mask"] for s in scores} == {int(Mask.KEYS)}
    assert [s.bases["values_base"][1] for s in scores] == [0, 0, 32, 32]
    assert [s.fields["result_address"] - context - 64 for s in contexts] == [0, 128, 128, 256]
    assert [(s.fields["rows_before"], s.fields["rows_after"]) for s in contexts] == [(0, 0), (0, 3), (1, 0), (0, 0)]
    assert [s.bases["values_base"][1] for s in contexts] == [0, 0, 32, 32]
    assert [s.gives for s in contexts] == [((NAME, t),) for t in (0, 1, 1, 2)]
    (told,) = [layer for layer in low.layers if layer.layer == NAME]
    assert (told.columns, told.chunk, told.passes, told.work) == (6, 8, 1, 2 * (25 + 36) * 16 * 2.0)


def test_keys_before_a_texts_first() -> None:
    """Keys are numbered from its first token on: in its first row tile, rows of the texts before it are below 0."""
    _, steps, group = lowered(CONFIG, Packing.dense([5, 6, 7, 2], 4))
    scores = [s.fields for s in steps if s.opcode == Opcode.SCORES and s.group == group]
    assert [f["key_start"] for f in scores] == [0, 0, -1, -1, -3, -3, -3, -2]


def test_what_each_loop_stands_for() -> None:
    """What an outline is told: of each iteration of heads, tiles and blocks, how many products it has."""

    class Told(Lowering):
        def repeat(self, count: int, inner: int, attention: bool = False) -> list[tuple[int, float]]:
            loops.append((count, inner, attention))
            return super().repeat(count, inner, attention)

    loops: list[tuple[int, int, bool]] = []
    low = Told(shape_graph(32, 2, 1, 64), CONFIG, Packing.aligned([72], 4))
    o = low.graph.by_name[NAME]
    assert isinstance(o, IntegerAttention)
    attention(low, o)
    # Three blocks of keys, with scores and contexts of each; 18 row tiles; two heads.
    assert [loop for loop in loops if loop[2]] == [(3, 2, True), (18, 6, True), (2, 108, True)]


def test_blocks_of_keys() -> None:
    """40 keys are a block of 32 and one of 8, for which 32 are multiplied and masked; sums go on between them."""
    low, steps, group = lowered(CONFIG, Packing.aligned([40], 4))
    scores = [s.fields for s in steps if s.opcode == Opcode.SCORES]
    contexts = [s for s in steps if s.opcode == Opcode.CONTEXT]
    assert len(scores) == len(contexts) == 2 * 10 * 2
    assert [(f["key_start"], f["row_first"], f["row_last"]) for f in scores] == [(0, 1, 0), (32, 0, 1)] * 20
    assert [(s.fields["continues"], s.fields["unfinished"]) for s in contexts] == [(0, 1), (1, 0)] * 20
    assert {s.fields["depth"] for s in contexts} == {16} and {s.fields["window_beats"] for s in contexts} == {32}
    assert {f["columns"] for f in scores} == {32}
    assert [s.bases["values_base"][1] for s in contexts] == [0, 256] * 20
    assert [s.gives for s in contexts[20:]] == [g for t in range(10) for g in ((), ((NAME, t),))]
    assert {s.gives for s in contexts[:20]} == {()}
    assert len(low.groups) == group + 2 and low.groups[group][0].rows == 10
    (told,) = [layer for layer in low.layers if layer.layer == NAME]
    assert (told.passes, told.chunk) == (2, 32)


def test_blocks_that_are_loaded_one_by_one() -> None:
    """Both blocks' keys and values are 640 words, and 291 of 512 are a group's: so each step has LOADs of its own."""
    low, steps, group = lowered(replace(CONFIG, weight_words=512), Packing.aligned([40], 4))
    loads = low.groups[group:]
    assert len(loads) == 2 * 10 * 2
    for number, (keys, _, values) in enumerate(loads):
        head, block = number // 20, number % 2
        tiles = range(8, 10) if block else range(8)
        for load, value in ((keys, KEY), (values, VALUE)):
            assert load.address == start(low, value) + 128 * tiles.start + 64 * head
            assert (load.words, load.rows, load.needs) == (
                32 * len(tiles),
                len(tiles),
                tuple((value, t) for t in tiles),
            )
    assert {s.bases["values_base"][1] for s in steps} == {0}
    assert [s.group - group for s in steps if s.opcode == Opcode.SCORES] == list(range(40))
    assert [s.group - group for s in steps if s.opcode == Opcode.CONTEXT] == list(range(40))


def test_texts_whose_keys_do_not_stay_together() -> None:
    """Texts of 8 keys have 128 words of keys and values, and 291 of 512 are a group's: the third text has its own."""
    low, steps, group = lowered(replace(CONFIG, weight_words=512), Packing.aligned([8, 8, 8], 4))
    assert [loads[0].rows for loads in low.groups[group:]] == [4, 2] * 2
    assert [loads[0].address - start(low, KEY) for loads in low.groups[group:]] == [0, 512, 64, 576]
    offsets = [s.bases["values_base"][1] for s in steps if s.opcode == Opcode.SCORES]
    assert offsets == [0, 0, 64, 64, 0, 0] * 2


@pytest.mark.parametrize(
    ("tokens", "takes", "words", "wanted"), [(32, 512, 511, 512), (32, 512, 256, 512), (20, 320, 256, 512)]
)
def test_a_block_must_find_room(tokens: int, takes: int, words: int, wanted: int) -> None:
    """Keys and values of a head take 16 words a token; so many as there are will do."""
    config = replace(CONFIG, weight_words=wanted)
    lowered(config, Packing.aligned([tokens], 4))
    object.__setattr__(config, "weight_words", words)  # 511 is no configuration's, and the limit is to the word
    said = rf"0.context: .* takes {takes} words, .* weight_words = {words}; {wanted} would do"
    with pytest.raises(InputError, match=said):
        lowered(config, Packing.aligned([tokens], 4))


def test_keys_in_the_order_of_the_queries_windows() -> None:
    """Windows have dimension d in group d div 8 at place d mod 8; keys come two dimensions at a time, one a group."""
    graph = shape_graph(32, 2, 1, 64)
    key, o = graph.by_name[KEY], graph.by_name[NAME]
    assert isinstance(key, IntegerLinear) and isinstance(o, IntegerAttention)
    numbered = replace(key, parameters=replace(key.parameters, bias=np.arange(32)))
    operations = tuple(numbered if operation is key else operation for operation in graph.operations)
    low = Lowering(Graph("numbered", operations), CONFIG, Packing.aligned([4], 4))
    attention(low, o)
    at = next(load.address for load in low.groups[0] if load.target == Target.PARAMETERS)
    biases = low.image.finish()[at : at + 32 * 16].reshape(32, 16)[:, :4].copy().view("<i4")[:, 0]
    assert biases.tolist() == [h + d // 2 + 8 * (d % 2) for h in (0, 16) for d in range(16)]

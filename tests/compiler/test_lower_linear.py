"""A linear layer's products, by hand: which windows they fetch, what they read and write, and what is told of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_chunks import layer

from sta_hw.compiler.lower.linear import LinearLayer, linear
from sta_hw.compiler.lower.state import Lowering
from sta_hw.compiler.packing import Packing
from sta_hw.compiler.parameters import LinearParameters
from sta_hw.compiler.schedule import Step
from sta_hw.compiler.shapes import shape_graph
from sta_hw.errors import InputError
from sta_hw.formats.blocks import BlockedWeights
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Digit, Result, Target
from sta_hw.spec.patterns import DENSE, Pattern, parse_nm
from sta_hw.spec.presets import PRESETS

CONFIG = replace(PRESETS["ci"], weight_words=1024)
"""4 rows, 2 groups, windows of 16, a bus of 4 bytes: 32 weights of a column are 16 words, 32 columns half the ring."""
SOURCE, WIDE_SOURCE, STREAM, TARGET = "norm0.8", "norm0.16", "stream0", "activated0"
AT = {STREAM: 0, WIDE_SOURCE: 896, SOURCE: 1792, TARGET: 5760}
"""Of 9 tokens, 3 row tiles: 12 rows of 32 columns, of 1 or 2 bytes, with 128 bytes that a pass may read beyond; in the
order of `compiler.buffers`: stream, two norms of 16 and 8 bits, queries, keys, values, contexts; then activations."""


def lowering(config: Config = CONFIG, tokens: int = 9) -> Lowering:
    low = Lowering(shape_graph(32, 2, 1, 64), config, Packing.aligned([tokens], config.rows))
    assert tokens != 9 or {name: low.buffers[name] for name in AT} == AT
    return low


def lowered(low: Lowering, p: LinearParameters, source: str = SOURCE, **others: object) -> list[Step]:
    """The steps of one more layer."""
    before = len(low.steps)
    fields = {"result": Result.STORE8, "target": TARGET, "needs": "taken", "gives": "given", **others}
    linear(low, LinearLayer("here", p, source, **fields))
    return low.steps[before:]


def flags(steps: list[Step]) -> list[str]:
    """Of each product: keep, kept, or neither."""
    found = [[name for name in ("keep", "kept") if step.fields.get(name) == 1] for step in steps]
    assert all(step.fields.get(name, 1) == 1 for step in steps for name in ("keep", "kept"))
    assert all(len(names) < 2 for names in found)
    return ["".join(names) for names in found]


def test_later_chunks_take_kept_windows() -> None:
    """Three tiles of 128 bytes are 96 bus words: read by the first chunk alone, and by no later layer of the value."""
    low = lowering(replace(CONFIG, window_words=128))
    p = layer(96, 32, DENSE)
    assert flags(lowered(low, p)) == ["keep"] * 3 + ["kept"] * 6
    assert flags(lowered(low, p)) == ["kept"] * 9
    assert flags(lowered(low, p, source="norm1.8", needs="other")) == ["keep"] * 3 + ["kept"] * 6
    assert flags(lowered(low, p)) == ["keep"] * 3 + ["kept"] * 6  # the other's took their place


def test_windows_that_have_no_room_are_fetched() -> None:
    p = layer(96, 32, DENSE)
    assert flags(lowered(lowering(replace(CONFIG, window_words=64)), p)) == [""] * 9
    assert flags(lowered(lowering(), p)) == [""] * 9
    low = lowering(replace(CONFIG, window_words=128))
    assert flags(lowered(low, p, keeps=False)) == [""] * 9
    assert flags(lowered(low, p)) == ["keep"] * 3 + ["kept"] * 6


def test_low_digits_take_the_windows_of_high_ones() -> None:
    """A tile of 16-bit inputs is 64 bus words: not all three stay, but each does for its low digits."""
    config = replace(CONFIG, window_words=64)
    steps = lowered(lowering(config), layer(64, 32, DENSE), source=WIDE_SOURCE)
    assert flags(steps) == ["keep", "kept"] * 6
    assert [step.fields["digit"] for step in steps] == [int(Digit.HIGH), int(Digit.LOW)] * 6
    assert [step.fields.get("lift", 0) for step in steps] == [0, 1] * 6
    assert [step.fields.get("continues", 0) for step in steps] == [0, 1] * 6
    assert [step.fields.get("unfinished", 0) for step in steps] == [1, 0] * 6
    assert [step.fields["window_address"] for step in steps[::2]] == [896, 1152, 1408] * 2
    assert {step.fields["window_beats"] for step in steps} == {64}
    assert [step.gives for step in steps[:6]] == [()] * 6
    assert [step.gives for step in steps[6:]] == [(), (("given", 0),), (), (("given", 1),), (), (("given", 2),)]
    whole = lowered(lowering(replace(CONFIG, window_words=256)), layer(64, 32, DENSE), source=WIDE_SOURCE)
    assert flags(whole) == ["keep", "kept"] * 3 + ["kept"] * 6


def test_windows_that_go_on_from_others_and_do_not_stay_together() -> None:
    """60 words just ahead and the 64 of the first part have room in 128; with the second part's 16 it stays alone.

    So low digits cannot take the first part's. Such a program was made, and refused.
    """
    config = replace(CONFIG, window_words=128, encodings=("bitmap",))
    low = Lowering(shape_graph(40, 2, 1, 64), config, Packing.aligned([4], 4))
    low.rest_apart = True
    start = low.buffers[WIDE_SOURCE]
    assert low.keep_windows("before", [[(start - 240, 60)]]) == ("keep", "kept")
    p = layer(6, 40, parse_nm("8:16"))
    assert flags(lowered(low, p, source=WIDE_SOURCE)) == [""] * 4
    low.forget_windows()
    assert flags(lowered(low, p, source=WIDE_SOURCE)) == ["keep", "keep", "kept", "kept"]


def test_fields_of_dense_products() -> None:
    low = lowering()
    steps = lowered(low, layer(64, 32, DENSE))
    common = {
        "columns": 32, "wide": 0, "stride0": 1, "count0": 512, "count1": 1, "count2": 1, "count3": 1,
        "parameters_step": 1, "result": int(Result.STORE8), "apart": 0, "encoding": 0, "n": 1, "m_log2": 0,
        "depth": 16, "passes": 1, "window_beats": 32, "positions_count": 0,
    }  # fmt: skip
    # A tile is 32 x 4 bytes of inputs, and 64 x 4 of results; the second chunk's begin 32 columns of 4 bytes on.
    places = [(1792, 5760), (1920, 6016), (2048, 6272), (1792, 5888), (1920, 6144), (2048, 6400)]
    for number, (step, (source, target)) in enumerate(zip(steps, places, strict=True)):
        chunk, tile = divmod(number, 3)
        assert step.fields == common | {"window_address": source, "result_address": target}
        assert (step.group, step.needs, step.uses, step.weight) == (chunk, (("taken", tile),), None, 1.0)
        assert step.gives == ((("given", tile),) if chunk else ())
        base = 3 * chunk
        assert step.bases == {"values_base": (f"values{base + 1}", 0), "parameters_base": (f"parameters{base + 3}", 0)}
    assert len(low.groups) == 2
    (told,) = low.layers
    assert (told.columns, told.reduction, told.nm, told.used, told.encoding) == (64, 32, "dense", "dense", "dense")
    assert (told.depth, told.passes, told.chunk, told.work, told.bytes) == (16, 1, 32, 9 * 64 * 32.0, 2048)
    assert told.why_not == "" and low.chunk_weight == 1.0


def test_results_of_16_bits_and_what_is_added() -> None:
    low = lowering()
    steps = lowered(low, layer(32, 32, DENSE), target=STREAM, result=Result.RESIDUAL, residual=STREAM)
    assert [step.fields["wide"] for step in steps] == [1, 1, 1]
    assert [step.fields["result_address"] for step in steps] == [0, 256, 512]
    assert [step.fields["residual_address"] for step in steps] == [0, 256, 512]
    wide = lowered(low, layer(64, 32, DENSE), target=STREAM, result=Result.STORE16, residual=STREAM)
    assert [step.fields["residual_address"] for step in wide] == [
        0,
        256,
        512,
        256,
        512,
        768,
    ]  # 32 columns of 8 bytes on
    assert all(step.fields["wide"] for step in wide)


def test_values_side_by_side() -> None:
    """With 8 groups and 4 rows, beats of values hold two tiles: a column has 8 bytes, of which the second tile's 4."""
    config = replace(CONFIG, groups=8)
    low = lowering(config, 12)
    at = low.buffers[TARGET]
    steps = lowered(low, layer(8, 32, DENSE), side_by_side=True)
    assert [step.fields["result_address"] - at for step in steps] == [0, 4, 64 * 8]
    assert [step.fields["apart"] for step in steps] == [1, 1, 1]
    assert [step.fields["apart"] for step in lowered(low, layer(8, 32, DENSE))] == [0, 0, 0]
    same = lowered(lowering(), layer(8, 32, DENSE), side_by_side=True)
    assert [step.fields["apart"] for step in same] == [0, 0, 0]  # as many rows as a beat has bytes


@pytest.mark.parametrize(("encoding", "number", "positions"), [("index", 1, 4), ("bitmap", 2, 2)])
def test_fields_of_sparse_products(encoding: str, number: int, positions: int) -> None:
    """8:16 of 64 weights: 2 passes, 8 values of a column in each; 4 bits each are 2 words of 16 bits, a bitmap one."""
    config = replace(CONFIG, encodings=(encoding,))
    low = Lowering(shape_graph(64, 2, 1, 64), config, Packing.aligned([4], 4))
    steps = lowered(low, layer(6, 64, parse_nm("8:16")))
    (step,) = steps
    wanted = {
        "encoding": number, "n": 8, "m_log2": 4, "depth": 16, "passes": 2, "count0": 6 * 16, "window_beats": 64,
        "positions_count": 6 * positions, "columns": 6,
    }  # fmt: skip
    assert {name: step.fields[name] for name in wanted} == wanted
    assert step.bases == {"values_base": ("values1", 0), "positions_base": ("positions2", 0),
                          "parameters_base": ("parameters3", 0)}  # fmt: skip
    assert step.gives == (("given", 0),)
    (told,) = low.layers
    assert (told.nm, told.used, told.encoding, told.chunk) == ("8:16", "8:16", encoding, 6)
    assert told.work == 4 * 6 * 64 / 2
    # Of 16 weights 8 bytes, and 8 x 4 bits or 16 bits.
    assert told.bytes == 6 * 4 * (8 + {"index": 4, "bitmap": 2}[encoding])


def test_what_is_left_over_is_a_product_of_its_own() -> None:
    """8:16 of 40 weights: a pass of 32, then one of 8, dense and 4 deep, that goes on with its sums."""
    config = replace(CONFIG, encodings=("bitmap",))
    low = Lowering(shape_graph(40, 2, 1, 64), config, Packing.aligned([8], 4))
    low.rest_apart = True
    steps = lowered(low, layer(6, 40, parse_nm("8:16")))
    assert [step.fields["passes"] for step in steps] == [1] * 4
    assert [step.fields["depth"] for step in steps] == [16, 4] * 2
    assert [(step.fields["n"], step.fields["m_log2"]) for step in steps] == [(8, 4), (1, 0)] * 2
    assert [step.fields["count0"] for step in steps] == [48, 24] * 2
    assert [step.fields["positions_count"] for step in steps] == [6, 0] * 2
    assert [step.fields["window_beats"] for step in steps] == [32, 8] * 2
    first = low.buffers[SOURCE]
    assert [step.fields["window_address"] - first for step in steps] == [0, 128, 160, 288]
    assert [step.bases["values_base"] for step in steps] == [("values1", 0), ("values1", 48)] * 2
    assert [step.bases.get("positions_base") for step in steps] == [("positions2", 0), None] * 2
    assert [step.fields.get("continues", 0) for step in steps] == [0, 1] * 2
    assert [step.fields.get("unfinished", 0) for step in steps] == [1, 0] * 2
    assert [step.gives for step in steps] == [(), (("given", 0),), (), (("given", 1),)]
    wide = lowered(low, layer(6, 40, parse_nm("8:16")), source=WIDE_SOURCE)[:4]
    assert [step.fields["digit"] for step in wide] == [int(Digit.HIGH)] * 2 + [int(Digit.LOW)] * 2
    assert [step.fields.get("lift", 0) for step in wide] == [0, 0, 1, 0]
    assert [step.fields.get("continues", 0) for step in wide] == [0, 1, 1, 1]
    assert low.layers[-1].work == 2 * 8 * 6 * 40 / 2


def test_what_is_left_over_has_positions_of_its_own() -> None:
    """The last 8 weights are 2:4: 8 positions of 4 bits are 2 words, and the 12 of 2 bits of all columns 2 more."""
    p = layer(6, 40, parse_nm("8:16"))
    p.weights[:, [34, 35, 38, 39]] = 0
    low = Lowering(shape_graph(40, 2, 1, 64), replace(CONFIG, encodings=("index",)), Packing.aligned([4], 4))
    low.rest_apart = True
    first, second = lowered(low, p)
    assert (second.fields["n"], second.fields["m_log2"], second.fields["depth"]) == (2, 2, 4)
    assert (first.fields["positions_count"], second.fields["positions_count"]) == (12, 2)
    assert (first.fields["count0"], second.fields["count0"]) == (48, 12)
    assert second.bases["positions_base"] == ("positions2", 12) and second.bases["values_base"] == ("values1", 48)


@pytest.mark.parametrize(("size", "number", "words"), [(32, 1, 306), (128, 2, 273)])
def test_weights_of_4_bits(size: int, number: int, words: int) -> None:
    """512 weights in 16 groups: 2 passes, so 16 columns have 32 runs of 8 words, and 33 headers, one behind all.

    Of these 17 take 2 words and 16 one (docs/format.md, share 2); of wide blocks 2 share a word.
    """
    config = PRESETS["decoder"]
    low = Lowering(shape_graph(512, 8, 1, 512), config, Packing.aligned([8], config.rows))
    scales = 128 + np.arange(512 // size)[None, :] + np.zeros((16, 1), np.int64)
    codes = (np.arange(16 * 512).reshape(16, 512) % 16).astype(np.uint8)
    blocks = BlockedWeights(size, codes, scales, np.zeros_like(scales))
    zeros = np.zeros(16, np.int64)
    p = LinearParameters(blocks.weights, DENSE, zeros, zeros + 4096, zeros, zeros, blocks=blocks)
    (step,) = lowered(low, p)
    assert (step.fields["value_format"], step.fields["run"], step.fields["encoding"]) == (number, 16, 0)
    assert (step.fields["depth"], step.fields["passes"]) == (16, 2)
    assert step.fields["count0"] == words and low.layers[0].bytes == 16 * words


def test_a_table_is_loaded_once() -> None:
    low = lowering()
    table = np.arange(256) - 128
    lowered(low, layer(64, 32, DENSE), result=Result.ACTIVATE, table=table)
    tables = [[load for load in group if load.target == Target.TABLE] for group in low.groups]
    assert [len(loads) for loads in tables] == [1, 0]
    assert (tables[0][0].words, tables[0][0].beats) == (256, 128)
    stored = low.image.finish()[tables[0][0].address :][:512].view("<i2")
    np.testing.assert_array_equal(stored, table)


def test_what_hardware_has_not() -> None:
    config = replace(CONFIG, nm=("2:4",), encodings=("index",))
    with pytest.raises(InputError, match=r"^here: .*1:8"):
        lowered(lowering(config), layer(4, 32, Pattern(1, 8)))
    sparse = layer(4, 32, parse_nm("2:4"))
    low = lowering(config)
    lowered(low, replace(sparse, pattern=DENSE))
    assert (low.layers[0].nm, low.layers[0].used) == ("2:4", "dense")
    assert low.layers[0].why_not == "found 2:4, but the table says dense"
    lowered(low, sparse)
    assert low.layers[1].why_not == ""
    # Weights that are 1:2 as well run no faster with it.
    half = layer(4, 32, Pattern(1, 2))
    other = lowering()
    lowered(other, replace(half, pattern=parse_nm("2:4")))
    assert (other.layers[0].nm, other.layers[0].used, other.layers[0].why_not) == ("1:2", "2:4", "")
    # N = M is dense, whatever M.
    lowered(low, layer(4, 32, Pattern(4, 4)))
    assert (low.layers[2].nm, low.layers[2].used, low.layers[2].why_not) == ("dense", "dense", "")

"""The reference's units, by hand from docs/isa.md, docs/format.md and docs/numerics.md; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sta_hw.errors import CheckError
from sta_hw.reference.instructions import Fetched
from sta_hw.reference.machine import Machine, WaitsError
from sta_hw.reference.memories import AddressError
from sta_hw.reference.program import run_program
from sta_hw.reference.weights import WeightsError
from sta_hw.spec.assembly import assemble_text
from sta_hw.spec.isa import Mask, NormKind, Opcode, Result, Target, assemble
from sta_hw.spec.isa_page import EXAMPLE
from sta_hw.spec.presets import PRESETS

CONFIG = replace(PRESETS["ci"], weight_words=64, parameter_words=16)
"""4 rows, 2 groups, windows of 16, a bus of 4 bytes."""
PRODUCT: dict[str, int] = {
    **dict.fromkeys(
        ("result", "bits15", "multiply", "rotate", "residual_address", "apart", "rows_before", "rows_after",
         "row_first", "row_last", "keep", "kept", "digit", "lift", "continues", "unfinished", "value_format",
         "encoding", "m_log2", "positions_base", "positions_count", "parameters_base", "values_base", "wide",
         "window_address", "run", "key_start", "mask", "gain", "coarse"), 0),
    "n": 1, "depth": 1, "passes": 1, "columns": 2, "parameters_step": 1, "window_beats": 2, "result_address": 32,
    "stride0": 1, "stride1": 0, "stride2": 0, "stride3": 0, "count0": 2, "count1": 1, "count2": 1, "count3": 1,
}  # fmt: skip
"""Two columns of two weights over a window of each group: 8 bytes."""
WINDOWS = [1, 2, 3, -4, 10, 20, -30, 40]


def machine(values: list[list[int]], windows: list[int] = WINDOWS, kind: str = "i1", **others: Any) -> Machine:
    """With words of values on chip, windows at address 0 and parameters that multiply by 1 and add the column's 5."""
    found = Machine(np.zeros(128, np.uint8), replace(CONFIG, **others.pop("config", {})), others.pop("length", 0), 0)
    raw = np.array(windows, f"<{kind}").view(np.uint8)
    found.memories.image[: len(raw)] = raw
    found.memories.chip[Target.VALUES][: len(values)] = np.array(values, np.int8).reshape(-1, 2).view(np.uint8)
    for column in range(16):
        set_parameters(found, column, 5 * column, 4096, 0)
    assert not others
    return found


def set_parameters(m: Machine, at: int, bias: int, multiplier: int, shift: int, second: int = 0) -> None:
    word = bias.to_bytes(4, "little", signed=True) + multiplier.to_bytes(2, "little") + bytes([shift, 0])
    m.memories.chip[Target.PARAMETERS][at] = np.frombuffer(word + second.to_bytes(2, "little") + bytes(6), np.uint8)


def product(m: Machine, number: int = 0, opcode: Opcode = Opcode.PRODUCT, **fields: int) -> list[int]:
    """What lies at 32 behind one more product."""
    m.memories.begin(number)
    fetched = Fetched(int(opcode), number, number, PRODUCT | fields)
    (m.context if opcode == Opcode.CONTEXT else m.product)(fetched)
    return m.memories.image[32:40].view(np.int8).tolist()


def test_the_example_of_the_page() -> None:
    """docs/isa.md: four tokens of 32 activations by eight columns, laid out by its table alone."""
    rng = np.random.default_rng(1)
    weights, tokens = rng.integers(-128, 128, (8, 32)), rng.integers(-128, 128, (4, 32))
    bias, multiplier = rng.integers(-(10**5), 10**5, 8), rng.integers(1, 40, 8)
    image = np.zeros(0x340, np.uint8)
    program = assemble(assemble_text(EXAMPLE), PRESETS["ci"])
    assert len(program) == 192
    image[:192] = np.frombuffer(program, np.uint8)
    for c in range(8):
        for beat in range(16):
            image[0x100 + 32 * c + 2 * beat :][:2] = weights[c, [beat, 16 + beat]]
        parameters = int(bias[c]).to_bytes(4, "little", signed=True) + int(multiplier[c]).to_bytes(2, "little")
        image[0x200 + 16 * c :][:6] = np.frombuffer(parameters, np.uint8)
    for r in range(4):
        image[0x280 + r : 0x300 : 4] = tokens[r]
    found = run_program(image, 0, PRESETS["ci"])
    wanted = np.clip(((tokens @ weights.T + bias) * multiplier + (1 << 11)) >> 12, -127, 127)
    assert (np.abs(wanted) < 127).any() and (np.abs(wanted) == 127).any()
    stored = found[0x300:0x320].view(np.int8).reshape(8, 4).T
    assert (stored == wanted).all()
    assert (found[:0x300] == image[:0x300]).all() and not found[0x320:].any()


def test_a_product() -> None:
    """Weights (1, 2) and (3, -1) of the groups' windows; the second column's bias is 5."""
    m = machine([[1, 2], [3, -1]])
    assert product(m) == [21, 42, -57, 76, -2, -9, 44, -47]
    assert m.results.saturated["saturated_results"] == 0
    set_parameters(m, 0, -1, 0x8000, 1)  # (x - 1) x 2^15 / 2^16, a half rounded up
    assert product(m) == [10, 21, -29, 38, -2, -9, 44, -47]
    set_parameters(m, 0, 0, 4096, 0x88)  # 3 bits of the shift count
    assert product(m)[:4] == [21, 42, -57, 76]
    assert product(m, parameters_base=2, parameters_step=3)[4:] == [-7 + 25, -14 + 25, 39 + 25, -52 + 25]
    assert product(m, parameters_base=15, parameters_step=2)[4:] == [-7 + 5, -14 + 5, 39 + 5, -52 + 5]  # word 17 is 1


def test_values_by_counters() -> None:
    """Words 1, 3, 8 and 10 of the ring's 64: inner step 2, outer step 7; then around its end."""
    numbers = [[n, 0] for n in range(64)]
    m = machine(numbers, [1, 0, 0, 0] * 4)
    four = {"window_beats": 4, "depth": 2, "count0": 2, "count1": 2, "stride0": 2, "stride1": 7}
    assert product(m, values_base=1, **four)[::4] == [1 + 3, 8 + 10 + 5]
    assert product(m, values_base=61, **four)[::4] == [61 + 63, 4 + 6 + 5]
    deep = {"count0": 1, "count1": 1, "count2": 2, "stride2": 5, "count3": 2, "stride3": 20}
    assert product(m, **(four | deep))[::4] == [0 + 5, 20 + 25 + 5]


def test_sums_that_go_on() -> None:
    m = machine([[1, 2], [3, -1]])
    product(m, 3, unfinished=1)
    assert (m.memories.image[32:40] == 0).all()
    assert product(m, 4, continues=1) == [42, 84, -114, 127, -9, -23, 83, -99]
    assert m.memories.sources >= {3} and m.sums is None
    with pytest.raises(
        CheckError, match="sums of 2 columns, and there are none: instruction 4 continued the last ones"
    ):
        product(m, 5, continues=1)
    with pytest.raises(CheckError, match=r"sums of 2 columns, and there are none$"):
        product(machine([[1, 2]]), continues=1)
    product(m, 6, unfinished=1)
    with pytest.raises(CheckError, match="sums of 1 columns, and there are those of 2"):
        product(m, 7, continues=1, columns=1, count0=1)
    # Of several passes: over other sums, which are gone; of one pass between the two, not.
    product(m, 8)
    assert product(m, 9, continues=1)[0] == 42
    product(m, 10, unfinished=1)
    two = {"passes": 2, "window_beats": 4, "count0": 4}
    product(m, 11, **two)
    with pytest.raises(CheckError, match="there are none: instruction 11, of several passes, has overwritten them"):
        product(m, 12, continues=1)
    product(m, 13, unfinished=1)
    product(m, 14, continues=1, unfinished=1)
    assert product(m, 15, continues=1)[:2] == [63, 126]


def test_digits() -> None:
    """Of 16 bits the lower 15, 128 h + l; what high digits leave counts 128 times, and without `lift` once."""
    inputs = [300, -300, 127, 128, 16383, -16384, 0x4000 - 0x8000, 1]
    m = machine([[1, 0], [0, 1]], inputs, "i2")
    digits = {"window_beats": 4, "wide": 1, "result": int(Result.STORE16)}

    def stored() -> list[int]:
        return m.memories.image[32:48].view("<i2").tolist()

    product(m, digit=1, **digits)
    assert stored() == [2, -3, 0, 1, 127 + 5, -128 + 5, -128 + 5, 5]
    product(m, digit=2, **digits)
    assert stored() == [44, 84, 127, 0, 127 + 5, 5, 5, 6]
    product(m, digit=1, unfinished=1, **digits)
    product(m, digit=2, continues=1, lift=1, **digits)
    assert stored() == [300, -300, 127, 128, 16388, -16379, -16379, 6]
    product(m, digit=1, unfinished=1, **digits)
    product(m, digit=2, continues=1, **digits)
    assert stored()[:4] == [46, 81, 127, 1]


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"window_beats": 1}, CheckError, "windows of 1 positions; the product has 2"),
        ({"window_beats": 3}, CheckError, "windows of 3 positions; the product has 2"),
        ({"window_beats": 3, "digit": 1}, CheckError, "windows of 12 bytes, which are no multiple of a column's 8"),
        ({"window_beats": 2, "digit": 1}, CheckError, "windows of 1 positions; the product has 2"),
        ({"window_address": 124}, AddressError, "bytes 124 to 132 are outside"),
        (
            {"window_address": 124, "window_beats": 3},
            CheckError,
            "other bytes than the 8 of the product, and bytes 124",
        ),
        ({"window_address": 124, "digit": 2}, CheckError, "other bytes than the 16 of the product, and bytes 124"),
        ({"window_address": 2}, AddressError, "address 2 is not a multiple"),
        ({"count0": 3}, WeightsError, "3 values and 0 position words; the product takes 2 and 0"),
        ({"passes": 0}, WeightsError, "passes = 0"),
        ({"result_address": 124}, AddressError, "bytes 124 to 132 are outside"),
    ],
)
def test_products_that_are_not_defined(fields: dict[str, int], kind: type[CheckError], message: str) -> None:
    with pytest.raises(CheckError, match=message) as error:
        product(machine([[1, 2], [3, -1]]), **fields)
    assert type(error.value) is kind


def test_positions() -> None:
    """1:2, two deep, by index: word 3 of 16 positions has the columns' one bit each in every group's 16 bits."""
    m = machine([[10, 20], [30, 40]], [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0])
    m.memories.chip[Target.POSITIONS][3] = [0b10, 0, 0b01, 0]  # group 0: 0 then 1; group 1: 1 then 0
    sparse = {"encoding": 1, "n": 1, "m_log2": 1, "depth": 2, "window_beats": 4, "positions_base": 3,
              "positions_count": 1, "wide": 1, "result": int(Result.STORE16)}  # fmt: skip
    product(m, **sparse)
    found = m.memories.image[32:48].view("<i2").tolist()
    assert found[::4] == [10 * 1 + 20 * 4, 30 * 2 + 40 * 3 + 5]
    # From the ring's last word on, and its 16 bits beyond the lowest.
    last = m.config.position_words - 1
    m.memories.chip[Target.POSITIONS][[last, 0]] = [[0, 0b10, 0, 0], [1, 2, 3, 4]]
    words = m.positions(Fetched(3, 0, 0, PRODUCT | sparse | {"positions_base": last, "positions_count": 2}))
    assert words.tolist() == [[0x200, 0], [0x201, 0x403]]
    assert m.positions(Fetched(3, 0, 0, PRODUCT | {"positions_count": 2})).shape == (0, 2)  # dense ones have none


def scores(m: Machine, values: list[list[int]], number: int = 0, **fields: int) -> np.ndarray:
    """The probabilities of a block of scores, of shape (columns, rows)."""
    m.memories.begin(number)
    some = {"columns": len(values), "keys": 4, "row_first": 1}
    m.scores(np.array(values, np.int16), Fetched(int(Opcode.SCORES), number, number, PRODUCT | some | fields))
    return m.probabilities[-1][0]


SAME = [[0] * 4] * 4
"""Scores of 0 of 4 keys, of which each has half of the next power of two, 128 of 256; columns are keys 0, 2, 1, 3."""


@pytest.mark.parametrize(
    ("fields", "length", "valid"),
    [
        ({}, 0, [1, 1, 1, 1]),
        ({"keys": 3}, 0, [1, 1, 1, 0]),
        ({"keys": 2}, 9, [1, 0, 1, 0]),
        ({"keys": 2, "key_start": -1}, 0, [0, 1, 1, 0]),
        ({"keys": 8, "key_start": 6}, 0, [1, 0, 1, 0]),
        ({"keys": 0, "mask": int(Mask.LENGTH)}, 1, [1, 0, 0, 0]),
    ],
)
def test_valid_keys(fields: dict[str, int], length: int, valid: list[int]) -> None:
    m = machine([], length=length)
    assert scores(m, SAME, **fields).tolist() == [[128 * v for v in valid]] * 4
    assert m.coarse == 0 and m.probabilities[0][1:] == (None, None, 0)


def test_causal_masks() -> None:
    m = machine([], config={"features": ("causal",)})
    found = scores(m, SAME, mask=int(Mask.CAUSAL), keys=1)
    assert (found // 128).tolist() == [[1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    # A score that no row sees does not count as saturated, nor one that its own row does not see.
    m = machine([], config={"features": ("causal",)})
    scores(m, [[0] * 4, [32767] * 4, [0, -32767, 0, 0], [0, 0, 0, 32767]], mask=int(Mask.CAUSAL), keys=1)
    assert m.results.saturated["saturated_scores"] == 1 + 1 + 1


def test_scores_that_saturate() -> None:
    m = machine([])
    scores(m, [[0] * 4, [32767, 0, 0, -32767], [32766, 0, 32767, 32767], [32767] * 4], keys=3)
    assert m.results.saturated["saturated_scores"] == 3


def test_blocks_of_rows() -> None:
    """The second block's exponent is 2 more (128 / 64), so what was before counts a quarter; the third ends rows."""
    m = machine([])
    with pytest.raises(CheckError, match="it has no row_first, and there are no rows that an earlier block began"):
        scores(m, SAME, row_first=0)
    scores(m, SAME, 3, coarse=1)
    with pytest.raises(CheckError, match="coarse = 0, and its rows' first block has 1"):
        scores(m, SAME, 4, row_first=0)
    m = machine([])
    scores(m, SAME, 3)
    scores(m, [[128] * 4] * 4, 4, row_first=0, key_start=4, keys=8)
    assert m.memories.sources == {3}
    _, growth, totals, number = m.probabilities[1]
    assert growth is not None and growth.tolist() == [2] * 4 and totals is None and number == 4
    found = scores(m, [[128] * 4] * 4, 5, row_first=0, row_last=1, key_start=8, keys=9)
    assert found.tolist() == [[128, 0, 0, 0]] * 4 and m.memories.sources == {4} and m.coarse is None
    assert m.probabilities[2][1].tolist() == [0] * 4 and m.probabilities[2][2] is not None
    with pytest.raises(CheckError, match="it has no row_first"):
        scores(m, SAME, 6, row_first=0)


CONTEXT = {"window_beats": 4, "depth": 2, "count0": 4}
"""Over 4 keys, in words of keys 0, 1 and 2, 3 for each of two columns."""


def test_context() -> None:
    """4 of 128: the sum is 512, so a quarter of the sum of values each; the sum of several blocks likewise."""
    values = [[4, 8], [12, 16], [-4, 0], [0, -8]]
    m = machine(values)
    scores(m, SAME, 3, row_last=1)
    assert product(m, 4, Opcode.CONTEXT, **CONTEXT) == [10] * 4 + [-3] * 4
    assert m.memories.sources >= {3} and not m.probabilities
    with pytest.raises(WaitsError, match="takes the next block in the softmax, and there is none"):
        product(m, 5, Opcode.CONTEXT, **CONTEXT)
    # A block before of scores of 0, and one of 64: exponents grow by 1, so those count 2 / 3, the others 1 / 3.
    m = machine([[12, 12], [12, 12], [0, 0], [0, 0], [0, 0], [0, 0], [60, 60], [60, 60]])
    scores(m, SAME, 3)
    scores(m, [[64] * 4] * 4, 4, row_first=0, row_last=1, key_start=4, keys=8)
    product(m, 5, Opcode.CONTEXT, unfinished=1, **CONTEXT)
    assert product(m, 6, Opcode.CONTEXT, continues=1, values_base=4, **CONTEXT) == [4] * 4 + [40] * 4
    assert m.memories.sources >= {4, 5}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"continues": 1}, "continues = 1, and its block's SCORES has row_first = 1"),
        ({"unfinished": 1}, "unfinished = 1, and its block's SCORES has row_last = 1"),
        ({"window_beats": 2}, "its windows have 8 bytes, and the block in the softmax 16"),
        ({"depth": 1, "count0": 2}, "windows of 4 positions; the product has 2"),
        ({"result": int(Result.ACTIVATE)}, "result ACTIVATE takes second multipliers, which CONTEXT has none of"),
        ({"result": int(Result.RESIDUAL)}, "result RESIDUAL takes second multipliers"),
    ],
)
def test_contexts_that_are_not_their_scores(fields: dict[str, int], message: str) -> None:
    m = machine([[1, 1]] * 4)
    scores(m, SAME, row_last=1)
    with pytest.raises(CheckError, match=message):
        product(m, 1, Opcode.CONTEXT, **(CONTEXT | fields))


def norm(m: Machine, **fields: int) -> tuple[list[int], list[int]]:
    """16-bit and 8-bit results of two columns at 32 and 48, from 0 on and parameters at 16."""
    some = {"width": 2, "kind": int(NormKind.LAYER), "inverse": 1 << 32, "input_address": 0, "parameters_address": 16,
            "wide_address": 32, "narrow_address": 48, "epsilon": 0, "bits15": 0, "rows_before": 0,
            "rows_after": 0}  # fmt: skip
    m.norm(Fetched(int(Opcode.NORM), 0, 0, some | fields))
    image = m.memories.image
    return image[32:48].view("<i2").tolist(), image[48:56].view(np.int8).tolist()


def normed(*columns: tuple[int, int, int]) -> Machine:
    """Rows of -64 and 64, of 7 twice, and of 64 and -64; scale, shift and multiplier of each column."""
    m = machine([], [-64, 7, 64, 7, 64, 7, -64, 7], "i2")
    words = b"".join(
        ((scale & 0x3FFFF) | (shift & 0xFFFF) << 18 | multiplier << 34 | 0x3FFF << 50).to_bytes(8, "little")
        for scale, shift, multiplier in columns
    )
    m.memories.image[16:32] = np.frombuffer(words, np.uint8)
    return m


def test_norm() -> None:
    """K Q - S^2 of -64 and 64 is 2^14: R[0] = 65504, 11 places, so 128 x 65504 / 2^11 = 4094; a constant row is 0."""
    m = normed((1 << 16, 100, 1 << 10), (-(1 << 16), -100, 1 << 10))
    wide, narrow = norm(m)
    assert wide == [-3994, 100, 4194, 100, -4194, -100, 3994, -100]
    assert narrow == [-62, 2, 66, 2, -66, -2, 62, -2]
    assert m.results.saturated["saturated_norms"] == 0
    # Of twice the scale, less one: 18 bits signed.
    wide, _ = norm(normed((131071, 0, 0), (-131072, 0, 65535)))
    assert wide == [-8188, 0, 8188, 0, -8188, 0, 8188, 0]


def test_norm_saturates() -> None:
    """Values of two rows count as one; to 15 bits the shift of 16383 is at the end already."""
    m = normed((1 << 16, 32767, 0), (1 << 16, -32768, 0))
    wide, _ = norm(m)
    assert wide == [28673, 32767, 32767, 32767, -28674, -32767, -32767, -32767]
    assert m.results.saturated["saturated_norms"] == 4
    m = normed((1 << 16, 16383, 1 << 14), (0, -16383, 1 << 14))
    wide, narrow = norm(m, bits15=1)
    assert wide == [12289, 16383, 16383, 16383] + [-16383] * 4
    assert narrow == [127] * 4 + [-127] * 4 and m.results.saturated["saturated_norms"] == 4


def test_norm_of_rows() -> None:
    m = normed((0, 100, 1 << 14), (0, -100, 1 << 14))
    wide, narrow = norm(m, rows_before=1, rows_after=2)
    assert wide == [0, 100, 0, 0, 0, -100, 0, 0] and narrow == [0, 25, 0, 0, 0, -25, 0, 0]


def test_norms_that_are_not_defined() -> None:
    m = normed((0, 0, 0), (0, 0, 0))
    with pytest.raises(CheckError, match="width = 1; it is 2 or more"):
        norm(m, width=1)
    with pytest.raises(CheckError, match="inverse = 4294967295; for a width of 2 it is 4294967296"):
        norm(m, inverse=(1 << 32) - 1)
    norm(m, inverse=5, kind=int(NormKind.RMS))
    for name in ("input_address", "parameters_address", "wide_address", "narrow_address"):
        with pytest.raises(AddressError, match="outside the image of 128"):
            norm(m, **{name: 124})

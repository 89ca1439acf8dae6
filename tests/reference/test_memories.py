"""Memories of the reference: how much the hardware reads or writes in one run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import simulate

from sta_hw.errors import CheckError
from sta_hw.reference.instructions import Fetched
from sta_hw.reference.memories import AddressError, Memories
from sta_hw.rtl.units.results import ResultPath
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Result, Target

CONFIG = Config(rows=64, groups=8, window=16, lanes=4, drain_lanes=2)
SMALL = Config(rows=4, groups=2, window=16, lanes=4, drain_lanes=2, weight_words=64, parameter_words=16)
"""Words of values have 2 bytes, of positions 4."""


def test_a_run_has_fewer_than_2_to_the_20_words() -> None:
    """So much is not defined, wherever it lies; one word less is, and may be outside the image."""
    memories = Memories(np.zeros(1 << 22, np.uint8), CONFIG)
    with pytest.raises(CheckError, match="a run of 1,048,576 bus words; it has fewer than 1,048,576") as error:
        memories.bytes_at(4, 1 << 22)
    assert not isinstance(error.value, AddressError)
    assert len(memories.bytes_at(4, (1 << 22) - 4)) == (1 << 22) - 4
    with pytest.raises(AddressError, match="outside the image"):
        memories.bytes_at(8, (1 << 22) - 4)


def test_short_records_fill_the_same_words() -> None:
    """Bytes by hand, round the ring's end; what is no whole record is forgotten."""
    config = replace(CONFIG, features=("blocks4",))
    records = bytes.fromhex("ffff7f 3412 07 cdab  000080 0100 f9 0200  feffff ffff 00 0000  112233")
    memories = Memories(np.frombuffer(records + bytes(64 - len(records)), np.uint8).copy(), config)
    load = {"address": 0, "rows": 1, "beats": 6, "stride": 0, "target": 4, "destination": config.parameter_words - 1}
    memories.begin(7)
    memories.load(Fetched(2, 7, 0, {**load, "beats": 7}))
    wanted = ("ffff7f00 3412 07 00 cdab", "000080ff 0100 f9 00 0200", "feffffff ffff 00 00 0000")
    for at, word in zip((-1, 0, 1), wanted, strict=True):
        assert memories.chip[Target.PARAMETERS][at].tobytes() == bytes.fromhex(word) + bytes(6)
    assert not memories.chip[Target.PARAMETERS][2:-1].any()
    assert np.flatnonzero(memories.filled[Target.PARAMETERS] == 7).tolist() == [0, 1, config.parameter_words - 1]


@pytest.mark.parametrize(("columns", "beats"), [(32767, (1 << 20) - 32), (32768, 0)])
def test_what_the_result_path_asks_for(columns: int, beats: int) -> None:
    """The most that 20 bits count, and what is left of one more column's words: nothing would be stored."""
    dut = ResultPath(CONFIG)

    async def bench(ctx) -> None:
        ctx.set(dut.order.payload, {"mode": int(Result.STORE16), "columns": columns, "address": 64})
        ctx.set(dut.order.valid, 1)
        ctx.set(dut.results.valid, 1)
        await ctx.tick().until(dut.order.ready)
        assert ctx.get(dut.store_run.valid) and ctx.get(dut.store_run.payload).beats == beats

    simulate(dut, bench, limit=20)


def loaded(image: bytes, config: Config = SMALL, **fields: int) -> Memories:
    """Memories after one LOAD, instruction 7."""
    memories = Memories(np.frombuffer(image, np.uint8).copy(), config)
    memories.begin(7)
    memories.load(Fetched(2, 7, 0, {"address": 0, "rows": 1, "beats": 1, "stride": 0, "target": 0} | fields))
    return memories


def test_runs_of_a_load_lie_behind_one_another() -> None:
    """Words of 2 bytes, around the ring's end; then of 4, of which half a one is forgotten."""
    image, values = bytes(range(64)), int(Target.VALUES)
    memories = loaded(image, target=values, address=8, rows=2, beats=2, stride=20, destination=62)
    chip = memories.chip[Target.VALUES]
    assert chip[[62, 63, 0, 1, 2, 3, 4, 5]].ravel().tolist() == [*range(8, 16), *range(28, 36)]
    assert not chip[6:62].any()
    filled = np.flatnonzero(memories.filled[Target.VALUES] == 7).tolist()
    assert filled == [0, 1, 2, 3, 4, 5, 62, 63] and (memories.filled[Target.VALUES][6:62] == -1).all()
    # Addresses have 32 bits: a stride leads backwards, too.
    back = loaded(image, target=values, address=32, rows=2, beats=1, stride=(1 << 32) - 24, destination=0)
    assert back.chip[Target.VALUES][:4].ravel().tolist() == [*range(32, 36), *range(8, 12)]
    parameters = loaded(image, target=int(Target.PARAMETERS), address=4, beats=5, destination=15)
    assert parameters.chip[Target.PARAMETERS][15].tolist() == list(range(4, 20))
    assert not parameters.chip[Target.PARAMETERS][:15].any()
    for nothing in ({"rows": 0}, {"beats": 0}):
        none = loaded(image, target=values, destination=0, **{"address": 4096, **nothing})
        assert not none.chip[Target.VALUES].any() and (none.filled[Target.VALUES] == -1).all()


def test_of_more_words_than_there_are_the_last_ones_stay() -> None:
    """72 words from word 3 on: words 8 to 71 of the data, the last of them in word 10."""
    image = np.arange(72, dtype="<u2").tobytes()
    memories = loaded(image, target=int(Target.VALUES), beats=12, rows=3, stride=48, destination=3)
    found = memories.chip[Target.VALUES].reshape(-1).view("<u2")
    assert found.tolist() == [*range(61, 72), *range(8, 61)]
    exact = loaded(image, target=int(Target.VALUES), beats=32, destination=0)
    assert exact.chip[Target.VALUES].reshape(-1).view("<u2").tolist() == list(range(64))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"address": 2, "beats": 1}, "address 2 is not a multiple of the bus's 4 bytes"),
        ({"address": 60, "beats": 2}, "bytes 60 to 68 are outside the image of 64"),
        ({"address": 48, "beats": 2, "rows": 3, "stride": 8}, "bytes 64 to 72 are outside the image of 64"),
        ({"address": 0, "beats": 1, "rows": 2, "stride": 6}, "address 6 is not a multiple"),
    ],
)
def test_nothing_is_loaded_from_outside(fields: dict[str, int], message: str) -> None:
    memories = Memories(np.full(64, 5, np.uint8), SMALL)
    with pytest.raises(AddressError, match=message):
        memories.load(Fetched(2, 7, 0, {"rows": 1, "stride": 0, "target": 0, "destination": 0} | fields))
    assert not memories.chip[Target.VALUES].any()


def test_runs_whose_words_do_not_stay_are_looked_at() -> None:
    """Two runs of all 64 words, of which the first is overwritten."""
    memories = Memories(np.full(256, 5, np.uint8), SMALL)
    load = {"rows": 2, "stride": 2, "target": 0, "destination": 0, "beats": 32}
    with pytest.raises(AddressError, match="address 2 is not a multiple"):
        memories.load(Fetched(2, 7, 0, load | {"address": 2}))
    with pytest.raises(AddressError, match="bytes 132 to 260 are outside the image of 256"):
        memories.load(Fetched(2, 7, 0, load | {"address": 132, "stride": (1 << 32) - 132}))
    assert not memories.chip[Target.VALUES].any()


def test_windows_that_are_kept() -> None:
    """Those of word 6 on around the 8 on chip; as they were when they were kept."""
    memories = Memories(np.arange(64, dtype=np.uint8), replace(SMALL, window_words=8))
    memories.begin(3)

    def windows(address: int, beats: int, **flags: int) -> list[int]:
        fields = {"window_address": address, "window_beats": beats, "keep": 0, "kept": 0} | flags
        return memories.windows(Fetched(3, 0, 0, fields)).tolist()

    assert windows(24, 4) == list(range(24, 40)) and (memories.kept_from == -1).all()
    assert windows(24, 4, keep=1) == list(range(24, 40)) and memories.sources == set()
    assert memories.kept_from.tolist() == [3, 3, -1, -1, -1, -1, 3, 3]
    memories.image[:] = 0
    memories.begin(4)
    assert windows(28, 2, kept=1) == list(range(28, 36)) and memories.sources == {3}
    assert windows(28, 2) == [0] * 8
    memories.begin(5)
    assert (memories.number, memories.sources, memories.stores) == (5, set(), [])


def test_words_say_which_loads_they_come_from() -> None:
    memories = loaded(bytes(range(64)), target=int(Target.POSITIONS), beats=2, destination=1)
    assert memories.words(Target.POSITIONS, np.array([1, 2])).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert memories.sources == {7}
    memories.words(Target.POSITIONS, np.array([0, 1]))
    assert memories.sources == {-1, 7}

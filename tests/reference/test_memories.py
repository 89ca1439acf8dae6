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

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        ctx.set(dut.order.payload, {"mode": int(Result.STORE16), "columns": columns, "address": 64})
        ctx.set(dut.order.valid, 1)
        ctx.set(dut.results.valid, 1)
        await ctx.tick().until(dut.order.ready)
        assert ctx.get(dut.store_run.valid) and ctx.get(dut.store_run.payload).beats == beats

    simulate(dut, bench, limit=20)

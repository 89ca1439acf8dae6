"""The DMA's masters where something is wrong: runs that leave the image, answers of the bus that are errors."""

from __future__ import annotations

import numpy as np
import pytest
from dma_clients import BASE, CONFIG, NAMES, REGION
from support import simulate

from sta_hw.rtl.bus.dma import ReadMaster, WriteMaster

OUTSIDE = [
    ({"address": 0xFF8, "beats": 2}, 1, False),  # the image's last words
    ({"address": 0x1000, "beats": 1}, 0, True),  # just behind it
    ({"address": 0xFF8, "beats": 3}, 1, True),  # its second burst
    ({"address": 0xFF1, "beats": 1}, 0, True),  # at no word
    ({"address": 0xFF2, "beats": 1}, 0, True),
    ({"address": 0xFFFFF000, "beats": 1}, 0, True),
]
"""Runs in an image of 0x1000 bytes: how many bursts come out, and whether it is a fault."""


@pytest.mark.parametrize(("fields", "bursts", "is_fault"), OUTSIDE, ids=lambda f: str(f))
@pytest.mark.parametrize("writes", [False, True], ids=["reads", "writes"])
def test_nothing_outside_the_image(writes: bool, fields: dict[str, int], bursts: int, is_fault: bool) -> None:
    """A run that leaves the image is a fault of its instruction, as far as it is inside it is carried out; the fault
    stays, whatever fails behind it."""
    dut = (WriteMaster if writes else ReadMaster)(CONFIG, dict.fromkeys(NAMES, 8))
    addresses: list[int] = []

    async def bench(ctx) -> None:
        ctx.set(dut.base, BASE)
        ctx.set(dut.limit, 0x1000)
        ctx.set(dut.second_run.payload, fields | {"instruction": 0xABCD})
        ctx.set(dut.second_run.valid, 1)
        ctx.set(dut.second_data.valid if writes else dut.second_data.ready, 1)
        channel = "aw" if writes else "ar"
        valid, address = getattr(dut, f"{channel}valid"), getattr(dut, f"{channel}addr")
        ctx.set(getattr(dut, f"{channel}ready"), 1)
        left = ends = 0
        for _ in range(60):
            if writes:
                ctx.set(dut.wready, 1)
                ctx.set(dut.bvalid, int(ends > 0))
                ctx.set(dut.bresp, 1)
                ends -= ends > 0
                ends += ctx.get(dut.wvalid) and ctx.get(dut.wlast)
            else:
                ctx.set(dut.rvalid, int(left > 0))
                ctx.set(dut.rlast, int(left == 1))
                left -= left > 0
            if ctx.get(valid):
                addresses.append(ctx.get(address))
                left += 0 if writes else ctx.get(dut.arlen) + 1
            taken = ctx.get(dut.second_run.ready)
            await ctx.tick()
            if taken:
                ctx.set(dut.second_run.valid, 0)
            assert not ctx.get(dut.error)
            if ctx.get(dut.fault):
                assert ctx.get(dut.instruction) == 0xABCD
        assert ctx.get(dut.fault) == is_fault
        assert ctx.get(dut.idle) == (not is_fault)  # what may not go still stands, until it is stopped
        # Another failure behind it changes nothing.
        ctx.set(dut.third_run.payload, {"address": 0x2000, "beats": 1, "instruction": 7})
        ctx.set(dut.third_run.valid, 1)
        ctx.set(dut.third_data.valid if writes else dut.third_data.ready, 1)
        for _ in range(20):
            await ctx.tick()
        assert ctx.get(dut.fault) and ctx.get(dut.instruction) == (0xABCD if is_fault else 7)
        ctx.set(dut.stop, 1)
        await ctx.delay(1e-9)
        assert ctx.get(dut.idle)

    simulate(dut, bench, limit=5000)
    assert addresses == [BASE + fields["address"]] * bursts


@pytest.mark.parametrize("response", [2, 3])
@pytest.mark.parametrize("at", [0, 3, 5, 9])
@pytest.mark.parametrize("writes", [False, True], ids=["reads", "writes"])
def test_an_error_is_of_its_instruction(writes: bool, at: int, response: int) -> None:
    """Two clients' bursts by turns, of which one fails; the first failure stays."""
    dut = (WriteMaster if writes else ReadMaster)(CONFIG, dict.fromkeys(NAMES, 64))
    owners: list[int] = []

    async def bench(ctx) -> None:
        ctx.set(dut.limit, len(NAMES) * REGION)
        for i, n in enumerate(NAMES):
            run = getattr(dut, f"{n}_run")
            ctx.set(run.payload, {"address": i * REGION, "beats": 6 * CONFIG.burst, "instruction": 100 + i})
            ctx.set(run.valid, 1)
            data = getattr(dut, f"{n}_data")
            ctx.set(data.valid if writes else data.ready, 1)
        answers: list[int] = []  # instruction of each
        given = 0
        expected = None
        for _ in range(150):
            ctx.set(dut.awready if writes else dut.arready, 1)
            if writes:
                ctx.set(dut.wready, 1)
            gives = bool(answers) and rng.random() < 0.7
            wrong = response if given in (at, at + 4) else 1
            ctx.set(dut.bvalid if writes else dut.rvalid, gives)
            # A response that is not given is none.
            ctx.set(dut.bresp if writes else dut.rresp, wrong if gives else response)
            if not writes:
                ctx.set(dut.rlast, 1)
            if gives:
                if given == at:
                    expected = answers[0]
                answers.pop(0)
                given += 1
            if writes:
                if ctx.get(dut.awvalid):
                    owners.append(100 + ctx.get(dut.awaddr) // REGION)
                if ctx.get(dut.wvalid) and ctx.get(dut.wlast):
                    answers.append(owners.pop(0))
            elif ctx.get(dut.arvalid):
                answers.append(100 + ctx.get(dut.araddr) // REGION)
            runs = [bool(ctx.get(getattr(dut, f"{n}_run").ready)) for n in NAMES]
            await ctx.tick()
            for n, taken in zip(NAMES, runs, strict=True):
                if taken:
                    ctx.set(getattr(dut, f"{n}_run").valid, 0)
            assert ctx.get(dut.error) == (expected is not None) and not ctx.get(dut.fault)
            if expected is not None:
                assert ctx.get(dut.instruction) == expected
        assert given > 12 and expected

    rng = np.random.default_rng(at)
    simulate(dut, bench, limit=5000)

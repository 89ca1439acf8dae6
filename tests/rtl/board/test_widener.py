"""From a narrow AXI4 bus to a wide one: bursts that begin and end anywhere, with stalls on every channel."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from sta_hw.rtl.board.widener import Widener

SIZE = 4096


class Memory:
    """The wide side: AXI4 addresses in their order, random waits, write data ahead of addresses, any answer."""

    def __init__(self, wide: int, seed: int) -> None:
        self.wide = wide
        self.rng = np.random.default_rng(seed)
        self.bytes = self.rng.integers(0, 256, SIZE, dtype=np.uint8)
        self.first = self.bytes.copy()
        self.reads: deque[int] = deque()
        self.lasts: deque[bool] = deque()
        self.writes: deque[int] = deque()
        self.write_lasts: deque[bool] = deque()
        self.early: deque[tuple[bytes, int, int]] = deque()
        self.most_early = 0
        self.answers: deque[int] = deque()

    def answer(self, address: int) -> int:
        """Of a wide word that is read: one of AXI's four."""
        return address // self.wide % 4

    async def run(self, ctx: Any, dut: Widener) -> None:
        bursts = 0
        while True:
            for channel, idle in (("ar", 4), ("aw", 12), ("w", 4)):  # addresses of writes are taken late
                often = self.rng.integers(0, idle)
                ctx.set(getattr(dut, f"m_axi_{channel}ready"), int(often != 0 if channel != "aw" else often == 0))
            offered = bool(self.reads) and bool(self.rng.integers(0, 4))
            ctx.set(dut.m_axi_rvalid, offered)
            if offered:
                word = self.bytes[self.reads[0] : self.reads[0] + self.wide]
                ctx.set(dut.m_axi_rdata, int.from_bytes(word.tobytes(), "little"))
                ctx.set(dut.m_axi_rlast, self.lasts[0])
                ctx.set(dut.m_axi_rresp, self.answer(self.reads[0]))
            ctx.set(dut.m_axi_bvalid, len(self.answers) > 0)
            if self.answers:
                ctx.set(dut.m_axi_bresp, self.answers[0])
            taken = {n: ctx.get(getattr(dut, f"m_axi_{n}valid")) and ctx.get(getattr(dut, f"m_axi_{n}ready"))
                     for n in ("ar", "aw", "w", "r", "b")}  # fmt: skip
            for channel, addresses, lasts in (
                ("ar", self.reads, self.lasts), ("aw", self.writes, self.write_lasts),
            ):  # fmt: skip
                if taken[channel]:
                    address, count = (ctx.get(getattr(dut, f"m_axi_{channel}{n}")) for n in ("addr", "len"))
                    assert address % self.wide == 0
                    assert 1 << ctx.get(getattr(dut, f"m_axi_{channel}size")) == self.wide
                    addresses.extend(address + self.wide * i for i in range(count + 1))
                    lasts.extend(i == count for i in range(count + 1))
            if taken["r"]:
                self.reads.popleft()
                self.lasts.popleft()
            if taken["b"]:
                self.answers.popleft()
            if taken["w"]:
                data = ctx.get(dut.m_axi_wdata).to_bytes(self.wide, "little")
                self.early.append((data, ctx.get(dut.m_axi_wstrb), ctx.get(dut.m_axi_wlast)))
            while self.early and self.writes:
                address, last = self.writes.popleft(), self.write_lasts.popleft()
                data, strobe, said = self.early.popleft()
                for i in range(self.wide):
                    if strobe >> i & 1:
                        self.bytes[address + i] = data[i]
                assert said == last
                if last:
                    self.answers.append(bursts % 4)
                    bursts += 1
            self.most_early = max(self.most_early, len(self.early))
            await ctx.tick()


@pytest.mark.parametrize(("narrow", "wide"), [(8, 16), (4, 16)])
def test_bursts_from_and_to_anywhere(narrow: int, wide: int) -> None:
    """Random bursts, read and written at a time; every word in its order, nothing else written."""
    rng = np.random.default_rng(narrow)
    dut, memory = Widener(narrow, wide), Memory(wide, narrow + 1)
    half = SIZE // 2 // narrow

    def bursts(count: int) -> list[tuple[int, int]]:
        return [(int(a), int(min(rng.choice([1, 2, 3, 5, 16]), half - a))) for a in rng.integers(0, half, count)]

    reads, writes = bursts(60), bursts(60)
    expected = memory.first.copy()
    words = [rng.integers(0, 256, (n, narrow), dtype=np.uint8) for _, n in writes]
    strobes = [rng.choice([(1 << narrow) - 1, 0, 5], n) for _, n in writes]
    for (address, count), data, strobe in zip(writes, words, strobes, strict=True):
        for i in range(count):
            place = SIZE // 2 + narrow * (address + i)
            for byte in range(narrow):
                if int(strobe[i]) >> byte & 1:
                    expected[place + byte] = data[i, byte]
    read: list[tuple[bytes, bool, int]] = []
    answered: list[int] = []

    async def address(ctx: Any, channel: str, base: int, given: list[tuple[int, int]]) -> None:
        for first, count in given:
            while not rng.integers(0, 3):
                await ctx.tick()
            ctx.set(getattr(dut, f"s_axi_{channel}addr"), base + narrow * first)
            ctx.set(getattr(dut, f"s_axi_{channel}len"), count - 1)
            ctx.set(getattr(dut, f"s_axi_{channel}valid"), 1)
            await ctx.tick().until(getattr(dut, f"s_axi_{channel}ready"))
            ctx.set(getattr(dut, f"s_axi_{channel}valid"), 0)

    async def data(ctx: Any) -> None:
        for block, strobe in zip(words, strobes, strict=True):
            for i, word in enumerate(block):
                while not rng.integers(0, 4):
                    await ctx.tick()
                ctx.set(dut.s_axi_wdata, int.from_bytes(word.tobytes(), "little"))
                ctx.set(dut.s_axi_wstrb, int(strobe[i]))
                ctx.set(dut.s_axi_wlast, i == len(block) - 1)
                ctx.set(dut.s_axi_wvalid, 1)
                await ctx.tick().until(dut.s_axi_wready)
                ctx.set(dut.s_axi_wvalid, 0)

    async def results(ctx: Any) -> None:
        for _ in range(20_000):
            if ctx.get(dut.s_axi_rvalid):
                data, last, answer = (ctx.get(getattr(dut, f"s_axi_r{n}")) for n in ("data", "last", "resp"))
                read.append((data.to_bytes(narrow, "little"), bool(last), answer))
            if ctx.get(dut.s_axi_bvalid):
                answered.append(ctx.get(dut.s_axi_bresp))
            if len(answered) == len(writes) and len(read) == sum(n for _, n in reads):
                return
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(partial(memory.run, dut=dut), background=True)
    simulator.add_testbench(partial(address, channel="ar", base=0, given=reads))
    simulator.add_testbench(partial(address, channel="aw", base=SIZE // 2, given=writes))
    simulator.add_testbench(data)
    simulator.add_testbench(results)
    simulator.run()
    places = [(narrow * (a + i), i == n - 1) for a, n in reads for i in range(n)]
    assert read == [
        (memory.first[place:][:narrow].tobytes(), last, memory.answer(place // wide * wide)) for place, last in places
    ]
    assert answered == [i % 4 for i in range(len(writes))]
    assert np.array_equal(memory.bytes, expected)
    assert memory.most_early > 2

"""The serial line and its bridge: commands of LiteX's uartbone, lost bytes, timeouts, the checksum."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module
from support import simulate

from sta_hw.rtl.board.uart import UartReceiver, UartTransmitter
from sta_hw.rtl.board.uart_bridge import UartBridge

TIMEOUT = 300


def command(kind: int, address: int, words: int, data: bytes = b"") -> bytes:
    return bytes([kind, words]) + address.to_bytes(4, "big") + data


def converse(parts: list[bytes | int], *, wait: int = 0) -> tuple[bytes, dict[int, int], list[tuple[int, int]], int]:
    """Send bytes (an int is a pause in cycles) to a bridge over a small memory.

    Returns what came back, the memory, the writes in order, and the checksum.
    """
    m = Module()
    m.submodules.dut = dut = UartBridge(TIMEOUT)
    memory: dict[int, int] = {a: a * 0x01010101 & 0xFFFFFFFF for a in range(64)}
    writes: list[tuple[int, int]] = []
    answer = bytearray()
    checksum = 0

    async def host(ctx) -> None:
        nonlocal checksum
        for part in parts:
            if isinstance(part, int):
                await ctx.tick().repeat(part)
                continue
            for byte in part:
                ctx.set(dut.received.payload, byte)
                ctx.set(dut.received.valid, 1)
                await ctx.tick().until(dut.received.ready)
                ctx.set(dut.received.valid, 0)
                await ctx.tick()
        await ctx.tick().repeat(400)
        checksum = ctx.get(dut.checksum)

    async def line(ctx) -> None:
        ctx.set(dut.sent.ready, 1)
        async for _, _, valid, byte in ctx.tick().sample(dut.sent.valid, dut.sent.payload):
            if valid:
                answer.append(byte)

    async def bus(ctx) -> None:
        waited = -1  # cycles since the strobe, -1 when there is none
        async for _, _, strobe, write, address, word in ctx.tick().sample(
            dut.strobe & ~dut.acknowledge, dut.write, dut.address, dut.write_data
        ):
            waited = waited + 1 if strobe else -1
            ctx.set(dut.acknowledge, waited == wait)
            if waited == wait:
                if write:
                    memory[address] = word
                    writes.append((address, word))
                ctx.set(dut.read_data, memory.get(address, 0))

    simulate(m, host, limit=100_000, background=[line, bus])
    return bytes(answer), memory, writes, checksum


@pytest.mark.parametrize("wait", [0, 7])
def test_reads_and_writes(wait: int) -> None:
    data = bytes(range(1, 13))
    answer, memory, writes, checksum = converse(
        [command(1, 16, 3, data), command(2, 15, 3), command(3, 5, 2, data[:8]), command(4, 7, 2), command(1, 9, 0)],
        wait=wait,
    )
    words = np.frombuffer(data, ">u4").tolist()
    assert [memory[16 + i] for i in range(3)] == words
    assert writes[3:] == [(5, words[0]), (5, words[1])]
    expected = [0x0F0F0F0F, *words[:2], 0x07070707, 0x07070707]
    assert np.frombuffer(answer, ">u4").tolist() == expected
    assert checksum == zlib.crc32(data + data[:8])


def test_an_unfinished_command_is_forgotten() -> None:
    """A byte is lost from data, from the address, from the length; later commands work."""
    whole = command(1, 20, 1, bytes([1, 2, 3, 4]))
    for lost in (1, 3, 7):
        broken = whole[:lost] + whole[lost + 1 :]
        answer, memory, _, _ = converse([broken, TIMEOUT + 20, command(1, 21, 1, b"\0\0\0\7"), command(2, 21, 1)])
        assert memory[20] == 20 * 0x01010101
        assert answer == b"\0\0\0\7"


def test_bytes_that_are_no_command() -> None:
    answer, _, writes, _ = converse([b"\0\xff\x05hello", command(2, 1, 1)])
    assert answer == b"\1\1\1\1" and not writes


def received(m: Module, receiver: UartReceiver, bench: Any) -> list[int]:
    """The bytes that a receiver gives while a bench runs."""
    found: list[int] = []

    async def receive(ctx) -> None:
        ctx.set(receiver.bytes.ready, 1)
        async for _, _, valid, byte in ctx.tick().sample(receiver.bytes.valid, receiver.bytes.payload):
            if valid:
                found.append(byte)

    simulate(m, bench, limit=20_000, background=[receive])
    return found


@pytest.mark.parametrize("divisor", [4, 5, 16])
def test_serial_line(divisor: int) -> None:
    m = Module()
    m.submodules.transmitter = transmitter = UartTransmitter(divisor)
    m.submodules.receiver = receiver = UartReceiver(divisor)
    m.d.comb += receiver.rx.eq(transmitter.tx)
    sent = [0, 255, 0x55, 0xAA, 1, 128, *np.random.default_rng(0).integers(0, 256, 20).tolist()]

    async def send(ctx) -> None:
        for i, byte in enumerate(sent):
            ctx.set(transmitter.bytes.payload, byte)
            ctx.set(transmitter.bytes.valid, 1)
            await ctx.tick().until(transmitter.bytes.ready)
            ctx.set(transmitter.bytes.valid, 0)
            await ctx.tick().repeat(1 + (37 * i) % 11)
        await ctx.tick().repeat(12 * divisor)

    assert received(m, receiver, send) == sent


def test_a_missing_stop_bit_drops_the_byte() -> None:
    m = Module()
    m.submodules.receiver = receiver = UartReceiver(8)

    async def line(ctx) -> None:
        for bits in ([0] * 12 + [1] * 3, [0, *[1, 0] * 4, 1, 1, 1]):
            for bit in bits:
                ctx.set(receiver.rx, bit)
                await ctx.tick().repeat(8)

    assert received(m, receiver, line) == [0x55]


def test_a_line_too_fast_for_the_clock() -> None:
    with pytest.raises(ValueError, match="at least 4 cycles per bit, not 3"):
        UartReceiver(3)

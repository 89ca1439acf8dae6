"""The cocotb bench of the accelerator's buses: cocotbext-axi drives AXI4-Lite and answers AXI4.

It runs inside the simulator; tests/rtl/bus/test_axi.py writes the cases and reads what came out.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import First, RisingEdge, Timer
from cocotbext.axi import AddressSpace, AxiBus, AxiLiteBus, AxiLiteMaster, AxiResp, AxiSlave, MemoryRegion

from sta_hw.spec.registers import register


class _Region(MemoryRegion):
    """Memory in which some bytes answer with an error."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.bad = range(0)

    def _check(self, address: int, length: int) -> None:
        if address < self.bad.stop and address + length > self.bad.start:
            raise RuntimeError("this address answers with an error")

    async def _read(self, address: int, length: int, **options: Any) -> bytes:
        self._check(address, length)
        return await super()._read(address, length, **options)

    async def _write(self, address: int, data: bytes, **options: Any) -> None:
        self._check(address, len(data))
        await super()._write(address, data, **options)


def _pauses(seed: str, share: float) -> Iterator[bool]:
    rng = random.Random(seed)
    while True:
        yield rng.random() < share


def _blocks(cycles: int) -> Iterator[bool]:
    """A channel that moves nothing for so many cycles, and then is free for as many: what is under way piles up."""
    while True:
        yield from [True] * cycles
        yield from [False] * cycles


@cocotb.test()
async def programs(dut: Any) -> None:
    """Run every case; write memory, status and the failing instruction, and what the protocol checker counted."""
    folder = Path(os.environ["STA_HW_VECTORS"])
    given = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    cases, base = given["cases"], given["base"]
    size = base + max((folder / c["image"]).stat().st_size for c in cases)
    memory = _Region(1 << size.bit_length())
    space = AddressSpace(1 << 64)
    space.register_region(memory, given["high"] << 32)
    clock, reset = dut.aclk, dut.aresetn
    Clock(clock, 10, unit="ns").start()
    slave = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), clock, reset, reset_active_level=False, target=space)
    control = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), clock, reset, reset_active_level=False)
    reset.value = 0
    for _ in range(4):
        await RisingEdge(clock)
    reset.value = 1
    await RisingEdge(clock)
    channels = {
        "ar": slave.read_if.ar_channel, "r": slave.read_if.r_channel, "aw": slave.write_if.aw_channel,
        "w": slave.write_if.w_channel, "b": slave.write_if.b_channel,
    }  # fmt: skip
    for channel in channels.values():
        channel.queue_occupancy_limit = 64  # what is under way is limited by the accelerator, and not by the memory
    registers = {
        "s_ar": control.read_if.ar_channel, "s_r": control.read_if.r_channel, "s_aw": control.write_if.aw_channel,
        "s_w": control.write_if.w_channel, "s_b": control.write_if.b_channel,
    }  # fmt: skip

    async def write(name: str, value: int) -> None:
        assert (await control.write_dword(register(name).offset, value)) is None

    async def read(name: str) -> int:
        return await control.read_dword(register(name).offset)

    results: list[dict[str, int | None]] = []
    for number, case in enumerate(cases):
        image = (folder / case["image"]).read_bytes()
        memory.bad = range(0)
        await memory.write(base, image)
        memory.bad = range(*(base + address for address in case["error"]))
        for name, channel in (channels | registers).items():
            channel.set_pause_generator(
                _blocks(300) if name in case["block"] else
                _pauses(f"{number} {name}", case["pause"])
            )  # fmt: skip
        places = {
            "image_address": base, "image_size": len(image), "program_address": case["program"],
            "length": case["length"],
        }  # fmt: skip
        # All at once: the next access is offered while the last one's answer waits.
        for written in [cocotb.start_soon(write(*place)) for place in places.items()]:
            await written
        reads = {name: cocotb.start_soon(read(name)) for name in places}
        assert {name: await task for name, task in reads.items()} == places
        await write("control", 0b101)
        limit = Timer(case["limit"] * 10, unit="ns")
        fired = await First(RisingEdge(dut.irq), limit)
        # A program has ended when nothing of it is under way any more, behind an error too.
        watched = [getattr(dut.checker_i, name) for name in ("read_count", "write_count", "data_count", "answers_due")]
        assert fired is limit or not any(int(count.value) for count in watched), (
            f"case {number}: bursts under way behind its end"
        )
        status = await read("status")
        instruction = await read("error_instruction")
        if fired is limit:
            results.append({"status": None})
            break
        await write("interrupt_clear", 1)
        await RisingEdge(clock)
        assert not int(dut.irq.value)
        memory.bad = range(0)
        (folder / f"after{number}.bin").write_bytes(bytes(await memory.read(base, len(image))))
        results.append({"status": status, "instruction": instruction, "cycles": await read("counter_cycles")})
        if case["reset"]:
            await write("control", 0b10)
    # A register that does not exist answers with an error.
    response = await control.read(0xFFC, 4)
    assert response.resp == AxiResp.SLVERR
    counted = {name: int(getattr(dut, name).value) for name in given["counted"]}
    (folder / "results.json").write_text(json.dumps({"cases": results} | counted))

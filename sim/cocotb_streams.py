"""The cocotb bench of every stream block: sends beats, takes beats, with random stalls on all streams.

It runs inside the simulator. `sim.cocotb_runner` writes the vectors and reads what came out.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Combine, First, ReadOnly, RisingEdge, Timer


async def _send(dut: Any, name: str, beats: list[int], rng: random.Random, stall: float) -> None:
    payload, valid, ready = (getattr(dut, f"{name}__{part}") for part in ("payload", "valid", "ready"))
    for beat in beats:
        while rng.random() < stall:
            await RisingEdge(dut.clk)
        payload.value = beat
        valid.value = 1
        while True:
            await ReadOnly()
            taken = int(ready.value)
            await RisingEdge(dut.clk)
            if taken:
                break
        valid.value = 0


async def _take(dut: Any, name: str, count: int, rng: random.Random, stall: float, found: list[str]) -> None:
    payload, valid, ready = (getattr(dut, f"{name}__{part}") for part in ("payload", "valid", "ready"))
    while len(found) < count:
        offer = rng.random() >= stall
        ready.value = int(offer)
        await ReadOnly()
        if offer and int(valid.value):
            found.append(hex(int(payload.value)))
        await RisingEdge(dut.clk)
    ready.value = 0


async def _watch(dut: Any, names: list[str], surplus: list[str], cycles: int) -> None:
    """After the last expected beat, nothing more may be offered."""
    for _ in range(cycles):
        await ReadOnly()
        surplus.extend(name for name in names if int(getattr(dut, f"{name}__valid").value))
        await RisingEdge(dut.clk)


@cocotb.test()
async def streams(dut: Any) -> None:
    """Run every case of the vector file; write what the outputs gave."""
    folder = Path(os.environ["STA_HW_VECTORS"])
    vectors = json.loads((folder / "vectors.json").read_text(encoding="utf-8"))
    inputs, outputs = vectors["inputs"], vectors["outputs"]
    for name in inputs:
        getattr(dut, f"{name}__valid").value = 0
        getattr(dut, f"{name}__payload").value = 0
    for name in outputs:
        getattr(dut, f"{name}__ready").value = 0
    dut.rst.value = 1
    Clock(dut.clk, 10, unit="ns").start()
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    results = []
    for number, case in enumerate(vectors["cases"]):
        found: dict[str, list[str]] = {name: [] for name in outputs}
        tasks = []
        for name in inputs:
            beats = [int(b, 16) for b in case["inputs"].get(name, [])]
            rng = random.Random(f"{number} {name}")
            tasks.append(cocotb.start_soon(_send(dut, name, beats, rng, case["stall"])))
        for name in outputs:
            rng = random.Random(f"{number} {name}")
            count = case["expected"].get(name, 0)
            tasks.append(cocotb.start_soon(_take(dut, name, count, rng, case["stall"], found[name])))
        everything = cocotb.start_soon(_all(tasks))
        limit = Timer(case["limit"] * 10, unit="ns")
        await First(everything, limit)
        surplus: list[str] = []
        if everything.done():
            await RisingEdge(dut.clk)
            await _watch(dut, outputs, surplus, 20)
        waiting = [n for n in outputs if len(found[n]) < case["expected"].get(n, 0)]
        results.append({"outputs": found, "surplus": sorted(set(surplus)), "waiting": waiting})
        if waiting or not everything.done():
            break
    (folder / "results.json").write_text(json.dumps(results))


async def _all(tasks: list[Any]) -> None:
    await Combine(*tasks)

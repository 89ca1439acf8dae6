"""The DMA's masters: whose burst goes next, and what reaches memory, under stalls on every side."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from amaranth.hdl import Value
from dma_clients import BASE, CONFIG, NAMES, REGION
from support import port_widths, simulate

from sta_hw.rtl.bus.dma import ReadMaster, WriteMaster
from sta_hw.rtl.bus.runs import APART
from sta_hw.rtl.primitives.queue import capacity
from sta_hw.spec.config import Config

ROWS = CONFIG.rows


def strobes(config: Config, address: int, kind: int, before: int, after: int, part: int) -> int:
    """Which bytes of a bus word are written: those of the rows from `before` on, but the last `after`; of columns
    apart those of one part of each place."""
    found = 0
    for i in range(config.bus_bytes):
        row = (address + i) // (1, 2, config.groups, 1)[kind] % ROWS
        own = kind != APART or (address + i) % config.groups // ROWS == part
        found |= (own and before <= row < ROWS - after) << i
    return found


def some_runs(rng: np.random.Generator, count: int, first: int) -> list[dict[str, int]]:
    """Runs of random lengths and places in one client's region, some of nothing."""
    return [
        {
            "address": first + CONFIG.bus_bytes * int(rng.integers(0, 100)),
            "beats": int(rng.choice([0, 1, 2, 4, 5, 9, 19])), "instruction": int(rng.integers(1, 1 << 16)),
        }
        for _ in range(count)
    ]  # fmt: skip


def bursts_of(run: dict[str, int]) -> list[tuple[int, int]]:
    """Addresses and beats: cut at multiples of a burst's bytes."""
    found, size = [], CONFIG.bus_bytes
    address, left = run["address"], run["beats"]
    while left:
        beats = min(left, CONFIG.burst - address // size % CONFIG.burst)
        found.append((address, beats))
        address, left = address + beats * size, left - beats
    return found


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read(seed: int) -> None:
    """Runs of three clients that take their words when they like, from a memory that answers when it likes."""
    rng = np.random.default_rng(seed)
    depths = dict(zip(NAMES, (4, 8, 64), strict=True))  # the last one in block RAM
    dut = ReadMaster(CONFIG, depths)
    runs = {n: some_runs(rng, 8, i * REGION) for i, n in enumerate(NAMES)}
    bursts = {n: [b for run in runs[n] for b in bursts_of(run)] for n in NAMES}
    memory = {BASE + at: int(rng.integers(1 << 32)) for at in range(0, len(NAMES) * REGION, CONFIG.bus_bytes)}
    wanted = {n: [memory[BASE + a + 4 * k] for a, beats in bursts[n] for k in range(beats)] for n in NAMES}
    pace, accept = ((1.0, 1.0), (0.3, 1.0), (1.0, 0.4), (0.6, 0.6))[seed]
    found: dict[str, list[int]] = {n: [] for n in NAMES}
    asked: dict[str, list[tuple[int, int]]] = {n: [] for n in NAMES}

    async def bench(ctx) -> None:
        ctx.set(dut.base, BASE)
        ctx.set(dut.limit, len(NAMES) * REGION)
        waiting = {n: list(r) for n, r in runs.items()}
        answers: list[tuple[int, int]] = []  # word, last
        offered = None
        quiet = cycle = 0
        while quiet < 60 and cycle < 3000:
            quiet, cycle = quiet + 1, cycle + 1
            for n in NAMES:
                run = getattr(dut, f"{n}_run")
                ctx.set(run.valid, int(bool(waiting[n])))
                ctx.set(run.payload, waiting[n][0] if waiting[n] else runs[n][0])
                ctx.set(getattr(dut, f"{n}_data").ready, int(rng.random() < pace))
            ctx.set(dut.arready, int(rng.random() < accept))
            gives = bool(answers) and rng.random() < accept
            ctx.set(dut.rvalid, gives)
            ctx.set(dut.rresp, int(rng.integers(2)))  # neither is an error
            ctx.set(dut.rdata, answers[0][0] if gives else int(rng.integers(1 << 32)))
            ctx.set(dut.rlast, answers[0][1] if gives else 0)
            assert ctx.get(dut.rready) and not ctx.get(dut.fault) and not ctx.get(dut.error)
            if answers or ctx.get(dut.arvalid):
                assert not ctx.get(dut.idle)
            for n in NAMES:
                run, data = getattr(dut, f"{n}_run"), getattr(dut, f"{n}_data")
                if waiting[n] and ctx.get(run.ready):
                    waiting[n].pop(0)
                if ctx.get(data.valid) and ctx.get(data.ready):
                    found[n].append(ctx.get(data.payload))
                    quiet = 0
            if gives:
                answers.pop(0)
            if ctx.get(dut.arvalid):
                burst = (ctx.get(dut.araddr), ctx.get(dut.arlen) + 1)
                assert offered in (None, burst)
                offered = burst
                if ctx.get(dut.arready):
                    offered, quiet = None, 0
                    asked[NAMES[(burst[0] - BASE) // REGION]].append((burst[0] - BASE, burst[1]))
                    answers += [(memory[burst[0] + 4 * k], int(k == burst[1] - 1)) for k in range(burst[1])]
            else:
                assert offered is None
            await ctx.tick()
        assert ctx.get(dut.idle)

    simulate(dut, bench, limit=5000)
    assert asked == bursts
    assert found == wanted


@pytest.mark.parametrize("slow", [1, 16])
def test_no_client_reads_twice_while_another_waits(slow: int) -> None:
    """Three clients ask for one long run each; a burst is accepted every `slow` cycles."""
    dut = ReadMaster(CONFIG, dict.fromkeys(NAMES, 64))
    bursts = 12
    order: list[int] = []

    async def bench(ctx) -> None:
        ctx.set(dut.limit, len(NAMES) * REGION)
        for i, name in enumerate(NAMES):
            run = getattr(dut, f"{name}_run")
            ctx.set(run.payload, {"address": i * REGION, "beats": bursts * CONFIG.burst, "instruction": i})
            ctx.set(run.valid, 1)
            ctx.set(getattr(dut, f"{name}_data").ready, 1)
        answers: list[int] = []  # beats left of each burst under way
        for cycle in range(3 * bursts * max(slow, CONFIG.burst + 2) + 200):
            ctx.set(dut.arready, int(cycle % slow == slow - 1))
            ctx.set(dut.rvalid, int(bool(answers)))
            ctx.set(dut.rlast, int(bool(answers) and answers[0] == 1))
            taken = [bool(ctx.get(getattr(dut, f"{name}_run").ready)) for name in NAMES]
            if answers:
                answers[0] -= 1
                if not answers[0]:
                    answers.pop(0)
            if ctx.get(dut.arvalid) and ctx.get(dut.arready):
                order.append(ctx.get(dut.araddr) // REGION)
                answers.append(ctx.get(dut.arlen) + 1)
            await ctx.tick()
            for name, was in zip(NAMES, taken, strict=True):
                if was:
                    ctx.set(getattr(dut, f"{name}_run").valid, 0)

    simulate(dut, bench, limit=5000)
    assert sorted(order) == sorted(list(range(len(NAMES))) * bursts)
    if slow > 1:  # otherwise a client may still be preparing its next burst
        for i in range(1, len(order)):
            assert order[i] != order[i - 1] or set(order[i:]) == {order[i]}, order


@pytest.mark.parametrize("outstanding", [1, 2, 3, 4, 5, 8, 9, 13, 16])
def test_so_many_reads_are_let_out(outstanding: int) -> None:
    """No answer comes: exactly `outstanding` bursts are let out, and the master is not idle until all are answered.

    The next one goes two cycles behind the end of an answer.
    """
    dut = ReadMaster(dataclasses.replace(CONFIG, outstanding=outstanding), {"first": 256})
    bursts = outstanding + 20
    found: list[int] = []

    async def bench(ctx) -> None:
        ctx.set(dut.limit, 0x10000)
        run = dut.first_run
        ctx.set(run.payload, {"address": 0, "beats": bursts * CONFIG.burst, "instruction": 1})
        ctx.set(run.valid, 1)
        ctx.set(dut.first_data.ready, 1)
        ctx.set(dut.arready, 1)
        assert ctx.get(dut.idle)
        await ctx.tick()
        ctx.set(run.valid, 0)

        async def let_out(cycles: int) -> list[int]:
            out: list[int] = []
            for cycle in range(cycles):
                out += [cycle] * ctx.get(dut.arvalid)
                assert not (out or found) or not ctx.get(dut.idle)
                await ctx.tick()
            return out

        async def answer(ends: int) -> None:
            for beat in range(ends * CONFIG.burst):
                ctx.set(dut.rvalid, 1)
                ctx.set(dut.rlast, beat % CONFIG.burst == CONFIG.burst - 1)
                await ctx.tick()
            ctx.set(dut.rvalid, 0)

        found.append(len(await let_out(20 * outstanding + 100)))
        await answer(1)
        assert await let_out(100) == [1]  # behind the answer's last beat
        # Stopped, it lets none out, and is idle when the last is answered.
        ctx.set(dut.stop, 1)
        await answer(outstanding - 1)
        assert await let_out(50) == []
        await answer(1)
        await ctx.tick()
        assert ctx.get(dut.idle)

    simulate(dut, bench, limit=5000)
    assert found == [outstanding]


def test_so_many_writes_are_let_out() -> None:
    """No answer comes: one more than the answers' queue is deep; the master is not idle until all are answered."""
    dut = WriteMaster(CONFIG, {"first": 64})
    out: list[int] = []

    async def bench(ctx) -> None:
        ctx.set(dut.limit, 0x10000)
        ctx.set(dut.first_run.payload, {"address": 0, "beats": 40 * CONFIG.burst, "instruction": 1})
        ctx.set(dut.first_run.valid, 1)
        for port in (dut.first_data.valid, dut.awready, dut.wready):
            ctx.set(port, 1)
        assert ctx.get(dut.idle)
        await ctx.tick()
        ctx.set(dut.first_run.valid, 0)
        for _ in range(300):
            out.append(ctx.get(dut.awvalid))
            assert not any(out) or not ctx.get(dut.idle)
            await ctx.tick()
        ctx.set(dut.stop, 1)
        for _ in range(sum(out)):
            assert not ctx.get(dut.idle)
            ctx.set(dut.bvalid, 1)
            await ctx.tick()
        ctx.set(dut.bvalid, 0)
        assert ctx.get(dut.idle)

    simulate(dut, bench, limit=5000)
    assert sum(out) == capacity(16)


@pytest.mark.parametrize("depth", [8, 128])  # distributed and block RAM
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("groups", [2, 16])
def test_what_is_written(depth: int, seed: int, groups: int) -> None:
    """Runs of random lengths, kinds and rows from three clients, words that come when they like, a bus that stalls."""
    rng = np.random.default_rng(seed)
    config = dataclasses.replace(CONFIG, groups=groups)
    kinds, parts = (4, groups // ROWS) if groups > ROWS else (3, 1)
    dut = WriteMaster(config, dict.fromkeys(NAMES, depth))
    size = config.bus_bytes
    runs: dict[str, list[dict[str, int]]] = {n: [] for n in NAMES}
    expected: dict[int, tuple[int, int]] = {}
    words: dict[str, list[int]] = {n: [] for n in NAMES}
    for i, name in enumerate(NAMES):
        address = i * REGION + size * int(rng.integers(0, 9))
        for _ in range(4):
            beats = int(rng.integers(1, 20))
            kind, before, after, part = (int(rng.integers(n)) for n in (kinds, ROWS, ROWS, parts))
            fields = {"address": address, "beats": beats, "instruction": 1, "kind": kind}
            fields |= {"rows_before": before, "rows_after": after} | ({"part": part} if parts > 1 else {})
            runs[name].append(fields)
            for k in range(beats):
                word = int(rng.integers(0, 1 << 32))
                words[name].append(word)
                expected[address + size * k] = (word, strobes(config, address + size * k, kind, before, after, part))
            address += size * beats
    pace, accept = ((1.0, 1.0), (0.3, 1.0), (1.0, 0.4), (0.6, 0.6))[seed]
    memory: dict[int, tuple[int, int]] = {}
    done = dict.fromkeys(NAMES, 0)

    async def bench(ctx) -> None:
        ctx.set(dut.base, BASE)
        ctx.set(dut.limit, len(NAMES) * REGION)
        addresses: list[tuple[int, int]] = []
        beats: list[tuple[tuple[int, int], int]] = []
        beat = answers = 0
        quiet = cycle = 0
        while quiet < 60 and cycle < 3000:
            quiet, cycle = quiet + 1, cycle + 1
            for name in NAMES:
                run, data = getattr(dut, f"{name}_run"), getattr(dut, f"{name}_data")
                ctx.set(run.valid, int(bool(runs[name])))
                if runs[name]:
                    fields = runs[name][0]
                    ctx.set(run.payload, fields | {"kind": 0})
                    ctx.set(Value.cast(run.payload.kind), fields["kind"])  # APART is no member of its enumeration
                ctx.set(data.valid, int(bool(words[name]) and rng.random() < pace))
                if words[name]:
                    ctx.set(data.payload, words[name][0])
                done[name] += ctx.get(getattr(dut, f"{name}_done"))
            ctx.set(dut.awready, int(rng.random() < accept))
            ctx.set(dut.wready, int(rng.random() < accept))
            ctx.set(dut.bvalid, int(answers > 0))
            answers -= answers > 0
            for name in NAMES:
                run, data = getattr(dut, f"{name}_run"), getattr(dut, f"{name}_data")
                if ctx.get(run.valid) and ctx.get(run.ready):
                    runs[name].pop(0)
                if ctx.get(data.valid) and ctx.get(data.ready):
                    words[name].pop(0)
            if ctx.get(dut.awvalid) and ctx.get(dut.awready):
                quiet = 0
                addresses.append((ctx.get(dut.awaddr) - BASE, ctx.get(dut.awlen) + 1))
                blocks = {(addresses[-1][0] + size * k) // (CONFIG.burst * size) for k in (0, addresses[-1][1] - 1)}
                assert len(blocks) == 1
            if ctx.get(dut.wvalid) and ctx.get(dut.wready):
                quiet = 0
                beats.append(((ctx.get(dut.wdata), ctx.get(dut.wstrb)), ctx.get(dut.wlast)))
            # Data may be accepted before their address.
            while addresses and beats:
                start, length = addresses[0]
                word, last = beats.pop(0)
                assert start + size * beat not in memory, "written twice"
                memory[start + size * beat] = word
                beat += 1
                assert last == (beat == length)
                if last:
                    addresses.pop(0)
                    beat, answers = 0, answers + 1
            if addresses or beats or answers:
                assert not ctx.get(dut.idle)
            await ctx.tick()
        assert ctx.get(dut.idle) and not ctx.get(dut.fault) and not ctx.get(dut.error)

    simulate(dut, bench, limit=5000)
    assert memory == expected
    assert done == dict.fromkeys(NAMES, 4)


@pytest.mark.parametrize("writes", [False, True], ids=["reads", "writes"])
def test_a_beat_a_cycle(writes: bool) -> None:
    """Three clients' long runs on a bus that never waits: from the first beat to the last no cycle is without one."""
    config = dataclasses.replace(CONFIG, burst=8)  # shorter ones of a single client have pauses between them
    dut = (WriteMaster if writes else ReadMaster)(config, dict.fromkeys(NAMES, 64))
    beats = 8 * config.burst
    cycles: list[int] = []

    async def bench(ctx) -> None:
        ctx.set(dut.limit, len(NAMES) * REGION)
        for i, name in enumerate(NAMES):
            run, data = getattr(dut, f"{name}_run"), getattr(dut, f"{name}_data")
            ctx.set(run.payload, {"address": i * REGION, "beats": beats, "instruction": i})
            ctx.set(run.valid, 1)
            ctx.set(data.valid if writes else data.ready, 1)
        for name in ("awready", "wready") if writes else ("arready",):
            ctx.set(getattr(dut, name), 1)
        answers: list[int] = []  # of each beat under way whether it is a burst's last
        for cycle in range(4 * beats):
            if writes:
                moves = ctx.get(dut.wvalid)
                ctx.set(dut.bvalid, int(bool(answers)))
                answers = [1] * (moves and ctx.get(dut.wlast))
            else:
                moves = bool(answers)
                ctx.set(dut.rvalid, int(moves))
                ctx.set(dut.rlast, answers.pop(0) if moves else 0)
                if ctx.get(dut.arvalid):
                    answers += [0] * ctx.get(dut.arlen) + [1]
            cycles.extend([cycle] * moves)
            taken = [ctx.get(getattr(dut, f"{name}_run").ready) for name in NAMES]
            await ctx.tick()
            for name, was in zip(NAMES, taken, strict=True):
                if was:
                    ctx.set(getattr(dut, f"{name}_run").valid, 0)

    simulate(dut, bench, limit=5000)
    assert cycles == list(range(cycles[0], cycles[0] + len(NAMES) * beats))


def test_ports() -> None:
    """As wide as AXI has them (docs/axi.md)."""
    both = {"base": 32, "limit": 32, "stop": 1, "idle": 1, "fault": 1, "error": 1, "instruction": 16}
    both |= {"a_run.valid": 1, "a_run.ready": 1, "a_data.payload": 32, "a_data.valid": 1, "a_data.ready": 1}
    read = {"araddr": 32, "arlen": 8, "arvalid": 1, "arready": 1, "rdata": 32, "rresp": 2, "rlast": 1, "rvalid": 1}
    write = {"awaddr": 32, "awlen": 8, "awvalid": 1, "awready": 1, "wdata": 32, "wstrb": 4, "wlast": 1, "wvalid": 1}
    write |= {"wready": 1, "bresp": 2, "bvalid": 1, "bready": 1, "a_done": 1}
    read |= {"rready": 1, "a_run.payload": 32 + 20 + 16}
    assert port_widths(ReadMaster(CONFIG, {"a": 8})) == both | read
    kinds = {"a_run.payload": 32 + 20 + 16 + 2 + 2 + 2}  # kind, rows before and after
    assert port_widths(WriteMaster(CONFIG, {"a": 8})) == both | write | kinds

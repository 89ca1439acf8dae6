"""The result path: every kind of result, alone and in sequence, with stalls, against the reference."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, connect, flipped
from amaranth.sim import Simulator, SimulatorContext

from sim.native import NativeModel, build
from sta_hw.host.beats import join
from sta_hw.reference.best import BestRows
from sta_hw.reference.vector import activate, add_residual, gated, rotated
from sta_hw.rtl.bus.runs import APART, Kind
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.units.results import ResultPath
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Result

CONFIGS = [
    Config(rows=4, groups=2, lanes=4, drain_lanes=2),
    Config(rows=16, groups=4, lanes=16, drain_lanes=4),
    Config(rows=16, groups=16, lanes=8, drain_lanes=4),
    Config(rows=4, groups=2, lanes=4, drain_lanes=1, features=("decoder",)),
    Config(rows=16, groups=4, lanes=8, drain_lanes=4, features=("decoder",)),
    Config(rows=4, groups=16, lanes=4, drain_lanes=2),
]


class WithTable(wiring.Component):
    """The result path with its table's write port as a stream; orders wait until all 256 entries are there."""

    def __init__(self, path: ResultPath) -> None:
        self.path = path
        entry = data.StructLayout({"address": unsigned(8), "data": unsigned(16)})
        members = {n: m for n, m in path.signature.members.items() if not n.startswith("table_")}
        super().__init__({**members, "table": In(stream.Signature(entry))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        path = m.submodules.path = self.path
        for name in self.signature.members:
            if name not in ("order", "table", "stored", "scored", "listed", "done", "saturated"):
                connect(m, flipped(getattr(self, name)), getattr(path, name))
        entries = Signal(range(257))
        loaded = entries == 256
        m.d.comb += [
            path.stored.eq(self.stored),
            self.scored.eq(path.scored),
            self.done.eq(path.done),
            self.saturated.eq(path.saturated),
            *([self.listed.eq(path.listed)] if "listed" in path.signature.members else []),
            path.order.payload.eq(self.order.payload),
            path.order.valid.eq(self.order.valid & loaded),
            self.order.ready.eq(path.order.ready & loaded),
            self.table.ready.eq(1),
            path.table_enable.eq(self.table.valid),
            path.table_address.eq(self.table.payload.address),
            path.table_data.eq(self.table.payload.data),
        ]
        with m.If(self.table.valid):
            m.d.sync += entries.eq(entries + 1)
        return m


@pytest.mark.parametrize("config", CONFIGS, ids=["4x2", "16x4", "16x16", "4x2 decoder", "16x4 decoder", "4x16"])
def test_every_kind_in_sequence(config: Config) -> None:
    rng = np.random.default_rng(config.rows + config.groups)
    block = WithTable(ResultPath(config))
    model = NativeModel(build(emit_verilog(block, "results"), "results", streams_of(block)), streams_of(block))
    # Every entry another one, both ends of the range among them; written in any order.
    table = rng.permutation(65536)[:256] - 32768
    table[rng.permutation(256)[:4]] = (-32768, 32767, -1, 0)
    entry = rng.permutation(256)
    rows, bus = config.rows, config.bus_bytes
    streams: dict[str, list[np.ndarray]] = {n: [] for n in ("order", "results", "seconds", "residual")}
    streams["table"] = [join([(entry, 8), (table[entry], 16)])]
    stores, written, scores, runs, residual_runs, blocks = [], [], [], [], 0, 0
    parts = config.groups // rows if "apart" in config.abilities else 1
    row_bits = rows.bit_length() - 1
    modes = [r for r in Result if r != Result.BEST]
    kinds: list = [*modes, *["apart"] * (parts > 1), "scores", *rng.permutation([*map(int, modes)] * 3).tolist()]
    if parts > 1:
        kinds = [*kinds, "apart", 0, "apart", int(Result.TRANSPOSE), "apart", "apart", int(Result.STORE16), "apart"]
    if config.features:
        changed = ["multiply 1", "multiply 2", "rotate 0", "rotate 4", "best"]
        kinds = [kinds[n] for n in rng.permutation(len(kinds))] + changed
        kinds += [(changed * 3 + kinds)[n] for n in rng.permutation(15 + len(kinds))]
    best, best_number, listed = BestRows(rows), 0, 0
    for number, kind in enumerate(kinds):
        part = int(rng.integers(parts))
        address, left_out = 64 * int(rng.integers(1 << 26)) + part * rows, rng.integers(0, rows, 2).tolist()
        to_scores, is_apart = kind == "scores", kind == "apart"
        is_best, pairs = kind == "best", isinstance(kind, str) and " " in kind
        mode = Result(5 if is_best else int(kind.split()[1]) if pairs else 0 if to_scores or is_apart else kind)
        columns = int(rng.integers(1, 5)) * config.groups
        wide = to_scores or mode in (Result.STORE16, Result.RESIDUAL, Result.BEST)
        limit = 32767 if wide or pairs else 127
        results = rng.integers(-limit, limit + 1, (columns, rows))
        results[0] = rng.choice([-limit, limit, 0], rows)
        seconds = rng.integers(0, 65536, columns) >> rng.integers(0, 10, columns)  # not all saturate
        has_seconds = int(not to_scores and rng.integers(2)) if mode in (0, 1, 4) else int(not is_best)
        multiplies, rotates = (str(kind).startswith(name) for name in ("multiply", "rotate"))
        keeps = mode == Result.STORE16 or (mode == Result.ACTIVATE and not multiplies)
        short = bool(config.features and keeps and not to_scores and number % 2)  # 15 bits in 16
        wide = wide or short
        if multiplies:
            has_seconds = 1
            results[:: 2 * config.groups] >>= 9  # gates within the table
        if is_best:
            opens, closes, best_number = int(rng.integers(2)), int(rng.integers(2)), int(rng.integers(1 << 18))
            if opens or not listed:
                best, opens = BestRows(rows), 1
            listed = 1
            best.add(results.astype(np.int16), best_number)
        more = [(multiplies, 1), (rotates, 1), (short, 1)] if config.features else [(is_apart, 1)] * (parts > 1)
        block_bits = [(0, 38), (is_best and opens, 1), (is_best and closes, 1), (0, 4 + bool(config.features))]
        fields = [
            (int(mode), 3), (int(to_scores), 1), (has_seconds, 1), (columns, 16), (address, 32),
            (best_number if is_best else 128, 32), *((value, row_bits) for value in left_out), *block_bits, *more,
            (number, 16),
        ]  # fmt: skip
        streams["order"].append(join([([v], w) for v, w in fields]))
        bytes_kind = (Kind.TRANSPOSED if mode == Result.TRANSPOSE else Kind.WIDE if wide else Kind.NARROW).value
        beats_stored = (32 if is_best else columns // 2 if multiplies else columns) * rows // bus << wide
        if is_apart:
            beats_stored, bytes_kind = beats_stored * parts, APART
        run = [(address, 32), (beats_stored, 20), (number, 16), (bytes_kind, 2)]
        if not to_scores and not (is_best and not closes):
            stored_rows = [(0 if is_best else value, row_bits) for value in left_out]
            runs.append(
                join([([v], w) for v, w in [*run, *stored_rows, *[(part, parts.bit_length() - 1)] * (parts > 1)]])
            )
        beats = results.reshape(-1, config.drain_lanes)
        last = np.arange(len(beats)) == len(beats) - 1
        streams["results"].append(join([(beats, 16), (last, 1)]))
        if has_seconds:
            streams["seconds"].append(join([(seconds, 16)]))
        if to_scores:
            scores.append(join([(beats, 16)]))
            blocks += 1
            continue
        data: np.ndarray = results.astype(np.int16 if wide else np.int8)
        if is_best:
            if not closes:
                continue
            data = best.stored()
        elif multiplies:
            data = gated(results[::2], results[1::2], table, seconds[::2, None], wide=wide)
        elif rotates:
            x = rng.integers(-32768, 32768, (columns, rows))
            residual_runs += 1
            streams["residual"].append(join([(x.reshape(-1, bus // 2), 16)]))
            data = np.stack(rotated(results[::2], results[1::2], x[::2], x[1::2]), axis=1).reshape(columns, rows)
        elif mode == Result.RESIDUAL:
            x = rng.integers(-32768, 32768, (columns, rows))
            residual_runs += 1
            streams["residual"].append(join([(x.reshape(-1, bus // 2), 16)]))
            data = add_residual(results, x, seconds[:, None])
        elif mode == Result.ACTIVATE:
            data = activate(results, table, seconds[:, None], wide=wide)
            assert len(np.unique(data)) > 2
        if short:
            data = np.clip(data, -16383, 16383)
        if mode == Result.TRANSPOSE:
            data = data.reshape(-1, config.groups, rows).transpose(0, 2, 1)
        if is_apart:  # behind each column the places of others, whose bytes are not written
            data = np.pad(data, ((0, 0), (0, config.groups - rows)))
        stores.append(join([(np.ascontiguousarray(data).view(np.uint8).reshape(-1, bus), 8)]))
        own = np.arange(len(stores[-1])) % max(1, config.groups // bus) < rows // bus
        written.append(own | (not is_apart))
    inputs = {n: np.concatenate(s) for n, s in streams.items()}
    expected = {"store": np.concatenate(stores), "scores": np.concatenate(scores), "store_run": np.concatenate(runs)}
    counts = {n: len(e) for n, e in expected.items()} | {"residual_run": residual_runs, "block": blocks}
    for stall in (0.0, 0.3, 0.7):
        outcome = model.run(inputs, counts, stall=stall, seed=2, linger=30)
        inputs.pop("table", None)  # it stays
        for name, words in expected.items():
            shown = np.concatenate(written) if name == "store" else slice(None)
            np.testing.assert_array_equal(outcome.outputs[name][shown], words[shown])


HELD = 8
"""Products that may be finished and wait for stores before them to be answered, until no other one begins."""
KINDS = {
    "store": {"mode": int(Result.STORE8)},
    "scores": {"scores": 1},
    "lists": {"mode": int(Result.BEST), "block": {"first": 1}},
}


class Counted:
    """A result path whose stores memory answers when it is told to; what it counts, and when.

    Attributes
    ----------
    begun : list of str
        Kinds of the products whose results have begun.
    ended : list of int
        Of each product that stores nothing and of which all results were taken: how many stores had begun by then.
    answered : int
        Stores that memory has answered.
    done : int
        Products that were counted as finished.
    """

    def __init__(self, features: tuple[str, ...]) -> None:
        self.config = Config(rows=4, groups=2, lanes=4, drain_lanes=2, features=features)
        self.dut = ResultPath(self.config)
        self.begun: list[str] = []
        self.ended: list[int] = []
        self.taken = self.answered = self.done = 0

    def run(self, bench: Callable[[SimulatorContext], Coroutine[None, None, None]]) -> None:
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()

    async def cycle(self, ctx: SimulatorContext, kinds: list[str], *, offered: bool, answer: bool) -> None:
        """One, in which the next product's order and a beat of results may be offered, and a store answered."""
        dut = self.dut
        beats = self.config.groups * self.config.rows // self.config.drain_lanes
        for port in (dut.store_run, dut.store, dut.block, dut.scores):
            ctx.set(port.ready, 1)
        ctx.set(dut.order.valid, int(len(self.begun) < len(kinds)))
        if len(self.begun) < len(kinds):
            ctx.set(dut.order.payload, {"columns": self.config.groups, **KINDS[kinds[len(self.begun)]]})
        ctx.set(dut.results.valid, int(offered and self.taken < beats * len(kinds)))
        ctx.set(dut.results.payload.last, int(self.taken % beats == beats - 1))
        for lane in range(self.config.drain_lanes):  # no list takes it
            ctx.set(dut.results.payload.values[lane], -32768)
        ctx.set(dut.stored, int(answer))
        self.answered += answer
        self.done += ctx.get(dut.done)
        listed = ctx.get(dut.listed) if "best" in self.config.features else 0
        self.ended += [self.stores] * (ctx.get(dut.scored) | listed)
        self.taken += ctx.get(dut.results.valid) & ctx.get(dut.results.ready)
        if ctx.get(dut.order.valid) and ctx.get(dut.order.ready):
            self.begun.append(kinds[len(self.begun)])
        await ctx.tick()

    @property
    def stores(self) -> int:
        """Begun."""
        return self.begun.count("store")


@pytest.mark.parametrize("quick", ["scores", "lists"])
def test_products_that_are_held_are_bounded(quick: str) -> None:
    """Behind a store that memory does not answer no more begin than `HELD`, and one while the last list is at its end;
    all are counted when it does, at once."""
    most = HELD + (quick == "lists")
    counted, kinds = Counted(("best",) if quick == "lists" else ()), ["store", *[quick] * 3 * HELD]

    async def bench(ctx: SimulatorContext) -> None:
        for _ in range((100 if quick == "lists" else 20) * HELD):
            await counted.cycle(ctx, kinds, offered=True, answer=False)
        assert len(counted.begun) - 1 == len(counted.ended) == most
        assert counted.done == 0
        await counted.cycle(ctx, kinds, offered=False, answer=True)
        assert counted.done == 1 + most
        while counted.done < len(kinds):
            await counted.cycle(ctx, kinds, offered=True, answer=False)
        assert len(counted.begun) == len(kinds)

    counted.run(bench)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("features", [(), ("best",)], ids=["", "best"])
def test_products_are_counted_in_order(features: tuple[str, ...], seed: int) -> None:
    """What stores nothing is never counted before all stores ahead of it are answered. It is with the last of these if
    no other one is under way, else a cycle later, and with those that came after it meanwhile."""
    rng, counted = np.random.default_rng(seed), Counted(features)
    kinds = rng.choice(["store", "scores", "lists"][: 2 + len(features)], 100).tolist()
    pace, answers = ((1.0, 0.05), (0.5, 0.15), (0.9, 0.02))[seed]
    held: list[int] = []

    async def bench(ctx: SimulatorContext) -> None:
        held_most = 0
        while counted.done < len(kinds):
            # A store is answered when all of its product's results, at least, have been taken.
            beats = counted.config.groups * counted.config.rows // counted.config.drain_lanes
            whole = counted.begun[: counted.taken // beats].count("store")
            answer = counted.answered < whole and rng.random() < answers
            ended, stores, answered = len(counted.ended), counted.stores, counted.answered
            await counted.cycle(ctx, kinds, offered=rng.random() < pace, answer=bool(answer))
            if held and answered >= held[-1]:
                held.clear()
            held.extend(counted.ended[ended:])
            if counted.answered == stores:
                held.clear()
            assert counted.done == counted.answered + len(counted.ended) - len(held)
            held_most = max(held_most, len(held))
        assert held_most and not held and counted.answered == counted.stores == kinds.count("store")
        assert len(counted.ended) == len(kinds) - counted.stores

    counted.run(bench)


@pytest.mark.parametrize(
    ("mode", "bits15", "bits"),
    [(Result.STORE8, 0, 8), (Result.TRANSPOSE, 0, 8), (Result.STORE16, 0, 16), (Result.STORE16, 1, 15)],
    ids=["8 bits", "transposed", "16 bits", "15 bits"],
)
def test_ends_of_a_range_are_told(mode: Result, bits15: int, bits: int) -> None:
    """Each result at an end of its own range is told, alone in its beat; one within it never, and nothing by the flag
    of the other widths."""
    features = ("decoder",) if bits15 else ()
    config = Config(rows=4, groups=2, lanes=4, drain_lanes=2, features=features)
    dut = ResultPath(config)
    limit = (1 << (bits - 1)) - 1
    # Values within are ends of the other ranges, which follow one another otherwise, and neighbours of the own one's.
    values = [end for end in (limit, limit - 1, 1 - limit, -limit, 127, -127, 126, 16383, -16383, 16382, 0, -1)
              if abs(end) <= limit]  # fmt: skip
    beats = [(value, 0) for value in values] + [(0, value) for value in values]
    beats += [(0, 0)] * (-len(beats) % 4)
    taken: list[int] = []  # cycles
    told: list[tuple[int, int]] = []  # cycles and flags

    async def bench(ctx: SimulatorContext) -> None:
        for port in (dut.store_run, dut.store, dut.block, dut.scores):
            ctx.set(port.ready, 1)
        order = {"mode": int(mode), "columns": len(beats) // 2, **({"bits15": 1} if bits15 else {})}
        ctx.set(dut.order.payload, order)
        ctx.set(dut.order.valid, 1)
        for cycle in range(20 * len(beats)):
            offered = len(taken) < len(beats)
            ctx.set(dut.results.valid, int(offered))
            if offered:
                for lane, value in enumerate(beats[len(taken)]):
                    ctx.set(dut.results.payload.values[lane], value)
                ctx.set(dut.results.payload.last, int(len(taken) == len(beats) - 1))
            ordered = ctx.get(dut.order.ready)
            if offered and ctx.get(dut.results.ready):
                taken.append(cycle)
            if flags := ctx.get(dut.saturated):
                told.append((cycle, flags))
            await ctx.tick()
            if ordered:
                ctx.set(dut.order.valid, 0)
        assert len(taken) == len(beats)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    at_ends = [cycle for cycle, beat in zip(taken, beats, strict=True) if limit in beat or -limit in beat]
    latency = told[0][0] - at_ends[0]
    assert told == [(cycle + latency, 2 if bits == 8 else 1) for cycle in at_ends]

"""The result path: every kind of result, alone and in sequence, with stalls, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, connect, flipped

from sim.native import NativeModel, build
from sta_hw.host.beats import join
from sta_hw.reference.vector import activate, add_residual
from sta_hw.rtl.bus.dma import Kind
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.units.results import ResultPath
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Result

CONFIGS = [
    Config(rows=4, groups=2, lanes=4, drain_lanes=2),
    Config(rows=16, groups=4, lanes=16, drain_lanes=4),
    Config(rows=16, groups=16, lanes=8, drain_lanes=4),
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
            if name not in ("order", "table", "stored", "scored", "done", "saturated"):
                connect(m, flipped(getattr(self, name)), getattr(path, name))
        entries = Signal(range(257))
        loaded = entries == 256
        m.d.comb += [
            path.stored.eq(self.stored),
            self.scored.eq(path.scored),
            self.done.eq(path.done),
            self.saturated.eq(path.saturated),
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


@pytest.mark.parametrize("config", CONFIGS, ids=["4x2", "16x4", "16x16"])
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
    stores, scores, runs, residual_runs, blocks = [], [], [], 0, 0
    row_bits = rows.bit_length() - 1
    kinds = [*Result, "scores", *rng.permutation([*map(int, Result)] * 3)]
    for number, kind in enumerate(kinds):
        address, left_out = 64 * int(rng.integers(1 << 26)), rng.integers(0, rows, 2).tolist()
        to_scores = kind == "scores"
        mode = Result(0 if to_scores else kind)
        columns = int(rng.integers(1, 5)) * config.groups
        wide = to_scores or mode in (Result.STORE16, Result.RESIDUAL)
        limit = 32767 if wide else 127
        results = rng.integers(-limit, limit + 1, (columns, rows))
        results[0] = rng.choice([-limit, limit, 0], rows)
        seconds = rng.integers(0, 65536, columns) >> rng.integers(0, 10, columns)  # not all saturate
        has_seconds = int(not to_scores and rng.integers(2)) if mode in (0, 1, 4) else 1
        fields = [
            (int(mode), 3), (int(to_scores), 1), (has_seconds, 1), (columns, 16), (address, 32), (128, 32),
            *((value, row_bits) for value in left_out), (0, 44), (number, 16),
        ]  # fmt: skip
        streams["order"].append(join([([v], w) for v, w in fields]))
        bytes_kind = Kind.TRANSPOSED if mode == Result.TRANSPOSE else Kind.WIDE if wide else Kind.NARROW
        beats_stored = columns * rows // bus << wide
        run = [(address, 32), (beats_stored, 20), (number, 16), (bytes_kind.value, 2)]
        if not to_scores:
            runs.append(join([([v], w) for v, w in [*run, *((value, row_bits) for value in left_out)]]))
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
        if mode == Result.RESIDUAL:
            x = rng.integers(-32768, 32768, (columns, rows))
            residual_runs += 1
            streams["residual"].append(join([(x.reshape(-1, bus // 2), 16)]))
            data = add_residual(results, x, seconds[:, None])
        elif mode == Result.ACTIVATE:
            data = activate(results, table, seconds[:, None])
            assert len(np.unique(data)) > 2
        elif mode == Result.TRANSPOSE:
            data = data.reshape(-1, config.groups, rows).transpose(0, 2, 1)
        stores.append(join([(np.ascontiguousarray(data).view(np.uint8).reshape(-1, bus), 8)]))
    inputs = {n: np.concatenate(s) for n, s in streams.items()}
    expected = {"store": np.concatenate(stores), "scores": np.concatenate(scores), "store_run": np.concatenate(runs)}
    counts = {n: len(e) for n, e in expected.items()} | {"residual_run": residual_runs, "block": blocks}
    for stall in (0.0, 0.3, 0.7):
        outcome = model.run(inputs, counts, stall=stall, seed=2, linger=30)
        inputs.pop("table", None)  # it stays
        for name, words in expected.items():
            np.testing.assert_array_equal(outcome.outputs[name], words)

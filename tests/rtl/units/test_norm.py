"""LayerNorm and RMSNorm in RTL against their reference: widths, extreme rows, stalls; the reference against fp64."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Out
from support import simulate

from sim.native import NativeModel, build
from sta_hw.host.beats import join
from sta_hw.reference.vector import layer_norm
from sta_hw.rtl.bus.runs import Kind
from sta_hw.rtl.emit import emit_verilog, streams_of
from sta_hw.rtl.units.norm import Norm
from sta_hw.rtl.units.norm_statistics import RowStatistics
from sta_hw.spec.config import Config

CONFIGS = [
    Config(rows=4, groups=2, lanes=4, drain_lanes=2, norm_columns=16),
    Config(rows=16, groups=2, lanes=16, drain_lanes=2, norm_columns=64),
    Config(rows=8, groups=2, lanes=8, drain_lanes=2, norm_columns=4096, multiplier="lut"),
    Config(rows=8, groups=2, lanes=8, drain_lanes=2, norm_columns=64, features=("rms", "digits")),
]


class Counted(wiring.Component):
    """A norm that gives a beat for each cycle in which it says that a result is at an end of its range."""

    def __init__(self, norm: Norm) -> None:
        self.norm = norm
        members = {n: m for n, m in norm.signature.members.items() if n != "saturated"}
        super().__init__({**members, "at_ends": Out(stream.Signature(1))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.norm = self.norm
        for name, member in self.signature.members.items():
            if name == "at_ends":
                continue
            inner, outer = getattr(self.norm, name), getattr(self, name)
            if member.is_signature:
                wiring.connect(m, wiring.flipped(outer), inner)
            else:
                m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)
        m.d.comb += self.at_ends.valid.eq(self.norm.saturated)
        return m


def rows_of(kind: int, rows: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A tile: random, extreme, constant, nearly constant, or with one outlier."""
    x = rng.integers(-32768, 32768, (rows, width))
    if kind == 1:
        x = rng.choice([-32768, 32767], (rows, width))
    elif kind == 2:
        x[:] = rng.integers(-32768, 32768, (rows, 1))
    elif kind == 3:
        x = rng.integers(-1, 2, (rows, width))
    elif kind == 4:
        x = rng.integers(-50, 50, (rows, width))
        x[:, -1] = 32767
    return x


@pytest.mark.parametrize("config", CONFIGS, ids=["4 rows", "16 rows", "4,096 columns", "RMSNorm, 15 bits"])
def test_equal_to_the_reference(config: Config) -> None:
    rng = np.random.default_rng(config.rows)
    block = Counted(Norm(config))
    model = NativeModel(build(emit_verilog(block, "norm"), "norm", streams_of(block)), streams_of(block))
    bus = config.bus_bytes
    tiles = []
    widths = [1, 2, 3, 16, 17, 63, 64, 65, 384] + ([4096] if config.norm_columns == 4096 else [])
    for number, width in enumerate(widths):
        scale = rng.integers(-(1 << 17), 1 << 17, width) if number % 2 else rng.integers(500, 3000, width)
        shift = rng.integers(-32767, 32768, width)
        multiplier = rng.integers(0, 65536, width) >> rng.integers(0, 12, width)  # not all 8-bit results saturate
        for kind in range(5):
            tiles.append((rows_of(kind, config.rows, width, rng), scale, shift, multiplier))
    streams: dict[str, list[np.ndarray]] = {n: [] for n in ("order", "input", "parameters")}
    wides, narrows = [], []
    runs: dict[str, list[np.ndarray]] = {"wide_run": [], "narrow_run": []}
    at_ends = 0
    row_bits = config.rows.bit_length() - 1
    for number, (x, scale, shift, multiplier) in enumerate(tiles):
        width = x.shape[1]
        inverse = round(2**33 / width) & ((1 << 33) - 1)
        left_out = [(int(value), row_bits) for value in rng.integers(0, config.rows, 2)]
        # RMSNorm and LayerNorm by turns, and what is added to the variance: nothing, little, all that there may be.
        rms = bool(config.features) and number % 3 < 2
        epsilon = [0, int(rng.integers(1, 50)), (1 << 28) - 1, int(rng.integers(1 << 28))][
            number % 4 * bool(config.features)
        ]
        short = bool(config.features) and number % 2 == 1
        more = [(rms, 1), (epsilon, 28), (short, 1)] if config.features else []
        fields = [(64, 32), (128, 32), (192, 32), (256, 32), (width, 14), (inverse, 33), *left_out, *more, (number, 16)]
        for name, address, kind, size in (("wide_run", 128, Kind.WIDE, 2), ("narrow_run", 192, Kind.NARROW, 1)):
            beats = size * width * config.rows // bus
            run = [(address, 32), (beats, 20), (number, 16), (kind.value, 2), *left_out]
            runs[name].append(join([([v], w) for v, w in run]))
        streams["order"].append(join([([v], w) for v, w in fields]))
        elements = join([(x.T.reshape(-1, bus // 2), 16)])
        streams["input"] += [elements] * (1 if width <= config.norm_columns else 2)
        words = scale & 0x3FFFF | (shift & 0xFFFF) << 18 | multiplier << 34
        count = -(-8 * width // bus)
        raw = np.zeros(count * bus, np.uint8)
        raw[: 8 * width] = words.astype("<u8").view(np.uint8)
        streams["parameters"].append(join([(raw.reshape(-1, bus), 8)]))
        wide, narrow = layer_norm(x, scale, shift, multiplier, inverse, rms=rms, epsilon=epsilon, short=short)
        at_limit = abs(wide.T.astype(int)) == (16383 if short else 32767)
        at_ends += int(at_limit.reshape(-1, config.lanes // 2).any(1).sum())
        wides.append(join([(wide.T.reshape(-1, bus // 2), 16)]))
        narrows.append(join([(narrow.T.reshape(-1, bus), 8)]))
    inputs = {n: np.concatenate(s) for n, s in streams.items()}
    expected = {"wide": np.concatenate(wides), "narrow": np.concatenate(narrows)}
    expected |= {name: np.concatenate(run) for name, run in runs.items()}
    reads = sum(1 if x.shape[1] <= config.norm_columns else 2 for x, *_ in tiles)
    counts = {n: len(e) for n, e in expected.items()} | {
        "input_run": reads, "parameters_run": len(tiles), "at_ends": at_ends,
    }  # fmt: skip
    assert at_ends
    for stall in (0.0, 0.3):
        stalls = {stream.name: stall for stream in model.streams if stream.name != "at_ends"}
        outcome = model.run(inputs, counts, stall=stalls, patience=30_000, linger=20)
        for name, words in expected.items():
            np.testing.assert_array_equal(outcome.outputs[name], words)
        if not stall and bus >= 8:  # narrower buses bring a column's parameters in more cycles than it takes
            last = outcome.cycles["wide"][-len(wides[-1]) :]
            assert last[16] - last[0] == 18


def statistics_of(width: int, total: int, squares: int, added: int) -> tuple[int, int, int]:
    """Twice the mean, factor and shift, as docs/numerics.md has them."""
    inverse = round(2**33 / width)
    mean = (abs(total) * inverse + (1 << 31) >> 32) * (-1 if total < 0 else 1)
    variance = width * squares - total * total + (added << 14)
    if not variance:
        return mean, 0, max(0, 5 - (width.bit_length() - 1))
    e = variance.bit_length() - 1
    fraction = (variance << 9 >> e) & 511
    factor = round(2**16 / ((2 if e % 2 else 1) * (1 + (fraction + 0.5) / 512)) ** 0.5)
    return mean, factor, max(0, e // 2 + 5 - (width.bit_length() - 1))


@pytest.mark.parametrize("epsilon", [False, True])
def test_statistics_of_the_widest_rows(epsilon: bool) -> None:
    """Of 16,383 columns at the ends of their range, where sums and squares have all their bits; and of two."""
    dut = RowStatistics(2, 1, epsilon=epsilon)
    wide, least, most = (1 << 14) - 1, -32768, 32767
    added = (1 << 28) - 1 if epsilon else 0
    cases = []
    for width, firsts, few in ((wide, (0, wide), 0), (wide, (8192, 1), 1), (2, (1, 0), 3)):
        rows = [(n * least + (width - n) * most, n * least**2 + (width - n) * most**2) for n in firsts]
        cases.append((width, rows, added >> 9 * few))
    found = []

    async def bench(ctx) -> None:
        for bank, (width, rows, more) in enumerate(cases):
            ctx.set(dut.width, width)
            ctx.set(dut.inverse, round(2**33 / width))
            if epsilon:
                ctx.set(dut.epsilon, more)
            for i, (total, squares) in enumerate(rows):
                ctx.set(dut.sums[i], total)
                ctx.set(dut.squares[i], squares)
            ctx.set(dut.bank, bank % 2)
            await ctx.tick()
            ctx.set(dut.running, 1)
            await ctx.tick().until(dut.done)
            ctx.set(dut.running, 0)
            ctx.set(dut.bank, ~bank % 2)
            await ctx.tick()
            found.append([tuple(ctx.get(dut.rows[i][n]) for n in ("mean", "inverse", "shift")) for i in range(2)])

    simulate(dut, bench, limit=600)
    assert found == [[statistics_of(width, *row, more) for row in rows] for width, rows, more in cases]


@pytest.mark.parametrize("width", [64, 384, 4096])
def test_close_to_layer_norm_in_floating_point(width: int) -> None:
    rng = np.random.default_rng(width)
    x = rng.normal(300, 2000, (16, width)).round().astype(np.int64)
    kappa = width / 2 ** int(np.log2(width))
    step = 1e-3
    scale = np.full(width, round(kappa * 16 / step))
    wide, _ = layer_norm(x, scale, np.zeros(width, int), np.full(width, 256), round(2**33 / width))
    exact = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    assert np.abs(wide * step - exact).max() < 0.004


@pytest.mark.parametrize(("width", "size"), [(64, 2000), (576, 74), (4096, 3)])
def test_close_to_rms_norm_in_floating_point(width: int, size: int) -> None:
    """Also where the epsilon is as large as the row."""
    rng = np.random.default_rng(width)
    x = rng.normal(size / 5, size, (16, width)).round().astype(np.int64)
    kappa = width / 2 ** int(np.log2(width))
    step = 1e-3
    scale = np.full(width, round(kappa * 16 / step))
    for epsilon in (0, round(width**2 * size**2 / 2**14)):
        wide, _ = layer_norm(x, scale, np.zeros(width, int), np.full(width, 256), 0, rms=True, epsilon=epsilon)
        exact = x / np.sqrt((x * x).mean(1, keepdims=True) + epsilon * 2**14 / width**2)
        assert np.abs(wide * step - exact).max() < 0.004

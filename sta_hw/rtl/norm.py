"""LayerNorm of one row tile, from memory to memory: statistics in one pass, normalization in a second.

Works on the 16-bit residual stream, ``lanes / 2`` elements a cycle; gives the next residual stream in 16 bits
and the next product's activations in 8. docs/numerics.md has the arithmetic.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from .axi import ADDRESS_BITS
from .dma import run_layout
from .layouts import COUNT_BITS
from .multiplier import Multiplier
from .sequencer import Gearbox

__all__ = ["Norm", "norm_order_layout", "norm_parameters_layout"]

_SUM_BITS = 30
_SQUARES_BITS = 46
_VARIANCE_BITS = 62
_WIDTH_BITS = 14
_INVERSE_BITS = 33
_NORMAL_BITS = 18
_QUEUE_DEPTH = 16
_LATENCY = 8 + 3 * Multiplier.latency


def norm_order_layout() -> data.StructLayout:
    """One row tile: addresses, columns, and ``round(2**33 / columns)``."""
    return data.StructLayout(
        {
            "input_address": unsigned(ADDRESS_BITS),
            "wide_address": unsigned(ADDRESS_BITS),
            "narrow_address": unsigned(ADDRESS_BITS),
            "parameters_address": unsigned(ADDRESS_BITS),
            "width": unsigned(_WIDTH_BITS),
            "inverse": unsigned(_INVERSE_BITS),
            "instruction": unsigned(COUNT_BITS),
        }
    )


def norm_parameters_layout() -> data.StructLayout:
    """One column: scale, shift, and the 8-bit results' multiplier; 64 bits in memory."""
    return data.StructLayout({"scale": signed(18), "shift": signed(16), "narrow": unsigned(16), "_pad": unsigned(14)})


class Norm(wiring.Component):
    """LayerNorm, order after order.

    Cycles per tile of K columns: ``2 K * rows * 2 / lanes`` for reading twice, 1.5 times as many for
    writing as for the second reading, and about 50 per row for the statistics.

    Members
    -------
    order : In(stream of norm_order_layout)
    input_run, parameters_run, wide_run, narrow_run : Out(streams of run_layout)
    input, parameters : In(streams of bus words); wide, narrow : Out(streams of bus words)
    wide_done, narrow_done : In(1)
        A run is in memory.
    done : Out(1)
    busy : Out(1)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        word = stream.Signature(unsigned(8 * config.bus_bytes))
        run = stream.Signature(run_layout())
        super().__init__(
            {
                "order": In(stream.Signature(norm_order_layout())),
                "input_run": Out(run), "input": In(word),
                "parameters_run": Out(run), "parameters": In(word),
                "wide_run": Out(run), "wide": Out(word), "wide_done": In(1),
                "narrow_run": Out(run), "narrow": Out(word), "narrow_done": In(1),
                "done": Out(1), "busy": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        lanes = cfg.lanes // 2
        slots = cfg.rows // lanes
        order = Signal(norm_order_layout())
        size_log2 = Signal(4)  # floor(log2 width)
        for bit in range(_WIDTH_BITS):
            with m.If(order.width[bit]):
                m.d.comb += size_log2.eq(bit)
        input_beats = order.width * slots  # 16-bit elements, `lanes` to a bus word

        wanted = {}
        for name, address, beats in (
            ("input", order.input_address, input_beats),
            ("parameters", order.parameters_address, _up(order.width * 8, cfg.bus_bytes)),
            ("wide", order.wide_address, input_beats),
            ("narrow", order.narrow_address, input_beats >> 1),
        ):
            run = getattr(self, f"{name}_run")
            flag = Signal(name=f"{name}_wanted")
            m.d.comb += [
                run.payload.address.eq(address),
                run.payload.beats.eq(beats),
                run.payload.instruction.eq(order.instruction),
                run.valid.eq(flag),
            ]
            with m.If(run.ready):
                m.d.sync += flag.eq(0)
            wanted[name] = flag

        left = Signal(24)
        slot = Signal(range(slots))
        row = Signal(range(cfg.rows + 1))
        summing, normalizing = Signal(), Signal()
        statistics_done = Signal()
        outstanding = Signal(2)
        step = Signal()
        with m.FSM(name="pass") as fsm:
            with m.State("IDLE"):
                m.d.comb += self.order.ready.eq(1)
                m.d.sync += order.eq(self.order.payload)
                with m.If(self.order.valid):
                    m.d.sync += wanted["input"].eq(1)
                    m.next = "SETUP"
            with m.State("SETUP"):
                m.d.sync += [left.eq(input_beats), slot.eq(0), row.eq(0)]
                m.next = "SUMS"
            with m.State("SUMS"):
                m.d.comb += summing.eq(1)
                with m.If(step & (left == 1)):
                    m.next = "SETTLE"
            with m.State("SETTLE"):  # the squares are still on their way
                m.d.sync += left.eq(left + 1)
                with m.If(left == 8):
                    m.next = "STATISTICS"
            with m.State("STATISTICS"):
                m.d.sync += [left.eq(input_beats), slot.eq(0)]
                with m.If(statistics_done):
                    m.d.sync += [*(w.eq(1) for w in wanted.values()), outstanding.eq(2)]
                    m.next = "NORMALIZE"
            with m.State("NORMALIZE"):
                m.d.comb += normalizing.eq(1)
                with m.If(step & (left == 1)):
                    m.next = "WRITE"
            with m.State("WRITE"), m.If(outstanding == 0):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        with m.If((self.wide_done | self.narrow_done) & ~fsm.ongoing("IDLE") & ~fsm.ongoing("STATISTICS")):
            m.d.sync += outstanding.eq(outstanding - self.wide_done - self.narrow_done)
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        with m.If(step):
            m.d.sync += [left.eq(left - 1), slot.eq(Mux(slot == slots - 1, 0, slot + 1))]

        x = [self.input.payload[16 * i :][:16].as_signed() for i in range(lanes)]
        multipliers = [Multiplier(18, 18, cfg.multiplier) for _ in range(lanes)]
        for i, multiplier in enumerate(multipliers):
            m.submodules[f"deviation_multiplier_{i}"] = multiplier
        sums, squares = self._first_pass(m, x, multipliers, summing & step, fsm.ongoing("SETUP"), slots)
        rows = self._statistics(m, sums, squares, fsm.ongoing("STATISTICS"), order, size_log2, statistics_done, slots)
        ready = self._second_pass(m, x, multipliers, rows, normalizing & step, slot == slots - 1, summing)
        m.d.comb += [
            step.eq(self.input.valid & (summing | (normalizing & ready))),
            self.input.ready.eq(summing | (normalizing & ready)),
            self._parameters.flush.eq(fsm.ongoing("IDLE")),
        ]
        return m

    def _first_pass(self, m: Module, x, multipliers, active, clear, slots: int):
        """Sums and sums of squares of each row, in rings that turn by one place per beat."""
        lanes = len(x)
        sums = [[Signal(signed(_SUM_BITS), name=f"sum_{i}_{s}") for s in range(slots)] for i in range(lanes)]
        squares = [[Signal(_SQUARES_BITS, name=f"squares_{i}_{s}") for s in range(slots)] for i in range(lanes)]
        flags = [active]
        for k in range(Multiplier.latency + 1):
            stage = Signal(name=f"summing_{k + 1}")
            m.d.sync += stage.eq(flags[-1])
            flags.append(stage)
        for i in range(lanes):
            value = Signal(signed(16), name=f"value_{i}")
            square = Signal(32, name=f"square_{i}")
            m.d.sync += [value.eq(x[i]), square.eq(multipliers[i].p)]
            for ring, term, flag in ((sums[i], value, flags[1]), (squares[i], square, flags[-1])):
                with m.If(flag):
                    m.d.sync += [ring[-1].eq(ring[0] + term), *(ring[s].eq(ring[s + 1]) for s in range(slots - 1))]
        with m.If(clear):
            m.d.sync += [r.eq(0) for ring in sums + squares for r in ring]
        return sums, squares

    def _statistics(self, m, sums, squares, running, order, size_log2, done, slots: int) -> list[list[data.View]]:
        """Mean and 1/deviation of each row, one row after the other, with serial multipliers.

        With S the sum, Q the sum of squares and K columns: V = K Q - S^2 = (K deviation)^2, exact.
        """
        lanes = len(sums)
        layout = data.StructLayout({"mean": signed(17), "inverse": unsigned(16), "shift": unsigned(6)})
        rows = [[Signal(layout, name=f"row_{i}_{s}") for s in range(slots)] for i in range(lanes)]
        lane = Signal(range(lanes))
        slot = Signal(range(slots))
        magnitude, bits = Signal(_SUM_BITS), Signal(_SUM_BITS)
        negative = Signal()
        squared, scaled = Signal(_VARIANCE_BITS), Signal(_VARIANCE_BITS)
        mean = Signal(_VARIANCE_BITS)
        width_bits = Signal(_WIDTH_BITS)
        addend = Signal(_SQUARES_BITS)
        variance = Signal(_VARIANCE_BITS)
        exponent = Signal(range(_VARIANCE_BITS))
        cycle = Signal(range(_SUM_BITS))
        table = [round(2**16 / (1 + (i + 0.5) / 512) ** 0.5) for i in range(512)]
        table += [round(2**16 / (2 * (1 + (i + 0.5) / 512)) ** 0.5) for i in range(512)]
        rom = m.submodules.inverse_root = memory.Memory(shape=unsigned(16), depth=1024, init=table)
        read = rom.read_port()
        m.d.comb += [read.en.eq(1), read.addr.eq(Cat(variance[-10:-1], exponent[0]))]
        sum_now = Array(ring[0] for ring in sums)[lane]
        squares_now = Array(ring[0] for ring in squares)[lane]
        result = Signal(layout, name="row_result")
        places = Signal(signed(8))
        rounded = Signal(17)
        found = Signal(16)
        m.d.comb += [
            places.eq((exponent >> 1) + 5 - size_log2),
            rounded.eq((mean + (1 << 31)) >> 32),
            result.mean.eq(Mux(negative, -rounded, rounded)),
            result.inverse.eq(Mux(variance == 0, 0, found)),
            result.shift.eq(Mux(places < 0, 0, places)),
        ]
        with m.FSM(name="statistics"):
            with m.State("FETCH"):
                m.d.sync += [
                    negative.eq(sum_now < 0),
                    magnitude.eq(Mux(sum_now < 0, -sum_now, sum_now)),
                    bits.eq(Mux(sum_now < 0, -sum_now, sum_now)),
                    addend.eq(squares_now),
                    width_bits.eq(order.width),
                    squared.eq(0), scaled.eq(0), mean.eq(0), cycle.eq(0),
                ]  # fmt: skip
                with m.If(running & ~done):
                    m.next = "MULTIPLY"
            with m.State("MULTIPLY"):  # most significant bits first
                m.d.sync += [
                    cycle.eq(cycle + 1),
                    bits.eq(bits << 1),
                    squared.eq((squared << 1) + Mux(bits[-1], magnitude, 0)),
                    mean.eq((mean << 1) + Mux(bits[-1], order.inverse, 0)),
                ]
                with m.If(cycle < _WIDTH_BITS):
                    m.d.sync += [
                        width_bits.eq(width_bits << 1),
                        scaled.eq((scaled << 1) + Mux(width_bits[-1], addend, 0)),
                    ]
                with m.If(cycle == _SUM_BITS - 1):
                    m.next = "SUBTRACT"
            with m.State("SUBTRACT"):
                m.d.sync += [variance.eq(scaled - squared), exponent.eq(_VARIANCE_BITS - 1)]
                m.next = "NORMALIZE"
            with m.State("NORMALIZE"):  # the highest bit to the top
                with m.If(variance[-1] | (exponent == 0)):
                    m.next = "LOOK_UP"
                with m.Elif((variance[-8:] == 0) & (exponent >= 8)):
                    m.d.sync += [variance.eq(variance << 8), exponent.eq(exponent - 8)]
                with m.Else():
                    m.d.sync += [variance.eq(variance << 1), exponent.eq(exponent - 1)]
            with m.State("LOOK_UP"):
                m.next = "FOUND"
            with m.State("FOUND"):
                m.d.sync += found.eq(read.data)
                m.next = "STORE"
            with m.State("STORE"):
                for i in range(lanes):
                    with m.If(lane == i):
                        m.d.sync += [rows[i][-1].eq(result), *(rows[i][s].eq(rows[i][s + 1]) for s in range(slots - 1))]
                m.d.sync += lane.eq(Mux(lane == lanes - 1, 0, lane + 1))
                with m.If(lane == lanes - 1):
                    m.d.sync += slot.eq(Mux(slot == slots - 1, 0, slot + 1))
                    for ring in sums + squares:
                        m.d.sync += [ring[-1].eq(ring[0]), *(ring[s].eq(ring[s + 1]) for s in range(slots - 1))]
                    m.d.comb += done.eq(slot == slots - 1)
                m.next = "FETCH"
        return rows

    def _second_pass(self, m, x, multipliers, rows, active, column_end, summing) -> Value:
        """Normalize, scale, shift; requantize to 8 bits. Returns whether a beat can be taken."""
        cfg = self.config
        lanes = len(x)
        gear = m.submodules.parameters_gear = self._parameters = Gearbox(8 * cfg.bus_bytes, 64)
        wide = m.submodules.wide_queue = fifo.SyncFIFOBuffered(width=16 * lanes, depth=2 * _QUEUE_DEPTH)
        narrow = m.submodules.narrow_queue = fifo.SyncFIFOBuffered(width=8 * lanes, depth=2 * _QUEUE_DEPTH)
        pack = m.submodules.pack = Gearbox(8 * lanes, 8 * cfg.bus_bytes)
        m.d.comb += [
            gear.source.payload.eq(self.parameters.payload),
            gear.source.valid.eq(self.parameters.valid),
            self.parameters.ready.eq(gear.source.ready),
            gear.target.ready.eq(active & column_end),
            self.wide.payload.eq(wide.r_data),
            self.wide.valid.eq(wide.r_rdy),
            wide.r_en.eq(self.wide.ready),
            pack.source.payload.eq(narrow.r_data),
            pack.source.valid.eq(narrow.r_rdy),
            narrow.r_en.eq(pack.source.ready),
            self.narrow.payload.eq(pack.target.payload),
            self.narrow.valid.eq(pack.target.valid),
            pack.target.ready.eq(self.narrow.ready),
        ]
        rooms = []
        for queue in (wide, narrow):
            room = Signal(range(2 * _QUEUE_DEPTH + 1), init=2 * _QUEUE_DEPTH)
            m.d.sync += room.eq(room - active + (queue.r_rdy & queue.r_en))
            rooms.append(room != 0)

        def delayed(value: Value, cycles: int, name: str) -> Value:
            for k in range(cycles):
                stage = Signal(value.shape(), name=f"{name}_{k + 1}")
                m.d.sync += stage.eq(value)
                value = stage
            return value

        parameters = data.View(norm_parameters_layout(), gear.target.payload)
        through = Multiplier.latency
        scale = delayed(parameters.scale, 4 + through, "scale")
        shift = delayed(parameters.shift, 5 + 2 * through, "shift")
        multiplier_8 = delayed(parameters.narrow, 6 + 2 * through, "narrow_multiplier")
        with m.If(active):
            for ring in rows:
                m.d.sync += [ring[-1].eq(ring[0]), *(ring[s].eq(ring[s + 1]) for s in range(len(ring) - 1))]
        results_16, results_8 = [], []
        for i in range(lanes):
            row = rows[i][0]
            deviation = Signal(signed(18), name=f"deviation_{i}")
            inverse = Signal(16, name=f"inverse_{i}")
            m.d.sync += [deviation.eq((x[i] << 1) - row.mean), inverse.eq(row.inverse)]
            m.d.comb += [
                multipliers[i].a.eq(Mux(summing, x[i], deviation)),
                multipliers[i].b.eq(Mux(summing, x[i], inverse)),
            ]
            places = delayed(row.shift, 1 + through, f"places_{i}")
            coarse = Signal(signed(37), name=f"coarse_{i}")
            fine = Signal(signed(37), name=f"fine_{i}")
            normal = Signal(signed(_NORMAL_BITS), name=f"normal_{i}")
            m.d.sync += [
                coarse.eq((multipliers[i].p << 1) >> Cat(0, 0, 0, places[3:])),
                fine.eq(coarse >> delayed(places, 1, f"fine_places_{i}")[:3]),
                normal.eq(_saturated((fine + 1) >> 1, (1 << (_NORMAL_BITS - 1)) - 1)),
            ]
            by_scale = m.submodules[f"scale_multiplier_{i}"] = Multiplier(18, 18, cfg.multiplier)
            product = Signal(signed(20), name=f"product_{i}")
            result_16 = Signal(signed(16), name=f"wide_result_{i}")
            by_narrow = m.submodules[f"narrow_multiplier_{i}"] = Multiplier(16, 17, cfg.multiplier)
            requantized = Signal(signed(17), name=f"requantized_{i}")
            result_8 = Signal(signed(8), name=f"narrow_result_{i}")
            m.d.comb += [
                by_scale.a.eq(normal),
                by_scale.b.eq(scale),
                by_narrow.a.eq(result_16),
                by_narrow.b.eq(multiplier_8),
            ]
            m.d.sync += [
                product.eq((by_scale.p + (1 << 15)) >> 16),
                result_16.eq(_saturated(product + shift, 32767)),
                requantized.eq((by_narrow.p + (1 << 15)) >> 16),
                result_8.eq(_saturated(requantized, 127)),
            ]
            results_16.append(delayed(result_16, through + 2, f"wide_late_{i}"))
            results_8.append(result_8)
        valid = delayed(active, _LATENCY, "normalized")
        m.d.comb += [
            wide.w_en.eq(valid),
            wide.w_data.eq(Cat(*results_16)),
            narrow.w_en.eq(valid),
            narrow.w_data.eq(Cat(*results_8)),
        ]
        return rooms[0] & rooms[1] & gear.target.valid


def _saturated(value: Value, limit: int) -> Value:
    return Mux(value > limit, limit, Mux(value < -limit, -limit, value))


def _up(value: Value, step: int) -> Value:
    """`value` / `step`, rounded up; `step` is a power of two."""
    return (value + (step - 1)) >> (step.bit_length() - 1)

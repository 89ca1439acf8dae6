"""LayerNorm's statistics: mean and 1/deviation of each row of a tile, from its sum and its sum of squares."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["EPSILON_BITS", "INVERSE_BITS", "SQUARES_BITS", "SUM_BITS", "WIDTH_BITS", "RowStatistics", "row_layout"]

SUM_BITS = 30
SQUARES_BITS = 46
WIDTH_BITS = 14
INVERSE_BITS = 33
EPSILON_BITS = 28
_VARIANCE_BITS = 62


def row_layout() -> data.StructLayout:
    """One row: twice the mean, and 1/deviation as a factor and a shift."""
    return data.StructLayout({"mean": signed(17), "inverse": unsigned(16), "shift": unsigned(6)})


class RowStatistics(wiring.Component):
    """The rows of a tile one after the other, with serial multipliers: 32 cycles each.

    With S the sum, Q the sum of squares and K columns: V = K Q - S^2 = (K deviation)^2, exact. RMSNorm gives sums of
    zero, so that V = K Q and the mean is zero.

    Parameters
    ----------
    lanes, slots : int
        Row ``slot * lanes + lane`` is ring place `slot` of lane `lane`.
    epsilon : bool
        2^14 times the member `epsilon` is added to V.

    Members
    -------
    sums, squares : In(lanes x signed(30)), In(lanes x unsigned(46))
        Each lane's ring's first place; `turn`, Out(1), asks for the next ones.
    running : In(1), done : Out(1)
        `done` for one cycle with the last row.
    width, inverse : In(14), In(33)
        Columns, and ``round(2**33 / columns)``.
    epsilon : In(28)
        Only if asked for.
    bank : In(1)
        Where this tile's rows go.
    slot : In, rows : Out(lanes x row_layout)
        A slot of the other bank; no latency.
    """

    def __init__(self, lanes: int, slots: int, *, epsilon: bool = False) -> None:
        self.lanes, self.slots, self._has_epsilon = lanes, slots, epsilon
        super().__init__(
            {
                "sums": In(data.ArrayLayout(signed(SUM_BITS), lanes)),
                "squares": In(data.ArrayLayout(unsigned(SQUARES_BITS), lanes)),
                "turn": Out(1),
                "running": In(1),
                "done": Out(1),
                "width": In(WIDTH_BITS),
                "inverse": In(INVERSE_BITS),
                "bank": In(1),
                "slot": In(range(slots)),
                "rows": Out(data.ArrayLayout(row_layout(), lanes)),
                **({"epsilon": In(EPSILON_BITS)} if epsilon else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size_log2 = self._size_log2(m)
        slot_stored = Signal(range(self.slots))
        stored = self._memories_of_rows(m, slot_stored)
        row = _row()
        looked_up = self._inverse_root(m, row)
        self._result(m, row, size_log2, stored)
        # Two machines: one row is multiplied while the row before is normalized and looked up.
        products = self._multiply(m)
        place = _Place(stored, lane=Signal(range(self.lanes)), slot=slot_stored)
        self._find(m, products, row, looked_up, place)
        return m

    def _size_log2(self, m: Module) -> Signal:
        """floor(log2 width)."""
        size_log2 = Signal(4)
        for bit in range(WIDTH_BITS):
            with m.If(self.width[bit]):
                m.d.comb += size_log2.eq(bit)
        return size_log2

    def _memories_of_rows(self, m: Module, slot_stored: Signal) -> list[memory.WritePort]:
        """Per lane two banks of slots: one is written at a slot, of the other one a slot is given."""
        stored = []
        for i in range(self.lanes):
            kept = m.submodules[f"rows_{i}"] = memory.Memory(
                shape=unsigned(row_layout().size), depth=2 * self.slots, init=[]
            )
            write, used = kept.write_port(), kept.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(Cat(slot_stored, self.bank)),
                used.addr.eq(Cat(self.slot, ~self.bank)),
            ]
            stored.append(write)
            m.d.comb += self.rows[i].as_value().eq(used.data)
        return stored

    def _inverse_root(self, m: Module, row: _Row) -> Value:
        """1/root of the variance, its highest bit at the top, a cycle later: 512 steps of [1, 2), 512 of [2, 4)."""
        table = [round(2**16 / (1 + (i + 0.5) / 512) ** 0.5) for i in range(512)]
        table += [round(2**16 / (2 * (1 + (i + 0.5) / 512)) ** 0.5) for i in range(512)]
        rom = m.submodules.inverse_root = memory.Memory(shape=unsigned(16), depth=1024, init=table)
        read = rom.read_port()
        m.d.comb += [read.en.eq(1), read.addr.eq(Cat(row.variance[-10:-1], row.exponent[0]))]
        return read.data

    def _result(self, m: Module, row: _Row, size_log2: Value, stored: list[memory.WritePort]) -> None:
        """A row as it is stored, from what was found of it."""
        result = Signal(row_layout(), name="row_result")
        m.d.comb += [write.data.eq(result) for write in stored]
        places = Signal(signed(8))
        rounded = Signal(17)
        m.d.comb += [
            places.eq((row.exponent >> 1) + 5 - size_log2),
            rounded.eq((row.mean + (1 << 31)) >> 32),
            result.mean.eq(Mux(row.negative, -rounded, rounded)),
            result.inverse.eq(Mux(row.variance == 0, 0, row.found)),
            result.shift.eq(Mux(places < 0, 0, places)),
        ]

    def _multiply(self, m: Module) -> _Products:
        """Row after row: S^2, K Q and the mean's product, a bit of a factor per cycle."""
        lanes = self.lanes
        magnitude, bits = Signal(SUM_BITS, reset_less=True), Signal(SUM_BITS, reset_less=True)
        squared, scaled, product = (
            Signal(_VARIANCE_BITS, name=n, reset_less=True) for n in ("squared", "scaled", "product")
        )
        width_bits = Signal(WIDTH_BITS, reset_less=True)
        addend = Signal(SQUARES_BITS, reset_less=True)
        cycle = Signal(range(SUM_BITS))
        lane, multiplied = Signal(range(lanes)), Signal()
        sum_now = Array(self.sums[i] for i in range(lanes))[lane]
        squares_now = Array(self.squares[i] for i in range(lanes))[lane]
        rows_left = Signal(range(lanes * self.slots + 1))
        negative_next = Signal()
        with m.FSM(name="multiply"):
            with m.State("FETCH"):
                m.d.sync += [
                    negative_next.eq(sum_now < 0),
                    magnitude.eq(Mux(sum_now < 0, -sum_now, sum_now)),
                    bits.eq(Mux(sum_now < 0, -sum_now, sum_now)),
                    addend.eq(squares_now),
                    width_bits.eq(self.width),
                    squared.eq(0), scaled.eq(0), product.eq(0), cycle.eq(0),
                ]  # fmt: skip
                if self._has_epsilon:  # it is doubled with the product, once for each bit of the width
                    m.d.sync += scaled.eq(self.epsilon)
                with m.If(self.running & (rows_left != 0)):
                    m.next = "MULTIPLY"
            with m.State("MULTIPLY"):  # most significant bits first
                m.d.sync += [
                    cycle.eq(cycle + 1),
                    bits.eq(bits << 1),
                    squared.eq((squared << 1) + Mux(bits[-1], magnitude, 0)),
                    product.eq((product << 1) + Mux(bits[-1], self.inverse, 0)),
                ]
                with m.If(cycle < WIDTH_BITS):
                    m.d.sync += [
                        width_bits.eq(width_bits << 1),
                        scaled.eq((scaled << 1) + Mux(width_bits[-1], addend, 0)),
                    ]
                with m.If(cycle == SUM_BITS - 1):
                    m.next = "SUBTRACT"
            with m.State("SUBTRACT"):
                m.d.comb += multiplied.eq(1)
                m.d.sync += [rows_left.eq(rows_left - 1), lane.eq(Mux(lane == lanes - 1, 0, lane + 1))]
                m.d.comb += self.turn.eq(lane == lanes - 1)
                m.next = "FETCH"
        with m.If(~self.running):
            m.d.sync += rows_left.eq(lanes * self.slots)
        return _Products(squared, scaled, product, negative_next, multiplied, rows_left == 1)

    def _find(self, m: Module, products: _Products, row: _Row, looked_up: Value, place: _Place) -> None:
        """Subtract, normalize, look up and store: at most 8 + 8 + 3 cycles, fewer than a multiplication."""
        variance, exponent = row.variance, row.exponent
        slot_lane, slot_stored = place.lane, place.slot
        last_row = Signal()
        with m.FSM(name="root"):
            with m.State("IDLE"):
                m.d.sync += [
                    variance.eq(products.scaled - products.squared),
                    exponent.eq(_VARIANCE_BITS - 1),
                    row.mean.eq(products.mean),
                    row.negative.eq(products.negative),
                    last_row.eq(products.last),
                ]
                with m.If(products.done):
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
                m.d.sync += row.found.eq(looked_up)
                m.next = "STORE"
            with m.State("STORE"):
                m.d.comb += [write.en.eq(slot_lane == i) for i, write in enumerate(place.writes)]
                with m.If(slot_lane == self.lanes - 1):
                    m.d.sync += slot_stored.eq(Mux(slot_stored == self.slots - 1, 0, slot_stored + 1))
                m.d.sync += slot_lane.eq(Mux(slot_lane == self.lanes - 1, 0, slot_lane + 1))
                m.d.comb += self.done.eq(last_row)
                m.next = "IDLE"


@dataclass(frozen=True)
class _Products:
    """What the first machine gives the second one.

    Attributes
    ----------
    squared, scaled, mean : Signal
        Of a row S^2, K Q, and ``|S| * inverse``.
    negative : Signal
        S is.
    done : Signal
        In this cycle they are complete.
    last : Value
        It is the tile's last row.
    """

    squared: Signal
    scaled: Signal
    mean: Signal
    negative: Signal
    done: Signal
    last: Value


@dataclass(frozen=True)
class _Row:
    """Registers of the second machine's row.

    Attributes
    ----------
    variance, exponent : Signal
        V, moved up as it is normalized, and where its highest bit then was.
    mean, negative : Signal
        As the first machine gave them.
    found : Signal
        What was looked up.
    """

    variance: Signal
    exponent: Signal
    mean: Signal
    negative: Signal
    found: Signal


def _row() -> _Row:
    """The registers, which the second machine fills."""
    negative = Signal()
    mean = Signal(_VARIANCE_BITS, reset_less=True)
    variance = Signal(_VARIANCE_BITS, reset_less=True)
    exponent = Signal(range(_VARIANCE_BITS), reset_less=True)
    found = Signal(16, reset_less=True)
    return _Row(variance, exponent, mean, negative, found)


@dataclass(frozen=True)
class _Place:
    """Where the next row goes: each lane's write port, the row's lane, and its slot."""

    writes: list[memory.WritePort]
    lane: Signal
    slot: Signal

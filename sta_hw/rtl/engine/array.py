"""The array of processing elements: operand registers, multipliers and one adder tree per row."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from ..primitives.mac16 import Mac16Pair
from ..primitives.multiplier import Multiplier
from ..primitives.multiplier_pair import MultiplierPair

__all__ = ["AdderTree", "ProcessingArray"]

_PRODUCT_WIDTH = 16
"""-128..255 times -128..127 stays within -32640..32385."""


class AdderTree(wiring.Component):
    """Sum of `count` signed terms, one register per level.

    Members
    -------
    terms : In(count x signed(width))
    sum : Out(signed(width + ceil(log2 count)))
        `latency` = ceil(log2 count) cycles later.
    """

    def __init__(self, count: int, width: int) -> None:
        self.count, self.width = count, width
        self.latency = (count - 1).bit_length()
        super().__init__(
            {"terms": In(data.ArrayLayout(signed(width), count)), "sum": Out(signed(width + self.latency))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        terms = [self.terms[i] for i in range(self.count)]
        for level in range(self.latency):
            width = self.width + level + 1
            sums = []
            for i in range(0, len(terms), 2):
                partial = Signal(signed(width), name=f"sum_{level}_{i // 2}", reset_less=True)
                m.d.sync += partial.eq(sum(terms[i + 1 : i + 2], terms[i]))
                sums.append(partial)
            terms = sums
        m.d.comb += self.sum.eq(terms[0])
        return m


class ProcessingArray(wiring.Component):
    """Multiply every row's operand of a group by the group's weight, and sum over groups.

    It never stalls: weights and operands in, one sum per row out, `latency` cycles after the weights.

    Members
    -------
    values : In(groups x signed(8))
        Weights, shared by all rows.
    unsigned : In(1)
        The operands are unsigned.
    operands : In(groups x rows x unsigned(8))
        Activations as read from the windows, one cycle behind `values` and `unsigned`.
    sums : Out(rows x signed(16 + ceil(log2 groups)))
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.sum_width = _PRODUCT_WIDTH + (config.groups - 1).bit_length()
        self._through = multiplier_latency(config)
        self.latency = 2 + self._through + (config.groups - 1).bit_length()
        super().__init__(
            {
                "values": In(data.ArrayLayout(signed(8), config.groups)),
                "operands": In(data.ArrayLayout(data.ArrayLayout(unsigned(8), config.rows), config.groups)),
                "unsigned": In(1),
                "sums": Out(data.ArrayLayout(signed(self.sum_width), config.rows)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        weights = [Signal(signed(8), name=f"weight_{g}", reset_less=True) for g in range(cfg.groups)]
        unsigned_early, is_unsigned = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [unsigned_early.eq(self.unsigned), is_unsigned.eq(unsigned_early)]
        for g, weight in enumerate(weights):
            early = Signal(signed(8), name=f"early_weight_{g}", reset_less=True)
            m.d.sync += [early.eq(self.values[g]), weight.eq(early)]
        trees = []
        for r in range(cfg.rows):
            trees.append(AdderTree(cfg.groups, _PRODUCT_WIDTH))
            m.submodules[f"tree_{r}"] = trees[r]
            m.d.comb += self.sums[r].eq(trees[r].sum)
        paired = cfg.multiplier in ("pair", "dsp-pair", "mac16")
        hard = cfg.hard_multipliers
        for r in range(0, cfg.rows, 2 if paired else 1):
            for g in range(cfg.groups):
                rows = range(r, min(r + 2, cfg.rows)) if paired else (r,)
                operands = []
                for row in rows:
                    # A register without reset, enable or logic before it: it stands between block RAM, which is
                    # slow to give its data, and the far-away column of multipliers; on ECP5 it is the RAM's own.
                    operand = Signal(8, name=f"operand_{row}_{g}", reset_less=True)
                    m.d.sync += operand.eq(self.operands[g][row])
                    operands.append(Cat(operand, operand[7] & ~is_unsigned).as_signed())
                terms = [trees[row].terms[g] for row in rows]
                if hard > 0 and paired and len(rows) == 2:
                    self._pair(m, f"multiplier_{r}_{g}", operands, weights[g], terms)
                else:
                    kind = cfg.vector_multiplier if hard > 0 else "lut"
                    for row, operand, term in zip(rows, operands, terms, strict=True):
                        self._single(m, f"multiplier_{row}_{g}", kind, operand, weights[g], term)
                hard -= 1
        return m

    def _pair(self, m: Module, name: str, operands: list[Value], weight: Value, terms: list[Signal]) -> None:
        """Two rows' products in one multiplier."""
        kind = self.config.multiplier
        pair = Mac16Pair() if kind == "mac16" else MultiplierPair("dsp" if kind == "dsp-pair" else "auto")
        m.submodules[name] = pair
        m.d.comb += [
            pair.a0.eq(operands[0]),
            pair.a1.eq(operands[1]),
            pair.b.eq(weight),
            terms[0].eq(pair.p0),
            terms[1].eq(pair.p1),
        ]

    def _single(self, m: Module, name: str, kind: str, operand: Value, weight: Value, term: Signal) -> None:
        """One row's product, as late as the pairs'."""
        for cycle in range(self._through - Multiplier.latency):
            operand_late = Signal(signed(9), name=f"{name}_operand_{cycle}", reset_less=True)
            weight_late = Signal(signed(8), name=f"{name}_weight_{cycle}", reset_less=True)
            m.d.sync += [operand_late.eq(operand), weight_late.eq(weight)]
            operand, weight = operand_late, weight_late
        multiplier = m.submodules[name] = Multiplier(9, 8, kind)
        m.d.comb += [
            multiplier.a.eq(operand),
            multiplier.b.eq(weight),
            term.eq(multiplier.p[:_PRODUCT_WIDTH].as_signed()),
        ]


def multiplier_latency(config: Config) -> int:
    """Cycles from operands to products in the array."""
    if config.multiplier == "mac16":
        return Mac16Pair.latency
    return MultiplierPair.latency if config.multiplier in ("pair", "dsp-pair") else Multiplier.latency

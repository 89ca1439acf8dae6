"""The array of processing elements: operand registers, multipliers and one adder tree per row."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from .multiplier import Multiplier

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
                partial = Signal(signed(width), name=f"sum_{level}_{i // 2}")
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
        self.latency = 2 + Multiplier.latency + (config.groups - 1).bit_length()
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
        weights = [Signal(signed(8), name=f"weight_{g}") for g in range(cfg.groups)]
        is_unsigned = Signal()
        m.d.sync += is_unsigned.eq(self.unsigned)
        for g, weight in enumerate(weights):
            early = Signal(signed(8), name=f"early_weight_{g}")
            m.d.sync += [early.eq(self.values[g]), weight.eq(early)]
        for r in range(cfg.rows):
            tree = m.submodules[f"tree_{r}"] = AdderTree(cfg.groups, _PRODUCT_WIDTH)
            for g in range(cfg.groups):
                # A plain register, no logic before it: it stands between block RAM, which is slow to
                # give its data, and the far-away column of multipliers.
                operand = Signal(8, name=f"operand_{r}_{g}")
                # The sign has a register of its own, whose synchronous reset is "unsigned".
                sign = Signal(name=f"sign_{r}_{g}")
                m.d.sync += [
                    operand.eq(self.operands[g][r]),
                    sign.eq(Mux(is_unsigned, 0, self.operands[g][r][7])),
                ]
                multiplier = m.submodules[f"multiplier_{r}_{g}"] = Multiplier(9, 8, cfg.multiplier)
                m.d.comb += [
                    multiplier.a.eq(Cat(operand, sign).as_signed()),
                    multiplier.b.eq(weights[g]),
                    tree.terms[g].eq(multiplier.p[:_PRODUCT_WIDTH].as_signed()),
                ]
            m.d.comb += self.sums[r].eq(tree.sum)
        return m

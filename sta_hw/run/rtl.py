"""The simulated hardware: generated RTL under Verilator, compared with the reference at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError
from ..host import beats
from ..host.products import Product
from ..reference.engine import sums_per_entry
from ..reference.requantizer import requantize
from ..reference.softmax import SoftmaxRow, softmax_row
from ..rtl.emit import streams_of
from ..rtl.tops import component
from ..spec.config import Config

__all__ = ["EngineModel", "EngineRun", "SoftmaxModel", "reference_results"]


def _model(top: str, config: Config, netlist: str | None) -> Any:
    """Build (or find in the cache) the native model of a top level, or of its synthesized netlist."""
    from sim.library import BLOCK_MEMORY, PRIMITIVES, primitive_models
    from sim.native import NativeModel, build
    from sim.verilog import module_verilog

    hardware = component(top, config)
    hardware._MustUse__silence = True  # asked for its ports alone
    streams = streams_of(hardware)
    if netlist is not None:
        return NativeModel(build(netlist, top, streams, extra=[PRIMITIVES, BLOCK_MEMORY], fast=False), streams)
    extra = primitive_models(config.multiplier)
    return NativeModel(build(module_verilog(top, config), top, streams, extra=extra), streams)


def reference_sums(product: Product, config: Config, stored: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
    """The sums of `product`, shape (columns, rows), continuing those `stored` by the one before.

    The weights are taken from the encoding's own decoder, so what is compared is what was stored.
    """
    from ..formats import decode

    weights = decode(product.weights)
    activations = product.activations
    if product.widen_at:
        half = product.widen_at * product.weights.groups * product.weights.depth
        activations = (activations[:, :half] << 8) + activations[:, half:]
        weights = weights[:, :half]
    sums = sums_per_entry(activations, weights, config.rows, product.taps)
    if product.continues:
        assert stored is not None
        sums = sums + (stored if product.growth is None else stored >> product.growth)
    return sums


def reference_results(product: Product, config: Config, stored: NDArray[np.int32] | None = None) -> NDArray[np.int16]:
    """What the engine must give for `product`: int16, shape (columns, rows)."""
    sums = reference_sums(product, config, stored)
    requantization = product.requantization
    if requantization.per_row:
        taps = np.arange(len(sums)) % product.taps
        bias = np.zeros(1, np.int64)  # rows have none
        multiplier, shift = (
            getattr(requantization, name).reshape(product.taps, config.rows)[taps] for name in ("multiplier", "shift")
        )
    else:
        bias, multiplier, shift = (getattr(requantization, name)[:, None] for name in ("bias", "multiplier", "shift"))
    return requantize(sums, bias, multiplier, shift, wide=requantization.wide)


@dataclass(frozen=True)
class EngineRun:
    """Results of a sequence of products.

    Attributes
    ----------
    results : list of int16 arrays, shape (columns, rows)
    cycles : int
        From the first activation taken to the last result given, both included.
    """

    results: list[NDArray[np.int64]]
    cycles: int


class EngineModel:
    """The engine's RTL in a shared library.

    Parameters
    ----------
    config : Config
    netlist : str or None
        Verilog of the synthesized netlist (`sta_hw.fpga.netlist.netlist_verilog`), to take the RTL's place.
    """

    def __init__(self, config: Config, netlist: str | None = None) -> None:
        self.config = config
        self._model = _model("engine", config, netlist)

    def raw_run(self, inputs: dict[str, NDArray[np.uint32]], expected: dict[str, int]) -> int:
        """Run prepared beats without looking at the results; the cycles it took."""
        return int(self._model.run(inputs, expected).total)

    def run(
        self,
        products: Sequence[Product],
        *,
        layer: str = "",
        stall: float = 0.0,
        seed: int = 1,
        check: bool = True,
    ) -> EngineRun:
        """Run products back to back and compare each with the reference.

        Raises
        ------
        CheckError
            At the first result that differs: layer, tile, row, column, expected, got; or when the
            hardware reports a fault.
        """
        config = self.config
        streams = [p.streams(config) for p in products]
        inputs = {name: np.concatenate([s[name] for s in streams]) for name in streams[0]}
        columns = [0 if p.unfinished else p.weights.columns for p in products]
        parts = config.rows // config.drain_lanes
        outcome = self._model.run(
            inputs,
            {"results": sum(columns) * parts, "status": len(products)},
            stall=stall,
            seed=seed,
            linger=8 if stall else 0,
        )
        values, last = beats.result_values(outcome.outputs["results"], config)
        ends = np.cumsum(columns)
        results = np.split(values, ends[:-1])
        for tile, word in enumerate(outcome.outputs["status"][:, 0]):
            if word:
                raise CheckError(f"{layer or 'product'}, tile {tile}: the engine reports fault {word:#04x}")
        if check:
            if np.flatnonzero(last).tolist() != sorted({int(e) * parts - 1 for e in ends if e}):
                raise CheckError(f"{layer or 'product'}: the last flags of the results are not where they belong")
            self._check(products, results, layer)
        cycles = int(outcome.cycles["results"][-1] - outcome.cycles["activations"][0] + 1)
        return EngineRun(results, cycles)

    def _check(self, products: Sequence[Product], results: Sequence[NDArray], layer: str) -> None:
        """Compare each product's results with the reference's, those that continue sums with the sums before."""
        stored = None
        for tile, (product, got) in enumerate(zip(products, results, strict=True)):
            if product.unfinished:
                stored = reference_sums(product, self.config, stored)
            else:
                _compare(layer, tile, got, reference_results(product, self.config, stored))


def _compare(layer: str, tile: int, got: NDArray, expected: NDArray) -> None:
    wrong = np.argwhere(got != expected)
    if len(wrong):
        column, row = wrong[0]
        raise CheckError(
            f"{layer or 'product'}, tile {tile}, row {row}, column {column}: expected {expected[column, row]}, "
            f"got {got[column, row]} ({len(wrong)} of {got.size} results differ)"
        )


class SoftmaxModel:
    """The softmax's RTL in a shared library.

    Parameters
    ----------
    config : Config
    netlist : str or None
        Verilog of the synthesized netlist (`sta_hw.fpga.netlist.netlist_verilog`), to take the RTL's place.
    """

    def __init__(self, config: Config, netlist: str | None = None) -> None:
        self.config = config
        self._model = _model("softmax", config, netlist)

    def run(
        self,
        rows: Sequence[NDArray[np.int64]],
        *,
        masks: Sequence[NDArray[np.bool_] | None] | None = None,
        wide: bool,
        gain: int = 0,
        stall: float = 0.0,
        seed: int = 1,
    ) -> tuple[list[SoftmaxRow], dict[str, NDArray[np.int64]]]:
        """Run rows back to back, compare each with the reference; return them and the beats' cycles.

        Raises
        ------
        CheckError
            At the first element or row total that differs.
        """
        config = self.config
        masks = masks or [None] * len(rows)
        inputs = [beats.logit_beats(r, m, config, wide=wide, gain=gain) for r, m in zip(rows, masks, strict=True)]
        outcome = self._model.run(
            {"logits": np.concatenate(inputs)},
            {"probabilities": sum(map(len, inputs)), "totals": len(rows)},
            stall=stall,
            seed=seed,
        )
        found = self._rows(outcome.outputs, [len(logits) for logits in rows], [len(sent) for sent in inputs])
        for number, (row, logits, mask) in enumerate(zip(found, rows, masks, strict=True)):
            _compare_row(number, row, softmax_row(logits, mask, block=config.softmax_block, wide=wide, gain=gain))
        return found, outcome.cycles

    def _rows(
        self, outputs: Mapping[str, NDArray[np.uint32]], lengths: Sequence[int], sent: Sequence[int]
    ) -> list[SoftmaxRow]:
        """Rows of some lengths, each `sent` in so many beats and given back in as many."""
        lanes = self.config.softmax_lanes
        values, exponents, _ = beats.fields(
            outputs["probabilities"], [(lanes, 16, False), (1, 11, True), (1, 1, False)]
        )
        totals = beats.fields(outputs["totals"], [(1, 32, False), (1, 11, True), (1, 16, False), (1, 3, False)])
        found, at = [], 0
        for number, (length, count) in enumerate(zip(lengths, sent, strict=True)):
            part = slice(at, at + count)
            at += count
            total, exponent, multiplier, shift = (int(t[number, 0]) for t in totals)
            probabilities = values[part].reshape(-1)[:length]
            own_exponents = np.repeat(exponents[part, 0], lanes)[:length]
            found.append(SoftmaxRow(probabilities, own_exponents, exponent, total, multiplier, shift))
        return found


def _compare_row(number: int, row: SoftmaxRow, expected: SoftmaxRow) -> None:
    for name in ("probabilities", "exponents"):
        wrong = np.flatnonzero(getattr(row, name) != getattr(expected, name))
        if len(wrong):
            raise CheckError(
                f"softmax, row {number}, column {wrong[0]}, {name}: expected {getattr(expected, name)[wrong[0]]}, "
                f"got {getattr(row, name)[wrong[0]]}"
            )
    for name in ("exponent", "sum", "multiplier", "shift"):
        if getattr(row, name) != getattr(expected, name):
            raise CheckError(
                f"softmax, row {number}, {name}: expected {getattr(expected, name)}, got {getattr(row, name)}"
            )

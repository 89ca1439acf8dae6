"""The packing of results as a block with streams for ports, for its proof and its test."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from amaranth.hdl import Module, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sta_hw.spec.config import Config


class Packed(wiring.Component):
    """Results, each beside the flags of its kind, to words of the bus.

    Parameters
    ----------
    pack : function
        `sta_hw.rtl.units.result_packing.pack`, or that of a module that is broken on purpose.
    config : Config
    """

    def __init__(self, pack: Callable[..., None], config: Config) -> None:
        self.pack, self.config = pack, config
        bits = 16 * config.drain_lanes + 2 + ("apart" in config.abilities)
        store = stream.Signature(unsigned(8 * config.bus_bytes))
        super().__init__({"results": In(stream.Signature(unsigned(bits))), "store": Out(store)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        queue = SimpleNamespace(r_data=self.results.payload, r_rdy=self.results.valid, r_en=self.results.ready)
        self.pack(m, self.config, queue, self.store)
        return m

"""Bursts of a client's runs: as long as there is room or data for, never across a boundary of a burst's bytes."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...spec.config import Config
from .axi import ADDRESS_BITS
from .runs import BEATS_BITS

__all__ = ["Bursts"]


class Bursts(wiring.Component):
    """Cut one client's runs into bursts.

    Where there is room, `request` rises five cycles after the run is taken, or after the grant before it.

    Parameters
    ----------
    depth : int
        Beats that the client has room for, at most.
    layout : StructLayout
        Of a run: `address` in bytes and `beats`, and what goes with them.

    Members
    -------
    run : In(stream of run_layout)
    available : In
        Beats for which the client has room, or data.
    request : Out(1), grant : In(1)
        A burst of `length` beats at `address` is wanted; is issued. `final`: it is the run's last.
    run_of : Out
        The run's fields but address and beats.
    idle : Out(1)
    """

    def __init__(self, config: Config, depth: int, layout: data.StructLayout) -> None:
        self.config = config
        carried = {name: shape for name, shape in layout.members.items() if name not in ("address", "beats")}
        super().__init__(
            {
                "run": In(stream.Signature(layout)),
                "available": In(range(depth + 1)),
                "request": Out(1),
                "grant": In(1),
                "address": Out(ADDRESS_BITS),
                "length": Out(range(config.burst + 1)),
                "final": Out(1),
                "run_of": Out(data.StructLayout(carried)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        word = cfg.bus_bytes.bit_length() - 1
        burst_bits = cfg.burst.bit_length() - 1
        beats = Signal(BEATS_BITS, reset_less=True)
        block_bits = word + burst_bits
        block = self.address[block_bits:]
        to_boundary = Signal(range(cfg.burst + 1))
        m.d.comb += to_boundary.eq(cfg.burst - self.address[word : word + burst_bits] if burst_bits else 1)
        with m.FSM(name="bursts") as fsm:
            with m.State("IDLE"):
                m.d.comb += self.run.ready.eq(1)
                m.d.sync += [
                    self.address.eq(self.run.payload.address),
                    beats.eq(self.run.payload.beats),
                    *(self.run_of[name].eq(self.run.payload[name]) for name, _ in self.run_of.shape()),
                ]
                with m.If(self.run.valid & (self.run.payload.beats != 0)):
                    m.next = "LENGTH"
            with m.State("LENGTH"):
                m.d.sync += self.length.eq(Mux(beats < to_boundary, beats, to_boundary))
                m.next = "LEFT"
            with m.State("LEFT"):
                m.d.sync += beats.eq(beats - self.length)
                m.next = "FINAL"
            with m.State("FINAL"):
                m.d.sync += self.final.eq(beats == 0)
                m.next = "REQUEST"
            with m.State("REQUEST"):
                # What is available grows until the grant.
                m.d.sync += self.request.eq((self.available >= self.length) & ~self.grant)
                with m.If(self.grant):
                    # The next burst, if there is one, begins at a boundary.
                    m.d.sync += self.address.eq(Cat(Const(0, block_bits), block + 1))
                    with m.If(self.final):
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "LENGTH"
        m.d.comb += self.idle.eq(fsm.ongoing("IDLE"))
        return m

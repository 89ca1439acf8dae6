"""The DMA: several clients share one AXI4 master, each with its own queue and its own runs of addresses.

A burst never crosses a boundary of ``burst * bus_bytes`` bytes, so it never crosses 4 KiB. A read
burst is requested when its client has room for all of it, a write burst when all its data are there: so
neither channel ever waits for a client, and a stopped core finishes what it began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ...spec.config import Config
from ..primitives.layouts import COUNT_BITS
from ..primitives.queue import Queue
from .axi import ADDRESS_BITS
from .bursts import Bursts
from .runs import APART, Kind, run_layout, store_layout

__all__ = ["ReadMaster", "WriteMaster"]

_WRITES_QUEUED = 16
"""Write bursts whose answers are awaited behind the one that comes next."""


def _on_bus(config: Config, base: Value, address: Value) -> Value:
    """Address on the bus; the image begins at a burst boundary."""
    bits = (config.burst * config.bus_bytes).bit_length() - 1
    return Cat(address[:bits], (base[bits:] + address[bits:])[: ADDRESS_BITS - bits])


class _Chosen:
    """The burst that goes next, in a register: chosen among the requests, earlier clients first; then looked at.

    The client that went last gives way to all others: LayerNorm would otherwise fall behind while windows and residual
    stream are read, and results wait while it catches up.

    Attributes
    ----------
    valid : Signal, take : Signal
        There is one; it is issued.
    sound, fault : Signal
        It is known to lie in the image, at a multiple of the bus's bytes; not to, and may not be issued.
    client : Signal
        One-hot.
    """

    def __init__(self, m: Module, config: Config, bursts: Sequence[Bursts], limit: Value, name: str) -> None:
        self.valid, self.take = Signal(name=f"{name}_chosen"), Signal(name=f"{name}_take")
        self.client = Signal(len(bursts), name=f"{name}_client")
        self.address = Signal(ADDRESS_BITS, name=f"{name}_address", reset_less=True)
        self.length = Signal(range(config.burst + 1), name=f"{name}_length", reset_less=True)
        self.run_of = Signal(bursts[0].run_of.shape(), name=f"{name}_run_of", reset_less=True)
        self.final = Signal(name=f"{name}_final")
        self.sound, self.fault = Signal(name=f"{name}_sound"), Signal(name=f"{name}_fault")
        low = (config.burst * config.bus_bytes).bit_length() - 1
        outside = (self.address[low:] >= limit[low:]) | self.address[: config.bus_bytes.bit_length() - 1].any()
        waits = self.valid & ~self.take
        m.d.sync += [self.sound.eq(waits & ~outside), self.fault.eq(waits & outside)]
        with m.If(self.take):
            m.d.sync += self.valid.eq(0)
        with m.If(~self.valid):
            requests = Cat(b.request for b in bursts)
            others = (requests & ~self.client).any()
            earlier: Value = Const(0, 1)
            for i, burst in enumerate(bursts):
                asks = burst.request & ~(others & self.client[i])
                m.d.comb += burst.grant.eq(asks & ~earlier)
                earlier = earlier | asks
                with m.If(requests.any()):
                    m.d.sync += self.client[i].eq(burst.grant)
            # At most one is granted: and and or, where a chain of conditions would take three times the logic.
            m.d.sync += self.valid.eq(requests.any())
            for name in ("address", "length", "run_of", "final"):
                given = [Value.cast(getattr(b, name)) for b in bursts]
                fields = [value & b.grant.replicate(len(value)) for value, b in zip(given, bursts, strict=True)]
                m.d.sync += Value.cast(getattr(self, name)).eq(reduce(or_, fields))


def _period_bits(config: Config) -> int:
    """Bits of the number of a beat within what repeats: a column of any kind, or a block of columns."""
    return (max(2, config.groups) * config.rows // config.bus_bytes).bit_length() - 1


def _strobes(config: Config, run: data.View, beat: Value) -> Value:
    """Which bytes of a beat are written: those of the rows that are wanted."""
    bits = config.rows.bit_length() - 1
    strobes = []
    for i in range(config.bus_bytes):
        byte = Cat(Const(i, config.bus_bytes.bit_length() - 1), beat)
        narrow, wide, transposed = (byte[first : first + bits] for first in (0, 1, config.groups.bit_length() - 1))
        row = Mux(run.kind == Kind.TRANSPOSED, transposed, Mux(run.kind == Kind.WIDE, wide, narrow))
        stored = (row >= run.rows_before) & (row <= ~run.rows_after)
        if "apart" in config.abilities:
            stored = stored & ((Value.cast(run.kind) != APART) | (byte[bits : bits + len(run.part)] == run.part))
        strobes.append(stored)
    return Cat(*strobes)


class ReadMaster(wiring.Component):
    """The read channels. Earlier clients go first, but none twice while another waits.

    Parameters
    ----------
    config : Config
        `lanes`, `burst`, `outstanding`.
    clients : mapping of str to int
        Names, and the depth in beats of each client's queue (at least `burst`).

    Members
    -------
    <name>_run : In(stream of run_layout); <name>_data : Out(stream of bus words)
    base, limit : In(32)
        Address of the image on the bus and its size in bytes: multiples of ``burst * bus_bytes``, and no image
        reaches beyond 2^32 (`Registers` sees to it).
    stop : In(1)
        Issue no more bursts.
    idle : Out(1)
        No burst is under way.
    fault, error : Out(1), instruction : Out(16)
        A run is out of bounds; the bus answered with an error. They stay until reset.
    """

    def __init__(self, config: Config, clients: Mapping[str, int]) -> None:
        self.config, self.clients = config, dict(clients)
        bits = 8 * config.bus_bytes
        members: dict = {
            "base": In(ADDRESS_BITS), "limit": In(ADDRESS_BITS), "stop": In(1), "idle": Out(1),
            "fault": Out(1), "error": Out(1), "instruction": Out(COUNT_BITS),
            "araddr": Out(ADDRESS_BITS), "arlen": Out(8), "arvalid": Out(1), "arready": In(1),
            "rdata": In(bits), "rresp": In(2), "rlast": In(1), "rvalid": In(1), "rready": Out(1),
        }  # fmt: skip
        for name in clients:
            members[f"{name}_run"] = In(stream.Signature(run_layout()))
            members[f"{name}_data"] = Out(stream.Signature(unsigned(bits)))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        bits = 8 * cfg.bus_bytes
        bursts, queues = [], []
        received = Signal(bits, reset_less=True)
        received_for = Signal(len(self.clients))
        for i, (name, depth) in enumerate(self.clients.items()):
            unit = m.submodules[f"{name}_bursts"] = Bursts(cfg, depth, run_layout())
            queue = m.submodules[f"{name}_queue"] = Queue(width=bits, depth=depth)
            run, beats = getattr(self, f"{name}_run"), getattr(self, f"{name}_data")
            connect(m, flipped(run), unit.run)
            room = Signal(range(depth + 1), init=depth, name=f"{name}_room")
            taken = beats.valid & beats.ready
            m.d.sync += room.eq(room + taken - Mux(unit.grant, unit.length, 0))
            m.d.comb += [
                unit.available.eq(room),
                beats.valid.eq(queue.r_rdy),
                beats.payload.eq(queue.r_data),
                queue.r_en.eq(beats.ready),
                queue.w_data.eq(received),
                queue.w_en.eq(received_for[i]),
            ]
            bursts.append(unit)
            queues.append(queue)

        # Which client each burst under way belongs to; answers come in order.
        chosen = _Chosen(m, cfg, bursts, self.limit, "read")
        owners = m.submodules.owners = Queue(width=len(self.clients) + COUNT_BITS, depth=cfg.outstanding)
        issue = Signal()
        end = self.rvalid & self.rlast
        free = ~self.arvalid | self.arready
        # One more may be let out. The queue has room for all of them, and its depth, rounded up, is not what limits.
        under_way, may = Signal(range(cfg.outstanding + 1)), Signal(init=1)
        most = cfg.outstanding - 1
        m.d.sync += [
            under_way.eq(under_way + issue - end),
            may.eq(end | (under_way < most) | ((under_way == most) & ~issue)),
        ]
        m.d.comb += [
            issue.eq(chosen.sound & free & may & ~self.stop),
            chosen.take.eq(issue),
            owners.w_en.eq(issue),
            owners.w_data.eq(Cat(chosen.client, chosen.run_of.instruction)),
        ]
        with m.If(free):
            m.d.sync += [
                self.arvalid.eq(issue),
                self.araddr.eq(_on_bus(cfg, self.base, chosen.address)),
                self.arlen.eq(chosen.length - 1),
            ]
        m.d.comb += [self.rready.eq(1), owners.r_en.eq(end)]
        m.d.sync += [
            received.eq(self.rdata),
            received_for.eq(Mux(self.rvalid, owners.r_data[: len(self.clients)], 0)),
        ]
        m.d.comb += self.idle.eq((under_way == 0) & ~self.arvalid & (~chosen.valid | self.stop))

        with m.If(~self.fault & ~self.error):
            with m.If(self.rvalid & self.rresp[1]):
                m.d.sync += [self.error.eq(1), self.instruction.eq(owners.r_data[len(self.clients) :])]
            with m.Elif(chosen.fault):
                m.d.sync += [self.fault.eq(1), self.instruction.eq(chosen.run_of.instruction)]
        return m


class WriteMaster(wiring.Component):
    """The write channels. Earlier clients go first, but none twice while another waits.

    Parameters
    ----------
    config : Config
    clients : mapping of str to int
        Names, and the depth in beats of each client's queue (at least `burst`).

    Members
    -------
    <name>_run : In(stream of store_layout); <name>_data : In(stream of bus words)
    <name>_done : Out(1)
        One cycle when all of a run is in memory.
    base, limit, stop, idle, fault, error, instruction
        As in `ReadMaster`. Of writes, a burst in the answers' queue more than its depth may be under way.
    """

    def __init__(self, config: Config, clients: Mapping[str, int]) -> None:
        self.config, self.clients = config, dict(clients)
        bits = 8 * config.bus_bytes
        members: dict = {
            "base": In(ADDRESS_BITS), "limit": In(ADDRESS_BITS), "stop": In(1), "idle": Out(1),
            "fault": Out(1), "error": Out(1), "instruction": Out(COUNT_BITS),
            "awaddr": Out(ADDRESS_BITS), "awlen": Out(8), "awvalid": Out(1), "awready": In(1),
            "wdata": Out(bits), "wstrb": Out(config.bus_bytes), "wlast": Out(1), "wvalid": Out(1), "wready": In(1),
            "bresp": In(2), "bvalid": In(1), "bready": Out(1),
        }  # fmt: skip
        for name in clients:
            members[f"{name}_run"] = In(stream.Signature(store_layout(config)))
            members[f"{name}_data"] = In(stream.Signature(unsigned(bits)))
            members[f"{name}_done"] = Out(1)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        bits = 8 * cfg.bus_bytes
        count = len(self.clients)
        bursts, queues = [], []
        for name, depth in self.clients.items():
            unit = m.submodules[f"{name}_bursts"] = Bursts(cfg, depth, store_layout(cfg))
            queue = m.submodules[f"{name}_queue"] = Queue(width=bits, depth=depth)
            run, beats = getattr(self, f"{name}_run"), getattr(self, f"{name}_data")
            connect(m, flipped(run), unit.run)
            present = Signal(range(depth + 1), name=f"{name}_present")
            m.d.sync += present.eq(present + (beats.valid & beats.ready) - Mux(unit.grant, unit.length, 0))
            m.d.comb += [
                unit.available.eq(present),
                beats.ready.eq(queue.w_rdy),
                queue.w_data.eq(beats.payload),
                queue.w_en.eq(beats.valid),
            ]
            bursts.append(unit)
            queues.append(queue)

        chosen = _Chosen(m, cfg, bursts, self.limit, "write")
        owners = m.submodules.owners = Queue(width=count + 1 + COUNT_BITS, depth=_WRITES_QUEUED)
        issue = Signal()
        sending = Signal()
        source = Signal(count)  # one-hot
        left = Signal(range(cfg.burst + 1))
        last = Signal()  # one is left
        move = Signal()
        m.d.comb += [
            # The next burst may follow the last beat of this one.
            issue.eq(
                chosen.sound & (~sending | (move & last)) & (~self.awvalid | self.awready) & owners.w_rdy & ~self.stop
            ),
            chosen.take.eq(issue),
            owners.w_en.eq(issue),
            owners.w_data.eq(Cat(chosen.client, chosen.final, chosen.run_of.instruction)),
        ]
        with m.If(self.awready):
            m.d.sync += self.awvalid.eq(0)
        with m.If(self.wready):
            m.d.sync += self.wvalid.eq(0)
        m.d.comb += [
            # A queue's word is out 3 cycles after it came in; counted, requested, chosen, looked at and issued, its
            # burst is sent from the 5th on: what it sends is there in each of its cycles.
            move.eq(sending & (~self.wvalid | self.wready)),
            *(q.r_en.eq(move & s) for s, q in zip(source, queues, strict=True)),
        ]
        which, beat = Signal.like(chosen.run_of), Signal(_period_bits(cfg))
        with m.If(move):
            m.d.sync += [self.wstrb.eq(_strobes(cfg, which, beat)), beat.eq(beat + 1)]
            m.d.sync += [self.wvalid.eq(1), self.wlast.eq(last), left.eq(left - 1), last.eq(left == 2)]
            for s, q in zip(source, queues, strict=True):
                with m.If(s):
                    m.d.sync += self.wdata.eq(q.r_data)
            with m.If(last):
                m.d.sync += sending.eq(0)

        with m.If(issue):
            m.d.sync += [
                self.awvalid.eq(1),
                self.awaddr.eq(_on_bus(cfg, self.base, chosen.address)),
                self.awlen.eq(chosen.length - 1),
                sending.eq(1),
                left.eq(chosen.length),
                last.eq(chosen.length == 1),
                source.eq(chosen.client),
                which.eq(chosen.run_of),
                beat.eq(chosen.address[cfg.bus_bytes.bit_length() - 1 :]),
            ]

        m.d.comb += [self.bready.eq(1), owners.r_en.eq(self.bvalid)]
        for i, name in enumerate(self.clients):
            done = getattr(self, f"{name}_done")
            m.d.sync += done.eq(self.bvalid & owners.r_data[i] & owners.r_data[count])
        under_way = Signal(range(_WRITES_QUEUED + 2))
        m.d.sync += under_way.eq(under_way + issue - self.bvalid)
        m.d.comb += self.idle.eq((under_way == 0) & (~chosen.valid | self.stop))
        with m.If(~self.fault & ~self.error):
            with m.If(self.bvalid & self.bresp[1]):
                m.d.sync += [self.error.eq(1), self.instruction.eq(owners.r_data[count + 1 :])]
            with m.Elif(chosen.fault):
                m.d.sync += [self.fault.eq(1), self.instruction.eq(chosen.run_of.instruction)]
        return m

"""What a board adds to the accelerator: the serial line onto the bus, and the start of its memory."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Signal, Value, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...spec.board import BOARD_REGISTERS, CONTROLLER_REGISTERS, IDENTITY, MEMORY, REGISTERS
from ...spec.config import Config
from ..accelerator import Accelerator
from ..bus.axi import LITE_ADDRESS_BITS, master_ports
from ..primitives.queue import RegisterSlice
from .uart import UartReceiver, UartTransmitter
from .uart_bridge import UartBridge
from .widener import Widener

__all__ = ["BoardCore"]

_MEMORY_BITS = 29
"""Of byte addresses in the memory, as the host sees it: 512 MB."""


class BoardCore(wiring.Component):
    """Accelerator, serial bridge, and the writes that start the memory controller.

    Parameters
    ----------
    config : Config
    start_up : sequence of (word address, data, cycles)
        Written to the memory controller's registers after reset.
    divisor : int
        Cycles per bit of the serial line.
    timeout : int
        Cycles after which an unfinished serial command is forgotten.
    leveled : bool
        Whether the host levels the memory's reads, and reaches the memory controller's registers for it.
    memory_bytes : int
        Of the bus to the memory, where it is wider than the accelerator's.

    Members
    -------
    rx, tx : In(1), Out(1)
        The serial line.
    m_axi_* : AXI4 master to the memory
    host_* : Wishbone master to the memory, 32 bits, word addresses from 0
    control_* : Wishbone master to the memory controller's registers
    ready, busy, failed : Out(1)
        For lamps: the memory has started; a program runs; the last one failed.
    """

    def __init__(self, config: Config, start_up: Sequence[tuple[int, int, int]], divisor: int, timeout: int,
                 *, leveled: bool = False, memory_bytes: int = 0) -> None:  # fmt: skip
        self.leveled, self.memory_bytes = leveled, max(memory_bytes, config.bus_bytes)
        self.config, self.start_up, self.divisor, self.timeout = config, tuple(start_up), divisor, timeout
        wishbone = {
            "adr": Out(30), "dat_w": Out(32), "dat_r": In(32), "sel": Out(4), "cyc": Out(1), "stb": Out(1),
            "we": Out(1), "ack": In(1),
        }  # fmt: skip
        super().__init__(
            master_ports(self.memory_bytes)
            | {f"{bus}_{name}": member for bus in ("host", "control") for name, member in wishbone.items()}
            | {"rx": In(1, init=1), "tx": Out(1, init=1), "ready": Out(1), "busy": Out(1), "failed": Out(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        accelerator = m.submodules.accelerator = Accelerator(self.config)
        self._to_memory(m, accelerator)
        receiver = m.submodules.receiver = UartReceiver(self.divisor)
        transmitter = m.submodules.transmitter = UartTransmitter(self.divisor)
        bridge = m.submodules.bridge = UartBridge(self.timeout)
        m.d.comb += receiver.rx.eq(self.rx)
        wiring.connect(m, receiver.bytes, bridge.received)
        wiring.connect(m, bridge.sent, transmitter.bytes)
        m.d.comb += self.tx.eq(transmitter.tx)
        to_memory, to_registers, to_board = Signal(), Signal(), Signal()
        page = bridge.address[14:]  # of 64 KiB
        # The bridge's address is there a cycle before its strobe.
        m.d.sync += [
            to_memory.eq(bridge.address[_MEMORY_BITS - 2 :] == MEMORY >> _MEMORY_BITS),
            to_registers.eq(page == REGISTERS >> 16),
            to_board.eq(page == BOARD_REGISTERS >> 16),
        ]
        # The answer goes through a register; the bridge's strobe is over a cycle after it.
        answer, read_data = Signal(), Signal(32)
        access = bridge.strobe & ~bridge.acknowledge
        to_controller = Signal()
        if self.leveled:
            m.d.sync += to_controller.eq(page == CONTROLLER_REGISTERS >> 16)
        self._start_memory(m, bridge, access & to_controller)
        m.d.sync += [bridge.acknowledge.eq(answer & access), bridge.read_data.eq(read_data)]
        m.d.comb += [
            self.host_adr.eq(bridge.address[: _MEMORY_BITS - 2]),
            self.host_dat_w.eq(bridge.write_data),
            self.host_sel.eq(-1),
            self.host_we.eq(bridge.write),
            self.host_cyc.eq(access & to_memory & self.ready),
            self.host_stb.eq(self.host_cyc),
        ]
        with m.If(to_memory):
            m.d.comb += [answer.eq(self.host_ack), read_data.eq(self.host_dat_r)]
        with m.Elif(to_registers):
            m.d.comb += [
                answer.eq(self._to_registers(m, bridge, access, accelerator)),
                read_data.eq(accelerator.s_axi_rdata),
            ]
        with m.Elif(to_controller):
            m.d.comb += [answer.eq(self.control_ack & self.ready), read_data.eq(self.control_dat_r)]
        with m.Else():  # what is not there reads as 0
            m.d.comb += answer.eq(1)
            with m.If(to_board):
                m.d.comb += bridge.clear.eq(access & bridge.write & (bridge.address[:14] == 1))
                with m.Switch(bridge.address[:14]):
                    for offset, value in ((0, IDENTITY), (1, bridge.checksum), (2, self.ready)):
                        with m.Case(offset):
                            m.d.comb += read_data.eq(value)
        m.d.comb += [self.busy.eq(accelerator.busy), self.failed.eq(accelerator.failed)]
        return m

    def _to_memory(self, m: Module, accelerator: Accelerator) -> None:
        """The accelerator's bus, with registers on the way: the memory controller takes its time."""
        outside = {name: getattr(self, name) for name in master_ports(self.memory_bytes)}
        if self.memory_bytes > self.config.bus_bytes:
            widener = m.submodules.widener = Widener(self.config.bus_bytes, self.memory_bytes)
            for name, member in master_ports(self.memory_bytes).items():
                inner, outer = getattr(widener, name), outside[name]
                m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)
            outside = {name: getattr(widener, name.replace("m_axi", "s_axi")) for name in outside}
        channels: dict[str, list[str]] = {"aw": [], "ar": [], "w": []}
        for name in master_ports(self.config.bus_bytes):
            short = name.removeprefix("m_axi_")
            inner, outer = getattr(accelerator, name), outside[name]
            channel = short[:2] if short[:2] in channels else short[0]
            if channel in channels and not short.endswith(("valid", "ready")):
                channels[channel].append(name)
            elif short in ("bready", "rready"):
                m.d.comb += outer.eq(1)  # as the accelerator's, which always is
            elif channel not in channels:
                m.d.sync += inner.eq(outer)
        for channel, names in channels.items():
            between = RegisterSlice(sum(len(getattr(self, n)) for n in names))
            m.submodules[f"{channel}_slice"] = between
            m.d.comb += [
                between.w_data.eq(Cat(getattr(accelerator, n) for n in names)),
                between.w_en.eq(getattr(accelerator, f"m_axi_{channel}valid")),
                getattr(accelerator, f"m_axi_{channel}ready").eq(between.w_rdy),
                Cat(outside[n] for n in names).eq(between.r_data),
                outside[f"m_axi_{channel}valid"].eq(between.r_rdy),
                between.r_en.eq(outside[f"m_axi_{channel}ready"]),
            ]

    def _to_registers(self, m: Module, bridge: UartBridge, access: Value, accelerator: Accelerator) -> Value:
        """One access of the bridge as AXI4-Lite; returns the condition that it is answered."""
        sent_address, sent_data = Signal(), Signal()
        a = accelerator
        write, read = access & bridge.write, access & ~bridge.write
        m.d.comb += [
            a.s_axi_awaddr.eq(Cat(Const(0, 2), bridge.address[: LITE_ADDRESS_BITS - 2])),
            a.s_axi_araddr.eq(a.s_axi_awaddr),
            a.s_axi_wdata.eq(bridge.write_data),
            a.s_axi_wstrb.eq(-1),
            a.s_axi_awvalid.eq(write & ~sent_address),
            a.s_axi_wvalid.eq(write & ~sent_data),
            a.s_axi_arvalid.eq(read & ~sent_address),
            a.s_axi_bready.eq(1),
            a.s_axi_rready.eq(1),
        ]
        answered = a.s_axi_bvalid | a.s_axi_rvalid
        with m.If(answered):
            m.d.sync += [sent_address.eq(0), sent_data.eq(0)]
        with m.Else():
            with m.If((a.s_axi_awvalid & a.s_axi_awready) | (a.s_axi_arvalid & a.s_axi_arready)):
                m.d.sync += sent_address.eq(1)
            with m.If(a.s_axi_wvalid & a.s_axi_wready):
                m.d.sync += sent_data.eq(1)
        return answered

    def _start_memory(self, m: Module, bridge: UartBridge, access: Value) -> None:
        """Write the start-up list, one entry after the other; afterwards the host's accesses to the controller."""
        entry = data.StructLayout({"address": unsigned(14), "word": unsigned(32), "wait": unsigned(16)})
        init = [{"address": a, "word": d, "wait": w} for a, d, w in self.start_up]
        rom = m.submodules.start_up = memory.Memory(shape=entry, depth=len(init), init=init)
        read = rom.read_port()
        number = Signal(range(len(init) + 1))
        wait = Signal(16)
        m.d.comb += [
            read.en.eq(1),
            read.addr.eq(number),
            self.control_adr.eq(read.data.address),
            self.control_dat_w.eq(read.data.word),
            self.control_sel.eq(-1),
            self.control_we.eq(1),
            self.control_stb.eq(self.control_cyc),
        ]
        with m.FSM(name="start_up"):
            with m.State("FETCH"):
                m.next = "WRITE"
                with m.If(number == len(init)):
                    m.next = "READY"
            with m.State("WRITE"):
                m.d.comb += self.control_cyc.eq(1)
                m.d.sync += wait.eq(read.data.wait)
                with m.If(self.control_ack):
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += number.eq(number + 1)
                    m.next = "FETCH"
            with m.State("READY"):
                m.d.comb += self.ready.eq(1)
                if self.leveled:
                    m.d.comb += [
                        self.control_adr.eq(bridge.address[:14]),
                        self.control_dat_w.eq(bridge.write_data),
                        self.control_we.eq(bridge.write),
                        self.control_cyc.eq(access),
                    ]

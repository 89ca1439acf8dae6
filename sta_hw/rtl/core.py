"""The accelerator's core: its units and what connects them, dispatch, events, and how a program ends."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect

from ..spec.config import Config
from ..spec.isa import Error, Target
from ..spec.registers import COMPLETIONS, COUNTERS
from .bus.dma import ReadMaster, WriteMaster
from .control.dispatch import dispatch
from .control.fetch import Fetch
from .core_order import Order, in_order
from .core_parts import Units
from .engine.engine import Engine
from .primitives.layouts import COUNT_BITS, LENGTH_BITS
from .primitives.sequencer import StreamedMemory
from .units.attention import AttentionSoftmax
from .units.expander import Expander
from .units.feeds import ParameterFeed, WindowFeed
from .units.loader import Loader
from .units.norm import Norm
from .units.results import ResultPath

__all__ = ["WATCHDOG_BITS", "WRITE_CLIENTS", "Core"]

WATCHDOG_BITS = 20
"""After 2 to the so many cycles in which nothing moved a program is stopped."""

WRITE_CLIENTS = ("results", "norm_wide", "norm_narrow")


class Core(wiring.Component):
    """Runs one program from `start` to `finished` or `failed`.

    Members
    -------
    start : In(1); program_address, image_address, image_size : In(32); length : In(16)
    position : In(16)
        With the feature of that name.
    finished, failed : Out(1)
        One cycle; the bus is quiet then.
    error : Out(8), instruction : Out(16)
    stop : In(1)
        Finish what the bus has under way and do no more.
    idle : Out(1)
        Stopped, and the bus is quiet.
    stalled : Out(7), events : Out(18)
        For the registers, and for a logic analyser.
    completed : Out(5)
        Likewise: a LOAD, a product through the array, scores in the softmax, a product's results in memory, a NORM.
    reads, writes
        The channels of `ReadMaster` and `WriteMaster`, prefixed ``ar``, ``r``, ``aw``, ``w``, ``b``.
    """

    def __init__(self, config: Config, watchdog_bits: int = WATCHDOG_BITS) -> None:
        config.require_accelerator()
        self.config, self.watchdog_bits = config, watchdog_bits
        bits = 8 * config.bus_bytes
        super().__init__(
            {
                "start": In(1), "program_address": In(32), "image_address": In(32), "image_size": In(32),
                "length": In(LENGTH_BITS),
                "finished": Out(1), "failed": Out(1), "error": Out(8), "instruction": Out(COUNT_BITS),
                "stop": In(1), "idle": Out(1), "stalled": Out(7), "events": Out(len(COUNTERS) - 1),
                "completed": Out(COMPLETIONS.width),
                "araddr": Out(32), "arlen": Out(8), "arvalid": Out(1), "arready": In(1),
                "rdata": In(bits), "rresp": In(2), "rlast": In(1), "rvalid": In(1), "rready": Out(1),
                "awaddr": Out(32), "awlen": Out(8), "awvalid": Out(1), "awready": In(1),
                "wdata": Out(bits), "wstrb": Out(config.bus_bytes), "wlast": Out(1), "wvalid": Out(1), "wready": In(1),
                "bresp": In(2), "bvalid": In(1), "bready": Out(1),
                **({"position": In(LENGTH_BITS)} if "position" in config.features else {}),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
        units = self._units(m, *self._masters(m))
        self._connect_masters(m, units)
        self._connect_streams(m, units)
        self._connect_engine(m, units)
        fetch, engine, writes = units.fetch, units.engine, units.writes
        m.d.comb += [
            units.results.stored.eq(writes.results_done),
            units.norm.wide_done.eq(writes.norm_wide_done),
            units.norm.narrow_done.eq(writes.norm_narrow_done),
        ]
        self._connect_loader(m, units)
        m.d.comb += [
            fetch.start.eq(self.start), fetch.address.eq(self.program_address), fetch.length.eq(self.length),
        ]  # fmt: skip
        if "position" in cfg.features:
            m.d.comb += fetch.position.eq(self.position)
        heads, issued = dispatch(m, cfg, fetch, self.length, self.stop)
        order = in_order(m, cfg, heads, units, self.completed)
        self._events(m, heads, order, units)
        self._outcome(m, issued, order, units)
        offers = [engine.activations, units.values.words, engine.results]
        scores = units.softmax.scores
        m.d.comb += self.stalled.eq(
            Cat(
                *(s.valid & ~s.ready for s in offers),
                *(heads[n].valid & ~heads[n].ready for n in ("loads", "norms")),
                scores.valid & ~scores.ready,
                fetch.instructions.valid & ~fetch.instructions.ready,
            )
        )
        return m

    def _masters(self, m: Module) -> tuple[ReadMaster, WriteMaster]:
        """The two halves of the bus, connected to the core's own channels."""
        cfg = self.config
        # Deep enough to keep their share of the bus while all bursts under way belong to others; a block RAM
        # of the bus's width has so many words anyway.
        deep = max(2 * cfg.burst, 512)
        reads = m.submodules.reads = ReadMaster(
            cfg,
            {"fetch": max(2 * cfg.burst, 128), "windows": deep, "residual": deep, "norm_parameters": deep,
             "norm": deep, "loads": deep},
        )  # fmt: skip
        writes = m.submodules.writes = WriteMaster(cfg, dict.fromkeys(WRITE_CLIENTS, deep))
        for unit in (reads, writes):
            m.d.comb += [unit.base.eq(self.image_address), unit.limit.eq(self.image_size)]
        for unit, names in (
            (reads, ("araddr", "arlen", "arvalid", "rready")),
            (writes, ("awaddr", "awlen", "awvalid", "wdata", "wstrb", "wlast", "wvalid", "bready")),
        ):
            m.d.comb += [getattr(self, name).eq(getattr(unit, name)) for name in names]
        m.d.comb += [getattr(reads, n).eq(getattr(self, n)) for n in ("arready", "rdata", "rresp", "rlast", "rvalid")]
        m.d.comb += [getattr(writes, n).eq(getattr(self, n)) for n in ("awready", "wready", "bresp", "bvalid")]
        return reads, writes

    def _units(self, m: Module, reads: ReadMaster, writes: WriteMaster) -> Units:
        """All units, not yet connected to one another."""
        cfg = self.config
        fetch = m.submodules.fetch = Fetch(cfg)
        loader = m.submodules.loader = Loader(cfg)
        engine = m.submodules.engine = Engine(cfg, plain=True)
        values = m.submodules.values = StreamedMemory(loader.widths[Target.VALUES], cfg.weight_words, 4)
        positions = m.submodules.positions = StreamedMemory(loader.widths[Target.POSITIONS], cfg.position_words, 1)
        parameters = m.submodules.parameters = StreamedMemory(loader.widths[Target.PARAMETERS], cfg.parameter_words, 1)
        expander = None
        if "blocks4" in cfg.features:
            expander = m.submodules.expander = Expander(cfg)
        windows = m.submodules.windows = WindowFeed(cfg)
        feed = m.submodules.parameter_feed = ParameterFeed(cfg)
        softmax = m.submodules.softmax = AttentionSoftmax(cfg)
        results = m.submodules.results = ResultPath(cfg)
        norm = m.submodules.norm = Norm(cfg)
        return Units(reads, writes, fetch, loader, engine, values, positions, parameters, expander, windows, feed,
                     softmax, results, norm)  # fmt: skip

    def _connect_masters(self, m: Module, units: Units) -> None:
        """Each unit's runs and their words to its place at the bus."""
        reads, writes, norm, results = units.reads, units.writes, units.norm, units.results
        for unit_run, unit_words, name in (
            (units.fetch.run, units.fetch.words, "fetch"), (units.windows.run, units.windows.words, "windows"),
            (results.residual_run, results.residual, "residual"), (norm.input_run, norm.input, "norm"),
            (norm.parameters_run, norm.parameters, "norm_parameters"), (units.loader.run, units.loader.words, "loads"),
        ):  # fmt: skip
            connect(m, unit_run, getattr(reads, f"{name}_run"))
            connect(m, getattr(reads, f"{name}_data"), unit_words)
        for unit_run, unit_words, name in (
            (results.store_run, results.store, "results"), (norm.wide_run, norm.wide, "norm_wide"),
            (norm.narrow_run, norm.narrow, "norm_narrow"),
        ):  # fmt: skip
            connect(m, unit_run, getattr(writes, f"{name}_run"))
            connect(m, unit_words, getattr(writes, f"{name}_data"))

    def _connect_streams(self, m: Module, units: Units) -> None:
        """The streams between units that have the same layout at both ends."""
        engine, softmax, results, feed = units.engine, units.softmax, units.results, units.feed
        connect(m, softmax.probabilities, units.windows.probabilities)
        connect(m, softmax.totals, feed.totals)
        connect(m, softmax.growth, engine.growth)
        connect(m, results.block, softmax.block)
        connect(m, results.scores, softmax.scores)
        connect(m, engine.results, results.results)
        connect(m, feed.parameters, engine.parameters)
        connect(m, feed.seconds, results.seconds)
        connect(m, units.parameters.words, feed.words)
        if units.expander is not None:
            connect(m, units.values.words, units.expander.words)
            connect(m, units.expander.values, engine.values)

    def _connect_engine(self, m: Module, units: Units) -> None:
        """Windows, weights and their positions to the engine, whose layouts of the same bits are others."""
        engine, windows, values, positions = units.engine, units.windows, units.values, units.positions
        m.d.comb += [
            engine.activations.payload.as_value().eq(windows.activations.payload.as_value()),
            engine.activations.valid.eq(windows.activations.valid),
            windows.activations.ready.eq(engine.activations.ready),
        ]
        if units.expander is None:
            word = values.words.payload.word
            m.d.comb += [
                *(engine.values.payload.values[g].eq(word[8 * g :][:8]) for g in range(self.config.groups)),
                engine.values.payload.last.eq(values.words.payload.last),
                engine.values.valid.eq(values.words.valid),
                values.words.ready.eq(engine.values.ready),
            ]
        m.d.comb += [
            engine.positions.payload.words.as_value().eq(positions.words.payload.word),
            engine.positions.payload.last.eq(positions.words.payload.last),
            engine.positions.valid.eq(positions.words.valid),
            positions.words.ready.eq(engine.positions.ready),
        ]

    def _connect_loader(self, m: Module, units: Units) -> None:
        """What is loaded, to the memories that hold it."""
        loader, results = units.loader, units.results
        m.d.comb += [
            results.table_enable.eq(loader.enable[Target.TABLE]),
            results.table_address.eq(loader.address),
            results.table_data.eq(loader.entry),
        ]
        for target, store, word in (
            (Target.VALUES, units.values, loader.values),
            (Target.POSITIONS, units.positions, loader.positions),
            (Target.PARAMETERS, units.parameters, loader.parameters),
        ):
            m.d.comb += [
                store.write_enable.eq(loader.enable[target]),
                store.write_address.eq(loader.address),
                store.write_data.eq(word),
            ]

    def _events(self, m: Module, heads: Mapping[str, stream.Interface], order: Order, units: Units) -> None:
        """What each unit does in this cycle. The engine's reasons exclude one another."""
        engine, results, waits = units.engine, units.results, order.window_waits
        window_waits = heads["windows"].valid
        reasons = [
            engine.wait_results,
            engine.wait_rescale,
            engine.wait_windows & units.windows.waits_for_softmax,
            engine.wait_windows & window_waits & waits["norms"],
            engine.wait_windows & window_waits & waits["products"],
            engine.wait_windows,
            ~engine.holds_beat & order.loads_wait,
        ]
        names = ["engine_wait_results", "engine_wait_rescale", "engine_wait_softmax", "engine_wait_norm",
                 "engine_wait_product", "engine_wait_memory", "engine_wait_loads"]  # fmt: skip
        events: dict[str, Value] = {"engine_busy": engine.busy}
        before = engine.busy
        for name, reason in zip(names, reasons, strict=True):
            events[name] = reason & ~before
            before = before | reason
        events["engine_idle"] = ~before
        events |= {
            "load_busy": units.loader.busy,
            "norm_busy": units.norm.busy,
            "softmax_busy": units.softmax.busy,
            "read_beats": self.rvalid & self.rready,
            "write_beats": self.wvalid & self.wready,
            "saturated_scores": units.softmax.saturated,
            "saturated_sums": results.saturated[0],
            "saturated_norms": units.norm.saturated,
            "saturated_results": results.saturated[1],
        }
        m.d.sync += self.events.eq(Cat(events[counter.name] for counter in COUNTERS[1:]))

    def _outcome(self, m: Module, issued: Mapping[str, Signal], order: Order, units: Units) -> None:
        """Finish, or stop at the first error; either way only when the bus is quiet."""
        fetch, reads, writes, engine = units.fetch, units.reads, units.writes, units.engine
        idle = Signal()
        m.d.sync += idle.eq(reads.idle & writes.idle)
        watchdog = Signal(self.watchdog_bits + 1)
        moving = Signal()
        m.d.sync += moving.eq(
            (self.rvalid & self.rready) | (self.wvalid & self.wready) | engine.busy | engine.status.valid
        )
        m.d.sync += watchdog.eq(Mux(moving, 0, watchdog + 1))
        # No burst is issued from the cycle after a stop on; then the bus counts as quiet when it is.
        stop, stopping, stopped = Signal(), Signal(), Signal()
        m.d.sync += [stopping.eq(self.stop | stop), stopped.eq(stopping)]
        m.d.comb += [
            reads.stop.eq(stopping),
            writes.stop.eq(stopping),
            self.idle.eq(idle & stopped),
        ]
        causes = (
            (fetch.error != 0, fetch.error, 0),
            (reads.error, Error.READ, reads.instruction),
            (writes.error, Error.WRITE, writes.instruction),
            (reads.fault, Error.ADDRESS, reads.instruction),
            (writes.fault, Error.ADDRESS, writes.instruction),
            (order.fault, Error.ENGINE, order.instruction),
            (fetch.illegal, Error.OPCODE, fetch.instructions.payload.number),
            (watchdog[-1], Error.TIMEOUT, fetch.instructions.payload.number),
        )
        # All looked at a cycle later: what is wrong stays wrong, what is complete stays complete.
        raised = Signal(len(causes))
        complete = Signal()
        m.d.sync += [
            raised.eq(Cat(condition for condition, _, _ in causes)),
            complete.eq(fetch.ended & Cat(order.done[n] == issued[n] for n in order.done).all()),
        ]
        with m.FSM(name="outcome"):
            with m.State("IDLE"), m.If(self.start):
                m.next = "RUN"
            with m.State("RUN"):
                with m.If(complete & idle):
                    m.d.comb += self.finished.eq(1)
                    m.next = "IDLE"
                for i, (_, code, number) in reversed(list(enumerate(causes))):
                    with m.If(raised[i]):
                        m.d.sync += [self.error.eq(code), self.instruction.eq(number)]
                with m.If(raised.any()):
                    m.d.comb += [stop.eq(1), self.finished.eq(0)]
                    m.next = "STOPPING"
            with m.State("STOPPING"):
                m.d.comb += stop.eq(1)
                with m.If(idle & stopped):
                    m.d.comb += self.failed.eq(1)
                    m.next = "STOPPED"
            with m.State("STOPPED"):  # until the next reset
                m.d.comb += stop.eq(1)

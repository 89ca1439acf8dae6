"""The accelerator's core: dispatch, units, and the counters of finished work that order them."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from ..config import Config
from ..isa import Error, Opcode, Target, layout_of
from .attention import AttentionSoftmax
from .dma import ReadMaster, WriteMaster
from .engine import Engine
from .feeds import ParameterFeed, WindowFeed, parameter_order_layout, window_order_layout
from .fetch import Fetch
from .layouts import COUNT_BITS, Encoding, command_layout
from .loader import Loader, load_order_layout
from .norm import Norm, norm_order_layout
from .queue import Queue
from .results import ResultPath, result_order_layout
from .sequencer import StreamedMemory, order_layout

__all__ = ["READ_CLIENTS", "WRITE_CLIENTS", "Core"]

_QUEUE = 16
"""Instructions each unit holds: as deep as one cell of LUT RAM."""
_WATCHDOG_BITS = 20

READ_CLIENTS = ("fetch", "windows", "residual", "norm_parameters", "norm", "loads")
WRITE_CLIENTS = ("results", "norm_wide", "norm_narrow")
COMPLETED_BITS = 5
"""Pulses: a LOAD, a product through the array, products with results in memory (2 bits), a NORM."""
EVENTS = (
    "engine_busy", "engine_wait_memory", "engine_wait_softmax", "engine_wait_norm", "engine_wait_product",
    "engine_wait_results", "engine_wait_rescale", "engine_wait_loads", "engine_idle",
    "load_busy", "norm_busy", "softmax_busy", "read_beats", "write_beats",
)  # fmt: skip


def _fields(bits: Value, opcode: Opcode) -> dict[str, Value]:
    """An instruction's fields."""
    found, at = {}, 0
    for name, width in layout_of(opcode):
        found[name] = bits[at : at + width]
        at += width
    return found


def _matrix_layout(config: Config) -> data.StructLayout:
    return data.StructLayout(
        {
            "wait_loads": unsigned(COUNT_BITS),
            "command": command_layout(config),
            "values": order_layout(4),
            "positions": order_layout(1),
            "parameters": order_layout(1),
            "feed": parameter_order_layout(),
            "instruction": unsigned(COUNT_BITS),
        }
    )


def _waiting(layout: data.StructLayout, *counters: str) -> data.StructLayout:
    """A unit's order with the counts it waits for."""
    return data.StructLayout({**{f"wait_{c}": unsigned(COUNT_BITS) for c in counters}, "order": layout})


class Core(wiring.Component):
    """Runs one program from `start` to `finished` or `failed`.

    Members
    -------
    start : In(1); program_address, image_address, image_size : In(32)
    finished, failed : Out(1)
        One cycle; the bus is quiet then.
    error : Out(8), instruction : Out(20)
    stop : In(1)
        Finish what the bus has under way and do no more.
    idle : Out(1)
        Stopped, and the bus is quiet.
    stalled : Out(7), events : Out(14), completed : Out(5)
        For the registers, and for a logic analyser.
    reads, writes
        The channels of `ReadMaster` and `WriteMaster`, prefixed ``ar``, ``r``, ``aw``, ``w``, ``b``.
    """

    def __init__(self, config: Config) -> None:
        config.require_accelerator()
        self.config = config
        bits = 8 * config.bus_bytes
        super().__init__(
            {
                "start": In(1), "program_address": In(32), "image_address": In(32), "image_size": In(32),
                "finished": Out(1), "failed": Out(1), "error": Out(8), "instruction": Out(COUNT_BITS),
                "stop": In(1), "idle": Out(1), "stalled": Out(7), "events": Out(len(EVENTS)),
                "completed": Out(COMPLETED_BITS),
                "araddr": Out(32), "arlen": Out(8), "arvalid": Out(1), "arready": In(1),
                "rdata": In(bits), "rresp": In(2), "rlast": In(1), "rvalid": In(1), "rready": Out(1),
                "awaddr": Out(32), "awlen": Out(8), "awvalid": Out(1), "awready": In(1),
                "wdata": Out(bits), "wlast": Out(1), "wvalid": Out(1), "wready": In(1),
                "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        cfg = self.config
        m = Module()
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
            (writes, ("awaddr", "awlen", "awvalid", "wdata", "wlast", "wvalid", "bready")),
        ):
            m.d.comb += [getattr(self, name).eq(getattr(unit, name)) for name in names]
        m.d.comb += [getattr(reads, n).eq(getattr(self, n)) for n in ("arready", "rdata", "rresp", "rlast", "rvalid")]
        m.d.comb += [getattr(writes, n).eq(getattr(self, n)) for n in ("awready", "wready", "bresp", "bvalid")]

        fetch = m.submodules.fetch = Fetch(cfg)
        loader = m.submodules.loader = Loader(cfg)
        engine = m.submodules.engine = Engine(cfg, plain=True)
        values = m.submodules.values = StreamedMemory(loader.widths[Target.VALUES], cfg.weight_words, 4)
        positions = m.submodules.positions = StreamedMemory(loader.widths[Target.POSITIONS], cfg.position_words, 1)
        parameters = m.submodules.parameters = StreamedMemory(loader.widths[Target.PARAMETERS], cfg.parameter_words, 1)
        windows = m.submodules.windows = WindowFeed(cfg)
        feed = m.submodules.parameter_feed = ParameterFeed(cfg)
        softmax = m.submodules.softmax = AttentionSoftmax(cfg)
        results = m.submodules.results = ResultPath(cfg)
        norm = m.submodules.norm = Norm(cfg)

        for unit_run, unit_words, name in (
            (fetch.run, fetch.words, "fetch"), (windows.run, windows.words, "windows"),
            (results.residual_run, results.residual, "residual"), (norm.input_run, norm.input, "norm"),
            (norm.parameters_run, norm.parameters, "norm_parameters"), (loader.run, loader.words, "loads"),
        ):  # fmt: skip
            connect(m, unit_run, getattr(reads, f"{name}_run"))
            connect(m, getattr(reads, f"{name}_data"), unit_words)
        for unit_run, unit_words, name in (
            (results.store_run, results.store, "results"), (norm.wide_run, norm.wide, "norm_wide"),
            (norm.narrow_run, norm.narrow, "norm_narrow"),
        ):  # fmt: skip
            connect(m, unit_run, getattr(writes, f"{name}_run"))
            connect(m, unit_words, getattr(writes, f"{name}_data"))
        connect(m, softmax.probabilities, windows.probabilities)
        connect(m, softmax.totals, feed.totals)
        connect(m, softmax.growth, engine.growth)
        connect(m, results.block, softmax.block)
        connect(m, results.scores, softmax.scores)
        connect(m, engine.results, results.results)
        connect(m, feed.parameters, engine.parameters)
        connect(m, feed.seconds, results.seconds)
        connect(m, parameters.words, feed.words)
        m.d.comb += [
            engine.activations.payload.as_value().eq(windows.activations.payload.as_value()),
            engine.activations.valid.eq(windows.activations.valid),
            windows.activations.ready.eq(engine.activations.ready),
            *(engine.values.payload.values[g].eq(values.words.payload.word[8 * g :][:8]) for g in range(cfg.groups)),
            engine.values.payload.last.eq(values.words.payload.last),
            engine.values.valid.eq(values.words.valid),
            values.words.ready.eq(engine.values.ready),
            engine.positions.payload.words.as_value().eq(positions.words.payload.word),
            engine.positions.payload.last.eq(positions.words.payload.last),
            engine.positions.valid.eq(positions.words.valid),
            positions.words.ready.eq(engine.positions.ready),
            results.stored.eq(writes.results_done),
            norm.wide_done.eq(writes.norm_wide_done),
            norm.narrow_done.eq(writes.norm_narrow_done),
            results.table_enable.eq(loader.enable[Target.TABLE]),
            results.table_address.eq(loader.address),
            results.table_data.eq(loader.entry),
        ]
        for target, store, word in (
            (Target.VALUES, values, loader.values),
            (Target.POSITIONS, positions, loader.positions),
            (Target.PARAMETERS, parameters, loader.parameters),
        ):
            m.d.comb += [
                store.write_enable.eq(loader.enable[target]),
                store.write_address.eq(loader.address),
                store.write_data.eq(word),
            ]

        m.d.comb += [fetch.start.eq(self.start), fetch.address.eq(self.program_address)]
        heads, accepted, bad = self._dispatch(m, fetch)
        done = self._order(
            m, heads, accepted, loader, engine, values, positions, parameters, windows, feed, results, norm
        )
        self._events(m, heads, done, engine, loader, norm, softmax, windows)
        self._outcome(m, fetch, done, accepted, bad, reads, writes, engine)
        offers = [engine.activations, values.words, engine.results]
        m.d.comb += self.stalled.eq(
            Cat(
                *(s.valid & ~s.ready for s in offers),
                *(heads[n].valid & ~heads[n].ready for n in ("loads", "norms")),
                softmax.scores.valid & ~softmax.scores.ready,
                fetch.instructions.valid & ~fetch.instructions.ready,
            )
        )
        return m

    def _dispatch(self, m: Module, fetch: Fetch):
        """Give each instruction to the queues of the units that take part in it.

        Returns the queues' ends (streams), what was dispatched to each counter, and "illegal".
        """
        cfg = self.config
        bits = fetch.instructions.payload.bits
        number = fetch.instructions.payload.number
        opcode = bits[:8]
        product = _fields(bits, Opcode.PRODUCT)
        load = _fields(bits, Opcode.LOAD)
        norm = _fields(bits, Opcode.NORM)
        is_product, is_scores, is_context = (opcode == o for o in (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT))
        multiplies = is_product | is_scores | is_context
        gives = multiplies & ~product["unfinished"]

        layouts: Mapping[str, tuple[data.StructLayout, Value]] = {
            "loads": (_waiting(load_order_layout(), "matrix", "products", "norms"), opcode == Opcode.LOAD),
            "windows": (_waiting(window_order_layout(), "products", "norms"), multiplies),
            "matrix": (_matrix_layout(cfg), multiplies),
            "results": (result_order_layout(), gives),
            "norms": (_waiting(norm_order_layout(), "products", "norms"), opcode == Opcode.NORM),
        }
        heads: dict = {}
        queues = {}
        entries = {}
        for name, (layout, _) in layouts.items():
            queue = m.submodules[f"{name}_instructions"] = Queue(width=layout.size, depth=_QUEUE)
            entry = Signal(layout, name=f"{name}_entry")
            head = stream.Signature(layout).create(path=(f"{name}_head",))
            m.d.comb += [
                queue.w_data.eq(entry),
                head.payload.eq(queue.r_data),
                head.valid.eq(queue.r_rdy),
                queue.r_en.eq(head.ready),
            ]
            heads[name], queues[name], entries[name] = head, queue, entry
        known = multiplies | (opcode == Opcode.LOAD) | (opcode == Opcode.NORM)
        halt = opcode == Opcode.HALT
        illegal = Signal()
        ready, go = Signal(), Signal()
        m.d.comb += [
            ready.eq(Cat(queues[n].w_rdy | ~used for n, (_, used) in layouts.items()).all()),
            illegal.eq(fetch.instructions.valid & ~known & ~halt),
            fetch.instructions.ready.eq(go),
        ]
        # Looked at in one cycle, given in the next: what was free stays free.
        m.d.sync += go.eq(fetch.instructions.valid & known & ready & ~self.stop & ~go)
        m.d.comb += [queues[n].w_en.eq(go & used) for n, (_, used) in layouts.items()]

        entry = entries["loads"]
        m.d.comb += [entry[f"wait_{c}"].eq(load[f"wait_{c}"]) for c in ("matrix", "products", "norms")]
        m.d.comb += [
            entry.order[f].eq(load[f]) for f in ("target", "destination", "address", "beats", "rows", "stride")
        ]
        m.d.comb += entry.order.instruction.eq(number)
        entry = entries["windows"]
        m.d.comb += [entry[f"wait_{c}"].eq(product[f"wait_{c}"]) for c in ("products", "norms")]
        m.d.comb += [
            entry.order.probabilities.eq(is_context),
            entry.order.address.eq(product["window_address"]),
            entry.order.beats.eq(product["window_beats"]),
            entry.order.instruction.eq(number),
        ]
        entry = entries["matrix"]
        command = entry.command
        m.d.comb += [
            entry.wait_loads.eq(product["wait_loads"]),
            *(command[f].eq(product[f]) for f in ("n", "m_log2", "depth", "columns", "passes")),
            command.encoding.as_value().eq(product["encoding"]),
            *(command[f].eq(product[f]) for f in ("continues", "unfinished")),
            command.taps.eq(1),
            command.unsigned.eq(is_context),
            command.per_row.eq(is_context),
            command.rescale.eq(is_context & product["continues"]),
            command.wide_result.eq(product["wide"]),
            entry.values.base.eq(product["values_base"]),
            *(entry.values[f"{f}{i}"].eq(product[f"{f}{i}"]) for f in ("count", "stride") for i in range(4)),
            entry.positions.base.eq(product["positions_base"]),
            entry.positions.count0.eq(product["positions_count"]),
            entry.positions.stride0.eq(1),
            entry.parameters.base.eq(product["parameters_base"]),
            entry.parameters.count0.eq(product["columns"]),
            entry.parameters.stride0.eq(product["parameters_step"]),
            entry.feed.totals.eq(is_context),
            entry.feed.seconds.eq(is_product),
            entry.instruction.eq(number),
        ]
        entry = entries["results"]
        m.d.comb += [
            entry.mode.eq(product["result"]),
            entry.scores.eq(is_scores),
            entry.seconds.eq(is_product),
            entry.columns.eq(product["columns"]),
            entry.address.eq(product["result_address"]),
            entry.residual_address.eq(product["residual_address"]),
            entry.block.depth.eq(product["columns"] >> (cfg.groups.bit_length() - 1)),
            entry.block.keys.eq(product["keys"]),
            entry.block.first.eq(product["row_first"]),
            entry.block.last.eq(product["row_last"]),
            entry.block.gain.eq(product["gain"]),
            entry.instruction.eq(number),
        ]
        entry = entries["norms"]
        m.d.comb += [entry[f"wait_{c}"].eq(norm[f"wait_{c}"]) for c in ("products", "norms")]
        m.d.comb += [
            *(
                entry.order[f].eq(norm[f])
                for f in ("input_address", "wide_address", "narrow_address", "parameters_address", "width", "inverse")
            ),
            entry.order.instruction.eq(number),
        ]

        accepted = {}
        for name, event in (
            ("loads", opcode == Opcode.LOAD),
            ("matrix", multiplies),
            ("products", gives),
            ("norms", opcode == Opcode.NORM),
        ):
            count = Signal(COUNT_BITS, name=f"dispatched_{name}")
            m.d.sync += count.eq(count + (go & event))
            accepted[name] = count
        halting = fetch.ended | (fetch.instructions.valid & halt)
        return heads, {**accepted, "halting": halting}, illegal

    def _order(self, m, heads, accepted, loader, engine, values, positions, parameters, windows, feed, results, norm):
        """Let an instruction into its unit when what it waits for is finished; count what is."""
        done = {name: Signal(COUNT_BITS, name=f"done_{name}") for name in ("loads", "matrix", "products", "norms")}
        loaded = Signal()
        m.d.sync += [
            loaded.eq(loader.done),
            done["loads"].eq(done["loads"] + loaded),
            done["products"].eq(done["products"] + results.done),
            done["norms"].eq(done["norms"] + norm.done),
        ]
        self._waits = {}
        for name, unit in (("loads", loader), ("windows", windows), ("norms", norm)):
            head = heads[name]
            clear = Signal(name=f"{name}_clear")  # a cycle late: what is finished stays so
            waits = {f[5:]: done[f[5:]] < head.payload[f] for f, _ in head.payload.shape() if f.startswith("wait_")}
            m.d.sync += clear.eq(head.valid & ~Cat(waits.values()).any() & ~(head.valid & head.ready))
            m.d.comb += [
                unit.order.payload.eq(head.payload.order),
                unit.order.valid.eq(head.valid & clear),
                head.ready.eq(unit.order.ready & clear),
            ]
            self._waits[name] = waits
        m.d.comb += [
            results.order.payload.eq(heads["results"].payload),
            results.order.valid.eq(heads["results"].valid),
            heads["results"].ready.eq(results.order.ready),
        ]

        head = heads["matrix"]
        order = head.payload
        # Instruction numbers of the products in the array, for its faults.
        numbers = m.submodules.numbers = Queue(width=COUNT_BITS, depth=16)
        sparse = order.command.encoding.as_value() != Encoding.DENSE
        finishing = ~order.command.unfinished
        by_columns = finishing & ~order.feed.totals
        targets = (
            (engine.command, order.command, 1),
            (values.order, order.values, 1),
            (positions.order, order.positions, sparse),
            (parameters.order, order.parameters, by_columns),
            (feed.order, order.feed, finishing),
        )
        clear = Signal()
        go = Signal()
        self._loads_wait = Signal()
        waits = done["loads"] < order.wait_loads
        m.d.sync += clear.eq(head.valid & ~waits & ~go)
        m.d.comb += [
            self._loads_wait.eq(head.valid & waits),
            self.completed.eq(Cat(loader.done, engine.status.valid, results.done, norm.done)),
            go.eq(
                head.valid & clear & numbers.w_rdy
                & Cat(target.ready | ~Value.cast(used) for target, _, used in targets).all()
            ),
            head.ready.eq(go),
            numbers.w_en.eq(go),
            numbers.w_data.eq(order.instruction),
        ]  # fmt: skip
        for target, payload, used in targets:
            m.d.comb += [
                Value.cast(target.payload).eq(Value.cast(payload)),
                target.valid.eq(go & used),
            ]
        m.d.comb += [engine.status.ready.eq(1), numbers.r_en.eq(engine.status.valid)]
        m.d.sync += done["matrix"].eq(done["matrix"] + engine.status.valid)
        self._engine_fault, self._engine_instruction = Signal(), Signal(COUNT_BITS)
        with m.If(engine.status.valid & (engine.status.payload != 0) & ~self._engine_fault):
            m.d.sync += [self._engine_fault.eq(1), self._engine_instruction.eq(numbers.r_data)]
        return done

    def _events(self, m: Module, heads, done, engine, loader, norm, softmax, windows) -> None:
        """What each unit does in this cycle. The engine's reasons exclude one another."""
        waits = self._waits["windows"]
        window_waits = heads["windows"].valid
        reasons = [
            engine.wait_results,
            engine.wait_rescale,
            engine.wait_windows & windows.waits_for_softmax,
            engine.wait_windows & window_waits & waits["norms"],
            engine.wait_windows & window_waits & waits["products"],
            engine.wait_windows,
            ~engine.holds_beat & self._loads_wait,
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
            "load_busy": loader.busy,
            "norm_busy": norm.busy,
            "softmax_busy": softmax.busy,
            "read_beats": self.rvalid & self.rready,
            "write_beats": self.wvalid & self.wready,
        }
        m.d.sync += self.events.eq(Cat(events[name] for name in EVENTS))

    def _outcome(self, m: Module, fetch, done, accepted, bad, reads, writes, engine) -> None:
        """Finish, or stop at the first error; either way only when the bus is quiet."""
        idle = Signal()
        m.d.sync += idle.eq(reads.idle & writes.idle)
        watchdog = Signal(_WATCHDOG_BITS + 1)
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
            (self._engine_fault, Error.ENGINE, self._engine_instruction),
            (bad, Error.OPCODE, fetch.instructions.payload.number),
            (watchdog[-1], Error.TIMEOUT, fetch.instructions.payload.number),
        )
        # All looked at a cycle later: what is wrong stays wrong, what is complete stays complete.
        raised = Signal(len(causes))
        complete = Signal()
        m.d.sync += [
            raised.eq(Cat(condition for condition, _, _ in causes)),
            complete.eq(accepted["halting"] & Cat(done[n] == accepted[n] for n in done).all()),
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

"""The DMA: bursts cut from runs, and its two masters on a bus that answers as it likes, within AXI's rules."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Const, Mux, Signal, Value
from proofs_sequencer import steady

from sim.formal import Bench, Edit, Proof, Property
from sta_hw.rtl.bus.runs import run_layout
from sta_hw.spec.config import Config

BLOCK = "bus/dma.py"
CONFIG = Config(
    rows=4, groups=2, lanes=2, window=4, nm=("dense",), burst=4, outstanding=2, columns=8, weight_words=8,
    parameter_words=8, norm_columns=8, softmax_lanes=2,
)  # fmt: skip
BYTES, BURST = CONFIG.bus_bytes, CONFIG.burst
BLOCK_BYTES = BYTES * BURST


def edit(old: str, new: str, module: str = "dma") -> Edit:
    return Edit(f"sta_hw.rtl.bus.{module}", old, new)


def bursts(bench: Bench) -> None:
    m = bench.m
    dut = bench.load("bus.bursts").Bursts(CONFIG, 8, run_layout())
    inside = bench.block(dut)
    steady(bench, dut.run)
    bench.assume(~dut.grant | dut.request)
    bench.assume(dut.run.payload.address[: BYTES.bit_length() - 1] == 0)
    # Room and data grow, but by what is granted.
    before = bench.past(dut.available - Mux(dut.grant, dut.length, 0))
    bench.assume(dut.available >= before)
    left, address = bench.register(20, "expected_left"), bench.register(32, "expected_address")
    taken = dut.run.valid & dut.run.ready & (dut.run.payload.beats != 0)
    with m.If(taken):
        m.d.sync += [left.eq(dut.run.payload.beats), address.eq(dut.run.payload.address)]
    with m.Elif(dut.grant):
        m.d.sync += [left.eq(left - dut.length), address.eq(address + dut.length * BYTES)]
    offset = address[BYTES.bit_length() - 1 :][: BURST.bit_length() - 1]
    boundary = BURST - offset
    most = Mux(left < boundary, left, boundary)
    state, beats = inside["bursts_state"], inside["beats"]
    idle, length_known, left_known, final_known = state == 0, state >= 2, state >= 3, state == 4
    bench.lemma(state <= 4)
    bench.lemma(idle == (left == 0))
    bench.lemma(idle | ((dut.address == address) & (address[: BYTES.bit_length() - 1] == 0)))
    bench.lemma(~length_known | (dut.length == most))
    bench.lemma(idle | (beats == left - Mux(left_known, dut.length, 0)))
    bench.lemma(~final_known | (dut.final == (beats == 0)))
    bench.lemma(~dut.request | final_known)
    bench.lemma(~dut.request | (dut.available >= dut.length))
    bench.holds("beats", ~dut.grant | ((dut.length != 0) & (dut.length <= left) & (dut.final == (dut.length == left))))
    bench.holds("address", ~dut.grant | (dut.address == address))
    bench.holds("boundary", ~dut.grant | (offset + dut.length <= BURST))
    bench.holds("room", ~dut.grant | (dut.available >= dut.length))
    bench.holds("idle", dut.idle == (left == 0))
    bench.reaches("second-burst", dut.grant & (bench.past(dut.final, 5) == 0) & (dut.length != BURST) & dut.final)


class Image:
    """Where the image is: whole bursts, none beyond 2^32; and what lies in it."""

    def __init__(self, bench: Bench, dut: Any) -> None:
        self.base, self.limit = dut.base, dut.limit
        for value in (self.base, self.limit):
            bench.assume(value[: BLOCK_BYTES.bit_length() - 1] == 0)
            bench.assume(~bench.past(1) | (value == bench.past(value)))
        bench.assume((self.base + self.limit) <= 1 << 32)

    def holds(self, address: Value, length: Value) -> Value:
        """Whether a burst of so many beats is in the image and at a multiple of the bus's bytes."""
        word = BYTES.bit_length() - 1
        end = address + (length << word)
        return (address[:word] == 0) & (address >= self.base) & (end <= self.base + self.limit)


class Queued:
    """The bench's own short queue of records; what does not fit is assumed not to come."""

    def __init__(self, bench: Bench, name: str, shape: Any, size: int) -> None:
        self.bench, self.size = bench, size
        self.rows = [bench.register(shape, f"{name}_{i}") for i in range(size)]
        self.head, self.tail = (bench.register(size.bit_length() + 1, f"{name}_{n}") for n in ("head", "tail"))
        self.count = (self.tail - self.head)[: len(self.head)]
        bench.assume(self.count <= size)
        self.first = Signal(Value.cast(self.rows[0]).shape(), name=f"{name}_first")
        bits = size.bit_length() - 1
        bench.m.d.comb += self.first.eq(Array(self.rows)[self.head[:bits]])

    def move(self, put: Value, record: Any, get: Value) -> None:
        m = self.bench.m
        bits = self.size.bit_length() - 1
        with m.If(put):
            for i, row in enumerate(self.rows):
                with m.If(self.tail[:bits] == i):
                    m.d.sync += row.eq(record)
            m.d.sync += self.tail.eq(self.tail + 1)
        with m.If(get):
            m.d.sync += self.head.eq(self.head + 1)


def unchanged(bench: Bench, valid: Value, ready: Value, *what: Value) -> Value:
    """A channel's offer that was not taken is there still, the same."""
    payload = Cat(*what)
    return ~bench.past(valid & ~ready) | (valid & (payload == bench.past(payload)))


def within(bench: Bench, burst_address: Value, length: Value) -> Value:
    """No burst crosses a boundary of BURST beats, which divides 4 KiB."""
    word = BYTES.bit_length() - 1
    return (burst_address[word:][: BURST.bit_length() - 1] + length) <= BURST


def reads(bench: Bench) -> None:
    m = bench.m
    dut = bench.load("bus.dma").ReadMaster(CONFIG, {"a": 4, "b": 4})
    inside = bench.block(dut)
    image = Image(bench, dut)
    length = dut.arlen + 1
    bench.holds("inside", ~dut.arvalid | image.holds(dut.araddr, length))
    bench.holds("boundary", ~dut.arvalid | within(bench, dut.araddr, length))
    bench.holds("unchanged", unchanged(bench, dut.arvalid, dut.arready, dut.araddr, dut.arlen))

    # The memory: answers in order, when it likes; one word of it is looked at.
    place, word = bench.chosen(32, "place"), bench.chosen(8 * BYTES, "stored")
    asked = Queued(bench, "asked", 40, 4)
    beat = bench.register(8, "beat")
    first_address, first_length = asked.first[:32], asked.first[32:]
    bench.assume(~dut.rvalid | (asked.count != 0))
    bench.assume(~dut.rvalid | (dut.rlast == (beat == first_length)))
    address = (first_address + beat * BYTES)[:32]
    bench.assume(~dut.rvalid | (address != place) | (dut.rdata == word))
    with m.If(dut.rvalid):
        m.d.sync += beat.eq(Mux(dut.rlast, 0, beat + 1))
    end = dut.rvalid & dut.rlast
    asked.move(dut.arvalid & dut.arready, Cat(dut.araddr, dut.arlen), end)
    bench.holds("outstanding", asked.count + dut.arvalid <= CONFIG.outstanding)

    # What each client is given: the words of its runs, in order.
    sound: Value = Const(1, 1)
    right: Value = Const(1, 1)
    for name in ("a", "b"):
        run, words = getattr(dut, f"{name}_run"), getattr(dut, f"{name}_data")
        steady(bench, run)
        bench.assume(run.payload.beats <= 6)
        taken, given = run.valid & run.ready & (run.payload.beats != 0), words.valid & words.ready
        runs = Queued(bench, f"runs_{name}", 52, 2)
        number = bench.register(20, f"number_{name}")
        last = number + 1 == runs.first[32:]
        m.d.sync += number.eq(Mux(given, Mux(last, 0, number + 1), number))
        runs.move(taken, Cat(run.payload.address, run.payload.beats), given & last)
        at = (dut.base + runs.first[:32] + number * BYTES)[:32]
        right &= ~words.valid | ((runs.count != 0) & ((at != place) | (words.payload == word)))
        right &= ~bench.past(words.valid & ~words.ready) | words.valid
        end_of_run = run.payload.address + run.payload.beats * BYTES
        sound &= ~run.valid | ((run.payload.address[: BYTES.bit_length() - 1] == 0) & (end_of_run <= dut.limit))
    bench.holds("data", right)
    queues = [inside.sub(f"{n}_queue") for n in ("a", "b")]
    bench.holds("room", Cat(~q["w_en"] | q["w_rdy"] for q in queues).all())
    always_sound, no_error = bench.register(1, "always_sound", 1), bench.register(1, "no_error", 1)
    m.d.sync += [always_sound.eq(always_sound & sound), no_error.eq(no_error & ~(dut.rvalid & dut.rresp[1]))]
    bench.holds("fault", (~dut.fault | ~always_sound) & (dut.error | dut.fault | no_error) & (~dut.error | ~no_error))
    bench.holds("stop", ~bench.past(dut.stop) | bench.past(dut.arvalid) | ~dut.arvalid)
    bench.holds("idle", ~dut.idle | (~dut.arvalid & (asked.count == 0)))
    bench.reaches("two-under-way", asked.count == 2)
    bench.reaches("outside", dut.fault & ~always_sound)
    bench.reaches("both-given", dut.a_data.valid & dut.b_data.valid)


def writes(bench: Bench) -> None:
    m = bench.m
    dut = bench.load("bus.dma").WriteMaster(CONFIG, {"a": 4, "b": 4})
    bench.block(dut)
    image = Image(bench, dut)
    length = dut.awlen + 1
    bench.holds("inside", ~dut.awvalid | image.holds(dut.awaddr, length))
    bench.holds("boundary", ~dut.awvalid | within(bench, dut.awaddr, length))
    bench.holds(
        "unchanged", unchanged(bench, dut.awvalid, dut.awready, dut.awaddr, dut.awlen)
        & unchanged(bench, dut.wvalid, dut.wready, dut.wdata, dut.wstrb, dut.wlast),
    )  # fmt: skip
    # Bursts as they appear on AW; their data follow, in order.
    appears = dut.awvalid & ~bench.past(dut.awvalid & ~dut.awready)
    sent = dut.wvalid & dut.wready
    asked = Queued(bench, "asked", 40, 4)
    beat = bench.register(8, "beat")
    m.d.sync += beat.eq(Mux(sent, Mux(dut.wlast, 0, beat + 1), beat))
    asked.move(appears, Cat(dut.awaddr, dut.awlen), sent & dut.wlast)
    first_address, first_length = asked.first[:32], asked.first[32:]
    bench.holds("last", ~dut.wvalid | ((asked.count != 0) & (dut.wlast == (beat == first_length))))
    bench.holds("no-gap", (beat == 0) | dut.wvalid)
    # Answers: of bursts whose address and last data are taken.
    addresses, ends, answers = (bench.register(4, n) for n in ("addresses", "ends", "answers"))
    m.d.sync += [
        addresses.eq(addresses + (dut.awvalid & dut.awready)), ends.eq(ends + (sent & dut.wlast)),
        answers.eq(answers + dut.bvalid),
    ]  # fmt: skip
    bench.assume(~dut.bvalid | ((addresses != answers) & (ends != answers)))
    # Whose a beat is, its uppermost bit says: what the data are changes nothing.
    which = dut.wdata[-1]
    at = (first_address + beat * BYTES - dut.base)[:32]
    right: Value = Const(1, 1)
    ordered: Value = Const(1, 1)
    strobes: Value = Const(1, 1)
    done: Value = Const(1, 1)
    for i, name in enumerate(("a", "b")):
        run, words = getattr(dut, f"{name}_run"), getattr(dut, f"{name}_data")
        steady(bench, run)
        steady(bench, words)
        bench.assume(words.payload[-1] == i)
        bench.assume((run.payload.beats <= 5) & (Value.cast(run.payload.kind) <= 2))
        taken = run.valid & run.ready & (run.payload.beats != 0)
        mine = dut.wvalid & (which == i)
        moved = sent & (which == i)
        shape = 32 + 20 + 2 + 2 + 2
        runs = Queued(bench, f"runs_{name}", shape, 2)
        number = bench.register(20, f"number_{name}")
        p = run.payload
        record = Cat(p.address, p.beats, Value.cast(p.kind), p.rows_before, p.rows_after)
        last = number + 1 == runs.first[32:52]
        m.d.sync += number.eq(Mux(moved, Mux(last, 0, number + 1), number))
        runs.move(taken, record, moved & last)
        right &= ~mine | ((runs.count != 0) & (at == (runs.first[:32] + number * BYTES)[:32]))
        # The n-th word that was given is the n-th that is sent.
        chosen, word = bench.chosen(4, f"chosen_{name}"), bench.register(8 * BYTES, f"word_{name}")
        ins, outs = bench.register(4, f"ins_{name}"), bench.register(4, f"outs_{name}")
        m.d.sync += [ins.eq(ins + (words.valid & words.ready)), outs.eq(outs + moved)]
        bench.assume((ins < 15) | ~words.valid)
        with m.If(words.valid & words.ready & (ins == chosen)):
            m.d.sync += word.eq(words.payload)
        ordered &= ~mine | ((ins != outs) & ((outs != chosen) | (dut.wdata == word)))
        # Bytes of rows that are wanted, and no others (docs/image.md): columns of one or two bytes a row, or blocks.
        kind, before, after = runs.first[52:54], runs.first[54:56], runs.first[56:58]
        for k in range(BYTES):
            byte = at + k
            row = Mux(kind == 0, byte, Mux(kind == 1, byte >> 1, byte >> 1))[:2]  # groups are 2
            wanted = (row >= before) & (row + after < CONFIG.rows)
            strobes &= ~mine | (dut.wstrb[k] == wanted)
        # A run is done once, when all its beats are answered.
        runs_taken, runs_done, runs_sent = (bench.register(4, f"{n}_{name}") for n in ("taken", "done", "sent"))
        is_done = getattr(dut, f"{name}_done")
        m.d.sync += [
            runs_taken.eq(runs_taken + taken),
            runs_done.eq(runs_done + is_done),
            runs_sent.eq(runs_sent + (moved & last)),
        ]
        done &= ~is_done | (runs_done != runs_sent)
    bench.holds("addresses", right)
    bench.holds("data", ordered)
    bench.holds("strobes", strobes)
    bench.holds("done", done)
    bench.holds("stop", ~bench.past(dut.stop) | bench.past(dut.awvalid) | ~dut.awvalid)
    bench.holds("idle", ~dut.idle | (~dut.awvalid & ~dut.wvalid & (addresses == answers) & (ends == answers)))
    bench.reaches("done", dut.a_done | dut.b_done)
    bench.reaches("second-burst", sent & dut.wlast & (ends == 1))
    bench.reaches("fault", dut.fault)


BOUNDARY = "No burst crosses a multiple of its greatest length, and so none crosses 4 KiB."
BURSTS = {
    "beats": Property(
        "The bursts of a run have all its beats together and no more, and exactly the last is said to be it.",
        edit("Mux(beats < to_boundary, beats, to_boundary)", "to_boundary", "bursts"),
    ),
    "address": Property(
        "Each burst begins where the one before ended, the first at the run's address.",
        edit("Cat(Const(0, block_bits), block + 1)", "Cat(Const(0, block_bits), block + 2)", "bursts"),
    ),
    "boundary": Property(
        BOUNDARY,
        edit(
            "to_boundary.eq(cfg.burst - self.address[word : word + burst_bits] if burst_bits else 1)",
            "to_boundary.eq(cfg.burst)",
            "bursts",
        ),
    ),
    "room": Property(
        "A burst is requested when there is room, or are data, for all of it.",
        edit("(self.available >= self.length)", "(self.available + 1 >= self.length)", "bursts"),
    ),
    "idle": Property(
        "It is idle exactly while no beat of a run is left.",
        edit("with m.If(self.final):", "with m.If(self.final | beats[0]):", "bursts"),
    ),
}
INSIDE = Property(
    "No request leaves the image, or is not at a multiple of the bus's bytes, whatever the run.",
    edit("(self.address[low:] >= limit[low:]) |", "(self.address[low:] > limit[low:]) |"),
)
READS = {
    "inside": INSIDE,
    "boundary": Property(BOUNDARY, edit("self.arlen.eq(chosen.length - 1)", "self.arlen.eq(chosen.length)")),
    "unchanged": Property(
        "A request that is not taken stays, the same (AXI A3.2.1).",
        edit("free = ~self.arvalid | self.arready", "free = ~self.arvalid | self.arready | self.rvalid"),
    ),
    "outstanding": Property(
        "No more bursts are under way than `outstanding` says.",
        edit("most = cfg.outstanding - 1", "most = cfg.outstanding"),
    ),
    "data": Property(
        "Each client is given the words of its runs, from any memory, each once, in order.",
        edit("Mux(self.rvalid, owners.r_data[: len(self.clients)], 0)", "Mux(self.rvalid, chosen.client, 0)"),
    ),
    "room": Property(
        "A word from the bus always has a place in its client's queue.",
        edit(
            "m.d.sync += room.eq(room + taken - Mux(unit.grant, unit.length, 0))",
            "m.d.sync += room.eq(room + taken - unit.grant)",
        ),
        18,
    ),
    "fault": Property(
        "A fault is only of a run that leaves the image or is not aligned; an error of the bus is kept, none is made up.",
        edit("with m.If(self.rvalid & self.rresp[1]):", "with m.If(self.rvalid & self.rresp[0]):"),
    ),
    "stop": Property(
        "After a stop no request is begun.",
        edit("issue.eq(chosen.sound & free & may & ~self.stop)", "issue.eq(chosen.sound & free & may)"),
    ),
    "idle": Property(
        "When it says it is idle, nothing is on the bus.",
        edit("(under_way == 0) & ~self.arvalid & (~chosen", "(under_way <= 1) & ~self.arvalid & (~chosen"),
    ),
}
WRITES = {
    "inside": INSIDE,
    "boundary": Property(BOUNDARY, edit("self.awlen.eq(chosen.length - 1)", "self.awlen.eq(chosen.length)")),
    "unchanged": Property(
        "An address, or data, that are not taken stay, the same (AXI A3.2.1).",
        edit("move.eq(sending & (~self.wvalid | self.wready))", "move.eq(sending)"),
    ),
    "last": Property(
        "Each burst has as many beats as it says, the last one marked; no data come ahead of their address.",
        edit("last.eq(chosen.length == 1)", "last.eq(chosen.length <= 2)"),
    ),
    "no-gap": Property(
        "A burst of data that began goes on in every cycle.",
        edit(
            "move.eq(sending & (~self.wvalid | self.wready))",
            "move.eq(sending & (~self.wvalid | self.wready) & self.awready)",
        ),
    ),
    "addresses": Property(
        "The beats of each client go to the addresses that its runs name, in order.",
        edit("source.eq(chosen.client)", "source.eq(1)"),
    ),
    "data": Property(
        "The n-th word that is sent of a client is the n-th that it gave, for every n.",
        edit("self.wdata.eq(q.r_data)", "self.wdata.eq(q.w_data)"),
    ),
    "strobes": Property(
        "Exactly the bytes of the rows that a run wants are written.",
        edit("(row <= ~run.rows_after)", "(row < ~run.rows_after)"),
    ),
    "done": Property(
        "A run is said to be done once, after all its data are answered.",
        edit(
            "done.eq(self.bvalid & owners.r_data[i] & owners.r_data[count])", "done.eq(self.bvalid & owners.r_data[i])"
        ),
    ),
    "stop": Property("After a stop no burst is begun.", edit("& owners.w_rdy & ~self.stop", "& owners.w_rdy")),
    "idle": Property(
        "When it says it is idle, nothing is on the bus and all is answered.",
        edit("self.idle.eq((under_way == 0) & (~chosen", "self.idle.eq((under_way <= 1) & (~chosen"),
    ),
}
SETTING = f"bus of {BYTES} bytes, bursts of {BURST} beats"

PROOFS = (
    Proof("bursts", "bus/bursts.py", bursts, 2, BURSTS, setting=f"{SETTING}; any run"),
    Proof(
        "read-master", BLOCK, reads, 16, READS, method="bounded", setting=f"{SETTING}, 2 clients, 2 outstanding",
        bound="any runs of up to 6 beats, any memory, any waits; two bursts of a client", reach_depth=24,
    ),
    Proof(
        "write-master", BLOCK, writes, 16, WRITES, method="bounded", setting=f"{SETTING}, 2 clients",
        bound="any runs of up to 5 beats, any data, any waits; two bursts", reach_depth=24,
    ),
)  # fmt: skip

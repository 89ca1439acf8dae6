"""The controller and the registers on their AXI4-Lite port."""

from __future__ import annotations

from amaranth.hdl import Cat, Mux, Value

from sim.formal import Bench, Edit, Proof, Property
from sta_hw.spec.presets import PRESETS
from sta_hw.spec.registers import REGISTERS

CONTROLLER, REGISTER_FILE = "control/controller.py", "control/registers.py"
CONFIG = PRESETS["ci"]
BURST_BYTES = CONFIG.burst * CONFIG.bus_bytes


def edit(name: str, old: str, new: str) -> Edit:
    return Edit(f"sta_hw.rtl.control.{name}", old, new)


def controller(bench: Bench) -> None:
    """Whatever is written and whatever the core does."""
    m = bench.m
    dut = bench.load("control.controller").Controller()
    inside = bench.block(dut)
    ends = Cat(dut.finished, dut.failed, dut.misplaced)
    job = bench.register(1, "job_under_way")  # accepted, and neither ended nor reset
    begun = bench.register(1, "begun")  # the core may have begun something since it was reset
    m.d.sync += [
        job.eq((job | dut.accepted) & ~dut.reset & ~ends.any()),
        begun.eq((begun & ~dut.core_reset) | dut.core_start),
    ]
    was_reset, was_starting = bench.past(dut.reset), bench.past(dut.core_start & ~dut.reset)
    bench.lemma(inside["job"] == job)
    bench.holds("reset-ends-the-job", job | ~(dut.core_start | dut.running | ends.any()))
    bench.holds("reset-stops-the-core", ~was_reset | dut.core_stop | ~dut.busy)
    bench.holds("no-end-with-a-reset", ~dut.reset | ~ends.any())
    bench.holds("clean-start", ~dut.core_start | ~begun)
    bench.holds("reset-when-quiet", ~dut.core_reset | dut.core_stop)
    bench.holds("one-job", ~dut.accepted | ~job)
    bench.holds("taken-if-free", ~dut.start | dut.reset | job | dut.accepted)
    one = ~(ends[0] & ends[1]) & ~(ends[2] & (ends[0] | ends[1]))
    bench.holds("each-ends-once", (~ends.any() | job) & one)
    bench.holds("starts-are-of-jobs", ~dut.core_start | (job & dut.sound))
    bench.holds("runs-what-was-started", (~was_starting | dut.running) & (~dut.running | job))
    core_ends = dut.core_finished | dut.core_failed
    bench.holds("core-ends-the-job", ~dut.running | dut.reset | (core_ends == (dut.finished | dut.failed)))
    bench.holds("no-stop-while-running", ~(dut.running & dut.core_stop))
    bench.holds("busy-with-a-job", ~job | dut.busy)
    # Steps in which it is busy and neither waits for the core nor is commanded: from each it goes on, and there are few.
    waits = dut.running | (dut.core_stop & ~dut.core_idle) | dut.start | dut.reset
    steps = bench.register(3, "steps")
    m.d.sync += steps.eq(Mux(dut.busy & ~waits, Mux(steps == 7, 7, steps + 1), 0))
    state = inside["controller_state"]
    bench.lemma((state <= 5) & (dut.running == (state == 5)))
    bench.lemma(~((state == 0) & job) & (steps <= Mux(state == 0, 4, (state - 1)[:3])))
    bench.holds("returns-to-idle", steps < 5)
    bench.reaches("finished", dut.finished)
    bench.reaches("misplaced", dut.misplaced)
    bench.reaches("reset-while-running", dut.running & dut.reset)


def registers(bench: Bench) -> None:
    """Whatever a master does that keeps to AXI4-Lite, and whatever the core says."""
    m = bench.m
    module = bench.load("control.registers")
    dut = module.Registers(CONFIG)
    inside = bench.block(dut)

    def offers(name: str) -> tuple[Value, Value, list[Value]]:
        fields = {"aw": ("addr", "prot"), "w": ("data", "strb"), "ar": ("addr", "prot"), "b": ("resp",),
                  "r": ("data", "resp")}  # fmt: skip
        return (
            getattr(dut, f"s_axi_{name}valid"), getattr(dut, f"s_axi_{name}ready"),
            [getattr(dut, f"s_axi_{name}{field}") for field in fields[name]],
        )  # fmt: skip

    def stays(name: str) -> Value:
        valid, ready, fields = offers(name)
        payload = Cat(*fields)
        return ~bench.past(valid & ~ready) | (valid & (payload == bench.past(payload)))

    for name in ("aw", "w", "ar"):
        bench.assume(stays(name))
    bench.holds("unchanged", stays("b") & stays("r"))
    taken = {name: offers(name)[0] & offers(name)[1] for name in ("aw", "w", "ar", "b", "r")}
    owed = {name: bench.register(2, f"owed_{name}") for name in ("aw", "w", "ar")}
    for name, answer in (("aw", "b"), ("w", "b"), ("ar", "r")):
        m.d.sync += owed[name].eq(owed[name] + taken[name] - taken[answer])
    bench.lemma(owed["aw"] == inside["have_address"] + dut.s_axi_bvalid)
    bench.lemma(owed["w"] == inside["have_word"] + dut.s_axi_bvalid)
    bench.lemma(owed["ar"] == inside["reading"] + dut.s_axi_rvalid)
    bench.lemma(~(inside["reading"] & dut.s_axi_rvalid))
    bench.holds(
        "answers",
        (~dut.s_axi_bvalid | ((owed["aw"] != 0) & (owed["w"] != 0))) & (~dut.s_axi_rvalid | (owed["ar"] != 0)),
    )
    # A register's value: its bytes as they were written last.
    offset = next(r.offset for r in REGISTERS if r.name == "program_address")
    address, word, strobes = (bench.register(n, name) for n, name in ((12, "address_"), (32, "word_"), (4, "strobes_")))
    with m.If(taken["aw"]):
        m.d.sync += address.eq(dut.s_axi_awaddr)
    with m.If(taken["w"]):
        m.d.sync += [word.eq(dut.s_axi_wdata), strobes.eq(dut.s_axi_wstrb)]
    value = bench.register(32, "value")
    appears = dut.s_axi_bvalid & ~bench.past(dut.s_axi_bvalid & ~dut.s_axi_bready)
    with m.If(appears & (address[2:] == offset >> 2)):
        for i in range(4):
            with m.If(strobes[i]):
                m.d.sync += value.word_select(i, 8).eq(word.word_select(i, 8))
    kept = inside["program_address"]
    bench.lemma((address == inside["address"]) & (word == inside["word"]) & (strobes == inside["strobes"]))
    bench.lemma(value == bench.past(kept))
    read = bench.register(10, "read")
    with m.If(taken["ar"]):
        m.d.sync += read.eq(dut.s_axi_araddr[2:])
    bench.lemma((owed["ar"] == 0) | (read == inside["read_address"]))
    shows = dut.s_axi_rvalid & ~bench.past(dut.s_axi_rvalid & ~dut.s_axi_rready)
    bench.holds("value", ~(shows & (read == offset >> 2)) | ((dut.s_axi_rdata == value) & (dut.s_axi_rresp == 0)))
    # The image, as the DMA takes it for granted.
    low = BURST_BYTES.bit_length() - 1
    image = (dut.image_address[:low] == 0) & (dut.image_size[:low] == 0)
    image &= dut.image_address + dut.image_size <= 1 << 32
    job = inside.sub("controller")
    bench.lemma((job["controller_state"] <= 5) & ((job["controller_state"] < 4) | job["job"]))
    bench.lemma(~dut.running | image)
    bench.holds("image", (~dut.core_start | image) & (~dut.running | image))
    ends = Cat(job[n] for n in ("finished", "failed", "misplaced")).any()
    bench.holds("interrupt", ~bench.past(ends) | (inside["pending"] & (dut.irq == inside["enabled"])))
    bench.reaches("both-under-way", (owed["aw"] == 2) & (owed["ar"] == 1))
    bench.reaches("interrupt", dut.irq)
    bench.reaches("written-and-read", shows & (read == offset >> 2) & (dut.s_axi_rdata == 0xABCD))


C, R = "controller", "registers"
PROOFS = (
    Proof(
        "controller", CONTROLLER, controller, 4, {
            "reset-ends-the-job": Property(
                "Behind a reset in any cycle nothing starts, runs or ends before a start is taken.",
                edit(C, "with m.If(self.reset | self.finished", "with m.If(self.finished"),
            ),
            "reset-stops-the-core": Property(
                "In the cycle behind a reset the core is told to stop.",
                edit(C, 'm.d.comb += self.core_stop.eq(1)\n                with m.If(self.core_idle)',
                     'm.d.comb += self.core_stop.eq(0)\n                with m.If(self.core_idle)'),
            ),
            "no-end-with-a-reset": Property(
                "No job ends in the cycle of a reset.",
                edit(C, "with m.Elif(self.core_finished | self.core_failed):", "with m.If(self.core_finished | self.core_failed):"),
            ),
            "clean-start": Property(
                "A core that began something is reset before it starts again.",
                edit(C, 'with m.State("IDLE"), m.If(self.start | self.reset):\n                m.next = "QUIET"',
                     'with m.State("IDLE"), m.If(self.start | self.reset):\n                m.next = "CLEAN"'),
            ),
            "reset-when-quiet": Property(
                "A core is reset only while it is told to stop.",
                edit(C, "self.core_reset.eq(1), self.core_stop.eq(1)", "self.core_reset.eq(1)"),
            ),
            "one-job": Property(
                "A job is accepted only while none is under way.",
                edit(C, "self.start & ~self.reset & ~job", "self.start & ~self.reset"),
            ),
            "taken-if-free": Property(
                "A start without a reset, while no job is under way, is taken.",
                edit(C, "self.start & ~self.reset & ~job", "self.start & ~self.reset & ~job & ~self.busy"),
            ),
            "each-ends-once": Property(
                "What ends is a job under way, and it ends in one way.",
                edit(C, "self.failed.eq(~self.core_finished)", "self.failed.eq(1)"),
            ),
            "starts-are-of-jobs": Property(
                "The core starts only for a job whose image is sound.",
                edit(C, "self.core_start.eq(self.sound)", "self.core_start.eq(1)"),
            ),
            "runs-what-was-started": Property(
                "A core that was started runs, and what runs is a job.",
                edit(C, 'm.next = "RUN"\n                with m.If(self.reset)', 'm.next = "IDLE"\n                with m.If(self.reset)'),
            ),
            "core-ends-the-job": Property(
                "While it runs, a job ends exactly when the core says so.",
                edit(C, "self.failed.eq(~self.core_finished)", "self.failed.eq(0)"),
            ),
            "no-stop-while-running": Property(
                "A core that runs a job is not told to stop.",
                edit(C, "m.d.comb += self.running.eq(1)", "m.d.comb += [self.running.eq(1), self.core_stop.eq(self.core_failed)]"),
            ),
            "busy-with-a-job": Property(
                "It is busy while a job is under way.",
                edit(C, 'self.busy.eq(~fsm.ongoing("IDLE"))', 'self.busy.eq(~fsm.ongoing("IDLE") & ~fsm.ongoing("CLEAN"))'),
            ),
            "returns-to-idle": Property(
                "Of 5 cycles in a row it is idle in one, or waits for the core, or is commanded: nothing hangs.",
                edit(C, 'm.d.comb += self.misplaced.eq(1)\n                    m.next = "IDLE"',
                     'm.d.comb += self.misplaced.eq(1)\n                    m.next = "START"'),
            ),
        }, setting="any commands, any core", quick="prove",
    ),
    Proof(
        "registers", REGISTER_FILE, registers, 4, {
            "unchanged": Property(
                "An answer that is not taken stays, the same (AXI A3.2.1).",
                edit(R, "(~self.s_axi_bvalid | self.s_axi_bready))", "(~self.s_axi_bvalid | self.s_axi_awvalid))"),
            ),
            "answers": Property(
                "Each answer is that of a request; a write's comes behind its address and its data.",
                edit(R, "write.eq(have_address & have_word &", "write.eq(have_address &"),
            ),
            "value": Property(
                "A register (the program's address) is read as its bytes were written last, whatever else is done.",
                edit(R, "target.eq((target & ~mask) | (word & mask))", "target.eq(word)"),
            ),
            "image": Property(
                "A job's image is whole bursts and ends within 2^32 from its start to its end, whatever is written.",
                edit(R, "aligned & ~(end[-1] & end[:-1].any())", "aligned"),
            ),
            "interrupt": Property(
                "Each end of a job raises the interrupt, in the cycle of an acknowledgement, too.",
                edit(R, "with m.If(controller.finished):\n            m.d.sync += [done.eq(1), pending.eq(1)]",
                     "with m.If(controller.finished):\n            m.d.sync += [done.eq(1), pending.eq(~write)]"),
            ),
        }, setting="preset ci, any master, any core", reach_depth=24,
    ),
)  # fmt: skip

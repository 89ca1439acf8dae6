"""The loader: what it asks memory for, what it writes where, and when it is done."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Cat, Const, Mux, Value
from proofs_sequencer import steady
from streams import STABLE, Kept, answered, config, edit, goes_on, stays

from sim.formal import Bench, Proof, Property
from sta_hw.spec.isa import Target

LOADER = "units.loader"


def spread(record: Value) -> tuple[tuple[int, Value], ...]:
    """Where a short record's fields lie in a long one: first bit, and what is there."""
    bias = Cat(record[:24], record[23].replicate(8))
    return (0, bias), (32, record[24:40]), (48, record[40:43]), (64, record[48:64])


def loader(ahead: int, short: bool = False) -> Callable[[Bench], None]:
    """Any two LOADs of up to five words; memory answers what it was asked for, when it likes."""

    def fill(bench: Bench) -> None:
        m = bench.m
        cfg = config(loads_ahead=ahead, features=("blocks4",) if short else ())
        dut = bench.load("units.loader").Loader(cfg)
        bench.block(dut)
        steady(bench, dut.order)
        steady(bench, dut.words)
        new = dut.order.payload
        most = 5
        bench.assume((new.rows <= 2) & (new.beats <= most) & ((new.rows < 2) | (new.beats <= most // 2)))
        bench.assume(new.target <= max(dut.widths))  # fetch refuses others
        kept = Kept(bench, dut.order)
        number = bench.register(3, "number")  # of the LOAD whose words come
        now = kept.at(number)
        under_way = number != kept.count
        total = Mux(now.rows == 0, 0, Mux(now.rows == 1, now.beats, now.beats << 1))[:3]

        # Runs: which LOAD's, and which of its own.
        asker, row = bench.register(3, "asker"), bench.register(2, "row")
        asking = kept.at(asker)
        nothing = (asking.rows == 0) | (asking.beats == 0)
        run = dut.run.payload
        asks = dut.run.valid & dut.run.ready
        with m.If((asker != kept.count) & (nothing | (asks & (row == asking.rows - 1)))):
            m.d.sync += [asker.eq(asker + 1), row.eq(0)]
        with m.Elif(asks):
            m.d.sync += row.eq(row + 1)
        address = (asking.address + Mux(row == 0, 0, asking.stride))[:32]
        asked = (run.address == address) & (run.beats == asking.beats) & (run.instruction == asking.instruction)
        bench.holds("runs", ~dut.run.valid | ((asker != kept.count) & ~nothing & asked))
        bench.holds("stable", stays(bench, dut.run))
        owed = answered(bench, dut.run, dut.words, 5)
        takes = dut.words.valid & dut.words.ready

        # Words, as they were taken, and what is written of them.
        taken, written = bench.register(3, "taken"), bench.register(5, "written")
        words = [bench.register(32, f"word_{i}") for i in range(most)]
        for i, word in enumerate(words):
            with m.If(takes & (taken == i)):
                m.d.sync += word.eq(dut.words.payload)
        enables = dut.enable.any()
        m.d.sync += [taken.eq(taken + takes), written.eq(written + enables)]
        with m.If(dut.done):
            m.d.sync += [number.eq(number + 1), taken.eq(0), written.eq(0)]
        if ahead:  # otherwise nothing is asked for that is not this one's
            bench.holds("takes", ~takes | (under_way & (taken < total)))
        right: Value = Const(0, 1)
        end: Value = Const(0, 6)
        for target, width in dut.widths.items():
            port = {Target.VALUES: dut.values, Target.POSITIONS: dut.positions, Target.PARAMETERS: dut.parameters}
            found = port.get(target.memory, dut.entry)
            mine: Value = Const(0, 1)
            if target == Target.SHORT_PARAMETERS:
                for i in range(most // 2):
                    fields = spread(Cat(words[2 * i : 2 * i + 2]))
                    same = Cat(found[first:][: len(field)] == field for first, field in fields).all()
                    mine |= (written == i) & (taken >= 2 * i + 2) & same
                count = total >> 1
            elif width <= 32:
                parts = 32 // width
                for i in range(most):
                    whole = Mux(taken > i, words[i], dut.words.payload)
                    there = (taken > i) | ((taken == i) & dut.words.valid)
                    for part in range(parts):
                        mine |= (written == i * parts + part) & there & (found == whole.word_select(part, width))
                count = (total * parts)[:6]
            else:
                parts = width // 32
                mine = (written == 0) & (taken >= parts) & (found == Cat(words[:parts]))
                count = Mux(total >= parts, 1, 0)
            chosen = now.target == target
            right |= chosen & mine & (dut.enable == 1 << target.memory)
            end = Mux(chosen, count, end)
        bench.holds("words", ~enables | (under_way & right))
        bench.holds("addresses", ~enables | (dut.address == (now.destination + written)[:16]))
        bench.holds("done", ~dut.done | (under_way & (taken == total) & (written == end)))
        waits = (dut.run.valid & ~dut.run.ready) | (~dut.words.valid & (owed != 0))
        goes_on(bench, takes | enables | dut.done | asks | ~under_way | waits, 5)
        bench.reaches("two-loads", dut.done & (number == 1) & (total == 3))
        bench.reaches("nothing-loaded", dut.done & (now.rows == 2) & (now.beats == 0))
        bench.reaches("a-rest-dropped", dut.done & (now.target == Target.PARAMETERS) & (taken == 5) & (written == 1))

        if short:
            ends = dut.done & (now.target == Target.SHORT_PARAMETERS)
            bench.reaches("short-records", ends & (taken == 5) & (written == 2))

    return fill


LOADS = {
    "runs": Property(
        "Memory is asked for the runs of each LOAD, in order, each once, and for none of a LOAD of nothing.",
        edit(LOADER, "m.d.sync += [asked.eq(asked - 1), next_address.eq(next_address + order.stride)]",
             "m.d.sync += [asked.eq(asked - 1), next_address.eq(next_address + order.beats)]"),
    ),
    "stable": Property(STABLE, edit(LOADER, "self.run.valid.eq((asked != 0) & ~nothing)", "self.run.valid.eq(asked != 0)")),
    "words": Property(
        "What is written is the LOAD's words, in order, in the width of the memory that it names, and in no other memory.",
        edit(LOADER, "self.words.valid & taken & chosen", "self.words.valid & taken"),
    ),
    "addresses": Property(
        "It is written from the destination on, word behind word.",
        edit(LOADER, "m.d.sync += self.address.eq(self.address + 1)", "m.d.sync += self.address.eq(self.address + step)"),
    ),
    "done": Property(
        "A LOAD is said to be done once, when its words are written, all of them but a rest that fills none.",
        edit(LOADER, 'm.State("FLUSH"), m.If(empty)', 'm.State("FLUSH")'),
    ),
    "goes-on": Property(
        "A LOAD that waits for nothing goes on within 5 cycles.",
        edit(LOADER, "with m.If(nothing):", "with m.If(nothing & (order.rows == 0)):"),
    ),
}  # fmt: skip
LOADS_AHEAD = LOADS | {
    "takes": Property(
        "A LOAD takes its own words and none of the next one's.",
        edit(LOADER, "with m.If(runs_left == 1):", "with m.If(runs_left == 0):"),
    ),
    "runs": Property(
        LOADS["runs"].sentence, edit(LOADER, "asked.eq(Mux(new.beats == 0, 0, new.rows))", "asked.eq(new.rows)")
    ),
    "stable": Property(
        STABLE, edit(LOADER, "self.run.valid.eq(~free)", "self.run.valid.eq(~free & ~self.words.valid)")
    ),
}

LOADS_SHORT = LOADS | {
    "words": Property(
        "Of a short record each field is written where a long one has it, the bias with its sign; all else as it comes.",
        edit(LOADER, "column[name].eq(short[name])", "column[name].eq(short[name].as_unsigned())"),
    ),
}

PROOFS = (
    Proof(
        "loader-short", "units/loader.py", loader(0, short=True), 16, LOADS_SHORT, method="bounded",
        setting="bus of 4 bytes, feature blocks4", bound="any two LOADs of up to 5 words, any memory and waits, for 16 cycles",
        reach_depth=24,
    ),
    *(
        Proof(
            f"loader{'-ahead' * ahead}", "units/loader.py", loader(ahead), 16, LOADS_AHEAD if ahead else LOADS, method="bounded",
            setting=f"bus of 4 bytes, loads_ahead {ahead}", bound="any two LOADs of up to 5 words, any memory and waits, for 16 cycles",
            reach_depth=24,
        )
        for ahead in (0, 1)
    ),
)  # fmt: skip

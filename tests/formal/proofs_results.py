"""What is between the engine and memory: results packed, and the transposer."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Cat, Mux
from packed_results import Packed
from proofs_sequencer import steady
from streams import STABLE, Pipe, config, edit, goes_on, stays

from sim.formal import Bench, Proof, Property

PACKING, TRANSPOSER = "units.result_packing", "units.transposer"


def packed(bench: Bench) -> None:
    """Results of 8 and of 16 bits, in turn, of whole words each."""
    m = bench.m
    cfg = config()
    dut = Packed(bench.load("units.result_packing").pack, cfg)
    bench.block(dut)
    steady(bench, dut.results)
    wide, transposed = dut.results.payload[32], dut.results.payload[33]
    bench.assume(~transposed)
    # Of 16 bits two results are a word, of 8 bits four: the kind changes where a word is whole.
    half, low = bench.register(1, "half"), bench.register(16, "low")
    bench.assume(~dut.results.valid | ~wide | ~half)
    takes = dut.results.valid & dut.results.ready
    bytes_ = Cat(dut.results.payload[:8], dut.results.payload[16:24])
    with m.If(takes & ~wide):
        m.d.sync += [half.eq(~half), low.eq(bytes_)]
    given = dut.store.valid & dut.store.ready
    whole = Mux(wide, dut.results.payload[:32], Cat(low, bytes_))
    depth = 8
    pipe = Pipe(bench, 32, depth, "words", takes & (wide | half), whole, given)
    bench.holds("words", ~dut.store.valid | (pipe.some & (dut.store.payload == pipe.head)))
    bench.holds("stable", stays(bench, dut.store))
    waits = (dut.store.valid & ~dut.store.ready) | (~dut.results.valid & ~pipe.some)
    goes_on(bench, takes | given | waits, 8)
    was_wide = bench.past(wide & takes)
    bench.reaches("both-kinds", given & bench.past(given) & takes & (pipe.count == 3))
    bench.reaches("full", dut.results.valid & ~dut.results.ready & (pipe.count >= 3) & ~was_wide)


def transposed(groups: int, lanes: int, rows: int = 4) -> Callable[[Bench], None]:
    """One byte of a block, any of them, is looked at, of one block after the other."""

    def fill(bench: Bench) -> None:
        m = bench.m
        cfg = config(groups=groups, lanes=lanes, rows=rows)
        dut = bench.load("units.transposer").Transposer(cfg)
        bench.block(dut)
        steady(bench, dut.source)
        count = groups * rows // lanes
        bits = max(1, (count - 1).bit_length())
        into, out = bench.register(bits, "into"), bench.register(bits, "out")
        row, column = bench.chosen(range(rows), "row"), bench.chosen(range(groups), "column")
        bench.assume((row < rows) & (column < groups))
        source = (column * rows + row)[: (groups * rows - 1).bit_length()]
        target = (row * groups + column)[: (groups * rows - 1).bit_length()]
        low = lanes.bit_length() - 1
        # Of two blocks in turn: the next one may come while this one's last word waits.
        byte = [bench.register(8, f"byte_{i}") for i in range(2)]
        turn_in, turn_out = bench.register(1, "turn_in"), bench.register(1, "turn_out")
        takes, given = dut.source.valid & dut.source.ready, dut.target.valid & dut.target.ready
        whole = bench.register(2, "whole")  # blocks that are in and not out
        m.d.sync += [into.eq(into + takes), out.eq(out + given)]
        m.d.sync += whole.eq(whole + (takes & (into == count - 1)) - (given & (out == count - 1)))
        for i, kept in enumerate(byte):
            with m.If(takes & (into == source[low:]) & (turn_in == i)):
                m.d.sync += kept.eq(dut.source.payload.word_select(source[:low], 8))
        m.d.sync += [
            turn_in.eq(turn_in ^ (takes & (into == count - 1))),
            turn_out.eq(turn_out ^ (given & (out == count - 1))),
        ]
        mine = out == target[low:]
        found = dut.target.payload.word_select(target[:low], 8)
        bench.holds("bytes", ~dut.target.valid | ~mine | (found == Mux(turn_out, byte[1], byte[0])))
        bench.holds("whole", ~dut.target.valid | (whole != 0))
        bench.holds("takes", ~takes | ((whole == 0) | ((whole == 1) & (out == count - 1))))
        bench.holds("stable", stays(bench, dut.target))
        waits = (dut.target.valid & ~dut.target.ready) | (~dut.source.valid & (whole == 0))
        goes_on(bench, takes | given | waits, 2)
        bench.reaches("second-block", given & mine & (bench.past(bench.past(1), 2 * count)))

    return fill


PACKED = {
    "words": Property(
        "Results become words of 2 or 4 of them, in order, each once, also where the kind changes.",
        edit(PACKING, "queue.r_rdy & empty)", "queue.r_rdy)"),
    ),
    "stable": Property(STABLE, edit(PACKING, "gate.r_en.eq(store.ready)", "gate.r_en.eq(1)")),
    "goes-on": Property(
        "Of 8 cycles in a row a result is taken in one, or a word given, or there is nothing to do.",
        edit(PACKING, "Mux(leaves, steps, 0)", "Mux(leaves & kind[0], steps, 0)"),
    ),
}
TRANSPOSED = {
    "bytes": Property(
        "Byte (row, column) of a block goes in at place column * rows + row and comes out at row * groups + column.",
        edit(TRANSPOSER, "turn.eq(Mux(giving, row, column * at_once))", "turn.eq(Mux(giving, 0, column * at_once))"),
    ),
    "whole": Property("Nothing of a block comes out before all of it is in.",
                      edit(TRANSPOSER, "fetched.eq(giving)", "fetched.eq(giving | self.source.valid)")),
    "takes": Property(
        "A block is not begun before the last one, but for the word that waits, is out.",
        edit(TRANSPOSER, "self.source.ready.eq(~giving)", "self.source.ready.eq(1)"),
    ),
    "stable": Property(STABLE, edit(TRANSPOSER, "advance.eq(~fetched | self.target.ready)", "advance.eq(1)")),
    "goes-on": Property(
        "A word is taken or given in each second cycle, unless one side waits.",
        edit(TRANSPOSER, "advance.eq(~fetched | self.target.ready)", "advance.eq(~fetched & self.target.ready)"),
    ),
}  # fmt: skip
PROOFS = (
    Proof(
        "packing", "units/result_packing.py", packed, 14, PACKED, method="bounded", setting="2 results a cycle, bus of 4 bytes",
        bound="any results of 8 and 16 bits, not transposed, any waits, for 14 cycles",
    ),
    *(
        Proof(
            f"transposer-{rows}-{groups}-{lanes}", "units/transposer.py", transposed(groups, lanes, rows), 2 * groups * rows // lanes + 6, TRANSPOSED,
            method="bounded", setting=f"{rows} rows, {groups} groups, bus of {lanes} bytes", reach_depth=30,
            bound="every byte of the first blocks, any waits",
        )
        for rows, groups, lanes in ((4, 2, 2), (4, 4, 2), (4, 2, 4))
    ),
)  # fmt: skip

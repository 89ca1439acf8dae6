"""The index decoder against what docs/format.md says, for all words of positions of a matrix of some columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Const, Mux, Value, signed

from sim.formal import Bench, Edit, Proof, Property
from sta_hw.spec.config import Config

BLOCK = "engine/decoder.py"
INDEX, BITMAP, DENSE = 1, 2, 0


def config(encoding: str, window: int) -> Config:
    return Config(
        rows=4, groups=1, lanes=2, window=window, nm=("1:2", "2:4", "4:8")[: window // 4 + 1], encodings=(encoding,), columns=8, weight_words=8,
        parameter_words=8, norm_columns=8, softmax_lanes=2,
    )  # fmt: skip


def edit(old: str, new: str, module: str = "decoder") -> Edit:
    return Edit(f"sta_hw.rtl.engine.{module}", old, new)


def nth_set(word: Value, n: Value, bits: int) -> tuple[Value, Value]:
    """Whether there is an n-th set bit, from the lowest on, and where."""
    there: Value = Const(0, 1)
    place: Value = Const(0, 4)
    count: Value = Const(0, 4)
    for i in range(bits):
        hit = word[i] & (count == n)
        there = there | hit
        place = Mux(hit, i, place)
        count = (count + word[i])[:4]
    return there, place


def decode(encoding: str, n: int, group: int, window: int) -> Callable[[Bench], None]:
    """One product of one pass: a window of one group of M, or of several; N of each."""

    def fill(bench: Bench) -> None:
        m = bench.m
        cfg = config(encoding, window)
        positions = bench.load("engine.positions")
        dut = bench.load("engine.decoder", **{name: getattr(positions, name) for name in positions.__all__}).Decoder(
            cfg
        )
        bench.block(dut)
        groups = cfg.window // group
        beats_per_column = n * groups
        command = dut.command.payload
        columns = bench.chosen(3, "columns")
        bench.assume((columns >= 1) & (columns <= 2))
        values = {
            "encoding": INDEX if encoding == "index" else BITMAP, "n": n, "m_log2": group.bit_length() - 1,
            "depth": cfg.window, "taps": 1, "columns": columns, "passes": 1, "unsigned": 0, "widen_at": 0, "per_row": 0,
            "wide_result": 0, "continues": 0, "unfinished": 0, "rescale": 0,
        }  # fmt: skip
        for name, value in values.items():
            bench.assume(Value.cast(command[name]) == value)
        for stream in (dut.command, dut.values, dut.positions):
            waits = bench.past(stream.valid & ~stream.ready)
            payload = Value.cast(stream.payload)
            bench.assume(~waits | (stream.valid & (payload == bench.past(payload))))
        # The first product alone is looked at.
        begun, over = bench.register(1, "begun"), bench.register(1, "over")
        with m.If(dut.command.valid & dut.command.ready):
            m.d.sync += begun.eq(1)
        with m.If(dut.faults.valid & dut.faults.ready):
            m.d.sync += over.eq(1)
        now = begun & ~over
        bench.assume(~begun | ~dut.command.valid)
        # Both streams end where they should.
        index_bits = group.bit_length() - 1
        per_word = cfg.window // index_bits if encoding == "index" else beats_per_column
        total = columns * beats_per_column
        taken_values, taken_words = bench.register(6, "taken_values"), bench.register(6, "taken_words")
        takes_value = dut.values.valid & dut.values.ready
        takes_word = dut.positions.valid & dut.positions.ready
        m.d.sync += [taken_values.eq(taken_values + takes_value), taken_words.eq(taken_words + takes_word)]
        bench.assume(~dut.values.valid | (dut.values.payload.last == (taken_values + 1 == total)))
        words_needed: Value = Const(0, 6)
        for c in (1, 2):
            words_needed = Mux(columns == c, -(-c * beats_per_column // per_word), words_needed)
        bench.assume(~dut.positions.valid | (dut.positions.payload.last == (taken_words + 1 == words_needed)))
        # What was taken, kept; what comes out is counted.
        most_words, most_values = -(-2 * beats_per_column // per_word), 2 * beats_per_column
        words = [bench.register(cfg.window, f"kept_word_{i}") for i in range(most_words)]
        kept = [bench.register(signed(8), f"kept_value_{i}") for i in range(most_values)]
        for i, word in enumerate(words):
            with m.If(takes_word & (taken_words == i)):
                m.d.sync += word.eq(Value.cast(dut.positions.payload.words[0]))
        for i, value in enumerate(kept):
            with m.If(takes_value & (taken_values == i)):
                m.d.sync += value.eq(dut.values.payload.values[0])
        given = bench.register(6, "given")
        moves = dut.beats.valid & dut.beats.ready
        m.d.sync += given.eq(given + moves)
        beat = dut.beats.payload
        right, sound = specified(n, group, groups, words, per_word, index_bits, most_values, encoding)
        value_right: Value = Const(1, 1)
        for i in range(most_values):
            value_right &= (given != i) | (beat.values[0] == kept[i])
        bench.holds("values", ~dut.beats.valid | ((given < taken_values) & value_right))
        address = beat.addresses[0]
        # A word that holds no N ascending positions is a fault; what its addresses are is not said.
        place: Value = Const(1, 1)
        for i in range(most_values):
            place &= (given != i) | ~sound[i] | (address == right[i])
        bench.holds("addresses", ~dut.beats.valid | place)
        within: Value = Const(0, 6)
        for i in range(most_values):
            within = Mux(given == i, i % beats_per_column, within)
        flags = (beat.first == (within == 0)) & (beat.last == (within == beats_per_column - 1))
        flags &= beat.pass_end == (given + 1 == total)
        bench.holds("marks", ~dut.beats.valid | flags)
        all_sound: Value = Const(1, 1)
        for i in range(most_values):
            last_of_columns = Mux(columns == 1, beats_per_column, most_values)
            all_sound &= (i >= last_of_columns) | sound[i]
        bench.holds("faults", ~(now & dut.faults.valid) | (dut.faults.payload == Mux(all_sound, 0, 16)))
        # Behind the product's end the last beats may still wait to be taken.
        quiet = bench.register(3, "quiet")
        m.d.sync += quiet.eq(Mux(over & ~dut.beats.valid, Mux(quiet == 4, 4, quiet + 1), 0))
        bench.holds("all", (given <= total) & ((quiet != 4) | (given == total)))
        waits = bench.past(dut.beats.valid & ~dut.beats.ready)
        payload = Value.cast(dut.beats.payload)
        bench.holds("stable", ~waits | (dut.beats.valid & (payload == bench.past(payload))))
        bench.reaches("sound", now & dut.faults.valid & all_sound & (columns == 1))
        bench.reaches("wrong", now & dut.faults.valid & ~all_sound)

    return fill


def specified(
    n: int, group: int, groups: int, words: list[Any], per_word: int, index_bits: int, count: int, encoding: str
) -> tuple[list[Value], list[Value]]:
    """For each beat: its address; and whether its positions are N ascending ones of their group, up to it."""
    right: list[Value] = []
    sound: list[Value] = []
    per_column = n * groups
    for i in range(count):
        column, within = divmod(i, per_column)
        sub, k = divmod(within, n)
        if encoding == "index":
            word = words[i // per_word]
            position = (word >> (i % per_word * index_bits))[:index_bits]
            right.append((position + sub * group)[:4])
            sound.append(Const(1, 1) if k == 0 else position > (right[i - 1] - sub * group)[:index_bits])
        else:
            word = words[column]
            part = word[sub * group : (sub + 1) * group]
            right.append((nth_set(part, Const(k, 4), group)[1] + sub * group)[:4])
            # All groups of the word have N set bits: it is looked at as a whole.
            whole: Value = Const(1, 1)
            for g in range(groups):
                mine = word[g * group : (g + 1) * group]
                whole &= nth_set(mine, Const(n - 1, 4), group)[0] & ~nth_set(mine, Const(n, 4), group)[0]
            sound.append(whole)
    return right, sound


def properties(encoding: str, group: int) -> dict[str, Property]:
    index = encoding == "index"
    return {
        "values": Property(
            "Each beat has the value that was given for it, in order, each once.",
            edit(
                "Mux(values_over, 0, self.values.payload.values[g])",
                "Mux(values_over, 0, self.values.payload.values[g] + loops.first)",
            ),
        ),
        "addresses": Property(
            "Each beat's address is the one that docs/format.md gives: of the n-th index, or of the n-th set bit.",
            edit("rest.eq(word >> width)", "rest.eq(word >> 1 if width > 1 else word)", "positions")
            if index
            else edit("lowest = word & ~words.seen[g][: config.window]", "lowest = word", "positions"),
        ),
        "marks": Property(
            "The first and the last beat of each column and the last of the pass are marked, and no other.",
            edit("beat.pass_end.eq(loops.pass_end)", "beat.pass_end.eq(loops.column_end)"),
        ),
        "faults": Property(
            "With streams that end where they should, a product's positions are called wrong exactly if they are: "
            "not N different ones in ascending order in a group.",
            edit("(early.beat.addresses[g] <= before)", "(early.beat.addresses[g] < before)", "positions")
            if index
            else edit("(column_end & rest.any())", "(column_end & ~rest.any() & rest.any())", "positions"),
        ),
        "all": Property(
            "A product gives a beat for each of its values: none is lost, none is made up.",
            edit(
                'with m.State("RUN"), m.If(step & matrix_end):',
                'with m.State("RUN"), m.If(step & (matrix_end | self.values.payload.values[0][0])):',
            ),
        ),
        "stable": Property(
            "A beat that is offered and not taken stays, and stays what it is.",
            edit(
                "free = ~self.beats.valid | self.beats.ready",
                "free = ~self.beats.valid | self.beats.ready | spare_valid",
            ),
        ),
    }


PROOFS = tuple(
    Proof(
        f"decoder-{encoding}-{n}-{group}", BLOCK, decode(encoding, n, group, window), depth, properties(encoding, group),
        method="bounded", setting=f"{encoding}, {n}:{group}, window {window}, 1 group",
        bound="all words of positions, all values of products of up to 2 columns, any waits",
    )
    for encoding, n, group, window, depth in (
        ("index", 2, 4, 8, 18), ("index", 4, 8, 8, 18), ("bitmap", 1, 2, 4, 14), ("bitmap", 2, 4, 8, 18),
        ("bitmap", 4, 8, 8, 18),
    )
)  # fmt: skip

"""The expander against what docs/format.md says: products in blocks of 4-bit weights and in INT8, for all words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from streams import STABLE, Kept, config, edit, goes_on, stays

from sim.formal import Bench, Proof, Property

BLOCK = "units/expander.py"
LONGEST = 3
"""Of a run's values; the least is 2."""


def header_words(share: int, number: int) -> int:
    """How many words the header of a number has, of blocks of so many groups."""
    return {1: 3, 2: 2 - number % 2}.get(share, 1)


def places(share: int, run: int, runs: int) -> tuple[list[list[tuple[int, int]]], list[int], list[int]]:
    """Where things are in a product's words: bytes (word, group) of each run's header, words of codes, and of ends.

    The third has for each number of runs, from one on, how many words the product has.
    """
    headers: list[list[tuple[int, int]]] = []
    codes, ends, at, spare = [], [], 0, (0, 0)
    for number in range(runs + 1):
        if share == 1:
            found = [(at, 0), (at + 1, 0), (at + 2, 0)]
        elif share == 2:
            found = [(at, 0), (at, 1), spare if number % 2 else (at + 1, 0)]
            spare = (at + 1, 1)
        else:
            found = [(at, 0), (at, 1), (at, 2)]
        headers.append(found)
        at += header_words(share, number)
        if number:
            codes.append(at)
            at += -(-run // 2)
            ends.append(at)
    return headers, codes, ends


def parts(bench: Bench) -> dict[str, Any]:
    """What the expander has from its other modules, with the edit there is for them."""
    return {
        name: getattr(bench.load(f"units.{module}"), name)
        for module, names in (
            ("expander_headers", ("block_headers", "most_words", "wide_headers", "HeaderStep")),
            ("expander_levels", ("STEPS", "Ending", "Filling", "level_tables")),
        )
        for name in names
    }


def expand(groups: int, window: int, products: int, most_runs: int) -> Callable[[Bench], None]:
    """Products as wide as one block, each in blocks or of as many words of INT8 as it could have runs.

    What a header's levels are is a proof of its own: here it is looked at which headers go into work for which table,
    and which codes are looked up in which.
    """

    def fill(bench: Bench) -> None:
        m = bench.m
        cfg = config(rows=8, groups=groups, window=window, features=("blocks4",))
        share = cfg.block_groups
        module = bench.load("units.expander", **parts(bench))
        dut = module.Expander(cfg)
        inside = bench.block(dut)
        orders = Kept(bench, dut.order, products)
        runs = [bench.chosen(2, f"runs_{p}") for p in range(products)]
        for number in runs:
            bench.assume((number >= 1) & (number <= most_runs))
        asked = dut.order.payload
        bench.assume(~dut.order.valid | ~asked.blocks | ((asked.run >= 2) & (asked.run <= LONGEST)))
        for stream in (dut.order, dut.words):
            bench.assume(stays(bench, stream))
        layouts = {run: places(share, run, most_runs) for run in range(2, LONGEST + 1)}
        most = max(ends[-1] for _, _, ends in layouts.values())
        # Words that were taken, of which product and how many of it; a product's words come behind its order.
        product, taken = bench.register(2, "product"), bench.register(5, "taken")
        takes = dut.words.valid & dut.words.ready
        words = [[bench.register(8 * groups, f"word_{p}_{i}") for i in range(most)] for p in range(products)]
        bench.assume(~dut.words.valid | (product < orders.count))
        with m.If(takes):
            m.d.sync += taken.eq(taken + 1)
            with m.If(dut.words.payload.last):
                m.d.sync += [taken.eq(0), product.eq(product + 1)]
            for p in range(products):
                for i in range(most):
                    with m.If((product == p) & (taken == i)):
                        m.d.sync += words[p][i].eq(dut.words.payload.word)
        ends_right: Value = Const(1, 1)
        for p, order in enumerate(orders.orders):
            count = runs[p]  # of INT8 words
            for run, (_, _, ends) in layouts.items():
                for number, end in enumerate(ends, 1):
                    count = Mux(order.blocks & (order.run == run) & (runs[p] == number), end, count)
            ends_right &= (product != p) | (dut.words.payload.last == (taken + 1 == count))
        bench.assume(~dut.words.valid | ends_right)
        # Headers that go into work, each for a run of a product; the tables that they are for.
        start, target, header = inside["start"], inside["fills"], inside["header_0"]
        started, of = bench.register(2, "started"), bench.register(2, "of")
        number = Mux(of == product, started, 0)
        tables = [bench.register(4, f"table_{t}") for t in range(2)]
        with m.If(start):
            m.d.sync += [started.eq(number + 1), of.eq(product)]
            for t, table in enumerate(tables):
                with m.If(target == t):
                    m.d.sync += table.eq((product << 2) | number)
        right: Value = Const(1, 1)
        for p, order in enumerate(orders.orders):
            for run, (headers, _, _) in layouts.items():
                for h, bytes_of in enumerate(headers):
                    found = [byte(words[p], place) for place in bytes_of]
                    mine = (product == p) & (order.run == run) & (number == h)
                    right &= ~mine | (header == (found[0] | found[1] << 8 | found[2] << 16))
        bench.holds("headers", ~start | (right & (product < products)))
        # Codes that are looked up: in the table of their run, the one that is theirs.
        looks, looked, of_product = inside["give"], bench.register(4, "looked"), bench.register(2, "of_product")
        current, code = data.View(module._word_layout(cfg), inside["current"]), inside["code_0"]
        counts = [beats_of(order, runs[p]) for p, order in enumerate(orders.orders)]
        sought: Value = Const(1, 1)
        for p, order in enumerate(orders.orders):
            mine = looks & (of_product == p)
            with m.If(mine):
                m.d.sync += looked.eq(looked + 1)
                with m.If(looked + 1 == counts[p]):
                    m.d.sync += [looked.eq(0), of_product.eq(p + 1)]
            sought &= ~mine | (looked < counts[p])
            for run, (_, codes, _) in layouts.items():
                for i in range(most_runs * run):
                    r, k = divmod(i, run)
                    at = mine & order.blocks & (order.run == run) & (looked == i)
                    owner = Mux(current.table, tables[1], tables[0])
                    nibble = words[p][codes[r] + k // 2][4 * (k % 2) :][:4]
                    sought &= ~at | ((code == nibble) & (owner == ((p << 2) | r)))
        bench.holds("codes", ~looks | ((of_product < products) & sought))
        # What is given: as many as the words say.
        gives, given = bench.register(2, "gives"), bench.register(4, "given")
        moves = dut.values.valid & dut.values.ready
        with m.If(moves):
            m.d.sync += given.eq(given + 1)
            with m.If(dut.values.payload.last):
                m.d.sync += [given.eq(0), gives.eq(gives + 1)]
        marked: Value = Const(1, 1)
        for p, count in enumerate(counts):
            marked &= (gives != p) | (dut.values.payload.last == (given + 1 == count))
        bench.holds("last", ~dut.values.valid | ((gives < products) & marked))
        bench.holds("stable", stays(bench, dut.values))
        waits = (dut.values.valid & ~dut.values.ready) | ((gives == product) & ~dut.words.valid)
        goes_on(bench, moves | waits | takes | (gives >= orders.count), 12)
        first, second = orders.orders[0], orders.orders[-1]
        ended = gives == products
        bench.reaches("in-blocks", ended & first.blocks & (runs[0] == most_runs))
        if products > 1:
            bench.reaches("both", ended & first.blocks & second.blocks)
            bench.reaches("mixed", ended & first.blocks & ~second.blocks)

    return fill


def beats_of(order: Any, runs: Value) -> Value:
    """Of a product: runs of values, or words of INT8."""
    return Mux(order.blocks, (runs * order.run)[:4], runs)


def byte(words: list[Any], place: tuple[int, int]) -> Value:
    """A byte of a product's words: of a group in a word."""
    word, group = place
    return Value.cast(words[word][8 * group :][:8])


class Tables(wiring.Component):
    """`level_tables` of one block, with what surrounds it free: headers, what was looked up, a product's end."""

    def __init__(self, levels: Any) -> None:
        self.levels = levels
        ports = {"header": In(24), "header_valid": In(1), "emptied": In(2), "now": In(1), "in_vain": In(1), "code": In(4),
                 "table": In(1), "value": Out(8), "full": Out(2), "next": Out(1), "start": Out(1)}  # fmt: skip
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = config(rows=8, groups=1, window=32, features=("blocks4",))
        levels = self.levels
        filling = levels.Filling(full=Signal(2), emptied=self.emptied, next=Signal(), start=Signal())
        ending = levels.Ending(self.now, self.in_vain)
        ((even, odd),) = levels.level_tables(m, cfg, [self.header], self.header_valid, filling, ending)
        m.d.comb += [
            self.full.eq(filling.full), self.next.eq(filling.next), self.start.eq(filling.start),
            *(side.addr.eq(Cat(self.code[1:], self.table)) for side in (even, odd)),
            self.value.eq(Mux(self.code[0], odd.data, even.data)),
        ]  # fmt: skip
        return m


def level_of(header: Value, code: Value) -> Value:
    """The 15 bits of which a level is the upper 8: ``c s + 8 m``."""
    minimum = Value.cast(header[12:]).as_signed()
    return (code * header[:12] + (minimum << 3))[:15]


def levels(bench: Bench) -> None:
    """Any headers at any time; one code's level in one table, any, is looked at."""
    m = bench.m
    dut = Tables(bench.load("units.expander_levels"))
    inside = bench.block(dut, driven=("code", "table"))
    code, table = bench.chosen(4, "code"), bench.chosen(1, "table")
    m.d.comb += [dut.code.eq(code), dut.table.eq(table)]
    busy, place, target = inside["filling"], inside["place"], inside["target"]
    # The header that went into work last, and the one that the table was filled for.
    last, mine = bench.register(24, "last"), bench.register(24, "mine")
    with m.If(dut.start):
        m.d.sync += last.eq(dut.header)
        with m.If(dut.next == table):
            m.d.sync += mine.eq(dut.header)
    full = dut.full.bit_select(table, 1)
    bench.assume(~dut.emptied | dut.full == 3)  # what is emptied was full
    wanted = level_of(mine, code)[7:]
    bench.lemma(~busy | (target == ~dut.next))
    bench.lemma(~busy | (inside["level_0"] == level_of(last, Cat(Const(0, 1), place))))
    bench.lemma(~busy | (inside["scale_0"] == last[:12]))
    bench.lemma(~(busy & (target == table)) | ((last == mine) & ~full))
    bench.lemma(~(busy & (target == table) & (place > code[1:])) | (dut.value == wanted))
    bench.holds("levels", ~full | (dut.value == wanted))
    bench.holds("kept", ~bench.past(full & ~dut.emptied.bit_select(table, 1) & ~(dut.now & dut.in_vain)) | full)
    both = bench.past(dut.full == 3)
    bench.reaches("both-full", both & (dut.full != 3))
    bench.reaches("again", dut.full.all() & bench.past(dut.start, 16))


def properties(share: int) -> dict[str, Property]:
    headers = {
        1: edit("units.expander_headers", "found = Cat(header[8:], part[0])", "found = Cat(part[0], header[:16])"),
        2: edit("units.expander_headers", "Mux(only_high, part[0], kept)", "Mux(only_high, part[0], part[1])"),
    }
    return {
        "headers": Property(
            "A header that goes into work has the three bytes that docs/format.md gives, of a product's n-th header the n-th time.",
            headers.get(share, edit("units.expander_headers", "Cat(part[:3])", "Cat(part[1:4])")),
        ),
        "codes": Property(
            "Each code is looked up once, in order, in the table of its own run's header.",
            edit("units.expander", "Mux(phase, word.word[g][4:]", "Mux(word_end, word.word[g][4:]"),
        ),
        "last": Property(
            "The last value of a product is marked, and no other: so many come as its words have.",
            edit("units.expander", "words.taken.single.eq(values_end & odd_run)", "words.taken.single.eq(0)"),
        ),
        "stable": Property(STABLE, edit("units.expander", "& (~out.valid | out.ready)),", "),")),
        "goes-on": Property(
            "With words there and values taken, no 12 cycles pass without either.",
            edit("units.expander_levels", "full[i].eq(1)", "full[i].eq(0)"),
        ),
    }  # fmt: skip


LEVELS = {
    "levels": Property(
        "A table that is full has `(c s + 8 m) >> 7`, lower 8 bits, for each code c of the header that it was filled for.",
        edit("units.expander_levels", "level + (scale << 1))", "level + scale)"),
    ),
    "kept": Property(
        "It stays full until its last code is looked up, or the product ends for which nothing came behind its header.",
        edit("units.expander_levels", "with m.If(filling.emptied[i])", "with m.If(filling.emptied.any())"),
    ),
}
PROOFS = (
    Proof(
        "expander-levels", "units/expander_levels.py", levels, 2, LEVELS, quick="all", reach_depth=30,
        setting="a block, any headers, looked up and ended at any time",
    ),
    *(
        Proof(
            f"expander-{share}{'-products' if products > 1 else ''}", BLOCK, expand(groups, window, products, runs),
            depth, properties(share), method="bounded", reach_depth=40,
            setting=f"one block, of {share} group{'s' if share > 1 else ''}",
            bound=f"all words of {products} product{'s' if products > 1 else ''}, in blocks of "
            f"{f'up to {runs} runs' if runs > 1 else '1 run'} of up to {LONGEST} values or in INT8, any waits",
        )
        for share, groups, window, products, runs, depth in (
            (1, 1, 32, 1, 2, 30), (1, 1, 32, 2, 1, 30), (2, 2, 16, 1, 2, 28), (2, 2, 16, 2, 1, 28),
            (4, 4, 8, 1, 2, 27), (4, 4, 8, 2, 1, 26),
        )
    ),
)  # fmt: skip

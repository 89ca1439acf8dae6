"""The schedule of a few steps by hand: order, places on chip, and what waits for what (docs/isa.md)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from sta_hw.compiler.schedule import NEVER, Load, Scheduled, Step, order, schedule
from sta_hw.errors import InputError
from sta_hw.spec.isa import Opcode, Target
from sta_hw.spec.presets import PRESETS

CONFIG = replace(PRESETS["ci"], weight_words=64, parameter_words=16)
WAITS = ("wait_loads", "wait_matrix", "wait_products", "wait_norms")


def values(name: str, words: int, **others: object) -> Load:
    return Load(Target.VALUES, words, 64 * words, words, base=name, **others)


def product(group: int, base: str, **others: object) -> Step:
    fields = {"columns": 2, "passes": 1, "depth": 4, "n": 1, **others.pop("fields", {})}
    bases = {"values_base": (base, others.pop("offset", 0))}
    return Step(Opcode.PRODUCT, fields, group, bases, label=base, **others)


def norm(**others: object) -> Step:
    return Step(Opcode.NORM, {"width": 8}, label="norm", **others)


def told(found: list[Scheduled]) -> list[tuple[str, dict[str, int]]]:
    """Of each instruction its opcode, and its waits."""
    return [(i.opcode.name, {name[5:]: i.fields[name] for name in WAITS if name in i.fields}) for i in found]


def test_loads_come_a_group_ahead_and_around_the_ring() -> None:
    """24 words, 24 more, then 24 from word 48 of 64 on, over the first, when the first product is through the array."""
    groups = [[values(name, 24)] for name in "abc"]
    steps = [product(number, name, offset=3) for number, name in enumerate("abc")]
    found = order(steps, groups, CONFIG)
    assert told(found) == [
        ("LOAD", {}), ("LOAD", {}), ("PRODUCT", {"loads": 2}), ("LOAD", {"matrix": 1}), ("PRODUCT", {"loads": 2}),
        ("PRODUCT", {"loads": 1}), ("HALT", {}),
    ]  # fmt: skip
    assert [i.fields["destination"] for i in found if i.opcode == Opcode.LOAD] == [0, 24, 48]
    assert [i.fields["values_base"] for i in found if i.opcode == Opcode.PRODUCT] == [3, 27, 51]
    assert [i.label for i in found] == ["a", "b", "a", "c", "b", "c", "halt"]
    instructions, labels = schedule(steps, groups, CONFIG)
    assert [i.opcode for i in instructions] == [i.opcode for i in found] and labels == [i.label for i in found]
    load = {"address": 64 * 24, "destination": 48, "beats": 24, "rows": 1, "wait_matrix": 1}
    assert instructions[3].fields == load  # what is 0 is left out


def test_a_word_is_overwritten_after_its_last_reader() -> None:
    """20 words from 48 on reach word 3, which the first load's product reads; 16 end at the ring's end and wait not."""
    first, second = values("a", 24), values("b", 24)
    steps = [product(0, "a"), product(1, "b"), product(2, "c")]
    fits = order(steps, [[first], [second], [values("c", 16)]], CONFIG)
    assert told(fits)[3:5] == [("LOAD", {}), ("PRODUCT", {"loads": 2})]
    one_more = order(steps, [[first], [second], [values("c", 17)]], CONFIG)
    assert told(one_more)[3] == ("LOAD", {"matrix": 1})
    # A base beyond the ring's end begins at its start again.
    again = order([*steps, product(3, "d", offset=2)], [[first], [second], [values("c", 17)], [values("d", 8)]], CONFIG)
    assert [i.fields["destination"] for i in again if i.opcode == Opcode.LOAD] == [0, 24, 48, 1]
    assert again[-2].fields["values_base"] == 3
    even = order([*steps, product(3, "d", offset=2)], [[first], [second], [values("c", 17)], [values("d", 8)]], CONFIG,
                 even=True)  # fmt: skip
    assert [i.fields["destination"] for i in even if i.opcode == Opcode.LOAD] == [0, 24, 48, 65]
    assert even[-2].fields["values_base"] == 67


def test_parameters_are_free_when_results_are_stored() -> None:
    """16 of them: the third group's overwrite the first's, which the drain reads until its product is in memory."""
    groups = [[Load(Target.PARAMETERS, 8, 0, 32, base=name)] for name in "abc"]
    steps = [Step(Opcode.PRODUCT, {"columns": 2, "passes": 1, "depth": 4, "n": 1}, n, {"parameters_base": (name, 1)})
             for n, name in enumerate("abc")]  # fmt: skip
    found = order(steps, groups, CONFIG)
    assert told(found)[3] == ("LOAD", {"products": 1})
    assert [i.fields["parameters_base"] for i in found if i.opcode == Opcode.PRODUCT] == [1, 9, 1]
    # There is one table, which each load overwrites.
    tables = [[Load(Target.TABLE, 256, 0, 128)] for _ in "ab"]
    table_steps = [replace(step, bases={}) for step in steps[:2]]
    assert told(order(table_steps, tables, CONFIG)) == [
        ("LOAD", {}), ("PRODUCT", {"loads": 1}), ("LOAD", {"products": 1}), ("PRODUCT", {"loads": 1}), ("HALT", {})
    ]  # fmt: skip
    assert [i.fields["destination"] for i in order(table_steps, tables, CONFIG) if i.opcode == Opcode.LOAD] == [0, 0]


def test_events() -> None:
    """A product waits for the norm that gives its input, the norm for the last product of a sum, a load for values."""
    group = [values("a", 8)]
    steps = [
        product(0, "a", fields={"unfinished": 1}, gives=("never",)),
        product(0, "a", gives=("sum",)),
        norm(needs=("sum",), gives=("input",)),
        product(0, "a", needs=("input",), gives=("key",)),
        product(1, "b"),
    ]
    found = order(steps, [group, [values("b", 8, needs=("key", "sum"))]], CONFIG)
    assert told(found) == [
        ("LOAD", {}), ("PRODUCT", {"loads": 1}), ("PRODUCT", {"loads": 1}), ("NORM", {"products": 1}),
        ("PRODUCT", {"loads": 1, "norms": 1}), ("LOAD", {"products": 1}), ("PRODUCT", {"loads": 1}), ("HALT", {}),
    ]  # fmt: skip


def test_waits_that_another_has_waited_for() -> None:
    """With `even` an instruction waits for nothing that one before it in its unit's queue has waited for."""
    steps = [norm(gives=("input",)), *(product(0, "a", needs=("input",)) for _ in range(3)), norm(needs=("input",))]
    group = [values("a", 8)]
    plain = [{"loads": 1, "norms": 1}] * 3
    assert [waits for opcode, waits in told(order(steps, [group], CONFIG)) if opcode == "PRODUCT"] == plain
    even = order(steps, [group], CONFIG, even=True)
    assert [waits for opcode, waits in told(even) if opcode == "PRODUCT"] == [{"loads": 1, "norms": 1}, {}, {}]
    assert told(even)[-2] == ("NORM", {"norms": 1})  # another unit's queue


def test_which_loads_a_step_needs() -> None:
    """The first two of three; what overwrites those waits for that step alone, not for the other of its group."""
    group = [values("a", 8), values("b", 8), values("c", 8)]
    steps = [product(0, "a", uses=(0, 2)), product(0, "c", uses=(2, 3))]
    assert told(order(steps, [group], CONFIG))[3:5] == [("PRODUCT", {"loads": 2}), ("PRODUCT", {"loads": 1})]
    following = [values("d", 40), values("e", 8)]
    steps += [product(1, "d")]
    found = order(steps, [group, following], CONFIG)
    # 40 words from 24 on just fit; then 8 from 64 on lie over the first ones, which the first product reads.
    assert told(found)[3:] == [
        ("LOAD", {}), ("PRODUCT", {"loads": 3}), ("LOAD", {"matrix": 1}), ("PRODUCT", {"loads": 3}),
        ("PRODUCT", {"loads": 1}), ("HALT", {}),
    ]  # fmt: skip


def test_loads_from_a_register_and_in_rows() -> None:
    load = Load(Target.VALUES, 8, 128, 2, rows=4, stride=64, base="a", register=3)
    (found, *_) = order([product(0, "a", weight=2.5)], [[load]], CONFIG)
    assert found.fields == {"target": int(Target.VALUES), "address": 128, "destination": 0, "beats": 2, "rows": 4,
                            "stride": 64, "address_register": 3}  # fmt: skip
    assert (found.label, found.weight) == ("a", 2.5)


def test_the_shortest_waits_that_delay_nothing() -> None:
    """Windows are asked for two products ahead of the array at most, so what lies ten products back is in memory."""
    steps = [
        product(0, "a", gives=("first",)),
        *(product(0, "a") for _ in range(12)),
        product(0, "a", needs=("first",)),
    ]
    found = order(steps, [[values("a", 8)]], CONFIG)
    assert found[0].least == (NEVER,) * 4 or found[0].least[0] == NEVER
    last = found[-2]
    assert last.fields["wait_products"] == 13
    assert dict(zip(WAITS, last.least, strict=True))["wait_products"] == 10
    assert dict(zip(WAITS, last.least, strict=True))["wait_loads"] == 1


def test_what_does_not_fit() -> None:
    step = product(0, "a")
    with pytest.raises(InputError, match="65 words of values do not fit the 64 on chip; 128 would do"):
        order([step], [[values("a", 65)]], CONFIG)
    order([step], [[values("a", 64)]], CONFIG)
    order([step], [[values("a", 65)]], CONFIG, check=False)
    many = [values(str(n), 1) for n in range(12)]
    order([product(0, "0")], [many], CONFIG)
    with pytest.raises(InputError, match="a group of 13 LOADs exceeds 12"):
        order([product(0, "0")], [[*many, values("13", 1)]], CONFIG)
    with pytest.raises(InputError, match="PRODUCT of b waits for 2 loads, and 1 are before it"):
        order([product(0, "a"), product(1, "b"), product(0, "a")], [[values("a", 40)], [values("b", 40)]], CONFIG)


def test_norms_that_have_had_their_time() -> None:
    """A NORM of 16 bus words ends 4 x (1.5 x 16 / (16 / 19) + 153 + 64) = 982 cycles behind its input, which is 19 + 53
    cycles behind the array; windows run 2 products ahead of it, each of a cycle. A second NORM ends as much later."""
    one = {"columns": 1, "depth": 1}
    before = product(0, "a", fields={"columns": 10, "passes": 2, "depth": 8, "m_log2": 2, "n": 2})  # 80 cycles
    steps = [before, norm(), norm(), *(product(0, "a", fields=one) for _ in range(2100))]
    found = order(steps, [[values("a", 8)]], CONFIG)
    least = [i.least[WAITS.index("wait_norms")] for i in found[4:-1]]
    # Ahead of product n, from 0 on, the array is at 80 + n - 2.
    first, second = 80 + 72 + 982 - 80 + 2, 80 + 72 + 2 * 982 - 80 + 2
    assert [n for n, (a, b) in enumerate(pairwise(least), 1) if a != b] == [first, second]
    assert [least[0], least[first], least[second]] == [3, 2, 1]


def test_words_that_nothing_reads_are_free() -> None:
    """The first load is over the ring's first words, and no step uses it: what lies there later waits for nothing."""
    groups = [[values("a", 40), values("b", 8)], [values("c", 20)]]
    found = order([product(0, "b", uses=(1, 2)), product(1, "c")], groups, CONFIG)
    assert told(found)[:4] == [("LOAD", {}), ("LOAD", {}), ("LOAD", {}), ("PRODUCT", {"loads": 2})]


def test_places_that_go_on_are_counted_modulo_2_to_the_16() -> None:
    """1,093 loads of 60 words end at 65,580, which is 44."""
    groups = [[values("a", 60)] for _ in range(1094)]
    found = order([product(n, "a") for n in range(1094)], groups, CONFIG, even=True)
    last = [i for i in found if i.opcode == Opcode.LOAD][-2:]
    assert [i.fields["destination"] for i in last] == [65_520, 44]

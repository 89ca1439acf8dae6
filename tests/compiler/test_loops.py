"""Loops: random nests whose addresses step evenly come back no longer than they were written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from sta_hw.compiler.emission import TooManyError, emit, fits
from sta_hw.compiler.loops import MASK, Flat, Limits, Loop, Tree, find_loops
from sta_hw.spec.expansion import expand
from sta_hw.spec.isa import Instruction, Opcode
from sta_hw.spec.presets import preset

SIZE, WAITS = 3, 4
NAMES = (("address", "address_register"), ("rows", "destination_register"), ("stride", "stride_register"))


@dataclass
class Leaf:
    """A LOAD: what its words are at first, and their steps in each loop around it."""

    key: int
    words: list[int]
    steps: list[list[int]]


@dataclass
class Nest:
    count: int
    items: list[Leaf | Nest]


def random_nest(rng: np.random.Generator, depth: int, around: int) -> list[Leaf | Nest]:
    items: list[Leaf | Nest] = []
    for _ in range(int(rng.integers(1, 4))):
        if depth and rng.random() < 0.6:
            items.append(Nest(int(rng.integers(4, 7)), random_nest(rng, depth - 1, around + 1)))
        else:
            steps = [[int(x) for x in rng.choice([0, 0, 64, 4096, -128], SIZE)] for _ in range(around)]
            words = [int(x) for x in rng.integers(0, 1 << 32, SIZE)]
            items.append(Leaf(int(rng.integers(0, 3)), words, steps))
    return items


def leaves(items: list[Leaf | Nest], counts: list[int]) -> list[tuple[int, list[int]]]:
    """The flat program: keys and words."""
    found = []
    for item in items:
        if isinstance(item, Nest):
            for i in range(item.count):
                found += leaves(item.items, [*counts, i])
        else:
            words = [
                (w + sum(c * s[n] for c, s in zip(counts, item.steps, strict=True))) & MASK
                for n, w in enumerate(item.words)
            ]  # fmt: skip
            found.append((item.key, words))
    return found


def as_tree(items: list[Leaf | Nest]) -> tuple[Tree, int]:
    """The nest as it was written, and its flat instructions."""
    found: list[tuple[int, tuple[int, ...]] | Loop] = []
    at = 0
    for item in items:
        if isinstance(item, Nest):
            body, period = as_tree(item.items)
            found.append(Loop(at, period, item.count, body))
            at += period * item.count
        else:
            found.append((at, (63,) * WAITS))
            at += 1
    return Tree(tuple(found), 0, 0, 0), at


def flat_of(program: list[tuple[int, list[int]]]) -> Flat:
    shape = (len(program), WAITS)
    keys, words = [k for k, _ in program], [w for _, w in program]
    return Flat(
        np.array(keys), np.array(words), np.full(len(program), SIZE), np.full(shape, 63), np.full(shape, 63)
    )  # fmt: skip


def limits(registers: int) -> Limits:
    return Limits(words=504, registers=registers, depth=8)


def found(flat: Flat, registers: int) -> Tree:
    return find_loops(flat, limits(registers), lambda loop, first: fits(flat, loop, first, limits(registers)))


def emitted(flat: Flat, tree: Tree, registers: int) -> list[Instruction]:
    def leaf(at: int, waits: tuple[int, ...], words: list[tuple[int, int]]) -> Instruction:
        fields = {"beats": int(flat.keys[at])}
        for (name, register), low, (number, offset) in zip(
            NAMES, flat.lows[at].tolist(), words or [(0, 0)] * SIZE, strict=True
        ):
            low = low - offset & MASK
            fields |= {"rows": low & 0xFFFF, "destination": low >> 16} if name == "rows" else {name: low}
            fields[register] = number
        return Instruction(Opcode.LOAD, fields)

    found = emit(flat, tree, limits(registers), leaf)
    return [*(e.instruction for e in found), Instruction(Opcode.HALT)]


def words_of(program: list[Instruction]) -> int:
    return sum(3 if i.opcode == Opcode.LOAD else 1 for i in program)


@pytest.mark.parametrize("seed", range(30))
def test_random_nests(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = random_nest(rng, int(rng.integers(1, 4)), 0)
    program = leaves(items, [])
    flat = flat_of(program)
    registers = 13
    rolled = emitted(flat, found(flat, registers), registers)
    expected = [
        Instruction(Opcode.LOAD, {"beats": k, "address": w[0], "rows": w[1] & 0xFFFF, "destination": w[1] >> 16,
                                  "stride": w[2]})
        for k, w in program
    ]  # fmt: skip
    assert expand(rolled, preset("tiny")) == [*expected, Instruction(Opcode.HALT)]
    try:
        written = words_of(emitted(flat, as_tree(items)[0], registers))
    except TooManyError:
        written = words_of(expected)
    assert words_of(rolled) <= min(written + 3, 1 + words_of(expected))  # a SET or two: they are chosen after the loops


def test_waits_limit_a_loop() -> None:
    """An iteration whose waits no other has stays out; of what suits all others it is the longest distance."""
    program = [(0, [64 * i, 0, 0]) for i in range(20)]
    flat = flat_of(program)
    flat.least[:], flat.most[:] = 2, 9
    flat.most[3, 1] = 5
    flat.least[19, 2] = flat.most[19, 2] = 1
    (loop, last) = found(flat, 13).items
    assert isinstance(loop, Loop) and loop.count == 19
    assert loop.body.items == ((0, (9, 5, 9, 9)),)
    assert last == (19, (9, 9, 1, 9))


def test_few_registers() -> None:
    """Where registers are few, the same loops hold fewer words, or there are fewer loops."""
    rng = np.random.default_rng(5)
    items = random_nest(rng, 3, 0)
    flat = flat_of(leaves(items, []))
    plain = Tree(tuple((i, ()) for i in range(len(flat.keys))), 0, 0, 0)
    unrolled = expand(emitted(flat, plain, 13), preset("tiny"))
    sizes = []
    for registers in (13, 3, 1):
        rolled = emitted(flat, found(flat, registers), registers)
        assert expand(rolled, preset("tiny")) == unrolled
        assert all(i.fields.get("destination", 0) <= registers for i in rolled if i.opcode == Opcode.SET)
        sizes.append(words_of(rolled))
    assert sizes == sorted(sizes)

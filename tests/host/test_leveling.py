"""Leveling of a DDR3's reads: each lane's own settings are found; a lane that never reads right is named."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from sta_hw.errors import CheckError
from sta_hw.fpga.litedram import LEVELING_REGISTERS
from sta_hw.host.leveling import BIT_SLIPS, DELAYS, level, leveled
from sta_hw.spec.board import CONTROLLER_REGISTERS, MEMORY

NAMES = {CONTROLLER_REGISTERS + 4 * address: name for name, address in LEVELING_REGISTERS.items()}


class Memory:
    """A memory and its PHY: a lane reads right with one bit slip and some delays, and garbage otherwise."""

    def __init__(self, right: list[tuple[int, set[int]]]) -> None:
        self.right = right
        self.delay, self.slip = [0] * len(right), [0] * len(right)
        self.words = np.zeros(64, np.uint32)
        self.registers: dict[str, int] = {}
        self.retries = 0
        self.twice: set[int] = set()
        """Of what is written, by number, what is sent again although it had arrived."""
        self.written, self.breaks_at = 0, 0

    def write(self, address: int, words: NDArray[np.uint32]) -> None:
        self.written += 1
        if self.written == self.breaks_at:
            raise KeyboardInterrupt
        if self.written in self.twice:
            self.retries += 1
            self.twice.remove(self.written)
            self.written -= 1
            self.write(address, words)
        if address in NAMES:
            name = NAMES[address]
            self.registers[name] = int(words[0])
            for lane in range(len(self.right)):
                if self.registers.get("ddrphy_dly_sel", 0) >> lane & 1:
                    if name == "ddrphy_rdly_dq_rst":
                        self.delay[lane] = 0
                    elif name == "ddrphy_rdly_dq_inc":
                        self.delay[lane] = (self.delay[lane] + 1) % DELAYS
                    elif name == "ddrphy_rdly_dq_bitslip_rst":
                        self.slip[lane] = 0
                    elif name == "ddrphy_rdly_dq_bitslip":
                        self.slip[lane] = (self.slip[lane] + 1) % BIT_SLIPS
        else:
            assert not self.registers.get("ddrphy_dly_sel"), "the PHY pauses while lanes are selected"
            self.words[(address - MEMORY) // 4 :][: len(words)] = words

    def read(self, address: int, words: int) -> NDArray[np.uint32]:
        if address in NAMES:
            return np.array([self.registers.get(NAMES[address], 0)], np.uint32)
        assert not self.registers.get("ddrphy_dly_sel"), "the PHY pauses while lanes are selected"
        found = self.words[(address - MEMORY) // 4 :][:words].copy().view(np.uint8)
        for lane, (slip, delays) in enumerate(self.right):
            if self.slip[lane] != slip or self.delay[lane] not in delays:
                found[lane :: len(self.right)] = np.roll(found[lane :: len(self.right)], 1 + self.delay[lane])
        return found.view(np.uint32)


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_each_lane_has_its_own(lanes: int) -> None:
    """Every bit slip, and every window of delays in every place."""
    rng = np.random.default_rng(lanes)
    windows = [set(range(a, b)) for a, b in itertools.combinations(range(DELAYS + 1), 2)]
    cases = [(slip, window) for slip in range(BIT_SLIPS) for window in windows]
    order = [cases[i] for i in rng.permutation(len(cases))]
    for start in range(0, len(order) - lanes + 1, lanes):
        memory = Memory(order[start : start + lanes])
        assert not leveled(memory)
        found = level(memory, lanes)
        for lane, (of, (slip, window)) in enumerate(zip(found, memory.right, strict=True)):
            middle = sorted(window)[len(window) // 2]
            assert (of.bit_slip, of.delay) == (slip, middle) == (memory.slip[lane], memory.delay[lane])
            assert of.right[slip] == tuple(sorted(window))
        assert leveled(memory) and memory.registers["ddrphy_dly_sel"] == 0


def test_the_longest_run_of_delays() -> None:
    """A setting that reads right by chance, apart from the others, is not taken."""
    memory = Memory([(2, {0, 4, 5, 6}), (1, {1, 2, 3, 7})])
    assert [(of.bit_slip, of.delay) for of in level(memory)] == [(2, 5), (1, 2)]


def test_a_lane_that_never_reads_right() -> None:
    """It is named."""
    with pytest.raises(
        CheckError, match="byte lane 1 of the memory reads wrongly with each of 4 bit slips and 8 delays"
    ):
        level(Memory([(0, {3}), (0, set())]))


def test_a_line_that_loses_bytes() -> None:
    """What was sent again may count twice: set anew, to what a good line gives; or refused."""
    right = [(2, {1, 2, 3, 4}), (1, {3, 4, 5})]
    good = Memory(right)
    level(good)
    for number in range(1, good.written + 1):
        memory = Memory(right)
        memory.twice = {number}
        found = level(memory)
        assert [(of.bit_slip, of.delay) for of in found] == [(2, 3), (1, 4)]
        assert (memory.slip, memory.delay) == ([2, 1], [3, 4]) and leveled(memory)
    memory = Memory(right)
    memory.twice = set(range(1, 1000, 3))
    with pytest.raises(CheckError, match="the serial line lost bytes in each of 5 tries"):
        level(memory)
    assert not leveled(memory)


def test_a_leveling_that_was_broken_off() -> None:
    """Wherever it was, the next one finds what it would have."""
    right = [(2, {1, 2, 3, 4}), (1, {3, 4, 5})]
    for number in range(1, 60):
        memory = Memory(right)
        memory.breaks_at = number
        with pytest.raises(KeyboardInterrupt):
            level(memory)
        assert not leveled(memory)
        assert [(of.bit_slip, of.delay) for of in level(memory)] == [(2, 3), (1, 4)]

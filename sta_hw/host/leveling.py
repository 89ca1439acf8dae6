"""Leveling of a DDR3's reads: when each byte lane listens for its strobe, and from which bit on it counts.

A lane's data come some time after the command, by the length of wires and the delays of cells. LiteDRAM's PHY for ECP5
has two settings a lane for that: from when on the strobe is let in (8 delays, quarters of the memory's clock), and
how many bits the data are late (4 bit slips). Which of them serve is found by trial, as LiteX's BIOS does on a board
with a CPU: words are written (writes need no leveling), and read with each setting; of the slip with the most delays
that read all of them right, the middle one is kept. The host does it, over the serial line: nothing of it is needed but
when the board has been switched on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError
from ..fpga.litedram import LEVELING_REGISTERS
from ..spec.board import CONTROLLER_REGISTERS, MEMORY

__all__ = ["BIT_SLIPS", "DELAYS", "Lane", "LevelingLink", "level", "leveled"]

DELAYS = 8
BIT_SLIPS = 4
_WORDS = 16
"""That are written and read: four bursts of the memory."""
_TRIES = 5
_MARK = 0x4C564C00
"""With the settings behind, kept in a register of the memory controller that nothing needs once memory has started; it
is reset when the memory is."""


class LevelingLink(Protocol):
    """What is used of a `BoardLink`.

    Attributes
    ----------
    retries : int
        How often something had to be sent again.
    """

    retries: int

    def read(self, address: int, words: int, /) -> NDArray[np.uint32]:
        """Words from a byte address."""
        ...

    def write(self, address: int, words: NDArray[np.uint32], /) -> None:
        """Words to a byte address."""


@dataclass(frozen=True)
class Lane:
    """What was found for a byte lane.

    Attributes
    ----------
    bit_slip, delay : int
        The settings that were taken.
    right : tuple of tuple of int
        For each bit slip the delays that read every word right.
    """

    bit_slip: int
    delay: int
    right: tuple[tuple[int, ...], ...]


def leveled(link: LevelingLink) -> bool:
    """Whether the memory's reads are leveled already."""
    return _read(link, "sdram_dfii_pi0_wrdata") & 0xFFFFFF00 == _MARK


def level(link: LevelingLink, lanes: int = 2) -> list[Lane]:
    """Level the reads of each byte lane; what is in the memory's first 64 bytes is lost.

    Raises
    ------
    CheckError
        If a lane reads wrongly with every setting, or the memory does afterwards; or if the line loses bytes again and
        again.
    """
    pattern = _pattern()
    _write(link, "ddrphy_dly_sel", 0)  # the PHY pauses where a leveling was broken off
    link.write(MEMORY, pattern)
    right: list[list[list[int]]] = [[[] for _ in range(BIT_SLIPS)] for _ in range(lanes)]
    everything = (1 << lanes) - 1
    for slip in range(BIT_SLIPS):
        for delay in range(DELAYS):
            before = link.retries
            if delay:
                _count_up(link, everything, "ddrphy_rdly_dq_inc")
            if not delay or link.retries != before:
                _set(link, everything, slip, delay)
            found = link.read(MEMORY, _WORDS)
            for lane in range(lanes):
                if np.array_equal(_of(found, lane, lanes), _of(pattern, lane, lanes)):
                    right[lane][slip].append(delay)
    chosen = []
    for lane, each in enumerate(right):
        slip, window = max(
            ((slip, run) for slip, delays in enumerate(each) for run in _runs(delays)),
            key=lambda pair: len(pair[1]), default=(0, []),
        )  # fmt: skip
        if not window:
            raise CheckError(
                f"byte lane {lane} of the memory reads wrongly with each of {BIT_SLIPS} bit slips and {DELAYS} delays: "
                "the chip, its supply, or the pins."
            )
        chosen.append(Lane(slip, window[len(window) // 2], tuple(map(tuple, each))))
    for lane, of in enumerate(chosen):
        _set(link, 1 << lane, of.bit_slip, of.delay)
    if not np.array_equal(link.read(MEMORY, _WORDS), pattern):
        raise CheckError(
            "the memory reads wrongly with the settings that each of its byte lanes read right with alone."
        )
    mark = sum((of.bit_slip << 2 | of.delay >> 1) << 4 * lane for lane, of in enumerate(chosen[:2]))
    _write(link, "sdram_dfii_pi0_wrdata", _MARK | mark & 0xFF)
    return chosen


def _pattern() -> NDArray[np.uint32]:
    """Words in which neither a bit, nor a byte, nor a burst can be taken for the next."""
    return np.random.default_rng(3).integers(0, 1 << 32, _WORDS, dtype=np.uint32)


def _of(words: NDArray[np.uint32], lane: int, lanes: int) -> NDArray[np.uint8]:
    """The bytes of a lane: the memory's word has a byte of each."""
    return np.ascontiguousarray(words, "<u4").view(np.uint8)[lane::lanes]


def _runs(delays: Sequence[int]) -> list[list[int]]:
    """Delays in a row."""
    found: list[list[int]] = []
    for delay in delays:
        if found and found[-1][-1] == delay - 1:
            found[-1].append(delay)
        else:
            found.append([delay])
    return found


def _set(link: LevelingLink, lanes: int, slip: int, delay: int) -> None:
    """Give lanes a bit slip and a delay: PHY counts both up from where it was reset to.

    A step that was sent again may have been taken twice: then all of them are.
    """
    for _ in range(_TRIES):
        before = link.retries
        _write(link, "ddrphy_dly_sel", lanes)
        _write(link, "ddrphy_rdly_dq_rst", 1)
        _write(link, "ddrphy_rdly_dq_bitslip_rst", 1)
        _count_up(link, lanes, "ddrphy_rdly_dq_inc", delay)
        _count_up(link, lanes, "ddrphy_rdly_dq_bitslip", slip)
        if link.retries == before:
            return
    raise CheckError(f"the memory is not leveled: the serial line lost bytes in each of {_TRIES} tries.")


def _count_up(link: LevelingLink, lanes: int, name: str, times: int = 1) -> None:
    """The PHY pauses while lanes are selected."""
    _write(link, "ddrphy_dly_sel", lanes)
    for _ in range(times):
        _write(link, name, 1)
    _write(link, "ddrphy_dly_sel", 0)


def _write(link: LevelingLink, name: str, value: int) -> None:
    link.write(CONTROLLER_REGISTERS + 4 * LEVELING_REGISTERS[name], np.array([value], np.uint32))


def _read(link: LevelingLink, name: str) -> int:
    return int(link.read(CONTROLLER_REGISTERS + 4 * LEVELING_REGISTERS[name], 1)[0])

"""The boards by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from sta_hw.config import Config
from sta_hw.errors import InputError
from sta_hw.fpga.litedram import Sdram
from sta_hw.fpga.parts import PARTS, Part
from sta_hw.presets import preset

__all__ = ["BOARDS", "Board", "board"]


@dataclass(frozen=True)
class Board:
    """A board.

    Attributes
    ----------
    platform : str
        Module and class of its platform in amaranth-boards.
    part : str
        As in sta_hw/fpga/parts.py.
    top : str
        ``accelerator`` with memory and serial line, or ``engine`` behind the serial line.
    preset : str
        The configuration that fills it.
    frequency : float
        Of the accelerator, Hz.
    baud : int
        Of the serial line.
    loader : tuple of str
        openFPGALoader's options for the board or its cable.
    """

    name: str
    platform: str
    part: str
    top: str
    preset: str
    frequency: float
    baud: int
    loader: tuple[str, ...]
    sdram: Sdram | None = None

    @property
    def config(self) -> Config:
        """Its configuration."""
        return preset(self.preset)

    @property
    def chip(self) -> Part:
        """Its FPGA."""
        return PARTS[self.part]

    @property
    def divisor(self) -> int:
        """Clock cycles per bit of the serial line."""
        return round(self.frequency / self.baud)

    def make_platform(self) -> Any:
        """Its amaranth-boards platform."""
        module, name = self.platform.rsplit(".", 1)
        found: Callable[[], Any] = getattr(import_module(f"amaranth_boards.{module}"), name)
        return found()


def _ulx3s(size: str, preset_name: str) -> Board:
    return Board(
        f"ulx3s-{size}", f"ulx3s.ULX3S_{size.upper()}_Platform", f"lfe5u-{size}", "accelerator", preset_name, 80e6,
        2_000_000, ("--board", "ulx3s"), Sdram(),
    )  # fmt: skip


BOARDS: dict[str, Board] = {
    b.name: b
    for b in (
        _ulx3s("12f", "ecp5-25f"),
        _ulx3s("25f", "ecp5-25f"),
        _ulx3s("45f", "ecp5-45f"),
        _ulx3s("85f", "ecp5-85f"),
        Board(
            "ulx3s-25f-engine", "ulx3s.ULX3S_25F_Platform", "lfe5u-25f", "engine", "ecp5-25f", 80e6, 2_000_000,
            ("--board", "ulx3s"),
        ),
        Board(
            "icesugar-pro", "icesugar_pro.ICESugarProPlatform", "lfe5u-25f", "accelerator", "ecp5-25f", 80e6, 2_000_000,
            ("--cable", "cmsisdap"), Sdram(),
        ),
        Board(
            "icebreaker", "icebreaker.ICEBreakerPlatform", "ice40up5k", "engine", "up5k", 24e6, 1_000_000,
            ("--board", "ice40_generic"),
        ),
    )
}  # fmt: skip


def board(name: str) -> Board:
    """The board called `name`.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in BOARDS:
        near = get_close_matches(name, BOARDS, n=1, cutoff=0)[0]
        raise InputError(f"board {name!r} is unknown; there are {', '.join(BOARDS)}; the nearest is {near}.")
    return BOARDS[name]

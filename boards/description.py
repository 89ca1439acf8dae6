"""What a board is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sta_hw.fpga.litedram import Sdram
from sta_hw.fpga.parts import PARTS, Part
from sta_hw.spec.config import Config
from sta_hw.spec.presets import preset

__all__ = ["Board"]


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
    make_top : function
        Gives the top level, from pins in, of the board with a configuration.
    router : str
        nextpnr's that routes it, as `sta_hw.fpga.routing.Pins` has it.
    """

    name: str
    platform: str
    part: str
    top: str
    preset: str
    frequency: float
    baud: int
    loader: tuple[str, ...]
    make_top: Callable[[Board, Config], Any]
    sdram: Sdram | None = None
    router: str = "router1"

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

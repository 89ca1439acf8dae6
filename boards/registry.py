"""The boards by name."""

from __future__ import annotations

from difflib import get_close_matches

from sta_hw.errors import InputError
from sta_hw.fpga.litedram import Sdram

from .description import Board
from .ecp5 import Ecp5Top
from .ice40 import Ice40Top

__all__ = ["BOARDS", "board"]


def _ulx3s(size: str, preset_name: str, suffix: str = "") -> Board:
    return Board(
        f"ulx3s-{size}{suffix}", f"ulx3s.ULX3S_{size.upper()}_Platform", f"lfe5u-{size}", "accelerator", preset_name,
        80e6, 2_000_000, ("--board", "ulx3s"), Ecp5Top, Sdram(),
    )  # fmt: skip


BOARDS: dict[str, Board] = {
    b.name: b
    for b in (
        _ulx3s("12f", "ecp5-25f"),
        _ulx3s("25f", "ecp5-25f"),
        _ulx3s("45f", "ecp5-45f"),
        _ulx3s("85f", "ecp5-85f"),
        _ulx3s("85f", "ecp5-85f-decoder-sdram", "-decoder"),
        Board(
            "ulx3s-25f-engine", "ulx3s.ULX3S_25F_Platform", "lfe5u-25f", "engine", "ecp5-25f", 80e6, 2_000_000,
            ("--board", "ulx3s"), Ecp5Top,
        ),
        Board(
            "icesugar-pro", "icesugar_pro.ICESugarProPlatform", "lfe5u-25f", "accelerator", "ecp5-25f", 80e6, 2_000_000,
            ("--cable", "cmsisdap"), Ecp5Top, Sdram(),
        ),
        # LiteX's clock for the board: the DDR3 has twice it, less than the 300 MHz that its data sheet wants.
        Board(
            "ecpix5-85f", "ecpix5.ECPIX585Platform", "lfe5um5g-85f", "accelerator", "ecp5-85f-decoder", 75e6, 2_000_000,
            ("--board", "ecpix5"), Ecp5Top, Sdram("MT41K256M16", 2, 1 << 29, "DDR3"), "router2",
        ),
        Board(
            "icebreaker", "icebreaker.ICEBreakerPlatform", "ice40up5k", "engine", "up5k", 24e6, 1_000_000,
            ("--board", "ice40_generic"), lambda target, _: Ice40Top(target),
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

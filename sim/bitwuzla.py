"""Bitwuzla, which is a Python library on PyPI, as the program that smtbmc talks to: SMT-LIB in, answers out.

Example: python -m sim.bitwuzla --lang smt2 < problem.smt2
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["main"]


def main() -> None:
    """Run each command as soon as it is whole; end at (exit) or where the input does."""
    if "--help" in sys.argv:
        print("--lang smt2")
        return
    import bitwuzla

    options = bitwuzla.Options()
    options.set(bitwuzla.Option.PRODUCE_MODELS, True)
    parser = bitwuzla.Parser(bitwuzla.TermManager(), options)
    output = ctypes.CDLL(None)
    command, depth = "", 0
    for line in sys.stdin:
        if line.startswith(";"):
            continue
        command += line
        depth += line.count("(") - line.count(")")
        if depth == 0 and command.strip():
            if command.strip() == "(exit)":
                return
            parser.parse(command, False, False)
            output.fflush(None)  # it prints by C
            command = ""


if __name__ == "__main__":
    main()

"""Where `sta-hw` begins: what is interrupted while the command line itself is imported ends with a sentence, too."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point: `sta_hw.cli.main.main`, whose import takes half a second."""
    try:
        from .main import main as run
    except KeyboardInterrupt:
        print("sta-hw: interrupted; files are as they were, or whole.", file=sys.stderr)
        sys.exit(130)
    run()

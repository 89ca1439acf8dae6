"""Where what is slow to make is kept: built models, emitted Verilog, the text to tune with."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import ToolError

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The folder, made if need be and private to the user: ``$STA_HW_CACHE``, or ``sta_hw`` in the user's cache folder.

    Raises
    ------
    ToolError
        If it cannot be made or written to; the message names the variable that moves it.
    """
    if own := os.environ.get("STA_HW_CACHE"):
        folder = Path(own)
    else:
        try:
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sta_hw"
        except RuntimeError as error:
            raise ToolError(f"there is no home folder for the cache ({error}); set STA_HW_CACHE to a folder.") from None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ToolError(
            f"cache folder {folder} cannot be written: {error.strerror or error}; set STA_HW_CACHE to another folder."
        ) from error
    return folder

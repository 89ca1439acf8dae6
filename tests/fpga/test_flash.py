"""Flashing: what is missing is told in one sentence."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import run

from boards import BOARDS, board
from sta_hw.errors import InputError, ToolError
from sta_hw.fpga import flash as module
from sta_hw.fpga.flash import explain, flash, loader


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "error while loading shared libraries: libftdi1.so.2: cannot open shared object file",
            "lacks a system library",
        ),
        ("unable to open ftdi device: -3 (device not found)\nJTAG init failed", "no ulx3s-85f is connected"),
        ("unable to open ftdi device: -4 (unable to open device)", "no permission for the board's USB device"),
        ("libusb_open failed: LIBUSB_ERROR_ACCESS", "no permission"),
        ("Jtag: support for cmsisdap was not enabled at compile time", "built without support for ulx3s-85f's cable"),
        ("write failed\nCRC error", "openFPGALoader failed: CRC error"),
        ("", "it says nothing"),
    ],
)
def test_causes(output: str, expected: str) -> None:
    assert expected in explain("ulx3s-85f", output)


def test_no_bitstream(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no bitstream .*; sta-hw build --board ulx3s-85f makes it"):
        flash(board("ulx3s-85f"), tmp_path / "top.bit")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run, in order; nothing is."""
    found: list[list[str]] = []

    def note(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        found.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", note)
    return found


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ""),
        ({"bitstream": "other.bit", "sha256": "0", "board": "ulx3s-12f"}, ""),
        ({"sha256": "0" * 64}, r"is not the one that manifest.json describes by its SHA-256; sta-hw build"),
        ({"board": "ulx3s-12f"}, r"is for board ulx3s-12f, not ulx3s-85f; give --board ulx3s-12f"),
        ({"sha256": None}, r"manifest.json beside the bitstream is no manifest of sta-hw build"),
    ],
)
def test_only_what_the_manifest_describes(
    changed: dict[str, str | None], expected: str, tmp_path: Path, commands: list[list[str]]
) -> None:
    """What was damaged since, or is another board's, is not loaded; a file that no manifest speaks of is."""
    bitstream = tmp_path / "top.bit"
    bitstream.write_bytes(b"\xff" * 64)
    said = {"bitstream": "top.bit", "sha256": hashlib.sha256(b"\xff" * 64).hexdigest(), "board": "ulx3s-85f"} | changed
    (tmp_path / "manifest.json").write_text(json.dumps({k: v for k, v in said.items() if v is not None}))
    if expected:
        with pytest.raises(InputError, match=expected):
            flash(board("ulx3s-85f"), bitstream)
    else:
        flash(board("ulx3s-85f"), bitstream)
    assert bool(commands) != bool(expected)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="is no manifest"):
        flash(board("ulx3s-85f"), bitstream)


@pytest.mark.parametrize(
    ("head", "made_for", "found"),
    [
        (b"\xff\x00Part: LFE5U-85F-6CABGA381\x00\xff\xff", "ulx3s-85f", "lfe5u-85f in CABGA381"),
        (b"\xff\x00Part: LFE5U-25F-6CABGA381\x00\xff\xff", "ulx3s-25f", "lfe5u-25f in CABGA381"),
        (b"\xff\x00Part: LFE5U-25F-6CABGA256\x00\xff\xff", "icesugar-pro", "lfe5u-25f in CABGA256"),
        (b"\xff\x00Part: LFE5UM5G-85F-8CABGA554\x00\xff\xff", "ecpix5-85f", "lfe5um5g-85f in CABGA554"),
        (b"\xff\x00\x00\xff\x7e\xaa\x99\x7e\x51", "icebreaker", "an iCE40"),
    ],
)
def test_only_what_is_for_the_boards_part(
    head: bytes, made_for: str, found: str, tmp_path: Path, commands: list[list[str]]
) -> None:
    """By what the bitstream says itself, without a manifest."""
    bitstream = tmp_path / "top.bit"
    bitstream.write_bytes(head + bytes(500))
    for name in ("ulx3s-85f", "ulx3s-25f", "icesugar-pro", "ecpix5-85f", "icebreaker"):
        if name == made_for:
            flash(board(name), bitstream)
        else:
            with pytest.raises(InputError, match=rf"is for {found}, and {name} has .*; sta-hw build --board {name} "):
                flash(board(name), bitstream)
    assert len(commands) == 1


def test_no_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="openFPGALoader is not installed"):
        loader()


def test_no_board_is_connected(tmp_path: Path) -> None:
    """The real program, without a board: exit status 3 and one sentence."""
    bitstream = tmp_path / "top.bit"
    bitstream.write_bytes(b"\xff" * 64)
    outcome = run("flash", "--board", "ulx3s-85f", str(bitstream))
    assert outcome.returncode == 3 and not outcome.stdout
    assert "no ulx3s-85f is connected" in outcome.stderr or "lacks a system library" in outcome.stderr


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("#!/bin/sh\nexec sleep 60\n", "has not ended after 0.005 minutes; see to the board's cable"),
        ("#!/bin/sh\nkill -SEGV $$\n", "was ended by signal 11; the board may hold half of it"),
        ("#!/bin/sh\nhead -c 3000 /dev/zero | tr '\\0' x; exit 4\n", r"openFPGALoader failed: x{300} \[\.\.\.\]$"),
        ("#!/nowhere/sh\n", "openFPGALoader cannot be started: .*: No such file or directory"),
        ("no program", "openFPGALoader cannot be started: .*: Exec format error"),
    ],
)
def test_a_loader_that_does_not_work(
    program: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "top.bit").write_bytes(b"\xff")
    (tmp_path / "loader").write_text(program)
    (tmp_path / "loader").chmod(0o755)
    monkeypatch.setattr(module, "loader", lambda: str(tmp_path / "loader"))
    monkeypatch.setattr(module, "_MINUTES", 0.005)
    with pytest.raises(ToolError, match=expected):
        flash(board("ulx3s-85f"), tmp_path / "top.bit")


@pytest.mark.parametrize("name", BOARDS)
def test_the_loader_knows_the_options(name: str, tmp_path: Path, commands: list[list[str]]) -> None:
    """To SRAM and to flash."""
    bitstream = tmp_path / "top.bit"
    bitstream.write_bytes(b"\xff")
    for spi in (False, True):
        flash(board(name), bitstream, spi=spi)
    options = list(board(name).loader)
    assert [c[1:] for c in commands] == [[*options, str(bitstream)], [*options, "--write-flash", str(bitstream)]]

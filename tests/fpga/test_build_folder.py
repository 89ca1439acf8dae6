"""A build's folder holds one whole build: the last that gave a bitstream, whatever the tools do after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boards import board
from sta_hw.errors import CheckError, InputError
from sta_hw.fpga import build
from sta_hw.fpga.routing import Routed

BOARD = board("icebreaker")


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Callable[[float | None, bytes], None]:
    """The tools' places taken: a clock in MHz that is reached, or None where nothing is routed; the bitstream."""

    def install(reached: float | None, bits: bytes) -> None:
        def route(top: str, chip: Any, folder: Path, **options: Any) -> Routed | None:
            (folder / "nextpnr-1.log").write_text(f"reached {reached}")
            (folder / "top.asc").write_text("half")
            return None if reached is None else Routed(1, reached, {})

        def pack(top: str, family: str, folder: Path) -> Path:
            (folder / "top.bin").write_bytes(bits)
            return folder / "top.bin"

        monkeypatch.setattr(build, "prepare_board", lambda *a: ["top.il"])
        monkeypatch.setattr(build, "synthesize", lambda *a, **o: {"SB_LUT4": 1})
        monkeypatch.setattr(build, "require_fit", lambda *a: None)
        monkeypatch.setattr(build, "place_and_route", route)
        monkeypatch.setattr(build, "pack", pack)

    return install


def test_a_build_that_fails_leaves_the_one_before(tools: Callable[[float | None, bytes], None], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    tools(100.0, b"first")
    made = build.build_board(BOARD, folder)
    manifest = json.loads(made.manifest.read_text())
    assert made.bitstream == folder / "top.bin" and made.bitstream.read_bytes() == b"first"
    assert manifest["routed"]["fmax"] == 100.0
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    tools(None, b"")
    with pytest.raises(CheckError, match="no seed routed"):
        build.build_board(BOARD, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before | {"nextpnr-1.log": b"reached None"}
    tools(1.0, b"slow")  # is kept, and said
    with pytest.raises(CheckError, match=r"reaches 1\.0 MHz") as error:
        build.build_board(BOARD, folder)
    assert str(folder / "top.bin") in str(error.value) and (folder / "top.bin").read_bytes() == b"slow"
    assert json.loads(made.manifest.read_text())["routed"]["fmax"] == 1.0
    tools(100.0, b"other")
    with pytest.raises(InputError):
        build.build_board(BOARD, folder, config=board("ulx3s-85f").config)
    assert (folder / "top.bin").read_bytes() == b"slow"

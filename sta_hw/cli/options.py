"""Options that several commands share, and what makes them unused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..compiler.prune import METHODS
from ..tasks.table import DEFAULT_NM
from .app import Unused

__all__ = [
    "BOARD_ALONE", "COMPARED_WITH", "COMPILED_BEFORE", "DEFAULT_TEXT", "NOTHING_PRUNED", "WITH_INPUT",
    "AccuracyFileOption", "AccuracyInputsOption", "BackendOption", "BoardOption", "CalibrationOption", "CheckOption",
    "FileArgument", "InputOption", "MegahertzOption", "ModelOption", "OwnPatternOption", "PatternOption", "PortOption",
    "PresetOption", "PrunerOption", "TableOption", "TextOption",
]  # fmt: skip

DEFAULT_TEXT = "A sparse network skips every second weight and still knows what is meant"
TextOption = Annotated[str, typer.Option(help="The sentence.")]
PatternOption = Annotated[str, typer.Option(help="N:M of all linear layers, or dense.")]
OwnPatternOption = Annotated[
    str | None,
    typer.Option(
        help=f"N:M of all linear layers, or dense; if not given, a pruned checkpoint's own table, or {DEFAULT_NM}."
    ),
]
TableOption = Annotated[Path | None, typer.Option(help="JSON: N:M of single layers, such as 0.output.dense.")]
PresetOption = Annotated[str, typer.Option("--preset", help="Hardware: a preset, or a manifest of sta-hw generate.")]
PrunerOption = Annotated[str, typer.Option("--pruner", help=f"What prunes dense weights: {' or '.join(METHODS)}.")]
ModelOption = Annotated[Path | None, typer.Option(help="Checkpoint folder; all-MiniLM-L6-v2 if not given.")]
InputOption = Annotated[
    Path | None, typer.Option("--input", help="For images and spectrograms, in place of a text: a .npy file.")
]
CalibrationOption = Annotated[
    Path | None, typer.Option(help="Images or spectrograms to quantize for: a .npy file; noise if not given.")
]
AccuracyInputsOption = Annotated[
    int, typer.Option("--inputs", help="Inputs that accuracy is measured with; 0: none.", min=0, max=10_000)
]
AccuracyFileOption = Annotated[
    Path | None, typer.Option("--input", help="For images and spectrograms: a .npy file to measure accuracy with.")
]
BackendOption = Annotated[str, typer.Option("--backend", help="reference, rtl or board.")]
CheckOption = Annotated[bool, typer.Option(help="Compare memory with the reference after every run.")]
BoardOption = Annotated[str, typer.Option(help="For --backend board; its preset is taken.")]
PortOption = Annotated[str, typer.Option(help="For --backend board: serial port; sim simulates the board.")]
MegahertzOption = Annotated[float, typer.Option(help="Clock, for the time.", min=0.001, max=1e6)]
FileArgument = Annotated[Path | None, typer.Argument(help="A compiled model; compiled on the fly if not given.")]

NOTHING_PRUNED = Unused(
    ("pruner",), lambda o: o["nm"] == "dense" and not o.get("nm_table"), "with --nm dense, where nothing is pruned"
)
COMPILED_BEFORE = Unused(
    ("nm", "nm_table", "pruner", "preset_name", "calibration"), lambda o: bool(o["file"]),
    "with a compiled model, which has its own",
)  # fmt: skip
BOARD_ALONE = Unused(("board", "port"), lambda o: o["backend_name"] != "board", "except with --backend board")
COMPARED_WITH = Unused(
    ("check",), lambda o: o["backend_name"] == "reference", "with --backend reference: it is compared with"
)
WITH_INPUT = Unused(("text",), lambda o: o["given"] is not None, "with --input, which is what is run")

"""`sta-hw generate`: a configuration becomes Verilog, a manifest, a FuseSoC core and an example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from . import __version__
from .config import Config
from .errors import InputError
from .files import write_all
from .registers import c_header
from .rtl.accelerator import Accelerator
from .rtl.decoder import Decoder
from .rtl.emit import emit_verilog, ports_of, streams_of
from .rtl.engine import Engine
from .rtl.softmax import Softmax

__all__ = ["TOPS", "component", "generate", "manifest"]

TOPS: dict[str, Any] = {"engine": Engine, "softmax": Softmax, "decoder": Decoder, "accelerator": Accelerator}
"""Components that can be generated as a top level."""


def component(top: str, config: Config) -> wiring.Component:
    """The component called `top`.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if top not in TOPS:
        raise InputError(f"top {top!r} is unknown; it is {', '.join(TOPS)}.")
    return TOPS[top](config)


def manifest(top: str, config: Config) -> dict[str, Any]:
    """Everything a program needs to know about the generated module, as JSON types."""
    hardware = component(top, config)
    hardware._MustUse__silence = True  # asked for its ports alone
    latencies: dict[str, int] = {}
    if isinstance(hardware, Engine):
        latencies["weight_to_result"] = hardware.latency
    elif isinstance(hardware, Softmax):
        latencies["block_end_to_probabilities"] = hardware.latency
    elif isinstance(hardware, Decoder):
        latencies["value_to_beat"] = Decoder.latency
    return {
        "generator": f"sta-hw {__version__}",
        "top": top,
        "configuration": config.as_dict(),
        "hash": config.hash,
        "patterns": [str(p) for p in config.patterns],
        "multiply_accumulates_per_cycle": config.macs,
        "clock": "clk",
        "reset": {"name": "rst", "active": "high", "kind": "synchronous"},
        "ports": [vars(p) for p in ports_of(hardware)],
        "streams": [vars(s) for s in streams_of(hardware)],
        "latency_cycles": latencies,
    }


def generate(top: str, config: Config, folder: Path, verilog: str | None = None) -> list[Path]:
    """Write the files of one top level; return their paths.

    Parameters
    ----------
    verilog : str or None
        The module's text, where it was emitted already.

    Raises
    ------
    ToolError
        If the folder cannot be written; what was there is as it was.
    """
    description = manifest(top, config)
    files = {
        f"{top}.v": verilog or emit_verilog(component(top, config), top),
        f"{top}.json": json.dumps(description, indent=2) + "\n",
        f"{top}.core": _core(top, config),
        f"{top}_example.v": _example(top, description),
    }
    if top == "accelerator":
        files["sta_hw_registers.h"] = c_header()
    write_all({folder / name: text for name, text in files.items()})
    return [folder / name for name in files]


def _core(top: str, config: Config) -> str:
    return f"""CAPI=2:
name: sta-hw:generated:{top}:{__version__}
description: STA-HW {top}, {config.rows} rows x {config.groups} groups, window {config.window}, hash {config.hash}
filesets:
  rtl:
    files:
      - {top}.v
    file_type: verilogSource
targets:
  default:
    filesets: [rtl]
    toplevel: {top}
  lint:
    default_tool: verilator
    filesets: [rtl]
    toplevel: {top}
    tools:
      verilator:
        mode: lint-only
"""


def _example(top: str, description: dict[str, Any]) -> str:
    """A module that instantiates the top level with every port by name."""
    declarations, connections = [], []
    for port in description["ports"]:
        width = f"[{port['width'] - 1}:0] " if port["width"] > 1 else ""
        declarations.append(f"    {port['direction']:<6} wire {width}{port['name']}")
        connections.append(f"        .{port['name']}({port['name']})")
    return (
        f"// How to instantiate {top}: every port by name. A beat moves when valid and ready are both high.\n"
        f"module {top}_example (\n"
        + ",\n".join(declarations)
        + f"\n);\n    {top} u_{top} (\n"
        + ",\n".join(connections)
        + "\n    );\nendmodule\n"
    )

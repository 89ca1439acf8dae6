"""`sta-hw generate`: a configuration becomes Verilog, and the files that others need to use it."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

from .. import __version__
from ..files import write_all
from ..rtl.emit import emit_verilog, ports_of, streams_of
from ..rtl.engine.decoder import Decoder
from ..rtl.engine.engine import Engine
from ..rtl.names import MODELS, PRIMITIVES, check_hides_nothing, check_name
from ..rtl.tops import TOPS, component
from ..rtl.units.softmax import Softmax
from ..rtl.waivers import PRIMITIVES_WAIVERS, waiver_file, waivers_of
from ..spec.c_header import c_prefix, configuration_header, registers_header
from ..spec.config import Config
from ..spec.rdl import system_rdl
from .bench_vectors import program_vectors, stream_vectors
from .fusesoc import CoreFiles, core_file
from .verilog_bench import accelerator_bench, stream_bench
from .wrapper import axi_wrapper

__all__ = ["PRIMITIVES_FILES", "TOPS", "component", "file_names", "generate", "manifest"]

PRIMITIVES_FILES = {kind: f"sta_hw_{model}" for kind, (_, model) in MODELS.items()}
"""Name of the models of vendor cells beside a module that instantiates them, by the kind of multiplier."""


def manifest(top: str, config: Config, name: str | None = None) -> dict[str, Any]:
    """Everything a program needs to know about the generated module, as JSON types, but what its text tells."""
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
        "name": name or top,
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


def file_names(top: str, name: str | None = None) -> list[str]:
    """Every file that `generate` writes for a top level, with whatever configuration."""
    name = name if name is not None else top
    found = [f"{name}{end}" for end in (".v", ".json", ".core", "_example.v", ".vlt", "_bench.v")]
    found += dict.fromkeys(PRIMITIVES_FILES.values())
    if top == "accelerator":
        found += [f"{name}_axi.v", f"{name}.h", f"{name}.rdl", "sta_hw_registers.h"]
    return found


def generate(
    top: str,
    config: Config,
    folder: Path,
    verilog: str | None = None,
    *,
    name: str | None = None,
    hierarchy: bool = False,
) -> list[Path]:
    """Write the files of one top level; return their paths, the Verilog and its manifest first.

    Parameters
    ----------
    verilog : str or None
        The module's text, where it was emitted already.
    name : str or None
        Of the module, of its files and of its FuseSoC core; `top` if not given.
    hierarchy : bool
        One module for each block, instead of one in all.

    Raises
    ------
    InputError
        If there is no such top level, or the name cannot be one: before anything is made, or, of a name that a signal
        of the module has, behind it.
    ToolError
        If the folder cannot be written; what was there is as it was.
    """
    name = name if name is not None else top
    check_name(name)
    if top == "accelerator":
        c_prefix(name)
    description = manifest(top, config, name)
    verilog = verilog or emit_verilog(component(top, config), name, hierarchy=hierarchy)
    cells = [cell for cell in PRIMITIVES if re.search(rf"^ *{cell} ", verilog, re.M)]
    wrapper = f"{name}_axi.v" if top == "accelerator" else None
    primitives = PRIMITIVES_FILES[config.multiplier] if cells else None
    files = CoreFiles(f"{name}.v", f"{name}.vlt", primitives, f"{name}_bench.v", wrapper)
    hidden = check_hides_nothing(name, verilog)
    waivers = {
        files.verilog: waivers_of(hierarchy=hierarchy, multiplier=config.multiplier if cells else "", hidden=hidden)
    }
    if files.primitives:
        waivers[files.primitives] = PRIMITIVES_WAIVERS
    texts = {
        files.verilog: verilog,
        f"{name}.json": "",
        f"{name}.core": core_file(
            name,
            f"STA-HW {top}, {config.rows} rows x {config.groups} groups, window {config.window}, hash {config.hash}",
            files,
        ),
        f"{name}_example.v": _example(name, description),
        files.waivers: waiver_file(waivers),
        f"{name}_bench.v": _bench(name, top, config),
    }
    if files.primitives:
        model = resources.files("sim") / MODELS[config.multiplier][1]
        texts[files.primitives] = model.read_text(encoding="utf-8")
    if wrapper:
        texts[wrapper] = axi_wrapper(name, config)
    if top == "accelerator":
        texts["sta_hw_registers.h"] = registers_header()
        texts[f"{name}.h"] = configuration_header(config, name)
        texts[f"{name}.rdl"] = system_rdl(config, name)
    description |= {
        "hierarchy": hierarchy,
        "files": list(texts),
        "primitives": [
            {"cell": c, "family": MODELS[config.multiplier][0], "simulation_model": files.primitives} for c in cells
        ],
        "waivers": waivers,
    }
    texts[f"{name}.json"] = json.dumps(description, indent=2) + "\n"
    write_all({folder / file: text for file, text in texts.items()})
    return [folder / file for file in texts]


def _bench(name: str, top: str, config: Config) -> str:
    """The module that checks the top level in simulation."""
    hardware = component(top, config)
    hardware._MustUse__silence = True  # asked for its ports alone
    if top == "accelerator":
        return accelerator_bench(name, config, ports_of(hardware), program_vectors(config))
    return stream_bench(name, ports_of(hardware), streams_of(hardware), stream_vectors(top, config))


def _example(name: str, description: dict[str, Any]) -> str:
    """A module that instantiates the top level with every port by name."""
    declarations, connections = [], []
    for port in description["ports"]:
        width = f"[{port['width'] - 1}:0] " if port["width"] > 1 else ""
        declarations.append(f"    {port['direction']:<6} wire {width}{port['name']}")
        connections.append(f"        .{port['name']}({port['name']})")
    return (
        f"// How to instantiate {name}: every port by name. A beat moves when valid and ready are both high.\n"
        f"module {name}_example (\n"
        + ",\n".join(declarations)
        + f"\n);\n    {name} u_{name} (\n"
        + ",\n".join(connections)
        + "\n    );\nendmodule\n"
    )

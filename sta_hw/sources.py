"""Which files of the package a result depends on: modules, and all that they import."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

__all__ = ["sources_digest", "sources_of"]

_ROOT = Path(__file__).parent


@cache
def sources_of(*modules: str) -> tuple[Path, ...]:
    """The files of some modules, such as ``rtl/emit.py``, and of all of this package that they import, in order."""
    found: set[Path] = set()
    waiting = [_ROOT / "__init__.py", *(_ROOT / module for module in modules)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path, _ROOT)
    return tuple(sorted(found))


@cache
def sources_digest(*modules: str) -> str:
    """SHA-256 of those files' names and text: another where anything of them has changed."""
    digest = hashlib.sha256()
    for path in sources_of(*modules):
        digest.update(f"{path.relative_to(_ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


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

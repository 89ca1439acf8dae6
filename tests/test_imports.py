"""The house's order: no import between folders points up, none goes in a circle, no private name is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FOLDERS = (
    "ground", "spec", "formats", "model", "reference", "rtl", "cycles", "compiler", "fpga", "sim", "host", "run",
    "tasks", "sparsity", "report", "explore", "generate", "bench", "cli",
)  # fmt: skip
"""Folders of `sta_hw`, lowest first; ``ground`` stands for the modules beside them, ``sim`` is the package `sim`.
`boards` is above `fpga`, whose parts it names."""
RTL = ("primitives", "bus", "engine", "units", "control", "top", "board")
"""Folders of `sta_hw.rtl`, lowest first; ``top`` stands for the modules beside them."""


def modules() -> dict[str, Path]:
    """Every module of the packages, by its full name."""
    found = {}
    for package in ("sta_hw", "sim", "boards"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str) -> Iterator[tuple[str, str, int]]:
    """What a module imports of the packages, wherever in it the statement stands: module, name or "", line."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # What a type checker alone reads: the names that `sta_hw.__getattr__` imports when they are asked for.
    unread = {id(n) for t in ast.walk(tree) if isinstance(t, ast.If) and ast.unparse(t.test) == "TYPE_CHECKING"
              for n in ast.walk(t)} if module == "sta_hw" else set()  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                if (inner := f"{whole}.{alias.name}") in MODULES:
                    yield inner, "", node.lineno
                elif whole in MODULES:
                    yield whole, alias.name, node.lineno


def rank(module: str) -> tuple[float, float]:
    """A module's place: that of its folder, and within `rtl` that of its folder there."""
    parts = module.split(".")
    if parts[0] == "boards":
        return FOLDERS.index("fpga") + 0.5, 0
    if parts[0] == "sim":
        return FOLDERS.index("sim"), 0
    inside = ".".join(parts[:2])
    folder = parts[1] if len(parts) > 1 and MODULES[inside].name == "__init__.py" else "ground"
    if folder != "rtl":
        return FOLDERS.index(folder), 0
    inner = parts[2] if len(parts) > 2 and MODULES[".".join(parts[:3])].name == "__init__.py" else "top"
    return FOLDERS.index("rtl"), RTL.index(inner)


def test_every_folder_has_its_place() -> None:
    there = {p.name for p in (ROOT / "sta_hw").iterdir() if (p / "__init__.py").exists()}
    assert there == set(FOLDERS) - {"ground", "sim"}
    there = {p.name for p in (ROOT / "sta_hw" / "rtl").iterdir() if (p / "__init__.py").exists()}
    assert there == set(RTL) - {"top"}


def test_no_import_points_up() -> None:
    up = [
        f"{MODULES[m].relative_to(ROOT)}:{line} imports {other}"
        for m in MODULES
        for other, _, line in imports(m)
        if rank(other) > rank(m)
    ]
    assert not up, "\n".join(up)


def test_no_circles() -> None:
    """Also among the modules of one folder, and also by imports inside functions."""
    arrows = {m: {other for other, _, _ in imports(m) if other != m} for m in MODULES}
    done: set[str] = set()

    def follow(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            pytest.fail(" -> ".join((*path[path.index(module) :], module)))
        if module not in done:
            for other in sorted(arrows[module]):
                follow(other, (*path, module))
            done.add(module)

    for module in sorted(MODULES):
        follow(module, ())


def test_no_private_name_is_imported() -> None:
    private = [
        f"{MODULES[m].relative_to(ROOT)}:{line} imports {other}.{name}"
        for m in MODULES
        for other, name, line in imports(m)
        if name.startswith("_") and not name.startswith("__")
    ]
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("sta_hw", "sim", "boards"):
                private += [
                    f"{path.relative_to(ROOT)}:{node.lineno} imports {node.module}.{alias.name}"
                    for alias in node.names
                    if alias.name.startswith("_") and not alias.name.startswith("__")
                ]
    assert not private, "\n".join(private)


def test_every_test_file_has_a_name_of_its_own() -> None:
    """Two of the same name in different folders are one module to pytest, which then collects neither."""
    names = sorted(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "__init__.py")
    assert not {a for a, b in pairwise(names) if a == b}

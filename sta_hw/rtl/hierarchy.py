"""RTLIL as Amaranth writes it, made ready to stay hierarchical: modules shared and named by their place, plain names.

Amaranth gives each instance a module of its own, named by its path, and tells signals of one name apart by numbers that
run through the whole design (``ready$1234``). Here modules of equal content become one, and a signal's second name
says whose port it is connected to, or is numbered within its module; names that the source gives stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["shared_modules"]

_MODULE = re.compile(r"^module \\(\S+)\n(.*?)^end\n", re.M | re.S)
_NAMED = re.compile(r"^  (?:wire|memory) .*\\(\S+)$|^  cell \S+ \\(\S+)$", re.M)
_IDENTIFIER = re.compile(r"\\(\S+)")
_PORT = re.compile(r"port\$\d+\$\d+$")


@dataclass
class _Module:
    """One module of the text: its body, and what its identifiers are called now."""

    path: str
    body: str
    names: dict[str, str] = field(default_factory=dict)


def _plain(name: str) -> str:
    """A name without Amaranth's numbers, of letters, digits and underscores: ``terms$33[0]`` is terms_0."""
    name = re.sub(r"\$\d+", "", name).lstrip("$").replace("]", "")
    return re.sub(r"\W", "_", name, flags=re.ASCII) or "signal"


def _children(body: str) -> list[tuple[str, str, dict[str, str]]]:
    """Every instance of a module: its module's path, its name, and what each of its ports is connected to."""
    found = []
    for kind, name, inside in re.findall(r"^  cell \\(\S+) \\(\S+)\n(.*?)^  end\n", body, re.M | re.S):
        found.append((kind, name, dict(re.findall(r"^    connect \\(\S+) (.*)$", inside, re.M))))
    return found


def _choose_names(module: _Module, modules: dict[str, _Module]) -> None:
    """Names without numbers for everything in a module whose instances have theirs already."""
    named = [wire or cell for wire, cell in _NAMED.findall(module.body)]
    taken = {name for name in named if _plain(name) == name}
    # A signal that an instance's port drives, or is driven by, is called after both.
    owners: dict[str, str] = {}
    cells = set()
    for kind, cell, ports in _children(module.body):
        cells.add(cell)
        child = modules.get(kind)
        for port, signal in ports.items():
            whole = re.fullmatch(r"\\(\S+)(?: \[\d+(?::\d+)?\])?", signal)
            if child is not None and whole:
                owners.setdefault(whole[1], f"{_plain(cell)}__{child.names.get(port, port)}")
    # A port that Amaranth made for a signal of elsewhere is called after what it is part of here.
    uses: dict[str, str] = {}
    for target, signals in re.findall(r"^connect \\(\S+)(?: \[[\d:]+\])? (.*)$", module.body, re.M):
        for signal in _IDENTIFIER.findall(signals):
            uses.setdefault(signal, f"{_plain(target)}_in")
    for name in named:
        if _plain(name) == name:
            continue
        if _PORT.search(name):
            wanted = uses.get(name) or owners.get(name) or "input"
        elif name in cells:
            wanted = f"{_plain(name)}_block" if _plain(name) in taken else _plain(name)
        else:
            # An element is called after its array, which came before it.
            array, bracket, index = name.partition("[")
            wanted = owners.get(name) or _plain(module.names.get(array, array) + bracket + index)
        chosen, number = wanted, 2
        while chosen in taken:
            chosen, number = f"{wanted}_{number}", number + 1
        taken.add(chosen)
        module.names[name] = chosen


def _renamed(module: _Module, modules: dict[str, _Module], kinds: dict[str, str]) -> str:
    """A module's body with the new names of its signals, its instances, their modules and their ports."""

    def own(text: str) -> str:
        return _IDENTIFIER.sub(lambda m: f"\\{module.names.get(m[1], m[1])}", text)

    lines, child = [], None
    for line in module.body.splitlines():
        words = line.split(None, 2)
        if line.startswith("  cell \\"):
            child = modules.get(words[1][1:])
            kind = kinds.get(words[1][1:], words[1][1:])
            lines.append(f"  cell \\{kind} {own(words[2])}")
        elif line.startswith("  cell "):
            child = None
            lines.append(f"  cell {words[1]} {own(words[2])}")
        elif line.startswith("    connect "):
            port = words[1][1:]
            port = child.names.get(port, port) if child is not None else port
            lines.append(f"    connect \\{port} {own(words[2])}")
        elif words and words[0] in ("parameter", "attribute"):
            lines.append(line)
        else:
            lines.append(own(line))
    return "\n".join(lines) + "\n"


def _common_name(paths: list[list[str]]) -> str:
    """One name for instances at several places: what their paths, without numbers at the ends of words, share."""
    if len(paths) == 1:
        return "_".join(paths[0])
    words = [[re.sub(r"(_\d+)+$", "", part).split("_") for part in path] for path in paths]
    if len({len(path) for path in paths}) > 1:
        # At different depths: the folder all are in, and the last part.
        depth = 0
        while all(depth < len(path) - 1 and path[depth] == paths[0][depth] for path in paths):
            depth += 1
        words = [[*path[:depth], path[-1]] for path in words]
    parts = []
    for position, places in enumerate(zip(*words, strict=True)):
        if all(place == places[0] for place in places):
            parts.append("_".join(places[0]))
            continue
        shared = 0
        while all(shared < len(place) and place[-1 - shared] == places[0][-1 - shared] for place in places):
            shared += 1
        if shared:
            parts.append("_".join(places[0][len(places[0]) - shared :]))
        elif position == len(words[0]) - 1:
            parts.append("_".join(places[0]))
    return "_".join(parts)


def shared_modules(text: str, name: str) -> str:
    """The RTLIL text of a design with one module for each kind of block, called ``NAME__PLACE``.

    Parameters
    ----------
    text : str
        What `amaranth.back.rtlil.convert` gives; its top module is called `name`, and keeps its name and its ports.

    Raises
    ------
    ValueError
        If something is in the text besides modules, which Amaranth then began to write.
    """
    found = [_Module(path, body) for path, body in _MODULE.findall(text)]
    rest = _MODULE.sub("", text)
    if [line for line in rest.splitlines() if line.strip() and not line.startswith("attribute ")]:
        raise ValueError(f"RTLIL with more than modules in it: {rest.strip()[:200]}")
    modules = {module.path: module for module in found}
    kinds: dict[str, str] = {}  # the path of a module, and of the first one like it
    bodies: dict[str, str] = {}  # the path of the first module, and its body
    first: dict[str, str] = {}
    for module in reversed(found):  # those inside come after those they are in
        _choose_names(module, modules)
        body = _renamed(module, modules, kinds)
        kinds[module.path] = first.setdefault(body, module.path)
        bodies.setdefault(kinds[module.path], body)
    alike: dict[str, list[list[str]]] = {}
    for module in found:
        parts = [_plain(part) for part in module.path.split(".")[1:]]
        alike.setdefault(kinds[module.path], []).append(parts)
    final: dict[str, str] = {}
    for path, places in alike.items():
        wanted = f"{name}__{_common_name(places)}" if places[0] else name
        chosen, number = wanted, 2
        while chosen in final.values():
            chosen, number = f"{wanted}_{number}", number + 1
        final[path] = chosen
    modules_text = []
    for path, chosen in final.items():
        body = re.sub(r"^  cell \\(\S+)", lambda m: f"  cell \\{final.get(m[1], m[1])}", bodies[path], flags=re.M)
        top = "attribute \\top 1\n" if chosen == name else ""
        modules_text.append(f"{top}module \\{chosen}\n{body}end\n")
    return "\n".join(modules_text)

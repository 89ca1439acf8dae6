"""`sta-hw cache`: what is kept to spare time, and making room."""

from __future__ import annotations

from typing import Annotated

import typer

from ..cache import KINDS, cache_entries, cache_path, clear_cache
from ..errors import InputError
from .app import app
from .terminal import JsonOption, print_json, print_table, say

__all__: list[str] = []


@app.command(epilog="Example: sta-hw cache --clear --kind models --days 30")
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete them; all of it is made again when needed.")] = False,
    kind: Annotated[
        list[str] | None, typer.Option(help=f"These kinds alone: {', '.join(KINDS)}; may be repeated.")
    ] = None,
    days: Annotated[float, typer.Option(help="Those alone that were written longer ago.", min=0, max=100_000)] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Show what the cache holds, or clear it.

    It holds compiled simulations, emitted Verilog, text to tune with, and pruned and quantized weights.
    """
    for name in kind or ():
        if name not in KINDS:
            raise InputError(f"there is no kind {name!r} in the cache; it is {', '.join(KINDS)}.")
    kinds = kind or list(KINDS)
    age = 86400 * days
    entries = clear_cache(kinds, age) if clear else [e for e in cache_entries() if e.kind in kinds and e.age >= age]
    total = sum(e.bytes for e in entries)
    rows = []
    cells: list[tuple[str, ...]] = []
    for name in kinds:
        own = [e for e in entries if e.kind == name]
        if own:
            size, oldest = sum(e.bytes for e in own), max(e.age for e in own) / 86400
            rows.append({"kind": name, "files": len(own), "bytes": size, "oldest_days": oldest})
            cells.append((name, KINDS[name], f"{len(own):,}", f"{size:,}", f"{oldest:.0f}"))
    if as_json:
        about = {"folder": str(cache_path()), "cleared": clear, "files": len(entries), "bytes": total}
        print_json(about | {"kinds": rows})
        return
    say(f"{'Cleared in' if clear else 'In'} {cache_path()}:")
    cells.append(("all", "", f"{len(entries):,}", f"{total:,}", ""))
    print_table("", ("kind", "what", "files", "bytes", "oldest, days"), cells, left=2)

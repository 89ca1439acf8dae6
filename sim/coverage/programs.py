"""What programs had that ran: tables of N:M, encodings, results, masks and edges, and what of them is possible."""

from __future__ import annotations

import atexit
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from sta_hw.spec.config import Config
from sta_hw.spec.isa import Instruction, Mask, Opcode, Positions, Result, ValueFormat, codes
from sta_hw.spec.patterns import parse_nm

__all__ = ["Cross", "Programs", "crosses_of", "universe"]

Cross = tuple[str, ...]
"""The name of a table, and one value of each of its columns."""


def _edges(i: Instruction, config: Config) -> Iterator[str]:
    """Which of a product's borders lie within a tile, a block or a window."""
    if i["rows_before"] % config.rows:
        yield "first rows left out"
    if i["rows_after"] % config.rows:
        yield "last rows left out"
    if i["columns"] % config.groups:
        yield "columns in no whole blocks"
    if i["depth"] < config.window:
        yield "window in part"
    if i["passes"] > 1:
        yield "several windows"


def _keys(i: Instruction) -> str:
    """How many of a block's keys the mask lets through, where the instruction says so."""
    left = i["keys"] - i["key_start"] if i["mask"] != Mask.LENGTH else None
    if left is None:
        return "by LENGTH"
    return "none" if left <= 0 else "all" if left >= i["columns"] else "some"


def crosses_of(i: Instruction, config: Config, stalls: bool) -> Iterator[Cross]:
    """What one instruction counts for: the tables of docs/coverage.md.

    Parameters
    ----------
    stalls : bool
        Whether memory rested in between.
    """
    stall = "with stalls" if stalls else "without"
    if i.opcode not in (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT):
        yield ("instruction", i.opcode.name, stall)
        return
    result = Result(i["result"]).name if i.opcode == Opcode.PRODUCT else i.opcode.name
    pattern = f"{i['n']}:{1 << i['m_log2']}" if i["m_log2"] else "dense"
    encoding, value = Positions(i["encoding"]).name, ValueFormat(i["value_format"]).name
    yield ("instruction", i.opcode.name, stall)
    yield ("weights", pattern, encoding, value)
    yield ("result", result, encoding, value, stall)
    for edge in _edges(i, config):
        yield ("edge", result, edge)
    if i.opcode == Opcode.SCORES:
        yield ("mask", Mask(i["mask"]).name, _keys(i), stall)
    for name in ("continues", "unfinished", "wide", "multiply", "rotate", "place", "keep", "kept", "apart", "lift"):
        if i[name]:
            yield ("flag", name, value)


def universe(config: Config) -> set[Cross]:
    """All that hardware of a configuration can do of the tables ``weights``, ``result`` and ``mask``."""
    stalls = ("with stalls", "without")
    found: set[Cross] = {("instruction", o.name, s) for o in Opcode for s in stalls if o <= Opcode.NORM}
    kinds = [(Positions.DENSE.name, parse_nm("dense"))] + [
        (e.upper(), p) for p in config.patterns if p.m > 1 for e in config.encodings
    ]
    values = [ValueFormat(c).name for c in codes("value_format", config.abilities)]
    found |= {("weights", f"{p.n}:{p.m}" if p.m > 1 else "dense", e, v) for e, p in kinds for v in values}
    encodings = sorted({e for e, _ in kinds})
    results = [Result(c).name for c in codes("result", config.abilities)]
    found |= {("result", r, e, v, s) for r in results for e in encodings for v in values for s in stalls}
    found |= {("result", o, "DENSE", "INT8", s) for o in ("SCORES", "CONTEXT") for s in stalls}
    for code in codes("mask", config.abilities):
        mask = Mask(code)
        for keys in ("by LENGTH",) if mask == Mask.LENGTH else ("none", "some", "all"):
            found |= {("mask", mask.name, keys, s) for s in stalls}
    return found


class Programs:
    """Counts of programs that were begun in this process; written when it ends."""

    def __init__(self, folder: Path) -> None:
        self.counts: Counter[Cross] = Counter()
        self.possible: set[Cross] = set()
        self.folder = folder
        atexit.register(self.write)

    def add(self, program: Iterable[Instruction], config: Config, stalls: bool) -> None:
        """Count a program that begins on this hardware, with a memory that `stalls` or not."""
        self.possible |= universe(config)
        for i in program:
            self.counts.update(crosses_of(i, config, stalls))

    def write(self) -> None:
        """Leave the counts in a file of this process."""
        kept = {"counts": [[*cross, count] for cross, count in self.counts.items()], "possible": sorted(self.possible)}
        (self.folder / f"programs-{os.getpid()}.json").write_text(json.dumps(kept), encoding="utf-8")

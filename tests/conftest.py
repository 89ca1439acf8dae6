"""Which tests are quick: those that a developer runs every few minutes, with `make quick`."""

from __future__ import annotations

from pathlib import Path

import pytest

QUICK = {
    "accumulator", "array", "attention", "cli_configuration", "compression", "config", "counters", "docs", "drain",
    "files", "golden", "isa", "loops", "masks", "native", "nm", "norm",
    "queue", "requantizer", "results", "sequencer", "text", "transposer", "verilog", "weights", "windows",
}  # fmt: skip
"""Modules, without ``test_``: every format, and blocks on their own. Not the multipliers, whose tests try all operands,
nor what cocotb builds anew each time. The smallest accelerator runs in test_golden.py."""
MORE = {
    "test_engine.py::TestFaults",
    "test_engine.py::test_timing_diagram",
}
"""Tests of other modules: the engine as a whole."""


LONGEST = "test_docs.py::test_what_is_quick_runs_as_written"
"""One test of minutes: it begins first, so that no process waits for another at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them, and begin with the longest."""
    items.sort(key=lambda item: LONGEST not in item.nodeid)
    here = Path(__file__).parent
    if gone := [module for module in sorted(QUICK) if not any(here.rglob(f"test_{module}.py"))]:
        raise pytest.UsageError(f"tests/conftest.py: there is no test of {', '.join(gone)}")
    for item in items:
        name = item.nodeid.partition("[")[0].rpartition("/")[2]
        module = name.split(".py")[0].removeprefix("test_")
        chosen = module in QUICK and name != LONGEST and not item.get_closest_marker("slow")
        if chosen or any(name.startswith(test) for test in MORE):
            item.add_marker(pytest.mark.quick)

"""Runs the cocotb bench of a stream block on Verilator or Icarus."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from amaranth.lib import wiring
from cocotb_tools.runner import get_runner
from numpy.typing import NDArray

from sta_hw.rtl.emit import emit_verilog, ports_of, streams_of

from . import verilator

__all__ = ["Case", "run_cocotb"]


@dataclass(frozen=True)
class Case:
    """Beats for the inputs (as `sta_hw.host.beats` makes them), and how many each output gives."""

    inputs: Mapping[str, NDArray[np.uint32]]
    expected: Mapping[str, int]
    stall: float = 0.0
    limit: int = 20_000


def _as_hex(beats: NDArray[np.uint32]) -> list[str]:
    return [hex(int.from_bytes(row.astype("<u4").tobytes(), "little")) for row in beats]


def _as_words(beats: Sequence[str], width: int) -> NDArray[np.uint32]:
    words = (width + 31) // 32
    raw = b"".join(int(b, 16).to_bytes(4 * words, "little") for b in beats)
    return np.frombuffer(raw, "<u4").reshape(-1, words).astype(np.uint32)


def run_cocotb(
    component: wiring.Component, name: str, cases: Sequence[Case], *, simulator: str = "verilator"
) -> list[dict[str, NDArray[np.uint32]]]:
    """Emit the component's Verilog, build it, run all cases in one simulation.

    Returns
    -------
    One dict of output beats per case.

    Raises
    ------
    AssertionError
        If a case does not come to its end, or an output gives more beats than expected.
    """
    streams = streams_of(component)
    widths = {s.name: s.width for s in streams}
    folder = Path(tempfile.mkdtemp(prefix="sta_hw_"))
    try:
        (folder / f"{name}.v").write_text(emit_verilog(component, name))
        vectors: dict[str, Any] = {
            "inputs": [s.name for s in streams if s.direction == "input"],
            "outputs": [s.name for s in streams if s.direction == "output"],
            "cases": [
                {
                    "inputs": {k: _as_hex(v) for k, v in c.inputs.items()},
                    "expected": dict(c.expected),
                    "stall": c.stall,
                    "limit": c.limit,
                }
                for c in cases
            ],
        }
        (folder / "vectors.json").write_text(json.dumps(vectors))
        environment = verilator.environment() | {"STA_HW_VECTORS": str(folder)}
        with mock.patch.dict(os.environ, environment):
            runner = get_runner(simulator)
            sources, arguments = [folder / f"{name}.v"], []
            if simulator == "verilator":
                (folder / "public.vlt").write_text(verilator.public({name: [p.name for p in ports_of(component)]}))
                sources, arguments = [folder / "public.vlt", *sources], verilator.COCOTB_ARGUMENTS
            runner.build(
                sources=sources,
                hdl_toplevel=name,
                build_dir=folder / "build",
                build_args=arguments,
                timescale=("1ns", "1ps"),
                always=True,
                log_file=folder / "build.log",
            )
            runner.test(
                hdl_toplevel=name,
                test_module="sim.cocotb_streams",
                build_dir=folder / "build",
                test_dir=folder / "build",
                log_file=folder / "test.log",
                timescale=("1ns", "1ps"),
            )
        results_file = folder / "results.json"
        if not results_file.exists():
            tail = "\n".join((folder / "test.log").read_text(encoding="utf-8").splitlines()[-20:])
            raise AssertionError(f"the simulation of {name} gave no results:\n{tail}")
        results = json.loads(results_file.read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for number, result in enumerate(results):
        assert not result["waiting"], f"case {number}: outputs {result['waiting']} wait for beats"
        assert not result["surplus"], f"case {number}: outputs {result['surplus']} give beats too many"
    assert len(results) == len(cases)
    return [{k: _as_words(v, widths[k]) for k, v in r["outputs"].items()} for r in results]

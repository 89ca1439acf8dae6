"""A run as a Perfetto timeline (Chrome trace JSON): what each unit did, when each layer ran."""

from __future__ import annotations

import json
from typing import Any

from ..compiler.model import CompiledModel
from ..spec.isa import Opcode
from ..spec.registers import COUNTERS

__all__ = ["chrome_trace"]

_MATRIX = (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT)


def chrome_trace(model: CompiledModel, run: Any) -> str:
    """JSON text for https://ui.perfetto.dev; one microsecond stands for one cycle.

    Slices: layers in the array, LayerNorm tiles, loads. Counter tracks: each unit's share of busy cycles.
    """
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": f"STA-HW {model.config.hash}"}}
    ]
    kinds = (("matrix", 1, _MATRIX), ("norms", 2, (Opcode.NORM,)), ("loads", 3, (Opcode.LOAD,)))
    names = {"matrix": "matrix engine", "norms": "LayerNorm", "loads": "loader"}
    issued = model.issued()
    for kind, thread, opcodes in kinds:
        events.append({"ph": "M", "pid": 1, "tid": thread, "name": "thread_name", "args": {"name": names[kind]}})
        labels = [label for opcode, label in issued if opcode in opcodes]
        begin, current, end = 0, None, 0
        for label, cycle in [*zip(labels, run.completed[kind].tolist(), strict=False), (None, None)]:
            if label != current:
                if current is not None:
                    events.append(
                        {"ph": "X", "pid": 1, "tid": thread, "name": current, "ts": begin, "dur": max(1, end - begin)}
                    )
                begin, current = end, label
            end = cycle if cycle is not None else end
    for index, counter in enumerate(COUNTERS[1:]):
        for sample, value in enumerate(run.samples[:, index].tolist()):
            events.append(
                {
                    "ph": "C", "pid": 1, "name": counter.name, "ts": sample * run.period,
                    "args": {"share": round(value / run.period, 4)},
                }
            )  # fmt: skip
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"})

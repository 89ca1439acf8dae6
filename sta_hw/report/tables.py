"""A run by layer: cycles, fraction of ideal, and the N:M found and used."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..compiler.model import CompiledModel
from ..spec.isa import Opcode

__all__ = ["by_layer", "counters_table"]

_MATRIX = (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT)


def by_layer(model: CompiledModel, run: Any) -> list[dict[str, Any]]:
    """One row per linear layer and attention, in the order they run.

    A layer's cycles are those between the end of the layer before in the array and its own end.
    """
    labels = [label for opcode, label in model.issued() if opcode in _MATRIX]
    spans = np.diff(run.completed["matrix"], prepend=0)
    cycles: dict[str, int] = {}
    for label, span in zip(labels, spans.tolist(), strict=True):
        cycles[label] = cycles.get(label, 0) + span
    described = {layer.layer: layer for layer in model.info.layers}
    rows = []
    for label, count in cycles.items():
        layer = described.get(label)
        ideal = layer.work / model.config.macs if layer else 0.0
        rows.append(
            {
                "layer": label,
                "shape": f"{model.tokens} x {layer.reduction} x {layer.columns}" if layer else "",
                "found": layer.nm if layer else "",
                "used": layer.used if layer else "",
                "why_not": layer.why_not if layer else "",
                "encoding": layer.encoding if layer else "",
                "weight_bytes": layer.bytes if layer else 0,
                "cycles": count,
                "ideal": ideal,
                "fraction": ideal / count if count else 0.0,
            }
        )
    return rows


def counters_table(run: Any) -> list[dict[str, Any]]:
    """Every counter with its share of the cycles and what it means."""
    from ..spec.registers import COUNTERS

    return [
        {
            "counter": c.name,
            "cycles": run.counters[c.name],
            "share": run.counters[c.name] / run.cycles,
            "meaning": c.text,
        }
        for c in COUNTERS
    ]

"""Answers to questions, computed where a worker is: from JSON types to JSON types, the same whoever computes them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cycles.timing import MachineTiming
from ..errors import InputError, ToolError
from ..formats.provenance import bytes_digest, digest
from ..fpga.fit import shortages, survey
from ..fpga.flow import synthesize_top
from ..fpga.parts import part
from ..fpga.routing import Tries, packed_logic
from ..report.accuracy import accuracy_inputs, dense_network, one_shot_cosines
from ..report.plan import Shape, Target, judge
from ..spec.config import Config
from ..spec.patterns import Pattern, parse_nm
from ..tasks.embedder import Embedder
from .question import versions

__all__ = ["accuracy_content", "answer", "configuration_of"]

_TOP = "accelerator"


def answer(
    kind: str, content: Mapping[str, Any], places: Mapping[str, str | None], wanted: Mapping[str, str]
) -> dict[str, Any]:  # fmt: skip
    """Compute one; the arguments are a `sta_hw.explore.question.Question`'s, and the versions of who asks.

    Raises
    ------
    ToolError
        If this process has other versions, or a tool fails.
    InputError
        If a checkpoint is not here, or is another one.
    """
    if other := [f"{n} {v}" for n, v in versions(kind).items() if wanted.get(n) != v]:
        asked = ", ".join(f"{n} {wanted.get(n)}" for n in versions(kind) if wanted.get(n) != versions(kind)[n])
        raise ToolError(f"a worker has {', '.join(other)}, and who asks it {asked}; install the same on both.")
    return {"point": _point, "accuracy": _accuracy, "synthesis": _synthesis}[kind](content, places)


def configuration_of(parameters: Mapping[str, Any]) -> Config:
    """The configuration that `Config.as_dict` described."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()}
    return Config(**values)


def _patterns(table: Mapping[str, str]) -> dict[str, Pattern]:
    return {name: parse_nm(text) for name, text in table.items()}


def _point(content: Mapping[str, Any], _: Mapping[str, str | None]) -> dict[str, Any]:
    """Size by the estimate; cycles and bytes by the cycle model, unless the part has no room for it."""
    config, chosen = configuration_of(content["configuration"]), part(content["part"])
    (row,) = survey(_TOP, chosen, {"": config}, choose=False)
    cells = {name: row[name] for name in ("logic", "multipliers", "memories")}
    found: dict[str, Any] = {**cells, "fits": row["fits"], "first": row["first"], "share": row["share"]}
    found |= {"cycles": None, "fraction_of_ideal": None, "bytes": None}
    if row["fits"] == "no":
        return found | {"problems": shortages(cells, chosen)}
    memory = content["memory"]
    timing = MachineTiming(memory["latency"], memory["beats_per_cycle"], memory["shared"])
    target = Target("", config, 1.0, timing, memory["bytes"])
    choice = judge(Shape(**content["shape"], tokens=content["tokens"]), target, "", _patterns(content["nm"]))
    found |= {name: getattr(choice, name) for name in ("cycles", "fraction_of_ideal", "bytes")}
    return found | {"problems": list(choice.problems)}


def accuracy_content(
    embedder: Embedder, given: Path | None, calibration: Path | None, count: int,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, Any], Embedder, list[NDArray[np.float32]]]:  # fmt: skip
    """What a model's accuracy depends on beside N:M and pruner: digests; the network that is compared with; inputs.

    `note` is told where that is not the dense one. Raises what `sta_hw.report.accuracy.accuracy_inputs` does.
    """
    figure, _, dense = dense_network(embedder, note)
    inputs = accuracy_inputs(embedder, given, count)
    source = embedder.source
    content = {
        "weights": source.weights, "tokenizer": source.tokenizer, "compared_with": dense.source.weights,
        "figure": figure, "calibration": bytes_digest(calibration.read_bytes()) if calibration else None,
        "inputs": digest([[list(i.shape), bytes_digest(np.ascontiguousarray(i).view(np.uint8))] for i in inputs]),
        "count": count,
    }  # fmt: skip
    return content, dense, inputs


def _accuracy(content: Mapping[str, Any], places: Mapping[str, str | None]) -> dict[str, Any]:
    """Cosines of a model at an N:M with the dense one, on the reference."""
    folder, given, calibration = (
        Path(place) if (place := places[name]) else None for name in ("folder", "inputs", "calibration")
    )  # fmt: skip
    embedder = Embedder.load(folder)
    here, dense, inputs = accuracy_content(embedder, given, calibration, content["count"])
    if other := [name for name, value in here.items() if content[name] != value]:
        raise InputError(
            f"{embedder.source.place} has other {', '.join(other)} where a worker reads it; workers need the same "
            "files at the same place."
        )
    found = one_shot_cosines(dense, embedder, _patterns(content["nm"]), content["pruner"], inputs, calibration)
    return {"cosine": float(found.mean()), "smallest_cosine": float(found.min())}


def _synthesis(content: Mapping[str, Any], _: Mapping[str, str | None]) -> dict[str, Any]:
    """Cells of a configuration as Yosys and nextpnr count them."""
    config, chosen = configuration_of(content["configuration"]), part(content["part"])
    with tempfile.TemporaryDirectory(prefix="sta_hw_") as folder:
        cells = synthesize_top(_TOP, config, chosen, Path(folder), Tries())["cells"]
        logic = packed_logic(_TOP, chosen, Path(folder))
    return {"logic": logic, "multipliers": cells["MULT18X18D"], "memories": cells["DP16KD"], "cells": cells}

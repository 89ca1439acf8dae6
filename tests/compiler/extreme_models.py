"""Small models with changed tensors, and what must come of them: the right answer, or a refusal in a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from support import embed, in_fp32

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import InputError
from sta_hw.model.graph import Graph
from sta_hw.model.random import random_ids, random_model
from sta_hw.run.backends import ReferenceBackend, RtlBackend
from sta_hw.run.outcome import compare
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
IDS = random_ids(1, 12)
LAYER = "encoder.layer.0."
Change = Callable[[dict[str, np.ndarray]], None]


def changed(model: Graph, change: Change) -> Graph:
    tensors = {k: v.copy() for k, v in model.tensors.items()}
    with np.errstate(all="ignore"):
        change(tensors)
    return model.with_tensors(tensors)


def make(seed: int = 0, **kind: Any) -> Graph:
    return random_model(seed, layers=2, **kind)


def outcome(model: Graph, ids: list[int] = IDS, rtl: bool = False, others: int = 8) -> float:
    """Cosine with the model's own fp32 output; on RTL, which then equals the reference, if asked for.

    Calibrated with `others` texts and this one.
    """
    quantized = quantize(model, [random_ids(s, 24) for s in range(others)] + [ids])
    program = compile_encoder(quantized, CONFIG, len(ids))
    found = ReferenceBackend(CONFIG).run(program, embed(model, ids))
    if rtl:
        hardware = RtlBackend(CONFIG).run(program, embed(model, ids))
        compare(program, hardware.image, found.image)
    exact = in_fp32(model, ids).astype(np.float64)
    return float(found.embedding @ exact / np.linalg.norm(exact))


def right_or_refused(model: Graph, *, rtl: bool = False) -> str:
    """The sentence of a refusal; else nothing, and the answer was right."""
    try:
        cosine = outcome(model, rtl=rtl)
    except InputError as error:
        sentence = str(error)
        assert re.search(r"encoder\.layer\.\d|embeddings\.|\b\d\.[a-z]", sentence), sentence  # tensor
        assert re.search(r"(row|token|head|channel) \d", sentence), sentence  # place
        assert re.search(r"\d\.?\d*e[+-]?\d+|nan|inf|\d\.\d", sentence), sentence  # value
        assert re.search(r"limit|ends at|must be|up to a ratio of|resolve beyond|apart", sentence), sentence
        return sentence
    assert cosine >= 0.98
    return ""


def scaled(name: str, factor: float, where: object = slice(None)) -> Change:
    def change(t: dict[str, np.ndarray]) -> None:
        t[LAYER + name if LAYER + name in t else name][where] *= np.float32(factor)

    return change


def put(name: str, value: float, where: object = slice(None)) -> Change:
    def change(t: dict[str, np.ndarray]) -> None:
        t[LAYER + name if LAYER + name in t else name][where] = value

    return change


def both(*changes: Change) -> Change:
    def change(t: dict[str, np.ndarray]) -> None:
        for c in changes:
            c(t)

    return change

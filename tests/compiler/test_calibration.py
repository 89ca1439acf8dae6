"""What calibration sees and refuses, by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from extreme_models import both, changed, put
from numpy.typing import NDArray

from sta_hw.compiler.calibration import Calibration, require_normalizable
from sta_hw.errors import InputError
from sta_hw.model.graph import Graph
from sta_hw.model.operations import Attention, Output
from sta_hw.model.part import accelerator_part
from sta_hw.model.random import random_ids, random_model

LARGEST = float(np.finfo(np.float32).max)


def refused(values: NDArray | list[list[float]], step: float = 0.0, epsilon: float = 1e-12) -> str:
    """What is said about values to normalize; nothing if they are fine. Blame is by whether they are too large."""
    try:
        require_normalizable(np.array(values), "it", step, lambda large: f", large: {large}", epsilon)
    except InputError as error:
        return str(error)
    return ""


def test_tokens_that_fp32_cannot_normalize() -> None:
    """Four values of the largest square of which fp32 holds a fourth are fine."""
    most = math.sqrt(LARGEST / 4)
    fine = [[most, -most, most, -0.9 * most]]
    assert not refused(fine)
    said = refused([[0.0] * 4, [1.001 * most, 0, 0, 0]])
    assert "it, token 1, reaches 9.23e+18" in said and "values of 9.2e+18 are the limit, large: True." in said


def test_variances_that_the_epsilon_hides() -> None:
    """A hundred of BERT's, twenty of the model's, whichever is more."""
    assert not refused([[1.0, -1.0]], epsilon=0.05) and refused([[1.0, -1.0]], epsilon=0.051)
    for epsilon, least in ((1e-12, 1e-10), (1e-5, 2e-4), (5.0e-12, 1e-10), (5.1e-12, 1.02e-10)):
        root = math.sqrt(least)
        assert not refused([[root * 1.001, -root * 1.001]], epsilon=epsilon)
        said = refused([[1.0, 2.0], [root * 0.999, -root * 0.999]], epsilon=epsilon)
        assert f"it, token 1, has the variance {0.998 * least:.3g}" in said and said.endswith(", large: False.")
        assert f"the limit is {least:g}" in said


def test_tokens_that_are_constant() -> None:
    """Of zeros always; of anything where each token has a scale of its own, but for a millionth."""
    alike = [[1e3, 1e3], [1e3, 1e3 + 1e-3]]
    assert not refused([[0.0, 0.0]]) and not refused([[0.0, 0.0]], 1.0) and not refused(alike)
    assert "has the variance 0" in refused(alike, 1.0)
    # A deviation of 1 is just a millionth of a million, and that is no rounding.
    assert "token 0, has the variance 1" in refused([[1e6, 1e6 - 2]], epsilon=0.1)
    assert "token 0, has the variance" in refused([[1e-6, 1.1e-6]])
    assert "token 1, has the variance" in refused([[0.0, 0.0], [1e-6, -1e-6]])


def test_tokens_that_steps_do_not_resolve() -> None:
    """Their deviation is two steps at least."""
    assert not refused([[2.0, -2.0]], 1.0)
    said = refused([[9.0, -9.0], [1.9, -1.9]], 1.0)
    assert "it, token 1, deviates by 1.9 from its mean, where other tokens reach 2.18e+04" in said
    assert "up to a ratio of 10,922, large: True." in said


MODEL = random_model(0, layers=2)
TEXTS: list[list[int] | NDArray[np.float32]] = [random_ids(0, 5), random_ids(1, 3)]


def calibration(graph: Graph = MODEL) -> Calibration:
    """Of two texts, of five and of three tokens."""
    return Calibration(accelerator_part(graph), TEXTS)


def test_what_was_seen() -> None:
    found = calibration()
    name = "0.attention.self.query"
    seen = found.seen(name)
    assert seen.shape == (8, 32) and np.array_equal(seen[5:], found.runs[1][name])
    line = next(line for line in str(found).split("\n") if line.startswith(f"  {name} "))
    assert line == f"  {name} (8, 32) from {seen.min():.6g} to {seen.max():.6g}, {seen.std():.6g}"
    assert str(found).startswith(f"calibration {found.part.graph.name}, 2 texts\n") and "result" not in str(found)


def test_the_largest_scores() -> None:
    """Each query with each key of its text, head by head, without what was common to all keys."""
    found = calibration()
    attention = found.part.inner.by_name["0.context"]
    assert isinstance(attention, Attention) and attention.heads == 2
    names = [f"0.attention.self.{n}" for n in ("query", "key")]
    common = np.linspace(-1, 1, 32)
    wanted = [0.0, 0.0]
    for run in found.runs:
        query, key = (run[n].astype(np.float64) for n in names)
        for head in range(2):
            at = slice(16 * head, 16 * head + 16)
            for q in query:
                for k in key:
                    wanted[head] = max(wanted[head], abs(q[at] @ (k - common)[at]) / 4)
    assert found.largest_scores(attention, common) == pytest.approx(wanted)


def test_who_is_to_blame() -> None:
    """The tensor with the largest value, or whose largest is least, of those that a value comes from."""
    model = changed(MODEL, put("attention.self.key.bias", 0))
    tensors, found = model.tensors, calibration(model)
    part = found.part.graph
    until = [o.name for o in part.operations].index("0.sum1")
    first = [name for o in part.operations[: until + 1] for name in part.arrays(o)]
    peaks = {n: float(np.abs(tensors[n]).max()) for n in first if tensors[n].any()}
    large, small = max(peaks, key=lambda n: peaks[n]), min(peaks, key=lambda n: peaks[n])
    place = np.unravel_index(np.abs(tensors[large]).argmax(), tensors[large].shape)
    where = f"row {place[0]}, column {place[1]}" if len(place) == 2 else f"channel {place[0]}"
    said = found.blame("0.sum1", True)
    assert said == f"; the largest weight up to here is {large}, {where}: {peaks[large]:.3g}"
    said = found.blame("0.sum1", False)
    assert said.startswith(f"; of the tensors up to here {small} has the smallest values: {peaks[small]:.3g} at most")
    # Nothing before the first operation has weights.
    assert found.blame(part.operations[0].name, True) == ""


def test_what_calibration_refuses() -> None:
    part = accelerator_part(MODEL)
    assert str(Calibration(part, [[1]])).count("(1, 32) from ") > 10
    with pytest.raises(InputError, match="no calibration sentence"):
        Calibration(part, [])
    wrong = np.zeros((3, 32), np.float32)
    wrong[2, 7] = np.nan
    with pytest.raises(InputError, match="calibration text 1: its sum of embeddings, token 2, channel 7, is nan"):
        Calibration(part, [TEXTS[0], wrong])
    with pytest.raises(InputError, match=r"text 0: 0\.intermediate\.dense, token 0, channel 3, is -?inf: fp32"):
        calibration(changed(MODEL, put("intermediate.dense.weight", 1e38, 3)))
    last = "encoder.layer.1.output.LayerNorm"
    nothing = changed(MODEL, both(put(f"{last}.weight", 0), put(f"{last}.bias", 0)))
    with pytest.raises(InputError, match=f"text 0: the model's output is zero, .*see {last}.weight and {last}.bias"):
        calibration(nothing)


def test_outputs_that_are_not_pooled() -> None:
    """Of them the first token's must not be zero."""
    every = MODEL.replaced({"embedding": Output("embedding", ("1.output",))})
    graph = dataclasses.replace(every, operations=tuple(o for o in every.operations if o.name != "mean"))
    assert Calibration(accelerator_part(graph), [[1]]).runs[0]["result"].shape == (1, 32)
    embedded = np.zeros((2, 32), np.float32)
    embedded[1] = np.arange(32)
    nothing = changed(graph, both(*(put(n, 0) for n in graph.tensors if n.endswith((".bias", "value.weight")))))
    with pytest.raises(InputError, match="output is zero"):
        Calibration(accelerator_part(nothing), [embedded])

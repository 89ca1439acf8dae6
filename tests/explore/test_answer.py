"""Answers are what plan, fit and the accuracy's own functions give."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from test_families import TEXT, saved

from sta_hw.compiler.shape import estimate_encoder
from sta_hw.cycles.timing import MachineTiming
from sta_hw.errors import InputError, ToolError
from sta_hw.explore.answer import answer
from sta_hw.explore.question import versions
from sta_hw.explore.subjects import checkpoint, of_shape
from sta_hw.explore.sweep import Hardware, Memory, Point, sweep
from sta_hw.fpga.fit import estimate
from sta_hw.fpga.parts import PARTS
from sta_hw.model.minilm import evaluation_sentences
from sta_hw.report.accuracy import accuracy_inputs, one_shot_cosines
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS
from sta_hw.tasks.embedder import Embedder
from sta_hw.tasks.patterns import read_patterns

SHAPE = {"hidden": 64, "heads": 2, "layers": 2, "intermediate": 128}


def point(preset: str = "small", part: str = "lfe5u-85f", shape: dict[str, int] = SHAPE, **memory: int) -> Point:
    points, refused = sweep(
        [Hardware(preset, PRESETS[preset])], [of_shape(shape, "2:4", [9])], PARTS[part], Memory(**memory)
    )
    assert not refused
    return points[0]


def test_a_point() -> None:
    asked = point(latency=30)
    found = answer("point", asked.question.content, {}, versions("point"))
    cells = estimate("accelerator", asked.config)
    assert {name: found[name] for name in cells} == cells and found["fits"] == "yes" and not found["problems"]
    patterns = {name: parse_nm("2:4") for name in asked.question.content["nm"]}
    cycles = estimate_encoder(
        **SHAPE, patterns=patterns, config=asked.config, tokens=9, timing=MachineTiming(30), alike=True
    )
    assert found["cycles"] == round(cycles.cycles) and found["bytes"] == round(cycles.image_bytes)


def test_what_cannot_be_says_why() -> None:
    for asked, message in (
        (point(part="lfe5u-25f", preset="reference"), "logic cells do not fit lfe5u-25f, which has 24,288"),
        (point(bytes=1000), "and the memory has 1,000"),
        (point(shape=SHAPE | {"heads": 3}), "heads = 3 does not divide hidden = 64"),
    ):
        found = answer("point", asked.question.content, {}, versions("point"))
        assert message in " ".join(found["problems"])
        assert (found["fits"] == "no") == ("fit lfe5u" in message)


def test_other_versions_are_refused() -> None:
    with pytest.raises(ToolError, match="install the same on both"):
        answer("point", point().question.content, {}, versions("point") | {"sources": "0123"})


def test_accuracy(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "the", "a", "of", "is"]
    saved(tmp_path / "model", "BertModel", TEXT | {"vocab_size": len(words), "num_hidden_layers": 1})
    (tmp_path / "model/vocab.txt").write_text("\n".join(words))
    embedder = Embedder.load(tmp_path / "model")
    subject = checkpoint(embedder, "dense,2:4", [9, 10_000], inputs=2, pruner="magnitude")
    assert "10000 exceeds the model's positions" in subject.problems[10_000] and set(subject.problems) == {10_000}
    asked = subject.accuracy["2:4"]
    found = answer("accuracy", asked.content, asked.places, versions("accuracy"))
    inputs = accuracy_inputs(embedder, None, 2)
    assert len(inputs) == 2 and len(inputs[0]) <= len(evaluation_sentences()[0])
    patterns = read_patterns("2:4", None, embedder.linears)
    cosines = one_shot_cosines(embedder, embedder, patterns, "magnitude", inputs)
    assert found == {"cosine": cosines.mean(), "smallest_cosine": cosines.min()} and found["cosine"] < 1
    # The key follows the weights, not the place; a worker that sees others says so.
    assert asked.key != subject.accuracy["dense"].key
    moved = dataclasses.replace(asked, places=asked.places | {"folder": "/elsewhere"})
    assert moved.key == asked.key
    with pytest.raises(InputError, match=r"has other weights, compared_with where a worker reads it"):
        content = dict(asked.content) | {"weights": "0", "compared_with": "0"}
        answer("accuracy", content, asked.places, versions("accuracy"))

"""What a report begins with: each figure from what it is said to be of."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.report.summary import pattern_words, summary
from sta_hw.spec.patterns import DENSE, Pattern
from sta_hw.spec.presets import PRESETS


def test_figures() -> None:
    model = random_model(0, layers=1)
    compiled = [
        compile_encoder(quantize(model, [random_ids(0, 9)], mixed_patterns(list(p))), PRESETS["ci"], 5)
        for p in ((Pattern(2, 4), Pattern(2, 4), DENSE), (Pattern(2, 4),), (DENSE,))
    ]
    assert [pattern_words(c) for c in compiled] == ["2:4 (4 layers), dense (2 layers)", "2:4", "dense"]
    run = SimpleNamespace(cycles=2000, counters={"read_beats": 100, "write_beats": 30})
    found = summary(compiled[1], run, megahertz=50.0, dense_cycles=3000.0, name="m", cosine=0.5, whose="d")
    assert (found["model"], found["nm"], found["tokens"], found["compared_with"]) == ("m", "2:4", 5, "d")
    assert found["speedup_over_dense"] == 1.5 and found["milliseconds"] == pytest.approx(0.04)
    alone = summary(compiled[1], run, megahertz=50.0, dense_cycles=None, name="m", cosine=0.5, whose="d")
    assert alone == found | {"speedup_over_dense": None}
    assert found["fraction_of_ideal"] == compiled[1].info.ideal_cycles / 2000
    bus = PRESETS["ci"].bus_bytes
    assert (found["bytes_read"], found["bytes_written"]) == (100 * bus, 30 * bus)
    assert found["image_bytes"] == len(compiled[1].image) and found["cosine"] == 0.5

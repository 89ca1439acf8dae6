"""Programs of generated benches: for any accelerator, and nothing but an end where no layer fits."""

from __future__ import annotations

import numpy as np
import pytest

from sta_hw.generate.bench_vectors import program_vectors, stream_vectors
from sta_hw.host import beats
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Opcode, disassemble
from sta_hw.spec.presets import PRESETS

SMALL = {"rows": 4, "groups": 2, "lanes": 4, "drain_lanes": 2}


@pytest.mark.parametrize(
    ("sizes", "layer"),
    [
        (SMALL, True),
        (SMALL | {"columns": 16, "weight_words": 512}, True),
        ({"rows": 64, "groups": 64, "lanes": 8, "drain_lanes": 4}, True),
        (SMALL | {"weight_words": 1}, False),
        ({"rows": 128, "groups": 128, "lanes": 8, "drain_lanes": 4, "columns": 4}, False),
    ],
)
def test_a_program_for_any_accelerator(sizes: dict[str, int], layer: bool) -> None:
    config = Config(**sizes)
    config.require_accelerator()
    found = program_vectors(config)
    instructions = disassemble(found.image[found.program_address :].tobytes(), config)
    assert instructions[-1].opcode == Opcode.HALT
    units = set(Opcode) - {Opcode.SET, Opcode.LOOP, Opcode.NEXT}
    there = {i.opcode for i in instructions}
    assert units <= there if layer else there == {Opcode.HALT}
    assert (found.image != found.expected).any() == layer
    assert len(found.image) % (config.burst * config.bus_bytes) == 0


@pytest.mark.parametrize("name", ["ci", "small", "reference"])
def test_results_of_products_are_seldom_at_an_end(name: str) -> None:
    """Where they are, a bench sees nothing of what bias, multiplier and most of the sum do."""
    config = PRESETS[name]
    words = stream_vectors("engine", config).outputs["results"]
    results = beats.fields(words, [(config.drain_lanes, 16, True), (1, 1, False)])[0]
    assert np.mean(np.abs(results) < 127) > 0.5 and len(np.unique(results)) > 20

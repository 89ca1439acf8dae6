"""A norm's instructions, by hand: a tile each, behind the product that it waits for."""

from __future__ import annotations

import numpy as np
import pytest

from sta_hw.compiler.lower.norm import interleave_norms, norm
from sta_hw.compiler.lower.state import Lowering
from sta_hw.compiler.packing import Packing
from sta_hw.compiler.parameters import NormParameters
from sta_hw.compiler.schedule import Step
from sta_hw.compiler.shapes import shape_graph
from sta_hw.spec.isa import Opcode
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
"""4 rows: 9 tokens are 3 row tiles."""


def lowered(width: int = 32, **names: str) -> Lowering:
    low = Lowering(shape_graph(width, 2, 1, 2 * width), CONFIG, Packing.aligned([9], 4))
    scale, shift, multiplier = (np.arange(width) + start for start in (1, -100, 1000))
    events = {"needs": "sum", "gives": "normed", **names}
    norm(low, "here", NormParameters(scale, shift, multiplier), "stream0", "norm0.16", "norm0.8", **events)
    return low


def test_fields() -> None:
    """Of 16 bits the tiles are 32 columns of 8 bytes, of 8 bits of 4 bytes."""
    low = lowered()
    ((name, at, size),) = [place for place in low.image.places if "LayerNorm" in place[0]]
    assert (name, size) == ("here: LayerNorm", 32 * 8)
    for tile, step in enumerate(low.steps):
        assert step.opcode == Opcode.NORM and step.label == "here" and step.weight == 1.0
        assert step.fields == {
            "input_address": low.buffers["stream0"] + 256 * tile, "wide_address": low.buffers["norm0.16"] + 256 * tile,
            "narrow_address": low.buffers["norm0.8"] + 128 * tile, "parameters_address": at, "width": 32,
            "inverse": 1 << 28, "inverse_high": 0,
        }  # fmt: skip
        assert (step.needs, step.gives) == ((("sum", tile),), (("normed", tile),))
    assert len(low.steps) == 3
    word = int.from_bytes(low.image.finish()[at + 8 : at + 16].tobytes(), "little")
    assert (word & 0x3FFFF, word >> 18 & 0xFFFF, word >> 34) == (2, (-99) & 0xFFFF, 1001)


def test_what_a_tile_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outline has some of the tiles, with how many each stands for, and is told that each has one instruction."""
    told: list[tuple[int, int]] = []

    def some(low: Lowering, count: int, inner: int, attention: bool = False) -> list[tuple[int, float]]:
        told.append((count, inner))
        return [(0, 1.0), (2, 2.0)]

    monkeypatch.setattr(Lowering, "repeat", some)
    low = lowered()
    assert [(step.gives[0][1], step.weight) for step in low.steps] == [(0, 1.0), (2, 2.0)]
    low.steps[:0] = [Step(Opcode.PRODUCT, {}, label="last", gives=(("sum", 0), ("sum", 2)))]
    interleave_norms(low, 1)
    assert told == [(3, 1)] * 2 and [step.opcode for step in low.steps] == [Opcode.PRODUCT, Opcode.NORM, Opcode.NORM]


def test_what_the_host_stores_is_not_waited_for() -> None:
    assert [step.needs for step in lowered(needs="").steps] == [()] * 3


@pytest.mark.parametrize(("width", "inverse"), [(2, 1 << 32), (6, 1431655765), (10, 858993459), (34, 252645135)])
def test_the_width_s_inverse(width: int, inverse: int) -> None:
    """2^33 by the width, to the nearest; of the narrowest it has 33 bits."""
    fields = lowered(width).steps[0].fields
    assert fields["inverse"] + (fields["inverse_high"] << 32) == inverse
    assert fields["inverse_high"] == int(width == 2)


def test_norms_follow_their_products() -> None:
    """Of two chunks of columns, the last one gives a tile; what ends first is normalized first."""
    low = lowered()
    norms, others = low.steps, [Step(Opcode.PRODUCT, {}, label="before")]
    products = [Step(Opcode.PRODUCT, {}, label=f"product {n}") for n in range(3)]
    products += [Step(Opcode.PRODUCT, {}, label=f"last {n}", gives=(("other", n), ("sum", n))) for n in (1, 0, 2)]
    low.steps = [*others, *products, *norms]
    interleave_norms(low, len(products))
    expected = ["before", "product 0", "product 1", "product 2", "last 1", 1, "last 0", 0, "last 2", 2]
    assert [s.label if s.opcode == Opcode.PRODUCT else norms.index(s) for s in low.steps] == expected

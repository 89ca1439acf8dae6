"""Which texts run together, and that what comes out is each input's own, in order."""

from __future__ import annotations

import numpy as np
import pytest

from sta_hw.errors import CheckError, InputError
from sta_hw.run.backends import ReferenceBackend
from sta_hw.spec.presets import PRESETS
from sta_hw.tasks.batch import Batcher, fill
from sta_hw.tasks.embedder import Embedder
from sta_hw.tasks.patterns import read_patterns


@pytest.mark.parametrize("most", [16, 60, 128, 512])
def test_fill(most: int) -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 80, 200)]
    rows = 16
    bins = fill(lengths, rows, most)
    assert sorted(i for b in bins for i in b) == list(range(200))
    sizes = [sum(lengths[i] for i in b) for b in bins]
    assert all(n <= max(rows, most // rows * rows) or len(b) == 1 for n, b in zip(sizes, bins, strict=True))
    if most >= 128:
        assert len(bins) <= -(-sum(sizes) // (most // rows * rows)) + 1 and max(sizes) - min(sizes[:-1]) <= 2 * rows


def test_fill_of_little() -> None:
    assert fill([5], 16, 512) == [[0]]
    assert fill([600], 16, 512) == [[0]]
    assert fill([3, 600, 4], 16, 512) == [[1], [0, 2]]


def test_minilm_in_batches() -> None:
    """Vectors are those of the texts alone but for rounding, whatever runs beside them; fp32's nearly."""
    embedder = Embedder.load()
    patterns = read_patterns("dense", None, embedder.linears)
    batcher = Batcher(embedder, patterns, PRESETS["reference"], 16)
    texts = [
        "Rain.",
        "A cat sleeps on the warm windowsill all afternoon.",
        "Stock markets fell sharply.",
        "Skip zeros.",
    ]
    embedded = [embedder.read(t, None) for t in texts]
    named: list[str] = []
    hardware = ReferenceBackend(batcher.config)
    found = batcher.run(embedded, hardware, check=True, progress=lambda name, *_: named.append(name))
    assert (found.name, found.tokens, found.cycles, found.fraction) == (
        "embedding",
        sum(map(len, embedded)),
        None,
        None,
    )
    programs = len(fill([len(e) for e in embedded], 16, 16))
    assert found.programs == programs > 1
    assert set(named) == {f"program {i + 1} of {programs}" for i in range(programs)}
    for one, value in zip(embedded, found.values, strict=True):
        assert value @ batcher.run([one], hardware).values[0] > 0.995
        assert value @ embedder.exact(one) > 0.96
    with pytest.raises(InputError, match="no text"):
        batcher.run([], hardware)
    with pytest.raises(InputError, match="0 tokens"):
        Batcher(embedder, patterns, PRESETS["reference"], 0)


def test_a_difference_is_seen() -> None:
    embedder = Embedder.load()
    batcher = Batcher(embedder, read_patterns("dense", None, embedder.linears), PRESETS["reference"])

    class Wrong(ReferenceBackend):
        def run(self, model, embedded, progress=None):
            found = super().run(model, embedded, progress)
            found.image[model.output_address] ^= 1
            return found

    with pytest.raises(CheckError, match="buffer pooled"):
        batcher.run([embedder.read("Rain.", None)], Wrong(batcher.config), check=True)

"""Batches: each text's outputs are those of the text alone, to the bit; poolings to their rounding; what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import embed

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.packing import Packing, Place
from sta_hw.compiler.quantize import quantize
from sta_hw.compiler.shorter import shortened
from sta_hw.errors import InputError
from sta_hw.model.graph import Graph
from sta_hw.model.operations import Select
from sta_hw.model.random import random_ids, random_model
from sta_hw.reference.program import run_program
from sta_hw.run.backends import ReferenceBackend
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Opcode
from sta_hw.spec.presets import PRESETS

LENGTHS = [5, 1, 16, 33, 70, 4, 2, 9, 140, 3, 3, 3]
SHORTER = [5, 1, 16, 18, 4, 2, 9, 33, 3, 3]
"""For hardware of few rows, on which these are as many row tiles."""


def lengths_for(config: Config) -> list[int]:
    return LENGTHS if config.rows > 4 else SHORTER


SHORTER = [5, 1, 16, 18, 4, 2, 9, 33, 3, 3]
"""For hardware of few multipliers, whose programs are long: more tiles of rows than the others have, all the same."""


@pytest.fixture(scope="module")
def network() -> tuple[Graph, Graph]:
    model = random_model(3, hidden=64, heads=4, layers=2, intermediate=128)
    return model, quantize(model, [random_ids(i, 24) for i in range(6)])


@pytest.mark.parametrize("size", ["ci", "tiny", "small", "reference"])
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_each_text_as_if_alone(size: str, pooling: str, network: tuple[Graph, Graph]) -> None:
    config, model = PRESETS[size], network[0]
    encoder = network[1]
    if pooling == "first":
        encoder = encoder.replaced({"mean": Select("mean", ("1.output",), 0)})
    lengths = lengths_for(config)
    embedded = [embed(model, random_ids(i, n)) for i, n in enumerate(lengths)]
    batch = compile_encoder(encoder, config, lengths)
    image = ReferenceBackend(config).run(batch, embedded).image
    for number, (tokens, one) in enumerate(zip(lengths, embedded, strict=True)):
        program = compile_encoder(encoder, config, tokens)
        alone = ReferenceBackend(config).run(program, one).image
        assert np.array_equal(batch.outputs(image, number), program.outputs(alone))
        exact = program.pooled(alone)
        # Each is rounded once, in steps that a text of nearly twice the next shorter one's length makes largest.
        step = program.info.output_scale / 15
        assert np.abs(batch.pooled(image, number) - exact).max() <= step * (0 if pooling == "first" else 1.51)
        assert batch.output(image, number) @ program.output(alone) > 0.99999


@pytest.mark.parametrize("size", ["ci", "reference"])
def test_texts_that_share_row_tiles(size: str, network) -> None:
    """Each sees its own keys alone; rounding differs with the row where a text begins. Where that is a tile's: bits."""
    config, (model, encoder) = PRESETS[size], network
    lengths = lengths_for(config)
    packing = Packing.dense(lengths, config.rows)
    embedded = [embed(model, random_ids(i, n)) for i, n in enumerate(lengths)]
    batch = compile_encoder(encoder, config, packing)
    image = ReferenceBackend(config).run(batch, embedded).image
    for number, (text, one) in enumerate(zip(packing.texts, embedded, strict=True)):
        program = compile_encoder(encoder, config, text.tokens)
        alone = ReferenceBackend(config).run(program, one).image
        found, wanted = batch.outputs(image, number), program.outputs(alone)
        assert text.first % config.rows or np.array_equal(found, wanted)
        cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
        assert cosine.min() > 0.999, (number, cosine.min())
    # Other neighbours change nothing.
    others = [embed(model, random_ids(i + 50 if i % 2 else i, n)) for i, n in enumerate(lengths)]
    again = ReferenceBackend(config).run(batch, others).image
    for number in range(0, len(lengths), 2):
        assert np.array_equal(batch.outputs(again, number), batch.outputs(image, number))
        assert np.array_equal(batch.pooled(again, number), batch.pooled(image, number))


def test_equal_lengths_pool_to_the_same_bits(network: tuple[Graph, Graph]) -> None:
    config, (model, encoder) = PRESETS["small"], network
    embedded = [embed(model, random_ids(i, 11)) for i in range(19)]
    batch, program = (compile_encoder(encoder, config, n) for n in ([11] * 19, 11))
    image = ReferenceBackend(config).run(batch, embedded).image
    for number, one in enumerate(embedded):
        alone = ReferenceBackend(config).run(program, one)
        assert np.array_equal(batch.pooled(image, number), program.pooled(alone.image))


def test_weights_are_read_once(network: tuple[Graph, Graph]) -> None:
    """A batch loads as many beats of weights as one of its texts does alone; keys, values, poolings are its own."""
    config, encoder = PRESETS["small"], network[1]

    def weights(program: CompiledModel) -> int:
        last = max(address for address, _, _ in program.info.buffers.values())  # weights lie behind
        loads = [i for i in program.expanded() if i.opcode == Opcode.LOAD and i["address"] > last]
        return sum(i["beats"] * i["rows"] for i in loads)

    assert weights(compile_encoder(encoder, config, [8] * 8)) == weights(compile_encoder(encoder, config, 8))


def test_a_batch_in_a_file(network: tuple[Graph, Graph], tmp_path: Path) -> None:
    config, (model, encoder) = PRESETS["ci"], network
    lengths = [3, 9, 2]
    batch = compile_encoder(encoder, config, lengths)
    batch.save(tmp_path / "batch.npz")
    again = CompiledModel.load(tmp_path / "batch.npz", config)
    assert again.texts == batch.texts and again.tokens == 14
    embedded = [embed(model, random_ids(i, n)) for i, n in enumerate(lengths)]
    images = [ReferenceBackend(config).run(b, embedded).image for b in (batch, again)]
    assert all(np.array_equal(batch.output(images[0], i), again.output(images[1], i)) for i in range(3))
    with pytest.raises(InputError, match="takes 3 texts, not 2"):
        again.with_input(embedded[:2])
    with pytest.raises(InputError, match="takes 9 tokens of 64, not"):
        again.with_input([embedded[0], embedded[2], embedded[1]])


def test_places() -> None:
    packing = Packing.aligned([5, 16, 1], 8)
    assert packing.texts == (Place(0, 5), Place(8, 16), Place(24, 1))
    assert (packing.tiles, packing.tokens, packing.longest) == (4, 22, 16)
    assert packing.filled == [0, 1, 2, 3, 4, 4, 4, 4, *range(8, 24), *[24] * 8]
    assert [len(t) for t in packing.together(2)] == [1, 1, 1]
    assert [len(t) for t in packing.together(3)] == [2, 1]
    dense = Packing.dense([5, 16, 1, 2], 8)
    assert dense.texts == (Place(0, 5), Place(5, 16), Place(21, 1), Place(22, 2)) and dense.tiles == 3
    assert dense.filled == list(range(24))
    assert [dense.others(1, tile) for tile in (0, 1, 2)] == [(5, 0), (0, 0), (0, 3)]
    assert dense.others(0, 0) == (0, 3) and dense.others(2, 2) == (5, 2) and dense.others(3, 2) == (6, 0)
    assert [packing.others(i, 0) for i in range(1)] == [(0, 0)]
    assert [[t.first for t in run] for run in dense.together(2)] == [[0], [5], [21, 22]]
    assert [[t.first for t in run] for run in dense.together(5, rows=4)] == [[0], [5, 21, 22]]
    assert [len(run) for run in Packing.dense([1] * 17, 8).pooled()] == [8, 8, 1]
    unequal = Packing.dense([254, 1, 2, 100], 8)
    assert [unequal.weight(text) for text in unequal.texts] == [1, 127, 127, 2]
    assert [unequal.share(text) for text in unequal.texts] == [1, 1 / 2, 1, 200 / 254]
    with pytest.raises(InputError, match="no text"):
        Packing.aligned([], 8)
    with pytest.raises(InputError, match="0 tokens"):
        Packing.aligned([3, 0], 8)


@pytest.mark.parametrize(
    ("size", "pooling"), [("ci", "first"), pytest.param("ci", "mean", marks=pytest.mark.slow), ("reference", "mean")]
)
def test_one_program_for_shorter_texts(size: str, pooling: str, network: tuple[Graph, Graph]) -> None:
    """The same bits whatever the padding holds; and as the program of the text's own length to its rounding."""
    config, model = PRESETS[size], network[0]
    encoder = network[1]
    if pooling == "first":
        encoder = encoder.replaced({"mean": Select("mean", ("1.output",), 0)})
    longest = max(lengths_for(config))
    program = compile_encoder(encoder, config, longest)
    for tokens in (1, 2 * config.rows, 2 * config.rows + 1, longest - 11):
        one = embed(model, random_ids(tokens, tokens))
        padded, own = shortened(program, tokens), compile_encoder(encoder, config, tokens)
        image = padded.with_input(one)
        outputs, pooled = [], []
        for seed in (None, 0):
            if seed is not None:
                # Rows behind the text, which lie in each tile's channels.
                rows, width = config.rows, padded.info.input_width
                place = image[program.input_address :][: 2 * program.packing.tiles * rows * width].view("<i2")
                padding = place.reshape(-1, width, rows).transpose(0, 2, 1)
                noise = np.random.default_rng(seed).integers(-32768, 32768, padding.shape).reshape(-1, width)
                for row in range(tokens, padding.shape[0] * rows):
                    padding[row // rows, row % rows] = noise[row]
            after = run_program(image, padded.program_address, config, length=padded.length)
            outputs.append(padded.outputs(after))
            pooled.append(padded.pooled(after))
        assert all(np.array_equal(a, outputs[0]) for a in outputs)
        assert all(np.array_equal(a, pooled[0]) for a in pooled)
        wanted = ReferenceBackend(config).run(own, one)
        assert padded.info.ideal_cycles == pytest.approx(own.info.ideal_cycles)
        cosine = (outputs[0] * own.outputs(wanted.image)).sum(1)
        cosine /= np.linalg.norm(outputs[0], axis=1) * np.linalg.norm(own.outputs(wanted.image), axis=1)
        assert cosine.min() > 0.9999
        assert pooled[0] @ wanted.embedding / np.linalg.norm(pooled[0]) > 0.9999


def test_what_cannot_be_shortened(network: tuple[Graph, Graph]) -> None:
    config, encoder = PRESETS["small"], network[1]
    program = compile_encoder(encoder, config, 9)
    assert shortened(program, 9) is program
    for tokens in (0, 10):
        with pytest.raises(InputError, match=f"up to 9 tokens, not {tokens}"):
            shortened(program, tokens)
    with pytest.raises(InputError, match="a batch of 2 texts"):
        shortened(compile_encoder(encoder, config, [3, 4]), 3)

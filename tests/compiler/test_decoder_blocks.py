"""Decoders with weights of 4 bits in blocks: a file's as they are, others quantized here; their programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_files import SIZES
from numpy.typing import NDArray
from test_decoder_program import CONFIG, PREFIX, RULES, check
from test_families import saved

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.compiler.decoder.four_bits import by_error_feedback
from sta_hw.compiler.decoder.program import DecoderImage, compile_decoder
from sta_hw.compiler.decoder.quantize import quantize_decoder
from sta_hw.compiler.decoder.traffic import least_traffic, stored_sizes
from sta_hw.errors import InputError
from sta_hw.formats.blocks import BlockedWeights
from sta_hw.formats.nm import keep_mask
from sta_hw.model.families import load_network
from sta_hw.model.graph import Graph
from sta_hw.model.operations import Linear, Norm, RmsNorm
from sta_hw.reference.program import run_program
from sta_hw.run.decoder import CheckedDecoder
from sta_hw.run.machines import ReferenceMachine
from sta_hw.spec.isa import Opcode, Target, disassemble
from sta_hw.spec.patterns import parse_nm

ROLES = frozenset({"attention", "output", "gate", "down", "head"})
TEXTS = [np.random.default_rng(i).integers(0, 96, 30).tolist() for i in range(4)]


def on_a_grid(graph: Graph, size: int) -> Graph:
    """The same network with weights as a file of 4 bits gives them."""

    def rounded(o: Any) -> Any:
        if not isinstance(o, Linear):
            return o
        w = o.weight.reshape(-1, size).astype(np.float64)
        d = np.float16((w.max(1) - w.min(1)) / 15)[:, None].astype(np.float32)
        low = np.float16(w.min(1))[:, None].astype(np.float32)
        codes = np.clip(np.round((w - low) / d), 0, 15).astype(np.float32)
        return replace(o, weight=(codes * d + low).reshape(o.weight.shape))

    return replace(graph, operations=tuple(rounded(o) for o in graph.operations))


def network(folder: Path, *, of_file: bool) -> Graph:
    saved(folder, "LlamaForCausalLM", SIZES | {"vocab_size": 96})
    graph = load_network(folder).graph
    return on_a_grid(graph, 32) if of_file else graph


def loaded(compiled: DecoderImage, target: Target) -> int:
    """Bytes that the last program, a token's, loads so."""
    code = disassemble(compiled.image[compiled.programs[-1] :].tobytes(), compiled.config)
    loads = [i for i in code if i.opcode == Opcode.LOAD and i["target"] == target]
    return sum(i["rows"] * i["beats"] * compiled.config.bus_bytes for i in loads)


def test_a_files_blocks_are_taken_as_they_are(tmp_path: Path) -> None:
    """What is multiplied is the file's weight within half an INT8 step, in units of the column's."""
    graph = network(tmp_path, of_file=True)
    of = quantize_decoder(graph, TEXTS, PREFIX, replace(RULES, blocks=ROLES))
    for name, p in of.linears.items():
        assert p.blocks is not None, name
        np.testing.assert_array_equal(p.weights, p.blocks.weights)
        exact = graph.linear(name).weight.astype(np.float64) * p.input_scale / p.steps[:, None]
        assert np.abs(p.weights - exact).max() <= 0.5 + 1e-6, name


@pytest.mark.parametrize("of_file", [True, False], ids=["of a file", "quantized here"])
@pytest.mark.parametrize("where", ["reference", "rtl"])
def test_programs(of_file: bool, where: str, tmp_path: Path) -> None:
    """Logits are the integers', every byte on RTL the reference's, with a memory that stalls."""
    of = quantize_decoder(network(tmp_path, of_file=of_file), TEXTS, PREFIX, replace(RULES, blocks=ROLES))
    lengths = [2, 4, 1, 1]
    compiled = compile_decoder(of, CONFIG, len(PREFIX) + sum(lengths))
    products = [i for i in disassemble(compiled.image[compiled.programs[0] :].tobytes(), CONFIG)
                if i.opcode == Opcode.PRODUCT]  # fmt: skip
    assert sum(i["value_format"] for i in products) >= len(of.linears) - 2
    assert loaded(compiled, Target.SHORT_PARAMETERS) == 8 * sum(len(p.bias) for p in of.linears.values())
    hardware = AcceleratorModel(CONFIG) if where == "rtl" else None

    def run(image: NDArray[np.uint8], program: int, length: int, position: int) -> NDArray[np.uint8]:
        wanted = run_program(image, program, CONFIG, length=length, position=position)
        if hardware:
            memory = MemoryModel(stall=0.2, seed=position)
            found = hardware.run(image, program, length=length, position=position, memory=memory)
            np.testing.assert_array_equal(found.image, wanted)
        return wanted

    check(of, compiled, run, np.random.default_rng(7).integers(0, 96, sum(lengths)).tolist(), lengths)


@pytest.mark.parametrize(
    ("bias", "fits"), [(-(1 << 23), True), ((1 << 23) - 1, True), (-(1 << 23) - 1, False), (1 << 23, False)]
)
def test_records_of_columns(bias: int, fits: bool, tmp_path: Path) -> None:
    """Short where all biases of a product have 24 bits; what must be moved is what the program loads."""
    of = quantize_decoder(network(tmp_path, of_file=False), TEXTS, PREFIX, replace(RULES, blocks=ROLES))
    name, p = next((n, p) for n, p in of.linears.items() if n.endswith("down_proj"))
    biases = p.bias.copy()
    biases[3] = bias
    of = replace(of, linears={**of.linears, name: replace(p, bias=biases)})
    compiled = compile_decoder(of, CONFIG, 8)
    columns = sum(len(q.bias) for q in of.linears.values()) - (0 if fits else len(p.bias))
    assert loaded(compiled, Target.SHORT_PARAMETERS) == 8 * columns
    sizes = stored_sizes(of.linears, CONFIG)
    assert [n for n, s in sizes.items() if s.column_bytes != 8] == ([] if fits else [name])
    norms = 8 * sum(len(o.weight) for o in of.graph.operations if isinstance(o, Norm | RmsNorm))
    least = least_traffic(of.graph, 7, stored=sizes).parameters - norms
    assert least == 8 * columns + (0 if fits else 16 * len(p.bias))
    # Beside it, what attention's scores take, which is no product's.
    without = compile_decoder(of, replace(CONFIG, features=tuple(f for f in CONFIG.features if f != "blocks4")), 8)
    assert not loaded(without, Target.SHORT_PARAMETERS)
    all_long = loaded(without, Target.PARAMETERS) - 16 * sum(len(q.bias) for q in of.linears.values())
    assert loaded(compiled, Target.PARAMETERS) == all_long + (0 if fits else 16 * len(p.bias))
    CheckedDecoder(of, compiled, ReferenceMachine(CONFIG)).feed([*PREFIX, 7])


def test_records_on_a_wide_bus(tmp_path: Path) -> None:
    """Where a bus word has more of them than a chunk of columns is a multiple of, the next chunk's begin a bus word."""
    config = replace(CONFIG, rows=32, lanes=32, weight_words=512)
    of = quantize_decoder(network(tmp_path, of_file=False), TEXTS, PREFIX, replace(RULES, blocks=ROLES))
    compiled = compile_decoder(of, config, 8)
    exact = 8 * sum(len(p.bias) for p in of.linears.values())
    assert loaded(compiled, Target.SHORT_PARAMETERS) > exact
    CheckedDecoder(of, compiled, ReferenceMachine(config)).feed([*PREFIX, 7])


@pytest.mark.parametrize(("pattern", "share"), [("", 0.6), ("2:4", 0.9)])
def test_error_feedback_beats_rounding(pattern: str, share: float) -> None:
    """Inputs that depend on one another let later weights make good what earlier ones lost; pruned ones stay zero."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, 96)) @ rng.normal(size=(96, 96)) ** 3
    weights = rng.normal(size=(24, 96))
    kept = keep_mask(np.abs(weights), parse_nm(pattern)) if pattern else None
    weights = weights if kept is None else np.where(kept, weights, 0)
    weights *= 127 / np.abs(weights).max(1)[:, None]
    found = by_error_feedback(weights, x.T @ x, 32, kept)
    plain = by_error_feedback(weights, np.eye(96), 32, kept)
    if kept is not None:
        assert not found.weights[~kept].any()

    def error(blocks: BlockedWeights) -> float:
        return float((((blocks.weights - weights) @ x.T) ** 2).sum())

    assert error(found) < share * error(plain)


def test_what_is_left_of_a_column_is_a_smaller_block() -> None:
    """Two whole blocks and a part of one, each as good as if its column ended there."""
    rng = np.random.default_rng(4)
    weights = rng.uniform(-127, 127, (6, 160)) * np.repeat([1, 0.1, 1], [64, 64, 32])
    found = by_error_feedback(weights, np.eye(160), 64)
    assert (found.size, found.headers) == (32, 3)
    assert found.weights.shape == weights.shape
    last = by_error_feedback(weights[:, 128:], np.eye(32), 32)
    np.testing.assert_array_equal(found.weights[:, 128:], last.weights)


@pytest.mark.parametrize(
    ("sizes", "blocks", "of_head"), [({}, 4, 1), ({"block_size": 64, "head_block_size": 32}, 2, 4)]
)
def test_blocks_of_products_that_are_quantized_here(
    sizes: dict[str, int], blocks: int, of_head: int, tmp_path: Path
) -> None:
    """The head's are larger: what it lists is computed again."""
    saved(tmp_path, "LlamaForCausalLM", SIZES | {"vocab_size": 96, "hidden_size": 128, "intermediate_size": 128})
    of = quantize_decoder(load_network(tmp_path).graph, TEXTS, PREFIX, replace(RULES, blocks=ROLES, **sizes))
    found = {name: p.blocks.headers for name, p in of.linears.items() if p.blocks is not None}
    assert found.keys() == of.linears.keys() and found.pop("head") == of_head
    assert set(found.values()) == {blocks}


def test_no_blocks_of_weights_that_they_do_not_divide(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", SIZES | {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 80})
    rules = replace(RULES, blocks=frozenset({"down"}))
    with pytest.raises(InputError, match=r"down_proj: weights of 4 bits are quantized in blocks of 32 or .* 80 inputs"):
        quantize_decoder(load_network(tmp_path).graph, TEXTS, PREFIX, rules)

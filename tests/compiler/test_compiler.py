"""Quantization and compilation: what the reference machine computes is close to fp32; files; hardware checks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support import embed, in_fp32

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.lower.state import tightest
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.quantize import SCALES, quantize
from sta_hw.compiler.shapes import shape_graph
from sta_hw.cycles.machine import estimate_cycles
from sta_hw.errors import CheckError, ConfigError, InputError
from sta_hw.model.families.layers import LINEAR
from sta_hw.model.minilm import calibration_sentences
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.reference.program import run_program
from sta_hw.run.backends import ReferenceBackend, backend
from sta_hw.run.outcome import compare
from sta_hw.sparsity.integer_graph import IntegerGraph
from sta_hw.sparsity.torch_graph import TorchGraph
from sta_hw.spec.config import Config
from sta_hw.spec.isa import COUNTED, WAITS, Instruction, Opcode, assemble
from sta_hw.spec.patterns import DENSE, Pattern, parse_nm
from sta_hw.spec.presets import PRESETS, preset
from sta_hw.spec.registers import REGISTERS, markdown
from sta_hw.tasks.embedder import Embedder
from sta_hw.tasks.patterns import read_patterns


@pytest.mark.parametrize("size", ["ci", "tiny", "small", "reference"])
@pytest.mark.parametrize("tokens", [1, 5, 33])
def test_embedding_is_close_to_fp32(size: str, tokens: int) -> None:
    model = random_model(tokens, hidden=64, heads=4, layers=2, intermediate=128)
    config = PRESETS[size]
    program = compile_encoder(quantize(model, [random_ids(i, 24) for i in range(6)]), config, tokens)
    ids = random_ids(9, tokens)
    found = ReferenceBackend(config).run(program, embed(model, ids)).embedding
    exact = in_fp32(model, ids)
    assert found @ exact / np.linalg.norm(exact) > 0.98


def test_minilm_is_close_to_fp32() -> None:
    embedder = Embedder.load()
    config = PRESETS["reference"]
    ids = embedder.token_ids("A sparse network skips every second weight and still knows what is meant")
    program = embedder.compile({}, config, len(ids))
    found = ReferenceBackend(config).run(program, embedder.part.embed("ids", ids)).embedding
    assert found @ embedder.fp32(ids) > 0.99


def test_equalization_helps() -> None:
    """In the accelerator's integers, which quantization-aware tuning's forward pass computes fastest."""
    embedder = Embedder.load()
    calibration = [embedder.token_ids(s) for s in calibration_sentences()]
    means = []
    for equalize in (False, True):
        quantized = quantize(embedder.graph, calibration, equalize=equalize)
        hardware = IntegerGraph(TorchGraph(embedder.part.inner), quantized, PRESETS["reference"])
        chosen = calibration[::6]
        with torch.no_grad():
            found = hardware([embedder.part.embed("ids", ids) for ids in chosen]).numpy()
        exact = np.stack([embedder.fp32(ids) for ids in chosen])
        means.append(((found * exact).sum(1) / np.linalg.norm(found, axis=1)).mean())
    assert means[1] > means[0] and means[1] > 0.99, means


@pytest.mark.parametrize("scales", SCALES)
def test_scales_are_where_the_values_are(scales: str) -> None:
    """Neither the grid's clipping nor its steps ruin a normal tensor; one value far out does not matter much."""
    values = np.random.default_rng(0).normal(size=200_000)
    scale = SCALES[scales](values)
    assert 2.5 < 127 * scale <= np.abs(values).max()
    with_outlier = np.append(values, 1000.0) if scales == "percentile" else np.append(values, 6.0)
    assert SCALES[scales](with_outlier) < 1.3 * scale
    model = random_model(0, hidden=64, intermediate=128)
    config = PRESETS["small"]
    quantized = quantize(model, [random_ids(i, 12) for i in range(4)], scales=scales)
    program = compile_encoder(quantized, config, 12)
    found = ReferenceBackend(config).run(program, embed(model, random_ids(1, 12))).embedding
    exact = in_fp32(model, random_ids(1, 12))
    assert found @ exact / np.linalg.norm(exact) > 0.98


def test_unknown_scales() -> None:
    with pytest.raises(InputError, match="squared-error, percentile"):
        quantize(random_model(0), [random_ids(0, 4)], scales="entropy")


def test_a_compiled_model_survives_its_file(tmp_path: Path) -> None:
    model = random_model(1)
    quantized = quantize(model, [random_ids(0, 9)], mixed_patterns([parse_nm("2:4"), DENSE]))
    program = compile_encoder(quantized, PRESETS["ci"], 6)
    path = tmp_path / "model.npz"
    program.save(path)
    again = CompiledModel.load(path, PRESETS["ci"])
    np.testing.assert_array_equal(again.image, program.image)
    assert again.instructions == program.instructions and again.labels == program.labels
    with pytest.raises(InputError, match=r"was compiled for hardware .* compile it again"):
        CompiledModel.load(path, PRESETS["tiny"])
    with pytest.raises(InputError, match="takes 6 tokens of 32, not"):
        program.with_input(np.zeros((5, 32)))
    (tmp_path / "junk").write_text("no")
    with pytest.raises(InputError, match="is not a compiled model"):
        CompiledModel.load(tmp_path / "junk")


def test_the_reference_refuses_other_hardware_and_impossible_orders() -> None:
    program = compile_encoder(quantize(random_model(0), [random_ids(0, 9)]), PRESETS["ci"], 4)
    with pytest.raises(CheckError, match="the program is for hardware"):
        run_program(program.image, program.program_address, PRESETS["tiny"], length=program.length)
    config = PRESETS["ci"]
    for bad, message in (
        (
            Instruction(Opcode.LOAD, {"address": 1 << 20, "beats": 1, "rows": 1}),
            r"instruction 0 \(LOAD\).*outside the image",
        ),
        (
            Instruction(Opcode.PRODUCT, {"window_address": 1 << 20, "window_beats": 1}),
            r"instruction 0 \(PRODUCT\).*outside the image",
        ),
    ):
        with pytest.raises(CheckError, match=message):
            run_program(np.frombuffer(assemble([bad, Instruction(Opcode.HALT)], config), np.uint8), 0, config)
    with pytest.raises(InputError, match="backend 'gpu' is unknown"):
        backend("gpu", PRESETS["ci"])


def follow(program: CompiledModel) -> None:
    """No instruction of a flat program waits for more than was issued before it; data are not looked at.

    A loop's iterations share a wait, which in the first one may reach back beyond the program: there is none then.
    """
    issued = dict.fromkeys(WAITS, 0)
    for number, instruction in enumerate(program.expanded()):
        if instruction.opcode == Opcode.HALT:
            break
        for counter in WAITS:
            assert instruction[f"wait_{counter}"] <= issued[counter], (number, program.issued()[number])
            counts = instruction.opcode in COUNTED[counter]
            issued[counter] += counts and not (counter == "products" and instruction["unfinished"])
    estimate_cycles(program.instructions, program.config)  # does not stand still


@pytest.mark.parametrize("name", ["ci", "small", "ecp5-25f", "ecp5-85f-256"])
def test_no_instruction_waits_for_a_later_one(name: str) -> None:
    config = preset(name)
    for hidden, heads in ((64, 2), (128, 2), (128, 1)):
        if hidden // heads > config.groups * config.window:
            continue
        for tokens in (1, 33, 130):
            shape = shape_graph(hidden, heads, 2, hidden, {})
            follow(compile_encoder(shape, config, tokens, loops=False))
            estimate_cycles(compile_encoder(shape, config, tokens).instructions, config)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_programs_of_random_shapes_on_random_hardware(seed: int) -> None:
    """Whatever compiles can run: small memories on chip above all."""
    rng = np.random.default_rng(seed)

    def one_of(*values: int) -> int:
        return int(rng.choice(values))

    compiled = 0
    while compiled < 30:
        encodings = [("index",), ("bitmap",), ("index", "bitmap")][rng.integers(3)]
        heads, size = one_of(1, 2, 4), one_of(8, 16, 32, 64)
        try:
            config = Config(
                rows=one_of(4, 8, 16), groups=one_of(1, 2, 4, 8), window=one_of(4, 8, 16, 32), lanes=one_of(4, 8),
                drain_lanes=one_of(1, 2), columns=one_of(32, 64, 512), softmax_lanes=one_of(1, 4),
                weight_words=one_of(256, 512, 1024, 4096), parameter_words=one_of(64, 512), burst=one_of(4, 16, 64),
                norm_columns=one_of(16, 512), encodings=encodings,
            )  # fmt: skip
            config.require_accelerator()
            patterns = {f"0.{n}": config.patterns[rng.integers(len(config.patterns))] for n in LINEAR.values()}
            shape = shape_graph(heads * size, heads, 1, heads * size * one_of(1, 2, 4), patterns)
            tokens = one_of(1, 2, 7, 16, 33, 65, 100)
            program = compile_encoder(shape, config, tokens, loops=False)
        except (ConfigError, InputError):
            continue
        follow(program)
        estimate_cycles(compile_encoder(shape, config, tokens).instructions, config)
        compiled += 1


def test_positions_that_take_as_many_words_as_values() -> None:
    """A bitmap of 1:16 has a word for each value, and the chip holds fewer of them."""
    config = dataclasses.replace(preset("tiny"), encodings=("bitmap",), columns=64, weight_words=512)
    assert config.position_words < config.weight_words
    shape = shape_graph(128, 4, 1, 256, {"0.output.dense": parse_nm("1:16")})
    follow(compile_encoder(shape, config, 1))


def test_a_difference_is_reported_with_its_place() -> None:
    program = compile_encoder(quantize(random_model(0), [random_ids(0, 9)]), PRESETS["ci"], 9)
    changed = program.image.copy()
    address, width, _ = program.info.buffers["linear0"]
    rows = program.config.rows
    changed[address + (1 * width + 5) * rows + 2] ^= 1
    with pytest.raises(
        CheckError, match=r"0.attention.self.query \(buffer linear0\), token 6, channel 5: expected 0, got 1 \(1 bytes"
    ):
        compare(program, changed, program.image)


def test_nm_tables(tmp_path: Path) -> None:
    linears = random_model(0, layers=2).linears
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"output.dense": "1:4", "1.output.dense": "dense"}))
    patterns = read_patterns("2:4", table, linears)
    assert patterns["0.output.dense"] == Pattern(1, 4) and patterns["1.output.dense"] == DENSE
    assert patterns["0.intermediate.dense"] == Pattern(2, 4)
    table.write_text(json.dumps({"7.output.dense": "1:4", "output.dense": "9:3"}))
    with pytest.raises(InputError, match=r"no linear layer '7.output.dense'(.|\n)*output.dense: M = 3"):
        read_patterns("2:4", table, linears)
    table.write_text("[1]")
    with pytest.raises(InputError, match="no JSON object"):
        read_patterns("2:4", table, linears)


def test_the_tightest_pattern_is_found() -> None:
    weights = np.zeros((4, 64), np.int8)
    weights[:, ::4] = 3
    assert tightest(weights, PRESETS["reference"]) == Pattern(1, 4)
    assert tightest(np.ones((2, 32), np.int8), PRESETS["reference"]) == DENSE


def test_loads_run_ahead_within_the_rings() -> None:
    """More weights than fit: LOADs wait for the products whose words they overwrite."""
    model = random_model(2, hidden=64, heads=2, intermediate=256)
    program = compile_encoder(quantize(model, [random_ids(0, 9)]), PRESETS["ci"], 8)
    assert any(i["wait_matrix"] for i in program.expanded() if i.opcode == Opcode.LOAD)


def test_register_page_and_header() -> None:
    page = Path(__file__).parents[2] / "docs" / "registers.md"
    assert page.read_text() == markdown()
    assert len({r.offset for r in REGISTERS}) == len(REGISTERS)


@pytest.mark.parametrize(
    ("turns", "number", "text"),
    [
        (10, 3, "at instruction 3 (b)"),
        (10, 20, "at instruction 20 (the end of the program)"),
        (40_000, 4, "at one of the instructions 4 (a), 65540 (a): the hardware counts them modulo 65,536"),
        (40_000, 70_000 % 65_536, "at one of the instructions 4464 (a), 70000 (a): the hardware"),
        (65_535, 65_534, "at one of the instructions 65534 (a), 131070 (the end of the program): the hardware"),
        (7, 4_000, "at instruction 4000 (the end of the program)"),
    ],
)
def test_instruction_numbers_beyond_16_bits(turns: int, number: int, text: str) -> None:
    """Register ERROR_INSTRUCTION has 16 bits: every instruction that it can mean is named."""
    load = Instruction(Opcode.LOAD)
    program = [
        Instruction(Opcode.LOOP, {"count": turns}),
        load,
        load,
        Instruction(Opcode.NEXT),
        Instruction(Opcode.HALT),
    ]
    model = CompiledModel(
        config=PRESETS["ci"], tokens=1, hidden=1, image=np.zeros(0, np.uint8), program_address=0, input_address=0,
        output_address=0, instructions=program, labels=["loop", "a", "b", "next", "end"],
    )  # fmt: skip
    assert model.at_error(number).startswith(text)

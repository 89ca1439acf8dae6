"""Bytes that were spelled out by hand: an instruction of each opcode, and a small image.

Assembler and RTL take an instruction's fields from one table, and would agree on any order of them; the reference has
its own. What is committed in `tests/golden/` agrees with neither by itself: it was written from docs/isa.md
and docs/format.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.accelerator import AcceleratorModel
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.integers import IntegerActivate, IntegerAttention, IntegerLinear, IntegerNorm
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.parameters import LinearParameters, NormParameters
from sta_hw.compiler.shapes import shape_graph
from sta_hw.model.families.layers import LINEAR
from sta_hw.model.graph import Graph
from sta_hw.model.operations import Operation
from sta_hw.reference.fields import UNPACK
from sta_hw.reference.program import run_program
from sta_hw.run.outcome import compare
from sta_hw.spec.isa import Instruction, Opcode, Target, assemble, formats
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS

GOLDEN = Path(__file__).parents[1] / "golden"
MOST = {"target": 4, "result": 4, "mask": 2, "encoding": 2, "kind": 1, "digit": 2, "value_format": 1}
"""Codes are not all that their bits could be."""
KEPT = ("keep", "kept")
Fields = dict[str, tuple[int, int, int]]


def golden_instructions() -> dict[str, tuple[Fields, bytes]]:
    """From the file: of each opcode its fields (first bit, bits, value), and its bytes."""
    found: dict[str, tuple[Fields, bytes]] = {}
    for line in (GOLDEN / "instructions.txt").read_text().splitlines():
        words = line.split()
        if not words or words[0] == "#":
            continue
        if len(words) == 1:
            name = words[0]
            found[name] = ({}, b"")
        elif words[0] == "bytes":
            found[name] = (found[name][0], found[name][1] + bytes.fromhex("".join(words[1:])))
        else:
            found[name][0][words[0]] = (int(words[1]), int(words[2]), int(words[3], 16))
    return found


@pytest.mark.parametrize("name", [opcode.name for opcode in Opcode])
def test_an_instruction_of_each_opcode(name: str) -> None:
    fields, data = golden_instructions()[name]
    places = formats(Opcode[name]).places
    assert [(field, first, bits) for field, (first, bits, _) in fields.items()] == [
        (field, first, described.width) for field, (first, described) in places.items()
    ]
    values = {field: signed(Opcode[name], field, value) for field, (_, _, value) in fields.items()}
    assert values.pop("opcode") == Opcode[name]
    instruction = Instruction(Opcode[name], values)
    assert instruction.pack() == data
    assert Instruction.unpack(data) == instruction


def signed(opcode: Opcode, field: str, value: int) -> int:
    """A field's value from its bits."""
    described = formats(opcode).field(field)
    return value - (1 << described.width) if value > described.highest else value


@pytest.mark.parametrize("name", [opcode.name for opcode in Opcode])
def test_every_field_has_its_place(name: str) -> None:
    """Each field alone, all its bits set: flags of one bit beside one another are told apart too."""
    for field, (first, bits, _) in golden_instructions()[name][0].items():
        described = formats(Opcode[name]).field(field)
        if field == "opcode" or described.reserved:
            continue
        most = MOST.get(field, (1 << bits) - 1)
        if (
            (field in ("multiply", "rotate", "digit", "lift", "apart") and name != "PRODUCT")
            or (field == "bits15" and name == "SCORES")
            or (field in KEPT and name == "CONTEXT")
        ):
            continue
        # Without which it is refused.
        needs = {
            "multiply": {"result": 2},
            "lift": {"continues": 1},
            "bits15": {"result": 1},
            "value_format": {"run": 2},
        }
        beside = needs.get(field, {}) if name != "NORM" else {}
        alone = Instruction(Opcode[name], {field: signed(Opcode[name], field, most), **beside}).pack()
        rest = sum(value << formats(Opcode[name]).places[n][0] for n, value in beside.items())
        assert int.from_bytes(alone, "little") == most << first | int(Opcode[name]) << 36 | rest, field


def test_the_reference_reads_the_same_fields() -> None:
    """Its unpacking is its own: a field that is set alone is read as what it is, and no other one."""
    for name in ("LOAD", "PRODUCT", "SCORES", "CONTEXT", "NORM"):
        opcode = Opcode[name]
        for field, (_, bits, _) in golden_instructions()[name][0].items():
            if field in ("opcode", "inverse_high") or field.endswith("register"):
                continue
            reserved = formats(opcode).field(field).reserved
            most = MOST.get(field, (1 << bits) - 1)
            word = formats(opcode).pack({field: most, "opcode": int(opcode)})
            words = [word >> at & (1 << 64) - 1 for at in range(0, 512, 64)]
            found = UNPACK[opcode](words)
            if reserved:
                assert found.pop("reserved"), field
            else:
                assert found.pop(field) == signed(opcode, field, most), field
            assert not any(found.values()), (field, found)


def test_a_programs_header() -> None:
    """Magic, version, lines, the hash of what programs see; then the instructions, and zeros to the line's end."""
    config = PRESETS["ci"]
    data = assemble([Instruction(Opcode.NORM), Instruction(Opcode.HALT)], config)
    assert data[:16] == b"STAH" + bytes.fromhex("03000000 02000000 00000000")
    assert data[16:24] == bytes.fromhex(config.program_hash)[::-1] and data[24:64] == bytes(40)
    assert data[68] == 0x60 and data[64 + 40 + 4] == 0x10 and len(data) == 128


def small_encoder() -> Graph:
    """One layer of 8 dimensions in integers alone: no rounding of anyone's arithmetic is in its bytes."""
    column = np.arange(8)
    cycle = column[:, None] * 5 + column[None, :] * 3

    def linear(number: int, nm: str) -> LinearParameters:
        weights = ((cycle + number) % 15 - 7).astype(np.int8)
        weights[weights == 0] = 9
        if nm == "2:4":
            weights *= np.array([0, 1, 0, 1, 1, 0, 0, 1], np.int8)
        if nm == "1:8":
            weights *= np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int8)
        second = np.full(8, 0xC0DE)
        return LinearParameters(weights, parse_nm(nm), column - 5, 0x1234 + column, column % 3, second)

    def norm(number: int) -> NormParameters:
        return NormParameters(1000 * number + column - 3, 7 * column - 20, 0x1122 * number + column)

    graph = shape_graph(8, 1, 1, 8)
    patterns = ("2:4", "dense", "1:8", "2:4", "dense", "2:4")
    attention, activate = graph.by_name["0.context"], graph.by_name["0.activated"]
    assert isinstance(attention, IntegerAttention) and isinstance(activate, IntegerActivate)
    heads = {"score_multiplier": 0x4321, "score_shift": 2, "coarse": 0, "gain": 1}
    table = np.arange(256, dtype=np.int16) * 101 - 12345
    changed: dict[str, Operation] = {
        attention.name: replace(attention, **{n: np.array([v]) for n, v in heads.items()}),
        activate.name: replace(activate, table=table.astype(np.int16)),
    }
    for number, (name, nm) in enumerate(zip(graph.linears, patterns, strict=True)):
        changed[name] = IntegerLinear.of(graph.linear(name), linear(number, nm))
    for name, number in (("embeddings", 3), ("0.normed", 1), ("0.output", 2)):
        o = graph.by_name[name]
        assert isinstance(o, IntegerNorm)
        changed[name] = IntegerNorm.of(o, norm(number))
    return graph.replaced(changed)


def dump(image: np.ndarray) -> str:
    """The image's bytes, 16 a line with their address, lines of zeros left out; and the hash of them all."""
    lines = [f"{16 * n:06x}  {line.tobytes().hex(' ')}\n" for n, line in enumerate(image.reshape(-1, 16)) if line.any()]
    return "".join([*lines, f"{len(image)} bytes, sha256 {hashlib.sha256(image.tobytes()).hexdigest()}\n"])


def loaded(program: CompiledModel, target: Target, layer: str) -> np.ndarray:
    """The image from where a layer's values, positions or parameters are loaded from."""
    number = program.issued().index((Opcode.PRODUCT, f"0.{layer}"))
    product = program.expanded()[number]
    base = product[f"{target.name.lower()}_base"]
    loads = [i for i in program.expanded() if i.opcode == Opcode.LOAD and i["target"] == target]
    return next(program.image[i["address"] :] for i in loads if i["destination"] == base)


def test_a_small_image() -> None:
    """All its bytes, and some of them spelled out."""
    config = PRESETS["ci"]
    program = compile_encoder(small_encoder(), config, 3)
    query, key, *_ = LINEAR.values()
    # The key's parameters: bias -5, multiplier 0x1234, shift 0, second multiplier 0xc0de; then those of column 4, bias
    # -1: its columns are in the order 0, 4, 1, ..., since blocks of `groups` dimensions are stored transposed.
    assert loaded(program, Target.PARAMETERS, key)[:32].tobytes() == bytes.fromhex(
        "fbffffff 3412 00 00 dec0 000000000000 ffffffff 3812 01 00 dec0 000000000000"
    )
    # The query, 2:4 as indices. Column 0 has the weights 0 -4 0 2 5 0 0 -1, a column's sub-group 0 of either group:
    # values (-4, 5), (2, -1); positions 1, 3 (binary 11 01) and 0, 3 (11 00), four columns in a word of each group.
    assert loaded(program, Target.VALUES, query)[:4].tobytes() == bytes.fromhex("fc05 02ff")
    assert loaded(program, Target.POSITIONS, query)[:4].tobytes() == bytes.fromhex("dddd cccc")
    # The first LayerNorm's column 0: scale 2997 (0xbb5) in 18 bits, shift -20 (0xffec) in 16, multiplier 0x3366 in 16.
    norm = next(i for i in program.expanded() if i.opcode == Opcode.NORM)
    assert program.image[norm["parameters_address"] :][:8].tobytes() == bytes.fromhex("b50b b0ff 9bcd 0000")
    golden = (GOLDEN / "image.txt").read_text()
    assert dump(program.image) == golden, "if the new bytes are meant, `python tests/spec/test_golden.py` writes them"


def test_the_small_image_runs() -> None:
    """The same result in the reference, on the RTL, and as it was when the image was committed."""
    config = PRESETS["ci"]
    program = compile_encoder(small_encoder(), config, 3)
    image = program.with_input((np.arange(24).reshape(3, 8) * 4321 % 30000 - 15000).astype(np.float64))
    expected = run_program(image, program.program_address, config, length=program.length)
    run = AcceleratorModel(config).run(image, program.program_address, length=program.length)
    compare(program, run.image, expected)
    output = expected[program.output_address :].view("<i2")[: 8 * config.rows : config.rows]
    assert output.tolist() == [250, -245, -210, 345, -150, -155, 375, -140]


if __name__ == "__main__":
    (GOLDEN / "image.txt").write_text(dump(compile_encoder(small_encoder(), PRESETS["ci"], 3).image))

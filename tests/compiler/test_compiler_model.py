"""What a compiled model does with an image, by hand: inputs go in, outputs come out, errors get a place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sta_hw.compiler.info import ProgramInfo
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.packing import Place
from sta_hw.errors import InputError
from sta_hw.formats.provenance import bytes_digest
from sta_hw.spec.isa import Instruction, Opcode
from sta_hw.spec.presets import PRESETS

ROWS = 4
TEXTS = (Place(0, 3), Place(4, 6), Place(10, 1), Place(11, 1), Place(12, 1))
INPUT, OUTPUT, OUTPUTS = 64, 512, 1024


def model(**changed: Any) -> CompiledModel:
    """Of five texts in four row tiles: inputs two wide, pooled and other outputs three wide."""
    info = ProgramInfo(
        buffers={"outputs": (OUTPUTS, 3, 2)}, outputs="outputs", input_width=2, embedded_scale=0.5, output_scale=30.0,
        outputs_scale=0.25, pooled_shares=(1.0, 0.5, 1.0, 1.0, 0.25),
    )  # fmt: skip
    image = np.full(2048, 0xA5, np.uint8)
    given = CompiledModel(PRESETS["ci"], 12, 3, image, 0, INPUT, OUTPUT, [], [], info, texts=TEXTS)
    return replace(given, **changed)


def test_inputs_lie_by_tiles_and_columns() -> None:
    """Rows that are no text's repeat the token before them; the rest of the image stays, and so does the model's."""
    of, rng = model(), np.random.default_rng(0)
    given = [rng.integers(-99, 100, (t.tokens, 2)).astype(np.float32) / 2 for t in TEXTS]
    image = of.with_input(given)
    found = image[INPUT : INPUT + 64].view("<i2").reshape(4, 2, ROWS).transpose(0, 2, 1).reshape(16, 2) / 2
    wanted = np.concatenate([given[0], given[0][-1:], *given[1:], given[4][[0] * 3]])
    np.testing.assert_array_equal(found, wanted)
    assert (image[:INPUT] == 0xA5).all() and (image[INPUT + 64 :] == 0xA5).all() and (of.image == 0xA5).all()
    one = model(texts=(), tokens=3)
    assert one.texts == () and one.packing.texts == (Place(0, 3),) and one.length == 3 and of.length == 0
    np.testing.assert_array_equal(one.with_input(given[0]), one.with_input([given[0]]))


def test_inputs_that_saturate_are_counted() -> None:
    many = [np.full((t.tokens, 2), 16384.0) for t in TEXTS]
    assert model().input_saturations(many) == 24 and model().input_saturations(many[1]) == 12
    assert model().input_saturations([m - 1 for m in many]) == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([np.zeros((3, 2))] * 4, "the program takes 5 texts, not 4"),
        (np.zeros((3, 2)), "the program takes 5 texts, not 1"),
        ([np.zeros((3, 2)), np.zeros((5, 2)), *[np.zeros((1, 2))] * 3], r"takes 6 tokens of 2, not \(5, 2\)"),
        ([np.zeros((3, 3)), np.zeros((6, 2)), *[np.zeros((1, 2))] * 3], r"takes 3 tokens of 2, not \(3, 3\)"),
        (["abc", *[np.zeros((1, 2))] * 4], "takes 3 tokens of 2, not str"),
    ],
)
def test_inputs_of_another_shape(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        model().with_input(given)


def test_outputs_come_out_of_their_places() -> None:
    """Pooled ones lie by texts, as many in a tile as it has rows; others as inputs do."""
    of, image = model(), np.zeros(2048, np.uint8)
    pooled, every = image[OUTPUT:][: 2 * 24].view("<i2"), image[OUTPUTS:][: 2 * 48].view("<i2")
    pooled[:], every[:] = np.arange(24), np.arange(48) - 20
    # The scale is 30 of a fifteenth: text 1 is row 1, and has half a share; text 4 is the next tile's row 0.
    assert of.pooled(image).tolist() == of.pooled(image, 0).tolist() == [0, 8, 16]
    assert of.pooled(image, 1).tolist() == [4, 20, 36] and of.pooled(image, 4).tolist() == [96, 128, 160]
    values = (np.arange(48) - 20).reshape(4, 3, ROWS).transpose(0, 2, 1).reshape(16, 3) / 4
    for number, text in enumerate(TEXTS):
        np.testing.assert_array_equal(of.outputs(image, number), values[text.first : text.end])
    assert of.outputs(image).shape == (3, 3)
    assert of.output(image) == pytest.approx(np.array([0, 1, 2]) / 5**0.5)
    assert of.output(image, 4) == pytest.approx(np.array([3, 4, 5]) / 50**0.5)
    assert of.output(np.zeros(2048, np.uint8)).tolist() == [0, 0, 0]


def test_an_image_that_has_changed() -> None:
    of = model()
    of.verify()
    noted = replace(of, checksum=bytes_digest(of.image))
    noted.verify()
    noted.image[7] ^= 1
    with pytest.raises(InputError, match="the image's bytes are not those that were compiled"):
        noted.verify()
    with pytest.raises(InputError, match="compile it again"):
        noted.with_input([np.zeros((t.tokens, 2)) for t in TEXTS])


def test_instructions_as_units_see_them() -> None:
    """Loops are run through; a loop over the text's length as often as it has tokens."""
    load = Instruction(Opcode.LOAD, {"rows": 1, "address_register": 1})
    step = Instruction(Opcode.SET, {"destination": 1, "value": 64})
    loop, end = Instruction(Opcode.LOOP, {"count_register": 15}), Instruction(Opcode.NEXT, {})
    program = [loop, load, step, end, Instruction(Opcode.HALT, {})]
    of = model(texts=(Place(0, 3),), instructions=program, labels=["loop", "first", "set", "next", "halt"])
    assert of.issued() == [(Opcode.LOAD, "first")] * 3 + [(Opcode.HALT, "halt")]
    assert [i["address"] for i in of.expanded()[:-1]] == [0, 64, 64]
    assert (
        of.at_error(1) == "at instruction 1 (first)" and of.at_error(3) == "at instruction 3 (the end of the program)"
    )
    assert of.at_error(9) == "at instruction 9 (the end of the program)"


class Long(CompiledModel):
    """Of so many instructions as it has tokens."""

    def issued(self) -> list[tuple[Opcode, str]]:
        turns = range(1 + (self.tokens >> 16))
        return [one for n in turns for one in [(Opcode.LOAD, f"of {n}")] * (1 << 16)][: self.tokens]


@pytest.mark.parametrize(
    ("count", "number", "said"),
    [
        (65536, 5, "at instruction 5 (of 0)"),
        (65543, 5, "at one of the instructions 5 (of 0), 65541 (of 1): the hardware counts them modulo 65,536"),
        (65542, 5, "at one of the instructions 5 (of 0), 65541 (the end of the program): the hardware counts"),
        (3 * 65536 + 7, 5, "at one of the instructions 5 (of 0), 65541 (of 1), 131077 (of 2), 196613 (of 3): the"),
        (5 * 65536, 5, "at one of the instructions 5 (of 0), 65541 (of 1), ..., 196613 (of 3), 262149 (of 4): the"),
    ],
)
def test_where_an_error_is(count: int, number: int, said: str) -> None:
    given = model()
    of = Long(given.config, count, 3, given.image, 0, INPUT, OUTPUT, [], [])
    assert of.at_error(number).startswith(said)

"""A batch's slots by hand: which registers their values are in, and where the host writes them."""

from __future__ import annotations

import pytest

from sta_hw.compiler.decoder.slots import SlotValue, require_slots, with_registers
from sta_hw.compiler.schedule import Scheduled
from sta_hw.errors import InputError
from sta_hw.spec.isa import REGISTERS, Instruction, Opcode

LOAD_BYTES, SET_BYTES, HEADER = 24, 8, 64


def load(**fields: int) -> Scheduled:
    return Scheduled(Opcode.LOAD, {"rows": 1, **fields}, "load", 1.0)


def values(count: int) -> list[SlotValue]:
    return [SlotValue(slot, 100 * slot, 2, 64) for slot in range(count)]


def test_values_of_row_tiles() -> None:
    """Two tiles a stack: 64 from stack to stack, 8 from one tile of a stack to the next."""
    value = SlotValue(slot=3, base=1000, each=2, stride=64, part=8)
    assert [value.at(tile) for tile in range(6)] == [1000, 1008, 1064, 1072, 1128, 1136]
    assert [SlotValue(0, 5, 1, 7).at(tile) for tile in range(3)] == [5, 12, 19]
    assert [SlotValue(0, 5, 2, 7).at(tile) for tile in range(3)] == [5, 5, 12]


def test_batches_that_a_row_tile_holds() -> None:
    require_slots(1, 4)
    require_slots(4, 4)
    for slots in (0, 5, -1):
        with pytest.raises(InputError, match=f"a batch of {slots} sequences is out of range; .* holds 1 to 4"):
            require_slots(slots, 4)


def test_a_value_is_set_once_ahead_of_what_needs_it() -> None:
    """The first register is 1; other registers and other fields stay."""
    first, second = REGISTERS, REGISTERS + 1
    program = [
        load(address=7, destination_register=5), load(address=8, address_register=second),
        load(address_register=second, destination_register=first, stride_register=13), load(address_register=first),
    ]  # fmt: skip
    found, places = with_registers(program, values(2))
    assert found == [
        Instruction(Opcode.LOAD, {"rows": 1, "address": 7, "destination_register": 5}),
        Instruction(Opcode.SET, {"destination": 1}),
        Instruction(Opcode.LOAD, {"rows": 1, "address": 8, "address_register": 1}),
        Instruction(Opcode.SET, {"destination": 2}),
        Instruction(Opcode.LOAD, {"rows": 1, "address_register": 1, "destination_register": 2, "stride_register": 13}),
        Instruction(Opcode.LOAD, {"rows": 1, "address_register": 2}),
    ]
    before = HEADER + LOAD_BYTES
    assert places == [(values(2)[1], [before]), (values(2)[0], [before + SET_BYTES + LOAD_BYTES])]


def test_the_value_that_was_needed_longest_ago_gives_way() -> None:
    """Fifteen registers hold fifteen values; the sixteenth takes that of the second, for the first was needed since."""
    order = [*range(15), 0, 15, 1, 0]
    found, places = with_registers([load(address_register=REGISTERS + n) for n in order], values(16))
    taken = [i["address_register"] for i in found if i.opcode == Opcode.LOAD]
    assert taken == [*range(1, 16), 1, 2, 3, 1]
    assert [i["destination"] for i in found if i.opcode == Opcode.SET] == [*range(1, 16), 2, 3]
    at = dict(places)
    assert len(at) == 16 and at[values(16)[0]] == [HEADER]
    pair = SET_BYTES + LOAD_BYTES
    assert at[values(16)[1]] == [HEADER + pair, HEADER + 16 * pair + LOAD_BYTES]
    assert at[values(16)[15]] == [HEADER + 15 * pair + LOAD_BYTES]

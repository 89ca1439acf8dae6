"""Shared by tests: an instruction that nobody may write, on the accelerator and on its reference."""

from __future__ import annotations

import numpy as np
import pytest

from sim.accelerator import AcceleratorModel
from sta_hw.reference.instructions import fetched
from sta_hw.reference.program import ProgramError, run_counted
from sta_hw.spec.isa import HEADER_BYTES, Error, Instruction, Opcode, assemble, formats, instruction_bytes


def check_illegal(hardware: AcceleratorModel, opcode: Opcode, fields: dict[str, int]) -> None:
    """Behind a LOAD, both refuse it with OPCODE at its number, 1; its fields are packed with nothing checked.

    Without these fields it is legal: nothing else is what they refuse.
    """
    config = hardware.config
    data = bytearray(assemble([Instruction(Opcode.LOAD), Instruction(opcode), Instruction(Opcode.HALT)], config))
    assert len(list(fetched(np.frombuffer(bytes(data), np.uint8), 0, config, 0, 0))) == 2
    size, at = instruction_bytes(opcode), HEADER_BYTES + instruction_bytes(Opcode.LOAD)
    data[at : at + size] = formats(opcode).pack({**fields, "opcode": int(opcode)}).to_bytes(size, "little")
    image = np.concatenate([np.frombuffer(bytes(data), np.uint8), np.zeros(-len(data) % 1024, np.uint8)])
    with pytest.raises(ProgramError) as refused:
        run_counted(image, 0, config)
    assert (refused.value.error, refused.value.instruction) == (Error.OPCODE, 1), fields
    run = hardware.run(image, 0, patience=50_000)
    assert (run.error, run.error_instruction) == (Error.OPCODE, 1), fields
    hardware.write("control", 0b10)

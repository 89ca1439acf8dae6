"""The instruction set: opcodes, the layout of every instruction, packing and strict reading of a program's bytes.

A program lies in memory as one header and then words of 64 bits, little-endian; an instruction has one to eight of
them. Units run ahead of one another; what must wait for what is explicit, in relative counts: until all but the last
so many of a class of instructions issued before are finished. SET, LOOP and NEXT never reach a unit: a program means
the flat list of instructions that `expansion.expand` makes of it.
"""

from .encoding import (
    CODES,
    FORMATS,
    LOW_BITS,
    REGISTER_BITS,
    WORD_BYTES,
    Word,
    codes,
    formats,
    instruction_bytes,
)
from .instruction import Instruction
from .opcodes import (
    COUNTED,
    NO_WAIT,
    REGISTERS,
    UNIT_WAITS,
    WAIT_BITS,
    WAITS,
    Digit,
    Error,
    Mask,
    NormKind,
    Opcode,
    Positions,
    Result,
    Target,
    ValueFormat,
)
from .program import (
    HEADER_BYTES,
    LINE_BYTES,
    MAGIC,
    MOST_LINES,
    VERSION,
    assemble,
    disassemble,
    most_program_bytes,
    program_bytes,
)

__all__ = [
    "CODES", "COUNTED", "FORMATS", "HEADER_BYTES", "LINE_BYTES", "LOW_BITS", "MAGIC", "MOST_LINES", "NO_WAIT",
    "REGISTERS", "REGISTER_BITS", "UNIT_WAITS", "VERSION", "WAITS", "WAIT_BITS", "WORD_BYTES", "Digit", "Error",
    "Instruction", "Mask", "NormKind", "Opcode", "Positions", "Result", "Target", "ValueFormat", "Word", "assemble",
    "codes", "disassemble", "formats", "instruction_bytes", "most_program_bytes", "program_bytes",
]  # fmt: skip

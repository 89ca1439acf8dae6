"""The instruction set: opcodes, the layout of every instruction, packing and strict reading of a program's bytes.

A program lies in memory as one header and then words of 64 bits, little-endian; an instruction has one to eight of
them. Units run ahead of one another; what must wait for what is explicit, in relative counts: until all but the last
so many of a class of instructions issued before are finished. SET, LOOP and NEXT never reach a unit: a program means
the flat list of instructions that `expansion.expand` makes of it.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from ..errors import InputError
from .config import Config
from .features import ABILITIES
from .records import Field, Record

__all__ = [
    "CODES", "COUNTED", "FORMATS", "HEADER_BYTES", "LINE_BYTES", "MAGIC", "MOST_LINES", "NO_WAIT", "REGISTERS",
    "VERSION", "WAITS", "WAIT_BITS", "WORD_BYTES", "Digit", "Error", "Instruction", "Mask", "NormKind", "Opcode",
    "Positions", "Result", "Target", "ValueFormat", "Word", "assemble", "codes", "disassemble", "formats",
    "instruction_bytes",
    "most_program_bytes", "program_bytes",
]  # fmt: skip

WORD_BYTES = 8
LINE_BYTES = 64
HEADER_BYTES = 64
MAGIC = 0x48415453  # "STAH"
VERSION = 3
MOST_LINES = (1 << 17) - 1
"""Lines of 64 bytes that a program has at most, its header's among them."""
REGISTERS = 16
"""Address registers; number 0 is always zero."""


class Opcode(IntEnum):
    """What an instruction does."""

    HALT = 1
    """End of the program: finishes when every unit is idle."""
    LOAD = 2
    """Memory to an on-chip memory."""
    PRODUCT = 3
    """Matrix product: windows from memory, weights on chip, results to memory."""
    SCORES = 4
    """Attention, first half: Q x K^T of one head, one row tile and one block of keys, into the softmax."""
    CONTEXT = 5
    """Attention, second half: P x V, its windows from the softmax, normalised by the row sums."""
    NORM = 6
    """LayerNorm or RMSNorm of one row tile, memory to memory."""
    SET = 7
    """An address register becomes another's value plus a constant."""
    LOOP = 8
    """What follows, up to its NEXT, is repeated."""
    NEXT = 9
    """End of the innermost loop."""


class Target(IntEnum):
    """On-chip memories that LOAD fills."""

    VALUES = 0
    POSITIONS = 1
    PARAMETERS = 2
    TABLE = 3


class Result(IntEnum):
    """What becomes of a product's results."""

    STORE8 = 0
    """8 bits, column after column."""
    STORE16 = 1
    """16 bits, column after column."""
    ACTIVATE = 2
    """8 bits through the table, then requantized per column to 8 bits."""
    RESIDUAL = 3
    """16 bits, added to the scaled residual stream; 16 bits stored."""
    TRANSPOSE = 4
    """8 bits; blocks of `groups` columns stored row after row, for use as weights."""
    BEST = 5
    """The 8 largest 16-bit results of each row, with their columns' numbers."""


class Positions(IntEnum):
    """How a product's positions are written."""

    DENSE = 0
    INDEX = 1
    BITMAP = 2


class ValueFormat(IntEnum):
    """How a product's values are written."""

    INT8 = 0
    BLOCKS4 = 1
    """4 bits each, in blocks with a scale and a minimum."""


class Mask(IntEnum):
    """Which keys SCORES takes for valid."""

    KEYS = 0
    """Those whose numbers are from 0 to `keys`, less one."""
    LENGTH = 1
    """Those whose numbers are from 0 to the text's length, less one: register LENGTH's."""
    CAUSAL = 2
    """For row r those whose numbers are from 0 to `keys` + r, less one."""


class Digit(IntEnum):
    """Which digit of its windows a product takes."""

    NONE = 0
    """Windows are bytes."""
    HIGH = 1
    """The high digit of 15-bit windows, which lie in memory in 16 bits."""
    LOW = 2
    """Their low digit."""


class NormKind(IntEnum):
    """What NORM computes."""

    LAYER = 0
    """LayerNorm."""
    RMS = 1
    """RMSNorm: the mean is taken for zero."""


class Error(IntEnum):
    """Why the accelerator stopped (register STATUS)."""

    NONE = 0
    HEADER = 1
    """The program's header is not one of this version."""
    HARDWARE = 2
    """The program was made for another configuration."""
    OPCODE = 3
    """Illegal instruction: unknown, reserved, a loop that is none, or columns in no whole blocks."""
    ADDRESS = 4
    """An address is outside the image or not aligned to the bus."""
    READ = 5
    """The bus answered a read with an error."""
    WRITE = 6
    """The bus answered a write with an error."""
    ENGINE = 7
    """The matrix engine found weights that do not match their header, or refused the product."""
    TIMEOUT = 8
    """Nothing moved for 2^20 cycles: instructions wait for what never comes, or loops run without any."""


WAITS = ("loads", "matrix", "products", "norms")
"""Classes of instructions that others wait for: LOADs, products through the array, products whose results are in
memory or in the softmax, NORMs."""
WAIT_BITS = 6
NO_WAIT = (1 << WAIT_BITS) - 1
"""From so many of a class on that may still be under way there is nothing to wait for: there are never more."""
COUNTED: Mapping[str, tuple[Opcode, ...]] = {
    "loads": (Opcode.LOAD,),
    "matrix": (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT),
    "products": (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT),
    "norms": (Opcode.NORM,),
}
"""Which instructions each class has; of products only those that are not `unfinished`."""

LOW_BITS, REGISTER_BITS, HIGH_BITS = 32, 4, 28


@dataclass(frozen=True)
class Word:
    """64 bits of an instruction.

    Attributes
    ----------
    low : fields of the lower 32 bits, to which the word's register is added
    high : fields of the upper 28 bits
    register : str
        Name of the field between them, which says which register; empty if there is none to add.
    """

    low: tuple[Field, ...]
    high: tuple[Field, ...] = ()
    register: str = ""

    @property
    def fields(self) -> tuple[Field, ...]:
        """All fields, and those without a name that fill it."""

        def filled(part: tuple[Field, ...], bits: int) -> tuple[Field, ...]:
            rest = bits - sum(f.width for f in part)
            return (*part, Field("", rest)) if rest else part

        text = f"register added to {' and '.join(f.name for f in self.low)}"
        return (*filled(self.low, LOW_BITS), Field(self.register, REGISTER_BITS, text=text),
                *filled(self.high, HIGH_BITS))  # fmt: skip


def _address(name: str, text: str) -> Field:
    return Field(name, 32, text=text)


def _word(low: Sequence[Field], *high: Field, register: str | None = None) -> Word:
    named = low[-1].name if register is None else register
    return Word(tuple(low), high, f"{named}_register")


OPCODE = Field("opcode", 4, text="what it does")
_WAITS = tuple(
    Field(f"wait_{name}", WAIT_BITS, text=f"how many earlier {text} may still be under way, and 1; 0: it does not wait")
    for name, text in zip(WAITS, ("LOADs", "products (array)", "products (results)", "NORMs"), strict=True)
)
_ROWS = (
    Field("rows_before", 8, text="rows at the tile's beginning that are not stored (the low log2(rows) bits count)"),
    Field("rows_after", 8, text="rows at its end that are not stored (likewise)"),
)
_BITS15 = Field("bits15", 1, text="results in 16 bits saturate to 15, ACTIVATE's among them", feature="digits")
_PRODUCT = (
    _word([_address("window_address", "the windows; not used by CONTEXT")], OPCODE, *_WAITS),
    _word(
        [_address("result_address", "the results; not used by SCORES")],
        Field("window_beats", 20, text="bus words of windows"),
        Field("result", 4, text="what becomes of the results (Result)"),
        Field("continues", 1, text="adds to the sums that the last unfinished product left"),
        Field("unfinished", 1, text="leaves its sums for a product that continues; no results"),
        Field("wide", 1, text="results saturate to 16 bits instead of 8"),
        Field("parameters_step", 1, text="words from one column's parameters to the next one's"),
    ),
    _word(
        [_address("residual_address", "the residual stream, result RESIDUAL")],
        *_ROWS,
        Field("row_first", 1, text="SCORES: the rows' first block of keys"),
        Field("row_last", 1, text="SCORES: the rows' last block of keys"),
        Field("gain", 3, text="SCORES: the reciprocal is multiplied by 2^gain"),
        Field("coarse", 1, text="SCORES: scores have 3 fraction bits instead of 6"),
        Field("mask", 2, text="SCORES: which keys are valid (Mask)"),
        Field("multiply", 1, text="element-wise product of neighbouring columns", feature="gate"),
        Field("rotate", 1, text="rotation of neighbouring columns by their row's position", feature="rotary"),
        Field("place", 1, text="rows that are stored count from the position", feature="position"),
    ),
    _word(
        [Field("count0", 16, text="weight values, innermost counter: steps"),
         Field("values_base", 16, text="first word of weight values")],
        Field("stride0", 16, text="its step in words"),
        Field("count3", 12, text="outermost counter: steps"),
    ),
    _word(
        [Field("positions_count", 16, text="words of positions"),
         Field("positions_base", 16, text="the first one")],
        Field("stride1", 16, text="second counter: step in words"),
        Field("count1", 12, text="its steps"),
    ),
    _word(
        [Field("columns", 16, text="results per row"),
         Field("parameters_base", 16, text="first column's parameters")],
        Field("stride2", 16, text="third counter: step in words"),
        Field("count2", 12, text="its steps"),
    ),
    _word(
        [Field("keys", 16, text="SCORES: keys from number 0 on that are valid, mask KEYS"),
         Field("key_start", 16, signed=True, text="SCORES: number of the block's first key")],
        Field("stride3", 16, text="outermost counter: step in words"),
        Field("keep", 1, text="its windows stay on chip for products that take kept ones", feature="windows"),
        Field("kept", 1, text="its windows are those kept from the same addresses; memory is not read",
              feature="windows"),
        Field("apart", 1, text="columns are stored groups bytes apart", feature="apart"),
        Field("", 1),
        Field("digit", 2, text="15-bit windows: which digit of them (Digit)", feature="digits"),
        Field("lift", 1, text="the sums that it continues count 128 times", feature="digits"),
        _BITS15,
    ),
    _word(
        [Field("passes", 16, text="windows streamed through one after the other"),
         Field("n", 6, text="N of N:M; 1 if dense"),
         Field("m_log2", 3, text="log2 M; 0 if dense"),
         Field("depth", 6, text="window positions in use")],
        Field("encoding", 2, text="of positions: 0 dense, 1 index, 2 bitmap"),
        Field("value_format", 2, text="of weight values: 0 INT8, 1 4 bits in blocks", feature="blocks4"),
        Field("run", 6, text="of 4 bits: values of a group behind each header, at least 2", feature="blocks4"),
        register="passes",
    ),
)  # fmt: skip

FORMATS: Mapping[Opcode, tuple[Word, ...]] = {
    Opcode.HALT: (Word((), (OPCODE,)),),
    Opcode.LOAD: (
        _word([_address("address", "the first run")], OPCODE, *_WAITS),
        _word(
            [Field("rows", 16, text="runs"), Field("destination", 16, text="first word in the on-chip memory")],
            Field("beats", 20, text="bus words of a run"),
            Field("target", 4, text="the on-chip memory (Target)"),
        ),
        _word([_address("stride", "bytes from one run to the next")]),
    ),
    Opcode.PRODUCT: _PRODUCT,
    Opcode.SCORES: _PRODUCT,
    Opcode.CONTEXT: _PRODUCT,
    Opcode.NORM: (
        _word([_address("input_address", "16-bit sums")], OPCODE, *_WAITS),
        _word(
            [_address("wide_address", "16-bit results")],
            Field("width", 14, text="columns"),
            Field("inverse_high", 1, text="bit 32 of round(2^33 / width)"),
            Field("kind", 2, text="which norm (NormKind)"),
            _BITS15,
        ),
        _word([_address("narrow_address", "8-bit results")], *_ROWS),
        _word([_address("parameters_address", "the columns' parameters")]),
        _word([_address("inverse", "round(2^33 / width), bits 0 to 31; not used by RMS")],
              Field("epsilon", 28, text="added to the variance, in units of 2^14", feature="rms")),
    ),
    Opcode.SET: (
        _word([_address("value", "what is added to the source register's value")], OPCODE,
              Field("destination", 4, text="the register, 1 to 15")),
    ),
    Opcode.LOOP: (_word([Field("count", 16, text="how often what follows runs, 1 to 65,535")], OPCODE),),
    Opcode.NEXT: (Word((), (OPCODE,)),),
}  # fmt: skip
"""The words of each opcode's instructions."""

_RECORDS = {
    opcode: Record(opcode.name, tuple(f for word in words for f in word.fields)) for opcode, words in FORMATS.items()
}
CODES: Mapping[str, type[IntEnum]] = {
    "target": Target,
    "result": Result,
    "mask": Mask,
    "encoding": Positions,
    "kind": NormKind,
    "digit": Digit,
    "value_format": ValueFormat,
}
"""Fields whose values have names."""
_CODE_FEATURES: Mapping[str, Mapping[int, str]] = {
    "mask": {Mask.CAUSAL: "causal"}, "kind": {NormKind.RMS: "rms"}, "result": {Result.BEST: "best"},
    "value_format": {ValueFormat.BLOCKS4: "blocks4"},
}  # fmt: skip
"""What hardware must have for a code of such a field."""


_LEAST_RUN = 2
_PAIRS = {"multiply": (Result.STORE16, Result.ACTIVATE), "rotate": (Result.STORE8, Result.TRANSPOSE)}
"""Results with which neighbouring columns can be multiplied, or rotated."""


def codes(name: str, features: Collection[str]) -> list[int]:
    """The values of a field of `CODES` that hardware with these features knows."""
    needs = _CODE_FEATURES.get(name, {})
    return [int(code) for code in CODES[name] if needs.get(code, "") in ("", *features)]


def formats(opcode: Opcode) -> Record:
    """The record of an opcode's instructions: all their words."""
    return _RECORDS[opcode]


def instruction_bytes(opcode: Opcode) -> int:
    """Bytes of an instruction."""
    return WORD_BYTES * len(FORMATS[opcode])


@dataclass(frozen=True)
class Instruction:
    """One instruction; fields left out are zero."""

    opcode: Opcode
    fields: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        found = self.fields.get(name)
        if found is None:
            _RECORDS[self.opcode].field(name)
            return 0
        return found

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", {k: int(v) for k, v in self.fields.items() if v})
        record = _RECORDS[self.opcode]
        for name, value in self.fields.items():
            if name == "opcode":
                raise InputError(f"{self.opcode.name}: the opcode is none of its fields.")
            record.check(name, value)
            problem = _not_yet(self.opcode, record.field(name), value)
            if problem:
                raise InputError(problem)
        if problem := _apart(self):
            raise InputError(f"{self.opcode.name}: {problem}.")

    def pack(self) -> bytes:
        """The instruction's bytes."""
        word = _RECORDS[self.opcode].pack({**self.fields, "opcode": int(self.opcode)})
        return word.to_bytes(instruction_bytes(self.opcode), "little")

    @staticmethod
    def unpack(data: bytes) -> Instruction:
        """The instruction that `data` begins with.

        Raises
        ------
        InputError
            If the opcode is unknown, bits are set that no field has, a code is unknown or reserved, or `data` end.
        """
        if len(data) < WORD_BYTES:
            raise InputError(f"an instruction has {WORD_BYTES} bytes at least, and there are {len(data)}.")
        code = data[4] >> REGISTER_BITS
        if code not in Opcode.__members__.values():
            raise InputError(f"opcode {code} is unknown; there are {', '.join(f'{o.name} {int(o)}' for o in Opcode)}.")
        opcode = Opcode(code)
        size, record = instruction_bytes(opcode), _RECORDS[opcode]
        if len(data) < size:
            raise InputError(f"{opcode.name} has {size} bytes, and there are {len(data)}.")
        word = int.from_bytes(data[:size], "little")
        if unused := record.unused(word):
            raise InputError(f"{opcode.name}: bit {unused.bit_length() - 1} is set, which no field has.")
        fields = record.unpack(word)
        del fields["opcode"]
        return Instruction(opcode, fields)

    def features(self) -> Iterator[tuple[str, str]]:
        """What hardware must have for it, each with what needs it."""
        for name, value in self.fields.items():
            if name not in _FEATURED:
                continue
            needed = _RECORDS[self.opcode].field(name).feature or _CODE_FEATURES.get(name, {}).get(value, "")
            if needed:
                yield needed, f"{name} = {value}"

    @property
    def label(self) -> str:
        """The opcode's name, as texts have it."""
        return self.opcode.name.lower()


_FEATURED = _CODE_FEATURES.keys() | {f.name for r in _RECORDS.values() for _, f in r.places.values() if f.feature}


def _require_features(instructions: Sequence[Instruction], config: Config) -> None:
    """Raise InputError at an instruction that needs what the hardware has not."""
    for number, instruction in enumerate(instructions):
        for feature, what in instruction.features():
            if feature not in config.abilities:
                there, where = ", ".join(config.features) or "none", f"instruction {number} ({instruction.opcode.name})"
                if feature in ABILITIES:
                    raise InputError(f"{where}: {what} needs hardware with {ABILITIES[feature]}.")
                raise InputError(f"{where}: {what} needs the feature {feature}, and this hardware has {there}.")


def _not_yet(opcode: Opcode, described: Field, value: int) -> str:
    """Why no hardware takes a field's value; empty if it does."""
    if described.reserved and value:
        return f"{opcode.name}: {described.name} = {value} is reserved; it is 0."
    known = CODES.get(described.name)
    if known and value not in known.__members__.values():
        return (
            f"{opcode.name}: {described.name} = {value} is unknown; there are "
            f"{', '.join(f'{k.name} {int(k)}' for k in known)}."
        )
    return ""


def _apart(i: Instruction) -> str:
    """Why fields do not go together; empty if they do."""
    for name, results in _PAIRS.items():
        if i.fields.get(name) and (i.opcode != Opcode.PRODUCT or i["result"] not in results):
            return f"{name} = 1 goes with PRODUCT and result {' or '.join(r.name for r in results)} alone"
    for name, other in (("keep", "kept"), ("kept", "keep")):
        if i.fields.get(name) and (i.opcode == Opcode.CONTEXT or i.fields.get(other)):
            return f"{name} = 1 goes with PRODUCT and SCORES, and without {other}"
    if i.fields.get("apart") and (i.opcode != Opcode.PRODUCT or i["result"] != Result.STORE8):
        return "apart = 1 goes with PRODUCT and result STORE8 alone"
    if i.fields.get("value_format") and i["run"] < _LEAST_RUN:
        return f"value_format = {i['value_format']} goes with run >= {_LEAST_RUN}"
    if i.opcode == Opcode.CONTEXT and i["result"] == Result.BEST:
        return "result BEST is PRODUCT's alone"
    if i.fields.get("bits15") and i.opcode != Opcode.NORM:
        activates = i.opcode == Opcode.PRODUCT and i["result"] == Result.ACTIVATE and not i["multiply"]
        if i.opcode == Opcode.SCORES or not (activates or i["result"] == Result.STORE16):
            return "bits15 = 1 goes with result STORE16, or ACTIVATE without multiply, alone"
    for name in ("digit", "lift"):
        if i.fields.get(name) and i.opcode != Opcode.PRODUCT:
            return f"{name} = {i[name]} goes with PRODUCT alone"
    if i.fields.get("lift") and not i["continues"]:
        return "lift = 1 goes with continues = 1 alone"
    return ""


def program_bytes(instructions: Iterable[Instruction]) -> int:
    """Bytes of a program, its header included: whole lines."""
    size = sum(instruction_bytes(i.opcode) for i in instructions)
    return HEADER_BYTES + -(-size // LINE_BYTES) * LINE_BYTES


def most_program_bytes() -> int:
    """Bytes of the longest program, its header included."""
    return MOST_LINES * LINE_BYTES


def assemble(instructions: Sequence[Instruction], config: Config) -> bytes:
    """A program's bytes: header (magic, version, lines, hash of what programs see), instructions, and zeros.

    Raises
    ------
    InputError
        If it is too long, or an instruction needs a feature that the configuration has not.
    """
    size = program_bytes(instructions)
    if size > most_program_bytes():
        raise InputError(
            f"the program has {size:,} bytes, and hardware takes {most_program_bytes():,}; fewer tokens or layers "
            "would do."
        )
    _require_features(instructions, config)
    header = struct.pack("<III4xQ", MAGIC, VERSION, size // LINE_BYTES, int(config.program_hash, 16))
    body = b"".join(i.pack() for i in instructions)
    return (header.ljust(HEADER_BYTES, b"\0") + body).ljust(size, b"\0")


def disassemble(data: bytes, config: Config | None = None) -> list[Instruction]:
    """The instructions of a program as it is written, up to the last HALT.

    Raises
    ------
    InputError
        If the header is not one, the program is for another configuration than `config`, the data
        end early, or an instruction is malformed (the message says which).
    """
    if len(data) < HEADER_BYTES:
        raise InputError(f"a program begins with a header of {HEADER_BYTES} bytes; there are {len(data)}.")
    magic, version, lines, digest = struct.unpack_from("<III4xQ", data)
    if magic != MAGIC or version != VERSION:
        raise InputError(f"not a program of version {VERSION}: magic {magic:#x}, version {version}.")
    if config is not None and digest != int(config.program_hash, 16):
        raise InputError(f"the program is for hardware {digest:016x}, this is {config.program_hash}; compile it again.")
    end = max(lines, 1) * LINE_BYTES
    if len(data) < end:
        raise InputError(f"the program ends before its {lines} lines of {LINE_BYTES} bytes.")
    found: list[Instruction] = []
    at, body = HEADER_BYTES, bytes(data[:end])
    last = len(body.rstrip(b"\0"))
    while at < last:
        try:
            found.append(Instruction.unpack(body[at : at + LINE_BYTES]))
        except InputError as error:
            raise InputError(f"instruction {len(found)}, byte {at - HEADER_BYTES}: {error}") from None
        at += instruction_bytes(found[-1].opcode)
    if not found or found[-1].opcode != Opcode.HALT:
        raise InputError("the program does not end with HALT.")
    if config is not None:
        _require_features(found, config)
    return found

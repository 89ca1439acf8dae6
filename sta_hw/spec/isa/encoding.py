"""How instructions are written: the fields of each of their words of 64 bits, and what those need of hardware."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from ..records import Field, Record
from .opcodes import WAIT_BITS, WAITS, Digit, Mask, NormKind, Opcode, Positions, Result, Target, ValueFormat

__all__ = [
    "CODES", "FORMATS", "HIGH_BITS", "LOW_BITS", "OPCODE", "REGISTER_BITS", "WORD_BYTES", "Word", "codes",
    "feature_needed", "formats", "instruction_bytes",
]  # fmt: skip

WORD_BYTES = 8
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
        Field("value_format", 2, text="how weight values are written (ValueFormat)", feature="blocks4"),
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
            Field("target", 4, text="the on-chip memory, and what fills it (Target)"),
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
    "value_format": {ValueFormat.BLOCKS4: "blocks4", ValueFormat.WIDE_BLOCKS4: "wide_blocks"},
    "target": {Target.SHORT_PARAMETERS: "blocks4"},
}  # fmt: skip
"""What hardware must have for a code of such a field."""
_FEATURED = _CODE_FEATURES.keys() | {f.name for r in _RECORDS.values() for _, f in r.places.values() if f.feature}


def codes(name: str, abilities: Collection[str]) -> list[int]:
    """The values of a field of `CODES` that hardware with these abilities (`Config.abilities`) knows."""
    needs = _CODE_FEATURES.get(name, {})
    return [int(code) for code in CODES[name] if needs.get(code, "") in ("", *abilities)]


def formats(opcode: Opcode) -> Record:
    """The record of an opcode's instructions: all their words."""
    return _RECORDS[opcode]


def instruction_bytes(opcode: Opcode) -> int:
    """Bytes of an instruction."""
    return WORD_BYTES * len(FORMATS[opcode])


def feature_needed(opcode: Opcode, name: str, value: int) -> str:
    """The ability that hardware must have for a value, not 0, of a field; empty if all hardware takes it."""
    if name not in _FEATURED:
        return ""
    return _CODE_FEATURES.get(name, {}).get(value, "") or _RECORDS[opcode].field(name).feature

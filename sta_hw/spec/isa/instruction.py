"""One instruction: its fields, checked; its bytes, written and strictly read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...errors import InputError
from ..records import Field
from .encoding import CODES, REGISTER_BITS, WORD_BYTES, feature_needed, formats, instruction_bytes
from .opcodes import Opcode, Result

__all__ = ["Instruction"]

_LEAST_RUN = 2
_PAIRS = {"multiply": (Result.STORE16, Result.ACTIVATE), "rotate": (Result.STORE8, Result.TRANSPOSE)}
"""Results with which neighbouring columns can be multiplied, or rotated."""


@dataclass(frozen=True)
class Instruction:
    """One instruction; fields left out are zero.

    Parameters
    ----------
    opcode : Opcode
    fields : mapping of str to int
        By the names in `FORMATS`, the opcode's own apart; those that are zero are dropped.

    Raises
    ------
    InputError
        If it has no field of that name, a value does not fit its field, a code is unknown or reserved, or fields do
        not go together.
    """

    opcode: Opcode
    fields: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        found = self.fields.get(name)
        if found is None:
            formats(self.opcode).field(name)
            return 0
        return found

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", {k: int(v) for k, v in self.fields.items() if v})
        record = formats(self.opcode)
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
        word = formats(self.opcode).pack({**self.fields, "opcode": int(self.opcode)})
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
        size, record = instruction_bytes(opcode), formats(opcode)
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
            if needed := feature_needed(self.opcode, name, value):
                yield needed, f"{name} = {value}"

    @property
    def label(self) -> str:
        """The opcode's name, as texts have it."""
        return self.opcode.name.lower()


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

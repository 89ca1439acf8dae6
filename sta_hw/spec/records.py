"""Records: fields of bits in order, described once, for whatever packs, unpacks, decodes or documents them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import InputError

__all__ = ["Field", "Record"]


@dataclass(frozen=True)
class Field:
    """Bits of a record.

    Attributes
    ----------
    name : str
        Empty for bits that are zero and mean nothing.
    width : int
    signed : bool
        Two's complement.
    text : str
        What it means, for the documents.
    reserved : bool
        Named, and nothing but zero yet.
    feature : str
        What hardware must have for it to be other than zero (`spec.features`); empty: nothing.
    """

    name: str
    width: int
    signed: bool = False
    text: str = ""
    reserved: bool = False
    feature: str = ""

    @property
    def lowest(self) -> int:
        """The least value."""
        return -(1 << self.width - 1) if self.signed else 0

    @property
    def highest(self) -> int:
        """The greatest value."""
        return (1 << self.width - self.signed) - 1


@dataclass(frozen=True)
class Record:
    """Fields from bit 0 on.

    `pack` and `unpack` take and give whole numbers, or NumPy arrays of them whose type holds all bits: nothing
    is used of either but shifts and logic.
    """

    name: str
    fields: tuple[Field, ...]

    @cached_property
    def width(self) -> int:
        """Bits of all fields."""
        return sum(f.width for f in self.fields)

    @cached_property
    def places(self) -> Mapping[str, tuple[int, Field]]:
        """Of each named field its first bit and itself."""
        return dict(self._placed())

    def _placed(self) -> Iterator[tuple[str, tuple[int, Field]]]:
        at = 0
        for f in self.fields:
            if f.name:
                yield f.name, (at, f)
            at += f.width

    def field(self, name: str) -> Field:
        """The field called `name`.

        Raises
        ------
        InputError
            If there is none.
        """
        return self._place(name)[1]

    def _place(self, name: str) -> tuple[int, Field]:
        try:
            return self.places[name]
        except KeyError:
            raise InputError(f"{self.name} has no field {name!r}; it has {', '.join(self.places)}.") from None

    def check(self, name: str, value: int) -> None:
        """Raise InputError unless there is such a field, and it holds the value."""
        f = self.field(name)
        if not f.lowest <= value <= f.highest:
            raise InputError(
                f"{self.name}: {name} = {value} is out of range; it has {f.width} bits, "
                f"the nearest is {min(max(value, f.lowest), f.highest)}."
            )

    def pack(self, values: Mapping[str, Any]) -> Any:
        """The bits; fields left out are zero, and values are taken modulo their width (`check` looks at them)."""
        word: Any = 0
        for name, value in values.items():
            at, f = self._place(name)
            word = word | (value & ((1 << f.width) - 1)) << at
        return word

    def unpack(self, word: Any) -> dict[str, Any]:
        """All named fields' values."""
        return {name: self.get(word, name) for name in self.places}

    def get(self, word: Any, name: str) -> Any:
        """One field's value."""
        at, f = self._place(name)
        value = word >> at & ((1 << f.width) - 1)
        if f.signed:
            value = (value ^ 1 << f.width - 1) - (1 << f.width - 1)
        return value

    def unused(self, word: int) -> int:
        """Which bits are set that no field has."""
        at, known = 0, 0
        for f in self.fields:
            known |= ((1 << f.width) - 1 if f.name else 0) << at
            at += f.width
        return word & ~known

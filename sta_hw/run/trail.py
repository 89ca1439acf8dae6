"""What a program did on the reference: which instruction wrote which bytes, of which layer and value they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..compiler.model import CompiledModel
from ..reference.program import Executed
from ..spec.isa import Instruction, Opcode, Result

__all__ = ["Element", "Trail", "element_at", "value_at"]


@dataclass(frozen=True)
class Element:
    """What a byte of memory belongs to.

    Attributes
    ----------
    buffer : str
        Its name; empty for a byte outside all of them.
    value : str
        The graph's value that is written there; of one that several layers use, without what wrote it, the last.
    text : int or None
        Of a batch; None where the program takes one text alone.
    token : int or None
        Of the text; rows that fill its last tile come after its last token. None for what is one per text.
    channel : int
    filling : bool
        The row is behind the text's last token.
    address : int
        Of the element's first byte.
    size : int
        Its bytes.
    """

    buffer: str
    value: str
    text: int | None
    token: int | None
    channel: int
    filling: bool
    address: int
    size: int

    def words(self) -> str:
        """Where it is, in words."""
        if not self.buffer:
            return f"byte {self.address}"
        parts = [f"{self.value} (buffer {self.buffer})" if self.value else f"buffer {self.buffer}"]
        if self.text is not None:
            parts.append(f"text {self.text}")
        if self.token is not None:
            parts.append(f"token {self.token}" + (" (a row behind the text's last token)" if self.filling else ""))
        return ", ".join([*parts, f"channel {self.channel}"])


def element_at(model: CompiledModel, address: int, instruction: Instruction | None = None, label: str = "") -> Element:
    """What a byte of memory belongs to.

    Parameters
    ----------
    instruction : Instruction or None
        What wrote it: keys are stored transposed, their channels in another order, which the product alone tells.
    label : str
        The instruction's.
    """
    config, packing = model.config, model.packing
    rows, groups = config.rows, config.groups
    for name, (start, width, size) in model.info.buffers.items():
        offset = (address - start) // size
        tile, within = divmod(offset, rows * width)
        pooled = start == model.output_address
        if not 0 <= tile < (len(packing.pooled()) if pooled else packing.tiles):
            continue
        column, row = divmod(within, rows)
        product = instruction is not None and instruction.opcode == Opcode.PRODUCT
        if instruction is not None and product and instruction["result"] == Result.TRANSPOSE:
            block, within = divmod(within, rows * groups)
            row, lane = divmod(within, groups)
            column = _key_channel(model, block * groups + lane)
        row += tile * rows
        batch = len(packing.texts) > 1
        held = [v.value for at, v in model.info.values.items() if name in v.buffers and label in ("", at)]
        value = held[-1] if held else ""
        first = start + offset * size
        if pooled:
            return Element(name, value, row if batch else None, None, column, row >= len(packing.texts), first, size)
        text = max(i for i, place in enumerate(packing.texts) if place.first <= row)
        token = row - packing.texts[text].first
        filling = token >= packing.texts[text].tokens
        return Element(name, value, text if batch else None, token, column, filling, first, size)
    return Element("", "", None, None, 0, False, address, 1)


def _key_channel(model: CompiledModel, column: int) -> int:
    """The channel of a column of keys: a head's are stored as the groups of the scores' products meet them."""
    groups = model.config.groups
    depth = next((i["depth"] for i in model.instructions if i.opcode == Opcode.SCORES), 1)
    head, within = divmod(column, groups * depth)
    return head * groups * depth + within % groups * depth + within // groups


def value_at(image: NDArray[np.uint8], place: Element) -> int:
    """The signed value at a place."""
    return int.from_bytes(image[place.address : place.address + place.size].tobytes(), "little", signed=True)


class Trail:
    """The instructions a program executed, in the order the reference ran them; called with each as it is.

    Parameters
    ----------
    model : CompiledModel
    keep : bool
        Keep the bytes written, too: all that the program ever writes.

    Attributes
    ----------
    executed : dict of int to Executed
        By number; without the bytes written, unless they are kept.
    stores : list of (address, bytes, number)
        In the order they were written.
    unit : dict of (str, int)
        The pulses of its unit (loads, matrix, norms), and which of them, from 0, is an instruction's.
    ended : dict of (str, int)
        The same of the pulse that ends it: of a product that stores or scores, stores or scores.
    """

    def __init__(self, model: CompiledModel, keep: bool = False) -> None:
        self.model, self.keep = model, keep
        self.executed: dict[int, Executed] = {}
        self.stores: list[tuple[int, int, int]] = []
        self.data: list[NDArray[np.uint8]] = []
        self.unit: dict[int, tuple[str, int]] = {}
        self.ended: dict[int, tuple[str, int]] = {}
        self._pulses = dict.fromkeys(("loads", "matrix", "scores", "stores", "norms"), 0)

    def __call__(self, executed: Executed) -> None:
        number, instruction = executed.number, executed.instruction
        for address, data in executed.stores:
            self.stores.append((address, len(data), number))
            if self.keep:
                self.data.append(data)
        self.executed[number] = Executed(number, executed.place, instruction, (), executed.sources, executed.waits)
        kind = {Opcode.LOAD: "loads", Opcode.NORM: "norms"}.get(instruction.opcode, "matrix")
        self.unit[number] = self.ended[number] = self._pulse(kind)
        if kind == "matrix" and not instruction["unfinished"]:
            self.ended[number] = self._pulse("scores" if instruction.opcode == Opcode.SCORES else "stores")

    def _pulse(self, kind: str) -> tuple[str, int]:
        self._pulses[kind] += 1
        return kind, self._pulses[kind] - 1

    def writers(self, size: int) -> NDArray[np.int64]:
        """The instruction that was the last to write each bus word of an image of `size` bytes; -1 for none."""
        bus = self.model.config.bus_bytes
        found = np.full(-(-size // bus), -1)
        for address, count, number in self.stores:
            found[address // bus : -(-(address + count) // bus)] = number
        return found

    def label(self, number: int) -> str:
        """Instruction and layer, in words."""
        executed = self.executed[number]
        place = "" if executed.place == number else f", {executed.place} of the program,"
        return f"instruction {number}{place} ({executed.instruction.opcode.name}, {self.layer(number)})"

    def layer(self, number: int) -> str:
        """The layer an instruction belongs to."""
        return self.model.labels[self.executed[number].place]

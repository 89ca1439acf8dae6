"""Of a program that waits for itself: the first instruction that is not finished, what it waits for, what would do."""

from __future__ import annotations

from collections.abc import Sequence

from ..spec.config import Config
from ..spec.expansion import MOST_AGE
from ..spec.isa import Instruction, Opcode
from .untimed import UntimedMachine

__all__ = ["named", "why"]


def named(number: int, opcode: Opcode) -> str:
    """An instruction as messages name it."""
    return f"instruction {number} ({opcode.name})"


def why(state: UntimedMachine, rest: Sequence[Instruction], config: Config, full: str) -> str:
    """Of a state in which nothing more can happen: the first instruction unfinished, and what it waits for."""
    products, results, blocks = state.products, state.results, state.blocks

    def opcode_of(number: int) -> Opcode:
        found = next((p.opcode for p in products if p.number == number), None)
        return found or (Opcode.LOAD if any(load[0] == number for load in state.loads) else Opcode.NORM)

    unfinished = [q[0][0] for q in (state.loads, state.norms) if q]
    unfinished += [products[at].number for at in [state.computed] if at < len(products)]
    unfinished += [products[result.product].number for result in results[state.drained : state.drained + 1]]
    oldest = min(unfinished, default=state.issued)
    if not unfinished:
        return f"{named(oldest, rest[0].opcode)} is never issued."
    first = named(oldest, opcode_of(oldest))
    if opcode_of(oldest) == Opcode.CONTEXT:
        block = state.contexts.index(next(n for n, p in enumerate(products) if p.number == oldest))
        if block >= len(blocks) or blocks[block].product > state.contexts[block]:
            return f"{first} waits for a block of scores, and none is before it; put its SCORES there."
        scores = named(products[blocks[block].product].number, Opcode.SCORES)
        if block < state.accepted and products[state.contexts[block]].continues and blocks[block].first:
            return (
                f"{first} continues the block before, and that of {scores} is the first of its row; continues = 0 "
                "would do."
            )
        if block < state.accepted:
            return (
                f"{first} waits for its row's sum, and {scores} is not the row's last block; unfinished = 1 would do."
            )
        for name, value in (("continues", 1), ("unfinished", 0)):
            for one, at in zip(blocks, state.contexts, strict=False):
                found = products[at]
                if (not one.first and not found.continues) if value else (one.last and not found.finishing):
                    purpose = "scale what is stored" if value else "take its rows' sums"
                    return (
                        f"{first} waits for the block of {scores}, which waits for "
                        f"{named(found.number, Opcode.CONTEXT)} to {purpose}; {name} = {value} there would do."
                    )
    if opcode_of(oldest) == Opcode.SCORES and state.streamed < len(blocks):
        held = named(products[blocks[state.streamed].product].number, Opcode.SCORES)
        said = f"{first} waits for the softmax, which keeps the block of {held} until its CONTEXT takes it; "
        if state.streamed < len(state.contexts):
            context = named(products[state.contexts[state.streamed]].number, Opcode.CONTEXT)
            head = products[state.computed]
            place = f"behind {named(head.number, head.opcode)} in the array"
            if head.finishing:
                waiting = state.columns_before[head.result + 1] - state.columns_before[state.drained]
                if waiting >= config.columns:
                    place = (
                        f"behind {named(head.number, head.opcode)}, whose results find no room: with them {waiting} "
                        f"columns wait, and there is room for {config.columns - 1}"
                    )
            return f"{said}that is {context}, {place}; put {context} before {first}."
        behind = next((n for n, i in enumerate(rest) if i.opcode == Opcode.CONTEXT), None)
        if behind is None:
            return f"{said}there is none; put it behind {held}."
        context = named(state.issued + behind, Opcode.CONTEXT)
        return (
            f"{said}that is {context}, which is not issued, for {_blocked(state, full)}; put {context} before {first}."
        )
    return f"{first} waits for what is behind it: {_blocked(state, full)}."


def _blocked(state: UntimedMachine, full: str) -> str:
    """What keeps the next instruction from being issued."""
    heads = {
        "loads": state.loads[0][0] if state.loads else 0, "norms": state.norms[0][0] if state.norms else 0,
        "windows": state.products[min(state.windows, len(state.products) - 1)].number if state.products else 0,
        "matrix": state.products[min(state.taken, len(state.products) - 1)].number if state.products else 0,
        "results": next((state.products[r.product].number for r in state.results[state.drained :]), 0),
    }  # fmt: skip
    if not full:
        return "the program ends"
    return (
        f"instruction {state.issued} finds the queue for {full} full, or its first, instruction {heads[full]}, "
        f"more than {MOST_AGE} instructions old"
    )

"""A proof, for each compiled program, that it cannot wait for itself.

Every unit runs what it is given in order, so each step of an instruction (given to its unit's queue, taken from it,
its windows filled, through the array, drained, stored) happens once, and what it needs first is known beforehand: other
steps, never one of several. Such a system cannot run into a dead end that another order would have avoided (it is a
marked graph: Commoner, Holt, Even, Pnueli, 1971): if all steps happen in one order, in which each comes behind what it
needs, they happen in whatever time anything takes. `check_liveness` finds that order, or names what has none. Memory
answers, sooner or later, and that is all that is supposed of it.

What is accepted runs to its end; what is refused has, at most, room of which `untimed` does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import InputError
from ..spec.config import Config
from ..spec.expansion import unroll
from ..spec.isa import Instruction, Opcode
from .kept import KeptWindows
from .stuck import named, why
from .untimed import UntimedMachine

__all__ = ["check_liveness"]

MOST_COLUMNS = 4096
"""The most that a configuration may have."""
_LOOP = (Opcode.SET, Opcode.LOOP, Opcode.NEXT)
_LOAD, _NORM, _HALT = Opcode.LOAD, Opcode.NORM, Opcode.HALT


def _never(number: int, i: Instruction, config: Config) -> None:
    """Refuse what waits for windows that do not come, or leaves some that nothing takes."""
    if i.opcode is _LOAD or i.opcode is _NORM:
        return
    get = i.fields.get
    windows = get("passes", 0) * config.groups * get("depth", 0) * config.rows
    windows <<= bool(get("digit", 0))  # of two bytes each
    if windows != get("window_beats", 0) * config.bus_bytes:
        raise InputError(
            f"{named(number, i.opcode)} waits for ever: it takes {windows} bytes of windows and has "
            f"{i['window_beats'] * config.bus_bytes}; window_beats = {windows // config.bus_bytes} would do."
        )


def _unkept(number: int, i: Instruction, config: Config, on_chip: KeptWindows) -> None:
    """Refuse what takes windows that were not kept, or keeps more than there is room for: hardware would, too."""
    if i.fields.get("keep") and not on_chip.keep(i["window_address"], i["window_beats"]):
        raise InputError(
            f"{named(number, i.opcode)} keeps {i['window_beats']} words of windows, more than window_words = "
            f"{config.window_words}; {1 << (i['window_beats'] - 1).bit_length()} would do."
        )
    if i.fields.get("kept") and not on_chip.there(i["window_address"], i["window_beats"]):
        raise InputError(
            f"{named(number, i.opcode)} takes kept windows from address {i['window_address']}, and not all of its "
            f"{i['window_beats']} words were kept; a product with keep = 1 before it would do."
        )


def _check_kept(program: Iterable[Instruction], config: Config) -> None:
    """Refuse a flat program that takes windows from the chip that are not there, or keeps more than has room."""
    on_chip = KeptWindows(config)
    for number, i in enumerate(program):
        _unkept(number, i, config, on_chip)


def _followed(program: Sequence[Instruction], config: Config) -> tuple[UntimedMachine, str]:
    """A flat program as far as it comes, and what keeps the next instruction from being issued."""
    state = UntimedMachine(config)
    for i in program:
        if i.opcode is _HALT:
            break
        if problem := state.issue(i):
            return state, problem
    state.run()
    return state, ""


def _enough_columns(program: Sequence[Instruction], config: Config) -> int:
    """The least `columns` with which a program ends, or 0."""
    for columns in (config.columns << n for n in range(1, 13)):
        if columns > MOST_COLUMNS:
            break
        state, problem = _followed(program, replace(config, columns=columns))
        if state.ended and not problem:
            return columns
    return 0


def check_liveness(program: Iterable[Instruction], config: Config) -> None:
    """Refuse a program that waits for itself on accelerators of `config`; its loops are run through.

    Raises
    ------
    InputError
        The instruction (numbered as they are issued), what it waits for, and what would do.
    """
    program = list(program)
    if any(i.opcode in _LOOP for i in program):
        program = [found.instruction for found in unroll(program, config)]
    for number, i in enumerate(program):
        _never(number, i, config)
    _check_kept(program, config)
    state, problem = _followed(program, config)
    if problem or not state.ended:
        rest = program[state.issued :]
        said = why(state, rest, config, problem)
        if columns := _enough_columns(program, config):
            said = f"{said.removesuffix('.')}; or columns = {columns}."
        raise InputError(f"the program waits for itself: {said}")
    for context, (_, _, _, keys) in zip(state.contexts, state.blocks, strict=False):
        i = program[state.products[context].number]
        multiplied = i["passes"] * config.groups * i["depth"]
        if multiplied != keys:
            raise InputError(
                f"{named(state.products[context].number, i.opcode)} multiplies {multiplied} probabilities of each row, "
                f"and its block has {keys} keys; as many would do."
            )

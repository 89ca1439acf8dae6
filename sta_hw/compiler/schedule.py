"""From steps with named dependencies to a program: order, on-chip addresses, and what waits for what.

Weights are loaded one group of steps ahead of their use, into rings: a word is overwritten only after the last
product that reads it is through the array or, for what the drain reads, in memory. An instruction can wait for earlier
ones alone: a LOAD that overwrites what a later step reads is put behind that step. What a product waits for must not
wait for a later one; where a step runs ahead of another's (scores, of contexts), it therefore names the loads of its
group that it reads.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import InputError
from ..spec.config import Config
from ..spec.isa import COUNTED, NO_WAIT, WAITS, Instruction, Opcode, Target

__all__ = ["NEVER", "RING_SHARE", "Load", "Scheduled", "Step", "order", "schedule"]

RING_SHARE = 0.57
"""Of an on-chip memory, what one group of weights may take: the next one is loaded into the rest."""
MOST_LOADS = 12
"""LOADs of one group: as many wait in the loader's queue without holding up what comes behind them."""


NEVER = NO_WAIT
"""A distance that is none: there is nothing to wait for."""
_WAITING = {
    "loads": ("matrix", "products", "norms"), "windows": ("products", "norms"), "matrix": ("loads",),
    "norms": ("products", "norms"),
}  # fmt: skip
"""What the instructions in a unit's queue, in order, wait for."""
_PRODUCTS_SLACK = 10
"""So many products ahead of the array a window is asked for at the earliest; those before are in memory anyway."""
_WINDOWS_AHEAD = 2
"""Products ahead of the array whose windows are asked for: the banks."""
_NORM_MARGIN = 4.0
"""By how much longer than alone a NORM may take beside the transfers of others, and behind slower memories."""

_BASES = {
    "values_base": Target.VALUES,
    "positions_base": Target.POSITIONS,
    "parameters_base": Target.PARAMETERS,
}
_WORDS = 1 << 16
"""On-chip bases and destinations are counted modulo that, and hardware counts them modulo each memory's size: they go
round the rings in steps that stay the same."""


@dataclass(frozen=True)
class Load:
    """One LOAD; `words` are taken from the ring of `target`'s memory, whose start `base` steps refer to by name.

    A `register` is added to its address.
    """

    target: Target
    words: int
    address: int
    beats: int
    rows: int = 1
    stride: int = 0
    needs: tuple[Hashable, ...] = ()
    base: str | None = None
    register: int = 0


@dataclass(frozen=True)
class Step:
    """A product or a NORM.

    Attributes
    ----------
    group : int
        Of the loads it needs; -1 for none.
    bases : dict
        Instruction field: name of a load's base in that group (or another group's), and an offset in words.
    needs, gives : names of events: what must be in memory before it starts, what is there after it
    label : str
        For reports.
    uses : (first, end) or None
        Which loads of the group it needs; all if not given.
    weight : float
        How many steps it stands for, in an outline (`compiler.outline`).
    """

    opcode: Opcode
    fields: dict[str, int]
    group: int = -1
    bases: dict[str, tuple[str, int]] = field(default_factory=dict)
    needs: tuple[Hashable, ...] = ()
    gives: tuple[Hashable, ...] = ()
    label: str = ""
    uses: tuple[int, int] | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Scheduled:
    """An instruction in its place, before it is checked against the format's widths.

    Attributes
    ----------
    fields : dict
        Waits among them: the longest distances that will do.
    least : tuple of int
        Of each class in `WAITS`, the shortest distance that delays nothing: a loop's iterations share one.
    label, weight : as of a `Step`
    """

    opcode: Opcode
    fields: dict[str, int]
    label: str
    weight: float
    least: tuple[int, ...] = (NEVER,) * len(WAITS)


def _capacity(config: Config, memory: Target) -> int:
    return {
        Target.VALUES: config.weight_words,
        Target.POSITIONS: config.position_words,
        Target.PARAMETERS: config.parameter_words,
        Target.TABLE: 256,
    }[memory]


def _freed_by(memory: Target) -> str:
    """The counter that tells when a product no longer reads its words.

    Parameters and table are read when results are drained, which may be long after the array has gone on.
    """
    return "products" if memory in (Target.PARAMETERS, Target.TABLE) else "matrix"


def _units(opcode: Opcode) -> tuple[str, ...]:
    """Units whose queues an instruction waits in."""
    return ("windows", "matrix") if opcode in COUNTED["matrix"] else ("loads",) if opcode == Opcode.LOAD else ("norms",)


def schedule(
    steps: Sequence[Step], groups: Sequence[Sequence[Load]], config: Config
) -> tuple[list[Instruction], list[str]]:
    """The flat program, and a label for each of its instructions.

    Raises
    ------
    InputError
        If a group does not fit the on-chip memories, or a number an instruction's field.
    """
    found = order(steps, groups, config)
    return [Instruction(i.opcode, i.fields) for i in found], [i.label for i in found]


def order(
    steps: Sequence[Step], groups: Sequence[Sequence[Load]], config: Config, check: bool = True, *, even: bool = False
) -> list[Scheduled]:
    """The flat program's instructions.

    With `even`, they are those that `roll.roll` finds loops in: on-chip places go on beyond a ring's end, and an
    instruction waits for nothing that one before it in its unit's queue has waited for.

    Raises
    ------
    InputError
        If a group does not fit the on-chip memories, unless that is not to `check`.
    """
    weights, labels = [1.0] * len(groups), ["load"] * len(groups)
    for step in reversed(steps):
        if step.group >= 0:
            weights[step.group], labels[step.group] = step.weight, step.label
    # What each counter reaches with each step.
    events: dict[Hashable, tuple[str, int]] = {}
    counts = {"matrix": 0, "products": 0, "norms": 0}
    last_use = [[0] * len(group) for group in groups]  # counts of the counter that `_freed_by` names
    for step in steps:
        if step.opcode == Opcode.NORM:
            counts["norms"] += 1
            reached = ("norms", counts["norms"])
        else:
            counts["matrix"] += 1
            if not step.fields.get("unfinished"):
                counts["products"] += 1
            if step.group >= 0:
                for number in range(*(step.uses or (0, len(groups[step.group])))):
                    memory = groups[step.group][number].target.memory
                    last_use[step.group][number] = counts[_freed_by(memory)]
            reached = ("products", counts["products"])
        events.update(dict.fromkeys(step.gives, reached))

    def counts_of(needs: Sequence[Hashable]) -> dict[str, int]:
        """Of each class, how many must be finished."""
        found: dict[str, int] = {}
        for need in needs:
            counter, count = events[need]
            found[counter] = max(found.get(counter, 0), count)
        return found

    issued = dict.fromkeys(WAITS, 0)
    # Cycles of the array alone up to the windows asked for, and those by which each NORM is through at the latest.
    array: deque[float] = deque([0.0], _WINDOWS_AHEAD + 1)
    norms_end: list[float] = []
    # Latencies are read off the RTL, whose language takes longer to import than most commands to refuse their input.
    from ..cycles.timing import Latencies, MachineTiming

    known = Latencies(config, MachineTiming())
    waited = {unit: dict.fromkeys(classes, 0) for unit, classes in _WAITING.items()}

    def put(step: Scheduled, wanted: Mapping[str, int]) -> None:
        """Give an instruction the waits for so many of each class, and append it."""
        fields, least = dict(step.fields), dict.fromkeys(WAITS, NEVER)
        for unit in _units(step.opcode):
            before = waited[unit]
            for counter in before:
                count, now = wanted.get(counter, 0), issued[counter] + 1
                if count >= now:
                    raise InputError(
                        f"{step.opcode.name} of {step.label} waits for {count} {counter}, and {now - 1} are before it: "
                        f"it would wait for a later one, which overwrites what is still to be read; room on chip for "
                        "two groups of weights would do."
                    )
                # If not, one that goes before it in its unit's queue waited for them.
                if count > before[counter] or (count and not even):
                    before[counter] = max(before[counter], count)
                    if now - count < NEVER or (not even and now - count <= NO_WAIT):
                        fields[f"wait_{counter}"] = now - count
                finished = before[counter]
                if (unit, counter) == ("windows", "products"):
                    finished = max(finished, now - _PRODUCTS_SLACK)
                elif (unit, counter) == ("windows", "norms"):
                    finished = max(finished, bisect_right(norms_end, array[0]))
                least[counter] = min(now - finished, NEVER)
        program.append(replace(step, fields=fields, least=tuple(least.values())))
        for counter, opcodes in COUNTED.items():
            issued[counter] += step.opcode in opcodes and not (counter == "products" and step.fields.get("unfinished"))
        if step.opcode == Opcode.NORM:
            steps = step.fields["width"] * config.rows * 2 / config.bus_bytes
            begin = max(array[-1] + known.result + known.stored, norms_end[-1] if norms_end else 0.0)
            cycles = 1.5 * steps / known.norm_rate + known.statistics + known.normalizing
            norms_end.append(begin + _NORM_MARGIN * cycles)
        elif step.opcode != Opcode.LOAD and step.opcode != Opcode.HALT:
            f = step.fields
            array.append(array[-1] + f["columns"] * f["passes"] * (f["depth"] >> f.get("m_log2", 0)) * f["n"])

    program: list[Scheduled] = []
    heads = dict.fromkeys(Target, 0)
    live: dict[Target, deque[tuple[int, int]]] = {t: deque() for t in Target}
    bases: dict[str, int] = {}
    loaded: list[int] = []  # LOADs before those of each group
    loads = 0
    pending: deque[tuple[Scheduled, dict[str, int]]] = deque()  # with what they wait for

    def load_group(number: int) -> None:
        nonlocal loads
        if len(groups[number]) > MOST_LOADS:
            raise InputError(f"a group of {len(groups[number])} LOADs exceeds {MOST_LOADS}.")
        loaded.append(loads)
        for load, used in zip(groups[number], last_use[number], strict=True):
            memory = load.target.memory
            capacity = _capacity(config, memory)
            start = 0 if memory == Target.TABLE else heads[memory]
            end = start + load.words
            if load.words > capacity and check:
                raise InputError(
                    f"{load.words} words of {memory.name.lower()} do not fit the {capacity} on chip; "
                    f"{1 << (load.words - 1).bit_length()} would do."
                )
            wanted = counts_of(load.needs)
            ring = live[memory]
            floor = -1 if memory == Target.TABLE else end - capacity
            while ring and (memory == Target.TABLE or ring[0][0] < floor):
                counter = _freed_by(memory)
                wanted[counter] = max(wanted.get(counter, 0), ring.popleft()[1])
            ring.append((start, used))
            heads[memory] = end
            if load.base:
                bases[load.base] = start % (_WORDS if even else capacity)
            fields = {
                "target": int(load.target), "address": load.address,
                "destination": start % (_WORDS if even else capacity),
                "beats": load.beats, "rows": load.rows, "stride": load.stride,
            }  # fmt: skip
            if load.register:
                fields["address_register"] = load.register
            pending.append((Scheduled(Opcode.LOAD, fields, labels[number], weights[number]), wanted))
            loads += 1

    def put_loads() -> None:
        """Those that wait for nothing that is still to come."""
        while pending and all(issued[counter] >= count for counter, count in pending[0][1].items()):
            put(*pending.popleft())

    for step in steps:
        while len(loaded) < min(step.group + 2, len(groups)):
            load_group(len(loaded))
        put_loads()
        wanted = counts_of(step.needs)
        if step.group >= 0:
            _, end = step.uses or (0, len(groups[step.group]))
            wanted["loads"] = loaded[step.group] + end
        fields = dict(step.fields)
        for name, (base, offset) in step.bases.items():
            fields[name] = (bases[base] + offset) % (_WORDS if even else _capacity(config, _BASES[name]))
        put(Scheduled(step.opcode, fields, step.label, step.weight), wanted)
        put_loads()
    program.append(Scheduled(Opcode.HALT, {}, "halt", 1.0))
    return program

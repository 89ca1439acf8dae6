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
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import InputError
from ..spec.config import Config
from ..spec.isa import COUNTED, NO_WAIT, UNIT_WAITS, WAITS, Instruction, Opcode, Target

__all__ = ["NEVER", "RING_SHARE", "Load", "Scheduled", "Step", "order", "schedule"]

RING_SHARE = 0.57
"""Of an on-chip memory, what one group of weights may take: the next one is loaded into the rest."""
MOST_LOADS = 12
"""LOADs of one group: as many wait in the loader's queue without holding up what comes behind them."""


NEVER = NO_WAIT
"""A distance that is none: there is nothing to wait for."""
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
    events = _Events(steps, groups)
    rings = _Rings(config, check=check, even=even)
    program = _Program(config, even=even)
    loads = _loads(steps, groups, events, rings)
    pending: deque[tuple[Scheduled, dict[str, int]]] = deque()  # with what they wait for
    asked = 0  # groups whose loads are pending or put

    def put_loads() -> None:
        """Those that wait for nothing that is still to come."""
        while pending and program.gave(pending[0][1]):
            program.put(*pending.popleft())

    loaded = [0]  # LOADs up to the end of each group
    for step in steps:
        while asked < min(step.group + 2, len(groups)):
            pending.extend(next(loads))
            loaded.append(loaded[-1] + len(groups[asked]))
            asked += 1
        put_loads()
        wanted = events.counts(step.needs)
        if step.group >= 0:
            _, end = step.uses or (0, len(groups[step.group]))
            wanted["loads"] = loaded[step.group] + end
        fields = step.fields | {name: rings.word(name, *base) for name, base in step.bases.items()}
        program.put(Scheduled(step.opcode, fields, step.label, step.weight), wanted)
        put_loads()
    return [*program.instructions, Scheduled(Opcode.HALT, {}, "halt", 1.0)]


def _loads(
    steps: Sequence[Step], groups: Sequence[Sequence[Load]], events: _Events, rings: _Rings
) -> Iterator[list[tuple[Scheduled, dict[str, int]]]]:
    """Of each group, its LOADs, placed when they are asked for, with how many of each class each waits for.

    A LOAD has the label and weight of the first step that reads its group.
    """
    weights, labels = [1.0] * len(groups), ["load"] * len(groups)
    for step in reversed(steps):
        if step.group >= 0:
            weights[step.group], labels[step.group] = step.weight, step.label
    for number, group in enumerate(groups):
        if len(group) > MOST_LOADS:
            raise InputError(f"a group of {len(group)} LOADs exceeds {MOST_LOADS}.")
        found = []
        for load, used in zip(group, events.last_use[number], strict=True):
            destination, freed = rings.place(load, used)
            wanted = events.counts(load.needs)
            for counter, count in freed.items():
                wanted[counter] = max(wanted.get(counter, 0), count)
            fields = {
                "target": int(load.target), "address": load.address, "destination": destination,
                "beats": load.beats, "rows": load.rows, "stride": load.stride,
            }  # fmt: skip
            if load.register:
                fields["address_register"] = load.register
            found.append((Scheduled(Opcode.LOAD, fields, labels[number], weights[number]), wanted))
        yield found


class _Events:
    """What the counters reach with each step.

    Attributes
    ----------
    last_use : list of list of int
        Of each group's loads, the count at which nothing reads its words any more, of the counter that `_freed_by`
        names.
    """

    def __init__(self, steps: Sequence[Step], groups: Sequence[Sequence[Load]]) -> None:
        self._reached: dict[Hashable, tuple[str, int]] = {}
        self.last_use = [[0] * len(group) for group in groups]
        counts = {"matrix": 0, "products": 0, "norms": 0}
        for step in steps:
            if step.opcode == Opcode.NORM:
                counts["norms"] += 1
                reached = ("norms", counts["norms"])
            else:
                counts["matrix"] += 1
                counts["products"] += not step.fields.get("unfinished")
                if step.group >= 0:
                    for number in range(*(step.uses or (0, len(groups[step.group])))):
                        memory = groups[step.group][number].target.memory
                        self.last_use[step.group][number] = counts[_freed_by(memory)]
                reached = ("products", counts["products"])
            self._reached.update(dict.fromkeys(step.gives, reached))

    def counts(self, needs: Sequence[Hashable]) -> dict[str, int]:
        """Of each class, how many must be finished for all events of `needs`."""
        found: dict[str, int] = {}
        for need in needs:
            counter, count = self._reached[need]
            found[counter] = max(found.get(counter, 0), count)
        return found


class _Rings:
    """The on-chip memories as rings: where each load's words lie, and whose readers must be done before they are there.

    A table has one place, which all tables share.
    """

    def __init__(self, config: Config, *, check: bool, even: bool) -> None:
        self._config, self._check, self._even = config, check, even
        self._heads = dict.fromkeys(Target, 0)
        self._live: dict[Target, deque[tuple[int, int]]] = {t: deque() for t in Target}  # starts, and last uses
        self._bases: dict[str, int] = {}

    def place(self, load: Load, used: int) -> tuple[int, dict[str, int]]:
        """The destination of a load whose words are last read at count `used`, and what frees its words first.

        Raises
        ------
        InputError
            If it is more than the memory holds, and that is to be checked.
        """
        memory = load.target.memory
        capacity = _capacity(self._config, memory)
        if load.words > capacity and self._check:
            raise InputError(
                f"{load.words} words of {memory.name.lower()} do not fit the {capacity} on chip; "
                f"{1 << (load.words - 1).bit_length()} would do."
            )
        start = 0 if memory == Target.TABLE else self._heads[memory]
        end = self._heads[memory] = start + load.words
        ring, counter = self._live[memory], _freed_by(memory)
        freed: dict[str, int] = {}
        while ring and (memory == Target.TABLE or ring[0][0] < end - capacity):
            freed[counter] = max(freed.get(counter, 0), ring.popleft()[1])
        ring.append((start, used))
        destination = start % self._size(memory)
        if load.base:
            self._bases[load.base] = destination
        return destination, freed

    def word(self, name: str, base: str, offset: int) -> int:
        """The value of the instruction's field `name`: so many words after a named load's first."""
        return (self._bases[base] + offset) % self._size(_BASES[name])

    def _size(self, memory: Target) -> int:
        return _WORDS if self._even else _capacity(self._config, memory)


class _Program:
    """Instructions in their order, each with its waits.

    Attributes
    ----------
    instructions : list of Scheduled
        Those given so far.
    """

    def __init__(self, config: Config, *, even: bool) -> None:
        self._even = even
        self.instructions: list[Scheduled] = []
        self._issued = dict.fromkeys(WAITS, 0)
        self._waited = {unit: dict.fromkeys(classes, 0) for unit, classes in UNIT_WAITS.items()}
        self._pace = _Pace(config)

    def gave(self, wanted: Mapping[str, int]) -> bool:
        """Whether so many of each class have been put."""
        return all(self._issued[counter] >= count for counter, count in wanted.items())

    def put(self, step: Scheduled, wanted: Mapping[str, int]) -> None:
        """Give an instruction the waits for so many of each class, and append it.

        Raises
        ------
        InputError
            If it waits for one that is not before it.
        """
        fields, least = dict(step.fields), dict.fromkeys(WAITS, NEVER)
        for unit in _units(step.opcode):
            before = self._waited[unit]
            for counter in before:
                count, now = wanted.get(counter, 0), self._issued[counter] + 1
                if count >= now:
                    raise InputError(
                        f"{step.opcode.name} of {step.label} waits for {count} {counter}, and {now - 1} are before it: "
                        f"it would wait for a later one, which overwrites what is still to be read; room on chip for "
                        "two groups of weights would do."
                    )
                # If not, one that goes before it in its unit's queue waited for them.
                if count > before[counter] or (count and not self._even):
                    before[counter] = max(before[counter], count)
                    if now - count < NEVER or (not self._even and now - count <= NO_WAIT):
                        fields[f"wait_{counter}"] = now - count
                finished = max(before[counter], self._pace.finished(unit, counter, now))
                least[counter] = min(now - finished, NEVER)
        self.instructions.append(replace(step, fields=fields, least=tuple(least.values())))
        for counter, opcodes in COUNTED.items():
            counts = step.opcode in opcodes and not (counter == "products" and step.fields.get("unfinished"))
            self._issued[counter] += counts
        self._pace.add(step)


class _Pace:
    """By when, in cycles of the array alone, products and NORMs are through: an estimate, for the shortest waits.

    Parameters
    ----------
    config : Config
        Its latencies are read off the RTL, whose language takes longer to import than most commands to refuse their
        input; hence the import in here.
    """

    def __init__(self, config: Config) -> None:
        from ..cycles.timing import Latencies, MachineTiming

        self._config = config
        self._known = Latencies(config, MachineTiming())
        self._array: deque[float] = deque([0.0], _WINDOWS_AHEAD + 1)  # up to the windows asked for
        self._norms_end: list[float] = []

    def finished(self, unit: str, counter: str, now: int) -> int:
        """How many of a class are finished when the unit takes the next instruction: windows, which run ahead, only."""
        if (unit, counter) == ("windows", "products"):
            return now - _PRODUCTS_SLACK
        if (unit, counter) == ("windows", "norms"):
            return bisect_right(self._norms_end, self._array[0])
        return 0

    def add(self, step: Scheduled) -> None:
        """Go on by an instruction."""
        fields, known = step.fields, self._known
        if step.opcode == Opcode.NORM:
            steps = fields["width"] * self._config.rows * 2 / self._config.bus_bytes
            begin = max(self._array[-1] + known.result + known.stored, self._norms_end[-1] if self._norms_end else 0.0)
            cycles = 1.5 * steps / known.norm_rate + known.statistics + known.normalizing
            self._norms_end.append(begin + _NORM_MARGIN * cycles)
        elif step.opcode in COUNTED["matrix"]:
            vectors = fields["columns"] * fields["passes"] * (fields["depth"] >> fields.get("m_log2", 0))
            self._array.append(self._array[-1] + vectors * fields["n"])

"""What the cycle model knows of time: the memory, and the latencies of the RTL, each read off its source.

Times are cycles of the clock. `arrives` at t means: to be seen in cycle t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..rtl.engine.accumulator import HAZARD_CYCLES
from ..rtl.engine.array import ProcessingArray
from ..rtl.engine.decoder import Decoder
from ..rtl.engine.engine import Engine
from ..rtl.primitives.multiplier import Multiplier
from ..spec.config import Config
from ..spec.expansion import WINDOW_LINES
from ..spec.isa import HEADER_BYTES, LINE_BYTES, WORD_BYTES, Instruction, Opcode, Result

__all__ = ["BEST_BYTES", "SAVED_BEATS", "Latencies", "MachineTiming"]

BEST_BYTES = 64
"""Of the list of a row's largest results (rtl/units/best.py)."""

SAVED_BEATS = 4
"""Beats that a memory of less than one a cycle has ready when it was not asked for a while (sim/memory_harness.cpp)."""

_QUEUE = 2
"""rtl/primitives/queue.py: from in to out."""
_DEEP_QUEUE = 3
"""rtl/primitives/queue.py: from in to out where the memory is block RAM, as in all queues of the DMA."""
_CUT = 5
"""rtl/bus/bursts.py, the next burst: LENGTH, LEFT, FINAL, and in REQUEST a cycle to ask and one to be granted."""
_CHOSEN = 1
"""rtl/bus/dma.py: the burst that goes next waits in a register."""
_LOOKED = 1
"""rtl/bus/dma.py: there it is looked at, whether it lies in the image."""
_ISSUED = 1
"""rtl/bus/dma.py: the address channel's register."""
_RECEIVED = 1
"""rtl/bus/dma.py: the register behind the read channel."""
_SLICE = 1
"""rtl/primitives/queue.py: a register slice."""
_RING = 3
"""rtl/control/fetch.py: a word is written, read, and at hand."""
_COMPLETION = 3
"""A pulse of completion goes through a register into its counter, which is compared a cycle later."""
_RESULT_LATENCY = 5 + Multiplier.latency
"""rtl/units/result_arithmetic.py: table, second multiplication, addition."""
_SOFTMAX_LATENCY = 7
"""rtl/units/attention_arithmetic.py: pipeline; rtl/units/attention.py: output queue."""
_NORM_LATENCY = 9 + 3 * Multiplier.latency
"""rtl/units/norm_arithmetic.py: from a step to its results."""
_NORM_QUEUE = 16
"""rtl/units/norm_arithmetic.py: steps under way at most."""
_ROOT = 13
"""rtl/units/norm_statistics.py: cycles that the last row's variance is shifted for, 16 at most; 13 if it is zero."""


@dataclass(frozen=True)
class MachineTiming:
    """The memory, as `sim.accelerator.MemoryModel` has it.

    Attributes
    ----------
    latency : int
        Cycles from a read address to its first beat, and from the last beat written to the answer.
    beats_per_cycle : float
        Bandwidth in bus beats per cycle of each direction.
    shared : bool
        The bandwidth is that of both directions together.
    """

    latency: int = 50
    beats_per_cycle: float = 1.0
    shared: bool = False


class Latencies:
    """Latencies and rates of one configuration with one memory.

    Attributes
    ----------
    memory : int
        The memory's latency; a simulated one answers in the cycle after the address at the earliest.
    run : int
        From a run's acceptance by the read master to its first beat at the client.
    refill : int
        From room in a client's queue to the beats that fill it.
    program : int
        From the start to the program's first beat: the header is read and judged before.
    line_read : int
        From the start to the end of a program of one line that does nothing: all of the line is read first.
    word_beats : float
        Bus beats of a word of the program.
    line_rate : float
        Most beats a cycle of the program's lines, which are runs of their own.
    issue : int
        Cycles between instructions beside one for each of their words (rtl/control/dispatch.py): looked at, given.
    dispatched : int
        From an instruction's last word at hand to its acceptance by a unit that is free: looked at and given, through
        the unit's queue, what it waits for compared.
    engine : int
        From a product's acceptance to its first beat at the array's gate: the order's queue, the counters and memory
        of the weights with their queue, the decoder.
    commanded : int
        From a product's acceptance to its first beat of windows into a bank: the command is held, judged, and through
        the loader's queue.
    window : int
        From a window's last beat to the array's gate: a register slice, the write register and the bank's flag.
    result : int
        From a column's last beat at the gate to its first result through the result path's entry.
    parts : int
        Beats of results in a column.
    stored : int
        From the last beat of a run on the write channel to the completion's count being seen.
    path : int
        From a result at the result path to its first beat on the write channel, if nothing waits.
    scored : int
        From a block's last score to its first probability (rtl/units/attention.py).
    recovery : int
        From a block's last probability to the next one's first, if its scores are there: the rows' totals lie between.
    accepted : int
        By how much a block's acceptance by the exponentials, which lets the next block's scores in, precedes its
        first probability.
    totals : int
        From a row's last probability to the first result that is divided by the row's sum.
    rescale : int
        From a continuing product's first beat at the gate to its passing: what is under way is stored first.
        Each place by which a sum shifts, which only the data know, would cost ``columns + 20`` more.
    statistics : int
        From the last beat of a tile's sums to the hand-over of its statistics (rtl/units/norm.py,
        rtl/units/norm_statistics.py).
    normalizing : int
        From the hand-over to the first step: the tile's parameters are read.
    normalized : int
        From LayerNorm's last step to the end of its narrow results on their way to the write channel.
    norm_rate : float
        LayerNorm's steps a cycle: the places of its result queues over the cycles until a place is free again.
    line_beats : int
        Bus beats of a line of the program, which is a run of its own.
    read_rate, client_rate : float
        Beats a cycle that the read bursts under way allow, and that one client's queue and cutter allow.
    most_bursts : int
        Read bursts under way at most.
    depth, fetch_depth : int
        Beats that a client's queue holds (rtl/core.py).
    transposing : float
        Share of the time in which the transposer takes: it gives a block before it takes the next.
    """

    def __init__(self, config: Config, timing: MachineTiming) -> None:
        array = ProcessingArray(config)
        engine = Engine(config)
        array._MustUse__silence = engine._MustUse__silence = True  # asked for their latencies alone
        bus, rows = config.bus_bytes, config.rows
        self.memory = memory = max(1, timing.latency)
        self.run = _CUT + _CHOSEN + _LOOKED + _ISSUED + memory + _RECEIVED + _DEEP_QUEUE
        self.refill = 2 + _CHOSEN + _LOOKED + _ISSUED + memory + _RECEIVED + _DEEP_QUEUE
        self.word_beats = WORD_BYTES / bus
        asked, judged = 1, 1
        header = HEADER_BYTES // min(bus, WORD_BYTES)
        gathered = bus < WORD_BYTES  # a word is complete a cycle after its last beat
        self.program = asked + self.run + header + judged + self.run + _RING - 1 + 2 * gathered
        self.line_read = self.program - _RING - gathered + LINE_BYTES // bus - 3
        self.issue = 2
        self.dispatched = 1 + _QUEUE + 1
        memory_of_weights = 1 + 2
        self.engine = _QUEUE + memory_of_weights + _QUEUE + Decoder.latency
        self.commanded = 2 + _QUEUE + 1
        self.window = _SLICE + 1
        self.result = engine.latency - Decoder.latency - 1
        self.parts = rows // config.drain_lanes
        self.stored = memory + _COMPLETION
        packed = 1
        self.path = _RESULT_LATENCY + _QUEUE + packed + _QUEUE + _DEEP_QUEUE + _LOOKED + 1
        words = rows // config.lanes
        self.scored = words + 14
        self.accepted = _SOFTMAX_LATENCY
        self.recovery = rows + words + _SOFTMAX_LATENCY + 1
        self.totals = rows + 13 + engine.latency - Decoder.latency - 1 - array.latency - 2
        self.rescale = array.latency + 2 * HAZARD_CYCLES + 2
        self.statistics = 9 + 32 * rows + _ROOT + 3
        self.normalizing = 2 + self.run
        self.normalized = _NORM_LATENCY + _QUEUE + 1 + _DEEP_QUEUE + _LOOKED
        self.norm_rate = min(1.0, _NORM_QUEUE / (_NORM_LATENCY + _QUEUE + 2))
        self.depth = max(2 * config.burst, 512)
        self.fetch_depth = WINDOW_LINES * LINE_BYTES // bus
        self._burst, self.most_bursts = config.burst, config.outstanding
        self.read_rate = self.burst_rate(config.burst)
        self.line_beats = max(1, LINE_BYTES // bus)
        self.line_rate = self.run_rate(self.line_beats)
        self.client_rate = min(1.0, config.burst / _CUT)
        taken, given = config.groups * rows // config.drain_lanes, config.groups * rows // bus + 1
        self.transposing = taken / (taken + given)
        self._lanes, self._rows = config.drain_lanes, rows

    def burst_of(self, run: float) -> float:
        """Beats of the bursts of runs of so many."""
        return min(self._burst, run)

    def issued(self, cycles: float) -> float:
        """Bursts that a client has under way so many cycles after it asked."""
        return 1 + cycles / _CUT

    def taken(self, i: Instruction) -> float:
        """Most beats a cycle that the result path takes of a product, transposing aside."""
        if i.opcode != Opcode.PRODUCT:
            return 1.0
        if i["result"] == Result.BEST:  # row after row
            return 1 / self._lanes
        if i["rotate"]:  # rtl/units/rotary.py: two beats are taken, and two given with four multiplications
            return 1 / 3
        # A gate is through table, multiplier and queue before what it multiplies is taken.
        pair = 2 * self.parts
        return pair / max(pair, self.parts + 3 + Multiplier.latency + _QUEUE) if i["multiply"] else 1.0

    def column(self, i: Instruction) -> int:
        """Cycles in which the result path takes a column: of lists it takes a row in each."""
        return self._rows if i["result"] == Result.BEST else self.parts

    def turned(self, rate: float) -> int:
        """From the end of a product's results, which come so many beats a cycle, to that of its rotated ones.

        The last pair is given after it was taken; where pairs wait for one another, that is in their rate.
        """
        return _QUEUE + Multiplier.latency + 3 + (4 * self.parts if rate < 1 / 3 else 0)

    def lists(self, i: Instruction) -> int:
        """Cycles in which lists of largest results are emptied, and filled by the first columns (rtl/units/best.py).

        How often later results enter them only the data know.
        """
        if i["result"] != Result.BEST or not i["row_first"]:
            return 0
        kept = BEST_BYTES // 8
        return kept * self._rows + 2 * kept * self._rows * min(kept, i["columns"])

    def given(self, i: Instruction) -> int:
        """From the end of a product's results to that of the lists that are stored behind them (rtl/units/best.py).

        A place, of 64 bits, takes a cycle and one for each of its beats, of 16 bits a lane.
        """
        if i["result"] != Result.BEST or not i["row_last"]:
            return 0
        return BEST_BYTES // 8 * self._rows * (1 + max(1, 4 // self._lanes))

    def burst_rate(self, beats: float, count: float = math.inf) -> float:
        """Most beats a cycle of so many bursts of so many beats: one waits behind the queue of those under way.

        The first that may be under way come one behind the other; the next as many a turn later.
        """
        turn = self.memory + max(beats + 1, 4)
        if math.isinf(count):
            return min(1.0, self.most_bursts * beats / turn)
        turns = math.ceil(count / self.most_bursts) - 1
        return min(1.0, count * beats / (turns * turn + (count - turns * self.most_bursts) * beats))

    def run_rate(self, beats: int, runs: float = math.inf) -> float:
        """Most beats a cycle of runs of so many: each is cut into bursts, and then the next run is taken."""
        bursts = math.ceil(beats / self._burst)
        return min(beats / (_CUT * bursts + 1), self.burst_rate(beats / bursts, runs * bursts))

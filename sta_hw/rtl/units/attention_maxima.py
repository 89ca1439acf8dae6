"""The first phase of attention's softmax: a block's scores wait in a queue while each row's running maximum is found.

In the order of the functions: a block is taken, and handed to the second phase (attention.py) with its rows' maxima;
scores are queued beside their mask bits, which say whether a key is valid for a row; causal masks; maxima; the order of
keys.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream

from ...spec.config import Config
from ..primitives.arithmetic import at_limit, ring_shift
from ..primitives.queue import Queue, RegisterSlice
from ..primitives.sequencer import Gearbox
from .attention_arithmetic import COARSE_BITS, EXPONENT_BITS, FRACTION_BITS, lane_rings, scaled

__all__ = ["FinishedBlock", "ScorePorts", "running_maxima"]

_LOWEST = -512 << COARSE_BITS


@dataclass(frozen=True)
class ScorePorts:
    """Members of `AttentionSoftmax`, which has more about them.

    Attributes
    ----------
    block : stream of block_layout
    scores : stream of drain_lanes x signed(16)
        Of both `ready` is driven here.
    busy : Signal of 1 bit
        Set while a block's scores come, and while it waits for the second phase, which sets it, too.
    saturated : Signal of 1 bit
        Two cycles after the word of scores, if that does not wait.
    """

    block: stream.Interface
    scores: stream.Interface
    busy: Signal
    saturated: Signal


@dataclass(frozen=True)
class FinishedBlock:
    """What the first phase hands to the second one.

    Attributes
    ----------
    pending, accept : Signal of 1 bit
        There is a block whose maxima are complete; the second phase takes it.
    block : view of block_layout
        Its words of scores are the next ones of the queue.
    maxima : list of list of Signal, lanes x (rows / lanes) x signed(14)
        Rings of rows' exponents, as `lane_rings`: the largest whole part of a row's valid scores up to this block's,
        and 1; -4096 of a row that has none. The second phase turns them as it takes them.
    """

    pending: Signal
    accept: Signal
    block: data.View
    maxima: list[list[Signal]]


@dataclass(frozen=True)
class _AtHand:
    """The block whose scores come, and where in it the next ones are.

    Attributes
    ----------
    block : view of block_layout
    active : Signal
        There is one.
    key, group_key : Signal
        Numbers of the key and of its group's first one.
    group, position, part : Signal
        Of the windows; of a window; of the key's rows.
    part_end, position_end, is_last : Value
        It is the key's last part, at a window's last position; these are the block's last scores.
    """

    block: data.View
    active: Signal
    key: Signal
    group_key: Signal
    group: Signal
    position: Signal
    part: Signal
    part_end: Value
    position_end: Value
    is_last: Value


def _at_hand(config: Config, ports: ScorePorts) -> _AtHand:
    """No block at first."""
    parts = config.rows // config.drain_lanes
    block = Signal(ports.block.payload.shape(), reset_less=True)
    active = Signal()
    key = Signal(17)
    group_key = Signal(17)
    group = Signal(range(config.groups))
    position = Signal(6)
    part = Signal(range(parts))
    part_end = part == parts - 1
    position_end = position == block.depth - 1
    is_last = part_end & position_end & (group == config.groups - 1)
    return _AtHand(block, active, key, group_key, group, position, part, part_end, position_end, is_last)


@dataclass(frozen=True)
class _Scores:
    """A beat of scores.

    Attributes
    ----------
    scores, valids : list of Value, drain_lanes of 16 and of 1 bit
        Per lane a row's score of the key, and whether the row has that key.
    move : Value
        They are taken.
    queue : Queue
        Where they go.
    """

    scores: list[Value]
    valids: list[Value]
    move: Value
    queue: Queue


def running_maxima(m: Module, config: Config, ports: ScorePorts) -> tuple[Queue, FinishedBlock]:
    """Take a block after the other, and `drain_lanes` scores a cycle; it is pending 4 cycles after its last ones.

    The next block is taken when the second phase has accepted the one before.

    Returns
    -------
    Queue
        Words of `lanes` times 17 bits: 16 of a score, and above them its mask bit; as many as two blocks have at most.
        The second phase reads those of the block that it accepted; `r_en` is not driven here.
    FinishedBlock
        Its `accept` is not driven here.
    """
    finished = FinishedBlock(
        Signal(name="_pending"),
        Signal(name="_accept"),
        Signal(ports.block.payload.shape(), name="finished_block", reset_less=True),
        lane_rings(config, "found", signed(EXPONENT_BITS)),
    )
    taken, given = config.drain_lanes, config.lanes
    at = _at_hand(config, ports)
    end_1, end_2 = Signal(), Signal()
    m.d.comb += ports.block.ready.eq(~at.active & ~end_1 & ~end_2 & ~finished.pending)
    with m.If(ports.block.valid & ports.block.ready):
        m.d.sync += [
            at.block.eq(ports.block.payload),
            at.active.eq(1),
            at.key.eq(ports.block.payload.start), at.group_key.eq(ports.block.payload.start),
            at.group.eq(0), at.position.eq(0), at.part.eq(0),
        ]  # fmt: skip
    scores = _queue_scores(m, config, ports, at)
    maxima = _raise_maxima(m, config, ports, at, scores, end_1)
    _next_key(m, config, at, scores.move, finished.block)
    # A block's maxima are complete two cycles after its last score.
    m.d.sync += end_2.eq(end_1)
    with m.If(finished.accept):
        m.d.sync += finished.pending.eq(0)
    with m.If(end_2):
        m.d.sync += finished.pending.eq(1)
        for r in range(config.rows):
            m.d.sync += finished.maxima[r % given][r // given].eq(maxima[r % taken][r // taken])
        with m.If(finished.block.last):
            m.d.sync += [b.eq(_LOWEST) for ring in maxima for b in ring]
    m.d.comb += ports.busy.eq(at.active | finished.pending)
    return scores.queue, finished


def _queue_scores(m: Module, config: Config, ports: ScorePorts, at: _AtHand) -> _Scores:
    """Words of `lanes` rows: scores beside mask bits, alike for all rows of a key unless masks are causal."""
    taken, given = config.drain_lanes, config.lanes
    gear = m.submodules.gear = Gearbox(17 * taken, 17 * given)
    words = (config.groups * config.window) * (config.rows // given)
    queue = m.submodules.scores_queue = Queue(width=17 * given, depth=2 * words)
    valids = _causal(m, config, at) if "causal" in config.features else [at.key < at.block.keys] * taken
    arrived = m.submodules.arrived = RegisterSlice(16 * taken)
    scores = [arrived.r_data[16 * i :][:16].as_signed() for i in range(taken)]
    m.d.comb += [
        arrived.w_data.eq(ports.scores.payload.as_value()),
        arrived.w_en.eq(ports.scores.valid),
        ports.scores.ready.eq(arrived.w_rdy),
        gear.source.valid.eq(at.active & arrived.r_rdy),
        gear.source.payload.eq(Cat(Cat(score, valid) for score, valid in zip(scores, valids, strict=True))),
        arrived.r_en.eq(at.active & gear.source.ready),
        queue.w_data.eq(gear.target.payload),
        queue.w_en.eq(gear.target.valid),
        gear.target.ready.eq(queue.w_rdy),
    ]
    return _Scores(scores, valids, gear.source.valid & gear.source.ready, queue)


def _causal(m: Module, config: Config, at: _AtHand) -> list[Value]:
    """Of each row of the part at hand whether a key is valid: with causal masks row r has r more keys."""
    taken = config.drain_lanes
    block, key, part = at.block, at.key, at.part
    beyond = Signal(signed(18))  # by how much the key's number is beyond the first row's last one
    m.d.comb += beyond.eq(key - block.keys)
    within, part_bits = part & block.causal.replicate(len(part)), taken.bit_length() - 1
    high, low = (beyond >> part_bits).as_signed(), beyond[:part_bits]
    less, same = Signal(), Signal()
    m.d.comb += [
        less.eq(~key[-1] & (high < within.as_unsigned())),
        same.eq(~key[-1] & block.causal & (high == within.as_unsigned())),
    ]
    return [less | (same & (low < i)) for i in range(taken)]


def _raise_maxima(
    m: Module, config: Config, ports: ScorePorts, at: _AtHand, taken: _Scores, end_1: Signal
) -> list[list[Signal]]:  # fmt: skip
    """Per lane of scores a ring of its rows' maxima, which turns by one place per beat, a cycle behind it.

    `end_1` is set a cycle after the block's last score.
    """
    lanes, scores, valids, move = config.drain_lanes, taken.scores, taken.valids, taken.move
    parts = range(config.rows // lanes)
    maxima = [
        [Signal(signed(EXPONENT_BITS), init=_LOWEST, name=f"maximum_{i}_{p}") for p in parts] for i in range(lanes)
    ]
    # The score's whole part, one cycle behind.
    whole = [Signal(signed(EXPONENT_BITS), name=f"whole_{i}", reset_less=True) for i in range(lanes)]
    move_1, valid_1 = Signal(), Signal()
    causal = "causal" in config.features
    if causal:
        late = [Signal(name=f"valid_1_{i}") for i in range(lanes)]
        at_end = move & Cat(v & at_limit(score, 16) for score, v in zip(scores, valids, strict=True)).any()
    else:
        late = [valid_1] * lanes
        at_end = move & valids[0] & Cat(at_limit(score, 16) for score in scores).any()
    m.d.sync += [
        *(
            w.eq((scaled(score, at.block.coarse) >> FRACTION_BITS) + 1)
            for score, w in zip(scores, whole, strict=True)
        ),
        move_1.eq(move), *(v_1.eq(v) for v, v_1 in zip(valids[: lanes if causal else 1], late, strict=False)),
        end_1.eq(move & at.is_last), ports.saturated.eq(at_end),
    ]  # fmt: skip
    with m.If(move_1):
        for ring, found, counts in zip(maxima, whole, late, strict=True):
            m.d.sync += ring_shift(ring, Mux(counts & (found > ring[0]), found, ring[0]))
    return maxima


def _next_key(m: Module, config: Config, at: _AtHand, move: Value, finished: data.View) -> None:
    """Go on in the order of the scores; with the last one the block is `finished`."""
    with m.If(move):
        m.d.sync += at.part.eq(at.part + 1)
        with m.If(at.part_end):
            m.d.sync += [at.part.eq(0), at.position.eq(at.position + 1), at.key.eq(at.key + config.groups)]
            with m.If(at.position_end):
                m.d.sync += [at.position.eq(0), at.group.eq(at.group + 1), at.group_key.eq(at.group_key + 1),
                             at.key.eq(at.group_key + 1)]  # fmt: skip
        with m.If(at.is_last):
            m.d.sync += [at.active.eq(0), finished.eq(at.block)]

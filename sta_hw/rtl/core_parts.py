"""What the core's parts know of one another: its units, and the order in which they work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from amaranth.hdl import Signal, Value

from .bus.dma import ReadMaster, WriteMaster
from .control.fetch import Fetch
from .engine.engine import Engine
from .primitives.sequencer import StreamedMemory
from .units.attention import AttentionSoftmax
from .units.expander import Expander
from .units.feeds import ParameterFeed, WindowFeed
from .units.loader import Loader
from .units.norm import Norm
from .units.results import ResultPath

__all__ = ["Order", "Units"]


@dataclass(frozen=True)
class Units:
    """What the core is made of; `expander` with feature blocks4 alone."""

    reads: ReadMaster
    writes: WriteMaster
    fetch: Fetch
    loader: Loader
    engine: Engine
    values: StreamedMemory
    positions: StreamedMemory
    parameters: StreamedMemory
    expander: Expander | None
    windows: WindowFeed
    feed: ParameterFeed
    softmax: AttentionSoftmax
    results: ResultPath
    norm: Norm


@dataclass(frozen=True)
class Order:
    """What is known of the order in which units work.

    Attributes
    ----------
    done : dict of Signal
        Finished work of each class of `WAITS`, CLASS_BITS wide.
    window_waits : dict of Value
        For which classes the next windows wait.
    loads_wait : Signal
        The next product waits for a LOAD.
    fault, instruction : Signal
        The engine has met a fault; in which instruction.
    """

    done: Mapping[str, Signal]
    window_waits: Mapping[str, Value]
    loads_wait: Signal
    fault: Signal
    instruction: Signal

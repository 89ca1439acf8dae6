"""The units that the core is made of, for what connects and orders them."""

from __future__ import annotations

from dataclasses import dataclass

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

__all__ = ["Units"]


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

"""Products on a board that has the engine alone, over its serial line."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError
from ..rtl.board.engine_board import STREAMS, stream_words
from ..spec.board import BOARD_REGISTERS, IDENTITY
from ..spec.config import Config
from . import beats
from .board import BoardLink
from .products import Product

__all__ = ["EngineLink"]

_TRIES = 4
_POLLS = 400
"""Looks at the board's flags without anything to do, after which a byte must have been lost."""
_CHECKSUM, _FLAGS, _LOST = 4, 8, 12


class _DamagedError(Exception):
    """The board has not received what was sent, or not all it sent has come."""


class EngineLink:
    """The engine behind a serial line (`rtl.engine_board`).

    Beats cannot be sent twice, for the engine would take them twice. What is sent and received is checked as a whole
    instead: after a damaged run the engine is reset and all is sent again.

    Parameters
    ----------
    config : Config
    link : BoardLink

    Raises
    ------
    CheckError
        If what answers is no such board.
    """

    def __init__(self, config: Config, link: BoardLink) -> None:
        self.config, self.link = config, link
        identity = int(link.read(BOARD_REGISTERS, 1)[0])
        if identity != IDENTITY:
            raise CheckError(f"this is no board with STA-HW: its identity reads 0x{identity:08x}")
        self._words = stream_words(config)
        self._number = {name: i for i, name in enumerate(self._words)}

    def run(self, products: Sequence[Product]) -> list[NDArray[np.int64]]:
        """Results of products, shape (columns, rows) each.

        Raises
        ------
        CheckError
            If the engine reports a fault, or the line loses bytes again and again.
        """
        for _ in range(_TRIES):
            try:
                return self._run(products)
            except _DamagedError:
                self.link.retries += 1
                self.link.port.flush()
                self.link.settle()
        raise CheckError(f"the serial line lost bytes in each of {_TRIES} tries")

    def _run(self, products: Sequence[Product]) -> list[NDArray[np.int64]]:
        link, port = self.link, self.link.port
        link._burst(BOARD_REGISTERS + _LOST, np.zeros(1, np.uint32))  # resets the engine
        port.write(link._command(1, BOARD_REGISTERS + _CHECKSUM, 1) + bytes(4))
        streams = [p.streams(self.config) for p in products]
        waiting = {
            name: list(np.concatenate([s[name] for s in streams])) for name in streams[0] if len(streams[0][name].T)
        }
        columns = [p.weights.columns for p in products]
        wanted = {"results": sum(columns) * self.config.rows // self.config.drain_lanes, "status": len(products)}
        found: dict[str, list[NDArray[np.uint32]]] = {name: [] for name in wanted}
        sent = 0
        idle = 0
        while any(waiting.values()) or any(len(found[n]) < wanted[n] for n in wanted):
            flags = int(self._read(BOARD_REGISTERS + _FLAGS, 1)[0])
            idle += 1
            for name, queue in waiting.items():
                if queue and flags >> self._number[name] & 1:
                    payload = queue.pop(0).astype(">u4").tobytes()
                    port.write(link._command(1, self._address(name), self._words[name]) + payload)
                    sent = zlib.crc32(payload, sent)
                    idle = 0
            for name, got in found.items():
                if flags >> self._number[name] & 1:
                    got.append(self._read(self._address(name), self._words[name]))
                    idle = 0
                    if len(got) > wanted[name]:  # flags that are none: nothing else would end this
                        raise _DamagedError
            if idle > _POLLS:
                raise _DamagedError
        checksum, _, lost = self._read(BOARD_REGISTERS + _CHECKSUM, 3)
        if int(checksum) != sent or lost or any(len(found[n]) != wanted[n] for n in wanted):
            raise _DamagedError
        for number, word in enumerate(found["status"]):
            if word[0]:
                raise CheckError(f"product {number}: the engine reports fault {int(word[0]):#04x}")
        values, _ = beats.result_values(np.stack(found["results"]), self.config)
        return np.split(values, np.cumsum(columns)[:-1])

    def _address(self, name: str) -> int:
        return STREAMS + 256 * self._number[name]

    def _read(self, address: int, words: int) -> NDArray[np.uint32]:
        self.link.port.write(struct.pack(">BBI", 2, words, address >> 2))
        answer = self.link.port.read(4 * words)
        if len(answer) < 4 * words:
            raise _DamagedError
        return np.frombuffer(answer, ">u4").astype(np.uint32)

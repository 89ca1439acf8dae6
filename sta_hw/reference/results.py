"""What becomes of results: through the table, added, rotated, listed or transposed, and stored row by row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError
from ..spec.isa import Result, Target
from .best import BestRows
from .instructions import Fetched
from .memories import Memories
from .vector import activate, add_residual, gated, rotated

__all__ = ["Results"]


class Results:
    """The way of results of shape (columns, rows) to memory.

    Parameters
    ----------
    memories : Memories
    length, position : int
        Registers LENGTH and POSITION.

    Attributes
    ----------
    saturated : dict of int
        How many groups of values, as the hardware computes them side by side, had one at an end of its range.
    """

    def __init__(self, memories: Memories, length: int, position: int) -> None:
        self.memories, self.config = memories, memories.config
        self.length, self.position = length, position
        self.best: BestRows | None = None
        self.best_from = -1
        self.saturated = dict.fromkeys(
            ("saturated_scores", "saturated_sums", "saturated_norms", "saturated_results"), 0
        )

    def count_saturated(self, name: str, values: NDArray, limit: int, side_by_side: int) -> None:
        """Count groups of rows of a column, `values` of shape (columns, rows), with a value of magnitude `limit`."""
        wide = np.abs(values.astype(np.int64)) == limit
        self.saturated[name] += int(wide.reshape(-1, side_by_side).any(-1).sum())

    def store(self, results: NDArray[np.int16], second: NDArray, i: Fetched) -> None:
        """Results of shape (columns, rows) to memory, as the instruction has them.

        Parameters
        ----------
        second : integer array, shape (columns,)
            Second multipliers.

        Raises
        ------
        AddressError
            If what is read or written is not in the image, or not aligned.
        CheckError
            If lists of the largest results are continued and there are none, or rows apart begin inside a tile.
        """
        columns, rows = results.shape
        mode = Result(i["result"])
        if mode == Result.BEST:
            self.list_best(results, i)
            return
        wide = mode in (Result.STORE16, Result.RESIDUAL) or bool(i["bits15"])
        data: NDArray
        if i["multiply"]:
            table = np.ascontiguousarray(self.memories.words(Target.TABLE, np.arange(256))).view("<i2")[:, 0]
            data = gated(results[::2], results[1::2], table, second[::2, None], wide=wide)
        elif i["rotate"]:
            raw = self.memories.bytes_at(i["residual_address"], 2 * results.size)
            factors = raw.copy().view("<i2").reshape(columns, rows)
            pair = rotated(results[::2], results[1::2], factors[::2], factors[1::2])
            data = np.stack(pair, axis=1).reshape(columns, rows)
        elif mode == Result.ACTIVATE:
            table = np.ascontiguousarray(self.memories.words(Target.TABLE, np.arange(256))).view("<i2")[:, 0]
            data = activate(results, table, second[:, None], wide=wide)
        elif mode == Result.RESIDUAL:
            raw = self.memories.bytes_at(i["residual_address"], 2 * results.size)
            data = add_residual(results, raw.copy().view("<i2").reshape(columns, rows), second[:, None])
        elif mode == Result.STORE16:
            data = results
        else:
            data = results.astype(np.int8)
        if i["bits15"]:
            data = np.clip(data, -16383, 16383)
        name, limit = ("saturated_sums", 16383 if i["bits15"] else 32767) if wide else ("saturated_results", 127)
        self.count_saturated(name, data, limit, self.config.drain_lanes)
        if mode == Result.TRANSPOSE:
            data = data.reshape(-1, self.config.groups, rows).transpose(0, 2, 1)
        if i["apart"]:
            self.put_apart(data, i["result_address"], i)
            return
        self.put(data, i["result_address"], i, self.config.groups if mode == Result.TRANSPOSE else 1 + wide)

    def list_best(self, results: NDArray[np.int16], i: Fetched) -> None:
        """Result BEST: 16-bit results of shape (columns, rows) into each row's list, stored behind the last product.

        Raises
        ------
        AddressError
            As `Memories.bytes_at`.
        CheckError
            If it goes on with lists and there are none.
        """
        if i["row_first"]:
            self.best = BestRows(self.config.rows)
        elif self.best is None:
            raise CheckError("it adds to lists of the largest results, and there are none: no product had row_first")
        else:
            self.memories.sources.add(self.best_from)
        self.best_from = self.memories.number
        self.best.add(results, i["residual_address"])
        if i["row_last"]:
            data = self.best.stored()
            self.memories.bytes_at(i["result_address"], len(data))[:] = data
            self.memories.stores.append((i["result_address"], data))

    def put_apart(self, data: NDArray, address: int, i: Fetched) -> None:
        """8-bit results of shape (columns, rows) to memory, a column's `groups` bytes from the one's before.

        Raises
        ------
        AddressError
            As `Memories.bytes_at`.
        CheckError
            If the address is no multiple of `rows` bytes.
        """
        groups = self.config.groups
        if address % self.config.rows:
            raise CheckError(f"rows apart from address {address} on, which is no multiple of {self.config.rows}")
        self.memories.bytes_at(address, len(data) * groups)
        for number, column in enumerate(data):
            self.put(column, address + number * groups, i, 1)

    def put(self, data: NDArray, address: int, i: Fetched, together: int) -> None:
        """Results to memory, those of the rows alone that are to be stored; `together` bytes are one row's.

        Raises
        ------
        AddressError
            As `Memories.bytes_at`.
        """
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        there, rows = self.memories.bytes_at(address, len(raw)), self.config.rows
        before, after = i["rows_before"], i["rows_after"]
        if i.fields.get("place"):
            before, after = before + self.position, after - self.position - self.length
        before, after = before % rows, after % rows
        kept: NDArray[np.bool_] = np.ones(len(raw), bool)
        if before or after:
            row = (address + np.arange(len(raw))) // together % rows
            kept = (row >= before) & (row < rows - after)
        edges = np.flatnonzero(np.diff(kept, prepend=False, append=False)).tolist()
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            there[start:end] = raw[start:end]
            self.memories.stores.append((address + start, raw[start:end]))

"""The matrix engine, softmax and norm units: what PRODUCT, SCORES, CONTEXT and NORM do to memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError
from ..spec.config import Config
from ..spec.isa import Mask, NormKind, Opcode, Result, Target
from .blocks import block_beats, block_values
from .engine import matrix_sums
from .instructions import Fetched
from .memories import AddressError, Memories
from .requantizer import requantize
from .results import Results
from .softmax import SoftmaxRows
from .vector import digits, layer_norm
from .weights import check_weights, dense_weights

__all__ = ["Machine", "WaitsError"]


class WaitsError(CheckError):
    """An instruction that waits for ever: what it takes will not come."""


class Machine:
    """The units, one instruction after the other.

    Parameters
    ----------
    image : uint8, shape (bytes,)
        Changed in place.
    config : Config
    length, position : int
        Registers LENGTH and POSITION.

    Attributes
    ----------
    memories : Memories
    results : Results
    sums : int32 array, shape (columns, rows), or None
        What an unfinished product left in the accumulators.
    probabilities : list
        Blocks in the softmax that no CONTEXT has taken: probabilities of shape (rows, keys), how far the sums before
        them are shifted (None of a first block), multipliers and shifts of the rows' reciprocals (None but of a last
        block), and the number of the SCORES.
    """

    def __init__(self, image: NDArray[np.uint8], config: Config, length: int, position: int) -> None:
        self.config = config
        self.memories = Memories(image, config)
        self.results = Results(self.memories, length, position)
        self.sums: NDArray[np.int32] | None = None
        self.sums_went = "none"  # why there are no sums, if there are none
        self.rows = SoftmaxRows(config.rows, wide=False)
        self.coarse: int | None = None  # of rows that have had their first block, and not their last
        self.probabilities: list[tuple[NDArray, NDArray | None, NDArray | None, int]] = []
        self.sums_from = self.scores_from = -1  # the instructions that they come from

    def weights(self, i: Fetched) -> NDArray[np.int8]:
        """The product's weight matrix, dense: shape (columns, passes * groups * depth).

        Raises
        ------
        WeightsError
            If the engine reports a fault for what lies in the on-chip memories.
        CheckError
            If its windows have another reduction dimension.
        """
        cfg = self.config
        # Before so many are there: an instruction may name more than any memory has.
        positions = self.positions(i)
        count = math.prod(i[f"count{level}"] for level in range(4))
        check_weights(i.fields, block_beats(i.fields, count, cfg) if i["value_format"] else count, positions, cfg)
        size = i["passes"] * cfg.groups * i["depth"]
        there = i["window_beats"] * cfg.bus_bytes // (cfg.rows * (2 if i["digit"] else 1))
        if i.opcode != Opcode.CONTEXT and size != there:
            raise CheckError(f"windows of {there} positions; the product has {size}")
        at = np.array([i["values_base"]])
        for level in range(4):
            steps = np.arange(i[f"count{level}"]) * i[f"stride{level}"]
            at = (at[None, :] + steps[:, None]).reshape(-1) if level else at + steps
        words = self.memories.words(Target.VALUES, at % cfg.weight_words)
        values = block_values(i.fields, words, cfg) if i["value_format"] else words.view(np.int8)
        return dense_weights(i.fields, values, positions, cfg)

    def positions(self, i: Fetched) -> NDArray[np.uint32]:
        """The product's position words: shape (words, groups)."""
        cfg = self.config
        count = i["positions_count"] if i["encoding"] else 0
        words = self.memories.words(Target.POSITIONS, (i["positions_base"] + np.arange(count)) % cfg.position_words)
        bits = np.unpackbits(words, axis=1, bitorder="little").reshape(count, cfg.groups, cfg.window)
        return (bits.astype(np.uint32) << np.arange(cfg.window, dtype=np.uint32)).sum(-1, dtype=np.uint32)

    def parameters(self, i: Fetched) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Bias (32 bits, signed), multiplier (16), shift (3) and second multiplier (16): int64, shape (columns,)."""
        at = (i["parameters_base"] + np.arange(i["columns"]) * i["parameters_step"]) % self.config.parameter_words
        words = np.ascontiguousarray(self.memories.words(Target.PARAMETERS, at))
        bias = words[:, :4].copy().view("<i4")[:, 0].astype(np.int64)
        multiplier = words[:, 4:6].copy().view("<u2")[:, 0].astype(np.int64)
        second = words[:, 8:10].copy().view("<u2")[:, 0].astype(np.int64)
        return bias, multiplier, words[:, 6].astype(np.int64) & 7, second

    def windows(self, i: Fetched) -> NDArray[np.int64]:
        """Activations from memory or kept windows, or one digit of 15-bit ones: shape (rows, reduction).

        Raises
        ------
        AddressError
            If they are not in the image, or not aligned.
        CheckError
            If they are no whole number of columns.
        """
        cfg = self.config
        data = self.memories.windows(i)
        size = cfg.rows * (2 if i["digit"] else 1)
        if len(data) % size:
            raise CheckError(f"windows of {len(data)} bytes, which are no multiple of a column's {size}")
        if i["digit"]:
            high, low = digits(data.view("<i2").reshape(-1, cfg.rows).T)
            return high if i["digit"] == 1 else low
        return data.view(np.int8).reshape(-1, cfg.rows).T.astype(np.int64)

    def sums_of(self, windows: NDArray, weights: NDArray[np.int8]) -> NDArray[np.int32]:
        """Sums of shape (columns, rows).

        Raises
        ------
        CheckError
            If windows and weights have not the same reduction dimension.
        """
        if windows.shape[1] != weights.shape[1]:
            raise CheckError(f"windows of {windows.shape[1]} positions; the product has {weights.shape[1]}")
        return matrix_sums(windows, weights)

    def unfinished(self, columns: int) -> NDArray[np.int32]:
        """The sums that a product of so many columns continues.

        Raises
        ------
        CheckError
            If there are none, or of another number of columns.
        """
        if self.sums is None or len(self.sums) != columns:
            there = self.sums_went if self.sums is None else f"those of {len(self.sums)}"
            raise CheckError(f"it continues sums of {columns} columns, and there are {there}")
        self.memories.sources.add(self.sums_from)
        sums, self.sums = self.sums, None
        self.sums_went = f"none: instruction {self.memories.number} continued the last ones"
        return sums

    def overwrite_sums(self, i: Fetched) -> None:
        """What is kept lies where the sums of a product of several passes do."""
        if i["passes"] > 1 and self.sums is not None:
            self.sums = None
            self.sums_went = f"none: instruction {self.memories.number}, of several passes, has overwritten them"

    def product(self, i: Fetched) -> None:
        """PRODUCT and SCORES: windows times weights; requantized and handed on unless it is unfinished.

        Raises
        ------
        AddressError, WeightsError, CheckError
            As what it calls; CheckError also if the bytes of its windows are not those of its weights.
        """
        size = i["passes"] * self.config.groups * i["depth"] * self.config.rows * (2 if i["digit"] else 1)
        try:
            windows = self.windows(i)
        except AddressError as error:
            if i["window_beats"] * self.config.bus_bytes != size:  # hardware may end before it comes to those
                raise CheckError(f"its windows have other bytes than the {size} of the product, and {error}") from None
            raise
        sums = self.sums_of(windows, self.weights(i))
        if i["continues"]:
            sums = sums + self.unfinished(len(sums)) * np.int32(128 if i["lift"] else 1)  # modulo 2^32
        self.overwrite_sums(i)
        if i["unfinished"]:
            self.sums, self.sums_from = sums, self.memories.number
            return
        bias, multiplier, shift, second = self.parameters(i)
        results = requantize(sums, bias[:, None], multiplier[:, None], shift[:, None], wide=bool(i["wide"]))
        if i.opcode == Opcode.SCORES:
            self.scores(results, i)
        else:
            self.results.store(results, second, i)

    def scores(self, results: NDArray[np.int16], i: Fetched) -> None:
        """The softmax of one block of keys, of scores of shape (columns, rows): the columns are its keys.

        Raises
        ------
        CheckError
            If it continues rows that no block began, or that began with other fraction bits, or a row's sum, which the
            hardware has 32 bits for, is 2^32 or more, which takes more than 65,536 keys.
        """
        groups = self.config.groups
        number = np.arange(i["columns"])
        depth = i["columns"] // groups
        key = groups * (number % depth) + number // depth + i["key_start"]
        valid = (key >= 0) & (key < (self.results.length if i["mask"] == Mask.LENGTH else i["keys"]))
        counted = results[valid]
        if i["mask"] == Mask.CAUSAL:
            row = np.arange(self.config.rows)[:, None]
            valid = (key >= 0) & (key < i["keys"] + row)
            counted = np.where(valid.T, results, 0)
        self.results.count_saturated("saturated_scores", counted, 32767, self.config.drain_lanes)
        if i["row_first"]:
            self.rows = SoftmaxRows(self.config.rows, wide=False, coarse=i["coarse"])
            self.coarse = i["coarse"]
        elif self.coarse is None:
            raise CheckError("it has no row_first, and there are no rows that an earlier block began")
        elif self.coarse != i["coarse"]:
            raise CheckError(f"coarse = {i['coarse']}, and its rows' first block has {self.coarse}")
        else:
            self.memories.sources.add(self.scores_from)
        if i["row_last"]:
            self.coarse = None
        self.scores_from = self.memories.number
        probabilities = self.rows.block(results.T.astype(np.int64), valid)
        if (self.rows.total >> 32).any():
            raise CheckError(f"a row's sum of probabilities is {self.rows.total.max()}, and 32 bits hold less")
        totals = np.stack(self.rows.reciprocals(i["gain"])) if i["row_last"] else None
        growth = None if i["row_first"] else self.rows.growth.clip(max=31)
        self.probabilities.append((probabilities, growth, totals, self.memories.number))

    def context(self, i: Fetched) -> None:
        """CONTEXT: one block of P x V; behind the last one divided by the rows' totals and stored.

        Raises
        ------
        WaitsError
            If there is no block in the softmax.
        AddressError, WeightsError, CheckError
            As what it calls; CheckError also if its fields are not those of the block's SCORES.
        """
        weights = self.weights(i)
        if not self.probabilities:
            raise WaitsError("it takes the next block in the softmax, and there is none")
        probabilities, growth, totals, scores = self.probabilities.pop(0)
        self.memories.sources.add(scores)
        if i["window_beats"] * self.config.bus_bytes != probabilities.size:
            problem = (
                f"its windows have {i['window_beats'] * self.config.bus_bytes} bytes, and the block in the softmax"
            )
            raise CheckError(f"{problem} {probabilities.size}")
        sums = self.sums_of(probabilities, weights)
        for name, marked, is_set in (
            ("continues", "row_first", growth is None), ("unfinished", "row_last", totals is not None)
        ):  # fmt: skip
            if i[name] == is_set:
                raise CheckError(f"{name} = {i[name]}, and its block's SCORES has {marked} = {int(is_set)}")
        if growth is not None:
            sums = sums + (self.unfinished(len(sums)) >> growth)
        self.overwrite_sums(i)
        if totals is None:
            self.sums, self.sums_from = sums, self.memories.number
            return
        if i["result"] in (Result.ACTIVATE, Result.RESIDUAL):
            raise CheckError(f"result {Result(i['result']).name} takes second multipliers, which CONTEXT has none of")
        results = requantize(sums, 0, totals[0], totals[1], wide=bool(i["wide"]))
        self.results.store(results, np.zeros(len(sums), np.int64), i)

    def norm(self, i: Fetched) -> None:
        """NORM of 16-bit columns of shape (width, rows), with 8 bytes of parameters a column; stored in 16 and 8 bits.

        Raises
        ------
        AddressError
            If what is read or written is not in the image, or not aligned.
        CheckError
            If `width` is less than 2, or `inverse` is not that of the width where a mean is taken.
        """
        rows, width, rms = self.config.rows, i["width"], i["kind"] == NormKind.RMS
        if width < 2:
            raise CheckError(f"width = {width}; it is 2 or more")
        if not rms and i["inverse"] != (inverse := round(2**33 / width)):
            raise CheckError(f"inverse = {i['inverse']}; for a width of {width} it is {inverse}")
        x = self.memories.bytes_at(i["input_address"], 2 * rows * width).copy().view("<i2").reshape(width, rows).T
        words = self.memories.bytes_at(i["parameters_address"], 8 * width).copy().view("<u8").astype(object)
        scale = np.array([((int(w) & 0x3FFFF) ^ 0x20000) - 0x20000 for w in words])
        shift = np.array([((int(w) >> 18 & 0xFFFF) ^ 0x8000) - 0x8000 for w in words])
        multiplier = np.array([int(w) >> 34 & 0xFFFF for w in words])
        wide, narrow = layer_norm(
            x, scale, shift, multiplier, i["inverse"], rms=rms, epsilon=i["epsilon"], short=bool(i["bits15"])
        )
        self.results.count_saturated("saturated_norms", wide.T, 16383 if i["bits15"] else 32767, self.config.lanes // 2)
        self.results.put(wide.T, i["wide_address"], i, 2)
        self.results.put(narrow.T, i["narrow_address"], i, 1)

"""Reference of the whole accelerator: runs a program's bytes on a memory image, one instruction after the other.

An instruction waits for earlier ones alone, so their order is one that the hardware may take; its units run ahead of
one another, and it must leave the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckError
from ..spec.config import Config
from ..spec.isa import Error, Instruction, Mask, NormKind, Opcode, Result, Target
from .best import BestRows
from .blocks import block_beats, block_values
from .engine import matrix_sums
from .instructions import Fetched, IllegalError, fetched
from .requantizer import requantize
from .softmax import SoftmaxRows
from .vector import activate, add_residual, digits, gated, layer_norm, rotated
from .weights import WeightsError, check_weights, dense_weights

__all__ = ["Executed", "Observe", "ProgramError", "ProgramRun", "run_counted", "run_program"]

_PARAMETER_BYTES = 16


class ProgramError(CheckError):
    """An instruction that stops the accelerator.

    Parameters
    ----------
    error : Error
        What register STATUS gives.
    instruction : int
        Its number, from 0; kept modulo 2^16, as in register ERROR_INSTRUCTION.
    """

    def __init__(self, error: Error, instruction: int, problem: str) -> None:
        self.error, self.instruction = error, instruction % (1 << 16)
        super().__init__(problem)


class _AddressError(CheckError):
    """Bytes that are not in the image, or not aligned."""


class _WaitsError(CheckError):
    """An instruction that waits for ever: what it takes will not come."""


@dataclass(frozen=True)
class Executed:
    """An instruction that was run, and what it left in memory.

    Attributes
    ----------
    number : int
        In the order in which instructions are dispatched.
    place : int
        Its number in the program.
    instruction : Instruction
    stores : tuple of (address, uint8 array)
        What it wrote to memory.
    sources : tuple of int
        Numbers of the instructions whose results it found on chip: LOADs, products with unfinished sums, SCORES.
    waits : tuple of int
        Numbers of the instructions that were to be finished before it: the last of each kind.
    """

    number: int
    place: int
    instruction: Instruction
    stores: tuple[tuple[int, NDArray[np.uint8]], ...]
    sources: tuple[int, ...]
    waits: tuple[int, ...]


Observe = Callable[[Executed], None]


@dataclass(frozen=True)
class ProgramRun:
    """What a program leaves.

    Attributes
    ----------
    image : uint8 array
    saturated : dict of int
        How many groups of values, as the hardware computes them side by side, had one at an end of its range: the
        counters of the same names (sta_hw/spec/registers.py).
    """

    image: NDArray[np.uint8]
    saturated: dict[str, int]


def _at_limit(values: NDArray, limit: int, side_by_side: int) -> int:
    """Groups of rows of a column, `values` of shape (columns, rows), with a value of magnitude `limit`."""
    wide = np.abs(values.astype(np.int64)) == limit
    return int(wide.reshape(-1, side_by_side).any(-1).sum())


class _Machine:
    def __init__(self, image: NDArray[np.uint8], config: Config, length: int, position: int) -> None:
        self.image, self.config, self.length, self.position = image, config, length, position
        groups, window = config.groups, config.window
        self.chip = {
            Target.VALUES: np.zeros((config.weight_words, groups), np.uint8),
            Target.POSITIONS: np.zeros((config.position_words, groups * window // 8), np.uint8),
            Target.PARAMETERS: np.zeros((config.parameter_words, _PARAMETER_BYTES), np.uint8),
            Target.TABLE: np.zeros((256, 2), np.uint8),
        }
        self.kept = np.zeros((config.window_words, config.bus_bytes), np.uint8)
        self.kept_from = np.full(config.window_words, -1)
        self.sums: NDArray[np.int32] | None = None
        self.sums_went = "none"  # why there are no sums, if there are none
        self.rows = SoftmaxRows(config.rows, wide=False)
        self.coarse: int | None = None  # of rows that have had their first block, and not their last
        self.best: BestRows | None = None
        self.best_from = -1
        self.saturated = dict.fromkeys(
            ("saturated_scores", "saturated_sums", "saturated_norms", "saturated_results"), 0
        )
        self.probabilities: list[tuple[NDArray, NDArray | None, NDArray | None, int]] = []
        # Which instructions what is on chip comes from: of each word the LOAD's number, or -1.
        self.number = -1
        self.filled = {target: np.full(len(memory), -1) for target, memory in self.chip.items()}
        self.sums_from = self.scores_from = -1
        self.sources: set[int] = set()
        self.stores: list[tuple[int, NDArray[np.uint8]]] = []

    def begin(self, number: int) -> None:
        """The instruction of this number comes next."""
        self.number, self.sources, self.stores = number, set(), []

    def words(self, target: Target, at: NDArray) -> NDArray[np.uint8]:
        """Words of an on-chip memory."""
        self.sources.update(np.unique(self.filled[target][at]).tolist())
        return self.chip[target][at]

    def bytes_at(self, address: int, count: int) -> NDArray[np.uint8]:
        """Bytes of the image.

        Raises
        ------
        _AddressError
            If they are not all inside it, or do not begin at a multiple of the bus's bytes, as the hardware wants it.
        """
        if count and address % self.config.bus_bytes:
            raise _AddressError(f"address {address} is not a multiple of the bus's {self.config.bus_bytes} bytes")
        if address + count > len(self.image):
            raise _AddressError(f"bytes {address} to {address + count} are outside the image of {len(self.image)}")
        return self.image[address : address + count]

    def load(self, i: Fetched) -> None:
        """LOAD."""
        memory = self.chip[Target(i["target"])]
        width, count = memory.shape[1], i["beats"] * self.config.bus_bytes
        # Addresses have 32 bits: a stride may lead backwards.
        addresses = (i["address"] + np.arange(i["rows"] if count else 0) * i["stride"]) % (1 << 32)
        wrong = (addresses % self.config.bus_bytes != 0) | (addresses + count > len(self.image))
        for address in addresses[wrong][:1].tolist():
            self.bytes_at(address, count)
        words = len(addresses) * count // width  # what is left of a word is forgotten
        # Of more words than there are the last ones stay.
        first = max(words - len(memory), 0)
        begin = first * width // count if words else 0
        parts = [self.bytes_at(address, count) for address in addresses[begin:].tolist()]
        data = np.concatenate([np.zeros(0, np.uint8), *parts])[first * width - begin * count :]
        at = (i["destination"] + first + np.arange(words - first)) % len(memory)
        memory[at] = data[: len(at) * width].reshape(-1, width)
        self.filled[Target(i["target"])][at] = self.number

    def weights(self, i: Fetched) -> NDArray[np.int8]:
        """The product's weight matrix, dense: shape (columns, passes * groups * depth)."""
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
        words = self.words(Target.VALUES, at % cfg.weight_words)
        values = block_values(i.fields, words, cfg) if i["value_format"] else words.view(np.int8)
        return dense_weights(i.fields, values, positions, cfg)

    def positions(self, i: Fetched) -> NDArray[np.uint32]:
        """The product's position words: shape (words, groups)."""
        cfg = self.config
        count = i["positions_count"] if i["encoding"] else 0
        words = self.words(Target.POSITIONS, (i["positions_base"] + np.arange(count)) % cfg.position_words)
        bits = np.unpackbits(words, axis=1, bitorder="little").reshape(count, cfg.groups, cfg.window)
        return (bits.astype(np.uint32) << np.arange(cfg.window, dtype=np.uint32)).sum(-1, dtype=np.uint32)

    def parameters(self, i: Fetched) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Bias, multiplier, shift and second multiplier of the product's columns."""
        at = (i["parameters_base"] + np.arange(i["columns"]) * i["parameters_step"]) % self.config.parameter_words
        words = np.ascontiguousarray(self.words(Target.PARAMETERS, at))
        bias = words[:, :4].copy().view("<i4")[:, 0].astype(np.int64)
        multiplier = words[:, 4:6].copy().view("<u2")[:, 0].astype(np.int64)
        second = words[:, 8:10].copy().view("<u2")[:, 0].astype(np.int64)
        return bias, multiplier, words[:, 6].astype(np.int64) & 7, second

    def windows(self, i: Fetched) -> NDArray[np.int64]:
        """Activations from memory: shape (rows, reduction)."""
        cfg = self.config
        at = i["window_address"] // cfg.bus_bytes + np.arange(i["window_beats"])
        if i["kept"]:
            data = self.kept[at % cfg.window_words].reshape(-1)
            self.sources.update(np.unique(self.kept_from[at % cfg.window_words]).tolist())
        else:
            data = self.bytes_at(i["window_address"], i["window_beats"] * cfg.bus_bytes)
        if i["keep"]:
            self.kept[at % cfg.window_words] = data.reshape(-1, cfg.bus_bytes)
            self.kept_from[at % cfg.window_words] = self.number
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
        self.sources.add(self.sums_from)
        sums, self.sums = self.sums, None
        self.sums_went = f"none: instruction {self.number} continued the last ones"
        return sums

    def overwrite_sums(self, i: Fetched) -> None:
        """What is kept lies where the sums of a product of several passes do."""
        if i["passes"] > 1 and self.sums is not None:
            self.sums = None
            self.sums_went = f"none: instruction {self.number}, of several passes, has overwritten them"

    def product(self, i: Fetched) -> None:
        """PRODUCT and SCORES."""
        size = i["passes"] * self.config.groups * i["depth"] * self.config.rows * (2 if i["digit"] else 1)
        try:
            windows = self.windows(i)
        except _AddressError as error:
            if i["window_beats"] * self.config.bus_bytes != size:  # hardware may end before it comes to those
                raise CheckError(f"its windows have other bytes than the {size} of the product, and {error}") from None
            raise
        sums = self.sums_of(windows, self.weights(i))
        if i["continues"]:
            sums = sums + self.unfinished(len(sums)) * np.int32(128 if i["lift"] else 1)  # modulo 2^32
        self.overwrite_sums(i)
        if i["unfinished"]:
            self.sums, self.sums_from = sums, self.number
            return
        bias, multiplier, shift, second = self.parameters(i)
        results = requantize(sums, bias[:, None], multiplier[:, None], shift[:, None], wide=bool(i["wide"]))
        if i.opcode == Opcode.SCORES:
            self.scores(results, i)
        else:
            self.store(results, second, i)

    def store(self, results: NDArray[np.int16], second: NDArray, i: Fetched) -> None:
        """Results of shape (columns, rows) to memory."""
        columns, rows = results.shape
        mode = Result(i["result"])
        if mode == Result.BEST:
            self.list_best(results, i)
            return
        wide = mode in (Result.STORE16, Result.RESIDUAL) or bool(i["bits15"])
        data: NDArray
        if i["multiply"]:
            table = np.ascontiguousarray(self.words(Target.TABLE, np.arange(256))).view("<i2")[:, 0]
            data = gated(results[::2], results[1::2], table, second[::2, None], wide=wide)
        elif i["rotate"]:
            raw = self.bytes_at(i["residual_address"], 2 * results.size)
            factors = raw.copy().view("<i2").reshape(columns, rows)
            pair = rotated(results[::2], results[1::2], factors[::2], factors[1::2])
            data = np.stack(pair, axis=1).reshape(columns, rows)
        elif mode == Result.ACTIVATE:
            table = np.ascontiguousarray(self.words(Target.TABLE, np.arange(256))).view("<i2")[:, 0]
            data = activate(results, table, second[:, None], wide=wide)
        elif mode == Result.RESIDUAL:
            raw = self.bytes_at(i["residual_address"], 2 * results.size)
            data = add_residual(results, raw.copy().view("<i2").reshape(columns, rows), second[:, None])
        elif mode == Result.STORE16:
            data = results
        else:
            data = results.astype(np.int8)
        if i["bits15"]:
            data = np.clip(data, -16383, 16383)
        name, limit = ("saturated_sums", 16383 if i["bits15"] else 32767) if wide else ("saturated_results", 127)
        self.saturated[name] += _at_limit(data, limit, self.config.drain_lanes)
        if mode == Result.TRANSPOSE:
            data = data.reshape(-1, self.config.groups, rows).transpose(0, 2, 1)
        if i["apart"]:
            self.put_apart(data, i["result_address"], i)
            return
        self.put(data, i["result_address"], i, self.config.groups if mode == Result.TRANSPOSE else 1 + wide)

    def list_best(self, results: NDArray[np.int16], i: Fetched) -> None:
        """Result BEST."""
        if i["row_first"]:
            self.best = BestRows(self.config.rows)
        elif self.best is None:
            raise CheckError("it adds to lists of the largest results, and there are none: no product had row_first")
        else:
            self.sources.add(self.best_from)
        self.best_from = self.number
        self.best.add(results, i["residual_address"])
        if i["row_last"]:
            data = self.best.stored()
            self.bytes_at(i["result_address"], len(data))[:] = data
            self.stores.append((i["result_address"], data))

    def put_apart(self, data: NDArray, address: int, i: Fetched) -> None:
        """8-bit results to memory, a column's `groups` bytes from the one's before."""
        groups = self.config.groups
        if address % self.config.rows:
            raise CheckError(f"rows apart from address {address} on, which is no multiple of {self.config.rows}")
        self.bytes_at(address, len(data) * groups)
        for number, column in enumerate(data):
            self.put(column, address + number * groups, i, 1)

    def put(self, data: NDArray, address: int, i: Fetched, together: int) -> None:
        """Results to memory, those of the rows alone that are to be stored; `together` bytes are one row's."""
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        there, rows = self.bytes_at(address, len(raw)), self.config.rows
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
            self.stores.append((address + start, raw[start:end]))

    def scores(self, results: NDArray[np.int16], i: Fetched) -> None:
        """The softmax of one block of keys."""
        groups = self.config.groups
        number = np.arange(i["columns"])
        depth = i["columns"] // groups
        key = groups * (number % depth) + number // depth + i["key_start"]
        valid = (key >= 0) & (key < (self.length if i["mask"] == Mask.LENGTH else i["keys"]))
        counted = results[valid]
        if i["mask"] == Mask.CAUSAL:
            row = np.arange(self.config.rows)[:, None]
            valid = (key >= 0) & (key < i["keys"] + row)
            counted = np.where(valid.T, results, 0)
        self.saturated["saturated_scores"] += _at_limit(counted, 32767, self.config.drain_lanes)
        if i["row_first"]:
            self.rows = SoftmaxRows(self.config.rows, wide=False, coarse=i["coarse"])
            self.coarse = i["coarse"]
        elif self.coarse is None:
            raise CheckError("it has no row_first, and there are no rows that an earlier block began")
        elif self.coarse != i["coarse"]:
            raise CheckError(f"coarse = {i['coarse']}, and its rows' first block has {self.coarse}")
        else:
            self.sources.add(self.scores_from)
        if i["row_last"]:
            self.coarse = None
        self.scores_from = self.number
        probabilities = self.rows.block(results.T.astype(np.int64), valid)
        totals = np.stack(self.rows.reciprocals(i["gain"])) if i["row_last"] else None
        growth = None if i["row_first"] else self.rows.growth.clip(max=31)
        self.probabilities.append((probabilities, growth, totals, self.number))

    def context(self, i: Fetched) -> None:
        """CONTEXT: one block of P x V."""
        weights = self.weights(i)
        if not self.probabilities:
            raise _WaitsError("it takes the next block in the softmax, and there is none")
        probabilities, growth, totals, scores = self.probabilities.pop(0)
        self.sources.add(scores)
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
            self.sums, self.sums_from = sums, self.number
            return
        if i["result"] in (Result.ACTIVATE, Result.RESIDUAL):
            raise CheckError(f"result {Result(i['result']).name} takes second multipliers, which CONTEXT has none of")
        results = requantize(sums, 0, totals[0], totals[1], wide=bool(i["wide"]))
        self.store(results, np.zeros(len(sums), np.int64), i)

    def norm(self, i: Fetched) -> None:
        """NORM."""
        rows, width = self.config.rows, i["width"]
        if width < 2:
            raise CheckError(f"width = {width}; it is 2 or more")
        x = self.bytes_at(i["input_address"], 2 * rows * width).copy().view("<i2").reshape(width, rows).T
        words = self.bytes_at(i["parameters_address"], 8 * width).copy().view("<u8").astype(object)
        scale = np.array([((int(w) & 0x3FFFF) ^ 0x20000) - 0x20000 for w in words])
        shift = np.array([((int(w) >> 18 & 0xFFFF) ^ 0x8000) - 0x8000 for w in words])
        multiplier = np.array([int(w) >> 34 & 0xFFFF for w in words])
        rms = i["kind"] == NormKind.RMS
        wide, narrow = layer_norm(
            x, scale, shift, multiplier, i["inverse"], rms=rms, epsilon=i["epsilon"], short=bool(i["bits15"])
        )
        self.saturated["saturated_norms"] += _at_limit(wide.T, 16383 if i["bits15"] else 32767, self.config.lanes // 2)
        self.put(wide.T, i["wide_address"], i, 2)
        self.put(narrow.T, i["narrow_address"], i, 1)


def run_program(
    image: NDArray[np.uint8],
    program_address: int,
    config: Config,
    progress: Callable[[int, int], None] | None = None,
    *,
    length: int | None = None,
    position: int = 0,
) -> NDArray[np.uint8]:
    """`run_counted`'s image."""
    return run_counted(image, program_address, config, progress, length=length, position=position).image


def run_counted(
    image: NDArray[np.uint8],
    program_address: int,
    config: Config,
    progress: Callable[[int, int], None] | None = None,
    observe: Observe | None = None,
    *,
    length: int | None = None,
    position: int = 0,
) -> ProgramRun:
    """The image after the program at `program_address` has run, and what saturated; `image` itself is not changed.

    Parameters
    ----------
    image : uint8, shape (bytes,)
    progress : function
        Called with the number of instructions done, and of all.
    observe : function
        Called with each instruction after it has run.
    length : int
        Register LENGTH; needed where the program depends on it.
    position : int
        Register POSITION, where there is one.

    Raises
    ------
    ProgramError
        If the program's header is malformed (`Error.HEADER`), or it is for another configuration (`Error.HARDWARE`);
        if an instruction's address, or the program's, is outside the image or not aligned to the bus
        (`Error.ADDRESS`), the matrix engine reports faults for its weights or refuses it (`Error.ENGINE`), it is
        illegal (`Error.OPCODE`), or waits for what never comes (`Error.TIMEOUT`); the message names it.
    CheckError
        If what an instruction does is not defined (docs/isa.md): it has other windows than it multiplies, for which the
        hardware waits, or of which it takes the next one's; it continues what there is not.
    InputError
        If the program depends on register LENGTH, and no length is given.
    """
    if program_address % config.bus_bytes:
        problem = f"the program's address {program_address} is not a multiple of the bus's {config.bus_bytes} bytes"
        raise ProgramError(Error.ADDRESS, 0, problem)
    machine = _Machine(image.copy(), config, length or 0, position)
    actions: dict[int, Callable[[Fetched], None]] = {
        Opcode.LOAD: machine.load,
        Opcode.PRODUCT: machine.product,
        Opcode.SCORES: machine.product,
        Opcode.CONTEXT: machine.context,
        Opcode.NORM: machine.norm,
    }
    ended: dict[str, list[int]] = {counter: [] for counter in ("loads", "matrix", "products", "norms")}
    count = sum(1 for _ in _legal(image, program_address, config, length, position)) if progress else 0
    for instruction in _legal(image, program_address, config, length, position):
        number = instruction.number
        machine.begin(number)
        try:
            actions[instruction.opcode](instruction)
        except CheckError as error:
            problem = f"instruction {number} ({Opcode(instruction.opcode).name}): {error}"
            for kind, code in (
                (WeightsError, Error.ENGINE), (_AddressError, Error.ADDRESS), (_WaitsError, Error.TIMEOUT)
            ):  # fmt: skip
                if isinstance(error, kind):
                    raise ProgramError(code, number, problem) from None
            raise CheckError(problem) from None
        if observe:
            sources = tuple(sorted(machine.sources - {-1}))
            # Of each class that it waits for the last one that is to be finished.
            ends = ((numbers, len(numbers) - instruction[f"wait_{c}"]) for c, numbers in ended.items())
            waits = tuple(n[at] for (n, at), c in zip(ends, ended, strict=True) if instruction[f"wait_{c}"] and at >= 0)
            observe(Executed(number, instruction.place, instruction.whole(), tuple(machine.stores), sources, waits))
        if instruction.opcode == Opcode.LOAD:
            counters = ["loads"]
        elif instruction.opcode == Opcode.NORM:
            counters = ["norms"]
        else:
            counters = ["matrix"] if instruction["unfinished"] else ["matrix", "products"]
        for counter in counters:
            ended[counter].append(number)
        if progress:
            progress(instruction.number + 1, count)
    return ProgramRun(machine.image, machine.saturated)


def _legal(image: NDArray[np.uint8], at: int, config: Config, length: int | None, position: int) -> Iterator[Fetched]:
    """The program's instructions; ProgramError at one that is illegal."""
    try:
        yield from fetched(image, at, config, length, position)
    except IllegalError as error:
        header = error.error in (Error.HEADER, Error.HARDWARE, Error.ADDRESS)
        where = "" if header else f"instruction {error.number}: "
        raise ProgramError(error.error, error.number, f"{where}{error}") from None

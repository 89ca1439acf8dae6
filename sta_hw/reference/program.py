"""Reference of the whole accelerator: runs a program's bytes on a memory image, one instruction after the other.

Products and NORMs run in program order, a LOAD as soon as what it waits for is done and all LOADs before it
are; the hardware, whose units run ahead of one another, must leave the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import CheckError
from ..isa import Instruction, Opcode, Result, Target, disassemble
from .engine import matrix_sums
from .requantizer import requantize
from .softmax import SoftmaxRows
from .vector import activate, add_residual, layer_norm

__all__ = ["run_program"]

_PARAMETER_BYTES = 16


class _Machine:
    def __init__(self, image: NDArray[np.uint8], config: Config) -> None:
        self.image, self.config = image, config
        groups, window = config.groups, config.window
        self.chip = {
            Target.VALUES: np.zeros((config.weight_words, groups), np.uint8),
            Target.POSITIONS: np.zeros((config.position_words, groups * window // 8), np.uint8),
            Target.PARAMETERS: np.zeros((config.parameter_words, _PARAMETER_BYTES), np.uint8),
            Target.TABLE: np.zeros((256, 2), np.uint8),
        }
        self.sums: NDArray[np.int32] = np.zeros((0, config.rows), np.int32)
        self.rows = SoftmaxRows(config.rows, wide=False)
        self.probabilities: list[tuple[NDArray, NDArray, NDArray | None]] = []

    def bytes_at(self, address: int, count: int) -> NDArray[np.uint8]:
        """Bytes of the image.

        Raises
        ------
        CheckError
            If they are not all inside it.
        """
        if address + count > len(self.image):
            raise CheckError(f"bytes {address} to {address + count} are outside the image of {len(self.image)}")
        return self.image[address : address + count]

    def load(self, i: Instruction) -> None:
        """LOAD."""
        memory = self.chip[Target(i["target"])]
        width, count = memory.shape[1], i["beats"] * self.config.bus_bytes
        parts = [self.bytes_at(i["address"] + row * i["stride"], count) for row in range(i["rows"])]
        words = np.concatenate(parts).reshape(-1, width)
        at = (i["destination"] + np.arange(len(words))) % len(memory)
        memory[at] = words

    def weights(self, i: Instruction) -> NDArray[np.int8]:
        """The product's weight matrix, dense: shape (columns, passes * groups * depth)."""
        cfg = self.config
        at = np.array([i["values_base"]])
        for level in range(4):
            steps = np.arange(i[f"count{level}"]) * i[f"stride{level}"]
            at = (at[None, :] + steps[:, None]).reshape(-1) if level else at + steps
        values = self.chip[Target.VALUES][at % cfg.weight_words].view(np.int8)
        depth, columns, passes = i["depth"], i["columns"], i["passes"]
        size = 1 << i["m_log2"]
        kept = depth // size * i["n"]
        values = values.reshape(passes, columns, kept, cfg.groups)
        if i["encoding"] == 0:
            where = np.broadcast_to(np.arange(depth)[None, None, :, None], values.shape)
        else:
            where = self.positions(i, passes, columns, kept)
        dense = np.zeros((passes, columns, cfg.groups, depth), np.int8)
        index = np.ix_(np.arange(passes), np.arange(columns), np.arange(cfg.groups))
        for entry in range(kept):
            dense[(*index, where[:, :, entry, :])] += values[:, :, entry, :]
        return dense.transpose(1, 0, 2, 3).reshape(columns, -1)

    def positions(self, i: Instruction, passes: int, columns: int, kept: int) -> NDArray[np.int64]:
        """Window position of every stored value: shape (passes, columns, entries, groups)."""
        cfg = self.config
        at = (i["positions_base"] + np.arange(i["positions_count"])) % cfg.position_words
        words = self.chip[Target.POSITIONS][at]
        bits = np.unpackbits(words, axis=1, bitorder="little").reshape(len(words), cfg.groups, cfg.window)
        size, n = 1 << i["m_log2"], i["n"]
        subgroup = (np.arange(kept) // n * size)[None, None, :, None]
        if i["encoding"] == 1:
            width = i["m_log2"]
            slots = cfg.window // width
            fields = bits[:, :, : slots * width].reshape(len(words), cfg.groups, slots, width)
            index = (fields.astype(np.int64) << np.arange(width)).sum(-1)
            flat = index.transpose(0, 2, 1).reshape(-1, cfg.groups)[: passes * columns * kept]
            return flat.reshape(passes, columns, kept, cfg.groups) + subgroup
        found = np.zeros((passes * columns, kept, cfg.groups), np.int64)
        for word, group in np.ndindex(passes * columns, cfg.groups):
            set_bits = np.flatnonzero(bits[word, group])
            found[word, : len(set_bits), group] = set_bits[:kept]
        return found.reshape(passes, columns, kept, cfg.groups)

    def parameters(self, i: Instruction) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Bias, multiplier, shift and second multiplier of the product's columns."""
        at = (i["parameters_base"] + np.arange(i["columns"]) * i["parameters_step"]) % self.config.parameter_words
        words = np.ascontiguousarray(self.chip[Target.PARAMETERS][at])
        bias = words[:, :4].copy().view("<i4")[:, 0].astype(np.int64)
        multiplier = words[:, 4:6].copy().view("<u2")[:, 0].astype(np.int64)
        second = words[:, 8:10].copy().view("<u2")[:, 0].astype(np.int64)
        return bias, multiplier, words[:, 6].astype(np.int64) & 7, second

    def windows(self, i: Instruction) -> NDArray[np.int64]:
        """Activations from memory: shape (rows, reduction)."""
        cfg = self.config
        data = self.bytes_at(i["window_address"], i["window_beats"] * cfg.bus_bytes)
        return data.view(np.int8).reshape(-1, cfg.rows).T.astype(np.int64)

    def product(self, i: Instruction) -> None:
        """PRODUCT and SCORES."""
        sums = matrix_sums(self.windows(i), self.weights(i))
        if i["continues"]:
            sums = sums + self.sums
        if i["unfinished"]:
            self.sums = sums
            return
        bias, multiplier, shift, second = self.parameters(i)
        results = requantize(sums, bias[:, None], multiplier[:, None], shift[:, None], wide=bool(i["wide"]))
        if i.opcode == Opcode.SCORES:
            self.scores(results, i)
        else:
            self.store(results, second, i)

    def store(self, results: NDArray[np.int16], second: NDArray, i: Instruction) -> None:
        """Results of shape (columns, rows) to memory."""
        columns, rows = results.shape
        mode = Result(i["result"])
        data: NDArray
        if mode == Result.ACTIVATE:
            table = np.ascontiguousarray(self.chip[Target.TABLE]).view("<i2")[:, 0]
            data = activate(results, table, second[:, None])
        elif mode == Result.RESIDUAL:
            raw = self.bytes_at(i["residual_address"], 2 * results.size)
            data = add_residual(results, raw.copy().view("<i2").reshape(columns, rows), second[:, None])
        elif mode == Result.STORE16:
            data = results
        else:
            data = results.astype(np.int8)
            if mode == Result.TRANSPOSE:
                data = data.reshape(-1, self.config.groups, rows).transpose(0, 2, 1)
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        self.bytes_at(i["result_address"], len(raw))[:] = raw

    def scores(self, results: NDArray[np.int16], i: Instruction) -> None:
        """The softmax of one block of keys."""
        groups = self.config.groups
        number = np.arange(i["columns"])
        depth = i["columns"] // groups
        key = groups * (number % depth) + number // depth
        if i["row_first"]:
            self.rows = SoftmaxRows(self.config.rows, wide=False)
        probabilities = self.rows.block(results.T.astype(np.int64), key < i["keys"])
        totals = np.stack(self.rows.reciprocals(i["gain"])) if i["row_last"] else None
        self.probabilities.append((probabilities, self.rows.growth.clip(max=31), totals))

    def context(self, i: Instruction) -> None:
        """CONTEXT: one block of P x V."""
        probabilities, growth, totals = self.probabilities.pop(0)
        sums = matrix_sums(probabilities, self.weights(i))
        if i["continues"]:
            sums = sums + (self.sums >> growth)
        if i["unfinished"]:
            self.sums = sums
            return
        assert totals is not None
        results = requantize(sums, 0, totals[0], totals[1], wide=bool(i["wide"]))
        self.store(results, np.zeros(len(sums), np.int64), i)

    def norm(self, i: Instruction) -> None:
        """NORM."""
        rows, width = self.config.rows, i["width"]
        x = self.bytes_at(i["input_address"], 2 * rows * width).copy().view("<i2").reshape(width, rows).T
        words = self.bytes_at(i["parameters_address"], 8 * width).copy().view("<u8").astype(object)
        scale = np.array([((int(w) & 0x3FFFF) ^ 0x20000) - 0x20000 for w in words])
        shift = np.array([((int(w) >> 18 & 0xFFFF) ^ 0x8000) - 0x8000 for w in words])
        multiplier = np.array([int(w) >> 34 & 0xFFFF for w in words])
        wide, narrow = layer_norm(x, scale, shift, multiplier, i["inverse"])
        self.bytes_at(i["wide_address"], 2 * x.size)[:] = np.ascontiguousarray(wide.T).view(np.uint8).reshape(-1)
        self.bytes_at(i["narrow_address"], x.size)[:] = np.ascontiguousarray(narrow.T).view(np.uint8).reshape(-1)


def run_program(
    image: NDArray[np.uint8],
    program_address: int,
    config: Config,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.uint8]:
    """The image after the program at `program_address` has run; `image` itself is not changed.

    Parameters
    ----------
    image : uint8, shape (bytes,)
    progress : function
        Called with the number of instructions done, and of all.

    Raises
    ------
    InputError
        If the program is malformed, or for another configuration.
    CheckError
        If an instruction reaches outside the image (the message names it).
    """
    machine = _Machine(image.copy(), config)
    instructions = disassemble(image[program_address:].tobytes(), config)
    actions = {
        Opcode.LOAD: machine.load,
        Opcode.PRODUCT: machine.product,
        Opcode.SCORES: machine.product,
        Opcode.CONTEXT: machine.context,
        Opcode.NORM: machine.norm,
    }
    done = {"loads": 0, "matrix": 0, "products": 0, "norms": 0}
    pending: deque[tuple[int, Instruction]] = deque()

    def ready(instruction: Instruction) -> bool:
        return all(done[c] >= instruction[f"wait_{c}"] for c in done)

    def run(number: int, instruction: Instruction) -> None:
        try:
            actions[instruction.opcode](instruction)
        except CheckError as error:
            raise CheckError(f"instruction {number} ({instruction.opcode.name}): {error}") from None
        if instruction.opcode == Opcode.LOAD:
            done["loads"] += 1
        elif instruction.opcode == Opcode.NORM:
            done["norms"] += 1
        else:
            done["matrix"] += 1
            done["products"] += not instruction["unfinished"]

    for number, instruction in enumerate(instructions):
        if instruction.opcode == Opcode.HALT:
            break
        if instruction.opcode == Opcode.LOAD:
            pending.append((number, instruction))
        while pending and ready(pending[0][1]):
            run(*pending.popleft())
        if instruction.opcode != Opcode.LOAD:
            if not ready(instruction):
                raise CheckError(f"instruction {number} ({instruction.opcode.name}) waits for what comes after it")
            run(number, instruction)
        if progress:
            progress(number + 1, len(instructions))
    return machine.image

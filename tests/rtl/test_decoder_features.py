"""What decoders need of the whole accelerator: instructions of every feature in programs of their own, RTL against the
reference, byte for byte over the whole memory; the same on hardware that lacks them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.reference.program import run_counted
from sta_hw.spec.config import Config
from sta_hw.spec.isa import (
    Error,
    Instruction,
    Mask,
    NormKind,
    Opcode,
    Result,
    Target,
    assemble,
)  # fmt: skip
from sta_hw.spec.presets import PRESETS
from sta_hw.spec.registers import SATURATIONS
from tests.rtl.illegal import check_illegal
from tests.spec.test_expansion import NEXT, loop, setting

CONFIGS = {
    "4x2": dataclasses.replace(PRESETS["ci"], features=("decoder",)),
    "8x8": Config(
        rows=8, groups=8, window=32, lanes=8, drain_lanes=4, columns=64, weight_words=1024, parameter_words=256,
        norm_columns=32, features=("decoder",),
    ),
}  # fmt: skip
ALL = {"wait_loads": 1, "wait_matrix": 1, "wait_products": 1, "wait_norms": 1}


class Program:
    """Instructions one after the other, and the memory that they work on.

    Weights and parameters of a product are loaded for it; every instruction waits for all before it.
    """

    def __init__(self, config: Config, seed: int) -> None:
        self.config, self.rng = config, np.random.default_rng(seed)
        self.instructions: list[Instruction] = []
        self._parts: list[NDArray[np.uint8]] = []
        self._size = 0

    def put(self, data: ArrayLike) -> int:
        """Bytes into memory; returns their address."""
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        at, step = self._size, 2 * self.config.rows * max(self.config.groups, 8)
        self._parts.append(np.concatenate([raw, np.zeros(-len(raw) % step, np.uint8)]))
        self._size += len(self._parts[-1])
        return at

    def noise(self, size: int) -> int:
        """So many random bytes."""
        return self.put(self.rng.integers(0, 256, size, dtype=np.uint8))

    def add(self, opcode: Opcode, **fields: int) -> None:
        """An instruction that waits for all before it."""
        self.instructions.append(Instruction(opcode, {**ALL, **fields}))

    def load(self, target: Target, address: int, size: int) -> None:
        """Bytes to an on-chip memory."""
        self.add(Opcode.LOAD, address=address, rows=1, beats=-(-size // self.config.bus_bytes), target=int(target))

    def parameters(self, columns: int, size: int, *, wide: bool) -> int:
        """Columns' parameters for sums of about `size`, most results within their range, some beyond."""
        words = np.zeros((columns, 16), np.uint8)
        bias = self.rng.integers(-size, size + 1, columns).astype("<i4")
        shift = self.rng.integers(1, 5, columns)
        factor = self.rng.uniform(0.2, 2, columns) * (32767 if wide else 127) / size * 2.0 ** (12 + 4 * shift)
        words[:, :4] = bias.view(np.uint8).reshape(-1, 4)
        words[:, 4:6] = np.minimum(factor, 65535).astype("<u2").view(np.uint8).reshape(-1, 2)
        words[:, 6] = shift
        words[:, 8:10] = self.rng.integers(0, 65536, columns).astype("<u2").view(np.uint8).reshape(-1, 2)
        return self.put(words)

    def weights(self, columns: int, passes: int, depth: int) -> dict[str, int]:
        """Dense weights, loaded; the fields of a product with them."""
        words = columns * passes * depth
        assert words <= self.config.weight_words
        size = words * self.config.groups
        self.load(Target.VALUES, self.noise(size), size)
        return {
            "count0": words, "stride0": 1, "count1": 1, "count2": 1, "count3": 1, "columns": columns, "passes": passes,
            "n": 1, "depth": depth,
        }  # fmt: skip

    def product(self, opcode: Opcode = Opcode.PRODUCT, *, columns: int, depth: int, **fields: int) -> None:
        """A product of one pass with random windows and weights."""
        cfg = self.config
        size = cfg.rows * cfg.groups * depth
        window = self.noise(size)
        windows = {"window_address": window, "window_beats": size // cfg.bus_bytes}
        fields = self.weights(columns, 1, depth) | windows | fields
        if opcode != Opcode.CONTEXT:
            address = self.parameters(columns, 5000 * depth, wide=bool(fields.get("wide")))
            self.load(Target.PARAMETERS, address, 16 * columns)
            fields["parameters_step"] = 1
        self.add(opcode, **fields)

    def image(self) -> tuple[NDArray[np.uint8], int]:
        """Memory, and where the program lies in it."""
        program = assemble([*self.instructions, Instruction(Opcode.HALT)], self.config)
        at, data = self._size, np.concatenate([*self._parts, np.frombuffer(program, np.uint8)])
        burst = self.config.burst * self.config.bus_bytes
        return np.concatenate([data, np.zeros(-len(data) % burst, np.uint8)]), at


@pytest.fixture(scope="module", params=list(CONFIGS))
def hardware(request: pytest.FixtureRequest) -> AcceleratorModel:
    """Built once."""
    return AcceleratorModel(CONFIGS[request.param])


def memories() -> Iterator[MemoryModel]:
    yield MemoryModel()
    yield MemoryModel(latency=30, beats_per_cycle=0.4, stall=0.5, seed=3, shared=True)


def check(hardware: AcceleratorModel, program: Program, *, length: int = 0, position: int = 0) -> NDArray[np.uint8]:
    """Memory and counters are the reference's; returns the memory."""
    image, at = program.image()
    expected = run_counted(image, at, program.config, length=length, position=position)
    for memory in memories():
        run = hardware.run(image, at, memory=memory, length=length, position=position, patience=50_000)
        assert run.error == Error.NONE
        np.testing.assert_array_equal(run.image, expected.image)
        assert {name: run.counters[name] for name in SATURATIONS} == expected.saturated
    return expected.image


def test_causal_masks(hardware: AcceleratorModel) -> None:
    """Blocks before, at and beyond the diagonal; one key fewer than a row has, and more."""
    cfg = hardware.config
    program = Program(cfg, 1)
    for first in (0, 1, 5, 3 * cfg.rows + 1):
        blocks = 3
        result = program.put(np.zeros(cfg.rows * 4, np.uint8))
        for block in range(blocks):
            depth = (2, 4, cfg.window)[block]
            keys = cfg.groups * depth
            program.product(
                Opcode.SCORES, columns=keys, depth=2, wide=1, mask=int(Mask.CAUSAL), keys=first,
                key_start=block * cfg.groups * 2 - (first == 5), row_first=int(block == 0),
                row_last=int(block == blocks - 1), gain=3,
            )  # fmt: skip
            program.product(
                Opcode.CONTEXT, columns=4, depth=depth, result_address=result, continues=int(block > 0),
                unfinished=int(block < blocks - 1),
            )  # fmt: skip
    check(hardware, program)


def test_root_mean_square_norms(hardware: AcceleratorModel) -> None:
    """Beside LayerNorm, any epsilon; tiles that fit the unit's memory, and wider ones."""
    cfg = hardware.config
    program = Program(cfg, 2)
    for kind, epsilon, width in ((1, 0, 8), (0, 3, 17), (1, 1 << 27, 64), (1, 7, 90), (0, 0, 5), (0, 1 << 20, 3)):
        x = program.rng.integers(-200, 201, (width, cfg.rows)).astype("<i2")
        inverse = round(2**33 / width)
        program.add(
            Opcode.NORM, input_address=program.put(x), wide_address=program.noise(x.nbytes),
            narrow_address=program.noise(x.size), parameters_address=program.noise(8 * width), width=width,
            inverse=0 if kind else inverse & 0xFFFFFFFF, inverse_high=0 if kind else inverse >> 32, kind=kind,
            epsilon=epsilon, rows_before=width % 3, rows_after=width % 2,
        )  # fmt: skip
    assert NormKind.RMS == 1
    check(hardware, program)


def test_rows_by_position(hardware: AcceleratorModel) -> None:
    """Every kind of result, stored for the rows from POSITION on, as many as LENGTH; others by constants."""
    cfg = hardware.config
    rows = cfg.rows
    for position, length in ((0, rows), (0, 1), (rows - 1, 1), (5 * rows + 1, 2), (65535 - rows, 1)):
        program = Program(cfg, position)
        for result in (Result.STORE8, Result.STORE16, Result.TRANSPOSE, Result.RESIDUAL, Result.ACTIVATE):
            wide = int(result in (Result.STORE16, Result.RESIDUAL))
            for shifted in (0, 1):
                program.product(
                    columns=2 * cfg.groups, depth=3, result=int(result), wide=wide, place=1,
                    rows_before=shifted, rows_after=-shifted % rows,
                    result_address=program.noise(4 * cfg.groups * rows),
                    residual_address=program.noise(4 * cfg.groups * rows),
                )  # fmt: skip
        program.product(columns=4, depth=1, rows_before=1, result_address=program.noise(4 * rows))
        before, _ = program.image()
        after = check(hardware, program, length=length, position=position)
        # The first product by hand: of each column the bytes of these rows alone are others.
        first = next(i for i in program.instructions if i.opcode == Opcode.PRODUCT)["result_address"]
        changed = (before != after)[first : first + 2 * cfg.groups * rows].reshape(-1, rows).any(0)
        assert set(np.flatnonzero(changed)) <= {(position + i) % rows for i in range(length)} and changed.any()


def test_gates_rotations_and_the_largest(hardware: AcceleratorModel) -> None:
    """Between results of all other kinds; lists over several products, kept from one to the next."""
    cfg = hardware.config
    program = Program(cfg, 11)
    size = 2 * 8 * cfg.groups * cfg.rows
    program.load(Target.TABLE, program.noise(512), 512)
    lists = program.put(np.zeros(64 * cfg.rows, np.uint8))
    for round_of in range(2):
        for result, more in (
            (Result.ACTIVATE, {"multiply": 1}), (Result.BEST, {"row_first": 1}), (Result.STORE8, {"rotate": 1}),
            (Result.STORE16, {"multiply": 1}), (Result.BEST, {}), (Result.TRANSPOSE, {"rotate": 1}),
            (Result.ACTIVATE, {}), (Result.BEST, {"row_last": 1}), (Result.RESIDUAL, {}),
            (Result.BEST, {"row_last": 1}),
        ):  # fmt: skip
            base = {"residual_address": program.noise(size), "result_address": program.noise(size)}
            if result == Result.BEST:
                base = {"residual_address": 1000 * round_of + len(program.instructions), "result_address": lists}
            wide = int(bool(more) or result in (Result.BEST, Result.RESIDUAL))
            columns = 2 * cfg.groups * (1 + round_of)
            program.product(columns=columns, depth=2 + round_of, wide=wide, result=int(result), **base, **more)
        lists = program.put(np.zeros(64 * cfg.rows, np.uint8))
    check(hardware, program)


def test_pairs_of_which_one_is_missing_are_refused(hardware: AcceleratorModel) -> None:
    """And results that cannot be multiplied or rotated: by hardware and reference with OPCODE, at their number."""
    fields = [
        {"multiply": 1, "result": 2, "columns": 3}, {"rotate": 1, "columns": 5},
        {"multiply": 1, "result": 2, "rotate": 1}, {"multiply": 1, "result": 0}, {"multiply": 1, "result": 3},
        {"rotate": 1, "result": 1}, {"rotate": 1, "result": 5}, {"multiply": 1, "result": 5}, {"result": 6},
    ]  # fmt: skip
    cases = [(Opcode.PRODUCT, f) for f in fields]
    cases += [
        (Opcode.SCORES, {"multiply": 1, "result": 2}),
        (Opcode.CONTEXT, {"rotate": 1}),
        (Opcode.CONTEXT, {"result": 5}),
    ]
    for opcode, bad in cases:
        check_illegal(hardware, opcode, bad)


def test_registers_begin_with_the_position(hardware: AcceleratorModel) -> None:
    """Addresses by r12 and r13: a row tile's, and by a loop of as many turns as there are tiles before."""
    cfg = hardware.config
    program = Program(cfg, 9)
    base = program.noise(16 * cfg.rows * 4)
    program.instructions += [setting(1, base - 4 * cfg.rows), loop(1, 12), setting(1, 4 * cfg.rows, 1), NEXT]
    program.product(columns=4, depth=2, result_address=0, result_address_register=1)
    for tile in (0, 3, 15):
        image, at = program.image()
        run = hardware.run(image, at, position=tile * cfg.rows + 1, patience=50_000)
        assert run.error == Error.NONE
        np.testing.assert_array_equal(run.image, run_counted(image, at, cfg, position=tile * cfg.rows + 1).image)
        changed = np.flatnonzero(run.image != image)
        assert base + tile * 4 * cfg.rows <= changed.min() and changed.max() < base + (tile + 1) * 4 * cfg.rows


def test_hardware_without_a_feature_refuses_its_instructions() -> None:
    """With OPCODE at their number, as the reference does; the same program runs without them."""
    config = PRESETS["ci"]
    model = AcceleratorModel(config)
    fields: list[tuple[Opcode, dict[str, int]]] = [
        (Opcode.SCORES, {"mask": 2, "columns": 4}), (Opcode.NORM, {"kind": 1}), (Opcode.NORM, {"epsilon": 1}),
        (Opcode.PRODUCT, {"place": 1}), (Opcode.CONTEXT, {"place": 1}), (Opcode.PRODUCT, {"multiply": 1, "result": 2}),
        (Opcode.PRODUCT, {"rotate": 1}), (Opcode.PRODUCT, {"result": 5}),
    ]  # fmt: skip
    for opcode, bad in fields:
        check_illegal(model, opcode, bad)

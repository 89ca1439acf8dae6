"""Bits that are stuck in the smallest accelerator's Verilog, and in the reference at the same place."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sta_hw.reference.machine as machine
from sim.verilog import module_verilog
from sta_hw.reference.program import Executed, run_counted
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]


def faulty_copy(module: str, instance: str, old: str, new: str, driven: str = "") -> str:
    """The accelerator's Verilog with one instance of a module replaced by a faulty copy.

    `driven` is declared in it: a signal ``faulty`` that drives a port in place of what did.
    """
    text = module_verilog("accelerator", CONFIG, hierarchy=True)
    module = f"accelerator__core_{module}"
    whole = re.search(rf"^module {module}\(.*?^endmodule\n", text, re.M | re.S)
    assert whole and whole[0].count(old) == 1, (module, old)
    copy = whole[0].replace(old, new).replace(f"module {module}(", f"module {module}_faulty(", 1)
    copy = copy.replace(");\n", f");\n{driven}", 1)
    text, count = re.subn(rf"^  {module} {instance} \($", f"  {module}_faulty {instance} (", text, flags=re.M)
    assert count == 1, instance
    return text + copy


def stuck_port(module: str, instance: str, port: str, pin: str, width: int, bit: int) -> str:
    """`faulty_copy` with a bit of a port stuck at one, which an instance's pin drives."""
    driven = f"  wire [{width - 1}:0] faulty;\n  assign {port} = faulty | {width}'h{1 << bit:x};\n"
    return faulty_copy(module, instance, f".{pin}({port})", f".{pin}(faulty)", driven)


def first_changed(
    monkeypatch: pytest.MonkeyPatch, program: tuple, name: str, wrap: Callable[[Any], Any]
) -> tuple[int, int, np.ndarray]:
    """By a reference with the same fault: the first instruction that stores something else, where, and what."""
    model, image = program

    def stores() -> list[Executed]:
        found: list[Executed] = []
        run_counted(image, model.program_address, CONFIG, None, found.append, length=model.length)
        return found

    right = stores()
    with monkeypatch.context() as patch:
        patch.setattr(machine, name, wrap(getattr(machine, name)))
        wrong = stores()
    for a, b in zip(right, wrong, strict=True):
        for (address, data), (_, other) in zip(a.stores, b.stores, strict=True):
            if not np.array_equal(data, other):
                place = int(np.flatnonzero(data != other)[0])
                return a.number, address + place, other
    raise AssertionError("the fault changes nothing")


def _requantizer(real: Any) -> Any:
    """Lane 1 of two: every second row."""

    def faulty(sums: Any, *others: Any, wide: bool) -> Any:
        found = np.array(real(sums, *others, wide=wide))
        found[:, 1::2] |= 4
        return found

    return faulty


def _sums(real: Any) -> Any:
    """Row 2's adder gives zero."""

    def faulty(activations: Any, weights: Any) -> Any:
        found = np.array(real(activations, weights))
        found[:, 2] = 0
        return found

    return faulty


def _norm(real: Any) -> Any:
    def faulty(*operands: Any, **named: Any) -> Any:
        wide, narrow = real(*operands, **named)
        narrow = np.array(narrow)
        narrow[1 :: CONFIG.bus_bytes] |= 1
        return wide, narrow

    return faulty


class _Softmax:
    """Rows whose probabilities leave the softmax with a bit stuck: those of the bus word's byte 1."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __call__(self, *operands: Any, **named: Any) -> Any:
        rows = self.real(*operands, **named)
        block = rows.block

        def faulty(*given: Any) -> Any:
            found = np.array(block(*given))
            found[1 :: CONFIG.bus_bytes] |= 1
            return found

        rows.block = faulty
        return rows


FAULTS: dict[str, tuple[Callable[[], str], str, Callable[[Any], Any], str]] = {
    "requantizer": (
        lambda: faulty_copy(
            "engine_drain_requantizer", "requantizer_1", "result <= _040_;", "result <= _040_ | 16'h0004;"
        ),
        "requantize", _requantizer, "PRODUCT",
    ),
    "adder": (
        lambda: faulty_copy("engine_array_tree", "tree_2", "sum_0_0 <= _0_;", "sum_0_0 <= 17'h0;"),
        "matrix_sums", _sums, "PRODUCT",
    ),
    "norm": (
        lambda: stuck_port("norm", "norm", "narrow__payload", "target__payload", 32, 8), "layer_norm", _norm, "NORM",
    ),
    "softmax": (
        lambda: stuck_port("softmax", "softmax", "probabilities__payload", "r_data", 32, 8),
        "SoftmaxRows", _Softmax, "CONTEXT",
    ),
}  # fmt: skip
"""Faulty Verilog; what of the reference has the same fault, and how; the opcode that must be named."""

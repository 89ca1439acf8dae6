"""The reference of the units: what is not defined is named."""

from __future__ import annotations

import numpy as np
import pytest

from sta_hw.errors import CheckError
from sta_hw.reference.instructions import Fetched
from sta_hw.reference.machine import Machine
from sta_hw.spec.config import Config
from sta_hw.spec.isa import Opcode

CONFIG = Config(rows=64, groups=128, window=32, lanes=8, drain_lanes=2)
KEYS = CONFIG.groups * CONFIG.window


def test_more_keys_than_sums_hold() -> None:
    """65,536 of the largest scores fit, and one more block of them does not."""
    machine = Machine(np.zeros(64, np.uint8), CONFIG, 0, 0)
    scores = np.full((KEYS, CONFIG.rows), 32767, np.int16)

    def block(number: int) -> None:
        fields = {"columns": KEYS, "keys": KEYS, "row_first": int(number == 0)}
        fields |= dict.fromkeys(("key_start", "mask", "row_last", "coarse", "gain"), 0)
        machine.scores(scores, Fetched(int(Opcode.SCORES), number, number, fields))

    for number in range(65_536 // KEYS):
        block(number)
    assert machine.rows.total.max() < 1 << 32
    with pytest.raises(CheckError, match=r"a row's sum of probabilities is .*, and 32 bits hold less"):
        block(65_536 // KEYS)

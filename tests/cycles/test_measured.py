"""The cycle model without RTL: short programs take what the RTL was seen to take, or miss it by what is known."""

from __future__ import annotations

from collections.abc import Sequence

import measured
import pytest

from sta_hw.cycles.machine import estimate_cycles
from sta_hw.cycles.timing import MachineTiming
from sta_hw.spec.isa import Instruction, Result

PROGRAMS = measured.programs()


@pytest.mark.parametrize(("config", "name"), measured.MEASURED)
def test_as_measured(config: str, name: str) -> None:
    """test_model.py runs the same programs in RTL."""
    encoder = name.removeprefix("an encoder of ")
    program: Sequence[Instruction] = (
        measured.encoder(encoder).instructions if encoder != name else PROGRAMS[config, name]
    )  # fmt: skip
    hardware = measured.CONFIGS[config]
    found = [round(estimate_cycles(program, hardware, timing)) for timing in measured.MEMORIES.values()]
    assert found == [rtl + missed for rtl, missed in measured.MEASURED[config, name]]


def test_weights_stand_for_more() -> None:
    """One of a row that are alike stands for three: as long as a row of two more."""
    config, timing = measured.CONFIGS["encoder"], measured.MEMORIES["near"]
    for one in (
        measured.product(config, 32, 1, result=Result.STORE8, wait_products=1), measured.norm(16, wait_norms=1),
    ):  # fmt: skip
        found = estimate_cycles([one, one, one, measured.HALT], config, timing, [1, 3, 1, 1])
        many = [*[one] * 5, measured.HALT]
        assert found == estimate_cycles(many, config, timing, [1.0] * 6) == estimate_cycles(many, config, timing)
    with pytest.raises(ValueError, match="zip"):
        estimate_cycles([measured.HALT], config, timing, [1, 1])


def test_the_memory_is_one_of_50_cycles_unless_said() -> None:
    config, program = measured.CONFIGS["encoder"], PROGRAMS["encoder", "one load"]
    found = [estimate_cycles(program, config, timing) for timing in (None, MachineTiming(50), MachineTiming(51))]
    assert found[0] == found[1] < found[2]

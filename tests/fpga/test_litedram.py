"""What LiteDRAM's generator is asked for; the controllers run in tests/sim/test_pins.py."""

from __future__ import annotations

import pytest

from boards import board
from sta_hw.errors import InputError
from sta_hw.fpga.litedram import generate_controller


def test_ddr3_needs_its_oscillator() -> None:
    target = board("ecpix5-85f")
    with pytest.raises(InputError, match="name the board's oscillator"):
        generate_controller(target.sdram, target.frequency, 16)

"""Whole boards from their pins in: what goes into the bitstream runs the self-test over its serial line."""

from __future__ import annotations

import pytest

from boards import BOARDS, board
from sim.pins import PinsPort
from sta_hw.config import preset
from sta_hw.fpga.selftest import check_board
from sta_hw.runtime.board import BoardLink


@pytest.mark.parametrize(
    ("name", "configuration"), [("ulx3s-25f", "ci"), ("icesugar-pro", "ci"), ("icebreaker", "up5k")]
)
def test_self_test_through_the_pins(name: str, configuration: str) -> None:
    """Oscillator, PLL, reset, pin cells and polarities, LiteDRAM against the chip, lamps."""
    config = preset(configuration)
    port = PinsPort(board(name), config)
    assert not port.lamps["ready"]
    port.pause(60_000)  # the memory starts
    assert port.lamps["ready"]
    link = BoardLink(port)
    outcome = check_board(BOARDS[name], config, link)
    assert outcome["bytes"] > 50 and link.retries == 0 and port.violations == 0
    assert not port.lamps["busy"] and not port.lamps["failed"]
    port.close()

"""Whole boards from their pins in: what goes into the bitstream runs the self-test over its serial line."""

from __future__ import annotations

import re

import pytest

from boards import BOARDS, board
from boards.ecp5 import Ecp5Top
from sim.pins import PinsPort
from sta_hw.host.board import BoardLink
from sta_hw.run.selftest import check_board
from sta_hw.spec.presets import preset


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


@pytest.mark.parametrize("name", [n for n, b in BOARDS.items() if b.chip.family == "ecp5"])
def test_the_pll_gives_the_clock(name: str) -> None:
    """Its dividers, as they stand in the netlist, make the board's frequency of its oscillator's, within its limits."""
    target = board(name)
    platform = target.make_platform()
    text = platform.prepare(Ecp5Top(target, preset("ci")), "top").files["top.il"]
    cell = re.search(r"cell \\EHXPLLL.*?\n  end", text if isinstance(text, str) else text.decode(), re.DOTALL)
    assert cell is not None
    found = {n: int(v) for n, v in re.findall(r"parameter \\(CLK\w+) (\d+)\n", cell[0])}
    compared = float(platform.default_clk_frequency) / found["CLKI_DIV"]
    clock = compared * found["CLKFB_DIV"]  # fed back from the first output
    assert clock == target.frequency and compared >= 3.125e6
    assert 400e6 <= clock * found["CLKOP_DIV"] <= 800e6 and found["CLKOS_DIV"] == found["CLKOP_DIV"]
    assert 4 * (found["CLKOS_CPHASE"] - found["CLKOP_CPHASE"]) == found["CLKOP_DIV"]  # a quarter later

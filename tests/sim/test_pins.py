"""Whole boards from their pins in: what goes into the bitstream runs the self-test over its serial line."""

from __future__ import annotations

import re

import numpy as np
import pytest

from boards import BOARDS, board
from boards.ecp5 import Ecp5Top
from sim.pins import LAGS, PinsPort
from sta_hw.fpga.litedram import generate_controller
from sta_hw.host.board import BoardLink
from sta_hw.host.leveling import BIT_SLIPS, level, leveled
from sta_hw.run.selftest import check_board
from sta_hw.spec.presets import preset


@pytest.mark.parametrize(
    ("name", "configuration"),
    [
        ("ulx3s-25f", "ci"),
        pytest.param("icesugar-pro", "ci", marks=pytest.mark.slow),
        ("icebreaker", "up5k"),
        pytest.param("ecpix5-85f", "ci", marks=pytest.mark.slow),
    ],
)
def test_self_test_through_the_pins(name: str, configuration: str) -> None:
    """Oscillator, PLL, reset, pin cells and polarities, LiteDRAM against the chip, lamps."""
    config = preset(configuration)
    port = PinsPort(board(name), config)
    assert not port.lamps["ready"]
    port.pause(110_000)  # the memory starts
    assert port.lamps["ready"]
    link = BoardLink(port)
    sdram = BOARDS[name].sdram
    if sdram is not None and sdram.kind == "DDR3":
        _leveling(link)
        _past_the_pins(port, link)
    outcome = check_board(BOARDS[name], config, link)
    assert outcome["bytes"] > 50 and link.retries == 0 and port.violations == 0
    assert not port.lamps["busy"] and not port.lamps["failed"]
    port.close()


def _leveling(link: BoardLink) -> None:
    """A lane's bit slip is by how many bits it is late; four delays in a row serve, and the third is taken."""
    assert not leveled(link)
    for lane, late in zip(level(link), LAGS, strict=True):
        assert lane.bit_slip == late and lane.right[late] == tuple(range(2 * late - 1, 2 * late + 3))
        assert lane.delay == 2 * late + 1 and not any(lane.right[i] for i in range(BIT_SLIPS) if i != late)
    assert leveled(link)
    words = np.random.default_rng(1).integers(0, 1 << 32, 255, dtype=np.uint32)
    for address in (0x40000000, 0x5FFFFC00):  # begin and end of its 512 MB
        link.write(address, words)
        assert np.array_equal(link.read(address, len(words)), words)


def _past_the_pins(port: PinsPort, link: BoardLink) -> None:
    """What is put into the chip is read through the controller, and what is written through it is in the chip."""
    data = np.random.default_rng(2).integers(0, 256, 4 * 255, dtype=np.uint8)
    for start in (0x340, 0x7FFDF0):
        port.put(start, data.tobytes())
        assert np.array_equal(link.read(0x40000000 + start, 255), data.view("<u4"))
        link.write(0x40000000 + start, data[::-1].copy().view("<u4"))
        assert port.get(start, len(data)) == data[::-1].tobytes()


ECP5 = {n: b for n, b in BOARDS.items() if b.chip.family == "ecp5"}


def test_the_clocks_of_the_ddr3() -> None:
    """LiteDRAM's dividers make twice the board's frequency for the memory, within the PLL's limits."""
    target = board("ecpix5-85f")
    assert target.sdram is not None
    source = float(target.make_platform().default_clk_frequency)
    verilog = generate_controller(target.sdram, target.frequency, 16, source).verilog
    cell = re.search(r"^EHXPLLL #\(.*?^\);", verilog, re.DOTALL | re.MULTILINE)
    assert cell is not None
    found = {n: int(v) for n, v in re.findall(r"\.(CLK\w+) +\(\d+'d(\d+)\)", cell[0])}
    compared = source / found["CLKI_DIV"]
    oscillator = compared * found["CLKFB_DIV"] * found["CLKOS2_DIV"]  # fed back from the third output
    assert oscillator / found["CLKOP_DIV"] == 2 * target.frequency and oscillator / found["CLKOS_DIV"] == 25e6
    assert compared >= 3.125e6 and 400e6 <= oscillator <= 800e6


@pytest.mark.parametrize("name", [n for n, b in ECP5.items() if b.sdram is None or b.sdram.kind == "SDR"])
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

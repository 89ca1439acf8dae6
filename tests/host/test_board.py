"""The whole board: serial line, bridge, accelerator, LiteDRAM and an SDRAM chip, as the host sees them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from support import embed

from sim.board import SimulatedPort
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import CheckError, InputError
from sta_hw.host.board import BoardLink, open_port
from sta_hw.model.random import random_ids, random_model
from sta_hw.reference.program import run_program
from sta_hw.run.board import BoardBackend
from sta_hw.spec.board import BOARD_REGISTERS, MEMORY, REGISTERS
from sta_hw.spec.isa import Error
from sta_hw.spec.patterns import Pattern
from sta_hw.spec.presets import preset

CONFIG = preset("ci")
TIMEOUT = 4096
pytestmark = pytest.mark.xdist_group("board")  # one worker builds the model that all share


@pytest.fixture(scope="module")
def port() -> Iterator[SimulatedPort]:
    port = SimulatedPort(CONFIG, bridge_timeout=TIMEOUT)
    port.pause(40_000)  # the memory starts
    assert port.lamps["ready"]
    yield port
    port.close()


@pytest.fixture
def link(port: SimulatedPort) -> BoardLink:
    port.lose.clear()
    return BoardLink(port, lambda: port.pause(TIMEOUT + 1000))


@pytest.fixture(scope="module")
def compiled() -> tuple[CompiledModel, np.ndarray]:
    model = random_model(1, hidden=16, heads=2, layers=1, intermediate=32)
    quantized = quantize(model, [random_ids(0, 12)], {"0.output.dense": Pattern(2, 4)})
    return compile_encoder(quantized, CONFIG, 6), embed(model, random_ids(1, 6))


def test_self_test_over_the_serial_line(port: SimulatedPort, link: BoardLink, compiled) -> None:
    """Every byte of memory equal to the reference's, run after run; the SDRAM's data sheet is kept to."""
    program, embedded = compiled
    expected = run_program(program.with_input(embedded), program.program_address, CONFIG, length=program.length)
    backend = BoardBackend(CONFIG, link)
    for _ in range(2):
        link.set_register("length", 0xABCD)  # what another program left
        outcome = backend.run(program, embedded)
        assert link.register("length") == program.length == 6
        np.testing.assert_array_equal(outcome.image, expected)
    assert outcome.run.cycles > 0 and link.retries == 0
    assert port.violations == 0
    assert not port.lamps["busy"] and not port.lamps["failed"]


@pytest.mark.parametrize("which", ["command", pytest.param("length", marks=pytest.mark.slow), "address", "data", "end"])
def test_a_lost_byte_is_made_good(port: SimulatedPort, link: BoardLink, which: str) -> None:
    """Each part of a write loses a byte; the memory is right afterwards, beside it too."""
    rng = np.random.default_rng(len(which))
    words = rng.integers(0, 1 << 32, 600, dtype=np.uint32)
    link.write(MEMORY, words)
    words = rng.integers(0, 1 << 32, 600, dtype=np.uint32)
    # Clearing the checksum is a command of 10 bytes; then the burst: command, length, address, data.
    port.lose = {port.sent + 10 + {"command": 0, "length": 1, "address": 3, "data": 500, "end": 1025}[which]}
    link.write(MEMORY, words)
    assert link.retries >= 1
    port.lose.clear()
    np.testing.assert_array_equal(link.read(MEMORY, len(words)), words)


def test_bytes_over_the_line(port: SimulatedPort, link: BoardLink) -> None:
    """Bursts of 255 words at most: of a write a command that clears the checksum, the words, and asking for it."""
    before, words = port.sent, np.arange(600, dtype=np.uint32)
    link.write(MEMORY, words)
    assert (link.sent, link.received) == (3 * (10 + 6 + 6) + 4 * len(words), 3 * 4)
    link.read(MEMORY, len(words))
    assert (link.sent, link.received) == (3 * (10 + 6 + 6 + 6) + 4 * len(words), (3 + len(words)) * 4)
    assert link.sent == port.sent - before
    port.lose = {port.sent + 20}
    before = port.sent - link.sent
    link.write(MEMORY, words)
    assert link.retries and link.sent == port.sent - before  # what was sent again counts, too


def test_a_line_that_loses_everything(port: SimulatedPort, link: BoardLink) -> None:
    port.lose = set(range(port.sent, port.sent + 100_000))
    with pytest.raises(CheckError, match="does not answer"):
        link.read(BOARD_REGISTERS, 1)
    port.lose = set(range(port.sent, port.sent + 100_000))
    with pytest.raises(CheckError, match="does not arrive intact"):
        link.write(MEMORY, np.arange(4, dtype=np.uint32))


def test_what_is_not_there_reads_as_zero(link: BoardLink) -> None:
    assert link.read(0x10000000, 2).tolist() == [0, 0]
    assert link.read(REGISTERS + 0x7C, 1).tolist() == [0]  # the bus answers with an error


def test_another_configuration_is_refused(port: SimulatedPort, link: BoardLink, compiled) -> None:
    with pytest.raises(CheckError, match=r"another one than .*; build and flash it again"):
        BoardBackend(preset("tiny"), link)
    program, embedded = compiled
    backend = BoardBackend(CONFIG, link)
    backend.config = preset("tiny")
    with pytest.raises(InputError, match="compile it for this board"):
        backend.run(program, embedded)


def test_an_error_is_told_and_the_next_program_runs(port: SimulatedPort, link: BoardLink, compiled) -> None:
    program, embedded = compiled
    backend = BoardBackend(CONFIG, link)
    broken = program.image.copy()
    broken[program.program_address + 64 + 4] |= 0xF0  # the first instruction's opcode, bits 36 to 39
    with pytest.raises(CheckError, match=rf"stopped: {Error.OPCODE.name} at instruction"):
        backend.run(CompiledModel(**{**vars(program), "image": broken}), embedded)
    assert port.lamps["failed"]
    expected = run_program(program.with_input(embedded), program.program_address, CONFIG, length=program.length)
    np.testing.assert_array_equal(backend.run(program, embedded).image, expected)
    assert not port.lamps["failed"]


def test_a_port_that_does_not_exist() -> None:
    with pytest.raises(InputError, match="cannot open /dev/nowhere"):
        open_port("/dev/nowhere", 115_200)

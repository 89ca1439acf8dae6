"""The whole board: serial line, bridge, accelerator, LiteDRAM and an SDRAM chip, as the host sees them."""

from __future__ import annotations

import os
import pty
import tty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from support import embed

from sim.board import SimulatedPort
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import CheckError, InputError, ToolError
from sta_hw.formats import encode
from sta_hw.host.board import BoardLink, open_port, require_port
from sta_hw.host.engine_board import EngineLink
from sta_hw.host.products import Product, Requantization
from sta_hw.model.random import random_ids, random_model
from sta_hw.reference.program import run_program
from sta_hw.run.board import BoardBackend
from sta_hw.spec.board import BOARD_REGISTERS, IDENTITY, MEMORY, REGISTERS
from sta_hw.spec.isa import Error
from sta_hw.spec.patterns import DENSE, Pattern
from sta_hw.spec.presets import preset
from sta_hw.spec.registers import capabilities, register

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


def test_what_is_no_port(tmp_path: Path) -> None:
    """One sentence, with the ports that there are; nothing waits for a pipe."""
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for name, why in (
        ("/dev/nowhere", "there is no such serial port"), ("a" * 300, "there is no such serial port"),
        (str(tmp_path / "file"), "it is a file, and no serial port"), (str(tmp_path), "it is a folder"),
        (str(tmp_path / "pipe"), "it is a pipe"), ("/dev/null", "Could not configure port"),
    ):  # fmt: skip
        with pytest.raises(
            InputError, match=rf"^cannot open .*{why}.*; (there are /|no serial port is connected)"
        ) as error:
            open_port(name, 115_200)
        if name != "/dev/null":  # which is a device; what it is not shows when it is opened
            with pytest.raises(InputError, match=rf"^cannot open .*{why}"):
                require_port(name)
        assert len(str(error.value)) < 300 + len(str(tmp_path)) and "\n" not in str(error.value)


@pytest.fixture
def line() -> Iterator[tuple[int, str]]:
    """A pseudo terminal: its other end, and its name."""
    other, own = pty.openpty()
    tty.setraw(own)
    yield other, os.ttyname(own)
    for file in (other, own):
        with suppress(OSError):
            os.close(file)


def test_a_port_belongs_to_one_program(line: tuple[int, str]) -> None:
    first = open_port(line[1], 115_200)
    with pytest.raises(ToolError, match=r"another program has .* open"):
        open_port(line[1], 115_200)
    first.write(b"abc")
    assert os.read(line[0], 3) == b"abc"
    os.write(line[0], b"def")
    assert first.read(3) == b"def"


@pytest.mark.parametrize("method", ["write", "read", "flush", "reset_input_buffer"])
def test_a_port_that_is_pulled_out(line: tuple[int, str], method: str) -> None:
    """Whatever is done with it then, it is a tool's failure and one sentence."""
    port = open_port(line[1], 115_200)
    os.close(line[0])
    arguments = {"write": (b"x",), "read": (1,)}.get(method, ())
    with pytest.raises(ToolError, match=r"the serial port .* failed while it was in use"):
        getattr(port, method)(*arguments)


@pytest.mark.parametrize(
    ("status", "said"),
    [(0xAB04, "error 171, which this version does not know, at instruction"), (0x0304, "stopped: OPCODE at"),
     (0, "lost its program: register status reads 0x00000000")],
)  # fmt: skip
def test_a_status_that_is_none(status: int, said: str, compiled) -> None:
    """A board that answers nonsense behind a right identity; in the simulated one nothing does."""

    class Nonsense(BoardLink):
        def read(self, address: int, words: int) -> np.ndarray:
            values = {BOARD_REGISTERS: IDENTITY, REGISTERS + register("status").offset: status}
            values |= {REGISTERS + register(n).offset: v for n, v in capabilities(CONFIG).items()}
            return np.full(words, values.get(address, 1), np.uint32)

        def _burst(self, address: int, words: np.ndarray) -> None:
            pass

    program, embedded = compiled
    with pytest.raises(CheckError, match=said):
        BoardBackend(CONFIG, Nonsense(None)).run(program, embedded)


def test_a_memory_that_is_too_small(link: BoardLink, compiled) -> None:
    program, embedded = compiled
    size = len(program.image)
    with pytest.raises(InputError, match=f"the image takes {size:,} bytes, and the board's memory has {size - 1:,}"):
        BoardBackend(CONFIG, link, size - 1).run(program, embedded)


def test_an_engine_that_is_none() -> None:
    """Flags that always say that there are results end as a line that loses bytes, not never."""

    class Babble:
        sent = b""

        def write(self, data: bytes) -> None:
            self.sent = data

        def read(self, size: int) -> bytes:
            address = int.from_bytes(self.sent[-4:], "big") << 2
            word = IDENTITY.to_bytes(4, "big") if address == BOARD_REGISTERS else bytes.fromhex("deadbeef")
            return (bytes(4) if address == BOARD_REGISTERS + 4 and size == 4 else word) * (size // 4)

        def flush(self) -> None:
            pass

        reset_input_buffer = flush

    link = BoardLink(Babble(), lambda: None)
    link._burst = lambda *_: None  # whose checksum it would have to know
    config = preset("up5k")
    weights = np.ones((2, config.groups * config.window), np.int8)
    parameters = Requantization(np.zeros(2, int), np.ones(2, int), np.zeros(2, int), wide=True)
    product = Product(np.ones((config.rows, weights.shape[1]), int), encode(weights, DENSE, groups=config.groups,
                      window=config.window, encoding=None), 1, parameters)  # fmt: skip
    with pytest.raises(CheckError, match="lost bytes in each of 4 tries"):
        EngineLink(config, link).run([product])

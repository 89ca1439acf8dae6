"""The simulated board behind a serial device, as other programs see it: pyserial, and LiteX's own server and client."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from litex.tools.litex_client import RemoteClient

from sim.board import SimulatedPort
from sim.terminal import SerialTerminal
from sta_hw.host.board import BoardLink, open_port
from sta_hw.run.board import BoardBackend
from sta_hw.spec.board import BOARD_REGISTERS, IDENTITY, MEMORY, REGISTERS
from sta_hw.spec.isa import Error
from sta_hw.spec.presets import preset
from sta_hw.spec.registers import capabilities, register

CONFIG = preset("ci")
pytestmark = pytest.mark.xdist_group("board")  # as test_board.py, whose model it is


@pytest.fixture(scope="module")
def device() -> Iterator[str]:
    port = SimulatedPort(CONFIG)
    port.pause(40_000)  # the memory starts
    with SerialTerminal(port) as name:
        yield name
    port.close()


@pytest.fixture
def client(device: str) -> Iterator[RemoteClient]:
    """A client of `litex_server`, which has the board's serial port."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        number = free.getsockname()[1]
    command = [sys.executable, "-m", "litex.tools.litex_server", "--uart", "--uart-port", device]
    with subprocess.Popen([*command, "--bind-port", str(number)], stdout=subprocess.DEVNULL) as server:
        client = RemoteClient("localhost", number)
        for _ in range(200):
            try:
                client.open()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        client.socket.settimeout(60)
        yield client
        client.close()
        server.kill()


def test_pyserial(device: str) -> None:
    link = BoardLink(open_port(device, 2_000_000))
    words = np.random.default_rng(1).integers(0, 1 << 32, 120, dtype=np.uint32)
    link.write(MEMORY + 256, words)
    np.testing.assert_array_equal(link.read(MEMORY + 256, len(words)), words)
    BoardBackend(CONFIG, link)  # identity and capabilities are right
    assert link.retries == 0


def test_litex_server(client: RemoteClient) -> None:
    """Reads and writes of every kind that LiteX's tools send; the accelerator is started with them."""
    assert client.read(BOARD_REGISTERS) == IDENTITY
    for name, value in capabilities(CONFIG).items():
        assert client.read(REGISTERS + register(name).offset) == value
    words = np.random.default_rng(2).integers(0, 1 << 32, 21).tolist()  # more than one of its bursts
    client.write(MEMORY + 64, words)
    assert client.read(MEMORY + 64, len(words)) == words
    assert client.read(MEMORY + 68, 3, burst="fixed") == [words[1]] * 3
    client.write(MEMORY, [0xFFFFFFFF] * 16)  # no program
    for name, setting in (("image_address", 0), ("image_size", 4096), ("program_address", 0), ("control", 1)):
        client.write(REGISTERS + register(name).offset, setting)
    while (status := client.read(REGISTERS + register("status").offset)) & 1:
        pass
    assert status >> 8 & 0xFF == Error.HEADER

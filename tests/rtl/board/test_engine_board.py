"""A board with the engine alone, in simulation: products over the serial line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from support import random_product

from boards import board
from sim.board import SimulatedPort
from sta_hw.errors import CheckError, InputError
from sta_hw.host.board import BoardLink
from sta_hw.host.engine_board import EngineLink
from sta_hw.host.products import Product
from sta_hw.rtl.board.engine_board import STREAMS, stream_words
from sta_hw.run.backends import backend
from sta_hw.run.rtl import reference_results
from sta_hw.run.selftest import self_test
from sta_hw.spec.board import BOARD_REGISTERS
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import DENSE, Pattern
from sta_hw.spec.presets import preset

TIMEOUT = 4096
CONFIG = preset("up5k")
pytestmark = pytest.mark.xdist_group("engine board")  # one worker builds the model that all share


@pytest.fixture(scope="module")
def port() -> Iterator[SimulatedPort]:
    port = SimulatedPort(CONFIG, top="engine", bridge_timeout=TIMEOUT)
    yield port
    port.close()


@pytest.fixture
def link(port: SimulatedPort) -> BoardLink:
    port.lose.clear()
    return BoardLink(port, lambda: port.pause(TIMEOUT + 1000))


def some_products(config: Config, seed: int) -> list[Product]:
    """The board's engine has one tap; 2:4 and dense."""
    found: list[Product] = []
    rng = np.random.default_rng(seed)
    while len(found) < 4:
        product = random_product(config, rng, (Pattern(2, 4), DENSE)[len(found) % 2], largest=6)
        if product.taps == 1:
            found.append(product)
    return found


def check(config: Config, engine: EngineLink, products: list[Product]) -> None:
    for product, got in zip(products, engine.run(products), strict=True):
        np.testing.assert_array_equal(got, reference_results(product, config))


def test_products_equal_to_the_reference(port: SimulatedPort, link: BoardLink) -> None:
    engine = EngineLink(CONFIG, link)
    for seed in (1, 2):
        check(CONFIG, engine, some_products(CONFIG, seed))
    assert link.retries == 0 and not port.lamps["failed"]


@pytest.mark.parametrize("byte", [20, 27, 35, 300, 801])
def test_a_lost_byte_is_made_good(port: SimulatedPort, link: BoardLink, byte: int) -> None:
    """In a command, an address, the data: the engine is reset and all is sent again."""
    engine = EngineLink(CONFIG, link)
    port.lose = {port.sent + byte}
    check(CONFIG, engine, some_products(CONFIG, byte))
    assert link.retries >= 1


def test_a_beat_offered_too_early_is_counted(port: SimulatedPort, link: BoardLink) -> None:
    words = stream_words(CONFIG)
    number = list(words).index("parameters")  # nothing takes parameters without a command
    for count in range(4):
        link.write(STREAMS + 256 * number, np.arange(words["parameters"], dtype=np.uint32))
        assert int(link.read(BOARD_REGISTERS + 12, 1)[0]) == count
    assert port.lamps["failed"]
    check(CONFIG, EngineLink(CONFIG, link), some_products(CONFIG, 9))
    assert not port.lamps["failed"]


def test_a_line_that_loses_everything(port: SimulatedPort, link: BoardLink) -> None:
    engine = EngineLink(CONFIG, link)
    port.lose = set(range(port.sent + 60, port.sent + 1_000_000))
    with pytest.raises(CheckError, match=r"does not arrive intact|lost bytes in each of 4 tries"):
        engine.run(some_products(CONFIG, 3))


def test_another_answer_is_no_board(port: SimulatedPort, link: BoardLink) -> None:
    link.read = lambda address, words: np.zeros(words, np.uint32)
    with pytest.raises(CheckError, match="no board with STA-HW"):
        EngineLink(CONFIG, link)


@pytest.mark.parametrize("name", ["icebreaker", "ulx3s-25f-engine"])
def test_the_self_test_of_boards_with_the_engine_alone(name: str) -> None:
    result = self_test(board(name), "sim")
    assert result["equal"] and result["products"] >= 2 and result["retries"] == 0


def test_programs_are_refused() -> None:
    with pytest.raises(InputError, match="icebreaker has the engine alone, which runs no programs"):
        backend("board", CONFIG, board("icebreaker"))

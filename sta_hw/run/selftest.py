"""A small network, or a few products, on a board over its serial line, against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..compiler.encoder import compile_encoder
from ..compiler.quantize import quantize
from ..errors import CheckError
from ..formats import encode, prune
from ..host.board import BoardLink
from ..host.engine_board import EngineLink
from ..host.products import Product, Requantization
from ..model.part import accelerator_part
from ..model.random import mixed_patterns, random_ids, random_model
from ..reference.program import run_counted
from ..spec.config import Config
from ..spec.patterns import DENSE, Pattern
from .board import BoardBackend, connect
from .outcome import compare
from .rtl import reference_results
from .trail import Trail

__all__ = ["check_board", "self_test"]

_TOKENS = 5


def self_test(board: Any, port_name: str, report: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Run one random encoder layer on a board (``sim``: a simulated one) and compare the whole image.

    A board with the engine alone runs random products instead, of up to four N:M and dense, and compares the results.

    Raises
    ------
    CheckError
        If the board does not answer, stops with an error, or a byte differs.
    InputError
        If the port cannot be opened.
    """
    report("compiling the RTL" if port_name == "sim" else "opening the port")
    link = connect(board, port_name)
    report("over the serial line")
    outcome = check_board(board, board.config, link)
    return {"board": board.name, "port": port_name, **outcome, "retries": link.retries, "equal": True}


def check_board(board: Any, config: Config, link: BoardLink) -> dict[str, int]:
    """`self_test` over a link that there is, to a board with another configuration than its own, too.

    Returns how many bytes were compared, and the cycles of the program or the number of products.

    Raises
    ------
    CheckError
        As `self_test`.
    """
    return (_test_encoder if board.top == "accelerator" else _test_engine)(config, link)


def _test_encoder(config: Config, link: BoardLink) -> dict[str, int]:
    heads = 2
    hidden = heads * max(8, config.groups)
    model = random_model(1, hidden=hidden, heads=heads, intermediate=2 * hidden)
    sparse = mixed_patterns([Pattern(2, 4), DENSE])
    program = compile_encoder(quantize(model, [random_ids(0, 12)], sparse), config, _TOKENS)
    embedded = accelerator_part(model).embed("ids", random_ids(1, _TOKENS))
    trail = Trail(program)
    image = program.with_input(embedded)
    expected = run_counted(image, program.program_address, config, observe=trail, length=program.length).image
    outcome = BoardBackend(config, link).run(program, embedded)
    compare(program, outcome.image, expected, trail)
    if not outcome.embedding.any():
        raise CheckError("the program's result is nothing but zeros")
    return {"bytes": len(expected), "cycles": outcome.run.cycles}


def _test_engine(config: Config, link: BoardLink) -> dict[str, int]:
    rng = np.random.default_rng(0)
    products = []
    for pattern in list(dict.fromkeys([*config.patterns[:4], DENSE])):
        weights = rng.integers(-128, 128, (6, 2 * config.groups * config.window)).astype(np.int8)
        activations = rng.integers(-128, 128, (config.rows, weights.shape[1]))
        parameters = Requantization(
            rng.integers(-500, 500, 6), rng.integers(0, 1 << 16, 6), rng.integers(0, 3, 6), wide=True
        )
        encoded = encode(prune(weights, pattern), pattern, groups=config.groups, window=config.window,
                         encoding=None if pattern.m == 1 else config.encodings[0])  # fmt: skip
        products.append(Product(activations, encoded, 1, parameters))
    found = EngineLink(config, link).run(products)
    for number, (product, got) in enumerate(zip(products, found, strict=True)):
        wrong = np.argwhere(got != reference_results(product, config))
        if len(wrong):
            raise CheckError(f"product {number}, row {wrong[0, 1]}, column {wrong[0, 0]} differs from the reference")
    return {"bytes": 2 * sum(got.size for got in found), "products": len(found)}

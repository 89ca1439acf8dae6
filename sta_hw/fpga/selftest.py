"""A small network on a board, over its serial line, against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compiler.encoder import compile_encoder
from ..compiler.quantize import quantize
from ..config import DENSE, Config, Pattern
from ..errors import CheckError
from ..model.random import mixed_patterns, random_ids, random_model
from ..reference.program import run_program
from ..runtime.backends import compare
from ..runtime.board import BoardBackend, connect

__all__ = ["self_test"]

_TOKENS = 5


def self_test(board: Any, port_name: str, report: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Run one random encoder layer on a board (``sim``: a simulated one) and compare the whole image.

    Raises
    ------
    CheckError
        If the board does not answer, stops with an error, or a byte differs.
    InputError
        If the board has no whole accelerator, or the port cannot be opened.
    """
    config: Config = board.config
    heads = 2
    hidden = heads * max(8, config.groups)
    model = random_model(1, hidden=hidden, heads=heads, intermediate=2 * hidden)
    sparse = mixed_patterns([Pattern(2, 4), DENSE])
    program = compile_encoder(quantize(model, [random_ids(0, 12)], sparse), config, _TOKENS)
    embedded = model.embed(random_ids(1, _TOKENS))
    expected = run_program(program.with_input(embedded), program.program_address, config)
    report("compiling the RTL" if port_name == "sim" else "opening the port")
    link = connect(board, port_name)
    report("over the serial line")
    outcome = BoardBackend(config, link).run(program, embedded)
    compare(program, outcome.image, expected)
    if not outcome.embedding.any():
        raise CheckError("the program's result is nothing but zeros")
    return {
        "board": board.name, "port": port_name, "bytes": len(expected), "cycles": outcome.run.cycles,
        "retries": link.retries, "equal": True,
    }  # fmt: skip

"""Commands of ``sta-hw`` for tests, each in a process forked from one that has imported what they need.

What a command does is the same as in a process of its own; to begin costs some 0.03 s in place of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import NoReturn

from sta_hw.cli.main import add_commands, main

__all__ = ["run_command"]

add_commands()
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        __name__, "amaranth.back.rtlil", "pydantic.type_adapter", "pydantic.types", "rich.progress", "tokenizers",
        "sta_hw.bench", "sta_hw.generate.generator", "sta_hw.model.onnx.importer", "sta_hw.sparsity.evaluation",
        "sta_hw.sparsity.jobs",
    ]
)  # fmt: skip


def run_command(
    words: Sequence[str], here: Path, environment: Mapping[str, str], limit: float
) -> CompletedProcess[str]:
    """Run a command in the folder `here`, with empty standard input.

    Raises
    ------
    TimeoutExpired
        If it takes more than `limit` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder) / "output", Path(folder) / "errors"
        process = _SERVER.Process(
            target=_command, args=(list(words), str(here), dict(environment), str(output), str(errors))
        )
        process.start()
        process.join(limit)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutExpired(list(words), limit)
        said = [file.read_text("utf-8", "replace") for file in (output, errors)]
    assert process.exitcode is not None
    return CompletedProcess(list(words), process.exitcode, *said)


def _command(words: list[str], here: str, environment: dict[str, str], output: str, errors: str) -> NoReturn:
    os.chdir(here)
    os.environ.clear()
    os.environ.update(environment)
    for name, descriptor in ((output, 1), (errors, 2)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, descriptor)
        os.close(file)
    sys.argv = ["sta-hw", *words]
    main()
    raise AssertionError("a command ends by itself")

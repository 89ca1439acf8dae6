"""pytest many times in copies of one process: what it and the libraries take to begin is paid once."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sta_hw.errors import ToolError

__all__ = ["ForkedPytest"]

_SERVER = """\
import json, os, signal, sys, time
import amaranth, amaranth.back.rtlil, amaranth.lib.data, amaranth.lib.enum, amaranth.lib.memory, amaranth.lib.stream
import amaranth.lib.wiring, amaranth.sim, hypothesis, numpy, pytest
for line in sys.stdin:
    arguments, environment, said, seconds = json.loads(line)
    child = os.fork()
    if not child:
        os.setsid()
        os.environ.update(environment)
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1), os.dup2(file, 2)
        status = 3
        try:
            status = int(pytest.main(arguments))
            sys.stdout.flush()
        finally:
            os._exit(status)
    end, status = time.monotonic() + seconds, None
    while status is None and time.monotonic() < end:
        found, raw = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(raw) if found else time.sleep(0.02)
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    print(json.dumps(status), flush=True)
"""
"""Only libraries are loaded before the fork: what is under test is loaded anew in each copy."""


class ForkedPytest:
    """A process that has pytest and the libraries loaded, and forks for each run.

    Parameters
    ----------
    folder : Path
        In which tests run.
    environment : mapping of str to str
        All of it.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER], cwd=folder, env=dict(environment), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(
        self, arguments: Sequence[str], more: Mapping[str, str], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run pytest once, with `more` in its environment; stdout has what it says.

        Raises
        ------
        TimeoutExpired
            After so many `seconds`; it and what it began are ended.
        ToolError
            If there is no process to fork.
        """
        with tempfile.NamedTemporaryFile(prefix="sta_hw_pytest_") as said:
            assert self._process.stdin is not None and self._process.stdout is not None
            try:
                self._process.stdin.write(json.dumps([list(arguments), dict(more), said.name, seconds]) + "\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                pass
            answer = self._process.stdout.readline()
            if not answer:
                raise ToolError(f"the process that runs the tests ended with status {self._process.wait()}.")
            text = Path(said.name).read_text(encoding="utf-8", errors="replace")
        status = json.loads(answer)
        if status is None:
            raise subprocess.TimeoutExpired(list(arguments), seconds, text)
        return subprocess.CompletedProcess(list(arguments), status, text, "")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

"""Where mutants are tried: a copy of the project, in which a module's tests run with one change after the other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sta_hw.errors import CheckError

from .forked import ForkedPytest
from .mutants import Mutant, mutated
from .targets import ROOT, tests_of

__all__ = ["Workplace"]

_BROKEN = re.compile(r"^E\s+(\w*(?:TypeError|SyntaxError|NameError|AttributeError|IndexError|ValueError|DriverConflict"
                     r"|ConfigError|InputError|ToolError|KeyError|ElaborationError|UnboundLocalError))\b")  # fmt: skip
_LEAST_PATIENCE, _PATIENCE = 60.0, 4.0
"""A mutant whose tests take so many times as long as the module's own, and at least so many seconds, counts as found:
it does not end."""


class Workplace:
    """A copy of the project in which one mutant after the other is tried.

    Parameters
    ----------
    folder : Path
        Where the copy is made.
    root : Path
        The project.
    """

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        self.folder, self.root = folder, root
        skipped = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*_cache")
        shutil.copytree(root, folder, ignore=skipped, dirs_exist_ok=True)
        self._environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        # CI: Hypothesis then draws the same cases each time, however slow the machine is.
        self._environment |= {"PYTHONDONTWRITEBYTECODE": "1", "CI": "true"}
        self._caches: dict[str, Path] = {}
        self._patience: dict[str, float] = {}
        self._forked: ForkedPytest | None = None

    def __enter__(self) -> Workplace:
        return self

    def __exit__(self, *_: object) -> None:
        if self._forked is not None:
            self._forked.close()
            self._forked = None

    @contextmanager
    def changed(self, module: str, source: str, text: str) -> Iterator[None]:
        """A module of the copy has another `text` for a while, and then `source` again."""
        path = self.folder / module
        path.write_text(text, encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(source, encoding="utf-8")

    def python(self, code: str, seconds: float) -> str:
        """What a program prints that imports the copy; nothing if it fails, or does not end in so many `seconds`."""
        try:
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=self.folder, env=self._environment, capture_output=True, text=True,
                timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout if done.returncode == 0 else ""

    def outcome(self, module: str, source: str, mutant: Mutant) -> tuple[str, str]:
        """What becomes of a mutant, ``lives``, ``found`` or ``broken``, and the last word of the tests.

        Raises
        ------
        CheckError
            If the tests fail without any mutant.
        """
        if module not in self._caches:
            self._prepare(module)
        with self.changed(module, source, mutated(source, mutant)):
            ended, word = self._tested(module)
        if ended == "broken" and not module.startswith("sta_hw/rtl/"):
            ended = "found"  # software that raises what it should not
        return ended, word

    def _pytest(self, module: str, most: float) -> subprocess.CompletedProcess[str]:
        if self._forked is None:
            self._forked = ForkedPytest(self.folder, self._environment)
        arguments = ["-x", "-q", "-p", "no:cacheprovider", *tests_of(module, self.root)]
        return self._forked.run(arguments, {"STA_HW_CACHE": str(self._caches[module])}, most)

    def _prepare(self, module: str) -> None:
        """Run the tests of a module as it is: how long they take, and the models that mutants may leave as they are."""
        self._caches[module] = self.folder / "build" / "caches" / module.replace("/", "-")
        begin = time.monotonic()
        done = self._pytest(module, 3600)
        if done.returncode:
            tests = " ".join(tests_of(module, self.root))
            raise CheckError(f"{tests} fail without a mutant: {done.stdout.strip()[-300:]}")
        self._patience[module] = max(_LEAST_PATIENCE, _PATIENCE * (time.monotonic() - begin))

    def _tested(self, module: str) -> tuple[str, str]:
        cache = self._caches[module]
        before = set(cache.glob("*")) if cache.exists() else set()
        try:
            done = self._pytest(module, self._patience[module])
        except subprocess.TimeoutExpired:
            return "found", f"no end within {self._patience[module]:.0f} seconds"
        finally:
            for path in set(cache.glob("*")) - before:  # a mutant's models are used once
                path.unlink()
        if done.returncode == 0:
            return "lives", ""
        said = [line for line in done.stdout.splitlines() if line.startswith("E  ")]
        word = said[0][1:].strip()[:160] if said else done.stdout.strip()[-160:]
        broken = any(_BROKEN.match(line) for line in said[:1]) or "error" in done.stdout.splitlines()[-1].split()[:2]
        raised = re.findall(r"^(\S+\.py):\d+: \w+$", done.stdout, re.M)  # where a test fails by an error of its own
        broken = broken and not (raised and raised[-1].startswith("tests/"))
        return ("broken" if broken else "found"), word

"""Processes that answer questions: Dask's, on this machine or wherever a scheduler has workers."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from ..errors import InputError, ToolError
from .answer import answer
from .question import Question, versions

__all__ = ["Failure", "Pool", "processors"]

SECONDS = 20
"""For a scheduler to be reached, and for its first worker to be there."""
_UNDER_WAY = 1000
"""Questions that a scheduler holds at a time."""
_SCHEMES = ("tcp", "tls", "ws", "wss", "ucx")


@dataclass(frozen=True)
class Failure:
    """Why a question has no answer: a sentence."""

    sentence: str


def processors() -> int:
    """How many of the machine's processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Threads and processes that are begun in it, and theirs, do not get Ctrl-C, which a terminal sends to all.

    This process ends the others. Python's resource tracker, which begins with the first process, would undo that.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Pool:
    """Workers, as a context: a cluster of processes of this machine, or the workers of a scheduler that there is.

    They are started, or sought, with the first questions.

    What a worker that dies was computing, another one computes; on this machine a new one takes its place. Processes of
    this machine talk over TLS with a key of their own, since whoever can talk to a worker can have it run anything.

    Parameters
    ----------
    workers : int
        Processes of this machine; not used with `scheduler`.
    scheduler : str or None
        Address of a scheduler, such as ``tcp://host:8786``.

    Raises
    ------
    InputError
        If the address is none.
    ModuleNotFoundError
        If Dask is not installed.
    """

    def __init__(self, workers: int, scheduler: str | None = None) -> None:
        if scheduler is not None:
            scheduler = _checked(scheduler)
        self.workers, self.scheduler = workers, scheduler
        import_module("distributed")
        self._client: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> Pool:
        return self

    def _start(self) -> None:
        import distributed

        # What Dask says of workers that come, go and die is said here where it matters.
        for name in ("distributed", "tornado", "asyncio", "bokeh"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            if self.scheduler is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sta_hw_", ignore_cleanup_errors=True))
                try:
                    with _deaf_to_ctrl_c():
                        cluster = distributed.LocalCluster(
                            n_workers=self.workers, threads_per_worker=1, processes=True,
                            dashboard_address="127.0.0.1:0", security=True, silence_logs=logging.CRITICAL + 1,
                            memory_limit=0, local_directory=folder,
                        )  # fmt: skip
                except (OSError, RuntimeError, TimeoutError) as error:
                    raise ToolError(f"Dask's processes cannot be started: {_line(error)}.") from error
                stack.callback(_closed, cluster)
                self._client = distributed.Client(cluster)
            else:
                self._client = _connected(self.scheduler)
            stack.callback(_closed, self._client)
            try:
                self._client.wait_for_workers(1, timeout=SECONDS)
            except TimeoutError as error:
                raise ToolError(
                    f"the scheduler {self.scheduler or ''} has no workers after {SECONDS} seconds; start some with "
                    "dask worker ADDRESS."
                ) from error
            self._stack = stack.pop_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def processes(self) -> list[int]:
        """Process numbers of the workers, on their machines, once there were questions."""
        return sorted(self._client.run(os.getpid).values())

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[Question, dict[str, Any] | Failure]]:
        """Each question with its answer, as they come; the first ones are begun first.

        Raises
        ------
        ToolError
            If processes cannot be started; if the scheduler cannot be reached, has no workers, or is gone.
        """
        import distributed

        if self._client is None:
            self._start()
        by_key = {q.key: q for q in questions}
        waiting = iter(enumerate(by_key.items()))
        done = distributed.as_completed()

        def more(count: int) -> None:
            for _, (number, (key, q)) in zip(range(count), waiting, strict=False):
                done.add(
                    self._client.submit(
                        answer, q.kind, dict(q.content), dict(q.places), versions(q.kind), key=key, priority=-number
                    )
                )

        more(_UNDER_WAY)
        for future in done:
            question = by_key[future.key]
            try:
                found = future.result()
            except distributed.CancelledError as error:
                raise ToolError(
                    f"the scheduler {self._client.scheduler.address} is gone; what was computed until then is kept."
                ) from error
            except Exception as error:  # the worker's own
                yield question, Failure(_told(error))
            else:
                yield question, found
            future.release()
            more(1)


def _checked(address: str) -> str:
    """An address with its scheme."""
    whole = address if "://" in address else f"tcp://{address}"
    parts = urlsplit(whole)
    with suppress(ValueError):
        if parts.scheme in _SCHEMES and parts.hostname and parts.port:
            return whole
    raise InputError(
        f"the scheduler's address {address!r} is not of the form SCHEME://HOST:PORT; write for example "
        "tcp://localhost:8786."
    )


def _connected(address: str) -> Any:
    """A client; in a thread, since what accepts a connection and then says nothing is waited for without end."""
    import distributed

    result: list[Any] = []

    def connect() -> None:
        try:
            result.append(distributed.Client(address, timeout=SECONDS))
        except Exception as error:  # whatever a stranger's socket says
            result.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(SECONDS + 2)
    found = result[0] if result else TimeoutError(f"it says nothing for {SECONDS} seconds")
    if isinstance(found, Exception):
        raise ToolError(
            f"the scheduler {address} cannot be reached: {_line(found)}; without an address, processes of this "
            "machine are used."
        ) from found
    return found


def _closed(what: Any) -> None:
    """Close a client or a cluster, whatever became of the other end."""
    with suppress(Exception):
        what.close(timeout=5)


def _line(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words.rstrip(".")[:300]


def _told(error: Exception) -> str:
    """What a worker raised, as a sentence."""
    if isinstance(error, InputError | ToolError):
        return " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        return f"a worker lacks the module {error.name or _line(error)}; install the same sta-hw where workers run."
    if type(error).__name__ == "KilledWorker":
        return "every worker that computed it died, four of them; is there enough memory?"
    return f"a worker failed: {type(error).__name__}: {_line(error)}."

"""Dask: what a worker that dies leaves, another one does; every failure is a sentence."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import distributed
import pytest

from sta_hw.errors import InputError, ToolError
from sta_hw.explore import pool as module
from sta_hw.explore.answer import answer
from sta_hw.explore.explore import confirm, explore
from sta_hw.explore.pool import Failure, Pool
from sta_hw.explore.question import Question, versions
from sta_hw.explore.store import Store
from sta_hw.explore.subjects import of_shape
from sta_hw.explore.sweep import Hardware, Memory, Point, sweep
from sta_hw.fpga.parts import PARTS
from sta_hw.spec.presets import PRESETS

PART = PARTS["lfe5u-85f"]
SHAPE = {"hidden": 64, "heads": 2, "layers": 1, "intermediate": 64}


def points(count: int) -> list[Point]:
    subject = of_shape(SHAPE, "dense,2:4", range(1, count // 2 + 1))
    found, _ = sweep([Hardware("small", PRESETS["small"])], [subject], PART, Memory())
    return found


def direct(asked: list[Point]) -> dict[str, Any]:
    """Computed here, one after the other."""
    return {p.question.key: answer("point", p.question.content, {}, versions("point")) for p in asked}


def test_a_worker_that_dies_loses_nothing(tmp_path: Path) -> None:
    asked = points(24)
    killed: list[int] = []

    with Pool(1) as pool, Store(tmp_path / "s.sqlite") as store:

        def progress(done: int, total: int) -> None:
            if done == 5 and not killed:
                killed.extend(pool.processes())
                os.kill(killed[0], signal.SIGKILL)

        explored = explore(asked, store, pool, 80.0, progress)
        assert killed and killed != pool.processes()
        assert (explored.kept, explored.computed, explored.failed) == (0, 24, [])
        assert store.kept(p.question for p in asked) == direct(asked)
        assert [(r.nm, r.tokens) for r in explored.rows] == [(p.nm, p.tokens) for p in asked]
        # What fails is told, and the others are kept.
        wrong = Question("accuracy", {"count": 1}, {"folder": "/nowhere", "inputs": None, "calibration": None})
        unknown = Question("point", {"configuration": {}})
        found = dict((q.key, a) for q, a in pool.answers([wrong, unknown, asked[0].question]))
        assert isinstance(found[wrong.key], Failure) and "/nowhere" in found[wrong.key].sentence
        assert "a worker failed: KeyError: 'part'" in found[unknown.key].sentence
        assert found[asked[0].question.key] == direct(asked[:1])[asked[0].question.key]


def test_a_scheduler_that_there_is(tmp_path: Path) -> None:
    """Its workers are used and left as they were; what is kept is not asked for again."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp"
    ) as cluster:
        asked = points(4)
        with Store(tmp_path / "s.sqlite") as store:
            with Pool(0, cluster.scheduler_address) as pool:
                assert explore(asked[:3], store, pool, 80.0).computed == 3
                assert pool.processes() == [os.getpid()]
            with Pool(0, cluster.scheduler_address.removeprefix("tcp://")) as pool:
                explored = explore(asked, store, pool, 80.0)
                assert (explored.kept, explored.computed) == (3, 1)
        assert len(cluster.workers) == 1


def test_nothing_is_started_for_what_is_kept(tmp_path: Path) -> None:
    """Nor for synthesis: here of a configuration whose cells are in the store."""
    asked = points(2)
    content = {"configuration": asked[0].config.as_dict(), "part": PART.name}
    with Store(tmp_path / "s.sqlite") as store, Pool(1, "tcp://localhost:1") as pool:
        for point in asked:
            store.keep(point.question, direct([point])[point.question.key])
        explored = explore(asked, store, pool, 80.0)
        assert explored.computed == 0 and all(row.front for row in explored.rows)
        logic = explored.rows[0].logic
        store.keep(Question("synthesis", content), {"logic": 2 * logic, "multipliers": 157, "memories": 9})
        (confirmed,), failed = confirm(explored.rows, 3, PART, store, pool)
        assert confirmed.difference == -0.5 and not confirmed.fits and not failed


def test_what_is_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("nowhere", "http://host:1", "tcp://host", "tcp://host:port", "tcp://:8786", "host:99999", ""):
        with pytest.raises(InputError, match="not of the form"):
            Pool(1, address)
    monkeypatch.setattr(module, "SECONDS", 2)
    question = points(2)[0].question
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with Pool(1, place) as pool, pytest.raises(ToolError, match="cannot be reached"):
            list(pool.answers([question]))
    with Pool(1, place) as pool, pytest.raises(ToolError, match="cannot be reached"):
        list(pool.answers([question]))
    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp"
        ) as cluster,
        Pool(1, cluster.scheduler_address) as pool,
        pytest.raises(ToolError, match="has no workers after 2 seconds"),
    ):
        list(pool.answers([question]))

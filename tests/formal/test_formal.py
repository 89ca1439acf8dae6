"""A sample of the proofs (`make formal` runs all), and that a proof which is none does not pass for one."""

from __future__ import annotations

import dataclasses
import gc
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from amaranth.hdl import Module
from proofs import PROOFS

from sim.formal import Bench, Edit, Proof, Property, Task, run_task, tasks_of
from sim.formal.bench import changed
from sta_hw.errors import CheckError

ROOT = Path(__file__).parent.parent.parent
QUICK = [task for p in PROOFS for task in tasks_of([p]) if p.quick in ("all", task.kind)]
MODULE = "sta_hw.rtl.primitives.queue"


@pytest.mark.parametrize("task", QUICK, ids=str)
def test_quick_ones(task: Task) -> None:
    run_task(task)


def test_names_differ_and_sentences_are_sentences() -> None:
    assert len({p.name for p in PROOFS}) == len(PROOFS)
    for proof in PROOFS:
        assert (ROOT / "sta_hw" / "rtl" / proof.block).exists()
        assert (proof.method == "bounded") == bool(proof.bound)
        for promise in proof.properties.values():
            assert promise.sentence.endswith(".") and promise.broken.old != promise.broken.new


def test_every_edit_is_of_the_source_as_it_is() -> None:
    for proof in PROOFS:
        for promise in proof.properties.values():
            path = ROOT / (promise.broken.module.replace(".", "/") + ".py")
            assert path.read_text().count(promise.broken.old) == 1, (proof.name, promise.broken)


def test_what_is_kept_is_what_there_is() -> None:
    kept = json.loads((ROOT / "scripts/results/formal.json").read_text())["proofs"]
    assert {r["name"]: sorted(r["properties"]) for r in kept} == {p.name: sorted(p.properties) for p in PROOFS}
    page = (ROOT / "docs/formal.md").read_text()
    for r in kept:
        assert f"| {r['name']} |" in page
        for name, p in r["properties"].items():
            assert f"| {name} |" in page and p["meaning"] in page


def counter(bench: Bench, most: int) -> None:
    """Counts to 5 and begins again."""
    count = bench.register(3, "count")
    bench.m.d.sync += count.eq(count + 1)
    with bench.m.If(count == 5):
        bench.m.d.sync += count.eq(0)
    bench.holds("bound", count <= most)
    bench.reaches("three", count == 3)


def made(most: int, **changes: object) -> Proof:
    edit = Edit(MODULE, "_BLOCK_DEPTH = 64", "_BLOCK_DEPTH = 65")
    proof = Proof("counter", "x", lambda b: counter(b, most), 2, {"bound": Property("It counts to 5.", edit)})
    return dataclasses.replace(proof, **changes)


def test_what_does_not_hold_is_not_proved() -> None:
    with pytest.raises(CheckError, match="bound fails in cycle 5 after reset"):
        run_task(Task(made(4, depth=8), "prove"))
    with pytest.raises(CheckError, match="no induction with 1 cycles: bound fails"):
        run_task(Task(made(6, depth=1), "prove"))
    run_task(Task(made(5), "prove"))
    assert run_task(Task(made(5), "reach")).reached == {"three": 3}


def test_modules_are_loaded_by_several_threads_at_a_time() -> None:
    """Also where each is stopped while it parses, as a collection of garbage with finalizers does."""

    def pause(*_: object) -> None:
        time.sleep(1e-4)

    often = gc.get_threshold()
    gc.callbacks.append(pause)
    gc.set_threshold(200)
    try:
        with ThreadPoolExecutor(2) as pool:
            loaded = list(pool.map(lambda _: changed(MODULE, None), range(6)))
    finally:
        gc.set_threshold(*often)
        gc.callbacks.remove(pause)
    assert len({module.__name__ for module in loaded}) == 6


def test_a_property_that_no_edit_breaks_is_none() -> None:
    with pytest.raises(CheckError, match="break bound: it holds for 20 cycles in the block that was broken"):
        run_task(Task(made(5), "break", "bound"))


def test_what_is_never_reached_is_said() -> None:
    def fill(bench: Bench) -> None:
        counter(bench, 5)
        bench.assume(bench.m is None)

    with pytest.raises(CheckError, match="never reached within 20 cycles: three"):
        run_task(Task(made(5, fill=fill), "reach"))


def test_an_edit_of_what_is_not_there_is_refused() -> None:
    bench = Bench([Edit(MODULE, "no such line", "")])
    with pytest.raises(CheckError, match="has 0 places with 'no such line'"):
        bench.load("primitives.queue")
    assert isinstance(bench.m, Module)


def test_a_bounded_proof_looks_at_what_it_reaches() -> None:
    """States behind its last cycle would say nothing of what was proved."""
    with pytest.raises(CheckError, match=r"reached behind the 3 cycles that are proved: three \(3\)"):
        run_task(Task(made(5, method="bounded", depth=3), "reach"))
    assert run_task(Task(made(5, method="bounded", depth=4), "reach")).reached == {"three": 3}

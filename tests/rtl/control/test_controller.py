"""The controller against what its description says, cycle by cycle, whatever core and host do."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from amaranth.sim import Simulator

from sta_hw.rtl.control.controller import Controller

INPUTS = ("start", "reset", "sound", "core_idle", "core_finished", "core_failed")
OUTPUTS = (
    "accepted", "busy", "running", "finished", "failed", "misplaced", "core_start", "core_stop", "core_reset",
)  # fmt: skip


class Described:
    """The controller as its docstring has it: what is under way, and how far."""

    def __init__(self) -> None:
        self.phase = "idle"  # then: stopping, resetting, clean, beginning, running
        self.job = False

    def outputs(self, given: dict[str, bool]) -> dict[str, bool]:
        begins, runs = self.phase == "beginning", self.phase == "running"
        ends = runs and not given["reset"]
        misplaced = begins and not given["sound"] and not given["reset"]
        return {
            "accepted": given["start"] and not given["reset"] and not self.job,
            "busy": self.phase != "idle",
            "running": runs,
            "finished": ends and given["core_finished"],
            "failed": ends and given["core_failed"] and not given["core_finished"],
            "misplaced": misplaced,
            "core_start": begins and given["sound"],
            "core_stop": self.phase in ("stopping", "resetting", "clean"),
            "core_reset": self.phase == "resetting",
        }

    def step(self, given: dict[str, bool]) -> None:
        outputs = self.outputs(given)
        ended = outputs["finished"] or outputs["failed"] or outputs["misplaced"]
        wanted = given["start"] or self.job
        if self.phase == "idle":
            phase = "stopping" if given["start"] or given["reset"] else "idle"
        elif self.phase == "stopping":
            phase = "resetting" if given["core_idle"] else "stopping"
        elif self.phase == "resetting":
            phase = "clean"
        elif self.phase == "clean":
            phase = "beginning" if wanted and not given["reset"] else "idle"
        elif given["reset"]:
            phase = "stopping"
        elif ended:
            phase = "idle"
        else:
            phase = "running"
        if given["reset"] or ended:
            self.job = False
        elif given["start"]:
            self.job = True
        self.phase = phase


@pytest.mark.parametrize("seed", range(3))
def test_as_described(seed: int) -> None:
    """Every output in every cycle, with inputs from rare to frequent; every phase meets a start and a reset."""
    rng = random.Random(seed)
    dut, described = Controller(), Described()
    met: Counter[tuple[str, str]] = Counter()

    async def bench(ctx) -> None:
        for _ in range(40):
            share = {name: rng.choice([0.02, 0.1, 0.5, 0.9]) for name in INPUTS}
            for _ in range(100):
                given = {name: rng.random() < share[name] for name in INPUTS}
                for name, value in given.items():
                    ctx.set(getattr(dut, name), value)
                found = {name: bool(ctx.get(getattr(dut, name))) for name in OUTPUTS}
                assert found == described.outputs(given), (described.phase, given)
                met.update((described.phase, name) for name, value in (given | found).items() if value)
                described.step(given)
                await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    phases = ("idle", "stopping", "resetting", "clean", "beginning", "running")
    assert all(met[phase, name] for phase in phases for name in ("start", "reset"))
    assert met["running", "finished"] and met["running", "failed"] and met["beginning", "misplaced"]


def test_every_port_is_a_bit() -> None:
    dut = Controller()
    assert all(len(getattr(dut, name)) == 1 for name in (*INPUTS, *OUTPUTS))


def test_no_job_is_under_way_behind_a_reset_in_the_cycle_of_its_end() -> None:
    """Of all cycles in which a reset may come, each: the core is idle afterwards, and one start runs one job."""
    for at in range(12):
        dut = Controller()
        started: list[int] = []

        async def bench(ctx, dut=dut, at=at, started=started) -> None:
            ctx.set(dut.core_idle, 1)
            ctx.set(dut.sound, 1)
            for cycle in range(24):
                ctx.set(dut.start, cycle == 0)
                ctx.set(dut.reset, cycle == at)
                ctx.set(dut.core_finished, cycle == 6)
                started += [cycle] if ctx.get(dut.core_start) else []
                assert cycle < 20 or not ctx.get(dut.busy)
                await ctx.tick()

        simulator = Simulator(dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()
        assert len(started) == (at > 3), at

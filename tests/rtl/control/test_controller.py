"""The controller, proved by induction: whatever is written and whatever the core does, in every state and cycle."""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Assert, Cat, Module, Signal
from amaranth.lib import wiring

from sta_hw.errors import ToolError
from sta_hw.rtl.control.controller import Controller
from sta_hw.rtl.emit import run_yosys

_SCRIPT = """\
read_rtlil proof.il
prep -flatten -top proof
async2sync
chformal -lower
sat -verify -tempinduct -prove-asserts -set-def-inputs -set rst 0 -seq 1 -maxsteps 12 proof
"""


class Proof(wiring.Component):
    """The controller with what must hold of it; all its inputs are free.

    Parameters
    ----------
    wrong : str or None
        Something that does not hold, instead: the proof must fail.
    """

    def __init__(self, wrong: str | None = None) -> None:
        self.wrong = wrong
        self.dut = Controller()
        self.inputs = {n: member for n, member in self.dut.signature.members.items() if member.flow is wiring.In}
        super().__init__(self.inputs)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        dut = m.submodules.dut = self.dut
        m.d.comb += [getattr(dut, name).eq(getattr(self, name)) for name in self.inputs]
        ends = Cat(dut.finished, dut.failed, dut.misplaced)
        job = Signal()  # accepted, and neither ended nor reset
        begun = Signal()  # the core may have begun something since it was reset
        was_reset, was_accepted, was_starting = Signal(), Signal(), Signal()
        m.d.sync += [
            job.eq((job | dut.accepted) & ~dut.reset & ~ends.any()),
            begun.eq((begun & ~dut.core_reset) | dut.core_start),
            was_reset.eq(dut.reset),
            was_accepted.eq(dut.accepted),
            was_starting.eq(dut.core_start & ~dut.reset),
        ]
        holds = {
            # A reset is never lost: no job is under way behind it, none ends with it, the core is stopped at once.
            "reset ends the job": ~was_reset | ~job,
            "reset stops the core": ~was_reset | dut.core_stop | ~dut.busy,
            "no end with a reset": ~dut.reset | ~ends.any(),
            # A core that began something is reset before it starts again.
            "clean start": ~dut.core_start | ~begun,
            "reset when quiet": ~dut.core_reset | dut.core_stop,
            # A job that is accepted is the only one, runs, and ends once.
            "one job": ~dut.accepted | ~job,
            "taken if free": ~dut.start | dut.reset | job | dut.accepted,
            "ends are of jobs": ~ends.any() | job,
            "one end": ~(ends[0] & ends[1]) & ~(ends[2] & (ends[0] | ends[1])),
            "starts are of jobs": ~dut.core_start | (job & dut.sound),
            "runs what was started": ~was_starting | dut.running,
            "running is of jobs": ~dut.running | job,
            "what the core says ends the job": ~dut.running | dut.reset
            | ((dut.core_finished | dut.core_failed) == (dut.finished | dut.failed)),
            "no core stops that runs": ~(dut.running & dut.core_stop),
            "busy with a job": ~job | dut.busy,
        }  # fmt: skip
        wrong = {
            "a reset waits": ~was_reset | dut.running,
            "a start is always taken": ~dut.start | dut.accepted,
            "busy is a job": ~dut.busy | job,
            None: None,
        }[self.wrong]
        m.d.comb += [Assert(condition) for condition in (holds.values() if wrong is None else [wrong])]
        return m


def prove(wrong: str | None, folder: Path) -> str:
    """What Yosys prints; ToolError if it finds a counterexample, or no proof."""
    (folder / "proof.il").write_text(rtlil.convert(Proof(wrong), name="proof", emit_src=False))
    return run_yosys(_SCRIPT, folder, log=folder / "log")


def test_no_reset_is_lost_and_each_job_ends_once(tmp_path: Path) -> None:
    prove(None, tmp_path)


@pytest.mark.parametrize("wrong", ["a reset waits", "a start is always taken", "busy is a job"])
def test_what_does_not_hold_is_not_proved(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="proof did fail"):
        prove(wrong, tmp_path)

"""The controller: what a start or a reset makes the core do, and when a job ends."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Controller"]


class Controller(wiring.Component):
    """Starts, stops and resets the core, one job after the other.

    A start or a reset first stops the core and waits for its bus, then resets it for a cycle. A reset acts in every
    state and in every cycle, also in the one in which a job ends: no job is under way after it. A start is taken unless
    one is under way; while a reset is, it is taken too, and follows.

    Members
    -------
    start, reset : In(1)
        Written in this cycle. Of both together only the reset counts.
    accepted : Out(1)
        The start is taken in this cycle.
    sound : In(1)
        The job's image is where one may be; looked at from the cycle after `accepted` on.
    busy : Out(1)
        A job or a reset is under way.
    running : Out(1)
        The core runs the job.
    finished, failed, misplaced : Out(1)
        The job ends in this cycle: complete; by an error of the core's; because its image is not sound, unbegun.
    core_start, core_reset : Out(1)
        One cycle each.
    core_stop : Out(1)
        Begin nothing more on the bus.
    core_idle : In(1)
        Stopped, and the bus is quiet.
    core_finished, core_failed : In(1)
        One cycle, when running.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1), "reset": In(1), "accepted": Out(1), "sound": In(1), "busy": Out(1), "running": Out(1),
                "finished": Out(1), "failed": Out(1), "misplaced": Out(1),
                "core_start": Out(1), "core_stop": Out(1), "core_reset": Out(1),
                "core_idle": In(1), "core_finished": In(1), "core_failed": In(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job = Signal()  # one is under way, from the cycle after `accepted` to its end
        m.d.comb += self.accepted.eq(self.start & ~self.reset & ~job)
        with m.If(self.reset | self.finished | self.failed | self.misplaced):
            m.d.sync += job.eq(0)
        with m.Elif(self.start):
            m.d.sync += job.eq(1)
        with m.FSM(name="controller") as fsm:
            with m.State("IDLE"), m.If(self.start | self.reset):
                m.next = "QUIET"
            with m.State("QUIET"):
                m.d.comb += self.core_stop.eq(1)
                with m.If(self.core_idle):
                    m.next = "RESET"
            with m.State("RESET"):
                m.d.comb += [self.core_reset.eq(1), self.core_stop.eq(1)]
                m.next = "CLEAN"
            with m.State("CLEAN"):  # the core is being reset
                m.d.comb += self.core_stop.eq(1)
                m.next = "IDLE"
                with m.If((self.start | job) & ~self.reset):
                    m.next = "START"
            with m.State("START"):
                m.d.comb += self.core_start.eq(self.sound)
                m.next = "RUN"
                with m.If(self.reset):
                    m.next = "QUIET"
                with m.Elif(~self.sound):
                    m.d.comb += self.misplaced.eq(1)
                    m.next = "IDLE"
            with m.State("RUN"):
                m.d.comb += self.running.eq(1)
                with m.If(self.reset):
                    m.next = "QUIET"
                with m.Elif(self.core_finished | self.core_failed):
                    m.d.comb += [self.finished.eq(self.core_finished), self.failed.eq(~self.core_finished)]
                    m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m

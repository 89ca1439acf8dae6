"""Registers, controller, instruction fetch and dispatch, counters."""

"""A board as its host sees it over the serial line: addresses of 32 bits, and how long an unfinished command waits."""

from __future__ import annotations

__all__ = ["BOARD_REGISTERS", "CONTROLLER_REGISTERS", "IDENTITY", "MEMORY", "REGISTERS", "SERIAL_TIMEOUT"]

MEMORY = 0x40000000
"""Byte address of the memory."""
REGISTERS = 0xF0000000
"""Of the accelerator's registers."""
BOARD_REGISTERS = 0xF0010000
"""Of the board's: identity, checksum (a write clears it), status (bit 0: the memory is ready)."""
CONTROLLER_REGISTERS = 0xF0020000
"""Of the memory controller's, where the host has to level the memory's reads."""
IDENTITY = 0x42415453
"""The characters STAB."""
SERIAL_TIMEOUT = 0.1
"""Seconds after which a board forgets an unfinished command, as LiteX's own bridge."""

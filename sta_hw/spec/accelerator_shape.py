"""What a whole accelerator asks of a configuration's shape, beyond what the matrix engine alone does."""

from __future__ import annotations

__all__ = ["accelerator_problems"]

_BUS_BYTES = (4, 8, 16, 32, 64)
_AXI_BYTES = 4096
"""A burst of AXI stays within a page of so many bytes."""


def accelerator_problems(*, rows: int, groups: int, window: int, lanes: int, drain_lanes: int, burst: int) -> list[str]:
    """One sentence for each reason why no whole accelerator has this shape: value, rule and the nearest that would do.

    Parameters
    ----------
    rows, groups, window, lanes, drain_lanes, burst : int
        Of a `Config`, each within its own range; the bus has `lanes` bytes.
    """
    problems = []
    for name, value in (("rows", rows), ("groups", groups), ("lanes", lanes), ("drain_lanes", drain_lanes)):
        if value & (value - 1):
            lower = 1 << (value.bit_length() - 1)
            problems.append(
                f"the accelerator needs {name} a power of two, and {name} = {value}; the nearest is {lower}."
            )
    if lanes not in _BUS_BYTES:
        problems.append(
            f"the accelerator's bus has lanes = {lanes} bytes; it is 4, 8, 16, 32 or 64 (and rows at least "
            f"as many), the nearest is {min(_BUS_BYTES, key=lambda b: abs(b - lanes))}."
        )
    if 2 * drain_lanes > lanes:
        problems.append(
            f"the accelerator needs 2 x drain_lanes at most lanes = {lanes}, and drain_lanes is "
            f"{drain_lanes}; the nearest is {max(1, lanes // 2)}."
        )
    keys = groups * window
    if rows > keys:
        problems.append(
            f"the accelerator needs rows at most groups x window = {keys} (a tile of keys "
            f"is one window), and rows is {rows}; the nearest is {keys}."
        )
    if keys < 8:
        problems.append(
            f"the accelerator reads positions in words of groups x window bits, whole bytes, and {groups} x "
            f"{window} is {keys}; the nearest is groups = {8 // window}."
        )
    if burst * lanes > _AXI_BYTES:
        problems.append(
            f"burst = {burst} beats of {lanes} bytes exceed AXI's {_AXI_BYTES:,} bytes; the nearest is "
            f"{_AXI_BYTES // lanes}."
        )
    return problems

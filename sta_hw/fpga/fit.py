"""What a configuration takes of an ECP5, from its parameters alone: in no time, without a tool."""

from __future__ import annotations

from ..config import Config
from ..errors import InputError
from .parts import Part, vector_multipliers

__all__ = ["BOARD_LOGIC", "BOARD_MEMORIES", "block_memories", "estimate", "logic_counts", "refusal", "require_fit"]

BOARD_LOGIC, BOARD_MEMORIES = 2400, 4
"""LUT4 equivalents and block RAMs of the memory controller and the serial bridge."""

_LOGIC = {
    "multiply-accumulates": 24.1, "pairs": 76.0, "soft": 230.8, "drain lanes": 693.2, "rows": 56.0, "engine": 1150.2,
    "bus bytes": 506.7, "vector lanes": 253.4, "attention rows": 127.2, "accelerator": 9708.2,
    "accelerator groups": 167.7,
}  # fmt: skip
"""LUT4 equivalents of each."""
_WIDTHS = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
"""Shapes of a DP16KD."""


def block_memories(top: str, config: Config) -> list[tuple[int, int]]:
    """Width in bits and depth of every memory that is block RAM on ECP5; the small ones are LUT RAM."""
    c = config
    found = [(8 * c.rows, 2 * c.window)] * c.groups if c.window_memory == "block" else []
    found += [(32 * c.rows, c.columns)] * 2 + [(19 * c.drain_lanes, 64)]
    if top == "engine":
        return found
    bus = 8 * c.bus_bytes
    deep = max(512, 2 * c.burst)
    return [
        *found,
        (8 * c.groups, c.weight_words),
        (c.groups * c.window, c.position_words),
        (128, c.parameter_words),
        *[(bus, deep)] * 8,
        (bus, c.norm_columns * (2 * c.rows // c.lanes)),
        *[(16, 256)] * c.drain_lanes,
        *[(16, 1024)] * 2,
        (17 * c.lanes, 2 * c.groups * c.window * (c.rows // c.lanes)),
    ]


def memory_cells(width: int, depth: int) -> int:
    """DP16KD cells of one memory, in the shape that takes the fewest."""
    return min(-(-width // w) * -(-depth // d) for w, d in _WIDTHS)


def estimate(top: str, config: Config) -> dict[str, int]:
    """Logic in LUT4 (as `synthesis.cell_counts` has it), multipliers and block RAMs of ``engine`` or ``accelerator``.

    The logic is a sum over what there is of each kind, fitted to synthesized configurations; ``scripts/bench_fit.py``
    synthesizes them again, tells how far the estimate is from them, and fits anew.

    Raises
    ------
    InputError
        If there is no estimate for the top level.
    """
    if top not in ("engine", "accelerator"):
        raise InputError(f"there is no estimate for {top!r}; it is engine or accelerator. sta-hw synth counts it.")
    logic = sum(_LOGIC[name] * count for name, count in logic_counts(top, config).items())
    return {
        "logic": round(logic),
        "multipliers": config.hard_multipliers + (vector_multipliers(top, config) if _has_hard(config) else 0),
        "memories": sum(memory_cells(*shape) for shape in block_memories(top, config)),
    }


def _has_hard(config: Config) -> bool:
    return config.vector_multiplier != "lut"


def logic_counts(top: str, config: Config) -> dict[str, int]:
    """What the logic of a configuration is a sum over."""
    c = config
    paired = c.multiplier in ("pair", "dsp-pair")
    hard = c.hard_multipliers
    whole = int(top == "accelerator")
    return {
        "multiply-accumulates": c.macs, "pairs": hard if paired else 0, "soft": c.macs - hard * (2 if paired else 1),
        "drain lanes": c.drain_lanes, "rows": c.rows, "engine": 1, "bus bytes": whole * c.bus_bytes,
        "vector lanes": whole * c.drain_lanes, "attention rows": whole * c.rows, "accelerator": whole,
        "accelerator groups": whole * c.groups,
    }  # fmt: skip


def refusal(top: str, config: Config, chosen: Part, *, board: bool = False) -> list[str]:
    """A sentence for each thing that runs out; empty when `config` fits, as far as an estimate can tell.

    With `board`, memory controller and serial bridge are counted too.
    """
    if chosen.family != "ecp5":
        return []
    found = estimate(top, config)
    if board:
        found["logic"] += BOARD_LOGIC
        found["memories"] += BOARD_MEMORIES
    return _shortages(found, chosen, "about ")


def require_fit(cells: dict[str, int], chosen: Part) -> None:
    """Refuse a synthesized design that place and route could never fit.

    Raises
    ------
    InputError
        With what runs out.
    """
    kinds = {"logic": ("lut4_equivalents", "SB_LUT4"), "multipliers": ("MULT18X18D", "SB_MAC16"),
             "memories": ("DP16KD", "SB_RAM40_4K")}  # fmt: skip
    problems = _shortages({k: max(cells.get(n, 0) for n in names) for k, names in kinds.items()}, chosen, "")
    if problems:
        raise InputError("\n".join(problems))


def _shortages(found: dict[str, int], chosen: Part, about: str) -> list[str]:
    words = {"logic": "logic cells", "multipliers": "multipliers", "memories": "block RAMs"}
    there = {"logic": chosen.logic, "multipliers": chosen.multipliers, "memories": chosen.memories}
    return [
        f"{about}{found[kind]:,} {words[kind]} do not fit {chosen.name}, which has {there[kind]:,}."
        for kind in words
        if found[kind] > there[kind]
    ]

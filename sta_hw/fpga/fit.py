"""What a configuration takes of an ECP5 or iCE40, from its parameters alone: in no time, without a tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from ..spec.config import Config
from .parts import Part, choose_multiplier, narrow_multipliers, vector_multipliers

__all__ = [
    "ESTIMATE_ERROR", "KINDS", "LOGIC", "Cells", "block_memories", "estimate", "features_logic", "logic_counts",
    "refusal", "require_fit", "require_room", "shortages", "survey",
]  # fmt: skip

KINDS = ("board", "accelerator", "engine")
"""What there is an estimate of; ``board`` is what the boards of a family have, their memory controller and serial line
included: the whole accelerator on ECP5, the engine on iCE40."""
ESTIMATE_ERROR = 0.04
"""How far the estimate of the logic may be from synthesis, as a share of it; ``scripts/bench_fit.py`` looks."""
_ERRORS = (1 + ESTIMATE_ERROR, 1 - ESTIMATE_ERROR)

Cells = dict[str, int]
"""By ``logic``, ``multipliers`` and ``memories``."""

_BOARD = {"accelerator": 2380, "engine": 130}
"""Logic cells that an ECP5 board adds: memory controller and serial line, or the latter alone."""
LOGIC: dict[str, dict[str, float]] = {
    "ecp5": {
        "multiply-accumulates": 43.7, "pairs": 90.9, "soft": 209.0, "drain lanes": 280.6,
        "soft vector multipliers": 561.6, "engine": 2375.9, "bus bytes": 1197.9, "accelerator": 9771.9,
    },
    "ice40": {
        "multiply-accumulates": 102.2, "soft": 135.6, "drain lanes": 1473.1, "rows": 83.4, "second encoding": 228.4,
        "engine": 2146.4,
    },
}  # fmt: skip
"""TRELLIS_COMB or ICESTORM_LC of each, as nextpnr packs them."""
_FEATURES = {
    "causal": 97, "rms": 83, "position": 85, "gate": 121, "rotary": 484, "best": 636, "digits": 154,
}  # fmt: skip
"""TRELLIS_COMB of each feature of decoders: seven tenths of what it takes alone in preset `ci`, since they share."""
_GROUP_OF_BLOCKS = 71
"""Of each group, to expand weights of 4 bits."""
_GROUP_OF_WIDE_BLOCKS = 16
"""As much more where there are groups enough for wide ones."""
_KEPT_WINDOWS = 1765
"""Of windows that are kept and loads that are asked for ahead, as the presets of decoders have them."""
_SHAPES = {
    "ecp5": ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
    "ice40": ((16, 256), (8, 512), (4, 1024), (2, 2048)),
}
"""Widths in bits and depths of a DP16KD and an SB_RAM40_4K."""


Memory = tuple[tuple[range, ...], int]
"""The bits of a word that are used, and the words."""


def block_memories(top: str, config: Config, family: str = "ecp5") -> list[Memory]:
    """Every memory of the engine or accelerator that is block RAM; on ECP5 the small ones are LUT RAM."""
    c = config
    lane = 19 if family == "ice40" else 27  # ECP5 enables writes of nine bits
    found = [(8 * c.rows, 2 * c.window)] * c.groups if c.window_memory == "block" or family == "ice40" else []
    found += [(32 * c.rows, c.columns)] * 2 + [(lane * c.drain_lanes, c.window * c.rows // c.drain_lanes)]
    if family == "ice40":
        found += [(16 * c.drain_lanes + 1, 16)]
    parameters: list[Memory] = []
    if top == "accelerator":
        bus = 8 * c.bus_bytes
        deep = max(512, 2 * c.burst)
        found += [
            (8 * c.groups, c.weight_words),
            (c.groups * c.window, c.position_words),
            *[(bus, deep)] * 9,
            (bus, c.norm_columns * (2 * c.rows // c.lanes)),
            *([(bus, c.window_words)] if c.window_words else []),
            *[(16, 256)] * c.drain_lanes,
            *[(16, 1024)] * 2,
            (64, 512),  # the program's lines that a loop may go back to
            (16, 64),
            *([(34, 8 * c.rows)] if "best" in c.features else []),
            (17 * c.lanes, 2 * c.groups * c.window * (c.rows // c.lanes)),
        ]
        parameters = [((range(51), range(64, 80)), c.parameter_words)]
    return parameters + [((range(width),), depth) for width, depth in found]


def memory_cells(memory: Memory, family: str = "ecp5") -> int:
    """Block RAMs of one memory, in the shape that takes the fewest; a slice of the word with no used bit takes none."""
    bits, depth = memory
    return min(len({b // w for part in bits for b in part}) * -(-depth // d) for w, d in _SHAPES[family])


def _top(kind: str, family: str) -> str:
    """The top level that one of `KINDS` is."""
    return kind if kind != "board" else "accelerator" if family == "ecp5" else "engine"


def estimate(kind: str, config: Config, family: str = "ecp5") -> Cells:
    """Logic cells as nextpnr packs them, multipliers and block RAMs of one of `KINDS`.

    The logic is a sum over what there is of each kind, fitted to synthesized configurations; ``scripts/bench_fit.py``
    synthesizes them again, tells how far the estimate is from them, and fits anew.

    Raises
    ------
    InputError
        If there is no estimate of it.
    """
    if kind not in KINDS:
        raise InputError(f"there is no estimate for {kind!r}; it is {', '.join(KINDS)}. sta-hw synth counts it.")
    if family not in LOGIC or (family == "ice40" and kind != "board"):
        raise InputError(
            f"there is no estimate of the {kind} on {family}, only of board on ecp5 and ice40, engine and accelerator "
            "on ecp5. sta-hw synth --no-route counts."
        )
    top = _top(kind, family)
    counts = logic_counts(top, config)
    logic = features_logic(top, config) + sum(value * counts[name] for name, value in LOGIC[family].items())
    memories = sum(memory_cells(memory, family) for memory in block_memories(top, config, family))
    hard = config.hard_multipliers
    if family == "ecp5":
        hard += vector_multipliers(top, config) if config.vector_multiplier != "lut" else 0
        if kind == "board":
            logic += _BOARD[top]
    return {"logic": round(logic), "multipliers": hard, "memories": memories}


def logic_counts(top: str, config: Config) -> dict[str, int]:
    """What the logic of the engine or accelerator of a configuration is a sum over."""
    c = config
    paired = c.multiplier in ("pair", "dsp-pair", "mac16")
    hard = c.hard_multipliers
    whole = int(top == "accelerator")
    return {
        "multiply-accumulates": c.macs, "pairs": hard if paired else 0, "soft": c.macs - hard * (2 if paired else 1),
        "soft vector multipliers": vector_multipliers(top, c) * int(c.vector_multiplier == "lut"),
        "drain lanes": c.drain_lanes, "rows": c.rows, "second encoding": len(c.encodings) - 1, "engine": 1,
        "bus bytes": whole * c.bus_bytes, "accelerator": whole,
    }  # fmt: skip


def features_logic(top: str, config: Config) -> int:
    """Logic cells of ECP5 that what decoders need beyond encoders takes of an accelerator."""
    if top != "accelerator":
        return 0
    a_group = _GROUP_OF_BLOCKS * ("blocks4" in config.features)
    a_group += _GROUP_OF_WIDE_BLOCKS * ("wide_blocks" in config.abilities)
    blocks = a_group * config.groups
    return sum(_FEATURES.get(name, 0) for name in config.features) + blocks + _KEPT_WINDOWS * bool(config.window_words)


def survey(
    kind: str, chosen: Part, configurations: Mapping[str, Config], *, choose: bool = True
) -> list[dict[str, Any]]:
    """Configurations, by name, on a part, with the multipliers that suit it: does it fit, and what runs out first.

    Without `choose` their multipliers are their own.

    ``first`` is that, ``share`` how much of the part's it takes (None where the part has none); ``fits`` is yes, no, or
    maybe: the logic is as near to the part's as the estimate may err.

    Raises
    ------
    InputError
        If there is no estimate for the part.
    ConfigError
        If a whole accelerator cannot have such a shape.
    """
    rows: list[dict[str, Any]] = []
    top = _top(kind, chosen.family)
    there = {"logic": chosen.logic, "multipliers": chosen.multipliers, "memories": chosen.memories}
    for name, given in configurations.items():
        config = choose_multiplier(top, given, chosen) if choose else given
        if top == "accelerator":
            config.require_accelerator()
        row = {"preset": name, "macs": config.macs}
        found = estimate(kind, config, chosen.family)
        shares = {k: found[k] / there[k] if there[k] else float("inf") for k in there if there[k] or found[k]}
        # What runs out, at the estimate's best and worst.
        best, worst = ({k: s / e if k == "logic" else s for k, s in shares.items()} for e in _ERRORS)
        first = max(worst, key=lambda k: worst[k])
        fits = "yes" if worst[first] <= 1 else "no" if max(best.values()) > 1 else "maybe"
        rows.append(
            row
            | {
                "multiplier": config.multiplier,
                **found,
                "fits": fits,
                "first": first,
                "share": shares[first] if there[first] else None,
            }
        )
    return rows


def refusal(top: str, config: Config, chosen: Part) -> list[str]:
    """A sentence for each thing that a board with `top` runs out of; empty when `config` may fit.

    Logic must be more than the part's by more than the estimate's error.
    """
    if chosen.family == "ice40":
        found = estimate("board", config, "ice40")
    else:
        found = estimate(top, config)
        found["logic"] += _BOARD[top]
    return shortages(found, chosen)


def shortages(found: Cells, chosen: Part) -> list[str]:
    """A sentence for each thing that a part certainly has too little of for what was estimated; empty if it may fit."""
    certain = found | {"logic": round(found["logic"] / (1 + ESTIMATE_ERROR))}
    return _shortages(certain, chosen, "at least ")


_HOPELESS = 4
"""Times the part's cells beyond which not even synthesis, which would take hours, is begun."""
_ROUGH = 1.5
"""Times the part's cells beyond which place and route is not begun, where ECP5's estimate stands for the family's."""


def require_room(top: str, config: Config, chosen: Part, *, route: bool) -> None:
    """Refuse, by the estimate, what a part cannot hold: before synthesis, which may take hours.

    Without `route`, what is too large may still be counted, unless it is so by far. Nexus and Gowin, whose logic cells
    and block RAMs are of ECP5's kind and size, are judged by its estimate, and only where that leaves no doubt.

    Raises
    ------
    InputError
        With what runs out.
    """
    if not chosen.logic or top not in ("engine", "accelerator"):
        return
    if chosen.family == "ice40" and top == "accelerator":
        raise InputError(f"{chosen.name} has no room for an accelerator, only for an engine; see sta-hw fit.")
    own = chosen.family in LOGIC
    found = estimate("board" if chosen.family == "ice40" else top, config, chosen.family if own else "ecp5")
    if not own:
        found["multipliers"] = narrow_multipliers(top, config)
    allowed = _HOPELESS if not route else 1 + ESTIMATE_ERROR if own else _ROUGH
    problems = _shortages({k: round(v / allowed) for k, v in found.items()}, chosen, "at least ")
    if problems:
        cells = ", ".join(f"{v:,} {k}" for k, v in found.items())
        how = f"sta-hw fit --part {chosen.name} tells what fits" if own else "Take a smaller preset"
        hopeless = _shortages({k: v // _HOPELESS for k, v in found.items()}, chosen, "")
        advice = "" if not route or hopeless else "; --no-route counts its cells all the same"
        raise InputError(
            f"{top} of {config.rows} x {config.groups} does not fit {chosen.name}, which has {chosen.logic:,} logic "
            f"cells, {chosen.multipliers} multipliers and {chosen.memories} block RAMs: it takes about {cells}. "
            f"{how}{advice}."
        )


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

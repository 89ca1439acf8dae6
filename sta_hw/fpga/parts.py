"""FPGA parts, what they hold, and which multipliers suit them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..errors import InputError
from ..rtl.names import MODELS
from ..spec.config import Config

__all__ = [
    "LIBERTY", "PARTS", "Part", "choose_multiplier", "narrow_multipliers", "part", "require_cells",
    "vector_multipliers",
]  # fmt: skip

_FAMILIES = {
    "ecp5": "Lattice ECP5", "ice40": "Lattice iCE40 UltraPlus", "nexus": "Lattice Nexus", "gowin": "Gowin",
}  # fmt: skip
"""Families as those who own a vendor's cells are called (`rtl.names.MODELS`)."""

LIBERTY = "liberty:"
"""How ``--part`` names a library of standard cells instead of an FPGA: ``liberty:FILE``."""


@dataclass(frozen=True)
class Part:
    """One FPGA.

    Attributes
    ----------
    family : str
        ``ecp5``, ``ice40``, ``nexus``, ``gowin`` or ``xcup`` (UltraScale+: synthesis only).
    logic, multipliers, memories : int
        TRELLIS_COMB, OXIDE_COMB, LUT4 or logic cells; MULT18X18D, SB_MAC16, or multipliers of 9 x 9 bits, of which one
        of 18 x 18 takes two; DP16KD, OXIDE_EBR, BSRAM or SB_RAM40_4K. 0 where it is not known.
    options : tuple of str
        For nextpnr.
    pins : tuple of str
        Where clock and reset of a block come in, in families whose blocks nextpnr does not place without any pin.
    """

    name: str
    family: str
    logic: int = 0
    multipliers: int = 0
    memories: int = 0
    options: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()


PARTS = {
    p.name: p
    for p in (
        Part("lfe5u-12f", "ecp5", 24288, 28, 56, ("--12k", "--package", "CABGA381", "--speed", "6")),
        Part("lfe5u-25f", "ecp5", 24288, 28, 56, ("--25k", "--package", "CABGA381", "--speed", "6")),
        Part("lfe5u-45f", "ecp5", 43848, 72, 108, ("--45k", "--package", "CABGA381", "--speed", "6")),
        Part("lfe5u-85f", "ecp5", 83640, 156, 208, ("--85k", "--package", "CABGA756", "--speed", "6")),
        Part("lfe5um5g-85f", "ecp5", 83640, 156, 208, ("--um5g-85k", "--package", "CABGA554", "--speed", "8")),
        Part("ice40up5k", "ice40", 5280, 8, 30, ("--up5k", "--package", "sg48")),
        Part("ice40hx8k", "ice40", 7680, 0, 32, ("--hx8k", "--package", "ct256")),
        Part("lifcl-40", "nexus", 32256, 112, 84, ("--device", "LIFCL-40-9BG400C"), ("L13", "M5")),
        Part(
            "gw2ar-18",
            "gowin",
            20736,
            96,
            46,
            ("--device", "GW2AR-LV18QN88C8/I7", "--vopt", "family=GW2A-18C"),
            ("4", "88"),
        ),
        Part("ultrascale+", "xcup"),
    )
}
"""Parts by name. The 12F is the 25F's die."""


def part(name: str) -> Part:
    """The part called `name`.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name.lower() not in PARTS:
        raise InputError(f"part {name!r} is unknown; there are {', '.join(PARTS)}.")
    return PARTS[name.lower()]


def vector_multipliers(top: str, config: Config) -> int:
    """Multipliers outside the array: two per lane of the requantization, one in the result path, one that rotates where
    there is a rotary embedding; LayerNorm's."""
    if top == "engine":
        return 2 * config.drain_lanes
    lane = 4 if "rotary" in config.features else 3
    return lane * config.drain_lanes + 2 * config.lanes if top == "accelerator" else 0


def narrow_multipliers(top: str, config: Config) -> int:
    """Multipliers of 9 x 9 bits of Nexus or Gowin: one in the array for each it has, two in all others of 18 x 18."""
    return config.hard_multipliers + (2 * vector_multipliers(top, config) if config.vector_multiplier != "lut" else 0)


def require_cells(config: Config, chosen: Part) -> None:
    """Refuse multipliers that are cells of another family.

    Raises
    ------
    InputError
        If `config` has such.
    """
    kind = config.multiplier
    if kind in MODELS and MODELS[kind][0] != _FAMILIES.get(chosen.family):
        raise InputError(
            f"multiplier {kind} is a cell of {MODELS[kind][0]}, which {chosen.name} has none of; --multiplier auto "
            "chooses for the part."
        )


def choose_multiplier(top: str, config: Config, chosen: Part) -> Config:
    """`config` with the multipliers that suit a part: hard ones, two rows to one where they are short, adders else."""
    pairs = (config.rows + 1) // 2 * config.groups
    vector = vector_multipliers(top, config)
    if chosen.family == "xcup" or not chosen.multipliers:
        return dataclasses.replace(config, multiplier="auto" if chosen.family == "xcup" else "lut", array_multipliers=0)
    if chosen.family == "ice40":
        limit = chosen.multipliers if pairs > chosen.multipliers else 0
        return dataclasses.replace(config, multiplier="mac16", array_multipliers=limit)
    if chosen.family in ("nexus", "gowin"):
        left = chosen.multipliers - 2 * vector
        if left <= 0:
            return dataclasses.replace(config, multiplier="lut", array_multipliers=0)
        return dataclasses.replace(
            config, multiplier=chosen.family, array_multipliers=left if config.macs > left else 0
        )
    if config.macs + vector <= chosen.multipliers:
        return dataclasses.replace(config, multiplier="dsp", array_multipliers=0)
    left = chosen.multipliers - vector
    if left <= 0:
        return dataclasses.replace(config, multiplier="lut", array_multipliers=0)
    return dataclasses.replace(config, multiplier="dsp-pair", array_multipliers=left if pairs > left else 0)

"""Warnings of Verilator that emitted Verilog may give, each with its reason; and the same as a file for Verilator."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

__all__ = ["CELL_WAIVERS", "HIERARCHY_WAIVERS", "PRIMITIVES_WAIVERS", "WAIVERS", "waiver_file", "waivers_of"]

WAIVERS = {
    "CASEOVERLAP": "cases are tried in order, which is Amaranth's semantics of Switch",
    "WIDTHEXPAND": "Amaranth checked the widths; the emitter leaves extension implicit",
    "WIDTHTRUNC": "the same, for truncation on assignment",
    "UNOPTFLAT": "slices of one vector depend on one another in order (adder chains); Yosys `check` finds no loop",
    "PROCASSINIT": "registers carry their initial value for FPGAs beside their reset",
    "UNUSEDSIGNAL": "bits of flattened vectors that nothing reads",
}
"""Warnings of `verilator --lint-only -Wall` that emitted Verilog may give, each with its reason."""

HIERARCHY_WAIVERS = {
    "DECLFILENAME": "all modules are in one file, which stands alone, so that all but one have another name than it",
    "VARHIDDEN": "Yosys calls the arguments of its functions a and b, and so are signals of multipliers",
}
"""What one module a block gives besides."""

PRIMITIVES_WAIVERS = {
    "DECLFILENAME": "the file has the models of all cells",
    "UNUSEDPARAM": "settings that the generator leaves as they are; the model refuses those that would change it",
    "UNUSEDSIGNAL": "pins of the same kind, and the sign bits that a product of two operands of 18 bits does not need",
}
"""Warnings of the models of vendor cells, each with its reason."""


_CHAINS = {"PINMISSING": "the cell's outputs for chains of cells are not connected"}
CELL_WAIVERS = {"mac16": _CHAINS, "gowin": _CHAINS}
"""What Verilog that instantiates a vendor's cell gives besides, by the kind of multiplier."""


_HIDDEN = {"VARHIDDEN": "the module is called as an argument of a function in it, which Verilog allows"}


def waivers_of(*, hierarchy: bool, multiplier: str = "", hidden: bool = False) -> dict[str, str]:
    """The waivers of flat or of hierarchical Verilog: warning and reason.

    `multiplier` is the kind of its multipliers, where it has any that are vendor cells; `hidden`, whether an
    argument of a function in it has the module's name.
    """
    more = HIERARCHY_WAIVERS if hierarchy else _HIDDEN if hidden else {}
    return WAIVERS | more | CELL_WAIVERS.get(multiplier, {})


def waiver_file(waivers: Mapping[str, Mapping[str, str]]) -> str:
    """The text of a file for Verilator (``.vlt``) that waives warnings in some Verilog files, and in no others.

    Parameters
    ----------
    waivers : mapping of str to mapping of str to str
        File, without its folder; warning; reason.
    """
    lines = ["`verilator_config"]
    for file, reasons in waivers.items():
        for rule, reason in reasons.items():
            lines += ["", *textwrap.wrap(f"{rule}: {reason}.", 116, initial_indent="// ", subsequent_indent="// ")]
            # With and without a folder before it; an asterisk alone would match other files whose names end alike.
            lines += [f'lint_off -rule {rule} -file "{prefix}{file}"' for prefix in ("", "*/")]
    return "\n".join(lines) + "\n"

"""Names that a generated module may have."""

from __future__ import annotations

import re

from ..errors import InputError

__all__ = ["KEYWORDS", "MODELS", "PRIMITIVES", "check_name"]

_WORDS = """
accept_on alias always always_comb always_ff always_latch and assert assign assume automatic before begin bind bins
binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle checker class clocking cmos config const
constraint context continue cover covergroup coverpoint cross deassign default defparam design disable dist do edge
else end endcase endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface endmodule
endpackage endprimitive endprogram endproperty endspecify endsequence endtable endtask enum event eventually expect
export extends extern final first_match for force foreach forever fork forkjoin function generate genvar global highz0
highz1 if iff ifnone ignore_bins illegal_bins implements implies import incdir include initial inout input inside
instance int integer interconnect interface intersect join join_any join_none large let liblist library local
localparam logic longint macromodule matches medium modport module nand negedge nettype new nexttime nmos nor
noshowcancelled not notif0 notif1 null or output package packed parameter pmos posedge primitive priority program
property protected pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0 rtranif1
s_always s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal showcancelled signed small
soft solve specify specparam static string strong strong0 strong1 struct super supply0 supply1 sync_accept_on
sync_reject_on table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri tri0 tri1 triand
trior trireg type typedef union unique unique0 unsigned until until_with untyped use uwire var vectored virtual void
wait wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor
"""
KEYWORDS = frozenset(_WORDS.split())
"""Keywords of Verilog and SystemVerilog (IEEE 1800-2017, annex B), which no identifier may be."""

PRIMITIVES = {
    "MULT18X18D": ("Lattice ECP5",), "SB_MAC16": ("Lattice iCE40 UltraPlus",),
    "MULT9X9": ("Lattice Nexus", "Gowin"), "MULT18X18": ("Lattice Nexus", "Gowin"),
}  # fmt: skip
"""Vendor cells that emitted Verilog may instantiate, and the families that have cells so called."""
MODELS = {
    "dsp": ("Lattice ECP5", "primitives.v"), "dsp-pair": ("Lattice ECP5", "primitives.v"),
    "mac16": ("Lattice iCE40 UltraPlus", "primitives.v"), "nexus": ("Lattice Nexus", "primitives_nexus.v"),
    "gowin": ("Gowin", "primitives_gowin.v"),
}  # fmt: skip
"""Kinds of multipliers that are vendor cells: whose, and the file in ``sim/`` that has their models."""

_LONGEST = 64
_ENDINGS = ("_bench", "_example")


def _nearest(name: str) -> str:
    """A name like this one that a module may have."""
    near = re.sub("_+", "_", re.sub(r"\W", "_", name, flags=re.ASCII))
    if not near.strip("_"):
        near = "accelerator"
    near = (f"_{near}" if near[0].isdigit() else near)[:_LONGEST]
    if near in KEYWORDS or near in PRIMITIVES or near.endswith(_ENDINGS):
        near = f"{near[: _LONGEST - 2].rstrip('_')}_0"
    return near


def check_name(name: str) -> None:
    """Make sure that `name` can be the name of a module, of its files and of a FuseSoC core.

    Two underscores in a row are between a module's name and those of the modules inside (`emit_verilog` with
    `hierarchy`): without them in names, modules of two designs are never called alike.

    Raises
    ------
    InputError
        If it cannot; the message says why and names the nearest that can.
    """
    near = _nearest(name)
    if name == near:
        return
    if name in KEYWORDS:
        why = f"{name} is a keyword of Verilog"
    elif name in PRIMITIVES:
        why = f"{name} is a cell of {' and of '.join(PRIMITIVES[name])}"
    elif len(name) > _LONGEST:
        why = f"a name of {len(name)} characters is too long, {_LONGEST} are the most"
    elif name.endswith(_ENDINGS):
        why = f"{name!r} ends as the name of a module beside another does"
    else:
        why = (
            f"{name!r} is no name of a module, which has letters, digits and single underscores and begins with a "
            "letter or an underscore"
        )
    raise InputError(f"{why}; the nearest is {near}.")

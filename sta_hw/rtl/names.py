"""Names that a generated module may have."""

from __future__ import annotations

import re

from ..errors import InputError

__all__ = ["KEYWORDS", "MODELS", "PRIMITIVES", "RESERVED", "check_hides_nothing", "check_name"]

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

RESERVED = {
    "bool": "Icarus has", "wone": "Icarus has", "wreal": "Icarus has", "std": "Verilator has", "TOP": "Verilator has",
}  # fmt: skip
"""Words that are no keywords of the language, but that a tool takes for itself all the same, and which."""

_LONGEST = 64
_ENDINGS = ("_bench", "_example", "_axi")
_OWN = "sta_hw"
"""What files that are alike in every configuration begin with, and the C driver's files and macros."""


def _is_own(name: str) -> bool:
    return f"{name.strip('_').lower()}_".startswith(f"{_OWN}_")


def _nearest(name: str) -> str:
    """A name like this one that a module may have."""
    near = re.sub("_+", "_", re.sub(r"\W", "_", name, flags=re.ASCII))
    if not near.strip("_"):
        near = "accelerator"
    near = (f"_{near}" if near[0].isdigit() else near)[:_LONGEST]
    if _is_own(near):
        near = f"my_{near.lstrip('_')}"[:_LONGEST]
    if near in KEYWORDS or near in PRIMITIVES or near in RESERVED or near.endswith(_ENDINGS):
        near = _numbered(near)
    return near


def check_hides_nothing(name: str, verilog: str) -> bool:
    """Make sure that nothing in the module `name` has its name but arguments of functions; True if one of these has.

    Verilog allows it, and warnings of hidden arguments can be waived; but Verilator does not compile a top level that
    is called as one of its ports or signals.

    Raises
    ------
    InputError
        If a port or a signal is called so.
    """
    whole = re.search(rf"^module {name}\(.*?^endmodule", verilog, re.M | re.S)
    text = whole[0] if whole else verilog
    declared = re.compile(rf"^ *(?:input|output|reg|wire)\b[^;=]* {name} *[;=]", re.M)
    if declared.search(re.sub(r"^ *function .*?endfunction", "", text, flags=re.M | re.S)):
        raise InputError(
            f"{name} is what a signal in the module is called, and Verilator compiles none so; the nearest is "
            f"{_numbered(name)}."
        )
    return bool(declared.search(text))


def _numbered(name: str) -> str:
    return f"{name[: _LONGEST - 2].rstrip('_')}_0"


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
    elif name in RESERVED:
        why = f"{name} is a name that {RESERVED[name]} a meaning of its own for"
    elif name in PRIMITIVES:
        why = f"{name} is a cell of {' and of '.join(PRIMITIVES[name])}"
    elif len(name) > _LONGEST:
        why = f"a name of {len(name)} characters is too long, {_LONGEST} are the most"
    elif _is_own(name):
        why = (
            f"{name!r} begins with {_OWN}, as files do that are alike in every configuration, and the C driver's names"
        )
    elif name.endswith(_ENDINGS):
        why = f"{name!r} ends as the name of a module beside another does"
    else:
        why = (
            f"{name!r} is no name of a module, which has letters, digits and single underscores and begins with a "
            "letter or an underscore"
        )
    raise InputError(f"{why}; the nearest is {near}.")

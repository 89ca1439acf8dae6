"""The FuseSoC core file of a generated module: lint, simulation and synthesis in FuseSoC's flow API (CAPI2)."""

from __future__ import annotations

from dataclasses import dataclass

from .. import __version__

__all__ = ["CoreFiles", "core_file"]


@dataclass(frozen=True)
class CoreFiles:
    """Names of the files of a core; None where there is none.

    Attributes
    ----------
    verilog : str
        The module.
    waivers : str
        Verilator's warnings that are waived, and why.
    primitives : str or None
        Models of vendor cells, for simulation and lint alone: a synthesis tool has its own.
    bench : str or None
        The module ``NAME_bench``, which checks itself.
    wrapper : str or None
        The module ``NAME_axi`` around an accelerator.
    """

    verilog: str
    waivers: str
    primitives: str | None = None
    bench: str | None = None
    wrapper: str | None = None


def core_file(name: str, description: str, files: CoreFiles) -> str:
    """The text of ``NAME.core``.

    Its targets are ``default`` (the module for other cores and for synthesis), ``axi`` (the same in its wrapper),
    ``lint`` (Verilator, with every warning on), where there are no vendor cells ``synth`` (Yosys, to cells of ECP5),
    and where there is a bench ``sim`` (Verilator) and ``sim_icarus``; both end with an error unless all is right.
    """
    filesets = {"rtl": (files.verilog, "verilogSource"), "waivers": (files.waivers, "vlt")}
    if files.primitives:
        filesets["primitives"] = (files.primitives, "verilogSource")
    if files.bench:
        filesets["bench"] = (files.bench, "verilogSource")
    if files.wrapper:
        filesets["axi"] = (files.wrapper, "verilogSource")
    lines = [
        "CAPI=2:",
        "",
        f"name: sta-hw:generated:{name}:{__version__}",
        f"description: {description}",
        "",
        "filesets:",
    ]
    for fileset, (file, kind) in filesets.items():
        lines += [f"  {fileset}:", "    files:", f"      - {file}", f"    file_type: {kind}"]
    models = ["primitives"] if files.primitives else []
    lines += ["", "targets:"]
    # A synthesis tool has cells of its own: models of them come for whoever sets the flag, in a target that simulates.
    always = ["rtl", "waivers", *(['"models? (primitives)"'] if models else [])]
    lines += ["  default:", f"    filesets: [{', '.join(always)}]", f"    toplevel: {name}"]
    if files.wrapper:
        lines += ["  axi:", "    description: the module with AXI's own clock, reset and optional signals around it"]
        lines += [f"    filesets: [{', '.join([*always, 'axi'])}]", f"    toplevel: {name}_axi"]
    lines += [
        "  lint:",
        "    description: Verilator with every warning on; what is waived is in the .vlt file, each with its reason",
        "    flow: lint",
        "    flow_options:",
        "      tool: verilator",
        "      verilator_options: [-Wall]",
        f"    filesets: [{', '.join(['rtl', 'waivers', *models])}]",
        f"    toplevel: {name}",
    ]
    # edalize defers elaboration, and Yosys 0.70 then takes a module that instantiates vendor cells anew, as it was
    # read, at the end of its synthesis; so those have no such target.
    if not files.primitives:
        lines += [
            "  synth:",
            "    description: Yosys, to cells of Lattice's ECP5",
            "    flow: generic",
            "    flow_options: {tool: yosys, arch: ecp5, output_format: json}",
            "    filesets: [rtl]",
            f"    toplevel: {name}",
        ]
    if files.bench:
        for target, options in (
            ("sim", ["tool: verilator", "mode: binary", "verilator_options: [--timing, -CFLAGS, -std=c++20]"]),
            ("sim_icarus", ["tool: icarus"]),
        ):
            lines += [
                f"  {target}:",
                f"    description: a bench that checks itself, in {options[0].split()[1].capitalize()}",
                "    flow: sim",
                "    flow_options:",
                *(f"      {option}" for option in options),
                f"    filesets: [{', '.join(['rtl', 'waivers', *models, 'bench'])}]",
                f"    toplevel: {name}_bench",
            ]
    return "\n".join(lines) + "\n"

"""Move registers behind ECP5 block RAM into the block RAM.

Yosys leaves the DP16KD's output registers unused, and its data then come 5.7 ns after the clock at speed 6. Where
every bit that is read goes into a plain register and nowhere else, all with the same enable, those registers become
the RAM's own.
"""

from __future__ import annotations

from typing import Any

__all__ = ["absorb_output_registers"]

_OFF: tuple[list[str], ...] = (["0"], [])


def absorb_output_registers(netlist: dict[str, Any], top: str) -> int:
    """Change a netlist (as Yosys writes it in JSON) in place; returns the number of registers that went."""
    module = netlist["modules"][top]
    cells = module["cells"]
    sinks: dict[int, list[tuple[str, str]]] = {}
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"].get(port) != "output":
                for bit in bits:
                    sinks.setdefault(bit, []).append((name, port))
    leaving = {bit for port in module["ports"].values() for bit in port["bits"]}
    absorbed = 0
    for cell in [c for c in cells.values() if c["type"] == "DP16KD"]:
        for ports, clock in _read_ports(cell):
            registers = _registers(cells, sinks, leaving, cell, ports, clock)
            enables = {_enable(cells[name]) for name in registers.values()}
            if len(enables) != 1:
                continue
            enable = enables.pop()
            for port, name in registers.items():
                cell["connections"][port] = cells.pop(name)["connections"]["Q"]
            for side in {port[2] for port in ports}:
                cell["parameters"][f"REGMODE_{side}"] = "OUTREG"
                cell["connections"][f"OCE{side}"] = [enable]
            absorbed += len(registers)
    return absorbed


def _read_ports(cell: dict[str, Any]) -> list[tuple[list[str], str]]:
    """Data outputs that share a clock and an output register's mode, with the clock's port."""
    outputs = {side: [f"DO{side}{i}" for i in range(18)] for side in "AB"}
    if int(str(cell["parameters"]["DATA_WIDTH_B"]), 2) == 36:
        return [(outputs["A"] + outputs["B"], "CLKB")]  # one port of 36 bits
    return [(outputs["A"], "CLKA"), (outputs["B"], "CLKB")]


def _registers(
    cells: dict[str, Any], sinks: dict[int, list[tuple[str, str]]], leaving: set[int], cell: dict[str, Any],
    ports: list[str], clock: str,
) -> dict[str, str]:  # fmt: skip
    """The register behind each data output that is used; empty when one cannot go."""
    found: dict[str, str] = {}
    for port in ports:
        for bit in cell["connections"].get(port, []):
            after = sinks.get(bit, [])
            if not after and bit not in leaving:
                continue
            if len(after) != 1 or bit in leaving or not _plain(cells[after[0][0]], after[0][1]):
                return {}
            if cells[after[0][0]]["connections"]["CLK"] != cell["connections"][clock]:
                return {}
            found[port] = after[0][0]
    return found


def _plain(cell: dict[str, Any], port: str) -> bool:
    """True for a rising-edge register that starts at 0, without reset."""
    parameters, wires = cell["parameters"], cell["connections"]
    return (
        cell["type"] == "TRELLIS_FF"
        and port == "DI"
        and parameters.get("CLKMUX", "CLK") == "CLK"
        and parameters.get("REGSET", "RESET") == "RESET"
        and parameters.get("CEMUX", "CE").strip() in ("1", "CE")
        and wires.get("LSR", ["0"]) in _OFF
    )


def _enable(register: dict[str, Any]) -> int | str:
    """The wire of a register's enable; ``"1"`` without one."""
    return "1" if register["parameters"].get("CEMUX", "CE").strip() == "1" else register["connections"]["CE"][0]

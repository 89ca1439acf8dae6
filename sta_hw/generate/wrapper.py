"""The accelerator as integrators expect it: AXI's clock and reset, its optional signals, wide addresses and IDs."""

from __future__ import annotations

from ..spec.config import Config

__all__ = ["axi_wrapper"]

_MASTER = (
    # channel, name, width, who drives it
    ("aw", "id", "ID_WIDTH", "m"), ("aw", "addr", "ADDRESS_WIDTH", "m"), ("aw", "len", 8, "m"), ("aw", "size", 3, "m"),
    ("aw", "burst", 2, "m"), ("aw", "lock", 1, "m"), ("aw", "cache", 4, "m"), ("aw", "prot", 3, "m"),
    ("aw", "qos", 4, "m"), ("aw", "valid", 1, "m"), ("aw", "ready", 1, "s"),
    ("w", "data", "DATA", "m"), ("w", "strb", "STRB", "m"), ("w", "last", 1, "m"), ("w", "valid", 1, "m"),
    ("w", "ready", 1, "s"),
    ("b", "id", "ID_WIDTH", "s"), ("b", "resp", 2, "s"), ("b", "valid", 1, "s"), ("b", "ready", 1, "m"),
    ("ar", "id", "ID_WIDTH", "m"), ("ar", "addr", "ADDRESS_WIDTH", "m"), ("ar", "len", 8, "m"), ("ar", "size", 3, "m"),
    ("ar", "burst", 2, "m"), ("ar", "lock", 1, "m"), ("ar", "cache", 4, "m"), ("ar", "prot", 3, "m"),
    ("ar", "qos", 4, "m"), ("ar", "valid", 1, "m"), ("ar", "ready", 1, "s"),
    ("r", "id", "ID_WIDTH", "s"), ("r", "data", "DATA", "s"), ("r", "resp", 2, "s"), ("r", "last", 1, "s"),
    ("r", "valid", 1, "s"), ("r", "ready", 1, "m"),
)  # fmt: skip
_LITE = (
    ("aw", "addr", 12, "m"), ("aw", "prot", 3, "m"), ("aw", "valid", 1, "m"), ("aw", "ready", 1, "s"),
    ("w", "data", 32, "m"), ("w", "strb", 4, "m"), ("w", "valid", 1, "m"), ("w", "ready", 1, "s"),
    ("b", "resp", 2, "s"), ("b", "valid", 1, "s"), ("b", "ready", 1, "m"),
    ("ar", "addr", 12, "m"), ("ar", "prot", 3, "m"), ("ar", "valid", 1, "m"), ("ar", "ready", 1, "s"),
    ("r", "data", 32, "s"), ("r", "resp", 2, "s"), ("r", "valid", 1, "s"), ("r", "ready", 1, "m"),
)  # fmt: skip
_CONSTANT = {"lock": "1'b0", "cache": "CACHE", "prot": "PROT", "qos": "QOS"}
"""Signals that the accelerator itself does not have; LOCK is never set, since it makes no exclusive accesses."""


def axi_wrapper(name: str, config: Config) -> str:
    """The text of ``NAME_axi.v``, the module ``NAME_axi`` around `name`.

    Its parameters are ``ADDRESS_WIDTH`` (32 to 64), ``ADDRESS_HIGH`` (what stands above the 32 bits that the
    accelerator's own addresses have), ``ID_WIDTH`` and ``ID``, ``CACHE``, ``PROT`` and ``QOS``. The clock is ``aclk``,
    the reset ``aresetn``, low and synchronous. Attributes name the interfaces to tools that infer them.
    """
    widths = {"DATA": 8 * config.bus_bytes, "STRB": config.bus_bytes}
    ports = [
        '    (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 aclk CLK" *)\n'
        '    (* X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF m_axi:s_axi, ASSOCIATED_RESET aresetn" *)\n'
        "    input  wire aclk",
        '    (* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 aresetn RST" *)\n'
        '    (* X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)\n'
        "    input  wire aresetn",
    ]
    connections = ["        .clk(aclk)", "        .rst(~aresetn)"]
    assigns = []
    for prefix, signals, interface in (("m_axi", _MASTER, "aximm"), ("s_axi", _LITE, "aximm")):
        for channel, signal, width, driver in signals:
            port = f"{prefix}_{channel}{signal}"
            output = (driver == "m") == (prefix == "m_axi")
            bits = widths.get(width, width) if isinstance(width, str) else width
            high = f"{bits}-1" if isinstance(bits, str) else f"{bits - 1}"
            span = "" if bits == 1 and signal != "strb" else f"[{high}:0] "
            info = f"xilinx.com:interface:{interface}:1.0 {prefix} {channel.upper()}{signal.upper()}"
            direction = "output" if output else "input "
            ports.append(f'    (* X_INTERFACE_INFO = "{info}" *)\n    {direction} wire {span}{port}')
            if prefix == "m_axi" and signal in _CONSTANT:
                assigns.append(f"    assign {port} = {_CONSTANT[signal]};")
            elif prefix == "m_axi" and signal == "id":
                inner = f"{port}_inside"
                if output:  # One thread: whatever identifier it has, answers come in order.
                    assigns.append(f"    assign {port} = ID;")
                    connections.append(f"        .{port}()")
                else:
                    connections.append(f"        .{port}(1'b0)")
            elif prefix == "m_axi" and signal == "addr":
                inner = f"{channel}addr_inside"
                assigns.append(f"    wire [31:0] {inner};")
                assigns.append(f"    wire [63:0] {channel}addr_whole = {{ADDRESS_HIGH, {inner}}};")
                assigns.append(f"    assign {port} = {channel}addr_whole[ADDRESS_WIDTH-1:0];")
                connections.append(f"        .{port}({inner})")
            else:
                connections.append(f"        .{port}({port})")
    ports.append('    (* X_INTERFACE_INFO = "xilinx.com:signal:interrupt:1.0 irq INTERRUPT" *)\n    output wire irq')
    connections += ["        .irq(irq)", "        .activity()", "        .busy()", "        .failed()"]
    return (
        f"// {name} with AXI's own clock, reset and optional signals. Generated by STA-HW. Do not edit.\n"
        f"module {name}_axi #(\n"
        "    parameter integer ADDRESS_WIDTH = 32, // 32 to 64\n"
        "    parameter [31:0] ADDRESS_HIGH = 0,    // above the accelerator's 32 bits: which 4 GiB it reaches\n"
        "    parameter integer ID_WIDTH = 1,\n"
        "    parameter [ID_WIDTH-1:0] ID = 0,\n"
        "    parameter [3:0] CACHE = 4'b0011,      // modifiable, bufferable\n"
        "    parameter [2:0] PROT = 3'b000,        // unprivileged, secure, data\n"
        "    parameter [3:0] QOS = 4'b0000\n"
        ") (\n" + ",\n".join(ports) + "\n);\n" + "\n".join(assigns)
        + "\n    /* verilator lint_off PINCONNECTEMPTY */ // lamps, and the only thread's identifiers"
        + f"\n    {name} u_{name} (\n"
        + ",\n".join(connections) + "\n    );\nendmodule\n"
    )  # fmt: skip

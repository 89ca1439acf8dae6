"""AXI4 and AXI4-Lite ports, flat and named as AXI names them, so that buses connect by name."""

from __future__ import annotations

from amaranth.lib.wiring import In, Member, Out

__all__ = ["ADDRESS_BITS", "RESPONSE_OKAY", "SLAVE_ERROR", "lite_ports", "master_ports"]

ADDRESS_BITS = 32
RESPONSE_OKAY = 0
SLAVE_ERROR = 2
LITE_ADDRESS_BITS = 12


def master_ports(bus_bytes: int) -> dict[str, Member]:
    """Members of an AXI4 master (INCR bursts, one transaction ID) with the prefix ``m_axi_``."""
    bits = 8 * bus_bytes
    ports: dict[str, Member] = {}
    for channel in ("aw", "ar"):
        ports |= {
            f"{channel}id": Out(1),
            f"{channel}addr": Out(ADDRESS_BITS),
            f"{channel}len": Out(8),
            f"{channel}size": Out(3),
            f"{channel}burst": Out(2),
            f"{channel}valid": Out(1),
            f"{channel}ready": In(1),
        }
    ports |= {
        "wdata": Out(bits), "wstrb": Out(bus_bytes), "wlast": Out(1), "wvalid": Out(1), "wready": In(1),
        "bid": In(1), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
        "rid": In(1), "rdata": In(bits), "rresp": In(2), "rlast": In(1), "rvalid": In(1), "rready": Out(1),
    }  # fmt: skip
    return {f"m_axi_{name}": member for name, member in ports.items()}


def lite_ports() -> dict[str, Member]:
    """Members of an AXI4-Lite slave, 32 bits of data, with the prefix ``s_axi_``."""
    ports = {
        "awaddr": In(LITE_ADDRESS_BITS), "awprot": In(3), "awvalid": In(1), "awready": Out(1),
        "wdata": In(32), "wstrb": In(4), "wvalid": In(1), "wready": Out(1),
        "bresp": Out(2), "bvalid": Out(1), "bready": In(1),
        "araddr": In(LITE_ADDRESS_BITS), "arprot": In(3), "arvalid": In(1), "arready": Out(1),
        "rdata": Out(32), "rresp": Out(2), "rvalid": Out(1), "rready": In(1),
    }  # fmt: skip
    return {f"s_axi_{name}": member for name, member in ports.items()}

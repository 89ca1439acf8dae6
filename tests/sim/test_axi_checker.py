"""The AXI checkers fire: each rule is broken once, and exactly that is said; of traffic that is right nothing is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sim import verilator

CHECKER = Path(verilator.__file__).with_name("axi_checker.v")
BASE = 0x12_0000_1000
"""Of the window of addresses, which has 4 KiB; addresses have 40 bits, the bus 4 bytes, a burst up to 64."""
X = "x"
Cycle = dict[str, int | str]
READY: Cycle = dict.fromkeys(("awready", "wready", "bready", "arready", "rready"), 1)
"""What holds where a cycle does not say otherwise; all else is 0, but for `aresetn`."""
WIDTHS = {
    "aresetn": 1, "awid": 4, "awaddr": 40, "awlen": 8, "awsize": 3, "awburst": 2, "awlock": 1, "awcache": 4,
    "awprot": 3, "awqos": 4, "awvalid": 1, "awready": 1, "wdata": 32, "wstrb": 4, "wlast": 1, "wvalid": 1, "wready": 1,
    "bid": 4, "bresp": 2, "bvalid": 1, "bready": 1, "arid": 4, "araddr": 40, "arlen": 8, "arsize": 3, "arburst": 2,
    "arlock": 1, "arcache": 4, "arprot": 3, "arqos": 4, "arvalid": 1, "arready": 1, "rid": 4, "rdata": 32, "rresp": 2,
    "rlast": 1, "rvalid": 1, "rready": 1,
}  # fmt: skip
LITE = {n: w for n, w in WIDTHS.items() if n[2:] not in ("id", "len", "size", "burst", "lock", "cache", "qos")}
LITE = {n: 12 if n.endswith("addr") else w for n, w in LITE.items() if n not in ("wlast", "rlast", "bid", "rid")}
RESET: Cycle = {"aresetn": 0}
IDLE: Cycle = {}


def request(channel: str, offset: int = 0, beats: int = 1, **more: int | str) -> Cycle:
    fields: Cycle = {"valid": 1, "addr": BASE + offset, "len": beats - 1, "size": 2, "burst": 1, "id": 9}
    return {f"{channel}{name}": value for name, value in fields.items()} | more


def aw(offset: int = 0, beats: int = 1, **more: int | str) -> Cycle:
    return request("aw", offset, beats, **more)


def ar(offset: int = 0, beats: int = 1, **more: int | str) -> Cycle:
    return request("ar", offset, beats, **more)


def w(last: int = 1, **more: int | str) -> Cycle:
    return {"wvalid": 1, "wlast": last, "wstrb": 15, "wdata": 0x1234} | more


def b(**more: int | str) -> Cycle:
    return {"bvalid": 1, "bid": 9} | more


def r(last: int = 1, **more: int | str) -> Cycle:
    return {"rvalid": 1, "rlast": last, "rid": 9, "rdata": 0x5678} | more


GOOD: dict[str, list[Cycle]] = {
    "a read": [ar(0, 2), r(0), r()],
    "a write": [aw(0, 2), w(0), w(), b()],
    "data with and ahead of the address": [w(0), w(), w(1), aw(0, 2), aw(4) | b(), b()],
    "as many under way as may be": [ar(0, 16), ar(64, 1), *[r(0)] * 15, r(), r(), aw(0), aw(4), aw(8), w(), w(), w(),
                                    b(), b(), b()],
    "held back": [ar(arready=0), ar(arready=0), ar(), r(rready=0), r(), aw(0, 2, awready=0) | w(0, wready=0),
                  aw(0, 2) | w(0, wready=0), w(0), w(wready=0), w(), b(bready=0), b()],
    "errors": [ar() | aw() | w(), r(rresp=2) | b(bresp=3)],
    "the ends of boundary and window": [ar(0xFC0, 16), *[r(0)] * 15, r(), ar(0xFFC), r(), aw(0x3C), w(), b()],
    "a reset under way": [ar(0, 2), w(0), RESET, RESET, IDLE, ar(), r(), aw() | w(), b()],
    "X where nothing is offered": [{"awaddr": X, "rdata": X, "wlast": X, "bid": X}, ar() | {"awid": X}, r(rdata=X)],
}  # fmt: skip
RULES: dict[str, tuple[list[Cycle], str]] = {
    "AW not INCR": ([aw(awburst=0) | w(), b()], "a burst is not INCR"),
    "AR not INCR": ([ar(arburst=2), r()], "a burst is not INCR"),
    "AWSIZE": ([aw(awsize=1) | w(), b()], "a beat is not as wide as the bus"),
    "ARSIZE": ([ar(arsize=3), r()], "a beat is not as wide as the bus"),
    "AWADDR alignment": ([aw(2) | w(), b()], "an address is not aligned to the bus"),
    "ARADDR alignment": ([ar(1), r()], "an address is not aligned to the bus"),
    "AWLOCK": ([aw(awlock=1) | w(), b()], "an access is exclusive"),
    "ARLOCK": ([ar(arlock=1), r()], "an access is exclusive"),
    "AW boundary": ([aw(0x3C, 2), w(0), w(), b()], "a burst crosses its boundary"),
    "AR boundary": ([ar(0x20, 9), *[r(0)] * 8, r()], "a burst crosses its boundary"),
    "AW below": ([aw(-64) | w(), b()], "a burst is outside the window"),
    "AR below": ([ar(-4), r()], "a burst is outside the window"),
    "AW above": ([aw(0x1000) | w(), b()], "a burst is outside the window"),
    "AR above": ([ar(0x1000), r()], "a burst is outside the window"),
    "AR in another 4 GiB": ([ar(1 << 32), r()], "a burst is outside the window"),
    "AW other": ([aw(awready=0), aw(4) | w(), b()], "AW changed before it was taken"),
    "AWPROT": ([aw(awready=0), aw(awprot=1) | w(), b()], "AW changed before it was taken"),
    "AW withdrawn": ([aw(awready=0), IDLE], "AW changed before it was taken"),
    "AR other": ([ar(arready=0), ar(4), r()], "AR changed before it was taken"),
    "AR withdrawn": ([ar(arready=0), IDLE], "AR changed before it was taken"),
    "W other": ([aw() | w(wready=0), w(wdata=1), b()], "W changed before it was taken"),
    "WSTRB": ([aw() | w(wready=0), w(wstrb=1), b()], "W changed before it was taken"),
    "W withdrawn": ([w(wready=0), IDLE], "W changed before it was taken"),
    "B other": ([aw() | w(), b(bready=0), b(bresp=2)], "B changed before it was taken"),
    "B withdrawn": ([aw() | w(), b(bready=0), IDLE, b()], "B changed before it was taken"),
    "R other": ([ar(), r(rready=0), r(rdata=0)], "R changed before it was taken"),
    "R withdrawn": ([ar(), r(rready=0), IDLE, r()], "R changed before it was taken"),
    "R of nothing": ([r()], "R without a read under way"),
    "R early": ([ar(arready=0) | r(rready=0), ar() | r(rready=0), r()], "R without a read under way"),
    "R with its request": ([ar() | r(rready=0), r()], "R without a read under way"),
    "B of nothing": ([b()], "B ahead of its burst"),
    "B ahead of the data": ([aw(0, 2), w(0), w() | b(bready=0), b()], "B ahead of its burst"),
    "B ahead of the address": ([w(), b(bready=0), aw() | b(bready=0), b()], "B ahead of its burst"),
    "RLAST early": ([ar(0, 2), r(), r()], "RLAST at the wrong beat"),
    "RLAST late": ([ar(0, 2), r(0), r(0)], "RLAST at the wrong beat"),
    "WLAST early": ([aw(0, 2) | w(), b()], "WLAST at the wrong beat"),
    "WLAST late": ([aw() | w(0), w(), b()], "WLAST at the wrong beat"),
    "RID": ([ar(), r(rid=8)], "RID is not its request's"),
    "BID": ([aw() | w(), b(bid=8)], "BID is not its request's"),
    "RID in order": ([ar(), ar(arid=3), r(), r()], "RID is not its request's"),
    "BID in order": ([aw() | w(), aw(awid=3) | w(), b(), b()], "BID is not its request's"),
    "R EXOKAY": ([ar(), r(rresp=1)], "EXOKAY of an access that is not exclusive"),
    "B EXOKAY": ([aw() | w(), b(bresp=1)], "EXOKAY of an access that is not exclusive"),
    "a gap": ([aw(0, 2) | w(0), IDLE, w(), b()], "a gap in a burst of data"),
    "reads under way": ([ar(), ar(), ar(), r(), r()], "too many reads under way"),
    "writes under way": ([aw() | w(), aw(), aw(), aw(), w(), w(), b(), b(), b()], "too many writes under way"),
    "data under way": ([w(), w(), w(), w(), aw(), aw(), aw(), b(), b(), b()], "too many bursts of data without an"),
    "endless data": ([*[w(0)] * 256, w()], "a burst of data without its end"),
    "AR not known": ([ar(araddr=X, arready=0), RESET], "AR is not known"),
    "AW not known": ([aw(awprot=X) | w(), b()], "AW is not known"),
    "WSTRB not known": ([aw() | w(wstrb=X), b()], "WLAST or WSTRB is not known"),
    "B not known": ([aw() | w(), b(bresp=X)], "B is not known"),
    "RID not known": ([ar(), r(rresp=X)], "RID, RRESP or RLAST is not known"),
    "reset not known": ([{"aresetn": X}, IDLE], "ARESETN is not known"),
}  # fmt: skip
_OFFERED = {
    "aw": aw(awready=0), "w": w(wready=0), "b": b(bready=0), "ar": ar(arready=0), "r": r(rready=0)
}  # fmt: skip
for _channel in _OFFERED:
    _in = f"{_channel.upper()}VALID in or right behind the reset"
    RULES |= {
        f"{_channel}valid in reset": ([RESET, RESET | {f"{_channel}valid": 1}, RESET, IDLE], _in),
        f"{_channel}valid X in reset": ([RESET, RESET | {f"{_channel}valid": X}, RESET, IDLE], _in),
        f"{_channel}valid behind the reset": ([RESET, RESET, _OFFERED[_channel], RESET, RESET], _in),
        f"{_channel}valid X": ([{f"{_channel}valid": X}, IDLE], "a VALID is not known"),
        f"{_channel}ready X": ([{f"{_channel}ready": X}, IDLE], "a READY is not known"),
    }


def lite(cycle: Cycle) -> Cycle:
    """The cycle as AXI4-Lite has it."""
    return {n: v & 0xFFF if n.endswith("addr") and isinstance(v, int) else v for n, v in cycle.items() if n in LITE}


LITE_GOOD = ["errors", "X where nothing is offered"]
LITE_RULES = {
    name: (steps, text)
    for name, (steps, text) in RULES.items()
    if re.search("changed before|reset|R without|VALID is not|READY is not|AR is not|AW is not|B is not", name + text)
}
LITE_RULES |= {
    "B of nothing": ([b()], "B ahead of its write"),
    "B ahead of the data": ([aw(), w() | b(bready=0), b()], "B ahead of its write"),
    "B ahead of the address": ([w(), b(bready=0), aw() | b(bready=0), b()], "B ahead of its write"),
    "R EXOKAY": ([ar(), r(rresp=1)], "EXOKAY"), "B EXOKAY": ([aw() | w(), b(bresp=1)], "EXOKAY"),
    "WSTRB not known": ([aw() | w(wstrb=X), b()], "WSTRB is not known"),
    "RDATA not known": ([ar(), r(rdata=X)], "R is not known"),
    "reads under way": ([ar(), ar(), r()], "too many reads under way"),
    "writes under way": ([aw(), aw(), w(), b()], "too many writes under way"),
    "data under way": ([w(), w(), aw(), b()], "too many data under way"),
}  # fmt: skip


def bench(checker: str, widths: dict[str, int], parameters: str, cases: dict[str, list[Cycle]]) -> str:
    """Case after case, a cycle at a time, with a reset between."""
    lines = [f"reg [{width - 1}:0] {name};" for name, width in widths.items()]
    lines += ["reg aclk = 0; wire [31:0] violations, reads, writes;"]
    pins = ", ".join(f".{n}({n})" for n in (*widths, "aclk", "violations", "reads", "writes"))
    lines += [f"{checker} #({parameters}) dut({pins});"]
    lines += ["task tick; begin #1 aclk = 1; #1 aclk = 0; end endtask", "initial begin"]
    for name, steps in cases.items():
        lines.append(f'$display("CASE {name}");')
        for cycle in [RESET, RESET, IDLE, *steps, IDLE]:
            values = dict.fromkeys(widths, 0) | {"aresetn": 1} | {n: v for n, v in READY.items() if n in widths} | cycle
            assert values.keys() == widths.keys(), values.keys() ^ widths.keys()
            lines += [
                f"{n} = {widths[n]}'b{'x' * widths[n] if v == X else f'{int(v) & (1 << widths[n]) - 1:b}'};"
                for n, v in values.items()
            ]
            lines.append("tick;")
        lines.append('$display("COUNT %0d %0d %0d", violations, reads, writes);')
    return "\n".join(["module bench;", *lines, "end", "endmodule", ""])


def simulated(folder: Path, text: str) -> dict[str, tuple[list[str], list[int]]]:
    """What was said in each case, and the counters behind it."""
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus is not installed (Debian: iverilog)")
    (folder / "bench.v").write_text(text)
    for command in (["iverilog", "-g2005", "-o", "bench", "bench.v", str(CHECKER)], ["vvp", "-n", "bench"]):
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr + run.stdout
    found = {}
    for part in run.stdout.split("CASE ")[1:]:
        name, *said = part.splitlines()
        found[name] = (
            [re.sub(r".* at \d+: ", "", line) for line in said if "violation" in line],
            [int(v) for v in said[-1].split()[1:]],
        )
    return found


FULL = f"40, 4, 4, 64, 2, 3, 64'h{BASE:x}, 4096"  # widths of addresses, bytes, identifiers; boundary; under way; window


@pytest.mark.parametrize("port", ["axi", "lite"])
def test_each_rule_fires_alone(port: str, tmp_path: Path) -> None:
    rules = RULES if port == "axi" else {n: ([lite(c) for c in s], t) for n, (s, t) in LITE_RULES.items()}
    good = GOOD if port == "axi" else {n: [lite(c) for c in GOOD[n]] for n in LITE_GOOD}
    if port == "lite":
        good["a read"], good["X where nothing is offered"] = [lite(ar()), lite(r())], [{"awaddr": X, "rdata": X}]
    cases = good | {name: steps for name, (steps, _) in rules.items()}
    checker, widths, parameters = ("axi_checker", WIDTHS, FULL) if port == "axi" else ("axi_lite_checker", LITE, "12")
    found = simulated(tmp_path, bench(checker, widths, parameters, cases))
    assert list(found) == list(cases)
    total, wrong = 0, {}
    for name, (said, counters) in found.items():
        expected = rules[name][1] if name in rules else None
        total += len(said)
        if len(said) != (expected is not None) or (expected is not None and not said[0].startswith(expected)):
            wrong[name] = said
        assert counters[0] == total, f"{name}: resets lost violations"
    assert not wrong
    assert total == len(rules)
    # Each message that the checker has was heard.
    module = re.search(rf"module {checker} #.*?endmodule", CHECKER.read_text(), re.S)
    assert module
    messages = set(re.findall(r'violation\("([^"]+)"\)', module[0]))
    assert messages == {line for said, _ in found.values() for line in said}

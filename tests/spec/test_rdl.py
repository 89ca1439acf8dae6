"""The registers' SystemRDL: a compiler of others' reads it, and C header, docs page and IP-XACT say the same."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from peakrdl_ipxact.exporter import IPXACTExporter
from systemrdl import RDLCompiler
from systemrdl.node import AddrmapNode

from sta_hw.errors import InputError
from sta_hw.spec.c_header import configuration_header, registers_header
from sta_hw.spec.isa import Error
from sta_hw.spec.presets import BOARD_PRESETS, PRESETS
from sta_hw.spec.rdl import KEYWORDS, system_rdl
from sta_hw.spec.registers import REGISTERS, capabilities, there

DOCS = Path(__file__).parents[2] / "docs"


def compiled(text: str, folder: Path) -> AddrmapNode:
    (folder / "map.rdl").write_text(text)
    compiler = RDLCompiler()
    compiler.compile_file(str(folder / "map.rdl"))
    return compiler.elaborate().top


@pytest.mark.parametrize("name", sorted(PRESETS | BOARD_PRESETS))
def test_every_register_and_field(name: str, tmp_path: Path) -> None:
    config = (PRESETS | BOARD_PRESETS)[name]
    top = compiled(system_rdl(config, "my_accelerator"), tmp_path)
    assert top.inst_name == "my_accelerator"
    found = {r.inst_name: r for r in top.registers()}
    assert list(found) == [r.name for r in there(config)]
    values = capabilities(config)
    for r in there(config):
        register = found[r.name]
        assert register.absolute_address == r.offset and register.size == 4
        assert register.get_property("desc") == r.text
        fields = {f.inst_name: (f.low, f.width) for f in register.fields()}
        assert fields == ({f.name: (f.low, f.width) for f in r.fields} or {"value": (0, 32)})
        assert register.has_sw_readable == (r.access != "wo") and register.has_sw_writable == (r.access != "ro")
        if r.name in values:  # what says which hardware this is can be told before any is built
            assert sum(f.get_property("reset") << f.low for f in register.fields()) == values[r.name]
    pulses = {f.inst_name for f in found["control"].fields() if f.get_property("singlepulse")}
    assert pulses == {"start", "reset"}
    (error,) = (f for f in found["status"].fields() if f.inst_name == "error")
    errors = error.get_property("encode")
    assert {e.name: e.value for e in errors} == {e.name: int(e) for e in Error}


def test_what_says_which_hardware_this_is() -> None:
    """As docs/registers.md has the words, put together by hand."""
    config = dataclasses.replace(PRESETS["small"], encodings=("bitmap",))
    logs = (config.weight_words, config.position_words, config.parameter_words, config.columns)
    assert [1 << log for log in (13, 11, 11, 9)] == list(logs)
    assert capabilities(config) == {
        "id": int.from_bytes(b"STAH", "little"), "version": 3,
        "hash_low": int(config.program_hash[8:], 16), "hash_high": int(config.program_hash[:8], 16),
        "shape": 8 | 8 << 9 | 16 << 17 | 8 << 23, "memories": 13 | 11 << 5 | 11 << 10 | 9 << 15 | 1 << 21,
    }  # fmt: skip
    assert capabilities(PRESETS["small"])["memories"] >> 20 == 3


def test_header_docs_and_ipxact_say_the_same(tmp_path: Path) -> None:
    """Each is read by its own format: places of registers and fields, and who may access them."""
    everything = dataclasses.replace(PRESETS["ci"], features=("decoder",))
    top = compiled(system_rdl(everything, "my_accelerator"), tmp_path)
    described = {r.inst_name: r.absolute_address for r in top.registers()}
    bits = {(r.inst_name, f.inst_name): (f.low, f.width) for r in top.registers() for f in r.fields()}
    # The C header.
    header = registers_header()
    offsets = re.findall(r"^    STA_HW_REG_(\w+) += (0x[0-9A-F]+),? /\* (\w\w):", header, re.M)
    assert {name.lower(): int(offset, 16) for name, offset, _ in offsets} == described
    assert {name.lower(): access for name, _, access in offsets} == {r.name: r.access for r in REGISTERS}
    shifts = dict(re.findall(r"^#define STA_HW_(\w+)_SHIFT (\d+)$", header, re.M))
    masks = dict(re.findall(r"^#define STA_HW_(\w+)_MASK (0x\w+)u ", header, re.M))
    named = {f"{r}_{f}".upper(): place for (r, f), place in bits.items() if f != "value"}
    assert {n: int(s) for n, s in shifts.items()} == {n: low for n, (low, _) in named.items()}
    assert {n: int(m, 16) for n, m in masks.items()} == {n: (1 << w) - 1 << low for n, (low, w) in named.items()}
    # The docs page.
    rows = re.findall(r"^\| (0x\w+)? ?\| (\w+)? ?\| (\w\w)? ?\| ([\d:]+)? ?\| (?:(\w+): )?", page(), re.M)
    register, told, places = "", {}, {}
    for offset, name, _, place, field in rows:
        if offset:
            register, told[name] = name, int(offset, 16)
        else:
            high, _, low = place.partition(":")
            places[register, field] = (int(low or high), int(high) - int(low or high) + 1)
    assert told == described and places == {k: v for k, v in bits.items() if k[1] != "value"}
    # IP-XACT.
    IPXACTExporter().export(top, str(tmp_path / "map.xml"))
    space = {"x": "http://www.accellera.org/XMLSchema/IPXACT/1685-2014"}
    component = ElementTree.parse(tmp_path / "map.xml").getroot()
    assert component.findtext("x:name", namespaces=space) == "my_accelerator"
    elements = component.findall(".//x:register", space)

    def number(element: ElementTree.Element, tag: str) -> int:
        text = element.findtext(f"x:{tag}", namespaces=space)
        assert text
        return int(text.replace("'h", "0x"), 0)

    names = [e.findtext("x:name", namespaces=space) for e in elements]
    assert dict(zip(names, (number(e, "addressOffset") for e in elements), strict=True)) == described
    exported = {
        (e.findtext("x:name", namespaces=space), f.findtext("x:name", namespaces=space)): (
            number(f, "bitOffset"), number(f, "bitWidth"),
        )
        for e in elements
        for f in e.findall("x:field", space)
    }  # fmt: skip
    assert exported == bits


def page() -> str:
    return (DOCS / "registers.md").read_text().partition("## What happens")[0]


def test_names_that_are_keywords(tmp_path: Path) -> None:
    """All of SystemRDL's; the compiler's own grammar has the list."""
    import systemrdl.parser

    grammar = (Path(systemrdl.parser.__file__).parent / "SystemRDL.g4").read_text()
    assert set(re.findall(r"'([a-z]\w*)'", grammar)) <= KEYWORDS
    for name in ("field", "regfile", "mem", "component", "all", "w1"):
        assert compiled(system_rdl(PRESETS["ci"], name), tmp_path).inst_name == name


def test_a_configurations_header() -> None:
    config = PRESETS["ci"]
    text = configuration_header(config, "my_acc")
    macros = {n: int(v, 0) for n, v in re.findall(r"^#define MY_ACC_(\w+) (\w+)u /\*", text, re.M)}
    values = capabilities(config)
    assert {k.upper(): v for k, v in values.items()}.items() <= macros.items()
    assert macros["HASH"] == values["hash_high"] << 32 | values["hash_low"]
    assert macros["BURST_BYTES"] == config.burst * config.bus_bytes and macros["BUS_BYTES"] == config.bus_bytes
    other = configuration_header(PRESETS["tiny"], "other")  # two in one program
    assert not set(re.findall(r"#define (\w+)", text)) & set(re.findall(r"#define (\w+)", other))
    for name in ("sta_hw", "STA-HW-reg", "sta_hw_registers"):
        with pytest.raises(InputError, match="driver's own"):
            configuration_header(config, name)
    with pytest.raises(InputError, match="letter or digit"):
        configuration_header(config, "_")

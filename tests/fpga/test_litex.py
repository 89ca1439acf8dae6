"""The accelerator in LiteX SoCs of every kind, elaborated; what LiteX cannot connect is one sentence."""

from __future__ import annotations

import logging
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from litedram.modules import MT48LC16M16
from litedram.phy.model import SDRAMPHYModel
from litex.build.generic_platform import Pins
from litex.build.io import CRG
from litex.build.sim import SimPlatform
from litex.soc.integration.soc import SoCRegion
from litex.soc.integration.soc_core import SoCCore

from boards.example import example
from boards.firmware import COMPILERS, compile_firmware, soc_headers
from boards.soc import simulated_soc, ulx3s_soc
from sim.verilog import module_verilog
from sta_hw.errors import ConfigError, InputError
from sta_hw.fpga.litex import STAHW, add_sta_hw, module_name
from sta_hw.rtl.emit import ports_of
from sta_hw.rtl.tops import component
from sta_hw.spec.config import Config
from sta_hw.spec.presets import PRESETS, preset

CI = PRESETS["ci"]


def verilog_of(config: Config) -> str:
    """From the cache of models, where it is whoever runs the other tests."""
    return module_verilog("accelerator", config).replace("module accelerator(", f"module {module_name(config)}(")


def bare(config: Config) -> str:
    """In place of the Verilog where only what LiteX makes is looked at."""
    return f"module {module_name(config)}();\nendmodule\n"


def a_soc(**options: Any) -> Any:
    """Without the accelerator."""
    logging.basicConfig(level=logging.CRITICAL)
    options = {"cpu_type": "vexriscv", "cpu_variant": "minimal", "integrated_main_ram_size": 1 << 16, **options}
    platform = SimPlatform("SIM", [("sys_clk", 0, Pins(1))])
    soc = SoCCore(platform, int(1e6), with_uart=False, with_timer=False, integrated_rom_size=1 << 12, **options)
    soc.crg = CRG(platform.request("sys_clk"))
    return soc


def with_sdram(soc: Any, bits: int = 16, **options: Any) -> Any:
    module = MT48LC16M16(100e6, "1:1")
    phy = SDRAMPHYModel(module, data_width=bits, clk_freq=100e6)
    soc.add_sdram("sdram", phy=phy, module=module, **{"l2_cache_size": 0, **options})
    return soc


def text_of(soc: Any) -> str:
    soc.finalize()
    return str(soc.platform.get_verilog(soc.get_fragment(), name="soc"))


@pytest.mark.parametrize("bus", ["wishbone", "axi-lite", "axi"])
@pytest.mark.parametrize("memory", ["native", "bus", "ram"])
def test_every_bus_and_memory(bus: str, memory: str) -> None:
    """Each port of the module is connected by name to a signal of its width."""
    soc = simulated_soc(CI, bus=bus, memory=memory, verilog=verilog_of(CI))
    text = text_of(soc)
    (instance,) = re.findall(rf"{module_name(CI)} {module_name(CI)}\((.*?)\n\);", text, re.S)
    connected = dict(re.findall(r"\.(\w+)\s*\((.*?)\)", instance))
    hardware = component("accelerator", CI)
    hardware._MustUse__silence = True
    ports = {port.name: port for port in ports_of(hardware)}
    assert connected.keys() == ports.keys() - {"busy", "failed", "activity"}
    for name, signal in connected.items():
        if not (span := re.search(r"\[(\d+):(\d+)\]", signal)):
            span = re.search(rf"(?:wire|reg)\s+(?:signed )?\[(\d+):(\d+)\]\s+{re.escape(signal)}\b", text)
        width = int(span[1]) - int(span[2]) + 1 if span else 1
        assert width == ports[name].width, (name, signal)
    region = soc.bus.regions["sta_hw"]
    assert region.size == 4096 and region.origin >= 0x8000_0000 and not region.cached
    headers = soc_headers(soc)
    assert f"#define STA_HW_BASE 0x{region.origin:08x}L" in headers["mem.h"]
    assert f"#define STA_HW_INTERRUPT {soc.irq.locs['sta_hw']}" in headers["soc.h"]
    assert re.search(rf"interrupt\w*\[{soc.irq.locs['sta_hw']}\] <=|assign \w*interrupt", text)
    assert ("sdram_phy.h" in headers) == (memory != "ram")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset(name: str) -> None:
    """Of any width on a 16-bit SDRAM's own port; through the bus down to 32 bits, or what must change is said."""
    config = PRESETS[name]
    text_of(with_sdram_and(config, memory="native"))
    beats = config.burst * config.bus_bytes // 4
    if beats > 256:
        with pytest.raises(InputError, match="the nearest burst is"):
            with_sdram_and(config, memory="bus")
    else:
        text_of(with_sdram_and(config, memory="bus"))


def with_sdram_and(config: Config, memory: str) -> Any:
    soc = with_sdram(a_soc(integrated_main_ram_size=0))
    add_sta_hw(soc, config, memory=memory, verilog=bare(config))
    return soc


def test_two_accelerators_of_one_soc() -> None:
    soc = with_sdram(a_soc(integrated_main_ram_size=0))
    small = PRESETS["small"]
    add_sta_hw(soc, CI, verilog=bare(CI))
    second = add_sta_hw(soc, small, name="second", origin=0x9000_0000, verilog=bare(small))
    text = text_of(soc)
    assert module_name(CI) in text and module_name(small) in text and second is soc.second
    assert soc.bus.regions["second"].origin == 0x9000_0000 and soc.irq.locs["second"] != soc.irq.locs["sta_hw"]


def test_wide_addresses_and_no_cpu() -> None:
    for options in ({"bus_address_width": 64}, {"cpu_type": None}, {"cpu_type": None, "bus_standard": "axi"}):
        soc = a_soc(**options)
        add_sta_hw(soc, CI, verilog=bare(CI))
        text_of(soc)
        assert ("sta_hw" in soc.irq.locs) == ("cpu_type" not in options)


def test_the_names_of_presets_and_what_is_emitted() -> None:
    soc = a_soc()
    accelerator = add_sta_hw(soc, "ci")
    (source,) = (name for name, *_ in soc.platform.sources if "sta_hw" in name)
    emitted, known = Path(source).read_text().splitlines(), verilog_of(CI).splitlines()
    assert emitted[1 : len(known)] == known[1:]  # the first line says how the file is called
    assert accelerator.config == CI


def test_the_documents_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three lines make a SoC; what would be emitted is another test's."""
    text = (Path(__file__).parents[2] / "docs" / "litex.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.setattr("sta_hw.fpga.litex.emit_verilog", lambda _, name: f"module {name}();\nendmodule\n")
    made: dict[str, Any] = {"__name__": "example"}
    exec(program, made)
    assert f"{module_name(preset('ecp5-85f'))} " in text_of(made["soc"])


def refused(soc: Any, pattern: str, config: Any = CI, **options: Any) -> None:
    """One sentence, and nothing of the accelerator in the SoC; sys.stderr, which LiteX's errors take, is there."""
    regions, interrupts = dict(soc.bus.regions), dict(soc.irq.locs)
    with pytest.raises(InputError, match=pattern) as error:
        add_sta_hw(soc, config, **{"verilog": bare(CI), **options})
    assert sys.stderr is not None and "\n" not in str(error.value) and str(error.value).endswith(".")
    assert soc.irq.locs == interrupts and not soc.bus.masters.keys() & {"sta_hw"} and not hasattr(soc, "sta_hw")
    assert soc.bus.regions == regions


def test_wrong_configurations() -> None:
    refused(a_soc(), "preset 'cj' is unknown; .*the nearest is ci", "cj")
    refused(a_soc(), "a configuration is a .*Config or the name of a preset, not 3", 3)
    with pytest.raises(ConfigError, match="the accelerator's bus has lanes = 2 bytes"):
        STAHW(None, Config(rows=2, groups=2, window=16, softmax_lanes=2))
    refused(a_soc(), "the Verilog given has no module sta_hw_", verilog="module accelerator();\nendmodule\n")


@pytest.mark.parametrize(
    ("options", "pattern"),
    [({"name": n}, "name = .* is none for C and Verilog: .*the nearest is " + near + r"\.$")
     for n, near in (("", "sta_hw"), ("1x", "sta_hw_1x"), ("a-b", "a_b"), ("_a", "a"), ("ä", "sta_hw"),
                     ("a" * 300, "a" * 64))]
    + [({"name": None}, "name is None; it is a text"), ({"origin": "0x80000000"}, "origin is '0x8.*whole number"),
       ({"origin": 1.5}, "origin is 1.5; it is a whole number, the nearest is 2"), ({"origin": True}, "is True"),
       ({"verilog": b"x"}, "verilog is b'x'; it is a text"), ({"memory": None}, "memory = None is unknown")],
)  # fmt: skip
def test_arguments_that_are_none(options: dict[str, Any], pattern: str) -> None:
    refused(a_soc(), pattern, **options)


def test_what_is_no_soc_or_platform() -> None:
    for soc in (None, 5, object()):
        with pytest.raises(InputError, match="a SoC is one of LiteX's, such as a SoCCore, and not "):
            add_sta_hw(soc, CI, verilog=bare(CI))
    made = with_sdram_and(CI, memory="native")
    made.finalize()
    with pytest.raises(InputError, match="the SoC's hardware is made already"):
        add_sta_hw(made, CI, name="second", verilog=bare(CI))
    with pytest.raises(InputError, match=r"a platform is LiteX's, as soc\.platform is, and not 'None'"):
        STAHW(None, CI, verilog=bare(CI))
    for width, words in (
        (16, "not 32 to 64 bits; the nearest is 32"),
        (65, "the nearest is 64"),
        ("32", "a whole number"),
    ):
        with pytest.raises(InputError, match=f"address_width .*{words}"):
            STAHW(made.platform, CI, address_width=width, verilog=bare(CI))


def test_no_memory_to_work_in() -> None:
    refused(a_soc(integrated_main_ram_size=0), "no region main_ram .*; call add_sdram first")
    refused(a_soc(), "memory = native needs LiteDRAM, and this SoC has none", memory="native")
    refused(a_soc(), "memory = 'dram' is unknown; it is auto, native or bus", memory="dram")
    far = a_soc(bus_address_width=64, integrated_main_ram_size=0, cpu_type=None)
    far.bus.add_region("main_ram", SoCRegion(origin=1 << 32, size=1 << 20))
    refused(far, "addresses have 32 bits, and main_ram ends at 0x100100000; the nearest end is 0x100000000")


def test_memory_that_a_cache_hides_or_that_is_misplaced() -> None:
    hidden = with_sdram(a_soc(integrated_main_ram_size=0), l2_cache_size=8192)
    refused(hidden, "behind LiteX's L2 cache.*give add_sdram l2_cache_size=0, or memory=bus")
    add_sta_hw(hidden, CI, memory="bus", verilog=bare(CI))  # the bus goes through the cache
    text_of(hidden)
    misplaced = a_soc(integrated_main_ram_size=0, cpu_type=None)
    misplaced.mem_map["main_ram"] = 0x0080_0000
    with_sdram(misplaced, size=1 << 22)
    refused(misplaced, "main_ram begins at 0x800000, which is no multiple of the SDRAM's 33,554,432 bytes")


def test_memory_of_the_wrong_width() -> None:
    refused(a_soc(bus_data_width=64, bus_standard="axi", cpu_type=None),
            "bus is 64 bits wide, .*32 bits to a wider one; give bus_data_width=32, .* lanes = 8")  # fmt: skip
    long = replace(PRESETS["huge"], burst=64)
    refused(a_soc(), "bursts of 64 beats of 256 bits are 512 of 32 bits, .* the nearest burst is 32", long,
            verilog=bare(long))  # fmt: skip
    odd = with_sdram(a_soc(integrated_main_ram_size=0))
    odd.sdram.crossbar.controller.data_width = 24
    refused(odd, "LiteDRAM's words have 24 bits here, .*the nearest below is 16")


def test_no_room_for_the_registers() -> None:
    refused(a_soc(), "origin = 0x80000800 is no multiple of 4096 below 4 GiB; the nearest is 0x80000000",
            origin=0x8000_0800)  # fmt: skip
    refused(a_soc(), "no 4,096 bytes of addresses .* at 0x40000000, outside of other regions", origin=0x4000_0000)
    full = a_soc()
    full.bus.add_region("all", SoCRegion(origin=0x8000_0000, size=1 << 31, cached=False))
    refused(full, "no 4,096 bytes of addresses for the accelerator's registers, outside")


def test_a_name_that_is_taken() -> None:
    soc = a_soc()
    add_sta_hw(soc, CI, verilog=bare(CI))
    with pytest.raises(InputError, match="something called sta_hw already; give this accelerator another name"):
        add_sta_hw(soc, CI, verilog=bare(CI))
    busy = a_soc(irq_n_irqs=1)
    busy.irq.add("other")
    with pytest.raises(InputError, match="no interrupt left"):
        add_sta_hw(busy, CI, verilog=bare(CI))


@pytest.mark.parametrize("size", ["25F", "85F"])
def test_the_ulx3s(size: str) -> None:
    config = preset("ecp5-25f")
    text = text_of(ulx3s_soc(size, config, verilog=bare(config)))
    assert "EHXPLLL" in text and "VexRiscv" in text and module_name(config) in text


def test_socs_that_there_are_not() -> None:
    for options, pattern in (
        ({"cpu": "vexrisc"}, "no RISC-V called 'vexrisc'; .*; the nearest is vexriscv"),
        ({"cpu": "lm32"}, "no RISC-V called 'lm32'"),
        ({"variant": "minimum"}, "vexriscv has no variant 'minimum'; .*; the nearest is minimal"),
    ):
        with pytest.raises(InputError, match=pattern):
            simulated_soc(CI, **options)
    with pytest.raises(InputError, match="ULX3S '86F' is unknown; there are 12F, 25F, 45F, 85F"):
        ulx3s_soc("86F", CI)
    for frequency, words in ((1e6, "are out of range"), (333.3e6, "no divider"), (3.2e6, "cannot be had: Clk")):
        with pytest.raises(InputError, match=words):
            ulx3s_soc("85F", CI, frequency=frequency)


def test_a_program_that_is_too_large(tmp_path: Path) -> None:
    soc = simulated_soc(CI, verilog=bare(CI))
    soc.finalize()
    files = example(CI).files
    if not any(shutil.which(name) for name in COMPILERS):
        pytest.skip("there is no C compiler for RISC-V here")
    with pytest.raises(InputError, match=r"program and image take 1\d\d,\d{3} bytes, and the SoC's ROM has 131,072"):
        compile_firmware(soc, files | {"image.bin": bytes(1 << 17)}, tmp_path)

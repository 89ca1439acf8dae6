"""Waveforms: no package of the system, names of the source, and edges where the run says they are."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_programs import compiled

from sim import library, verilator
from sim.accelerator import AcceleratorModel, MemoryModel, ProgramRun
from sta_hw.spec.isa import Error
from sta_hw.spec.presets import PRESETS

pywellen = pytest.importorskip("pywellen", reason="pywellen, which reads waveforms, is not installed")


class Waves:
    """A waveform by cycles: what signals are before each rising clock edge."""

    def __init__(self, path: Path) -> None:
        self.waves = pywellen.Waveform(str(path))
        self.signals = {v.full_name: v for v in self.waves.all_vars()}

    def changes(self, name: str) -> dict[int, int]:
        """Value by time of its change."""
        found = [(time, value) for time, value in self.signals[name].signal]
        return {int(time): int(value, 2) if isinstance(value, str) else int(value) for time, value in found}

    def values(self, name: str, cycles: int) -> np.ndarray:
        """Value in each cycle; cycle c is sampled at time 2 c."""
        changed = self.changes(name)
        times = np.array(sorted(changed))
        places = np.searchsorted(times, 2 * np.arange(cycles), side="right") - 1
        return np.array([changed[int(t)] for t in times[places]])


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ProgramRun, int]:
    program, image = compiled("ci", 5)
    path = tmp_path_factory.mktemp("waves") / "run.fst"
    model = AcceleratorModel(PRESETS["ci"], trace="fst")
    model.trace(path, 0, 1 << 40)
    run = model.run(image, program.program_address, memory=MemoryModel(stall=0.3), length=program.length)
    cycles = model.cycle
    model.close()
    assert run.error == Error.NONE
    return path, run, cycles


def test_edges_are_where_the_run_says(traced: tuple[Path, ProgramRun, int]) -> None:
    path, run, cycles = traced
    waves = Waves(path)
    top = "TOP.accelerator."

    def both(channel: str) -> int:
        valid, ready = (waves.values(f"{top}m_axi_{channel}{name}", cycles) for name in ("valid", "ready"))
        return int((valid & ready).sum())

    assert both("r") == run.counters["read_beats"] and both("w") == run.counters["write_beats"]
    ar = waves.values(f"{top}m_axi_arvalid", cycles) & waves.values(f"{top}m_axi_arready", cycles)
    assert (ar * (waves.values(f"{top}m_axi_arlen", cycles) + 1)).sum() == run.counters["read_beats"]
    # The controller's state, which is no port, is the source's own name: it runs for as long as the counter says.
    (name,) = (n for n in waves.signals if n.endswith(".controller_state"))
    state = waves.values(name, cycles)
    lengths = [int((state == s).sum()) for s in range(8)]
    assert run.cycles in lengths
    first = int(np.flatnonzero(state == lengths.index(run.cycles))[0])
    # Deep inside, the pulse of every completed LayerNorm is in the very cycle that the timeline has.
    completed = waves.values(f"{top}core.completed", cycles)
    norms = np.flatnonzero(completed >> 4 & 1)
    assert len(norms) == len(run.completed["norms"]) > 0
    assert np.array_equal(np.diff(norms), np.diff(run.completed["norms"])) and norms[0] > first
    # Scopes are the blocks, down to a multiplier, and signals there have their names.
    assert f"{top}core.engine.array.multiplier_3_1.product" in waves.signals
    assert f"{top}core.engine.array.operand_3_1" in waves.signals


def test_vcd_has_the_same(traced: tuple[Path, ProgramRun, int], tmp_path: Path) -> None:
    """The two writers share nothing but the model: every change of every signal is the same."""
    path, run, _ = traced
    program, image = compiled("ci", 5)
    model = AcceleratorModel(PRESETS["ci"], trace="vcd")
    start, stop = run.cycles // 2, run.cycles // 2 + 200
    model.trace(tmp_path / "run.vcd", start, stop)
    model.run(image, program.program_address, memory=MemoryModel(stall=0.3), length=program.length)
    model.close()
    fst, vcd = Waves(path), Waves(tmp_path / "run.vcd")
    assert set(fst.signals) == set(vcd.signals) and len(fst.signals) > 3000
    names = sorted(fst.signals)[::7]
    for name in names:
        whole = {t: v for t, v in fst.changes(name).items() if 2 * start < t < 2 * stop}
        assert whole == {t: v for t, v in vcd.changes(name).items() if t > 2 * start}, name


def test_no_header_or_library_of_the_system(traced: tuple[Path, ProgramRun, int], tmp_path: Path) -> None:
    """What is compiled includes no lz4.h or zlib.h but the project's, and what is linked needs no such library."""
    include = verilator.root() / "include"
    command = [*library.runtime_compiler(), "-M", str(include / "verilated_fst_c.cpp")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    files = {Path(word).resolve() for word in run.stdout.replace("\\\n", " ").split()[1:]}
    ours = Path(library.__file__).resolve().parent
    for name in ("lz4.h", "zlib.h"):
        assert [f.parent.parent for f in files if f.name == name] == [ours]
    model = AcceleratorModel(PRESETS["ci"], trace="fst")
    compiled = Path(model._library._name)
    model.close()
    assert compiled.suffix == ".so"
    needed = compiled.read_bytes()
    assert b"libz.so" not in needed and b"liblz4" not in needed


def lz4_block(data: bytes) -> bytes:
    """What an LZ4 block decodes to, by the description of the format."""
    found, at = bytearray(), 0
    while True:
        token, at = data[at], at + 1
        count = token >> 4
        if count == 15:
            while data[at] == 255:
                count, at = count + 255, at + 1
            count, at = count + data[at], at + 1
        found += data[at : at + count]
        at += count
        if at == len(data):
            return bytes(found)
        offset, at = data[at] | data[at + 1] << 8, at + 2
        assert 0 < offset <= len(found)
        match = token & 15
        if match == 15:
            while data[at] == 255:
                match, at = match + 255, at + 1
            match, at = match + data[at], at + 1
        for _ in range(match + 4):
            found.append(found[-offset])


def test_compression(tmp_path: Path) -> None:
    """What is compressed is got back, by Python's zlib and by a decoder written from LZ4's description."""
    (tmp_path / "c.cpp").write_text(
        '#include <lz4.h>\n#include <zlib.h>\nextern "C" {\n'
        "int lz4(const char* s, char* t, int n, int m) { return LZ4_compress_default(s, t, n, m); }\n"
        "int bound(int n) { return LZ4_compressBound(n); }\n"
        "long deflated(const unsigned char* s, unsigned char* t, long n) {\n"
        "  uLongf size = compressBound(n); return compress2(t, &size, s, n, 9) == Z_OK ? size : -1; }\n}\n"
    )
    subprocess.run([*library.runtime_compiler(), "-shared", "-o", "c.so", "c.cpp"], cwd=tmp_path, check=True)
    loaded: Any = ctypes.CDLL(str(tmp_path / "c.so"))
    loaded.deflated.restype = ctypes.c_long
    loaded.deflated.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_long]
    rng = np.random.default_rng(8)
    sizes = [0, 1, 4, 5, 12, 13, 14, 19, 20, 21, 100, 269, 270, 271, 65535, 65536, 200_000]
    for size in sizes:
        for symbols in (1, 2, 256):
            data = rng.integers(0, symbols, size).astype(np.uint8).tobytes()
            data = data[: size // 3] + data[: size - size // 3]  # far repetitions too
            target = ctypes.create_string_buffer(loaded.bound(size))
            count = loaded.lz4(data, target, size, len(target))
            assert lz4_block(target.raw[:count]) == data
            assert loaded.lz4(data, target, size, len(target) - 1) == 0
            assert symbols > 1 or size < 1000 or count < size // 20
            room = ctypes.create_string_buffer(size + size // 1000 + 64)
            count = loaded.deflated(data, room, size)
            assert zlib.decompress(room.raw[:count]) == data


def test_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = "from sta_hw.cli.main import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, "trace", "--preset", "ci", "--nm", "1:4", "--pruner", "magnitude", *arguments],
            capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip

    result = run("--start", "100", "--cycles", "300", "-o", "new/t.fst", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["start"], found["cycles"]) == (100, 300)
    waves = Waves(tmp_path / "new" / "t.fst")
    times = waves.changes("TOP.accelerator.clk")
    assert sorted(times) == list(range(200, 800)) and [times[t] for t in (200, 201, 799)] == [0, 1, 1]
    wrong = run("-o", "t.wav")
    assert wrong.returncode == 2 and "the nearest is t.wav.fst" in wrong.stderr
    assert not (tmp_path / "t.wav").exists()

"""What is kept between runs: private, and checked before it is used."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from sim.library import compile_library
from sta_hw.cache import cache_folder, keep, kept, made_once
from sta_hw.errors import ToolError

VERILOG = "module inverter (input a, output b);\nassign b = ~a;\nendmodule\n"
HARNESS = 'extern "C" int answer() { return 42; }\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv("STA_HW_CACHE", str(place))
    return place


def test_a_folder_is_private(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == folder and folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)  # others could put code into it
    assert cache_folder() == folder and folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o1777)
    with pytest.raises(ToolError, match="shared with other users"):
        cache_folder()
    monkeypatch.delenv("STA_HW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "sta_hw").mkdir(mode=0o755)
    assert cache_folder().stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(ToolError, match="belongs to another user"):
        cache_folder()


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d[1:], lambda d: b"", lambda d: d[:3] + b"x" + d[4:]])
def test_damage_is_found(folder: Path, damage: object) -> None:
    path = cache_folder() / "file"
    for data in (b"", b"12345", bytes(range(256)) * 9):
        keep(path, data)
        assert kept(path) == data
        if len(data) > 4:
            path.write_bytes(damage(path.read_bytes()))
            assert kept(path) is None
    assert kept(folder / "none") is None


def test_a_damaged_library_is_built_again(folder: Path, tmp_path: Path) -> None:
    harness = tmp_path / "harness.cpp"
    harness.write_text(HARNESS)

    def build() -> Path:
        return compile_library(VERILOG, "inverter", "", harness, fast=False)

    path = build()
    data, when = kept(path), path.stat().st_mtime_ns
    assert data is not None and ctypes.CDLL(str(path)).answer() == 42
    assert build() == path and path.stat().st_mtime_ns == when  # kept
    objects = sorted(folder.glob("verilated*.o"))
    assert len(objects) == 2
    for broken in (path, *objects):
        whole = broken.read_bytes()
        broken.unlink()  # what is loaded stays as it is
        broken.write_bytes(whole[: len(whole) // 2])
    assert build() == path
    assert kept(path) is not None and all(kept(o) is not None for o in objects)
    assert ctypes.CDLL(str(path)).answer() == 42


@pytest.mark.skipif(not shutil.which("clang++"), reason="clang++ is not installed")
def test_another_compiler(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library loads: it wants nothing that is not linked."""
    monkeypatch.setenv("CXX", "clang++")
    harness = tmp_path / "harness.cpp"
    harness.write_text(HARNESS)
    assert ctypes.CDLL(str(compile_library(VERILOG, "inverter", "", harness, fast=False))).answer() == 42


_MAKER = """
import sys, time
from pathlib import Path
from sta_hw.cache import keep, kept, made_once
path = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
with made_once(path):
    if kept(path) is None:
        print("made", flush=True)
        time.sleep(0.5)
        keep(path, b"data")
"""


def test_of_several_processes_one_makes_it(folder: Path) -> None:
    """They begin together; the others find what the first has made. A file of another name is made meanwhile."""
    paths = [cache_folder() / name for name in ("one", "one", "one", "other")]
    processes = [
        subprocess.Popen([sys.executable, "-c", _MAKER, str(p)], stdin=PIPE, stdout=PIPE, text=True) for p in paths
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:  # all, before any has come to its end
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    made = [process.communicate()[0] for process in processes]
    assert sorted(made[:3]) == ["", "", "made\n"] and made[3] == "made\n"
    assert all(kept(p) == b"data" for p in paths) and not list(folder.glob("*lock*"))
    assert not any(process.returncode for process in processes)


def test_who_waited_goes_first(folder: Path) -> None:
    """The first made nothing; one that waited has its turn, and one that comes then waits for that."""
    path = cache_folder() / "file"
    order: list[str] = []
    entered, leave = ({name: threading.Event() for name in "abc"} for _ in range(2))

    def work(name: str) -> None:
        with made_once(path):
            order.append(f"{name} in")
            entered[name].set()
            leave[name].wait(20)
            order.append(f"{name} out")

    threads = {name: threading.Thread(target=work, args=(name,)) for name in "abc"}
    threads["a"].start()
    assert entered["a"].wait(20)
    threads["b"].start()
    time.sleep(0.3)  # it waits for the file that the first removes
    leave["a"].set()
    assert entered["b"].wait(20)
    threads["c"].start()
    assert not entered["c"].wait(0.3)
    leave["b"].set()
    leave["c"].set()
    for thread in threads.values():
        thread.join(20)
    assert order == ["a in", "a out", "b in", "b out", "c in", "c out"] and not list(folder.iterdir())

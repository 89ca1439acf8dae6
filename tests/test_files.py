"""Files written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sta_hw.errors import InputError, ToolError
from sta_hw.files import (
    distinct,
    inside,
    replacing,
    replacing_all,
    require_own,
    require_room,
    visible,
    working_folder,
    write_all,
    write_text,
)


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    write_text(path, "before")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    write_text(path, "before")
    with pytest.raises(ToolError, match="No space left on device"), replacing(path):
        raise OSError(28, "No space left on device")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_it_makes_folders_and_keeps_suffix_and_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.png"
    with replacing(path) as partial:
        assert partial.suffix == ".png"
        assert partial.parent == path.parent
        partial.write_bytes(b"1")
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    path.chmod(0o640)
    write_text(path, "2")
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(ToolError, match="taken cannot be written"):
        write_text(tmp_path / "taken", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_several_are_written_all_or_none(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    write_all({first: "1", second: b"2"})
    (tmp_path / "taken").mkdir()
    with pytest.raises(ToolError, match="taken cannot be written"):
        write_all({first: "new", tmp_path / "taken": "new"})
    with pytest.raises(ToolError, match="No space left"), replacing_all(first, second) as partials:
        partials[0].write_text("new")
        raise OSError(28, "No space left on device")
    assert (first.read_text(), second.read_text()) == ("1", "2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt", "taken"]


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "real.txt"
    target.write_text("old")
    (tmp_path / "link.txt").symlink_to(target)
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and target.read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="device or a pipe"):
        write_text(tmp_path / "pipe", "text")


LIMITED = """
import resource, sys
from pathlib import Path
from sta_hw.errors import ToolError
from sta_hw.files import write_all
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_all({Path(sys.argv[1]): "small", Path(sys.argv[2]): "x" * 2000})
except ToolError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """The limit of a file's size stands for a full disk: the second of two files does not fit."""
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    write_all({first: "1", second: "2"})
    run = subprocess.run([sys.executable, "-c", LIMITED, str(first), str(second)], capture_output=True, text=True)
    assert "cannot be written: File too large; all is as it was." in run.stdout, run.stderr
    assert (first.read_text(), second.read_text()) == ("1", "2") and len(list(tmp_path.iterdir())) == 2


def test_outputs_that_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there, folder = tmp_path / "there.json", tmp_path / "model"
    there.write_text("{}")
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "other.npz").write_text("")
    (tmp_path / "link.txt").symlink_to(there)
    os.link(there, tmp_path / "hard.json")
    distinct({"-o": tmp_path / "a.html", "the timeline": tmp_path / "a.json", "none": None}, {"--model": folder})
    distinct({"-o": folder / "other.npz"}, {"--model": folder})  # an earlier output
    for outputs, inputs in (
        ({"-o": Path("x.txt"), "the listing": tmp_path / "y" / ".." / "x.txt"}, {}),
        ({"-o": Path("there.json"), "the listing": Path("link.txt")}, {}),
        ({"-o": Path("hard.json")}, {"--nm-table": there}),
        ({"-o": Path("model/tokenizer.json")}, {"--model": folder}),
        ({"-o": folder}, {}),
    ):
        with pytest.raises(InputError, match=r"is the same file as|is a folder"):
            distinct(outputs, inputs)


def test_hidden_files_are_not_listed(tmp_path: Path) -> None:
    for name in (".a.json", "b.json", "._b.json", "a.safetensors", "c.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in visible(tmp_path, "*.json", "*.safetensors")] == ["a.safetensors", "b.json"]


def test_links_that_lead_to_themselves(tmp_path: Path) -> None:
    """As an output's name, a folder on its way, or what another's file names; nothing is written."""
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / "loop" / "x.npz"):
        with pytest.raises(InputError, match=r"loop.* cannot be found: a link on the way leads to itself"):
            distinct({"-o": path})
        with pytest.raises((InputError, ToolError)):
            write_text(tmp_path / "loop" / "x.npz", "x")
    with pytest.raises(InputError, match="leads to itself"):
        inside(tmp_path, "loop", "index")
    write_text(tmp_path / "loop", "x")
    assert (tmp_path / "loop").read_text() == "x"


def test_names_in_foreign_files_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path.parent)
    assert inside(tmp_path, "a/b.bin", "it") == tmp_path / "a/b.bin"
    for name in ("../b.bin", "/etc/passwd", "a/../../b", "link/b"):
        with pytest.raises(InputError, match="is outside"):
            inside(tmp_path, name, "it")


def test_a_working_folder_gives_all_or_the_logs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with working_folder(out) as work:
        (work / "top.bit").write_text("1")
        assert not (out / "top.bit").exists()
    with pytest.raises(ZeroDivisionError), working_folder(out) as work:
        (work / "top.bit").write_text("half")
        (work / "yosys.log").write_text("why")
        raise ZeroDivisionError
    with pytest.raises(ToolError, match="No space"), working_folder(out):
        raise OSError(28, "No space left on device")
    assert {p.name: p.read_text() for p in out.iterdir()} == {"top.bit": "1", "yosys.log": "why"}


def test_a_file_that_cannot_grow_is_told(tmp_path: Path) -> None:
    path = tmp_path / "trace.vcd"
    path.write_text("$end\n")
    require_room(path)
    assert path.read_text() == "$end\n"
    with pytest.raises(OSError, match="No space left"):
        require_room(Path("/dev/full"))


@pytest.mark.parametrize(
    ("there", "right"),
    [(None, True), ("", True), ('{"program": {}}', True), ('{"ports": []}', False), ("[1]", False), ("notes", False)],
)
def test_only_its_own_json_is_overwritten(tmp_path: Path, there: str | None, right: bool) -> None:
    """JSON beside an output has a name that its user may not have thought of."""
    path = tmp_path / "x.json"
    if there is not None:
        path.write_text(there)
    if right:
        require_own(path, "program", "the image's JSON")
        return
    with pytest.raises(InputError, match=r"the image's JSON would be written to .*x.json, where another file is"):
        require_own(path, "program", "the image's JSON")

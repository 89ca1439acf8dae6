"""Files written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sta_hw.errors import ToolError
from sta_hw.files import replacing, write_text


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

"""Every module that mutants are made of has tests, and others are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.mutation import targets
from sim.mutation.targets import NEXT_LEVEL, all_modules, named
from sta_hw.errors import InputError

ROOT = Path(__file__).parents[3]


def test_modules_have_tests() -> None:
    modules = all_modules()
    assert len(modules) > 50
    for module in modules:
        for test in targets.tests_of(module):
            path, _, name = test.partition("::")
            assert (ROOT / path).exists(), module
            assert not name or f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), module
    assert all((ROOT / module).is_file() for module in NEXT_LEVEL)


@pytest.mark.parametrize("path", ["sta_hw/rtl/core.py", "./sta_hw/../sta_hw/rtl/core.py", f"{ROOT}/sta_hw/rtl/core.py"])
def test_a_module_has_one_name(path: str) -> None:
    assert named(path) == "sta_hw/rtl/core.py"


@pytest.mark.parametrize("path", ["scripts/mutate.py", "sta_hw", "sta_hw/rtl/absent.py", "sta_hw/rtl/__init__.py"])
def test_what_is_no_module_with_tests_is_refused(path: str) -> None:
    with pytest.raises(InputError, match=path):
        named(path)

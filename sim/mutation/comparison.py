"""Whether any accelerator differs with a mutant of RTL: blocks alone, then whole ones, which have all together."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from sta_hw.errors import CheckError

from .equivalence import are_equal, modules_of
from .mutants import Mutant, mutated
from .workplace import Workplace

__all__ = ["Comparison"]

_CONFIGURATIONS = (
    "dataclasses.replace(PRESETS['ci'], features=('decoder',))",
    "dataclasses.replace(PRESETS['ci'], groups=8, features=('decoder',), window_words=64, loads_ahead=1)",
    "dataclasses.replace(BOARD_PRESETS['ecp5-25f'], rows=4)",
    "BOARD_PRESETS['up5k']",
)
"""Accelerators that have together what the generator can give: an equivalent mutant changes none."""
_CLIENTS = "{'a': 64, 'b': 512, 'c': 128}"
_BLOCKS = {
    "sta_hw/rtl/bus/bursts.py": "bursts.Bursts(config, 512, runs.run_layout())",
    "sta_hw/rtl/bus/dma.py": f"dma.ReadMaster(config, {_CLIENTS}); dma.WriteMaster(config, {_CLIENTS})",
    "sta_hw/rtl/control/controller.py": "controller.Controller()",
    "sta_hw/rtl/control/counters.py": "counters.Counters(count=9); counters.Counters(count=24)",
    "sta_hw/rtl/engine/accumulator.py": "accumulator.Accumulator(config)",
    "sta_hw/rtl/engine/array.py": "array.ProcessingArray(config)",
    "sta_hw/rtl/engine/decoder.py": "decoder.Decoder(config)",
    "sta_hw/rtl/engine/drain.py": "drain.Drain(config)",
    "sta_hw/rtl/engine/loops.py": "loops.Loops(config)",
    "sta_hw/rtl/engine/requantizer.py": "requantizer.Requantizer(config.vector_multiplier)",
    "sta_hw/rtl/engine/windows.py": "windows.Windows(config)",
    "sta_hw/rtl/primitives/queue.py": "queue.Queue(width=3, depth=4); queue.Queue(width=3, depth=128); "
    "queue.RegisterSlice(3)",
    "sta_hw/rtl/primitives/sequencer.py": "sequencer.Gearbox(32, 8); sequencer.Gearbox(8, 32); "
    "sequencer.StreamedMemory(8, 64, 4)",
    "sta_hw/rtl/units/loader.py": "loader.Loader(config)",
}
"""Blocks as accelerators have them: a mutant with which each is equal, whatever comes in, changes no accelerator."""
_MOST_MODULES = 12
"""Modules that a mutant changes, at most, for them to be compared."""
_IMPORTS = (
    "import dataclasses, importlib\nfrom amaranth.back import rtlil\nfrom sta_hw.rtl.bus import runs\n"
    "from sta_hw.rtl.tops import component\nfrom sta_hw.spec.presets import BOARD_PRESETS, PRESETS\n"
)
_BETWEEN = "\0"
"""What programs print behind each design."""


class Comparison:
    """Mutants of RTL against what they were made of: modules that Amaranth writes otherwise are given to Yosys.

    Parameters
    ----------
    place : Workplace
        Where mutants are written.
    """

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._accelerators: dict[str, dict[str, str]] = {}
        self._blocks: dict[str, list[dict[str, str]]] = {}

    def is_equivalent(self, module: str, source: str, mutant: Mutant, *, alone: bool = False) -> bool:
        """Whether no accelerator differs with a mutant.

        The block alone is compared first, and unless it is to be `alone`, whole accelerators.

        Raises
        ------
        CheckError
            If nothing is emitted without a mutant: every one would count as equivalent.
        """
        return self._is_equal_block(module, source, mutant) or (
            not alone and self._are_equal_accelerators(module, source, mutated(source, mutant))
        )

    def _is_equal_block(self, module: str, source: str, mutant: Mutant) -> bool:
        """Whether the block alone is proved equal in all that accelerators use of it."""
        if module not in _BLOCKS:
            return False
        if module not in self._blocks:
            self._blocks[module] = self._emitted_blocks(module)
            if not self._blocks[module]:
                raise CheckError(f"{module} is not emitted without a mutant: its entry in _BLOCKS is no more right.")
        before = self._blocks[module]
        with self._place.changed(module, source, mutated(source, mutant)):
            after = self._emitted_blocks(module)
        if after == before:
            # A function or a constant beside the block may be what only other blocks use.
            return _is_in_a_class(source, mutant.line)
        return len(after) == len(before) and all(map(_is_equal, before, after))

    def _are_equal_accelerators(self, module: str, source: str, changed: str) -> bool:
        for config in _CONFIGURATIONS:
            if config not in self._accelerators:
                self._accelerators[config] = self._emitted(config)
                if not self._accelerators[config]:
                    raise CheckError(f"no accelerator is emitted without a mutant: {config}.")
            before = self._accelerators[config]
            with self._place.changed(module, source, changed):
                after = self._emitted(config)
            if before.keys() != after.keys():
                return False
            differ = [name for name, body in before.items() if body != after[name]]
            if len(differ) > _MOST_MODULES or not all(are_equal(before, after, name) for name in differ):
                return False
        return True

    def _emitted(self, config: str) -> dict[str, str]:
        """The modules of an accelerator, as Amaranth writes them; none if it cannot be elaborated."""
        made = f"rtlil.convert(component('accelerator', {config}), name='accelerator', emit_src=False)"
        return modules_of(self._place.python(f"{_IMPORTS}print({made})\n", 900))

    def _emitted_blocks(self, module: str) -> list[dict[str, str]]:
        """A block's modules in each configuration and way in which it is used; none if it cannot be elaborated."""
        name = Path(module).stem
        ways = ", ".join(f"lambda: {way.strip()}" for way in _BLOCKS[module].split(";"))
        code = (
            f"{_IMPORTS}{name} = importlib.import_module({module.removesuffix('.py').replace('/', '.')!r})\n"
            f"for config in ({', '.join(_CONFIGURATIONS)}):\n"
            f"    for block in ({ways},):\n"
            f"        print(rtlil.convert(block(), name='block', emit_src=False), end={_BETWEEN!r})\n"
        )
        return [modules_of(part) for part in self._place.python(code, 300).split(_BETWEEN)[:-1]]


def _is_in_a_class(source: str, line: int) -> bool:
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return any(node.lineno <= line <= (node.end_lineno or 0) for node in classes)


def _is_equal(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    return after == before or (after.keys() == before.keys() and are_equal(before, after, "block"))

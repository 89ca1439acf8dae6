"""Coverage of what runs in this process: every model's points, and what the programs had that ran on accelerators.

As a plugin of pytest (``-p sim.coverage.plugin``, with a folder in the environment's STA_HW_COVERAGE), or by `install`.
`scripts/cover.py` runs benches so, and adds up what they leave in the folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sta_hw.errors import InputError
from sta_hw.rtl import emit
from sta_hw.spec.isa import disassemble

from ..library import COVERAGE
from .points import emit_with_points
from .programs import Programs

__all__ = ["install", "pytest_configure"]


def install() -> None:
    """From now on Verilog is emitted with points, and programs are counted; before whoever emits is imported."""
    emit.emit_verilog = emit_with_points
    from .. import accelerator

    programs, start = Programs(Path(os.environ[COVERAGE])), accelerator.AcceleratorModel.start

    def counted(model: Any, image: Any, program_address: int, **options: Any) -> Any:
        memory = options.get("memory")
        try:
            program = disassemble(image[program_address:].tobytes(), model.config)
        except (InputError, ValueError):  # one that is damaged on purpose
            program = []
        programs.add(program, model.config, bool(memory and memory.stall))
        return start(model, image, program_address, **options)

    patch.object(accelerator.AcceleratorModel, "start", counted).start()  # never stopped


def pytest_configure() -> None:
    """Of pytest: before tests are imported."""
    if os.environ.get(COVERAGE):
        install()

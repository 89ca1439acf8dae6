"""STA-HW: a generator of accelerators for N:M sparse Transformers.

`load` begins everything that concerns models: ``sta_hw.load().prune("2:4").compile(tokens=16).run("A text.")``
(docs/tutorial.md, docs/python.md).
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Model", "Program", "Result", "__version__", "load"]

if TYPE_CHECKING:
    from .tasks.api import Model, Program, Result, load


def __getattr__(name: str) -> Any:
    """Names of `sta_hw.tasks.api`, imported when one is asked for: to generate Verilog nothing of it is needed."""
    if name in ("Model", "Program", "Result", "load"):
        from importlib import import_module

        return getattr(import_module("sta_hw.tasks.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

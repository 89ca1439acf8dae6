"""Images and spectrograms as inputs of a graph: read from files, or noise in their place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import read_json, require_file
from .graph import Graph

__all__ = ["described", "given", "noise", "read_arrays", "require_processed"]

_BEGINNINGS = (b"\x93NUMPY", b"PK\x03\x04")
"""Of a file with one array, and with several."""


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
        with file.open("rb") as stream:
            if not stream.read(8).startswith(_BEGINNINGS):
                raise ValueError("it does not begin as a .npy file does")
        # Mapped, so that a header alone takes no memory, whatever shape it names.
        found = np.load(file, allow_pickle=False, mmap_mode="r")
        if isinstance(found, np.memmap) and (more := file.stat().st_size - found.offset - found.nbytes):
            raise ValueError(f"it goes on behind its array for {more} bytes; save several inputs as one array")
    except Exception as error:  # of a header that is none, what Python's parser raises, too
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = "it is shorter than its header says" if "mmap length" in reason else reason
        raise InputError(f"{file} is no array of numpy's: {' '.join(reason.split())[:300].rstrip('.')}.") from error
    shape = _shape(graph)
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f" or found.shape[-len(shape) :] != shape:
        about = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else "several arrays"
        raise InputError(f"{file} holds {about}; the model takes {described(graph)}.")
    if not found.size:
        raise InputError(f"{file} holds no input: its shape is {found.shape}; the model takes {described(graph)}.")
    with np.errstate(over="ignore"):
        values = found.reshape(-1, *shape).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{file} holds values that are not finite in float32.")
    return [np.moveaxis(array, 0, -1) for array in values]


def require_processed(arrays: Sequence[NDArray[np.float32]], file: Path, folder: Path) -> None:
    """Refuse images with values that no picture has once the model's processor has rescaled and normalized it.

    Parameters
    ----------
    arrays : as `read_arrays` gives them, from `file`
    folder : Path
        The model's, in which transformers leaves its processor's settings; nothing is refused where there are none.

    Raises
    ------
    InputError
        With the values and those that there may be.
    """
    for name, part in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        if not (folder / name).exists():
            continue
        found = read_json(folder / name, "processor configuration")
        settings = found if part is None else found.get(part)
        bounds = _bounds(settings, arrays[0].shape[-1]) if isinstance(settings, dict) else None
        if bounds is None:
            continue
        low, high = bounds
        slack = 0.01 * (high - low)  # Resizing in float overshoots a little; so does float16.
        for array in arrays:
            pixels = array.reshape(-1, array.shape[-1])
            wrong = np.flatnonzero((pixels.min(0) < low - slack) | (pixels.max(0) > high + slack))
            if len(wrong):
                c = int(wrong[0])
                raise InputError(
                    f"{file} has values from {pixels[:, c].min():.4g} to {pixels[:, c].max():.4g} in channel {c}, and "
                    f"by {folder / name} the model's processor gives some from {low[c]:.4g} to {high[c]:.4g}: rescale "
                    "and normalize the images as it does."
                )


def _bounds(settings: dict[str, Any], channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The least and the largest value that each channel may have; None where the settings do not say."""
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    mean, deviation = settings.get("image_mean"), settings.get("image_std")
    if not settings.get("do_normalize", True):
        mean, deviation = [0.0], [1.0]
    try:
        shift, scale = (np.broadcast_to(np.asarray(v, np.float64), channels) for v in (mean, deviation))
        ends = (0 - shift) / scale, (255 * float(factor) - shift) / scale
    except (TypeError, ValueError):
        return None
    return (ends[0], ends[1]) if np.isfinite(ends).all() and (scale > 0).all() and factor > 0 else None


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

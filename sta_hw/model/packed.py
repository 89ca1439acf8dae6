"""Checkpoints whose weights are 4-bit integers packed into words of 32: AWQ's and GPTQ's safetensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .operations import Array
from .settings import Settings
from .tensors import Tensors

__all__ = ["unpacked"]

_KEY = "quantization_config"
_PARTS = ("qweight", "qzeros", "scales", "g_idx")
_FLAGS = ("desc_act", "sym", "zero_point", "true_sequential")
_WANTED: dict[str, tuple[Any, ...]] = {
    "pack_dtype": ("int32",), "is_marlin_format": (False,), "rotation": (), "adapter": (), "data_type": ("int",),
    "act_bits": (16, 32), "super_bits": (), "super_group_size": (),
}  # fmt: skip
"""Keys that change what the numbers stand for, and the values, beside none, that change nothing."""
_IDLE = (
    "act_data_type", "act_dynamic", "act_group_aware", "act_group_size", "act_sym", "amp", "autoround_version",
    "backend", "batch_size", "block_name_to_quantize", "cache_block_outputs", "damp_auto_increment", "damp_percent",
    "dataset", "device", "disable_exllama", "do_fuse", "enable_minmax_tuning", "enable_norm_bias_tuning",
    "enable_quanted_input", "exllama_config", "fuse_max_seq_len", "gradient_accumulate_steps", "hyb_act", "iters",
    "lm_head", "low_gpu_mem_usage", "lr", "max_input_length", "meta", "minmax_lr", "model_file_base_name",
    "model_name_or_path", "model_seqlen", "module_name_preceding_first_block", "modules_in_block_to_quantize",
    "modules_to_fuse", "modules_to_not_convert", "mse", "nsamples", "pad_token_id", "quant_block_list", "scale_dtype",
    "seqlen", "static_groups", "to_quant_block_names", "tokenizer", "train_bs", "use_cuda_fp16", "use_exllama",
)  # fmt: skip
"""Keys of how the numbers came about (transformers', AutoGPTQ's, AutoAWQ's, GPTQModel's and AutoRound's), of kernels,
and of which products have them, which the tensors' names say."""
_GROUP = 128
"""Inputs that share a scale where the configuration does not say, as transformers has it."""
_FORMATS = {"awq": ("gemm",), "gptq": ("gptq", "gptq_v2")}
"""How words are packed; the first where the configuration does not say."""
_OLDER = {"awq": "version", "gptq": "checkpoint_format"}
"""The format's key in older files, which counts where a file has both, as transformers takes it."""
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring columns each 4 bits of a word are, lowest first."""


def _fields(words: NDArray) -> NDArray[np.int64]:
    """The eight numbers of each word, along a new last dimension."""
    return np.asarray(words.astype(np.int64)[..., None] >> 4 * np.arange(8) & 15)


def _columns(words: NDArray, order: tuple[int, ...] = tuple(range(8))) -> NDArray[np.int64]:
    """Numbers that lie side by side along the columns, eight in a word."""
    fields = _fields(words)
    found = np.empty_like(fields)
    found[..., list(order)] = fields
    return found.reshape(len(words), -1)


def _format(about: dict[str, Any], method: str) -> Any:
    if str(about.get("backend")).lower() == "llm-awq":  # transformers makes a format of it
        return "llm-awq"
    given = [about[key] for key in (_OLDER[method], "format") if about.get(key) is not None]
    if not given:
        return _FORMATS[method][0]
    return given[0].lower() if isinstance(given[0], str) else given[0]


def _require_known(about: dict[str, Any], method: str, settings: Settings) -> None:
    """Refuse what changes the meaning of the numbers, and keys that nobody knows."""
    for key, wanted in _WANTED.items():
        if about.get(key) not in (None, *wanted):
            raise InputError(f"{settings.path}: {key} of {_KEY} is {str(about[key])[:60]!r}, which is not supported.")
    dynamic = about.get("dynamic") or {}  # "-:" is ahead of the names of products that are not quantized
    if not (isinstance(dynamic, dict) and all(name.startswith("-:") for name in dynamic)):
        raise InputError(f"{settings.path}: dynamic of {_KEY} is {str(dynamic)[:60]!r}, which is not supported.")
    known = {*_WANTED, *_IDLE, *_FLAGS, "dynamic", "quant_method", "bits", "group_size", _OLDER[method], "format"}
    if unknown := sorted(about.keys() - known):
        raise InputError(
            f"{settings.path}: {', '.join(unknown)} of {_KEY} {'is' if len(unknown) == 1 else 'are'} not understood; "
            "if no weight depends on it, take it out."
        )


def unpacked(tensors: Tensors, settings: Settings) -> Tensors:
    """Tensors with AWQ's and GPTQ's weights as float32, ``(number - zero) * scale``; others as they are.

    Raises
    ------
    InputError
        If the configuration names what is not supported, or parts are missing or do not fit each other.
    """
    about = settings.found.get(_KEY)
    method = about.get("quant_method") if isinstance(about, dict) else None
    if method not in ("awq", "gptq"):
        return tensors
    assert isinstance(about, dict)
    version, bits, formats = _format(about, method), about.get("bits"), _FORMATS[method]
    if bits != 4 or version not in formats:
        raise InputError(
            f"{settings.path}: {method} with {bits} bits and format {version} is not supported; 4 bits and "
            f"{' or '.join(formats)} are."
        )
    _require_known(about, method, settings)
    for flag in _FLAGS:
        if flag in about and not isinstance(about[flag], bool):
            raise InputError(f"{settings.path}: {flag} of {_KEY} is {about[flag]!r}; it is true or false.")
    group = about.get("group_size", _GROUP)
    if not isinstance(group, int) or isinstance(group, bool) or (group < 1 and group != -1):
        raise InputError(f"{settings.path}: group_size of {_KEY} is {group!r}; it is an integer of at least 1, or -1.")
    settings.found = {k: v for k, v in settings.found.items() if k != _KEY}
    settings.list_unused(f"{_KEY}.{key}" for key in about if key in _IDLE)
    found: dict[str, Array] = dict(tensors.found)
    packed = [n for n in found if n.endswith(".qweight")]
    if not packed:
        raise InputError(f"{settings.path} says that weights are {method}'s, and {tensors.path} has no qweight.")
    for name in packed:
        stem = name.removesuffix("qweight")
        if stem + "weight" in found:
            raise InputError(f"{tensors.path} has {stem}weight and {name}; a product has one of them.")
        parts: dict[str, Any] = {p: found.pop(stem + p, None) for p in _PARTS}
        missing = [p for p in _PARTS[:3] if parts[p] is None or parts[p].ndim != 2 or not parts[p].size]
        if missing:
            raise InputError(f"{tensors.path} lacks {', '.join(stem + p for p in missing)}, or it is no matrix.")
        for part in ("qweight", "qzeros", "g_idx"):
            if parts[part] is not None and parts[part].dtype.kind not in "iu":
                raise InputError(f"{tensors.path}: {stem}{part} is {parts[part].dtype}; it is of integers.")
        if parts["g_idx"] is None and about.get("desc_act"):
            raise InputError(f"{tensors.path} lacks {stem}g_idx, which desc_act of {settings.path} needs.")
        found[stem + "weight"] = _weight(parts, method, version, group, f"{tensors.path}: {stem[:-1]}")
    return replace(tensors, found=found)


def _weight(parts: dict[str, Any], method: str, version: str, group: int, what: str) -> Array:
    scales = parts["scales"].astype(np.float32)
    groups = len(scales)
    if method == "awq":
        numbers, zeros = (_columns(parts[p], _AWQ_ORDER) for p in ("qweight", "qzeros"))
    else:
        numbers = _fields(parts["qweight"]).transpose(0, 2, 1).reshape(-1, parts["qweight"].shape[1])
        # Files of the first kind store zeros less one, in 4 bits: AutoGPTQ reads 15 as 0.
        zeros = (_columns(parts["qzeros"]) + (version == "gptq")) & 15
    channels = len(numbers)
    if numbers.shape[1:] != scales.shape[1:] or zeros.shape != scales.shape or channels % groups:
        raise InputError(f"{what}: numbers {numbers.shape}, zeros {zeros.shape} and scales {scales.shape} do not fit.")
    wanted = channels // groups
    # One group may have fewer inputs than the configuration says, where a product has no more.
    if group != wanted and not (groups == 1 and (group == -1 or group > channels)):
        raise InputError(f"{what}: {wanted} inputs share a scale, and by config.json (group_size) it is {group}.")
    index = np.arange(channels) // wanted if parts["g_idx"] is None else parts["g_idx"]
    if index.shape != (channels,) or index.min() < 0 or index.max() >= groups:
        raise InputError(f"{what}: g_idx does not name a group of {groups} for each of {channels} inputs.")
    index = index.astype(np.int64)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by name
        weights = (numbers - zeros[index]).astype(np.float32) * scales[index]
    return np.ascontiguousarray(weights.T, np.float32)

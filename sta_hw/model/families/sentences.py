"""What a sentence-transformers folder says of pooling: its modules become operations behind the encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import inside, read_json, require_file
from ..operations import Activate, Maximum, Mean, Normalize, Operation, Output, Select
from ..settings import Settings
from ..tensors import read_tensors
from .layers import Builder

__all__ = ["Limits", "modules", "pool", "texts_files"]

_POOLINGS: dict[str, Callable[[str], Operation]] = {
    "mean": lambda x: Mean("mean", (x,)),
    "cls": lambda x: Select("first", (x,), 0),
    "max": lambda x: Maximum("maximum", (x,)),
    "lasttoken": lambda x: Select("last", (x,), -1),
}
_MODES = {
    "pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken", "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}  # fmt: skip
_FUNCTIONS = {"Tanh": "tanh", "Identity": "", "ReLU": "relu", "GELU": "gelu", "SiLU": "silu"}

_NO_LIMIT = 10**9
"""A length of texts that is none: transformers writes 10^30."""
_LIBRARY, _TORCH = "sentence_transformers.", "torch.nn."


def _kind(name: object, package: str) -> str:
    """A class's name without its module; of a class from elsewhere, which may do anything, its whole name."""
    found = str(name)
    return found.rpartition(".")[2] if found.startswith(package) else found


_TEXTS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Names that sentence-transformers' versions gave to what a Transformer module says of texts; the first one counts."""
_ABOUT = "config_sentence_transformers.json"

_PLAIN: dict[str, tuple[Any, str]] = {
    "transformer_task": ("feature-extraction", "what gives something else than tokens' outputs is not supported"),
    "module_output_name": ("token_embeddings", "another name for tokens' outputs is not supported"),
    "modality_config": (
        {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "other inputs and outputs than texts and the last layer's are not supported",
    ),
    "processing_kwargs": ({}, "other settings of the tokenizer than its own are not supported"),
    "query_length": (None, "queries of a length of their own are not supported"),
    "document_length": (None, "documents of a length of their own are not supported"),
    "query_expansion": (None, "queries with tokens added are not supported"),
    **dict.fromkeys(
        ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs"),
        ({}, "other settings than the files' own are not supported"),
    ),
}
"""Keys that later versions write of every Transformer module, and what they are for a plain encoder of texts."""


def texts_files(root: Path, place: Path) -> list[Path]:
    """The files that say what is done to texts: of the folder, and of its Transformer module."""
    own = [place / name for name in _TEXTS if (place / name).exists()][:1]
    if any((root / name).exists() for name in ("modules.json", _ABOUT)):
        own += [p for p in (place / "tokenizer_config.json", root / _ABOUT) if p.exists()]
    return own


class Limits:
    """What sentence-transformers does to texts.

    Parameters
    ----------
    root : Path
        The checkpoint's folder.
    place : Path
        That of its Transformer module.

    Attributes
    ----------
    most_tokens : int or None
        It cuts longer texts.
    lower : bool
        It lower-cases them first.
    """

    def __init__(self, root: Path, place: Path) -> None:
        self.most_tokens: int | None = None
        self.lower = False
        for about in texts_files(root, place):
            settings = Settings(read_json(about, "configuration"), about)
            if about.name == _ABOUT:
                settings.pass_over("__version__ prompts similarity_fn_name model_type truncate_dim")
                settings.require("default_prompt_name", None, "a text put ahead of every text is not supported")
                settings.require("truncate_dim", None, "a shortened embedding is not supported")
            elif about.name in _TEXTS:
                if settings.found.get("max_seq_length") is not None:
                    self.most_tokens = settings.size("max_seq_length", 512)
                settings.pass_over("max_seq_length unpad_inputs")
                self.lower = settings.flag("do_lower_case", False)
                for key, (value, why) in _PLAIN.items():
                    settings.require(key, value, why)
            else:
                most = settings.found.get("model_max_length")
                if self.most_tokens is None and isinstance(most, int | float) and 1 <= most < _NO_LIMIT:
                    self.most_tokens = int(most)
                continue  # The other keys are the tokenizer's.
            settings.finish()


def modules(folder: Path) -> list[tuple[str, Path]] | None:
    """Kinds and folders of a model's modules, in order; None if it is no sentence-transformers folder.

    Raises
    ------
    InputError
        If ``modules.json`` is not understood, or the first module is no transformer.
    """
    path = folder / "modules.json"
    if not path.exists():
        return None
    try:
        require_file(path)
        listed = sorted(json.loads(path.read_bytes()), key=lambda m: m["idx"])
        found = [(_kind(m["type"], _LIBRARY), inside(folder, m["path"], str(path))) for m in listed]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path} is no list of modules with idx, path and type.") from error
    if not found or found[0][0] != "Transformer":
        raise InputError(f"{path}: the first module is {found[0][0] if found else 'missing'}; it is a Transformer.")
    return found


def _pooling(b: Builder, x: str, folder: Path, width: int) -> str:
    path = folder / "config.json"
    settings = Settings(read_json(path, "configuration"), path)
    for key in ("word_embedding_dimension", "embedding_dimension"):
        settings.require(key, width if key in settings.found else None, f"the encoder's width is {width}")
    settings.require("include_prompt", True, "leaving tokens of a prompt out is not supported")
    chosen = [mode for key, mode in _MODES.items() if settings.flag(key, False)]
    named = settings.value("pooling_mode", None)
    if named is not None and chosen not in ([], [named]):
        settings.problem(f"pooling_mode is {named!r}, and by its flags it is {' and '.join(chosen)}.")
    elif named is not None:
        chosen = [str(named)]
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        settings.problem(
            f"pooling by {' and '.join(chosen) or 'nothing'} is not supported; it is one of {', '.join(_POOLINGS)}."
        )
        chosen = ["mean"]
    settings.finish()
    return b.add(_POOLINGS[chosen[0]](x))


def _dense(b: Builder, x: str, folder: Path, width: int) -> tuple[str, int]:
    path = folder / "config.json"
    settings = Settings(read_json(path, "configuration"), path)
    settings.require("in_features", width, f"what is pooled has a width of {width}")
    for key in ("module_input_name", "module_output_name"):
        settings.require(key, "sentence_embedding", "a Dense of something else than the embedding is not supported")
    settings.require("use_residual", False, "a sum with what a Dense takes is not supported")
    out, bias = settings.size("out_features", width), settings.flag("bias", True)
    kind = _kind(settings.value("activation_function", f"{_TORCH}modules.activation.Tanh"), _TORCH)
    if kind not in _FUNCTIONS:
        settings.problem(f"activation_function {kind} is not supported; it is one of {', '.join(_FUNCTIONS)}.")
    settings.finish()
    tensors = read_tensors(folder)
    own = Builder(tensors, b.operations)
    x = own.linear(folder.name, x, "linear", out, width, bias=bias)
    tensors.finish()
    if _FUNCTIONS.get(kind):
        x = b.add(Activate(f"{folder.name}.activated", (x,), _FUNCTIONS[kind]))
    return x, out


def pool(b: Builder, x: str, folder: Path, width: int) -> None:
    """Add what follows the encoder, whose value is `x`, to the graph.

    Raises
    ------
    InputError
        If a module or its settings are not supported.
    """
    path = folder / "modules.json"
    pooled = False
    for kind, place in (modules(folder) or [])[1:]:
        if kind == "Pooling" and not pooled:
            x, pooled = _pooling(b, x, place, width), True
        elif kind == "Normalize" and pooled:
            x = b.add(Normalize("normalized", (x,)))
        elif kind == "Dense" and pooled:
            x, width = _dense(b, x, place, width)
        else:
            raise InputError(f"{path}: a module {kind} here is not supported; Pooling, Dense and Normalize are.")
    if not pooled:
        raise InputError(f"{path} has no Pooling.")
    b.add(Output("embedding", (x,)))

"""A checkpoint's folder: configuration and tensors, each of which is used, refused by name, or listed as unused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import inside, read_json
from ..patterns import listed
from .finite import require_finite
from .graph import Array

__all__ = ["Settings", "Tensors", "read_tensors"]

_TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
"""The formats of safetensors that numpy reads as they are; bfloat16 is the upper half of float32."""

# What PreTrainedConfig keeps of training, generation, bookkeeping: no operation of an encoder depends on it.
_MOST = 1 << 40
"""Elements of a tensor, at most."""

_MEANINGLESS = frozenset({
    "_attn_implementation", "_commit_hash", "_name_or_path", "architectures", "attention_dropout",
    "attention_probs_dropout_prob", "attn_implementation", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "chunk_size_feed_forward", "classifier_dropout", "cross_attention_hidden_size", "decoder_start_token_id",
    "diversity_penalty", "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id",
    "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id",
    "gradient_checkpointing", "hidden_dropout_prob", "id2label", "initializer_factor", "initializer_range",
    "is_encoder_decoder", "label2id", "language", "length_penalty", "max_length", "min_length", "model_type",
    "name_or_path", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels", "num_return_sequences",
    "output_attentions", "output_hidden_states", "output_past", "output_scores", "pad_token_id", "prefix",
    "problem_type", "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate",
    "sep_token_id", "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss",
    "tie_encoder_decoder", "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript",
    "transformers_version", "typical_p", "use_bfloat16", "use_cache",
})  # fmt: skip

_NEEDED: dict[str, Any] = {"auto_map": None, "quantization_config": None, "pruned_heads": {}, "per_layer_config": None}
"""Keys that any model may have and that change what it computes, and the value that changes nothing."""


class Settings:
    """A model's configuration, every key of which is asked for.

    Parameters
    ----------
    found : dict
        What the file has.
    path : Path
        For messages.
    """

    def __init__(self, found: Any, path: Path) -> None:
        if not isinstance(found, dict):
            raise InputError(f"{path} is no JSON object.")
        self.found, self.path = found, path
        self.problems: list[str] = []
        self._asked: set[str] = set()
        self._parts: list[Settings] = []

    def problem(self, sentence: str) -> None:
        """Something that is refused; `finish` raises it with all others."""
        self.problems.append(f"{self.path}: {sentence}")

    def _value(self, key: str, default: Any) -> Any:
        self._asked.add(key)
        value = self.found.get(key)
        return default if value is None else value

    def size(self, key: str, default: int, least: int = 1) -> int:
        """An integer; `default` is what transformers takes where the file has none."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.problem(f"{key} is {value!r}; it is an integer of at least {least}.")
            return max(default, least)
        return value

    def sizes(self, key: str, default: int) -> tuple[int, int]:
        """Height and width, given as one integer or two."""
        value = self._value(key, default)
        pair = value if isinstance(value, list) else [value, value]
        if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in pair):
            self.problem(f"{key} is {value!r}; it is an integer of at least 1, or two.")
            return default, default
        return pair[0], pair[1]

    def epsilon(self, key: str, default: float) -> float:
        """A small number that is not negative."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            self.problem(f"{key} is {value!r}; it is a number from 0 to 1.")
            return default
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            self.problem(f"{key} is {value!r}; it is true or false.")
            return default
        return value

    def choice(self, key: str, default: str, choices: Sequence[str]) -> str:
        """One of some words."""
        value = self._value(key, default)
        if value not in choices:
            self.problem(f"{key} {value!r} is not supported; it is {listed(choices)}.")
            return default
        return value

    def function(self, key: str, default: str) -> str:
        """An activation function, under its name in `fp32.FUNCTIONS`."""
        return _FUNCTIONS[self.choice(key, default, list(_FUNCTIONS))]

    def require(self, key: str, wanted: Any, why: str) -> None:
        """Refuse any other value than the one wanted, which is also transformers' where the file has none."""
        value = self._value(key, wanted)
        if value != wanted:
            self.problem(f"{key} = {json.dumps(value)}: {why}.")

    def pass_over(self, keys: str) -> None:
        """Keys, separated by spaces, that do not change what this family computes."""
        self._asked.update(keys.split())

    def part(self, key: str, over: str) -> Settings:
        """The configuration of a part, with what another key says in place of it."""
        found, more = ({} if v is None else v for v in (self._value(key, {}), self._value(over, {})))
        if not isinstance(found, dict) or not isinstance(more, dict):
            raise InputError(f"{self.path}: {key} and {over} are objects of names and values.")
        part = Settings({**found, **more}, Path(f"{self.path}, {key}"))
        self._parts.append(part)
        return part

    @property
    def architecture(self) -> str:
        """The class that wrote it, such as ``BertForSequenceClassification``; empty if not said."""
        named = self.found.get("architectures") or [""]
        return str(named[0])

    @property
    def labels(self) -> list[str]:
        """Names of the classes; transformers' where the file has none."""
        given = self.found.get("id2label")
        if given is None:
            return [f"LABEL_{i}" for i in range(self.size("num_labels", 2))]
        if not isinstance(given, dict) or {str(i) for i in range(len(given))} != set(given):
            self.problem("id2label does not name classes 0, 1, ... in order.")
            return ["LABEL_0", "LABEL_1"]
        return [str(given[str(i)]) for i in range(len(given))]

    def finish(self) -> list[str]:
        """Keys that are not used, those of its parts too.

        Raises
        ------
        InputError
            With every problem; among them keys that are not understood.
        """
        unused = self._close()
        for part in self._parts:
            unused += part._close()
            self.problems += part.problems
        if self.problems:
            raise InputError("\n".join(self.problems))
        return sorted(set(unused))

    def _close(self) -> list[str]:
        for key, harmless in _NEEDED.items():
            if self.found.get(key) not in (None, harmless):
                self.problem(f"{key} changes what the model computes and is not supported.")
        rest = set(self.found) - self._asked - set(_NEEDED)
        unknown = sorted(rest - _MEANINGLESS)
        if unknown:
            self.problem(
                f"{', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} not understood; if nothing that the "
                "model computes depends on it, take it out."
            )
        return sorted(rest - {"model_type", "architectures", "id2label"})


_FUNCTIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu", "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh",
}  # fmt: skip
"""transformers' names of activation functions."""


@dataclass
class Tensors:
    """A checkpoint's tensors, every one of which is taken, or left with a reason.

    Attributes
    ----------
    found : dict
        By the name in the file, without the family's prefix; gamma and beta as weight and bias.
    path : Path
        For messages.
    left : dict
        Pattern of names: why tensors of such names are not needed.
    """

    found: dict[str, Array]
    path: Path
    left: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def take(self, name: str, *shape: int) -> Array:
        """A tensor of a shape; zeros if it is missing or does not fit, which `finish` raises."""
        if math.prod(shape) > _MOST:
            raise InputError(f"{self.path}: by config.json, {name} has shape {shape}, which no file holds.")
        if name not in self.found:
            self.problems.append(f"{self.path} lacks {name} of shape {shape}.")
            return np.broadcast_to(np.float32(0), shape)  # takes no memory, whatever the configuration says
        self._taken.add(name)
        array = self.found[name]
        if array.shape != shape:
            self.problems.append(f"{self.path}: {name} has shape {array.shape}; by config.json it is {shape}.")
            return np.broadcast_to(np.float32(0), shape)
        try:
            require_finite({name: array}, str(self.path))
        except InputError as error:
            self.problems.append(str(error))
        return array

    def layers(self, wanted: int) -> range:
        """Numbers of layers, of which there are no more than tensors, so that one that is missing is found soon."""
        return range(min(wanted, len(self.found)))

    def take_off_prefix(self, anchor: str) -> None:
        """Take off the prefix that all tensors of the network have, by one whose name without it is `anchor`."""
        places = [n for n in self.found if n == anchor or n.endswith("." + anchor)]
        if len(places) != 1:
            where = f"holds {' and '.join(sorted(places))}" if places else f"holds no {anchor}"
            raise InputError(f"{self.path} {where}; one network of the family config.json says is expected.")
        prefix = places[0].removesuffix(anchor)
        self.found = {n.removeprefix(prefix): array for n, array in self.found.items()}

    def leave(self, reasons: dict[str, str]) -> None:
        """Names (shell patterns) of tensors that are not needed, and why."""
        self.left |= reasons

    def finish(self) -> list[str]:
        """A sentence for what is not used.

        Raises
        ------
        InputError
            With every problem: tensors that are missing, of a wrong shape or not finite, and those that have no place.
        """
        groups: dict[str, list[str]] = {}
        unknown = []
        for name in self.found.keys() - self._taken:
            reason = next((r for pattern, r in self.left.items() if fnmatchcase(name, pattern)), None)
            if reason is None:
                unknown.append(name)
            else:
                groups.setdefault(reason, []).append(name)
        if unknown:
            self.problems.append(
                f"{self.path} has {len(unknown)} tensors that have no place in the model: "
                f"{', '.join(sorted(unknown)[:8])}."
            )
        if self.problems:
            most = 12
            more = [f"And {len(self.problems) - most} more."] if len(self.problems) > most else []
            raise InputError("\n".join(self.problems[:most] + more))
        return [f"{_named(names)}: {reason}" for reason, names in groups.items()]


def _named(names: list[str]) -> str:
    ordered = sorted(names)
    return ordered[0] + (f" and {len(ordered) - 1} more" if len(ordered) > 1 else "")


def read_tensors(folder: Path) -> Tensors:
    """The tensors of a folder's ``model.safetensors``, or of the files that ``model.safetensors.index.json`` names.

    Raises
    ------
    InputError
        If files are missing or unreadable, do not fit their index, or hold a format other than float32, float16,
        bfloat16 and float64.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return Tensors(_read(single), single)
    if not index.exists():
        others = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".h5", ".msgpack", ".gguf", ".pt"))
        hint = f" (there is {others[0]}; save the model as safetensors)" if others else ""
        raise InputError(f"model folder {folder}: there is no model.safetensors, and no {index.name}{hint}.")
    places = read_json(index, "index").get("weight_map")
    if not isinstance(places, dict):
        raise InputError(f"{index} has no weight_map.")
    found: dict[str, Array] = {}
    for name in sorted(set(places.values())):
        shard = inside(folder, str(name), str(index))
        tensors = _read(shard)
        wanted = {_modern(t) for t, file in places.items() if file == name}
        for what, names in (
            ("lacks", wanted - tensors.keys()),
            ("has, beside what its index says,", tensors.keys() - wanted),
        ):
            if names:
                raise InputError(f"{shard} {what} {_named(list(names))}.")
        found |= tensors
    return Tensors(found, index)


def _modern(name: str) -> str:
    """TensorFlow's names of a LayerNorm's parameters, which early checkpoints kept."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _read(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}.") from error
    found, unknown = {}, []
    for name, entry in entries:
        kind, raw = entry["dtype"], entry["data"]
        if kind == "I64" and name.endswith(("position_ids", "token_type_ids")):
            # Counting numbers and zeros, which early versions of transformers stored and none reads.
            array = np.frombuffer(raw, "<i8").astype(np.float32)
        elif kind == "BF16":
            array = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif kind in _TYPES:
            with np.errstate(over="ignore"):
                array = np.frombuffer(raw, _TYPES[kind]).astype(np.float32)
        else:
            unknown.append(f"{name} ({kind})")
            continue
        if _modern(name) in found:
            raise InputError(f"{path} holds {_modern(name)} twice, by its new name and its old.")
        found[_modern(name)] = array.reshape(entry["shape"])
    if unknown:
        raise InputError(
            f"{path} holds {len(unknown)} tensors of a format that is not supported: {', '.join(unknown[:4])}; "
            "float32, float16 and bfloat16 are."
        )
    return found

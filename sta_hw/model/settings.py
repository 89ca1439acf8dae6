"""A model's configuration, every key of which is used, refused by name, or listed as unused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..spec.patterns import listed

__all__ = ["SCORINGS", "Settings"]

SCORINGS = {"softmax": "share", "sigmoid": "probability", "none": "value"}
"""What logits become: shares of 1, each a probability of its own, or values as they are; and what a score is called."""

# What PreTrainedConfig keeps of training, generation, bookkeeping: no operation of an encoder depends on it.
_MEANINGLESS = frozenset({
        "_attn_implementation", "_commit_hash", "_name_or_path", "_num_labels", "architectures", "attention_dropout",
        "attention_probs_dropout_prob", "attn_implementation", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
        "chunk_size_feed_forward", "classifier_dropout", "cross_attention_hidden_size", "decoder_start_token_id",
        "diversity_penalty", "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id",
        "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_decoder_ids",
        "forced_eos_token_id", "gradient_checkpointing", "hidden_dropout_prob", "id2label", "initializer_factor",
        "initializer_range", "is_encoder_decoder", "label2id", "language", "length_penalty", "max_length", "min_length",
        "model_type", "name_or_path", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels",
        "num_return_sequences", "output_attentions", "output_hidden_states", "output_past", "output_scores",
        "pad_token_id", "prefix", "problem_type", "remove_invalid_values", "repetition_penalty", "return_dict",
        "return_dict_in_generate", "sep_token_id", "suppress_tokens", "task_specific_params", "temperature",
        "tf_legacy_loss", "tie_encoder_decoder", "tie_weights_", "tie_word_embeddings", "tokenizer_class", "top_k",
        "top_p", "torch_dtype", "torchscript", "transformers_version", "typical_p", "use_bfloat16", "use_cache",
        "xla_device",
    })  # fmt: skip

_NEEDED: dict[str, Any] = {
    "auto_map": None, "quantization_config": None, "pruned_heads": {}, "per_layer_config": None, "is_decoder": False,
    "add_cross_attention": False,
}  # fmt: skip
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
        self._unused: list[str] = []

    def problem(self, sentence: str) -> None:
        """Something that is refused; `finish` raises it with all others."""
        self.problems.append(f"{self.path}: {sentence}")

    def value(self, key: str, default: Any) -> Any:
        """Whatever the file has; `default` where it has nothing."""
        self._asked.add(key)
        value = self.found.get(key)
        return default if value is None else value

    def size(self, key: str, default: int, least: int = 1) -> int:
        """An integer; `default` is what transformers takes where the file has none."""
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.problem(f"{key} is {value!r}; it is an integer of at least {least}.")
            return max(default, least)
        return value

    def sizes(self, key: str, default: int) -> tuple[int, int]:
        """Height and width, given as one integer or two."""
        value = self.value(key, default)
        pair = value if isinstance(value, list) else [value, value]
        if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in pair):
            self.problem(f"{key} is {value!r}; it is an integer of at least 1, or two.")
            return default, default
        return pair[0], pair[1]

    def epsilon(self, key: str, default: float) -> float:
        """A small number that is not negative."""
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            self.problem(f"{key} is {value!r}; it is a number from 0 to 1.")
            return default
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.value(key, default)
        if not isinstance(value, bool):
            self.problem(f"{key} is {value!r}; it is true or false.")
            return default
        return value

    def choice(self, key: str, default: str, choices: Sequence[str]) -> str:
        """One of some words."""
        value = self.value(key, default)
        if value not in choices:
            self.problem(f"{key} {value!r} is not supported; it is {listed(choices)}.")
            return default
        return value

    def function(self, key: str, default: str) -> str:
        """An activation function, under its name in `fp32.FUNCTIONS`."""
        return _FUNCTIONS[self.choice(key, default, list(_FUNCTIONS))]

    def require(self, key: str, wanted: Any, why: str) -> None:
        """Refuse any other value than the one wanted, which is also transformers' where the file has none."""
        value = self.value(key, wanted)
        if value != wanted:
            self.problem(f"{key} = {json.dumps(value)}: {why}.")

    def pass_over(self, keys: str) -> None:
        """Keys, separated by spaces, that do not change what this family computes."""
        self._asked.update(keys.split())

    def list_unused(self, keys: Iterable[str]) -> None:
        """Keys of an object within the file that change nothing, as `finish` is to name them."""
        self._unused += keys

    def part(self, key: str, over: str) -> Settings:
        """The configuration of a part, with what another key says in place of it."""
        found, more = ({} if v is None else v for v in (self.value(key, {}), self.value(over, {})))
        if not isinstance(found, dict) or not isinstance(more, dict):
            raise InputError(f"{self.path}: {key} and {over} are objects of names and values.")
        part = Settings({**found, **more}, Path(f"{self.path}, {key}"))
        self._parts.append(part)
        return part

    @property
    def architecture(self) -> str:
        """The class that wrote it, such as ``BertForSequenceClassification``; empty if not said."""
        named = self.found.get("architectures") or [""]
        if not isinstance(named, list) or not isinstance(named[0], str):
            self.problem(f"architectures is {str(named)[:60]!r}; it is a list of a class's name.")
            return ""
        return named[0]

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

    def scoring(self, classes: int) -> str:
        """What makes scores of so many classes' logits: of `SCORINGS`, the one that transformers' pipelines take."""
        kind = self.choice("problem_type", "single_label_classification",
                           ["regression", "single_label_classification", "multi_label_classification"])  # fmt: skip
        if kind == "regression":
            return "none"
        return "sigmoid" if kind == "multi_label_classification" or classes == 1 else "softmax"

    def finish(self) -> list[str]:
        """Keys that are not used, those of its parts too.

        Raises
        ------
        InputError
            With every problem; among them keys that are not understood.
        """
        unused = self._unused + self._close()
        for part in self._parts:
            unused += part._close()
            self.problems += part.problems
        if self.problems:
            raise InputError("\n".join(self.problems))
        return sorted(set(unused))

    def _close(self) -> list[str]:
        for key, harmless in _NEEDED.items():
            if key not in self._asked and self.found.get(key) not in (None, harmless):
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

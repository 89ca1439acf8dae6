"""Text to tokens and back, for decoders: what ``tokenizer.json`` says, or byte pairs as a GGUF file lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arguments import text_of
from ..errors import InputError
from .gguf import Gguf
from .tokenizer import TextTokenizer, decoded, encoded

__all__ = ["Streamed", "Vocabulary", "tokenizer_of", "unused_tokenizer_keys"]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {
    "qwen2": rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}",
    "llama-bpe": rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}",
}
"""Where words begin, as ``tokenizer.ggml.pre`` names it; ``gpt-2`` and ``smollm`` (single digits) have GPT-2's own."""
_KNOWN = ("gpt-2", "smollm", *_SPLITS)
_NORMAL, _CONTROL, _USER = 1, 3, 4
"""ggml's kinds of tokens: the last two are found in a text before it is split."""
_KINDS = range(7)
_READ = (
    "model", "pre", "tokens", "merges", "token_type", "add_space_prefix", "add_bos_token", "add_eos_token",
    "bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id", "eot_token_id", "eom_token_id",
)  # fmt: skip
_IDLE = ("scores", "precompiled_charsmap", "remove_extra_whitespaces", "token_type_count", "add_sep_token")
"""Keys behind ``tokenizer.ggml.`` that are used, and those of other kinds of tokenizers; so is any other token's id."""


@dataclass(frozen=True)
class Vocabulary:
    """A decoder's tokenizer.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer
        Without padding and truncation.
    begin : tuple of int
        Tokens that stand ahead of every text.
    """

    tokenizer: Any
    begin: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """The number of tokens."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str, *, begin: bool = True) -> list[int]:
        """Token ids; with `begin`, the tokens ahead of every text come first."""
        ids = encoded(self.tokenizer, text_of(text, "the text"), special=False)
        return [*self.begin, *ids] if begin else ids

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of tokens, control tokens left out unless `special`."""
        return decoded(self.tokenizer, ids, special=special)

    def number(self, token: str) -> int | None:
        """The id of a token, None if there is none of that name."""
        found = self.tokenizer.token_to_id(token)
        return None if found is None else int(found)


class Streamed:
    """Text token by token: each one's share as soon as no later token changes it.

    A character of several bytes may be spread over tokens; it is given with its last one. Some tokenizers leave out a
    blank where a text begins: the tokens `before` say that it does not begin here.
    """

    def __init__(self, vocabulary: Vocabulary, before: Sequence[int] = ()) -> None:
        self.vocabulary = vocabulary
        self._ids: list[int] = list(before)
        self._given = vocabulary.decode(self._ids) if before else ""

    def push(self, token: int) -> str:
        """What is new with a token."""
        self._ids.append(token)
        text = self.vocabulary.decode(self._ids)
        if text.endswith("�"):
            return ""
        new, self._given = self._behind(text), text
        return new

    def rest(self) -> str:
        """What was held back: the beginning of a character that never ended."""
        return self._behind(self.vocabulary.decode(self._ids))

    def _behind(self, text: str) -> str:
        """What is not given yet: where the tokens before end amid a character, that character as well."""
        given = len(self._given)
        while not text.startswith(self._given[:given]):
            given -= 1
        return text[given:]


def _from_folder(folder: Path) -> Vocabulary:
    if not (folder / "tokenizer.json").exists():
        raise InputError(f"model folder {folder} has no tokenizer.json, which text generation needs.")
    tokenizer = TextTokenizer.load(folder).tokenizer
    # What the tokenizer puts ahead of a text, if that is all it adds.
    bare, whole = (encoded(tokenizer, "a", special=s) for s in (False, True))
    begin = whole[: len(whole) - len(bare)]
    if [*begin, *bare] != whole:
        raise InputError(
            f"tokenizer {folder / 'tokenizer.json'} adds tokens behind a text, which a decoder goes on with."
        )
    return Vocabulary(tokenizer, tuple(begin))


def _from_gguf(file: Gguf) -> Vocabulary:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    model, split = (file.get(f"tokenizer.ggml.{n}", str, "") for n in ("model", "pre"))
    if model != "gpt2":
        raise InputError(f"{file.path}: its tokenizer is {model!r}; gpt2 (byte pairs) is supported.")
    if split not in _KNOWN:
        raise InputError(
            f"{file.path}: tokenizer.ggml.pre {split!r} is not supported; it is one of {', '.join(_KNOWN)}."
        )
    tokens, merges, kinds = (file.get(f"tokenizer.ggml.{n}", list, []) for n in ("tokens", "merges", "token_type"))
    if "tokenizer.ggml.merges" not in file.metadata:
        raise InputError(f"{file.path} lacks tokenizer.ggml.merges, which byte pairs are made by.")
    pairs: list[Any] = [tuple(m.split(" ")) for m in merges if isinstance(m, str)]
    if not tokens or not all(isinstance(t, str) for t in tokens) or len(set(tokens)) != len(tokens):
        raise InputError(f"{file.path}: tokenizer.ggml.tokens is no list of different words.")
    if len(pairs) != len(merges) or any(len(p) != 2 for p in pairs) or (kinds and len(kinds) != len(tokens)):
        raise InputError(
            f"{file.path}: tokenizer.ggml.merges is a list of pairs, token_type one number for each token."
        )
    if odd := [place for place, kind in enumerate(kinds) if kind not in _KINDS]:
        raise InputError(
            f"{file.path}: tokenizer.ggml.token_type {kinds[odd[0]]!r} of token {odd[0]} is unknown; ggml has 0 to 6."
        )
    try:
        tokenizer = Tokenizer(BPE({t: i for i, t in enumerate(tokens)}, pairs, ignore_merges=split == "llama-bpe"))
    except Exception as error:  # The library raises no narrower one.
        raise InputError(f"{file.path}: tokenizer.ggml.merges: {error}.") from error
    steps: list[Any] = []
    if split == "smollm":
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if split in _SPLITS:
        steps.append(pre_tokenizers.Split(Regex(_SPLITS[split]), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split not in _SPLITS))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if split == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    added: dict[int, Callable[[list[Any]], Any]] = {
        _CONTROL: tokenizer.add_special_tokens, _USER: tokenizer.add_tokens,
    }  # fmt: skip
    # What begins and ends texts is control, whatever its kind; some files have no kinds, or one for all.
    marks = {file.get(f"tokenizer.ggml.{name}_token_id", int) for name in ("bos", "eos", "eot", "eom")}
    kinds = [_CONTROL if n in marks else kind for n, kind in enumerate(kinds or [_NORMAL] * len(tokens))]
    for kind, add in added.items():
        add([AddedToken(t, normalized=False) for t, k in zip(tokens, kinds, strict=True) if k == kind])
    if file.get("tokenizer.ggml.add_space_prefix", bool, False):
        raise InputError(f"{file.path}: tokenizer.ggml.add_space_prefix = true is not supported for byte pairs.")
    begin: tuple[int, ...] = ()
    if file.get("tokenizer.ggml.add_bos_token", bool, split == "llama-bpe"):  # as llama.cpp takes a file without it
        number = file.get("tokenizer.ggml.bos_token_id", int)
        if number is None or not 0 <= number < len(tokens):
            raise InputError(f"{file.path}: add_bos_token is true, and bos_token_id {number}; it is a token's number.")
        begin = (number,)
    if file.get("tokenizer.ggml.add_eos_token", bool, False):
        raise InputError(f"{file.path}: tokenizer.ggml.add_eos_token = true: a decoder goes on behind a text's end.")
    return Vocabulary(tokenizer, begin)


def tokenizer_of(source: Path | Gguf) -> Vocabulary:
    """The tokenizer of a folder with ``tokenizer.json``, or of a GGUF file.

    Raises
    ------
    InputError
        If there is none, it cannot be read, or it is of a kind that is not supported.
    """
    return _from_gguf(source) if isinstance(source, Gguf) else _from_folder(source)


def unused_tokenizer_keys(file: Gguf) -> list[str]:
    """What a GGUF file says of its tokenizer beyond what byte pairs need.

    Raises
    ------
    InputError
        If a key is not understood: tokens may depend on it.
    """
    ours = "tokenizer.ggml."
    used = {"tokenizer.chat_template", *(ours + name for name in _READ)}
    keys = [k for k in file.metadata if k.startswith("tokenizer.") and k not in used]
    if odd := [k for k in keys if k.startswith(ours) and not k.endswith(("_token_id", *_IDLE))]:
        raise InputError(
            f"{file.path}: {', '.join(odd)} {'is' if len(odd) == 1 else 'are'} not understood; if no token depends on "
            "it, take it out."
        )
    return keys

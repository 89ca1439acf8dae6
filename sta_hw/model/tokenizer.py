"""From text to token ids, as the checkpoint's own tokenizer does it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json, require_file

__all__ = ["TextTokenizer", "decoded", "encoded"]

_SPECIAL = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "cls_token": "[CLS]", "pad_token": "[PAD]", "mask_token": "[MASK]",
}  # fmt: skip


_SAMPLE = "It's a test, 1 or 2."
"""A tokenizer that fails is found by it when it is loaded, and not by the first text."""


@contextmanager
def _failures() -> Iterator[None]:
    """What the library fails with, as InputError: it raises no narrower exception, and no Exception where it panics."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"the tokenizer fails: {' '.join(str(error).split())}.") from error


def encoded(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    """Token ids of a text; with the tokens that belong around it if `special`.

    Raises
    ------
    InputError
        If the library fails, as it does for some tokenizers that it has read.
    """
    with _failures():
        return list(tokenizer.encode(text, add_special_tokens=special).ids)


def decoded(tokenizer: Any, ids: Sequence[int], *, special: bool) -> str:
    """The text of token ids, control tokens left out unless `special`.

    Raises
    ------
    InputError
        If the library fails.
    """
    with _failures():
        return str(tokenizer.decode(list(ids), skip_special_tokens=not special))


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing is written on the process's standard error: the library prints a stack there when it panics."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _require_working(tokenizer: Any, path: Path) -> None:
    """Refuse a tokenizer that fails, or draws: the same text must be the same tokens."""
    if getattr(tokenizer.model, "dropout", None):
        raise InputError(
            f"tokenizer {path}: dropout is {tokenizer.model.dropout:.3g}, which draws tokens; set it to null."
        )
    try:
        with _silent():
            decoded(tokenizer, encoded(tokenizer, _SAMPLE), special=True)
    except InputError as error:
        if not isinstance(
            error.__cause__, Exception
        ):  # others may be this text's alone, such as a word that is unknown
            raise InputError(f"{path}: {error}") from error


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer
        Without padding and truncation.
    lower : bool
        Texts are lower-cased first, beside what the tokenizer does.
    cuts_beginnings : bool
        Of a text that is too long the beginning is cut, not the end.
    """

    tokenizer: Any
    lower: bool = False
    cuts_beginnings: bool = False

    @staticmethod
    def load(folder: Path, *, lower: bool = False) -> TextTokenizer:
        """Load ``tokenizer.json``, or WordPiece's ``vocab.txt`` with what ``tokenizer_config.json`` says.

        Raises
        ------
        InputError
            If there is neither, one cannot be read, or the two files contradict each other.
        """
        from tokenizers import Tokenizer

        about: dict[str, Any] = {}
        if (folder / "tokenizer_config.json").exists():
            about = read_json(folder / "tokenizer_config.json", "tokenizer configuration")
        path, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
        if path.exists():
            try:
                require_file(path)
                tokenizer = Tokenizer.from_file(str(path))
            except Exception as error:  # The library raises no narrower one.
                raise InputError(f"tokenizer {path}: {error}.") from error
            _agree(read_json(path, "tokenizer"), about, path)
            _complete(tokenizer, about, path)
        elif vocabulary.exists():
            tokenizer = _word_piece(vocabulary, about)
        else:
            others = [n for n in ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.json")
                      if (folder / n).exists()]  # fmt: skip
            hint = (
                f"; {others[0]} alone is not supported, and transformers writes tokenizer.json from it"
                if others
                else ""
            )
            raise InputError(f"model folder {folder} has no tokenizer.json and no vocab.txt{hint}.")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        _require_working(tokenizer, path if path.exists() else vocabulary)
        side = about.get("truncation_side") or "right"
        if side not in ("left", "right"):
            raise InputError(f"{folder / 'tokenizer_config.json'}: truncation_side is {side!r}; it is left or right.")
        return TextTokenizer(tokenizer, lower, side == "left")

    @cached_property
    def marks(self) -> int:
        """Tokens that it puts around every text."""
        return int(self.tokenizer.num_special_tokens_to_add(False))

    @property
    def text(self) -> str:
        """The tokenizer as ``tokenizer.json`` has it."""
        return self.tokenizer.to_str()

    def token_ids(self, text: str, most: int | None = None) -> list[int]:
        """Token ids of a text, with the marks at both ends; cut to `most`, marks included.

        Raises
        ------
        InputError
            If the tokenizer fails, or its marks alone are more than `most`.
        """
        text = text.lower() if self.lower else text
        if most is None:
            return encoded(self.tokenizer, text)
        with _failures():
            self.tokenizer.enable_truncation(most, direction="left" if self.cuts_beginnings else "right")
        try:
            found = encoded(self.tokenizer, text)
        finally:
            self.tokenizer.no_truncation()
        if len(found) > most:
            raise InputError(f"a text is cut at {most} tokens, and the tokenizer's marks around it are more.")
        return found

    def token(self, number: int) -> str:
        """The token of an id."""
        return self.tokenizer.id_to_token(number)


_BERT = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
"""Classes of transformers that build a tokenizer of BERT's parts, with or without ``Fast`` behind the name."""
_WITH_PREFIX = ("GPT2Tokenizer", "Qwen2Tokenizer", "RobertaTokenizer")
"""Classes that put their own setting of a blank ahead of a text in place of whatever is there."""
_BERTS_PARTS = {
    "normalizer": ("BertNormalizer",), "pre_tokenizer": ("BertPreTokenizer",),
    "post_processor": ("TemplateProcessing", "BertProcessing"),
}  # fmt: skip
"""Of a tokenizer.json: what these classes put in place of whatever is there."""


def _agree(found: dict[str, Any], about: dict[str, Any], path: Path) -> None:
    """Refuse parts that transformers would set to something else when it loads the folder."""
    kind, said = str(about.get("tokenizer_class")).removesuffix("Fast"), about
    splitting = found.get("pre_tokenizer") or {}
    for step in splitting.get("pretokenizers") or [splitting]:
        own, wanted = step.get("add_prefix_space"), about.get("add_prefix_space")
        if kind in _WITH_PREFIX and step.get("type") == "ByteLevel" and wanted is not None and own is not wanted:
            raise InputError(
                f"{path} has add_prefix_space = {own}, and tokenizer_config.json {wanted}; make them agree."
            )
    if kind in _BERT:
        about = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True} | about
        for part, wanted in _BERTS_PARTS.items():
            value = found.get(part)
            own = value.get("type") if isinstance(value, dict) else None
            if own not in wanted:
                raise InputError(
                    f"{path} has {part} {own or 'null'}, and transformers' {kind} puts a {wanted[0]} there; with "
                    "tokenizer_class PreTrainedTokenizerFast in tokenizer_config.json the file counts as it is."
                )
    normalizer = found.get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return
    names = {
        "do_lower_case": "lowercase", "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "handle_chinese_chars",
    }  # fmt: skip
    for theirs, ours in names.items():
        if theirs in about and about[theirs] != normalizer.get(ours):
            raise InputError(
                f"{path} has {ours} = {normalizer.get(ours)}, and tokenizer_config.json {theirs} = {about[theirs]}"
                f"{'' if theirs in said else ' (as nothing is said)'}; make them agree."
            )


_NAMED = (*_SPECIAL, "bos_token", "eos_token")
"""Keys of tokenizer_config.json that have a token each."""
_LISTED = ("additional_special_tokens", "extra_special_tokens")
"""Keys that have several."""
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
"""How a token is found in a text: the fields of the library's ``AddedToken``."""


def _complete(tokenizer: Any, about: dict[str, Any], path: Path) -> None:
    """Have `tokenizer` find whole what only files beside tokenizer.json say is, as transformers does.

    They are tokenizer_config.json, and of older folders special_tokens_map.json and added_tokens.json.

    Raises
    ------
    InputError
        If such a token is not in the vocabulary, or has another number there.
    """
    from tokenizers import AddedToken

    where, folder = path.with_name("tokenizer_config.json"), path.parent
    if about.get("split_special_tokens"):
        raise InputError(f"{where}: split_special_tokens = true is not supported; control tokens are found whole.")
    numbered, older = about.get("added_tokens_decoder"), {}
    if numbered is None:  # before transformers 4.34
        others = [folder / name for name in ("special_tokens_map.json", "added_tokens.json")]
        named, older = (read_json(p, "tokens") if p.exists() else {} for p in others)
        about = about | named
    if numbered is not None and not isinstance(numbered, dict):
        raise InputError(f"{where}: added_tokens_decoder is {str(numbered)[:60]!r}; it is an object of numbers.")

    def content(token: Any) -> str | None:
        found = token.get("content") if isinstance(token, dict) else token
        return found if isinstance(found, str) and found else None

    def add(word: str, number: int | None, flags: dict[str, Any]) -> None:
        own = tokenizer.token_to_id(word)
        if own is None or number not in (None, own):
            has = "has no such token" if own is None else f"has it as {own}"
            raise InputError(
                f"{folder} adds the token {word[:60]!r}{'' if number is None else f' as {number}'}, and its "
                f"tokenizer.json {has}; save the tokenizer with transformers, which writes it there."
            )
        tokenizer.add_tokens([AddedToken(word, **{"normalized": not flags["special"]} | flags)])

    def flags_of(token: Any) -> dict[str, bool]:
        return {k: bool(token[k]) for k in _FLAGS if isinstance(token, dict) and k in token}

    known = {t.content: t.__getstate__() for t in tokenizer.get_added_tokens_decoder().values()}
    for number, token in (numbered or {}).items():
        word, given = content(token), {"special": False} | flags_of(token)
        if word is None or not number.isdecimal():
            raise InputError(f"{where}: added_tokens_decoder has {str(token)[:60]!r} as {number!r}; it is a token.")
        wanted = {"normalized": not given["special"]} | dict.fromkeys(_FLAGS[:3], False) | given
        if word not in known or any(known[word][k] != wanted[k] for k in _FLAGS):
            add(word, int(number), given)
            known[word] = wanted
    for word, number in older.items():
        if word not in known:
            add(word, number if isinstance(number, int) else None, {"special": False})
    listed: list[Any] = []
    for key in _LISTED:
        several = about.get(key) or []
        if not isinstance(several, list | dict):
            raise InputError(f"{where}: {key} is {str(several)[:60]!r}; it is a list of tokens.")
        listed += several.values() if isinstance(several, dict) else several
    for token in listed:
        if (word := content(token)) is not None and word not in known:
            add(word, None, flags_of(token) | {"special": True})
    for token in (about.get(name) for name in _NAMED):  # one that is not in the vocabulary stands in no text
        word = content(token)
        if word is not None and word not in known and tokenizer.token_to_id(word) is not None:
            add(word, None, flags_of(token) | {"special": True})


def _word_piece(vocabulary: Path, about: dict[str, Any]) -> Any:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.implementations import BertWordPieceTokenizer

    def special(key: str) -> str:
        token = about.get(key) or _SPECIAL[key]
        found = token.get("content") if isinstance(token, dict) else token
        if not isinstance(found, str):
            raise InputError(f"{vocabulary}: {key} of tokenizer_config.json is {str(token)[:60]!r}; it is a text.")
        return found

    for flag in ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "do_basic_tokenize"):
        if not isinstance(about.get(flag), bool | None):
            raise InputError(f"{vocabulary}: {flag} of tokenizer_config.json is {about[flag]!r}; it is true or false.")
    kind = str(about.get("tokenizer_class") or "BertTokenizer").removesuffix("Fast")
    if kind not in _BERT:
        raise InputError(f"{vocabulary}: tokenizer_class {kind} is not supported without a tokenizer.json.")
    if about.get("do_basic_tokenize") is False or about.get("never_split"):
        raise InputError(f"{vocabulary}: do_basic_tokenize = false and never_split are not supported.")
    try:
        # One token a line, ends of lines and nothing else taken off, as transformers reads it.
        require_file(vocabulary)
        words = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        table = {word.rstrip("\r"): number for number, word in enumerate(words)}
    except (OSError, ValueError) as error:
        raise InputError(f"tokenizer {vocabulary}: {error}.") from error
    missing = [t for t in map(special, ("unk_token", "sep_token", "cls_token")) if t not in table]
    if missing:
        raise InputError(f"tokenizer {vocabulary} has no token {', '.join(missing)}.")
    settings: dict[str, Any] = {key: special(key) for key in _SPECIAL} | {
        "lowercase": about.get("do_lower_case") is not False, "strip_accents": about.get("strip_accents"),
        "handle_chinese_chars": about.get("tokenize_chinese_chars") is not False,
    }  # fmt: skip
    tokenizer = BertWordPieceTokenizer(table, **settings)
    added = vocabulary.with_name("added_tokens.json")
    if added.exists():
        numbers = read_json(added, "added tokens")
        if wrong := [token for token, number in numbers.items() if type(number) is not int]:
            raise InputError(f"{added}: the id of {wrong[0]!r} is {numbers[wrong[0]]!r}; it is a whole number.")
        for token, number in sorted(numbers.items(), key=lambda item: item[1]):
            tokenizer.add_tokens([AddedToken(token, normalized=False)])
            if tokenizer.token_to_id(token) != number:
                raise InputError(f"{added}: {token!r} would get the id {tokenizer.token_to_id(token)}, not {number}.")
    return Tokenizer.from_str(tokenizer.to_str())

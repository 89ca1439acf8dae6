"""Texts that decoders are calibrated with and pruned for, in tokens."""

from __future__ import annotations

from collections.abc import Sequence

from ..arguments import several, token_ids
from ..compiler.prune import pruning_sentences
from ..errors import InputError
from ..model.language import LanguageModel
from ..model.minilm import calibration_sentences, evaluation_sentences

__all__ = ["CONTEXT", "as_conversation", "calibration_texts", "given_texts", "pruning_texts"]

CONTEXT = 2048
"""Tokens of a context, where nothing else is said and the model was made for as many."""
_PRUNING_TOKENS = 256
"""Of a text that is pruned for."""


def calibration_texts(language: LanguageModel, count: int = 10, tokens: int = 256) -> list[list[int]]:
    """Texts of docstrings, each of whole sentences up to so many tokens, or what the model has positions for."""
    sentences = [*calibration_sentences(), *evaluation_sentences()]
    return _joined(language, sentences, min(tokens, language.positions // 2 or tokens))[:count]


def as_conversation(language: LanguageModel, ids: Sequence[int]) -> list[int]:
    """A text behind a conversation's prefix: the first half as a message, the other as its answer."""
    vocabulary, middle = language.vocabulary, len(ids) // 2
    one, other = vocabulary.decode(ids[:middle]), vocabulary.decode(ids[middle:])
    messages = [{"role": "user", "content": one}, {"role": "assistant", "content": other}]
    return language.chat_ids(messages)[len(language.chat_prefix()) :]


def pruning_texts(language: LanguageModel, sentences: Sequence[str] | None = None) -> list[list[int]]:
    """Texts to prune for, behind the token that texts begin with: of `pruning_sentences`, or of others if given."""
    begin = list(language.begin)
    most = min(_PRUNING_TOKENS, (language.positions or CONTEXT) - len(begin))
    return [[*begin, *ids] for ids in _joined(language, sentences or pruning_sentences(), most)]


def _joined(language: LanguageModel, sentences: Sequence[str], tokens: int) -> list[list[int]]:
    """Sentences, one behind the other, in texts of up to so many tokens."""
    found: list[list[int]] = [[]]
    for sentence in sentences:
        if len(found[-1]) >= tokens:
            found.append([])
        ids = language.vocabulary.encode(("\n\n" if found[-1] else "") + sentence, begin=False)
        found[-1] = [*found[-1], *ids][:tokens]
    return found


def given_texts(texts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Token ids of texts that a caller gives, checked.

    Raises
    ------
    InputError
        If they are none, or a text has no token.
    """
    found = [token_ids(t, f"text {n} of texts") for n, t in enumerate(several(texts, "texts", "texts' token ids"), 1)]
    if empty := [n for n, t in enumerate(found, 1) if not t]:
        raise InputError(f"text {empty[0]} of texts has no tokens; there must be at least one.")
    return found

"""Prompts: the tokens of what text is generated behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ..arguments import several, token_ids
from ..compiler.decoder.integers import IntegerDecoderGraph
from ..compiler.decoder.run import behind_prefix
from ..errors import InputError
from ..model.language import LanguageModel
from .growing import require_room

__all__ = ["Prompt", "prompt_ids", "prompts_ids"]

Prompt: TypeAlias = str | Sequence[int] | Sequence[dict[str, str]]
"""A text, token ids, or a conversation: messages with ``role`` and ``content``."""


def prompt_ids(language: LanguageModel, quantized: IntegerDecoderGraph | None, prompt: Prompt) -> list[int]:
    """Tokens of a text as it is, of a conversation, or the given ones, checked.

    A text begins with the constant prefix of the network in integers, if that is given, in place of the tokenizer's
    begin token.

    Raises
    ------
    InputError
        If there is none, one is not in the vocabulary, or the model has no chat template.
    """
    if isinstance(prompt, str):
        language.require_short(prompt)
        found = language.vocabulary.encode(prompt)
    else:
        given = several(prompt, "the prompt", "token ids, or of messages")
        messages = any(isinstance(one, Mapping) for one in given)
        found = language.chat_ids(given) if messages else token_ids(given, "the prompt")
    if not found:
        raise InputError("the prompt has no tokens; there must be at least one.")
    if quantized is not None and isinstance(prompt, str):
        found = [*quantized.prefix, *found[len(language.vocabulary.begin) :]]
    rows = language.rows
    for place, token in enumerate(found):
        if not 0 <= token < rows:
            raise InputError(f"token {place} of the prompt is {token}; the vocabulary has 0 to {rows - 1}.")
    return found


def prompts_ids(
    language: LanguageModel, quantized: IntegerDecoderGraph | None, prompts: Sequence[Prompt], capacity: int
) -> list[list[int]]:
    """Tokens of several prompts, each of which a context of so many tokens holds; see `prompt_ids`.

    Raises
    ------
    InputError
        If there is no prompt, or with every one that is refused, by its number from 1.
    """
    given = several(prompts, "prompts", "prompts")
    if not given:
        raise InputError("there is no prompt; give one at least.")
    found, problems = [], []
    for number, prompt in enumerate(given, 1):
        try:
            found.append(prompt_ids(language, quantized, prompt))
            require_room(found[-1], capacity)
            if quantized is not None:
                behind_prefix(quantized, 0, capacity, found[-1])
        except InputError as error:
            problems.append(f"prompt {number}: {error}")
    if problems:
        raise InputError("\n".join(problems))
    return found

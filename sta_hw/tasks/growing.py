"""A text that grows token by token, from logits, until something ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ..arguments import require_kind, several, text_of, whole
from ..errors import InputError
from ..model.byte_pairs import Streamed
from ..model.language import LanguageModel
from .sampling import Sampler, Sampling
from .session import Decoder

__all__ = ["Generated", "Growing", "own_decoder", "require_room", "require_sampling"]


def own_decoder(session: Any, model: Any, *kinds: type) -> Decoder:
    """What computes a session of a `TextModel`; `kinds` are those that a session may be of.

    Raises
    ------
    InputError
        If it is none, or another model's, whose text it would give.
    """
    require_kind(session, "session", *kinds)
    decoder: Decoder = session.decoders[0] if hasattr(session, "decoders") else session.decoder
    if decoder.of is not (model.language.graph if model.quantized is None else model.quantized):
        raise InputError("session is another model's; make one with session or batch of this one.")
    return decoder


@dataclass
class Generated:
    """What came out.

    Attributes
    ----------
    prompt : list of int
        Tokens of the prompt.
    ids : list of int
        Those that were generated; the one that ended the text is the last of them.
    text : str
    ended : str
        Why it ends: ``stop`` (a token or text that ends it), ``length`` (as many as were asked for) or ``context``
        (the context is full).
    prompt_seconds, seconds : float
        For the prompt, and for all tokens after the first.
    passes : int
        How often all weights were read for tokens after the first.
    drafted, accepted : int
        Tokens that were looked up in the text, and those of them that it went on with.
    """

    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    text: str = ""
    ended: str = "length"
    prompt_seconds: float = 0.0
    seconds: float = 0.0
    passes: int = 0
    drafted: int = 0
    accepted: int = 0


def require_room(ids: Sequence[int], capacity: int) -> None:
    """Refuse a prompt that a context of so many tokens does not hold.

    Raises
    ------
    InputError
    """
    if len(ids) > capacity:
        raise InputError(f"the prompt has {len(ids)} tokens; the context holds {capacity}.")


def require_sampling(sampling: Sampling | None, best: int, max_tokens: int) -> None:
    """Refuse what cannot be generated: fewer than one token, or ones that depend on more than the `best` logits.

    Raises
    ------
    InputError
    """
    if whole(max_tokens, "max_tokens") < 1:
        raise InputError(f"{max_tokens} tokens are asked for; the least is 1.")
    require_kind(sampling, "sampling", Sampling, type(None))
    if sampling is not None and best and not 0 < sampling.needed <= best:
        raise InputError(
            f"the session gives the {best} largest logits alone; greedy text needs no more, nor a temperature with "
            f"top-k up to {best}."
        )


class Growing:
    """A text behind a prompt.

    Parameters
    ----------
    made : Generated
        With the prompt; what is filled as it goes.
    stop : texts that end it
    capacity : int
        Tokens of the context.

    Attributes
    ----------
    done : bool
        Whether something has ended it: `made` says what.
    """

    def __init__(
        self, language: LanguageModel, made: Generated, *, max_tokens: int, sampling: Sampling | None,
        stop: Sequence[str], capacity: int,
    ) -> None:  # fmt: skip
        self.made, self.done = made, False
        self._stops, self._most, self._capacity = language.stops, max_tokens, capacity
        self._sampler = Sampler(sampling or Sampling())
        self._streamed, self._held = Streamed(language.vocabulary, made.prompt[-8:]), _Held(stop)

    def take(self, logits: NDArray) -> str:
        """Choose the next token; the text that it adds, as far as no later token changes it."""
        made = self.made
        token = self._sampler.choose(logits)
        made.ids.append(token)
        if token in self._stops:
            return self._end("stop")
        new = self._held.push(self._streamed.push(token))
        made.text += new
        if self._held.stopped or len(made.ids) >= self._most:
            return new + self._end("stop" if self._held.stopped else "length")
        if len(made.prompt) + len(made.ids) > self._capacity:
            return new + self._end("context")
        return new

    def _end(self, why: str) -> str:
        """What was held back."""
        self.made.ended, self.done = why, True
        rest = self._held.rest(self._streamed.rest())
        self.made.text += rest
        return rest


class _Held:
    """Holds back what may be the beginning of a text that ends the text."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop = [text_of(s, "a text of stop") for s in several(stop, "stop", "texts")]
        if "" in self.stop:
            raise InputError("a text of stop is empty, which ends every text; leave it out.")
        self.stopped = False
        self._text = ""

    def push(self, new: str) -> str:
        """What can be given now."""
        self._text += new
        places = [p for s in self.stop if (p := self._text.find(s)) >= 0]
        if places:
            self.stopped = True
            given, self._text = self._text[: min(places)], ""
            return given
        held = max(
            (n for s in self.stop for n in range(1, len(s)) if self._text.endswith(s[:n])), default=0
        )  # fmt: skip
        given = self._text[: len(self._text) - held]
        self._text = self._text[len(given) :]
        return given

    def rest(self, new: str) -> str:
        """What was held back, at the end."""
        return "" if self.stopped else self.push(new) + self._text

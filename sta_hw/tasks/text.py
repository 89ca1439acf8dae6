"""Text generation: a prompt goes in, tokens come out one after the other.

>>> import sta_hw
>>> model = sta_hw.load_text_model()
>>> model.generate("The capital of France is", max_tokens=8).text
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from numpy.typing import NDArray

from ..compiler.decoder.integers import IntegerDecoderGraph, Rules
from ..compiler.decoder.quantize import quantize_decoder
from ..compiler.decoder.run import IntegerDecoder
from ..errors import InputError
from ..model.byte_pairs import Streamed
from ..model.families.decoders import NEXT
from ..model.fp32 import Cache, evaluate, value_of
from ..model.graph import Graph
from ..model.language import LanguageModel, load_language_model
from ..model.minilm import calibration_sentences, evaluation_sentences
from .sampling import Sampler, Sampling

__all__ = [
    "CONTEXT", "Decoder", "Fp32Decoder", "Generated", "Session", "TextModel", "calibration_texts", "load_text_model",
]  # fmt: skip

CONTEXT = 2048
"""Tokens of a context, where nothing else is said and the model was made for as many."""
_CHUNK = 128
"""Tokens of a prompt that are computed at a time: what lies between two layers fits caches."""


class Decoder(Protocol):
    """What computes a network token by token: a back end.

    Attributes
    ----------
    capacity : int
        Tokens that its context holds.
    length : int
        Tokens in it; setting it to less forgets the last ones.
    """

    capacity: int
    length: int

    def feed(self, ids: Sequence[int]) -> NDArray:
        """Put tokens behind those that are there; the logits of the next one, shape (tokens of the vocabulary,)."""
        ...


class Fp32Decoder:
    """The network in float32 numpy; see `Decoder`."""

    def __init__(self, graph: Graph, capacity: int) -> None:
        self.graph = graph
        self.capacity = capacity
        self.cache = Cache(capacity)
        self._head = graph.by_name[graph.by_name[NEXT].inputs[0]]

    @property
    def length(self) -> int:
        return self.cache.length

    @length.setter
    def length(self, tokens: int) -> None:
        self.cache.length = tokens

    def feed(self, ids: Sequence[int]) -> NDArray:
        """See `Decoder`; the head is computed for the last token alone."""
        before = self._head.inputs[0]
        self.cache.require(len(ids))
        for first in range(0, len(ids), _CHUNK):
            chunk = ids[first : first + _CHUNK]
            found = evaluate(self.graph, {"ids": chunk}, before, cache=self.cache, keep=(before,))
        return value_of(self._head, found[before][-1:])[0]


class Session:
    """A context that grows: of a new text, what the context begins with already is not computed again.

    Attributes
    ----------
    ids : list of int
        Tokens whose keys and values are kept.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.ids: list[int] = []

    def feed(self, ids: Sequence[int]) -> NDArray:
        """The logits of the token behind a whole text, all of whose tokens are given."""
        shared = 0
        while shared < min(len(self.ids), len(ids) - 1) and self.ids[shared] == ids[shared]:
            shared += 1
        self.decoder.length, self.ids = shared, list(ids[:shared])
        logits = self.decoder.feed(ids[shared:])
        self.ids = list(ids)
        return logits


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
    """

    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    text: str = ""
    ended: str = "length"
    prompt_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class TextModel:
    """A decoder to generate text with.

    Attributes
    ----------
    language : LanguageModel
        Network, tokenizer, chat template.
    quantized : IntegerDecoderGraph or None
        The network in the accelerator's integers, in which text is then generated; else in fp32.
    """

    language: LanguageModel
    quantized: IntegerDecoderGraph | None = None

    def in_integers(
        self, prefix: Sequence[int] | None = None, *, texts: Sequence[Sequence[int]] | None = None,
        rules: Rules | None = None, report: Callable[[str], None] = lambda _: None,
    ) -> TextModel:  # fmt: skip
        """The same model in the accelerator's integers.

        Parameters
        ----------
        prefix : token ids that every text begins with, or None
            Their keys and values are computed in fp32; a begin token if None.
        texts : token ids of texts that scales are made for, or None
            Sentences of docstrings if None; behind a prefix with a chat template's marks, as messages.

        Raises
        ------
        InputError
            As `quantize_decoder`.
        """
        plain = prefix is None
        prefix = tuple(self.language.begin if prefix is None else prefix)
        if texts is None:
            texts = calibration_texts(self.language)
            if self.language.template is not None and not plain:
                texts = [self._as_conversation(t) for t in texts]
        return replace(self, quantized=quantize_decoder(self.language.graph, texts, prefix, rules, report))

    def _as_conversation(self, ids: Sequence[int]) -> list[int]:
        """A text behind a conversation's prefix: the first half as a message, the other as its answer."""
        vocabulary, middle = self.language.vocabulary, len(ids) // 2
        one, other = vocabulary.decode(ids[:middle]), vocabulary.decode(ids[middle:])
        messages = [{"role": "user", "content": one}, {"role": "assistant", "content": other}]
        return self.language.chat_ids(messages)[len(self.language.chat_prefix()) :]

    def context(self, tokens: int | None = None) -> int:
        """The tokens of a context: as many as are wanted, or `CONTEXT`, or what the model was made for.

        Raises
        ------
        InputError
            If the model was made for fewer.
        """
        most = self.language.positions
        if tokens is not None and (tokens < 1 or (most and tokens > most)):
            raise InputError(f"a context of {tokens} tokens is out of range; the model was made for 1 to {most}.")
        return tokens or min(CONTEXT, most or CONTEXT)

    def session(self, context: int | None = None) -> Session:
        """An empty context, for several texts that have a beginning in common."""
        tokens = self.context(context)
        if self.quantized is not None:
            return Session(IntegerDecoder(self.quantized, tokens))
        return Session(Fp32Decoder(self.language.graph, tokens))

    def ids(self, prompt: str | Sequence[int] | Sequence[dict[str, str]]) -> list[int]:
        """Tokens of a text as it is, of a conversation (a list of messages), or the given ones, checked.

        Raises
        ------
        InputError
            If there is none, one is not in the vocabulary, or the model has no chat template.
        """
        if isinstance(prompt, str):
            found = self.language.vocabulary.encode(prompt)
        elif prompt and isinstance(prompt[0], dict):
            found = self.language.chat_ids(list(prompt))  # type: ignore[arg-type]
        else:
            found = [int(i) for i in prompt]  # type: ignore[arg-type]
        if not found:
            raise InputError("the prompt has no tokens; there must be at least one.")
        if self.quantized is not None and isinstance(prompt, str):
            found = [*self.quantized.prefix, *found[len(self.language.vocabulary.begin) :]]
        rows = self.language.rows
        for place, token in enumerate(found):
            if not 0 <= token < rows:
                raise InputError(f"token {place} of the prompt is {token}; the vocabulary has 0 to {rows - 1}.")
        return found

    def stream(
        self, prompt: str | Sequence[int] | Sequence[dict[str, str]], *, max_tokens: int = 128,
        sampling: Sampling | None = None, stop: Sequence[str] = (), session: Session | None = None,
        into: Generated | None = None,
    ) -> Iterator[str]:  # fmt: skip
        """Text piece by piece, as soon as no later token changes it.

        Parameters
        ----------
        prompt : str, token ids, or messages with ``role`` and ``content``
            See `ids`.
        max_tokens : int
        sampling : Sampling or None
            Greedy if None.
        stop : texts that end the text; they are not given
        session : Session or None
            The context to go on in; a new one if None.
        into : Generated or None
            What is filled as it goes.

        Raises
        ------
        InputError
            If the prompt does not fit the context; see `ids` for the others.
        """
        ids = self.ids(prompt)
        session = session or self.session()
        capacity = session.decoder.capacity
        if len(ids) > capacity:
            raise InputError(f"the prompt has {len(ids)} tokens; the context holds {capacity}.")
        if max_tokens < 1:
            raise InputError(f"{max_tokens} tokens are asked for; the least is 1.")
        made = into if into is not None else Generated(ids)
        made.prompt = ids
        sampler, streamed = Sampler(sampling or Sampling()), Streamed(self.language.vocabulary, ids[-8:])
        begun = time.perf_counter()
        logits = session.feed(ids)
        made.prompt_seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        held = _Held(stop)
        while True:
            token = sampler.choose(logits)
            made.ids.append(token)
            if token in self.language.stops:
                made.ended = "stop"
                break
            if new := held.push(streamed.push(token)):
                made.text += new
                yield new
            if held.stopped or len(made.ids) >= max_tokens:
                made.ended = "stop" if held.stopped else "length"
                break
            if len(ids) + len(made.ids) > capacity:
                made.ended = "context"
                break
            logits = session.feed([*ids, *made.ids])
            made.seconds = time.perf_counter() - begun
        if rest := held.rest(streamed.rest()):
            made.text += rest
            yield rest

    def generate(
        self, prompt: str | Sequence[int] | Sequence[dict[str, str]], *, max_tokens: int = 128,
        sampling: Sampling | None = None, stop: Sequence[str] = (), session: Session | None = None,
    ) -> Generated:  # fmt: skip
        """A text at once; see `stream`."""
        made = Generated([])
        for _ in self.stream(
            prompt, max_tokens=max_tokens, sampling=sampling, stop=stop, session=session, into=made
        ):  # fmt: skip
            pass
        return made


class _Held:
    """Holds back what may be the beginning of a text that ends the text."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop = [s for s in stop if s]
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


def calibration_texts(language: LanguageModel, count: int = 4, tokens: int = 256) -> list[list[int]]:
    """Texts of docstrings, each of whole sentences up to so many tokens, or what the model has positions for."""
    most = min(tokens, language.positions // 2 or tokens)
    found: list[list[int]] = [[]]
    for sentence in [*calibration_sentences(), *evaluation_sentences()]:
        if len(found[-1]) >= most:
            if len(found) == count:
                break
            found.append([])
        ids = language.vocabulary.encode(("\n\n" if found[-1] else "") + sentence, begin=False)
        found[-1] = [*found[-1], *ids][:most]
    return found


def load_text_model(path: str | Path | None = None) -> TextModel:
    """Read a decoder from a GGUF file or a folder of transformers'; SmolLM2-135M-Instruct if none is given.

    Raises
    ------
    InputError
        If it cannot be read, or is no decoder of a family that is supported.
    """
    return TextModel(load_language_model(None if path is None else Path(path)))

"""Several texts at once: a token of each for one reading of all weights, which text takes which slot and when.

A slot's sequence has its tokens in rows that go along with those of the others (`run.batch_decoder`), and a prompt has
the length that it has. So of a prompt as many of its last tokens are left to the batch's passes as the next free slot's
row is behind: less than a row tile has, and the prompt's own pass is the shorter for it. Where a prompt has not so many
tokens behind the prefix, it waits for the row to come; where several texts wait, the one that fits best goes first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from numpy.typing import NDArray

from ..run.batch_decoder import BatchDecoder
from .growing import Generated, Growing
from .session import Session

__all__ = ["Prompt", "Together", "choose", "one_by_one", "together"]

Told = Callable[[int, str], None]
"""Called with a text's number and what has come to it."""


@dataclass
class Together:
    """Texts, and what they took.

    Attributes
    ----------
    texts : list of Generated
        In the order of their prompts.
    passes, prompt_passes : int
        How often all weights were read for tokens, and for prompts before them.
    tokens : int
        That the former gave; prompts' passes give some texts' first one.
    """

    texts: list[Generated] = field(default_factory=list)
    passes: int = 0
    prompt_passes: int = 0
    tokens: int = 0

    @property
    def tokens_per_pass(self) -> float | None:
        """Tokens for a reading of all weights, prompts' passes apart."""
        return self.tokens / self.passes if self.passes else None


@dataclass(frozen=True)
class Prompt:
    """What decides about a text's slot: its prompt's tokens, and those of them that are always there."""

    tokens: int
    prefix: int


def choose(
    prompts: Mapping[int, Prompt], free: Iterable[int], rows: int, first: int | None
) -> list[tuple[int, int, int]]:
    """Which texts go into which free slots now: number, slot, and tokens of the prompt that are left to the batch.

    Parameters
    ----------
    prompts : mapping of int to Prompt
        Of the texts that wait.
    rows : int
        Of a row tile.
    first : int or None
        Slot 0's row, if sequences are under way; else it is chosen, for the shortest delay.
    """
    slots, found = list(free), []
    for row in range(rows) if first is None else [first]:
        chosen = _matched(prompts, slots, rows, row)
        delays = [delay for _, _, delay in chosen]
        found.append((-len(chosen), max(delays, default=0), sum(delays), chosen))
    return min(found)[3]


def _matched(prompts: Mapping[int, Prompt], slots: Sequence[int], rows: int, first: int) -> list[tuple[int, int, int]]:
    """Texts and slots, as many as go together, each with how many rows the slot's is behind the prompt's end.

    The most of these is least: a matching (H. W. Kuhn, 1955) of those that are near enough, for the least that will do.
    """
    near: dict[int, list[tuple[int, int]]] = {}  # of slots, delays and texts
    for slot in slots:
        delays = [((p.tokens - first - slot) % rows, number, p.tokens - p.prefix) for number, p in prompts.items()]
        near[slot] = sorted((delay, number) for delay, number, behind in delays if delay <= behind)
    found: dict[int, int] = {}  # of texts, their slots

    def put(slot: int, most: int, tried: set[int]) -> bool:
        for delay, number in near[slot]:
            if delay > most:
                break
            if number not in tried:
                tried.add(number)
                if number not in found or put(found[number], most, tried):
                    found[number] = slot
                    return True
        return False

    for most in range(rows):
        for slot in slots:
            if slot not in found.values():
                put(slot, most, set())
        if len(found) == min(len(slots), len(prompts)):
            break
    return [(number, slot, (prompts[number].tokens - first - slot) % rows) for number, slot in sorted(found.items())]


class _Run:
    """Texts on a batch's slots."""

    def __init__(self, batch: BatchDecoder, texts: Sequence[Growing], told: Told) -> None:
        self.batch, self.texts, self.told = batch, texts, told
        self.found = Together([t.made for t in texts])
        self.active: dict[int, int] = {}  # of slots, the numbers of their texts
        prefix = len(batch.decoders[0].of.prefix)
        self.waiting = {n: Prompt(len(t.made.prompt), prefix) for n, t in enumerate(texts)}
        self._begun: dict[int, float] = {}

    def run(self) -> Together:
        rows = self.batch.decoders[0].compiled.config.rows
        while self.waiting or self.active:
            free = [s for s in range(len(self.batch.decoders)) if s not in self.active]
            lengths = {s: self.batch.decoders[s].length for s in self.active}
            first = self.batch.first(lengths) if lengths else None
            for number, slot, left in choose(self.waiting, free, rows, first) if free and self.waiting else ():
                self._prefill(number, slot, left)
            if self.active:
                self._step()
        return self.found

    def _prefill(self, number: int, slot: int, left: int) -> None:
        """A prompt but for its last tokens, which are `left` to the batch; without any, it gives the first token."""
        del self.waiting[number]
        made, decoder, before = self.texts[number].made, self.batch.decoders[slot], len(self.batch.runs)
        begun, prefix = time.perf_counter(), len(decoder.of.prefix)
        decoder.length = 0
        ids = made.prompt[: len(made.prompt) - left]
        if len(ids) > prefix:
            logits = decoder.feed_last(ids, int(not left))
        else:
            decoder.require(made.prompt)
            decoder.length = prefix
        made.prompt_seconds = time.perf_counter() - begun
        self.found.prompt_passes += len(self.batch.runs) - before
        self.active[slot] = number
        if not left:
            self._take(slot, logits[0])

    def _step(self) -> None:
        """A token of each text that is under way; of one alone, for itself."""
        tokens = {}
        for slot, number in self.active.items():
            made, at = self.texts[number].made, self.batch.decoders[slot].length
            tokens[slot] = made.prompt[at] if at < len(made.prompt) else made.ids[at - len(made.prompt)]
        if len(tokens) == 1:
            ((slot, token),) = tokens.items()
            logits = {slot: self.batch.decoders[slot].feed([token])}
        else:
            logits = self.batch.step(tokens)
        self.found.passes += 1
        for slot in tokens:
            made = self.texts[self.active[slot]].made
            made.passes += bool(made.ids)
            if self.batch.decoders[slot].length >= len(made.prompt):
                self.found.tokens += 1
                self._take(slot, logits[slot])

    def _take(self, slot: int, logits: NDArray) -> None:
        """The next token of a slot's text, which may end it and leave the slot free."""
        number = self.active[slot]
        text, now = self.texts[number], time.perf_counter()
        text.made.seconds = now - self._begun.setdefault(number, now)
        self.told(number, text.take(logits))
        if text.done:
            del self.active[slot]


def together(batch: BatchDecoder, texts: Sequence[Growing], told: Told = lambda number, new: None) -> Together:
    """Let texts grow on a machine, in rows of a tile as long as there are several; each is what it would be alone.

    Raises
    ------
    InputError
        If a prompt does not begin with the prefix, has nothing behind it, or does not fit the context.
    CheckError
        As `BatchDecoder.step`.
    """
    return _Run(batch, texts, told).run()


def one_by_one(session: Session, texts: Sequence[Growing], told: Told = lambda number, new: None) -> Together:
    """Let texts grow one after the other, each in an empty context: numpy gains nothing by more at once."""
    found = Together([t.made for t in texts])
    for number, text in enumerate(texts):
        made, decoder = text.made, session.decoder
        session.ids = []
        before, begun = decoder.passes, time.perf_counter()
        logits = session.feed(made.prompt)
        made.prompt_seconds = time.perf_counter() - begun
        found.prompt_passes += decoder.passes - before
        before, begun = decoder.passes, time.perf_counter()
        told(number, text.take(logits))
        while not text.done:
            logits = session.feed([*made.prompt, *made.ids])
            told(number, text.take(logits))
            made.seconds = time.perf_counter() - begun
        made.passes = decoder.passes - before
        found.passes += made.passes
        found.tokens += len(made.ids) - 1
    return found

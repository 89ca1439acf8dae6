"""Text generation: a prompt goes in, tokens come out one after the other.

>>> import sta_hw
>>> model = sta_hw.load_text_model()
>>> model.generate("The capital of France is", max_tokens=8).text
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from numpy.typing import NDArray

from ..arguments import flag, path_of, require_function, require_kind, token_ids, whole
from ..compiler.decoder.integers import IntegerDecoderGraph, Rules
from ..compiler.decoder.once import quantize_decoder_once
from ..compiler.decoder.program import compile_decoder
from ..compiler.decoder.quantize import quantize_decoder
from ..compiler.decoder.run import IntegerDecoder
from ..compiler.prune import prune_model_once, require_pruner
from ..errors import InputError
from ..model.graph import Graph
from ..model.language import LanguageModel, load_language_model
from ..run.batch_decoder import BatchDecoder
from ..run.decoder import CheckedDecoder, ProgramDecoder
from ..run.machines import Machine
from ..spec.config import Config
from ..spec.patterns import Pattern
from ..spec.presets import configured
from .decoder_texts import CONTEXT, as_conversation, calibration_texts, given_texts, pruning_texts
from .growing import Generated, Growing, own_decoder, require_room, require_sampling
from .lookup import looked_up
from .patterns import given_patterns
from .prompts import Prompt, prompt_ids, prompts_ids
from .sampling import Sampling
from .session import Fp32Decoder, Session
from .table import Chosen, choose_patterns_of
from .together import Together, one_by_one, together

__all__ = ["Generated", "TextModel", "load_text_model"]


@dataclass(frozen=True)
class TextModel:
    """A decoder to generate text with.

    Attributes
    ----------
    language : LanguageModel
        Network, tokenizer, chat template.
    quantized : IntegerDecoderGraph or None
        The network in the accelerator's integers, in which text is then generated; else in fp32.
    patterns : dict of str to Pattern
        N:M of the layers' products, by their names; the head is dense.
    notes : tuple of str
        Where that is from, if nobody said.
    """

    language: LanguageModel
    quantized: IntegerDecoderGraph | None = None
    patterns: dict[str, Pattern] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def prune(
        self, nm: str | None = None, *, table: str | Path | None = None,
        patterns: Mapping[str, Pattern] | None = None, method: str = "sparsegpt",
        texts: Sequence[Sequence[int]] | None = None, hardware: str | Config | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> TextModel:  # fmt: skip
        """Pruned in one shot, all products of the layers; the head stays dense.

        Parameters
        ----------
        nm : str
            N:M such as ``8:16``, or ``dense``; if not given, a pruned model's own, or dense.
        table : JSON file
            N:M of single products, as docs/sparsity.md has it.
        patterns : N:M of every product by name
            In place of `nm` and `table`.
        method : str
            ``sparsegpt`` or ``magnitude``, as `compiler.prune.METHODS`.
        texts : token ids of texts to prune for, or None
            Of docstrings if None (`pruning_texts`).
        hardware : str, Config or None
            Refuse at once N:M that it does not run.

        Raises
        ------
        InputError, ConfigError
            If N:M, table or method is not valid, N:M are given twice, a pruned model would be pruned once more, or the
            model is in integers already.
        """
        require_pruner(method)
        require_function(report, "report")
        language = self.language
        if self.quantized is not None:
            raise InputError("the model is in integers already, of its weights as they are; prune it before that.")
        if patterns is not None:
            if nm is not None or table is not None:
                raise InputError("patterns take the place of nm and table; leave those out.")
            if any(not p.dense for p in self.patterns.values()) and patterns != self.patterns:
                raise InputError(f"{language.path} is pruned already; prune the dense model that it comes from.")
            chosen = Chosen(given_patterns(patterns, language.graph.linears))
        else:
            file = None if table is None else path_of(table, "table")
            chosen = choose_patterns_of(
                language.graph, language.folder, nm, file, "dense", mends=False, kept=self.patterns
            )  # fmt: skip
        if hardware is not None:
            config = configured(hardware)
            for pattern in dict.fromkeys(p for p in chosen.patterns.values() if not p.dense):
                config.require(pattern)
        given = pruning_texts(language) if texts is None else given_texts(texts)
        graph = prune_model_once(language.graph, chosen.patterns, given, method=method, report=report)
        return replace(self.with_graph(graph), patterns=chosen.patterns, notes=tuple(chosen.notes))

    def with_graph(self, graph: Graph) -> TextModel:
        """The same with other weights, in fp32."""
        return replace(self, language=replace(self.language, graph=graph), quantized=None)

    def in_integers(
        self, prefix: Sequence[int] | None = None, *, texts: Sequence[Sequence[int]] | None = None,
        rules: Rules | None = None, config: str | Config | None = None,
        report: Callable[[str], None] = lambda _: None, cache: bool = True,
    ) -> TextModel:  # fmt: skip
        """The same model in the accelerator's integers.

        Parameters
        ----------
        prefix : token ids that every text begins with, or None
            Their keys and values are computed in fp32; a begin token if None.
        texts : token ids of texts that scales are made for, or None
            Sentences of docstrings if None; behind a prefix with a chat template's marks, as messages.
        rules : Rules or None
        config : str, Config or None
            Of the hardware that is to run it, or its preset's name: blocks of keys, and groups, are its own.
        cache : bool
            Keep the integers in the cache folder, some more bytes than weights, and take them from there.

        Raises
        ------
        InputError
            As `quantize_decoder`.
        """
        require_kind(rules, "rules", Rules, type(None))
        require_function(report, "report")
        if config is not None:
            config = configured(config)
            rules = replace(rules or Rules(), block=config.groups * config.window, groups=config.groups)
        plain = prefix is None
        prefix = tuple(self.language.begin if prefix is None else token_ids(prefix, "prefix"))
        self.context(len(prefix) + 1)
        if texts is None:
            given = calibration_texts(self.language)
            if self.language.template is not None and not plain:
                given = [as_conversation(self.language, t) for t in given]
        else:
            given = given_texts(texts)
        quantize = quantize_decoder_once if flag(cache, "cache") else quantize_decoder
        rules = rules or Rules()
        return replace(self, quantized=quantize(self.language.graph, given, prefix, rules, report, self.patterns))

    def context(self, tokens: int | None = None) -> int:
        """The tokens of a context: as many as are wanted, or `CONTEXT`, or what the model was made for.

        Raises
        ------
        InputError
            If the model was made for fewer.
        """
        most = self.language.positions
        if tokens is None:
            return min(CONTEXT, most or CONTEXT)
        count = whole(tokens, "context")
        if count < 1 or (most and count > most):
            raise InputError(f"a context of {count} tokens is out of range; the model was made for 1 to {most}.")
        return count

    def session(
        self, context: int | None = None, machine: Machine | None = None, *, check: bool = False, best: bool = False
    ) -> Session:  # fmt: skip
        """An empty context, for several texts that have a beginning in common.

        Parameters
        ----------
        machine : Machine or None
            What runs programs (`sta_hw.run.decoder.decoder_machine`); numpy computes without one.
        check : bool
            Compare a machine's logits with the integers that numpy computes.
        best : bool
            Give the 8 largest logits of each position alone, which greedy text needs, and top-k up to 8. A machine's
            memory then has lists of them and no others; those of a head in 4 bits are scored by its INT8 weights.

        Raises
        ------
        InputError
            If the model is not quantized for the machine's hardware, or does not fit it, or there is nothing that
            `check` or `best` would change.
        """
        tokens, check, best = self.context(context), flag(check, "check"), flag(best, "best")
        if machine is not None:
            return Session(self._programs(tokens, machine, check, best, 1))
        if check:
            raise InputError("check compares a machine's logits with the integers; give a machine, or leave it out.")
        if self.quantized is not None:
            return Session(IntegerDecoder(self.quantized, tokens, best=best))
        if best:
            raise InputError("in fp32 all logits are computed; leave best out, or quantize the model (in_integers).")
        return Session(Fp32Decoder(self.language.graph, tokens))

    def batch(
        self, sequences: int, context: int | None, machine: Machine, *, check: bool = False, best: bool = False
    ) -> BatchDecoder:  # fmt: skip
        """Empty contexts of so many sequences on a machine, for `generate_batch`; see `session` for the others.

        Raises
        ------
        InputError
            As `session`, or if a row tile of the hardware does not hold so many.
        """
        flags = flag(check, "check"), flag(best, "best")
        return BatchDecoder(self._programs(self.context(context), machine, *flags, sequences))

    def _programs(self, tokens: int, machine: Machine, check: bool, best: bool, sequences: int) -> ProgramDecoder:
        if self.quantized is None:
            raise InputError("programs compute in integers; quantize the model first (in_integers).")
        if not isinstance(getattr(machine, "config", None), Config):
            raise InputError(f"machine is {machine!r}; sta_hw.run.decoder.decoder_machine makes one.")
        sequences = whole(sequences, "sequences")
        compiled = compile_decoder(self.quantized, machine.config, tokens, best=best, sequences=sequences)
        return (CheckedDecoder if check else ProgramDecoder)(self.quantized, compiled, machine)

    def ids(self, prompt: Prompt) -> list[int]:
        """Tokens of a text as it is, of a conversation (a list of messages), or the given ones, checked.

        Raises
        ------
        InputError
            If there is none, one is not in the vocabulary, or the model has no chat template.
        """
        return prompt_ids(self.language, self.quantized, prompt)

    def stream(
        self, prompt: Prompt, *, max_tokens: int = 128,
        sampling: Sampling | None = None, stop: Sequence[str] = (), session: Session | None = None,
        drafts: int = 0, into: Generated | None = None,
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
        drafts : int
            Tokens that are looked up in the text, at most, and verified with the next one (`tasks.lookup`); greedy
            text alone, which stays the same.
        into : Generated or None
            What is filled as it goes.

        Raises
        ------
        InputError
            If the prompt does not fit the context; see `ids` for the others.
        """
        ids = self.ids(prompt)
        session = self.session() if session is None else session
        capacity = own_decoder(session, self, Session).capacity
        require_room(ids, capacity)
        require_sampling(sampling, session.decoder.best, max_tokens)
        if whole(drafts, "drafts") < 0:
            raise InputError(f"{drafts} drafts are asked for; the least is 0.")
        if drafts and sampling is not None and sampling.temperature:
            raise InputError("drafts are verified against the greedy choice; a temperature has none.")
        require_kind(into, "into", Generated, type(None))
        if into is not None and (into.ids or into.text):
            raise InputError(f"into has a text of {len(into.ids)} tokens already; give a new Generated.")
        made = into if into is not None else Generated(ids)
        made.prompt = ids
        growing = Growing(
            self.language, made, max_tokens=max_tokens, sampling=sampling, stop=stop, capacity=capacity
        )  # fmt: skip
        begun = time.perf_counter()
        logits = session.feed(ids)
        made.prompt_seconds = time.perf_counter() - begun
        begun, passes = time.perf_counter(), session.decoder.passes
        verified: deque[tuple[int, NDArray]] = deque()  # tokens of a draft, and the logits behind each
        while True:
            if new := growing.take(logits):
                yield new
            if growing.done:
                return
            if verified and verified[0][0] == made.ids[-1]:
                logits = verified.popleft()[1]
                made.accepted += 1
            else:
                text = [*ids, *made.ids]
                room = min(session.decoder.together(len(text) - 1) - 1, capacity - len(text))
                draft = looked_up(text, min(drafts, room, max_tokens - len(made.ids) - 1))
                found = session.feed_last([*text, *draft], len(draft) + 1)
                logits, verified = found[0], deque(zip(draft, found[1:], strict=True))
                made.drafted += len(draft)
                made.passes = session.decoder.passes - passes
            made.seconds = time.perf_counter() - begun

    def generate(
        self, prompt: Prompt, *, max_tokens: int = 128,
        sampling: Sampling | None = None, stop: Sequence[str] = (), session: Session | None = None, drafts: int = 0,
    ) -> Generated:  # fmt: skip
        """A text at once; see `stream`."""
        made = Generated([])
        deque(self.stream(prompt, max_tokens=max_tokens, sampling=sampling, stop=stop, session=session, drafts=drafts,
                          into=made), maxlen=0)  # fmt: skip
        return made

    def generate_batch(
        self, prompts: Sequence[Prompt], *, max_tokens: int = 128,
        sampling: Sampling | None = None, stop: Sequence[str] = (), session: Session | BatchDecoder | None = None,
        told: Callable[[int, str], None] = lambda number, new: None,
    ) -> Together:  # fmt: skip
        """Texts behind several prompts, each what `generate` gives for it alone.

        Parameters
        ----------
        session : Session, BatchDecoder or None
            On a machine, as many texts at once as a batch has sequences, for one reading of all weights (`batch`); the
            others wait. In a session, or a new one if None, one after the other.
        told : function
            Called with a text's number and what has come to it.

        Raises
        ------
        InputError
            If there is no prompt, or one does not fit: by its number, from 1; as `stream`.
        """
        session = self.session() if session is None else session
        decoder = own_decoder(session, self, Session, BatchDecoder)
        require_function(told, "told")
        require_sampling(sampling, decoder.best, max_tokens)
        texts = [
            Growing(self.language, Generated(ids), max_tokens=max_tokens, sampling=sampling, stop=stop,
                    capacity=decoder.capacity)
            for ids in prompts_ids(self.language, self.quantized, prompts, decoder.capacity)
        ]  # fmt: skip
        return together(session, texts, told) if isinstance(session, BatchDecoder) else one_by_one(session, texts, told)


def load_text_model(path: str | Path | None = None) -> TextModel:
    """Read a decoder from a GGUF file or a folder of transformers'; SmolLM2-135M-Instruct if none is given.

    Raises
    ------
    InputError
        If it cannot be read, or is no decoder of a family that is supported.
    """
    language = load_language_model(None if path is None else path_of(path, "path"))
    chosen = choose_patterns_of(language.graph, language.folder, None, None, "dense", mends=False)
    return TextModel(language, patterns=chosen.patterns, notes=tuple(chosen.notes))

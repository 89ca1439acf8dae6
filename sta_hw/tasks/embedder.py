"""From texts, images and spectrograms to what the accelerator takes, and the fp32 answer to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..arguments import text_of, whole
from ..compiler.contract import Host
from ..compiler.encoder import compile_encoder
from ..compiler.limits import require_program, require_shape, sizes_of
from ..compiler.lower.state import EncodedWeights
from ..compiler.model import CompiledModel
from ..compiler.passes import After, nothing
from ..compiler.prune import prune_model_once, pruning_sentences
from ..compiler.quantize import quantize
from ..errors import InputError
from ..files import resolved
from ..formats.provenance import (
    Provenance,
    Source,
    bytes_digest,
    digest,
    lines_digest,
    patterns_digest,
    tokenizer_digest,
    weights_digest,
)
from ..model.arrays import described, given, noise, read_arrays, require_processed
from ..model.families import Network, load_network
from ..model.finite import require_rows
from ..model.graph import Graph
from ..model.minilm import calibration_sentences, installed_folder
from ..model.operations import Embed, Normalize, Output
from ..model.part import Part, accelerator_part
from ..model.tokenizer import TextTokenizer
from ..spec.config import Config
from ..spec.patterns import Pattern
from .patterns import own_patterns

__all__ = ["Embedder"]


@dataclass(frozen=True)
class Embedder:
    """A network with what makes its input: texts by its tokenizer; images and spectrograms are given as arrays.

    Attributes
    ----------
    network : Network
    part : Part
        The accelerator's part of the network's graph; pruned, its weights are others than the checkpoint's.
    tokenizer : TextTokenizer or None
        None where the input is no text.
    folder : Path or None
        Where it was loaded from; None for the installed model.
    name : str
        What messages call it.
    origin : Source or None
        The checkpoint that this one was pruned from, in memory.
    pruner : str
        What prunes, or pruned, the weights.
    """

    network: Network
    part: Part
    tokenizer: TextTokenizer | None
    folder: Path | None
    name: str
    origin: Source | None = None
    pruner: str = "magnitude"

    @staticmethod
    def load(folder: Path | None = None) -> Embedder:
        """all-MiniLM-L6-v2 as installed, or another checkpoint from `folder`.

        Raises
        ------
        InputError
            If it cannot be loaded, or the accelerator cannot run it; the message says why.
        """
        place = installed_folder() if folder is None else folder
        network = load_network(place)
        part = accelerator_part(network.graph)
        tokenizer = None
        if "ids" in network.graph.by_name:
            own = any((network.folder / name).exists() for name in ("tokenizer.json", "vocab.txt"))
            beside = network.folder if own else place
            tokenizer = TextTokenizer.load(beside, lower=network.limits.lower)
        if folder is None:
            return Embedder(network, part, tokenizer, None, "all-MiniLM-L6-v2")
        place = resolved(place)
        return Embedder(network, part, tokenizer, place, place.name)

    @property
    def graph(self) -> Graph:
        """The network, with the weights that it has now."""
        return self.part.graph

    @property
    def linears(self) -> list[str]:
        """The linear operations that N:M tables name."""
        return list(self.graph.linears)

    @cached_property
    def source(self) -> Source:
        """Digests of weights (those of the host's operations too) and tokenizer, which what is made keeps."""
        if self.origin is not None:
            return self.origin
        own = own_patterns(self.folder, self.linears)
        weights = weights_digest(self.graph)
        words = "" if self.tokenizer is None else tokenizer_digest(self.tokenizer.tokenizer)
        if self.tokenizer is not None and self.tokenizer.lower:
            words = digest([words, "lower"])
        folder = str(self.folder) if self.folder else None
        return Source(self.name, folder, weights, words, any(not p.dense for p in own.values()))

    @property
    def plain(self) -> bool:
        """Whether the model is a text encoder whose embedding is the mean or the first token's output, and no more."""
        behind = self.network.graph.takers(self.part.ends)
        bare = all(isinstance(o, Normalize | Output) for o in behind) and "embedding" in self.network.graph.by_name
        return self.tokenizer is not None and self.part.pooled and bare

    def token_ids(self, text: str, most: int | None = None) -> list[int]:
        """Token ids of a text; cut to `most`, the marks at its ends included, as its tokenizer cuts.

        Raises
        ------
        InputError
            If it is empty, longer than the model's positions, or has a token that the model has no embedding of; or if
            the model takes no texts.
        """
        if self.tokenizer is None:
            raise InputError(f"this model takes no texts; give {described(self.network.graph)} in a file.")
        if not text_of(text, "the text").strip():
            raise InputError("the text is empty; give a sentence.")
        ids = self.tokenizer.token_ids(text)
        if len(ids) <= self.tokenizer.marks:
            raise InputError("the text has no token: the tokenizer drops all of its characters; give a sentence.")
        if most is not None and len(ids) > most:
            ids = self.tokenizer.token_ids(text, most)
        words = next(o for o in self.graph.operations if isinstance(o, Embed) and o.rows == "token")
        (name,) = self.graph.arrays(words)
        require_rows(ids, name, len(words.table), self.graph.most_tokens)
        for o in self.network.graph.operations:
            if isinstance(o, Embed) and o.padding is not None and o.padding in ids:
                raise InputError(
                    f"the text holds the padding token {self.tokenizer.token(o.padding)!r}, which this model does not "
                    "count as a position; take it out."
                )
        return ids

    def arrays(self, file: Path) -> list[NDArray[np.float32]]:
        """The images or spectrograms of a file, as the model's processor gives them.

        Raises
        ------
        InputError
            As `read_arrays` and `require_processed`.
        """
        found = read_arrays(file, self.network.graph)
        if given(self.network.graph) == "pixels":
            require_processed(found, file, self.network.folder)
        return found

    def read(self, text: str, file: Path | None) -> NDArray[np.float32]:
        """What the accelerator takes, (tokens, width), for a text; or for an image or spectrogram in a ``.npy`` file.

        Raises
        ------
        InputError
            If the model takes the other, or the file is none of its kind.
        """
        if file is None:
            return self.part.embed("ids", self.token_ids(text))
        if self.tokenizer is not None:
            raise InputError("this model takes texts; give one, and no file of arrays.")
        found = self.arrays(file)
        if len(found) != 1:
            raise InputError(f"{file} holds {len(found)} inputs; one is run at a time.")
        return self.part.embed(given(self.network.graph), found[0])

    def calibration(self, file: Path | None = None) -> list[NDArray[np.float32]]:
        """What quantization looks at: the bundled sentences, or what a file holds, or noise in place of images.

        Raises
        ------
        InputError
            If a file is given for a model of texts, or is none of the model's inputs.
        """
        if file is not None:
            self.require_calibration()
        if self.tokenizer is not None:
            return [self.part.embed("ids", ids) for ids in self._cut(calibration_sentences())]
        graph = self.network.graph
        arrays = self.arrays(file) if file is not None else noise(graph)
        return [self.part.embed(given(graph), array) for array in arrays]

    def require_calibration(self) -> None:
        """Refuse a calibration file for a model of texts.

        Raises
        ------
        InputError
            If the model takes texts.
        """
        if self.tokenizer is not None:
            raise InputError("texts are calibrated with the bundled sentences; leave the calibration file out.")

    def _cut(self, sentences: list[str]) -> list[list[int]]:
        """Token ids of bundled sentences, as many as the model has positions for."""
        assert self.tokenizer is not None
        return [self.tokenizer.token_ids(s)[: self.network.graph.most_tokens] for s in sentences]

    def require_text_embedding(self) -> None:
        """Check that the model gives texts' embeddings by the mean or the first token, which is what is tuned and kept.

        Raises
        ------
        InputError
            If it does not, or has a head.
        """
        if not self.plain or self.network.limits.lower:
            raise InputError(
                "this model is no text encoder whose embedding is the mean of the tokens' outputs or the first one's; "
                "such alone can be pruned and tuned."
            )

    def pruned(
        self,
        patterns: dict[str, Pattern],
        method: str = "sparsegpt",
        report: Callable[[str], None] = lambda _: None,
        calibration: Path | None = None,
    ) -> Embedder:
        """With its weights pruned in one shot, for the bundled text; `method` is one of `compiler.prune.METHODS`.

        Models of images and spectrograms are pruned for `calibration`. Layers that satisfy their patterns already stay
        as they are. Raises what `prune_model` and `calibration` do.
        """
        seen: list[list[int]] | list[NDArray[np.float32]]
        seen = self.calibration(calibration) if self.tokenizer is None else self._cut(pruning_sentences())
        graph = prune_model_once(self.graph, patterns, seen, method=method, report=report)
        return replace(self, part=self.part.with_graph(graph), origin=self.source, pruner=method)

    def quantize(
        self, patterns: dict[str, Pattern], scales: str = "squared-error", calibration: Path | None = None, *,
        after: After = nothing,
    ) -> Graph:  # fmt: skip
        """Quantized with `calibration`; what breaks its pattern is pruned by magnitude."""
        return quantize(self.graph, self.calibration(calibration), patterns, scales=scales, after=after)

    def compile(
        self, patterns: dict[str, Pattern], config: Config, tokens: int, scales: str = "squared-error",
        calibration: Path | None = None, *, loops: bool = True, after: After = nothing,
    ) -> CompiledModel:  # fmt: skip
        """Quantized, pruned and compiled for so many tokens; `loops` and `after` as `compile_encoder` takes them.

        Raises
        ------
        InputError
            Among others, what `require` raises.
        """
        (compiled,) = self.compile_sizes(patterns, config, [tokens], scales, calibration, loops=loops, after=after)
        return compiled

    def compile_sizes(
        self, patterns: dict[str, Pattern], config: Config, sizes: Sequence[int], scales: str = "squared-error",
        calibration: Path | None = None, *, loops: bool = True, after: After = nothing,
    ) -> list[CompiledModel]:  # fmt: skip
        """`compile` for several numbers of tokens, quantized once and with weights that are encoded once."""
        for tokens in sizes:
            self.require(patterns, config, tokens)
        quantized = self.quantize(patterns, scales, calibration, after=after)
        seen = lines_digest(calibration_sentences()) if self.tokenizer is not None else "noise"
        if calibration is not None:
            seen = bytes_digest(calibration.read_bytes())
        origin = Provenance(self.source, seen, patterns_digest(patterns), self.pruner, scales)
        encoded = EncodedWeights(config)
        found = []
        for tokens in sizes:
            compiled = compile_encoder(quantized, config, tokens, encoded, loops=loops, after=after)
            found.append(replace(compiled, provenance=origin, checksum=bytes_digest(compiled.image)))
        return found

    def require_tokens(self, tokens: int) -> None:
        """Refuse a number of tokens that the model does not take.

        Raises
        ------
        InputError
            With the number it has, or the most it takes.
        """
        tokens, positions = whole(tokens, "tokens"), self.graph.most_tokens
        if self.part.tokens not in (None, tokens):
            raise InputError(f"tokens = {tokens}; this model has {self.part.tokens}.")
        if positions is not None and tokens > positions:
            raise InputError(f"tokens = {tokens} exceeds the model's positions; the nearest is {positions}.")

    def require(self, patterns: dict[str, Pattern], config: Config, tokens: int) -> None:
        """Refuse, before any work, what cannot be compiled.

        Raises
        ------
        InputError
            If sizes do not fit the model or the hardware, or a pattern is not built in.
        """
        self.require_tokens(tokens)
        # Of all layers' operations of a name, that with the most weights.
        widest = {n.partition(".")[2]: p for n, p in sorted(patterns.items(), key=lambda p: p[1].density)}
        sizes = sizes_of(self.part.inner)
        require_shape(config, tokens=tokens, patterns=widest, **sizes)
        require_program(config, tokens=tokens, **sizes)
        for pattern in patterns.values():
            if not pattern.dense:
                config.require(pattern)

    def result(
        self, compiled: CompiledModel, image: NDArray[np.uint8], text: int = 0
    ) -> tuple[str, NDArray[np.float64]]:
        """The network's output and its name, from memory after a run: an ``embedding`` of length 1, or ``logits``.

        Of a batch, `text` says which one's.
        """
        return self._finished(compiled.pooled(image, text) if self.part.pooled else compiled.outputs(image, text))

    def _finished(self, value: NDArray) -> tuple[str, NDArray[np.float64]]:
        name, found = self.part.result(value)
        found = np.asarray(found, np.float64)
        return name, found / max(float(np.linalg.norm(found)), 1e-30) if name == "embedding" else found

    @property
    def host(self) -> Host:
        """What the accelerator leaves to the host, as the files beside an image say it."""
        graph, part = self.network.graph, self.part
        lines = dict(zip((o.name for o in graph.operations), str(graph).splitlines()[1:], strict=True))
        before, after = {part.begins}, {part.ends}
        for o in reversed(graph.operations):
            before |= set(o.inputs) if o.name in before else set()
        for o in graph.operations:
            after |= {o.name} if after.intersection(o.inputs) else set()
        (output,) = [o.inputs[0] for o in graph.operations if isinstance(o, Output)][:1]
        result = "logits" if "logits" in graph.by_name else "embedding"
        return Host(
            [line.strip() for name, line in lines.items() if name in before],
            [line.strip() for name, line in lines.items() if name in after - {part.ends}],
            "pooled" if part.pooled else "outputs", result if result in graph.by_name else output,
        )  # fmt: skip

    def exact(self, embedded: NDArray[np.float32]) -> NDArray[np.float64]:
        """The same in fp32.

        Raises
        ------
        InputError
            If it has none: the output overflows, or is zero.
        """
        with np.errstate(all="ignore"):
            found = self._finished(self.part.run(embedded))[1]
        length = np.linalg.norm(found)
        if not 0 < length < np.inf:
            raise InputError(f"the fp32 model's output for this input has the length {length}, and so no direction.")
        return found

    def fp32(self, ids: list[int]) -> NDArray[np.float64]:
        """The fp32 network's embedding of a text, of length 1; raises what `exact` does."""
        return self.exact(self.part.embed("ids", ids))

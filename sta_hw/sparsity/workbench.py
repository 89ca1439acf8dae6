"""Text encoders under the pruners' hands: calibration, distillation, and how far embeddings are from fp32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..compiler.quantize import quantize
from ..model.graph import Graph
from ..model.minilm import calibration_sentences, evaluation_sentences
from ..spec.config import Config
from ..spec.patterns import Pattern
from ..tasks.embedder import Embedder
from .finetune import Distillation
from .integer_graph import IntegerGraph
from .text import CORPUS, corpus_sentences
from .torch_graph import TorchGraph, pad

__all__ = ["Workbench"]

MOST_TOKENS = 48
"""Longer sentences of the corpus are cut: none of the evaluated ones is longer."""
_BATCH = 64


class Workbench:
    """What a text encoder is pruned, tuned and measured with.

    Parameters
    ----------
    embedder : Embedder
        The dense fp32 model, also the teacher.
    sentences : int
        Of the corpus, for fine-tuning.
    calibration : int
        Of them, for one-shot pruners and sensitivities.
    seed : int
        Of the choice of sentences.
    packages : names of packages
        Whose docstrings they are from; see `text.corpus_sentences`.
    """

    def __init__(
        self, embedder: Embedder, *, sentences: int = 8192, calibration: int = 256, seed: int = 0,
        packages: tuple[str, ...] = CORPUS, report: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.embedder, self.report = embedder, report
        report("reading the corpus")
        texts = corpus_sentences(max(sentences, calibration), seed=seed, packages=packages)
        self._calibration = calibration
        self.corpus = [self.embed(t, MOST_TOKENS) for t in texts]
        self.evaluated = [self.embed(t) for t in evaluation_sentences()]
        self.teacher = TorchGraph(self.graph).eval()

    @property
    def graph(self) -> Graph:
        """The accelerator's part of the dense model: from sums of embeddings to pooled outputs."""
        return self.embedder.part.inner

    def embed(self, text: str, most: int | None = None) -> NDArray[np.float32]:
        """A text's sum of embeddings, of its first `most` tokens; cut to the model's positions."""
        ids = self.embedder.token_ids(text, self.embedder.network.graph.most_tokens)
        return self.embedder.part.embed("ids", ids[:most])

    def _outputs(self, encoder: TorchGraph, embedded: Sequence[NDArray]) -> list[NDArray]:
        """Every layer's outputs for every text, (tokens, layers, hidden) each, in half precision to save memory."""
        order = np.argsort([len(e) for e in embedded], kind="stable")
        found: list[NDArray] = [np.zeros(0)] * len(embedded)
        with torch.no_grad():
            for start in range(0, len(order), _BATCH):
                self.report(f"embedding {start} of {len(order)} sentences")
                chosen = order[start : start + _BATCH]
                out = encoder(*pad([embedded[i] for i in chosen]), False).numpy()
                for i, tokens in zip(chosen, out, strict=True):
                    found[i] = tokens[: len(embedded[i])].astype(np.float16)
        return found

    @cached_property
    def task(self) -> Distillation:
        """Distillation of the fp32 embeddings of the corpus."""
        return Distillation(self.corpus, self._outputs(self.teacher, self.corpus), self.teacher.pool)

    @cached_property
    def calibration(self) -> list[tuple[Tensor, Tensor]]:
        """Batches of the corpus's first sentences."""
        chosen = sorted(self.corpus[: self._calibration], key=len)
        return [pad(chosen[i : i + _BATCH]) for i in range(0, len(chosen), _BATCH)]

    @cached_property
    def exact(self) -> NDArray:
        """Dense fp32 embeddings of the evaluated sentences."""
        with torch.no_grad():
            return self.teacher(*pad(self.evaluated)).numpy()

    def loss(self, output: Tensor, number: int) -> Tensor:
        """A random projection of a calibration batch's outputs, relative to the dense ones: for sensitivities.

        At the dense network the gradient of a distance from it is zero; the mean square of this one's gradient is the
        distance's second order (Hutchinson's estimator of the Gauss-Newton matrix's diagonal).
        """
        with torch.no_grad():
            wanted = self.teacher(*self.calibration[number])
        noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(number))
        return (output * noise / wanted.norm(dim=-1, keepdim=True)).sum()

    def scores(self, encoder: TorchGraph) -> dict[str, float]:
        """Cosine and Spearman correlation with dense fp32, in fp32."""
        with torch.no_grad():
            return self._scores(encoder(*pad(self.evaluated)).numpy())

    def int8_scores(self, graph: Graph, patterns: Mapping[str, Pattern], config: Config) -> dict[str, float]:
        """The same in the accelerator's integers, as the compiler quantizes."""
        quantized = quantize(graph, [self.embed(s) for s in calibration_sentences()], dict(patterns))
        hardware = IntegerGraph(TorchGraph(_pruned(graph, patterns)), quantized, config)
        found = []
        with torch.no_grad():
            for start in range(0, len(self.evaluated), _BATCH):
                self.report(f"INT8 embeddings {start} of {len(self.evaluated)}")
                found.append(hardware(self.evaluated[start : start + _BATCH]).numpy())
        return self._scores(np.concatenate(found))

    def _scores(self, found: NDArray) -> dict[str, float]:
        exact = self.exact / np.linalg.norm(self.exact, axis=1, keepdims=True)
        found = found / np.linalg.norm(found, axis=1, keepdims=True)
        upper = np.triu_indices(len(found), 1)
        ranks = [np.argsort(np.argsort((e @ e.T)[upper])) for e in (exact, found)]
        return {
            "cosine": float((exact * found).sum(1).mean()),
            "spearman": float(np.asarray(np.corrcoef(ranks[0], ranks[1]))[0, 1]),
        }


def _pruned(graph: Graph, patterns: Mapping[str, Pattern]) -> Graph:
    """With what the compiler prunes: nothing of weights that satisfy their patterns."""
    from ..formats.nm import prune

    return graph.with_weights({n: prune(graph.linears[n].weight, p) for n, p in patterns.items() if not p.dense})

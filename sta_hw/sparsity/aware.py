"""Quantization-aware fine-tuning of a pruned text encoder: distillation through the accelerator's own integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..compiler.quantize import quantize
from ..model.minilm import calibration_sentences
from ..spec.config import Config
from ..spec.patterns import Pattern
from .finetune import Distillation, FineTuned, Tuning, fine_tune, sparse_masks
from .integer_graph import IntegerGraph
from .torch_graph import TorchGraph, pad
from .workbench import Workbench

__all__ = ["PooledDistillation", "tune_quantized"]


class PooledDistillation:
    """The embeddings that `task` wants, for encoders that take a list of texts; the loss is 1 - cosine.

    What lies between is left to the integers: the layers' outputs are not compared, as in `Distillation`.
    """

    def __init__(self, task: Distillation) -> None:
        self.task = task

    def batch(self, rng: np.random.Generator, size: int) -> tuple[tuple[list[NDArray[np.float32]]], Tensor]:
        """Texts of about one length, shape (tokens, channels) each, and their teacher's pooled vectors."""
        chosen = self.task.choose(rng, size)
        last, mask = pad([self.task.targets[i][:, -1].astype(np.float32) for i in chosen])
        return ([self.task.embedded[i] for i in chosen],), self.task.pool(last, mask)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """1 less the mean cosine of pooled vectors, shape (texts, channels)."""
        return 1 - functional.cosine_similarity(output, target).mean()


def tune_quantized(
    bench: Workbench, encoder: TorchGraph, patterns: Mapping[str, Pattern], tuning: Tuning, config: Config, *,
    state: Path | None = None, report: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> FineTuned:  # fmt: skip
    """Fine-tune `encoder` in place so that the accelerator's integers give the dense fp32 embeddings; masks stay.

    Scales are found once, before, as the compiler finds them.

    Parameters
    ----------
    encoder : TorchGraph
        Pruned to `patterns`.
    config : Config
        The accelerator, whose softmax has an order of keys.
    state : file
        As in `fine_tune`.

    Raises
    ------
    InputError
        If `state` is another run's.
    """
    calibration = [bench.embed(s) for s in calibration_sentences()]
    quantized = quantize(encoder.to_graph(), calibration, dict(patterns))
    with torch.no_grad():
        masks = sparse_masks(encoder.linears, patterns)
    return fine_tune(
        IntegerGraph(encoder, quantized, config), encoder.linears, patterns, PooledDistillation(bench.task), tuning,
        masks=masks, state=state, report=report,
    )  # fmt: skip

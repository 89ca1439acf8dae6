"""Benchmark with labels: a vision transformer trained here, pruned to 4:16, quantized, and run on RTL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compiler.encoder import compile_encoder
from ..compiler.quantize import quantize
from ..errors import InputError
from ..model.part import accelerator_part
from ..run.backends import ReferenceBackend, RtlBackend
from ..run.outcome import compare
from ..spec.patterns import Pattern
from ..spec.presets import PRESETS
from .report import Figure, Report

__all__ = ["run"]

PATTERN = Pattern(4, 16)
BAR = 1.0
"""Points of accuracy that INT8 at 4:16 may lose."""


def run(report: Callable[[str], None] = lambda _: None) -> Report:
    """Train dense in fp32; prune and fine-tune; classify all held-out images on RTL, every byte as the reference's."""
    try:
        import torch
    except ImportError:
        raise InputError("PyTorch is not installed; pip install 'sta-hw[sparsity]' brings it.") from None
    from ..sparsity.digits import Taught, accuracy, digits, train_digits
    from ..sparsity.finetune import Tuning, fine_tune
    from ..sparsity.pruners import AsymmetricSparseGpt
    from ..sparsity.torch_graph import TorchGraph

    config = PRESETS["reference"]
    data = digits()

    def watch(what: str) -> Callable[[int, int, float], None]:
        return lambda done, total, loss: report(f"{what}: step {done} of {total}, loss {loss:.3f}")

    dense = train_digits(data, report=watch("training"))
    network = TorchGraph(dense.to_graph())
    patterns = dict.fromkeys(network.linears, PATTERN)
    batches = [(torch.from_numpy(data.train_images[i : i + 128]),) for i in range(0, 1280, 128)]
    masks = AsymmetricSparseGpt().prune(network, network.linears, patterns, batches, report)
    one_shot = accuracy(network, data.test_images, data.test_labels)
    task = Taught(data.train_images, data.train_labels, dense)
    tuning = Tuning(2500, 64, 2e-3, 0, weight_decay=0.01)
    fine_tune(network, network.linears, patterns, task, tuning, masks=masks, report=watch("fine-tuning at 4:16"))
    part = accelerator_part(network.to_graph())
    assert part.tokens is not None
    seen = [part.embed("pixels", image) for image in data.train_images[:256]]
    quantized = quantize(part.graph, seen, patterns, report=report)
    program = compile_encoder(quantized, config, part.tokens)
    report("compiling the RTL")
    hardware, reference = RtlBackend(config), ReferenceBackend(config)
    right, cycles = 0, 0
    for number, image in enumerate(data.test_images):
        embedded = part.embed("pixels", image)
        report(f"image {number + 1} of {len(data.test_images)} on RTL")
        outcome = hardware.run(program, embedded)
        compare(program, outcome.image, reference.run(program, embedded).image)
        right += int(part.result(program.pooled(outcome.image))[1].argmax() == data.test_labels[number])
        cycles = outcome.run.cycles
    exact, found = accuracy(dense, data.test_images, data.test_labels), right / len(data.test_labels)
    rows: list[dict[str, Any]] = [
        {"network": "fp32 dense", "accuracy": exact},
        {"network": f"fp32 {PATTERN}, one shot (asymmetric SparseGPT)", "accuracy": one_shot},
        {"network": f"fp32 {PATTERN}, fine-tuned", "accuracy": accuracy(network, data.test_images, data.test_labels)},
        {"network": f"INT8 {PATTERN}, on RTL", "accuracy": found, "cycles": cycles},
    ]
    lost = round(100 * (exact - found), 3)
    figures = [Figure("held-out accuracy lost, fp32 dense to INT8 4:16 on RTL", lost, "points", f"<= {BAR}")]
    return Report("digits", config, rows, figures)

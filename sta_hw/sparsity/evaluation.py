"""Pruned networks measured: accuracy, density, cycles, memory; and a picture of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import InputError
from ..files import replacing
from ..formats.provenance import Source
from ..model.families import load_network
from ..model.part import accelerator_part
from ..spec.config import Config
from ..tasks.embedder import Embedder
from .compression import Compression, compression
from .costs import cycles_of
from .store import PRUNED, Stored, compared_with
from .torch_graph import TorchGraph
from .workbench import Workbench

__all__ = ["Evaluation", "draw", "measure"]


@dataclass(frozen=True)
class Evaluation:
    """One network.

    Attributes
    ----------
    method : str
    density : float
        Share of the linear layers' weights kept.
    compared_with : str
        The network whose fp32 embeddings they are compared with; dense, if it does not say otherwise.
    fp32, int8 : dict
        Cosine and Spearman correlation with it, in fp32 and in the accelerator's integers.
    cycles : float
        By the cycle model.
    compression : of every layer, the whole as the last
    """

    name: str
    method: str
    density: float
    compared_with: str
    fp32: dict[str, float]
    int8: dict[str, float]
    cycles: float
    compression: list[Compression]


@cache
def _bench(source: Source) -> Workbench:
    """The workbench of the network that others were pruned from; nothing of its corpus is used.

    Raises
    ------
    InputError
        If it is not there any more, or is another one now.
    """
    embedder = Embedder.load(source.path)
    if other := source.difference(embedder.source):
        raise InputError(
            f"{source.place} has other {other} than when networks were pruned from it, so they cannot be compared with "
            "it; prune them again, or put it back."
        )
    return Workbench(embedder, sentences=1, calibration=1)


def measure(stored: Stored, config: Config, tokens: int, report: Callable[[str], None] = lambda _: None) -> Evaluation:
    """Measure a network; what was measured of the same content before is not measured again.

    Raises
    ------
    InputError
        If checkpoint or table cannot be read, or what it is compared with is not there any more.
    """
    name = stored.folder.name
    report(name)
    graph, patterns = load_network(stored.folder).graph, stored.patterns
    inner = accelerator_part(graph).inner
    key, content = f"int8 {config.hash}", stored.content(graph, patterns)
    if content != stored.measured_of:
        stored.measured, stored.measured_of = {}, content  # of what was there before
    if "fp32" not in stored.measured or key not in stored.measured:
        bench = _bench(stored.source)
        bench.report = lambda text: report(f"{name}: {text}")
        stored.measured["fp32"] = bench.scores(TorchGraph(inner))
        stored.measured[key] = bench.int8_scores(inner, patterns, config)
        stored.save()
    shapes = {n: graph.linears[n].weight.shape for n in patterns}
    size = sum(a * b for a, b in shapes.values())
    density = sum(shapes[k][0] * shapes[k][1] * p.density for k, p in patterns.items()) / size
    report(f"{name}: cycles")
    method = stored.settings["method"] + (", quantization-aware" if stored.settings.get("aware_steps") else "")
    return Evaluation(
        name, method, density, compared_with(stored.source), stored.measured["fp32"], stored.measured[key],
        cycles_of(graph, patterns, config, tokens), compression(shapes, patterns, config.window),
    )  # fmt: skip


def draw(rows: Sequence[Evaluation], path: Path) -> None:
    """INT8 cosine against density, cycles and memory, a colour for each method."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4.2), layout="constrained", sharey=True)
    for method in dict.fromkeys(r.method for r in rows):
        own = sorted((r for r in rows if r.method == method), key=lambda r: r.density)
        for axis, values in zip(
            axes,
            ([r.density for r in own], [r.cycles / 1e6 for r in own], [r.compression[-1].bytes / 2**20 for r in own]),
            strict=True,
        ):
            axis.plot(values, [r.int8["cosine"] for r in own], marker="o", label=method)
    for axis, title in zip(axes, ("density", "million cycles", "MiB of weights"), strict=True):
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    dense = not any(r.compared_with.endswith(PRUNED) for r in rows)
    axes[0].set_ylabel(f"cosine with {'dense' if dense else 'what it was pruned from,'} fp32, INT8")
    axes[0].legend(fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
    pyplot.close(figure)

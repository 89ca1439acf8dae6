"""LayerNorms, each tile of which follows the product it waits for; and the projection behind the first."""

from __future__ import annotations

from ...model.bert import PROJECTION
from ...spec.isa import Opcode, Result
from ..image import norm_words
from ..parameters import LinearParameters, NormParameters
from ..schedule import Step
from .linear import linear
from .state import WIDE, Lowering

__all__ = ["interleave_norms", "norm", "projected"]


def norm(
    low: Lowering, label: str, p: NormParameters, target: str, *, needs: str, gives: str, source: str = "sum"
) -> None:  # fmt: skip
    """LayerNorm of all tiles."""
    parameters, width = low.image.add(norm_words(p), name=f"{label}: LayerNorm"), len(p.scale)
    inverse = round(2**33 / width)
    for tile, weight in low.repeat(low.tiles, 1):
        fields = {
            "input_address": low.tile_address(source, tile),
            "wide_address": low.tile_address(f"{target}16", tile),
            "narrow_address": low.tile_address(f"{target}8", tile),
            "parameters_address": parameters, "width": width, "inverse": inverse,
        }  # fmt: skip
        low.steps.append(
            Step(
                Opcode.NORM, fields, needs=((needs, tile),) if needs else (), gives=((gives, tile),), label=label,
                weight=low.weight * weight,
            )
        )  # fmt: skip


def interleave_norms(low: Lowering, count: int) -> None:
    """Move the last NORMs, one of each tile, each behind the product it waits for."""
    tiles = len(low.repeat(low.tiles, 1))
    norms = low.steps[-tiles:]
    products = low.steps[-tiles - count : -tiles]
    del low.steps[-tiles - count :]
    waiting = {n.needs[0]: n for n in norms}
    for product in products:
        low.steps.append(product)
        for event in product.gives:
            if event in waiting:
                low.steps.append(waiting.pop(event))


def projected(low: Lowering, scales: NormParameters, products: tuple[LinearParameters, LinearParameters]) -> None:
    """The LayerNorm of narrower embeddings and the linear layer behind it, twice: what products take, and sums."""
    width = len(scales.scale)
    byte = low.tiles * low.config.rows * width
    slack = low.config.groups * low.config.window * low.config.rows
    for name in ("embedded", "e16", "e8"):
        low.widths[name] = width
        low.buffers[name] = low.image.reserve(byte * (2 if name in WIDE else 1) + slack, f"buffer {name}")
    norm(low, "embeddings", scales, "e", needs="", gives="e", source="embedded")
    for product, result, target, gives in zip(
        products, (Result.STORE8, Result.STORE16), ("x8", "x16"), ("x8", "x0"), strict=True
    ):  # The second is in memory after the first.
        linear(low, f"{PROJECTION}.{target}", product, "e8", result, target, needs="e", gives=gives)

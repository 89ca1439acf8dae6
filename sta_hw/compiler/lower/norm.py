"""LayerNorms, each tile of which follows the product it waits for."""

from __future__ import annotations

from ...spec.isa import Opcode
from ..image import norm_words
from ..parameters import NormParameters
from ..schedule import Step
from .state import Lowering

__all__ = ["interleave_norms", "norm"]


def norm(
    low: Lowering, label: str, p: NormParameters, source: str, wide: str, narrow: str, *, needs: str, gives: str
) -> None:
    """LayerNorm of all tiles."""
    parameters, width = low.image.add(norm_words(p), name=f"{label}: LayerNorm"), len(p.scale)
    inverse = round(2**33 / width)
    for tile, weight in low.repeat(low.tiles, 1):
        fields = {
            "input_address": low.tile_address(source, tile),
            "wide_address": low.tile_address(wide, tile),
            "narrow_address": low.tile_address(narrow, tile),
            "parameters_address": parameters, "width": width, "inverse": inverse & 0xFFFFFFFF,
            "inverse_high": inverse >> 32,
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

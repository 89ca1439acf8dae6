"""What a compiled model tells of itself beside its image: scales and places to run it, and figures for reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Buffer", "LayerInfo", "ProgramInfo", "ValueInfo"]

Buffer = tuple[int, int, int]
"""Address, width in columns, and bytes of a value."""


@dataclass(frozen=True)
class LayerInfo:
    """A product of the network as hardware runs it.

    Attributes
    ----------
    layer : str
        Its label.
    columns, reduction : int
        Of its weights; of attention, the longest text's keys and a head's width.
    nm, used : str
        N:M of the weights that were found, and that it runs with.
    encoding : str
        Of the weights' positions.
    depth, passes : int
        Positions of each group's window that a pass takes, and passes: groups times both cover the reduction dimension.
    chunk : int
        Columns that are on chip at once.
    work : float
        Multiplications that the network asks for: of the share of weights that its N:M keeps, and twice as many where
        inputs are two digits.
    bytes : int
        Of the weights with their positions; 0 for attention.
    why_not : str
        Why the N:M that was found is not used; empty where it is.
    """

    layer: str
    columns: int
    reduction: int
    nm: str
    used: str
    encoding: str
    depth: int
    passes: int
    chunk: int
    work: float
    bytes: int
    why_not: str = ""


@dataclass(frozen=True)
class ValueInfo:
    """What the instructions of a label compute.

    Attributes
    ----------
    operation : str
        Its kind, in lower case.
    layer : int or None
        The network's layer that it belongs to.
    value : str
        The value of the graph that they write.
    buffers : tuple of str
        Where.
    """

    operation: str
    layer: int | None
    value: str
    buffers: tuple[str, ...]


@dataclass(frozen=True)
class ProgramInfo:
    """Of a whole program.

    Attributes
    ----------
    layers : tuple of LayerInfo
        In the order they run.
    buffers : dict of Buffer, by name
    values : dict of ValueInfo, by label
    mean_windows : (address, depth, blocks) or None
        Of what the mean over an only text multiplies its tokens by.
    places : tuple of (name, offset, bytes)
        All that lies in the image.
    outputs : str
        The buffer of every token's output.
    input_width : int
        Columns of the input.
    ideal_cycles : float
        Of all layers' work on all multipliers.
    embedded_scale, output_scale, outputs_scale : float
        What one unit of the input, the pooled result, and every token's output means; the first is 0 where each token
        has a scale of its own.
    pooled_shares : tuple of float
        What each text's pooled sum is to be divided by.
    """

    layers: tuple[LayerInfo, ...] = ()
    buffers: dict[str, Buffer] = field(default_factory=dict)
    values: dict[str, ValueInfo] = field(default_factory=dict)
    mean_windows: tuple[int, int, int] | None = None
    places: tuple[tuple[str, int, int], ...] = ()
    outputs: str = ""
    input_width: int = 0
    ideal_cycles: float = 0.0
    embedded_scale: float = 0.0
    output_scale: float = 0.0
    outputs_scale: float = 0.0
    pooled_shares: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @staticmethod
    def read(found: dict[str, Any]) -> ProgramInfo:
        """What `as_dict` gave, behind JSON, whose parts `description` has checked."""
        mean = found["mean_windows"]
        return ProgramInfo(**found | {
            "layers": tuple(LayerInfo(**layer) for layer in found["layers"]),
            "buffers": {name: tuple(place) for name, place in found["buffers"].items()},
            "values": {
                label: ValueInfo(**about | {"buffers": tuple(about["buffers"])})
                for label, about in found["values"].items()
            },
            "mean_windows": None if mean is None else tuple(mean),
            "places": tuple((name, offset, count) for name, offset, count in found["places"]),
            "pooled_shares": tuple(found["pooled_shares"]),
        })  # fmt: skip

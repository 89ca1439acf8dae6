"""Which programs a decoder has, what each looks at, and which of them a prompt goes through."""

from __future__ import annotations

from dataclasses import dataclass

from ...spec.config import Config
from .room import Keys

__all__ = ["Kind", "all_kinds", "keys_of", "most_tiles", "split"]


@dataclass(frozen=True)
class Kind:
    """What a program is for.

    Attributes
    ----------
    tiles : int
        Row tiles of the pass, at most.
    keys : int
        Of the context, up to the pass's last tile's end.
    logits : bool
    """

    tiles: int
    keys: int
    logits: bool


def most_tiles(config: Config) -> int:
    """Row tiles of a pass: so many that weights take half of the bus, and two at least."""
    return max(2, 2 * config.groups // config.bus_bytes)


def all_kinds(config: Config, capacity: int) -> list[Kind]:
    """All programs of a context, of a row tile or of as many as there may be.

    A tile alone looks at whole blocks of keys, for a token's time is the weights'; of several, scores and contexts are
    time: in the first block they have programs of parts of it, too.
    """
    each, several, found = config.groups * config.window, most_tiles(config), []
    blocks = [each * (n + 1) for n in range(-(-capacity // each))]
    parts = [keys for keys in (each // 4, each // 2) if keys >= several * config.rows and keys % config.value_rows == 0]
    for tiles, ends in ((1, blocks), (several, [*parts, *blocks])):
        found += [Kind(tiles, keys, logits) for logits in (False, True) for keys in ends]
    return found


def keys_of(config: Config, kind: Kind, kinds: list[Kind]) -> Keys:
    """How far a program's tiles look: its pass ends at the kind's keys, or before, or, of the last kind, anywhere."""
    rows, unit = config.rows, config.value_rows
    shorter = [k.keys for k in kinds if k.tiles == kind.tiles and k.keys < kind.keys]
    last = kind.keys == kinds[-1].keys
    behind = [0 if last else (kind.tiles - 1 - tile) * rows for tile in range(kind.tiles)]
    limits = tuple(max(-(-(kind.keys - b) // unit), 1) * unit for b in behind)
    return Keys(limits, max(0, max(shorter, default=0) - (kind.tiles - 1) * rows))


def split(config: Config, most: int, position: int, count: int, last: int) -> list[tuple[int, bool]]:
    """How many tokens go into each pass, of `count` from a position on; and whether the logits are wanted.

    Of the `last` tokens they are: where these lie in several row tiles, each tile has a pass. All before share passes
    of `most` tiles, and so does what is left over.
    """
    rows, first, end = config.rows, position // config.rows, position + count
    tiles = -(-end // rows)
    wanted = max(end - last, position) // rows  # the first tile whose logits are
    together = (tiles if wanted == tiles - 1 else wanted) - first
    full, rest = divmod(together, most)
    # Loading its weights takes half of a full pass: what is left over shares one, which two passes would take, too.
    parts = [most] * full + [rest] * (rest > 0) + [1] * (tiles - first - together)
    found = []
    for part in parts:
        first += part
        stop = min(first * rows, end)
        found.append((stop - position, stop > end - last))
        position = stop
    return found

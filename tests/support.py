"""Random and extreme products, shared by the tests of the engine and its parts."""

from __future__ import annotations

import numpy as np

from sta_hw.config import Config, Pattern
from sta_hw.formats import encode, prune
from sta_hw.runtime.products import Product, Requantization


def random_product(
    config: Config,
    rng: np.random.Generator,
    pattern: Pattern,
    encoding: str | None = None,
    *,
    extreme: bool = False,
    largest: int = 12,
) -> Product:
    """A product of random shape; `extreme` fills it with the values of largest magnitude."""
    depth = int(pattern.m * rng.integers(1, config.window // pattern.m + 1))
    taps = int(rng.integers(1, config.window // depth + 1))
    columns = int(rng.integers(1, largest))
    reduction = int(rng.integers(1, 3 * config.groups * depth + 1))
    unsigned, per_row, wide = (bool(rng.integers(2)) for _ in range(3))
    low, high = (0, 256) if unsigned else (-128, 128)
    activations = rng.integers(low, high, (taps * config.rows, reduction))
    weights = rng.integers(-128, 128, (columns, reduction)).astype(np.int8)
    if extreme:
        activations[:] = rng.choice([low, high - 1])
        weights[:] = rng.choice([-128, 127])
    count = taps * config.rows if per_row else columns
    full = bool(rng.integers(2))
    requantization = Requantization(
        rng.integers(-(2**31), 2**31, count) if full else rng.integers(-5000, 5000, count),
        rng.integers(0, 1 << 16, count),
        rng.integers(0, 8, count) if full else rng.integers(0, 3, count),
        per_row=per_row,
        wide=wide,
    )
    encoded = encode(
        prune(weights, pattern), pattern, groups=config.groups, window=config.window, depth=depth, encoding=encoding
    )
    return Product(activations, encoded, taps, requantization, unsigned)


def covering_products(config: Config, seed: int, *, limit: int | None = None) -> list[Product]:
    """One product per pattern and encoding the hardware has, and a few extreme ones, shuffled."""
    rng = np.random.default_rng(seed)
    choices = [(p, e) for p in config.patterns for e in ((None,) if p.m == 1 else config.encodings)]
    order = rng.permutation(len(choices))[:limit]
    products = [random_product(config, rng, *choices[i]) for i in order]
    products += [random_product(config, rng, *choices[i], extreme=True) for i in order[:8]]
    return products

"""What the benches of generated cores send, and what must come by the numpy reference: small, of whole numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..compiler.image import Image
from ..compiler.small import small_encoder
from ..errors import InputError
from ..formats import encode, prune
from ..host import beats
from ..host.products import Product, Requantization
from ..reference.decoder import decoded_beats
from ..reference.program import run_program
from ..reference.softmax import softmax_row
from ..run.rtl import reference_results
from ..spec.config import Config
from ..spec.isa import Instruction, Opcode, assemble
from ..spec.patterns import DENSE, Pattern

__all__ = ["ProgramVectors", "StreamVectors", "program_vectors", "stream_vectors"]

Words = NDArray[np.uint32]


@dataclass(frozen=True)
class StreamVectors:
    """Beats to send, and to expect, by stream: uint32 arrays of shape (beats, words)."""

    inputs: dict[str, Words]
    outputs: dict[str, Words]


@dataclass(frozen=True)
class ProgramVectors:
    """A memory image with a program, uint8, and the image after the program has run; what register LENGTH holds."""

    image: NDArray[np.uint8]
    expected: NDArray[np.uint8]
    program_address: int
    length: int = 0


def _cases(config: Config) -> list[tuple[Pattern, str]]:
    """Dense, and the first and the last sparse pattern with each encoding."""
    sparse = [p for p in config.patterns if p.m > 1]
    ends = sparse[:1] + sparse[1:][-1:]
    return [(DENSE, "dense"), *((p, e) for p in ends for e in config.encodings)]


def _products(config: Config) -> list[Product]:
    rng = np.random.default_rng(14)
    found = []
    for pattern, encoding in _cases(config):
        depth = pattern.m * max(1, config.window // pattern.m // 2)
        taps, columns = config.window // depth, 3
        reduction = config.groups * depth + 1
        weights = prune(rng.integers(-128, 128, (columns, reduction)).astype(np.int8), pattern)
        encoded = encode(weights, pattern, groups=config.groups, window=config.window, depth=depth, encoding=encoding)
        parameters = Requantization(
            rng.integers(-5000, 5000, columns), rng.integers(0, 1 << 16, columns), rng.integers(3, 5, columns)
        )
        found.append(Product(rng.integers(-128, 128, (taps * config.rows, reduction)), encoded, taps, parameters))
    return found


def _engine(config: Config) -> StreamVectors:
    products = _products(config)
    sent = [p.streams(config) for p in products]
    results, last = [], []
    for product in products:
        values = reference_results(product, config).reshape(-1, config.drain_lanes)
        results.append(values)
        last += [0] * (len(values) - 1) + [1]
    return StreamVectors(
        {name: np.concatenate([s[name] for s in sent]) for name in sent[0]},
        {
            "results": beats.join([(np.concatenate(results), 16), (last, 1)]),
            "status": np.zeros((len(products), 1), np.uint32),
        },
    )


def _decoder(config: Config) -> StreamVectors:
    products = _products(config)
    sent = [p.streams(config) for p in products]
    from ..formats import decode

    parts = [
        decoded_beats(decode(p.weights), p.weights.pattern, config.groups, p.weights.depth, p.taps) for p in products
    ]
    values, addresses, flags = (np.concatenate(part) for part in zip(*parts, strict=True))
    return StreamVectors(
        {name: np.concatenate([s[name] for s in sent]) for name in ("command", "values", "positions")},
        {
            "beats": beats.join([(values, 8), (addresses, config.address_width), (flags, 1)]),
            "faults": np.zeros((len(products), 1), np.uint32),
        },
    )


def _softmax(config: Config) -> StreamVectors:
    rng = np.random.default_rng(14)
    lanes, block = config.softmax_lanes, config.softmax_block
    inputs, probabilities, totals = [], [], []
    for number, length in enumerate((1, lanes + 1, block, 2 * block + 1)):
        wide = number % 2 == 0
        count = -(-length // lanes)
        logits, keep = np.zeros(count * lanes, np.int64), np.arange(count * lanes) < length
        logits[:length] = rng.integers(-32768, 32768, length) >> int(rng.integers(0, 6))
        row = softmax_row(logits, keep, block=block, wide=wide)
        inputs.append(beats.logit_beats(logits[:length], None, config, wide=wide))
        probabilities.append(
            beats.join(
                [
                    (row.probabilities.reshape(count, lanes), 16),
                    (row.exponents.reshape(count, lanes)[:, 0], 11),
                    (np.arange(count) == count - 1, 1),
                ]
            )
        )
        totals.append(beats.join([([row.sum], 32), ([row.exponent], 11), ([row.multiplier], 16), ([row.shift], 3)]))
    return StreamVectors(
        {"logits": np.concatenate(inputs)},
        {"probabilities": np.concatenate(probabilities), "totals": np.concatenate(totals)},
    )


def stream_vectors(top: str, config: Config) -> StreamVectors:
    """Vectors of the engine, the softmax or the decoder: the same for the same configuration."""
    return {"engine": _engine, "softmax": _softmax, "decoder": _decoder}[top](config)


def program_vectors(config: Config) -> ProgramVectors:
    """A program and its memory: one small encoder layer for three tokens, with every kind of instruction.

    Where the hardware is too small for any such layer, a program that does nothing but end.
    """
    try:
        model = small_encoder(config)
    except InputError:
        program = np.frombuffer(assemble([Instruction(Opcode.HALT)], config), np.uint8)
        image = Image(config)
        address = image.add(program)
        whole = image.finish()
        length = 0
    else:
        whole, address, length = model.image.copy(), model.program_address, model.length
        values = np.random.default_rng(15).integers(-3000, 3000, model.hidden * config.rows)
        whole[model.input_address :][: 2 * len(values)] = values.astype("<i2").view(np.uint8)
    return ProgramVectors(whole, run_program(whole, address, config, length=length), address, length)

"""Random attention, norms, and lists of the largest results."""

from __future__ import annotations

import numpy as np

from sta_hw.spec.isa import NormKind, Opcode, Result
from sta_hw.spec.patterns import Pattern

from .products import Products

__all__ = ["Operations"]


class Operations(Products):
    """All that units do."""

    def attention(self) -> None:
        """Blocks of keys of some rows, and the contexts, 16 bits wide so that every probability is seen."""
        config, rng = self.config, self.rng
        blocks, coarse, gain = int(rng.integers(1, 4)), int(rng.integers(2)), int(rng.integers(8))
        mask, wide = int(rng.choice(self.codes("mask"))), int(rng.integers(2))
        columns, keys = int(rng.integers(1, 6)), int(rng.integers(0, 40))
        first = int(rng.integers(-8, 4))
        depths = [int(rng.integers(1, config.window + 1)) for _ in range(blocks)]
        ahead = int(not rng.integers(16))  # scores of the next block before this one's context

        def scores(block: int) -> None:
            nonlocal first
            count = config.groups * depths[block]
            fields = self.weights(Pattern(1, 1), "dense", int(rng.integers(1, config.window + 1)), count, 1)
            # Sums of its own are kept only where a context has not left any.
            if block == 0 and count <= config.columns:
                fields = self.sums(Opcode.SCORES, fields)
            step, base = self.parameters(count)
            self.add(
                Opcode.SCORES, **fields, **self.windows(fields), wide=1, parameters_step=step, parameters_base=base,
                row_first=int(block == 0), row_last=int(block == blocks - 1), gain=gain, coarse=coarse, mask=mask,
                keys=keys, key_start=first,
            )  # fmt: skip
            first += count

        def context(block: int) -> None:
            fields = self.weights(Pattern(1, 1), "dense", depths[block], columns, 1)
            result = int(Result.STORE16 if wide else Result.STORE8)
            if not wide and columns % config.groups == 0:
                result = int(rng.choice([Result.STORE8, Result.TRANSPOSE]))
            self.add(
                Opcode.CONTEXT, **fields, continues=int(block > 0), unfinished=int(block < blocks - 1), wide=wide,
                bits15=int(self.has("digits") and wide and rng.integers(2)),
                window_beats=config.groups * depths[block] * config.rows // config.bus_bytes, result=result,
                result_address=self.target(2 * columns * config.rows) if block == blocks - 1 else
                self.put(self.noise(2 * columns * config.rows)), **self.stored(),
            )  # fmt: skip

        for block in range(blocks):
            scores(block)
            if block >= ahead:
                context(block - ahead)
        if ahead:
            context(blocks - 1)

    def norm(self, inside: bool = False) -> None:
        """Where nothing else is; one `inside` a loop is narrow."""
        rng, rows = self.rng, self.config.rows
        width = int(rng.choice([2, 3, 5, 7, 8, 30, 64, 100]))
        sums = np.frombuffer(self.noise(2 * width * rows), "<i2")
        kind = rng.integers(5)
        if kind <= 1:  # nearly constant
            sums = (sums % 5 + rng.integers(-32760, 32760)).astype("<i2")
        elif kind == 2 and not inside:  # one value of a row is so far out that its normalized one saturates
            width = int(rng.integers(1400, 2100))
            sums = rng.integers(-2, 3, (width, rows)).astype("<i2")
            sums[rng.integers(0, width, rows), np.arange(rows)] = rng.choice([-32767, 32767], rows)
        scale = rng.integers(-(1 << 17), 1 << 17, width) >> rng.integers(0, 8, width)
        shift = rng.integers(-(1 << 15), 1 << 15, width) >> rng.integers(0, 8, width)
        multiplier = rng.integers(0, 1 << 16, width) >> np.arange(width) % 12  # not all 8-bit results saturate
        words = (scale & 0x3FFFF) | (shift & 0xFFFF) << 18 | multiplier << 34
        inverse = round(2**33 / width)
        more = {}
        if self.has("rms"):
            more = {"kind": int(rng.choice(list(NormKind))), "epsilon": int(rng.integers(1 << 28) >> rng.integers(28))}
        more["bits15"] = int(self.has("digits") and rng.integers(2))
        wide, narrow = self.put(self.noise(2 * width * rows)), self.put(self.noise(width * rows))
        self.add(
            Opcode.NORM, input_address=self.source(sums.tobytes()), wide_address=wide, narrow_address=narrow,
            width=width, inverse=inverse & 0xFFFFFFFF, inverse_high=inverse >> 32,
            parameters_address=self.put(words.astype("<u8").tobytes()), **more, **self.rows(),
        )  # fmt: skip
        self.written += [(wide, 2 * width * rows), (narrow, width * rows)]

    def largest(self) -> None:
        """Lists of the largest results of several products, with others in between."""
        rng, count = self.rng, int(self.rng.integers(1, 4))
        for number in range(count):
            fields = self.sums(Opcode.PRODUCT, self.shape())
            step, base = self.parameters(fields["columns"])
            last = int(number == count - 1)
            self.add(
                Opcode.PRODUCT, **fields, **self.windows(fields), parameters_step=step, parameters_base=base,
                result=int(Result.BEST), wide=int(rng.integers(8) > 0), row_first=int(number == 0), row_last=last,
                residual_address=int(rng.integers(1 << 18)),
                result_address=self.target(64 * self.config.rows) if last else 0,
            )  # fmt: skip
            if not last and rng.integers(2):
                (self.product, self.norm)[rng.integers(2)]()

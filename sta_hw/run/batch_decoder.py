"""A token of each of several sequences for one reading of all weights: rows of a tile, each with a context of its own.

>>> batch = BatchDecoder(ProgramDecoder(quantized, compile_decoder(quantized, config, 256, sequences=4), machine))
>>> batch.decoders[0].feed(ids)  # a prompt, for itself
>>> logits = batch.step({0: token, 1: other})
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..compiler.decoder.arithmetic import cosines
from ..errors import InputError
from .decoder import Pass, ProgramDecoder, words

__all__ = ["BatchDecoder"]


class BatchDecoder:
    """Contexts of several sequences on a machine, one for each slot.

    Slot s has row (first + s) mod rows of a tile, for some `first`: so the positions of a batch's next tokens differ
    from their slots by the same, modulo `rows`.

    Parameters
    ----------
    decoder : ProgramDecoder
        Of an image that has keys and values of several sequences.

    Attributes
    ----------
    decoders : tuple of ProgramDecoder
        Of each slot, for prompts, and for tokens of its sequence alone.
    """

    def __init__(self, decoder: ProgramDecoder) -> None:
        self.decoders = (decoder, *(decoder.another(s) for s in range(1, decoder.compiled.sequences)))
        self._tiles: dict[int, list[int | None]] = {}

    @property
    def runs(self) -> list[Pass]:
        """What was run, for all sequences."""
        return self.decoders[0].runs

    def first(self, slots: Mapping[int, int]) -> int:
        """The row of slot 0, of slots whose next tokens have these positions.

        Raises
        ------
        InputError
            If two sequences' rows are not as far apart as their slots are.
        """
        rows = self.decoders[0].compiled.config.rows
        found = {(position - slot) % rows for slot, position in slots.items()}
        if len(found) != 1:
            raise InputError(
                f"tokens of positions {', '.join(map(str, slots.values()))} do not go together in slots "
                f"{', '.join(map(str, slots))}: a position and its slot differ by the same, modulo {rows} rows."
            )
        return found.pop()

    def step(self, tokens: Mapping[int, int]) -> dict[int, NDArray[np.float64]]:
        """Put a token behind those of each of some slots; the logits of the next one of each.

        Raises
        ------
        InputError
            As `first`, if there is no such slot, a context is full, or a token is not in the vocabulary.
        CheckError
            If the machine stops with an error.
        """
        one = self.decoders[0]
        compiled, rows = one.compiled, one.compiled.config.rows
        if not compiled.batches:
            raise InputError("the image has keys and values of one sequence; compile it for several.")
        if not tokens or not all(0 <= slot < len(self.decoders) for slot in tokens):
            raise InputError(
                f"slots {', '.join(map(str, tokens)) or 'of no sequence'} are out of range; the batch has 0 to "
                f"{len(self.decoders) - 1}."
            )
        positions = {slot: self.decoders[slot].length for slot in tokens}
        first = self.first(positions)
        for slot, token in tokens.items():
            self.decoders[slot].require([token])
        streams = [one.embedded([token], positions[slot]) for slot, token in tokens.items()]
        one.put(np.concatenate(streams), np.array([p % rows for p in positions.values()]))
        self._write_turns(positions)
        furthest = (max(positions.values()) // rows + 1) * rows
        number = next(n for n, b in enumerate(compiled.batches) if b.keys >= furthest)
        self._write_tiles(number, positions)
        program = compiled.batches[number]
        cycles, counters = one.machine.run(program.address, 1, first, program.labels)
        where = tuple(positions.values())
        self.runs.append(Pass(where[0], len(where), cycles, counters, len(where), where[1:]))
        left = one.rows()
        found = {}
        for slot, token in tokens.items():
            row = positions[slot] % rows
            found[slot] = self.decoders[slot].behind(token, left[row : row + 1])
        return found

    def _write_turns(self, positions: Mapping[int, int]) -> None:
        """Cosines and sines of each row's own position."""
        one = self.decoders[0]
        for address, frequencies in one.compiled.turns:
            tile = np.zeros((len(frequencies), 2, one.compiled.config.rows), "<i2")
            for position in positions.values():
                tile[:, :, position % tile.shape[2]] = np.stack(cosines(frequencies, position, 1), axis=-1)[0]
            one.machine.write(address, tile.view(np.uint8).reshape(-1))

    def _write_tiles(self, number: int, positions: Mapping[int, int]) -> None:
        """Each slot's row tile into a program; what an idle one gives is stored behind the context."""
        one = self.decoders[0]
        compiled, rows = one.compiled, one.compiled.config.rows
        behind = compiled.batches[-1].keys // rows
        tiles = [positions[s] // rows if s in positions else behind for s in range(len(self.decoders))]
        before = self._tiles.pop(number, [None] * len(tiles))  # where this is interrupted, all is written again
        for value, places in compiled.batches[number].values:
            if before[value.slot] != tiles[value.slot]:
                for place in places:
                    one.machine.write(place, words([value.at(tiles[value.slot])]))
        self._tiles[number] = [*tiles]

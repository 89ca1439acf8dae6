"""Batches of sequences: each one's logits are those that it has alone, on the reference and on RTL, byte by byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_decoder_program import ALL, CAPACITY, CONFIG, PREFIX, RULES, Both, quantized

from sta_hw.compiler.decoder.program import DecoderImage, compile_decoder
from sta_hw.compiler.decoder.run import IntegerDecoder
from sta_hw.compiler.liveness import check_liveness
from sta_hw.errors import CheckError, InputError
from sta_hw.run.batch_decoder import BatchDecoder
from sta_hw.run.decoder import CheckedDecoder, ProgramDecoder
from sta_hw.run.machines import Machine, ReferenceMachine
from sta_hw.spec.isa import HEADER_BYTES, Opcode, disassemble

WIDER = replace(CONFIG, rows=8, groups=16, lanes=8, window=4, weight_words=2048)
"""More groups than rows: values of two row tiles lie side by side; more values of slots than registers."""


def texts(lengths: Sequence[int], more: int, seed: int = 0) -> list[list[int]]:
    """Random ones, each with so many tokens, the prefix's among them, and `more`."""
    rng = np.random.default_rng(seed)
    return [[*PREFIX, *rng.integers(0, 96, n - len(PREFIX) + more).tolist()] for n in lengths]


def follow(of: Any, compiled: DecoderImage, machine: Machine, lengths: dict[int, int], steps: int) -> BatchDecoder:
    """Prompts of so many tokens in slots, then tokens together: every logit is the sequence's own, alone."""
    batch = BatchDecoder(ProgramDecoder(of, compiled, machine))
    every = dict(zip(lengths, texts(list(lengths.values()), steps), strict=True))
    wanted = {slot: IntegerDecoder(of, compiled.capacity).logits(ids) for slot, ids in every.items()}
    behind = len(PREFIX) + 1
    for slot, length in lengths.items():
        found = batch.decoders[slot].feed(every[slot][:length])
        np.testing.assert_array_equal(found, wanted[slot][length - behind])
    before = len(batch.runs)
    for step in range(steps):
        given = batch.step({slot: every[slot][length + step] for slot, length in lengths.items()})
        for slot, length in lengths.items():
            np.testing.assert_array_equal(given[slot], wanted[slot][length + 1 - behind + step])
    assert len(batch.runs) - before == steps
    assert all(r.tokens == len(lengths) and len(r.others) == len(lengths) - 1 for r in batch.runs[before:])
    return batch


@pytest.mark.parametrize(
    ("family", "wide"),
    [("llama", ""), ("llama-narrow", ""), ("qwen2", ""), ("qwen3", ""), ("gpt2", ""), ("llama", ALL), ("gpt2", ALL)],
)
def test_sequences_of_different_lengths(family: str, wide: str, tmp_path: Path) -> None:
    """All rows of a tile, from the first tile to the third block of keys; each wraps from one tile to the next."""
    of = quantized(tmp_path, family, wide)
    compiled = compile_decoder(of, CONFIG, CAPACITY, sequences=4)
    batch = follow(of, compiled, ReferenceMachine(CONFIG), {0: 7, 1: 32, 2: 61, 3: 82}, 7)
    assert {r.position // CONFIG.rows for r in batch.runs[-7:]} == {1, 2, 3}


@pytest.mark.parametrize("family", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_on_rtl(family: str, tmp_path: Path) -> None:
    """Every byte of memory is the reference's, with a memory that stalls; so are the counters."""
    of = quantized(tmp_path, family)
    compiled = compile_decoder(of, CONFIG, CAPACITY, sequences=3)
    follow(of, compiled, Both(CONFIG), {0: 5, 1: 30, 2: 63}, 5)


@pytest.mark.parametrize(("family", "wide"), [("llama", ""), ("qwen3", ALL), ("gpt2", "")])
def test_more_groups_than_rows_and_more_values_than_registers(family: str, wide: str, tmp_path: Path) -> None:
    rules = replace(RULES, block=WIDER.groups * WIDER.window, groups=WIDER.groups)
    llama = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    of = quantized(tmp_path, family, wide, rules, **({"n_head": 2} if family == "gpt2" else llama))
    compiled = compile_decoder(of, WIDER, CAPACITY, sequences=8)
    assert {len(places) for _, places in compiled.batches[0].values} == {2}  # once in each layer
    follow(of, compiled, ReferenceMachine(WIDER), {7: 14, 0: 7, 1: 40, 2: 65, 5: 12, 3: 26}, 4)


def test_what_idle_slots_leave_alone(tmp_path: Path) -> None:
    """A slot whose sequence has ended leaves its own prefix, and all others' keys and values; then it is taken anew."""
    of = quantized(tmp_path, "llama")
    compiled = compile_decoder(of, CONFIG, CAPACITY, sequences=4)
    batch = follow(of, compiled, ReferenceMachine(CONFIG), {0: 5, 1: 6, 2: 7}, 2)
    for slot in (0, 2):  # the others are idle
        ids = texts([20], 0, slot)[0]
        batch.decoders[slot].length = len(PREFIX)
        wanted = IntegerDecoder(of, CAPACITY).logits(ids)
        np.testing.assert_array_equal(batch.decoders[slot].feed_last(ids[2:8], 3), wanted[3:6])
        for place in range(8, 20):
            (found,) = batch.step({slot: ids[place]}).values()
            np.testing.assert_array_equal(found, wanted[place - 2])
    other = batch.decoders[1]
    again = IntegerDecoder(of, CAPACITY).logits([*texts([5, 6, 7], 2)[1], 3])
    np.testing.assert_array_equal(other.feed([3]), again[-1])


def test_programs(tmp_path: Path) -> None:
    """They wait for nothing later, read weights as often as one sequence does, and say where values of slots are."""
    of = quantized(tmp_path, "llama")
    one, four = (compile_decoder(of, CONFIG, CAPACITY, sequences=n) for n in (1, 4))
    assert not one.batches and not one.turns and len(four.batches) == 3
    assert one.number(40, 1) == four.number(40, 1)
    weights = []
    for image, address in ((one, one.programs[one.number(40, 1)]), (four, four.batches[1].address)):
        program = disassemble(image.image[address:].tobytes(), CONFIG)
        if image is four:
            check_liveness(program, CONFIG)
        else:
            assert program[0].opcode == Opcode.SET and program[0]["value"]  # of a position, none of a sequence
        weights.append(sum(i["beats"] * i["rows"] for i in program if i.opcode == Opcode.LOAD and i["rows"] == 1))
    assert weights[1] - weights[0] < 0.1 * weights[0]  # parameters of scores alone
    for batch in four.batches:
        program = disassemble(four.image[batch.address :].tobytes(), CONFIG)
        there = {place for _, places in batch.values for place in places}
        assert sum(i.opcode == Opcode.SET for i in program) == len(there)
        for place in there:
            assert not four.image[place : place + 4].any() and place > batch.address + HEADER_BYTES - 1
            assert four.image[place + 4] >> 4 == Opcode.SET


def test_every_logit_is_compared(tmp_path: Path) -> None:
    """A wrong byte in one sequence's row is found, whatever the others' are; lists of the largest logits too."""

    class Wrong(ReferenceMachine):
        at = -1

        def run(
            self, program: int, length: int, position: int, labels: Sequence[str]
        ) -> tuple[int | None, dict[str, int]]:
            found = super().run(program, length, position, labels)
            if self.at >= 0:
                self.image[self.at] ^= 1
            return found

    of = quantized(tmp_path, "llama")
    for best in (False, True):
        machine = Wrong(CONFIG)
        compiled = compile_decoder(of, CONFIG, CAPACITY, best=best, sequences=2)
        batch = BatchDecoder(CheckedDecoder(of, compiled, machine))
        one, other = texts([9, 14], 2)
        batch.decoders[0].feed(one[:9])
        batch.decoders[1].feed(other[:14])
        found = batch.step({0: one[9], 1: other[14]})
        wanted = IntegerDecoder(of, CAPACITY, best=best).logits(other)
        np.testing.assert_array_equal(found[1], wanted[12])
        row = 15 % CONFIG.rows
        machine.at = compiled.logits_address + (row * 64 + 4 if best else 2 * (5 * CONFIG.rows + row))
        with pytest.raises(CheckError, match="behind position 15"):
            batch.step({0: one[10], 1: other[15]})


def test_what_is_refused(tmp_path: Path) -> None:
    of = quantized(tmp_path, "llama")
    for sequences in (0, 5):
        with pytest.raises(InputError, match=f"batch of {sequences} sequences is out of range; .* holds 1 to 4"):
            compile_decoder(of, CONFIG, 20, sequences=sequences)
    batch = BatchDecoder(ProgramDecoder(of, compile_decoder(of, CONFIG, 20, sequences=3), ReferenceMachine(CONFIG)))
    for slot, length in enumerate((5, 10, 20)):
        batch.decoders[slot].feed(texts([length], 0)[0])
    with pytest.raises(InputError, match="positions 5, 20 do not go together in slots 0, 2"):
        batch.step({0: 3, 2: 3})
    for slots, message in (({0: 3, 3: 3}, "slots 0, 3 are out of range; .* 0 to 2"), ({}, "slots of no sequence are")):
        with pytest.raises(InputError, match=message):
            batch.step(slots)
    with pytest.raises(InputError, match="token 96 is not in the vocabulary"):
        batch.step({0: 3, 1: 96})
    with pytest.raises(InputError, match="sequence 3 is out of range; the image has 3"):
        batch.decoders[0].another(3)
    assert [d.length for d in batch.decoders] == [5, 10, 20]
    alone = BatchDecoder(ProgramDecoder(of, compile_decoder(of, CONFIG, 20), ReferenceMachine(CONFIG)))
    alone.decoders[0].feed(texts([5], 0)[0])
    with pytest.raises(InputError, match="keys and values of one sequence"):
        alone.step({0: 3})

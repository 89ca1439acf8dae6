"""The softmax against its reference: lanes, blocks, lengths, masks, both widths, stalls; and accuracy."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from sim.cocotb_runner import Case, run_cocotb
from sta_hw.bench.softmax import distributions, normalised
from sta_hw.host import beats
from sta_hw.reference.softmax import softmax_row
from sta_hw.rtl.units.softmax import Softmax
from sta_hw.run.rtl import SoftmaxModel
from sta_hw.spec.config import Config

SHAPES = [(1, 1), (1, 7), (2, 2), (3, 3), (4, 16), (8, 8), (8, 128), (16, 16)]


def mixed_rows(rng: np.random.Generator, count: int, longest: int = 70) -> tuple[list, list]:
    """Rows of all kinds: tiny, saturated, rising (the exponent grows), masked in part or whole."""
    rows, masks = [], []
    for i in range(count):
        length = int(rng.choice([1, 1, 2, 3, 5, 17, longest]))
        logits = rng.normal(0, rng.choice([5, 100, 1000, 20_000]), length)
        if i % 7 == 0:
            logits = np.sort(logits)
        if i % 11 == 0:
            logits[:] = rng.choice([-32768, 32767])
        rows.append(np.clip(logits, -32768, 32767).astype(np.int64))
        masks.append(rng.random(length) < rng.choice([0.0, 0.5, 1.0, 1.0]))
    return rows, masks


@pytest.mark.parametrize(("lanes", "block"), SHAPES)
def test_equal_to_the_reference(lanes: int, block: int) -> None:
    model = SoftmaxModel(Config(softmax_lanes=lanes, softmax_block=block))
    rng = np.random.default_rng(lanes * 1000 + block)
    for wide in (False, True):
        for gain, stall in ((0, 0.0), (3, 0.3), (7, 0.7)):
            rows, masks = mixed_rows(rng, 200)
            model.run(rows, masks=masks, wide=wide, gain=gain, stall=stall, seed=gain + 1)


def test_both_widths_in_one_stream() -> None:
    config = Config(softmax_lanes=4)
    rng = np.random.default_rng(1)
    rows, masks = mixed_rows(rng, 100)
    widths = rng.integers(0, 2, 100)
    sent = [beats.logit_beats(r, m, config, wide=bool(w)) for r, m, w in zip(rows, masks, widths, strict=True)]
    outcome = SoftmaxModel(config)._model.run(
        {"logits": np.concatenate(sent)}, {"probabilities": sum(map(len, sent)), "totals": 100}, stall=0.2, linger=40
    )
    values, _, last = beats.fields(outcome.outputs["probabilities"], [(4, 16, False), (1, 11, True), (1, 1, False)])
    ends = np.flatnonzero(last[:, 0]) + 1
    assert ends.tolist() == np.cumsum([len(s) for s in sent]).tolist()
    for part, row, mask, wide in zip(np.split(values, ends[:-1]), rows, masks, widths, strict=True):
        expected = softmax_row(row, mask, block=4, wide=bool(wide))
        np.testing.assert_array_equal(part.reshape(-1)[: len(row)], expected.probabilities)
        assert not part.reshape(-1)[len(row) :].any()


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_cocotb(simulator: str) -> None:
    if simulator == "icarus" and shutil.which("iverilog") is None:
        pytest.skip("Icarus is not installed")
    config = Config(softmax_lanes=2, softmax_block=4)
    rng = np.random.default_rng(2)
    rows, masks = mixed_rows(rng, 40, longest=20)
    sent = [
        beats.logit_beats(r, m, config, wide=i % 2 == 0, gain=i % 8)
        for i, (r, m) in enumerate(zip(rows, masks, strict=True))
    ]
    count = {"probabilities": sum(map(len, sent)), "totals": len(rows)}
    cases = [Case({"logits": np.concatenate(sent)}, count, stall) for stall in (0.0, 0.4)]
    for outputs in run_cocotb(Softmax(config), "softmax", cases, simulator=simulator):
        values, exponents, _ = beats.fields(outputs["probabilities"], [(2, 16, False), (1, 11, True), (1, 1, False)])
        totals = beats.fields(outputs["totals"], [(1, 32, False), (1, 11, True), (1, 16, False), (1, 3, False)])
        at = 0
        for i, (row, mask) in enumerate(zip(rows, masks, strict=True)):
            expected = softmax_row(row, mask, block=4, wide=i % 2 == 0, gain=i % 8)
            part = slice(at, at + len(sent[i]))
            at = part.stop
            np.testing.assert_array_equal(values[part].reshape(-1)[: len(row)], expected.probabilities)
            np.testing.assert_array_equal(np.repeat(exponents[part], 2)[: len(row)], expected.exponents)
            got = tuple(int(t[i, 0]) for t in totals)
            assert got == (expected.sum, expected.exponent, expected.multiplier, expected.shift)


def test_masked_positions_are_exactly_zero() -> None:
    row = softmax_row(np.full(9, 100), np.arange(9) < 4, block=8, wide=True)
    assert not row.probabilities[4:].any() and row.probabilities[:4].all()
    empty = softmax_row(np.arange(5), np.zeros(5, bool), block=8, wide=False)
    assert empty.sum == empty.multiplier == 0 and not empty.probabilities.any()


@pytest.mark.parametrize("length", [1, 2, 64, 512, 4096])
def test_accuracy_of_the_rtl(length: int) -> None:
    model = SoftmaxModel(Config(softmax_lanes=8))
    for logits in distributions(np.random.default_rng(length), length, rows=4).values():
        for wide in (True, False):
            for row, x in zip(model.run(logits, wide=wide)[0], logits, strict=True):
                exact = np.exp2((x - x.max()) / 64)
                error = np.abs(normalised(row) - exact / exact.sum()).max()
                assert error <= (0.002 if wide else 0.012)
                assert abs(normalised(row).sum() - 1) <= 0.005


def test_latency_is_what_the_manifest_says() -> None:
    for lanes, block in SHAPES:
        config = Config(softmax_lanes=lanes, softmax_block=block)
        _, cycles = SoftmaxModel(config).run([np.arange(block)], wide=True)
        assert cycles["probabilities"][0] - cycles["logits"][-1] == Softmax(config).latency

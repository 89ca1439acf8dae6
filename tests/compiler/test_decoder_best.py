"""Programs that list the largest logits of each row instead of writing all, and heads of 4 bits scored by INT8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_decoder_program import ALL, CAPACITY, CONFIG, PREFIX, RULES, Both, quantized
from test_families import saved

from sta_hw.compiler.decoder.integers import ROLES
from sta_hw.compiler.decoder.likeliest import LISTED, ExactHead, with_exact_head
from sta_hw.compiler.decoder.program import compile_decoder
from sta_hw.compiler.decoder.run import IntegerDecoder
from sta_hw.compiler.decoder.traffic import Stored, stored_sizes
from sta_hw.errors import CheckError, InputError
from sta_hw.run.decoder import CheckedDecoder, ProgramDecoder
from sta_hw.run.machines import ReferenceMachine
from sta_hw.tasks.sampling import Sampling
from sta_hw.tasks.text import load_text_model

BLOCKS = replace(RULES, blocks=frozenset(ROLES))


@pytest.mark.parametrize(
    ("family", "wide", "rules"),
    [("llama", "", RULES), ("gpt2", ALL, RULES), ("llama", "", BLOCKS), ("llama", ALL, BLOCKS)],
)
def test_on_rtl(family: str, wide: str, rules: Any, tmp_path: Path) -> None:
    """Lists of every row, of prompts and single tokens: the integers' largest, of equal ones the earlier."""
    of = quantized(tmp_path, family, wide, rules)
    compiled = compile_decoder(of, CONFIG, CAPACITY, best=True)
    decoder = CheckedDecoder(of, compiled, Both(CONFIG))
    ids = [*PREFIX, *np.random.default_rng(4).integers(0, 96, 26).tolist()]
    found = np.concatenate([decoder.feed_last(ids[:20], 18), *(decoder.feed_last([i], 1) for i in ids[20:])])
    all_logits = IntegerDecoder(of, CAPACITY).logits(ids)
    given = np.isfinite(found)
    assert (given.sum(1) == LISTED).all()
    order = np.argsort(-all_logits, axis=1, kind="stable")[:, :LISTED]
    assert all(set(np.flatnonzero(row)) == set(best) for row, best in zip(given, order, strict=True))
    again = CheckedDecoder(of, compiled, decoder.machine)  # several row tiles in a pass, of which the last has a list
    np.testing.assert_array_equal(again.feed_last(ids[: 4 * CONFIG.rows], 1)[0], found[4 * CONFIG.rows - 3])
    assert again.runs[-1].tokens > CONFIG.rows
    if of.exact_head is None:
        np.testing.assert_array_equal(found[given], all_logits[given])
        np.testing.assert_array_equal(found.argmax(1), all_logits.argmax(1))
        return
    # By the same head with INT8 weights, of which the layers know nothing.
    exact = IntegerDecoder(with_exact_head(of), CAPACITY).logits(ids)
    np.testing.assert_array_equal(found[given], exact[given])
    assert (exact[given] != all_logits[given]).any()
    same = [float((f.argmax(1) == exact.argmax(1)).mean()) for f in (found, all_logits)]
    assert same[0] > same[1] and same[0] > 0.9


def test_a_wrong_list_is_found(tmp_path: Path) -> None:
    """Of lists that are not the integers' the place and both tokens are said."""
    of = quantized(tmp_path, "llama", "", BLOCKS)

    class Wrong(ReferenceMachine):
        def read(self, address: int, count: int) -> Any:
            found = super().read(address, count).copy()
            if address == compiled.logits_address:
                found.view("<i4").reshape(-1, LISTED, 2)[:, 7, 1] += 1
            return found

    compiled = compile_decoder(of, CONFIG, 40, best=True)
    decoder = CheckedDecoder(of, compiled, Wrong(CONFIG))
    with pytest.raises(
        CheckError, match=r"likeliest tokens behind position 2: expected token (\d+) .*place 7, got token \1"
    ):
        decoder.feed([*PREFIX, 7])


def test_lists_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a call that Ctrl-C ended, between lists and their scores, the next one's lists have nothing."""
    of = quantized(tmp_path, "llama", "", BLOCKS)
    decoder, wanted = IntegerDecoder(of, 40, best=True), IntegerDecoder(of, 40, best=True)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ExactHead, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            decoder.feed([*PREFIX, 7])
    decoder.length = 0
    np.testing.assert_array_equal(decoder.feed([*PREFIX, 9]), wanted.feed([*PREFIX, 9]))
    np.testing.assert_array_equal(decoder.listed, wanted.listed)
    # Bytes of such weights, where hardware has them in 4 bits and where it has not.
    assert set(stored_sizes(of.linears, CONFIG).values()) == {Stored(4.75, 8)}
    without = tuple(f for f in CONFIG.features if f != "blocks4")
    assert set(stored_sizes(of.linears, replace(CONFIG, features=without)).values()) == {Stored()}


def test_text_is_the_same(tmp_path: Path) -> None:
    """Greedy text, and text drawn from 8 or fewer, needs the lists alone; other sampling is refused."""
    model = load_text_model(_folder(tmp_path / "text")).in_integers([1], texts=[list(range(40))], config=CONFIG)
    prompt = [1, 9, 8, 7, 9, 8, 7]
    machine = ReferenceMachine(CONFIG)
    for sampling in (Sampling(), Sampling(0.8, 8, seed=3), Sampling(0.8, 2, 0.9, seed=3)):
        made = [
            model.generate(prompt, max_tokens=8, sampling=sampling, session=session).ids
            for session in (model.session(40), model.session(40, best=True), model.session(40, machine, best=True))
        ]
        assert made[0] == made[1] == made[2]
    drafted = model.generate(prompt, max_tokens=8, session=model.session(40, machine, best=True, check=True), drafts=3)
    assert drafted.ids == model.generate(prompt, max_tokens=8, session=model.session(40)).ids
    for sampling in (Sampling(0.8), Sampling(0.8, 9)):
        with pytest.raises(InputError, match="the 8 largest logits alone"):
            model.generate(prompt, max_tokens=2, sampling=sampling, session=model.session(40, best=True))


def _folder(folder: Path) -> Path:
    from decoder_files import decoder_folder

    folder.mkdir()
    decoder_folder(folder)
    return folder


def test_fewer_tokens_than_places(tmp_path: Path) -> None:
    """Of a vocabulary of less than 8 all are listed."""
    from decoder_files import SIZES

    from sta_hw.compiler.decoder.quantize import quantize_decoder
    from sta_hw.model.families import load_network

    saved(tmp_path, "LlamaForCausalLM", SIZES | {"vocab_size": 6, "bos_token_id": 1, "eos_token_id": 2})
    of = quantize_decoder(load_network(tmp_path).graph, [[1, 2, 3, 4, 5, 0] * 4], [1], RULES)
    decoder = CheckedDecoder(of, compile_decoder(of, CONFIG, 20, best=True), ReferenceMachine(CONFIG))
    np.testing.assert_array_equal(decoder.feed([1, 3, 2]), IntegerDecoder(of, 20).feed([1, 3, 2]))


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = quantized(tmp_path, "llama")
    with monkeypatch.context() as patch:
        patch.setattr("sta_hw.compiler.decoder.program.MOST_NUMBERED", 95)
        with pytest.raises(InputError, match="vocabulary of 96 exceeds the 95 tokens that lists"):
            compile_decoder(of, CONFIG, 20, best=True)
        compile_decoder(of, CONFIG, 20)
    without = tuple(f for f in CONFIG.features if f != "best")
    with pytest.raises(InputError, match="needs hardware with best"):
        compile_decoder(of, replace(CONFIG, features=without), 20, best=True)
    with pytest.raises(InputError, match="head's weights have 8 bits"):
        ExactHead(of)
    assert ProgramDecoder(of, compile_decoder(of, CONFIG, 20), ReferenceMachine(CONFIG)).best == 0

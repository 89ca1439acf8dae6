"""Texts of a batch: each is what it is alone, in fewer readings of all weights; which waits for which slot."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest
from decoder_files import decoder_folder

from sta_hw.errors import InputError
from sta_hw.run.machines import ReferenceMachine
from sta_hw.spec.presets import PRESETS
from sta_hw.tasks.sampling import Sampling
from sta_hw.tasks.text import TextModel, load_text_model
from sta_hw.tasks.together import Prompt, choose

CONFIG = replace(PRESETS["ci"], features=("decoder",))
CONTEXT = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    path = tmp_path_factory.mktemp("decoder")
    decoder_folder(path)
    return load_text_model(path).in_integers([1], texts=[list(range(40))], config=CONFIG)


def prompts(lengths: list[int]) -> list[list[int]]:
    rng = np.random.default_rng(sum(lengths))
    return [[1, *rng.integers(3, 300, n - 1).tolist()] for n in lengths]


def test_greedy_texts(model: TextModel) -> None:
    """Some end early, a context is full, others wait for a slot: all are what they are alone, also one by one."""
    given = prompts([9, 3, 45, 2, 17, 5, 30])
    alone = [model.generate(p, max_tokens=24, session=model.session(CONTEXT)) for p in given]
    batch = model.batch(4, CONTEXT, ReferenceMachine(CONFIG), check=True, best=True)
    told: dict[int, str] = {}
    found = model.generate_batch(
        given, max_tokens=24, session=batch, told=lambda n, new: told.update({n: told.get(n, "") + new})
    )  # fmt: skip
    one_by_one = model.generate_batch(given, max_tokens=24, session=model.session(CONTEXT))
    for number, (made, by_itself, wanted) in enumerate(zip(found.texts, one_by_one.texts, alone, strict=True)):
        for text in (made, by_itself):
            assert (text.prompt, text.ids, text.text) == (wanted.prompt, wanted.ids, wanted.text)
            assert text.ended == wanted.ended
        assert told[number] == made.text
    assert {t.ended for t in alone} >= {"length", "context"}
    assert found.passes + found.prompt_passes == len(batch.runs)
    assert one_by_one.passes == sum(len(t.ids) - 1 for t in alone) and one_by_one.tokens_per_pass == 1
    assert found.tokens_per_pass and 3 < found.tokens_per_pass == found.tokens / found.passes
    # The same contexts serve the next batch, and those of one sequence.
    few = model.generate_batch(given[:1], max_tokens=24, session=batch)
    assert few.texts[0].ids == alone[0].ids and few.passes == len(few.texts[0].ids) - 1


def test_drawn_texts(model: TextModel) -> None:
    """Each is drawn as with its own seed alone; stop texts end them."""
    given, sampling = prompts([12, 4, 7]), Sampling(1.5, top_k=6, seed=3)
    plain = model.generate(given[1], max_tokens=12, sampling=sampling, session=model.session(CONTEXT)).text
    stop = [plain[3:5]]
    alone = [
        model.generate(p, max_tokens=12, sampling=sampling, stop=stop, session=model.session(CONTEXT)) for p in given
    ]
    found = model.generate_batch(
        given, max_tokens=12, sampling=sampling, stop=stop,
        session=model.batch(2, CONTEXT, ReferenceMachine(CONFIG)),
    )  # fmt: skip
    assert [(t.ids, t.text, t.ended) for t in found.texts] == [(t.ids, t.text, t.ended) for t in alone]
    assert alone[1].ended == "stop" and alone[1].text == plain[:3]


@pytest.mark.parametrize(("rows", "slots", "least"), [(8, 4, 3.86), (16, 4, 3.54), (8, 8, 7.3), (4, 4, 3.86)])
def test_tokens_for_a_pass(rows: int, slots: int, least: float) -> None:
    """Sequences of 64 tokens behind prompts of any lengths: all wait less than rows take to come round."""
    for lengths in combinations_with_replacement(range(0, rows, 1 if slots * rows < 64 else 2), slots):
        found = choose({n: Prompt(20 + length, 2) for n, length in enumerate(lengths)}, range(slots), rows, None)
        assert {n for n, _, _ in found} == {s for _, s, _ in found} == set(range(slots))
        assert len({(20 + lengths[n] - left - slot) % rows for n, slot, left in found}) == 1
        left = [left for _, _, left in found]
        assert (64 * slots - left.count(0)) / (63 + max(left)) >= least


def test_prompts_that_are_too_short_wait() -> None:
    """One without tokens to leave to the batch comes when the row does; another goes first."""
    short, long = Prompt(3, 2), Prompt(11, 2)
    assert choose({0: short}, [0], 4, None) == [(0, 0, 0)]
    assert choose({0: short}, [1], 4, 3) == []  # three rows behind
    assert choose({0: short, 1: long}, [1], 4, 3) == [(1, 1, 3)]
    assert choose({0: short}, [1], 4, 1) == [(0, 1, 1)]
    assert choose({}, [0], 4, 1) == [] == choose({0: short}, [], 4, 1)


def test_what_is_refused(model: TextModel) -> None:
    batch = model.batch(2, 20, ReferenceMachine(CONFIG), best=True)
    with pytest.raises(InputError, match=r"^prompt 2: the prompt has 21 tokens; the context holds 20\.\nprompt 3: "):
        model.generate_batch([[1, 2], [1] * 21, [1, 999]], session=batch)
    with pytest.raises(InputError, match="prompt 1: the text does not begin with the 1 tokens of the prefix"):
        model.generate_batch([[2, 3]], session=batch)
    with pytest.raises(InputError, match="prompt 1: the text is the prefix alone"):
        model.generate_batch([[1]], session=batch)
    with pytest.raises(InputError, match="there is no prompt"):
        model.generate_batch([], session=batch)
    with pytest.raises(InputError, match="0 tokens are asked for"):
        model.generate_batch([[1, 2]], max_tokens=0, session=batch)
    with pytest.raises(InputError, match="gives the 8 largest logits alone"):
        model.generate_batch([[1, 2]], sampling=Sampling(1.0), session=batch)
    with pytest.raises(InputError, match="batch of 5 sequences is out of range"):
        model.batch(5, 20, ReferenceMachine(CONFIG))
    assert not batch.runs

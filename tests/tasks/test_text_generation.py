"""Text generation: the tokens are those that Hugging Face's own generation gives; what does not fit is a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decoder_files import decoder_folder
from numpy.typing import NDArray

from sta_hw.compiler.decoder.integers import Rules
from sta_hw.errors import InputError
from sta_hw.spec.patterns import Pattern
from sta_hw.tasks.decoder_texts import calibration_texts
from sta_hw.tasks.sampling import Sampler, Sampling
from sta_hw.tasks.session import Fp32Decoder, Session
from sta_hw.tasks.text import Generated, TextModel, load_text_model

PROMPT = "The quick brown fox"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder")
    decoder_folder(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> TextModel:
    return load_text_model(folder)


def test_greedy(tmp_path: Path) -> None:
    theirs = decoder_folder(tmp_path, "Qwen2ForCausalLM")
    model = load_text_model(tmp_path)
    found = model.generate(PROMPT, max_tokens=20)
    ids = torch.tensor([found.prompt])
    wanted = theirs.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    assert found.ids == wanted and found.text == model.language.vocabulary.decode(wanted)
    assert found.ended == ("stop" if wanted[-1] == 0 else "length")


def test_pieces_are_the_text(model: TextModel) -> None:
    made = Generated([])
    pieces = list(model.stream(PROMPT, max_tokens=12, sampling=Sampling(2.0, seed=5), into=made))
    assert "".join(pieces) == made.text and len(made.ids) <= 12 and made.prompt == model.ids(PROMPT)
    held = Generated([], ids=[1])  # of a character that has begun
    for into, said in (
        (made, "into has a text of .* tokens already"),
        (held, "into has a text of 1 tokens already"),
        ("x", "into is 'x', of type str"),
    ):
        with pytest.raises(InputError, match=said):
            list(model.stream(PROMPT, max_tokens=2, into=into))


def test_seeds(model: TextModel) -> None:
    def ids(seed: int, **settings: float) -> list[int]:
        return model.generate(PROMPT, max_tokens=10, sampling=Sampling(1.5, seed=seed, **settings)).ids

    assert ids(1) == ids(1) and len({tuple(ids(s)) for s in range(4)}) > 1
    assert ids(3, top_k=1) == ids(4, top_p=1e-9) == model.generate(PROMPT, max_tokens=10).ids


def test_what_is_drawn() -> None:
    """Frequencies follow the probabilities that temperature, top-k and top-p leave."""
    logits = np.log(np.array([0.1, 0.4, 0.05, 0.25, 0.2]))
    for sampling, wanted in (
        (Sampling(1.0), [0.1, 0.4, 0.05, 0.25, 0.2]), (Sampling(1.0, top_k=2), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (Sampling(1.0, top_p=0.6), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (Sampling(1.0, top_p=0.66), [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        (Sampling(0.5, top_k=2), [0, 0.16 / 0.2225, 0, 0.0625 / 0.2225, 0]),
    ):  # fmt: skip
        sampler = Sampler(sampling)
        counts = np.bincount([sampler.choose(logits) for _ in range(4000)], minlength=5) / 4000
        assert np.abs(counts - wanted).max() < 0.03, sampling
    assert Sampler(Sampling()).choose(np.array([1.0, 3.0, 3.0])) == 1


def test_a_session_computes_what_is_new_alone(model: TextModel) -> None:
    fed: list[int] = []

    class Counted(Fp32Decoder):
        def feed_last(self, ids: Sequence[int], last: int) -> NDArray:
            fed.append(len(ids))
            return super().feed_last(ids, last)

    session = Session(Counted(model.language.graph, 60))
    first = model.generate(PROMPT, max_tokens=4, session=session)
    more = [*first.prompt, *first.ids[:2], 7, 8]
    fed.clear()
    second = model.generate(more, max_tokens=3, session=session)
    assert fed == [2, 1, 1]
    assert second.ids == model.generate(more, max_tokens=3).ids
    fed.clear()
    model.generate(more, max_tokens=1, session=session)
    assert fed == [1]


def test_a_full_context_ends_the_text(model: TextModel) -> None:
    session = model.session(12)
    found = model.generate([5] * 9, max_tokens=50, session=session)
    assert found.ended in ("context", "stop")
    found = model.generate([5] * 12, max_tokens=50, session=session)
    assert len(found.ids) == 1 and found.ended in ("context", "stop")


def test_texts_that_end_it(model: TextModel) -> None:
    whole = model.generate(PROMPT, max_tokens=20).text
    end = whole[6:9]
    found = model.generate(PROMPT, max_tokens=20, stop=(end, "never there"))
    assert found.text == whole[: whole.index(end)] and found.ended == "stop"
    assert model.generate(PROMPT, max_tokens=20, stop=(whole[-3:] + "x",)).text == whole


def test_chat(model: TextModel) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    text = model.language.vocabulary.decode(model.ids(messages), special=True)
    assert text == "<|start|>system\nBe kind.<|end|>\n<|start|>user\nHi<|end|>\n<|start|>assistant\n"


@pytest.mark.parametrize(
    ("prompt", "settings", "sentence"),
    [
        ([1] * 61, {}, "the prompt has 61 tokens; the context holds 60"), ([], {}, "no tokens"), ("", {}, "no tokens"),
        ([3, 320], {}, "token 1 of the prompt is 320; the vocabulary has 0 to 319"), ([-1], {}, "is -1"),
        ("a", {"max_tokens": 0}, "the least is 1"),
    ],
)  # fmt: skip
def test_what_is_refused(model: TextModel, prompt: str | list[int], settings: dict[str, int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        model.generate(prompt, **settings)


@pytest.mark.parametrize(
    "settings", [(-1.0,), (float("nan"),), (1.0, -1), (1.0, 0, 0.0), (1.0, 0, 1.1), (1.0, 0, 1.0, -1)]
)
def test_sampling_out_of_range(settings: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="out of range"):
        Sampling(*settings)


def test_contexts_out_of_range(model: TextModel) -> None:
    for tokens in (0, 61):
        with pytest.raises(InputError, match="made for 1 to 60"):
            model.session(tokens)
    assert model.context() == 60


def test_models_that_do_not_fit(tmp_path: Path) -> None:
    decoder_folder(tmp_path, vocab_size=299)
    with pytest.raises(InputError, match="300 tokens, and the model 299"):
        load_text_model(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        load_text_model(tmp_path)
    with pytest.raises(InputError, match="is not there"):
        load_text_model(tmp_path / "nothing.gguf")


def test_in_integers(model: TextModel) -> None:
    """The same interface; every text begins with the prefix, of which nothing is computed."""
    texts = [[int(t) for t in np.random.default_rng(i).integers(2, 300, 30)] for i in range(3)]
    integers = model.in_integers((5, 6), texts=texts, rules=Rules(block=32))
    found = integers.generate(PROMPT, max_tokens=8)
    assert found.prompt[:2] == [5, 6] and found.prompt[2:] == model.ids(PROMPT)
    assert found.ids == integers.generate(PROMPT, max_tokens=8).ids
    prefix = model.language.chat_prefix()
    assert model.language.vocabulary.decode(prefix, special=True).startswith("<|start|>system\nBe kind.<|end|>")
    with pytest.raises(InputError, match="does not begin with the 2 tokens"):
        integers.generate([{"role": "user", "content": "Hi"}], max_tokens=2)
    assert len(calibration_texts(model.language)) == 10


PROMPTS: list[Any] = [None, 5, b"abc", {1, 2}, {"role": "user", "content": "x"}, Path("x"), "a\ud800", [1.5], [True],
                      ["1"], [None], [[1]], np.array(3), np.zeros((2, 2)), [{"role": "user"}], [{"content": "x"}],
                      [{"role": 5, "content": "x"}], [{"role": "user", "content": None}], [5, {"role": "user"}],
                      [{"role": "user", "content": "x"}, 5]]  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS, ids=repr)
def test_what_is_no_prompt(model: TextModel, prompt: Any) -> None:
    with pytest.raises(InputError):
        model.generate(prompt, max_tokens=1)
    with pytest.raises(InputError, match="prompt 2: "):
        model.generate_batch(["a", prompt], max_tokens=1)


@pytest.mark.parametrize("prompt", [np.array([7, 8]), (7, 8), iter([7, 8]), range(7, 9), [np.uint16(7), np.int64(8)]])
def test_prompts_of_other_kinds(model: TextModel, prompt: Any) -> None:
    found = model.generate(prompt, max_tokens=2)
    assert found.prompt == [7, 8] and found.ids == model.generate([7, 8], max_tokens=2).ids


@pytest.mark.parametrize(
    "given", [
        {"max_tokens": 1.5}, {"max_tokens": float("nan")}, {"max_tokens": float("inf")}, {"max_tokens": "2"},
        {"max_tokens": True}, {"drafts": 1.5}, {"drafts": None}, {"drafts": float("nan")}, {"stop": "ab"},
        {"stop": None}, {"stop": [5]}, {"stop": [b"x"]}, {"sampling": 0.5}, {"sampling": {}}, {"session": 5},
    ], ids=str,
)  # fmt: skip
def test_what_is_no_setting(model: TextModel, given: dict[str, Any]) -> None:
    """A text as `stop` would end the text at each of its characters; a fraction of a token is none."""
    (name,) = given
    with pytest.raises(InputError, match=name):
        model.generate(PROMPT, **given)
    if name != "drafts":
        with pytest.raises(InputError, match=name):
            model.generate_batch([PROMPT], **given)


def test_what_is_no_session(model: TextModel) -> None:
    other = replace(model, language=replace(model.language, graph=replace(model.language.graph)))
    for given in (other, model.in_integers(config="ci", cache=False)):
        with pytest.raises(InputError, match="session is another model's"):
            given.generate(PROMPT, max_tokens=1, session=model.session())
        with pytest.raises(InputError, match="session is another model's"):
            model.generate_batch([PROMPT], max_tokens=1, session=given.session())
    with pytest.raises(InputError, match="a context of 101 tokens is out of range; the model was made for 1 to 60"):
        model.in_integers([1] * 100)
    with pytest.raises(InputError, match="a text of stop is empty"):
        model.generate(PROMPT, stop=[""])
    with pytest.raises(InputError, match="role of message 1 is 'usr'; it is system, user, assistant"):
        model.ids([{"role": "usr", "content": "Hi"}])
    with pytest.raises(InputError, match="5"):
        model.prune("dense", hardware=5)
    for context in (1.5, "4", True, float("nan")):
        with pytest.raises(InputError, match=r"context is .*; it is a whole number"):
            model.session(context)
    with pytest.raises(InputError, match="give a machine, or leave it out"):
        model.session(8, check=True)
    with pytest.raises(InputError, match="leave best out"):
        model.session(8, best=True)
    for prompts in ("abc", None, 5, {"a": 1}):
        with pytest.raises(InputError, match="it is a list of prompts"):
            model.generate_batch(prompts, max_tokens=1)


@pytest.mark.parametrize("texts", ["abc", ["abc"], 5, [5], [[]], [[1.5]], [[True]]], ids=repr)
def test_what_are_no_texts(model: TextModel, texts: Any) -> None:
    with pytest.raises(InputError, match="texts"):
        model.prune("2:4", texts=texts)
    with pytest.raises(InputError, match="texts"):
        model.in_integers([1], texts=texts)


def test_what_is_no_pattern(model: TextModel) -> None:
    names = list(model.language.graph.linears)
    all_of = dict.fromkeys(names, Pattern(2, 4))
    few = dict(list(all_of.items())[1:])
    cases: list[tuple[Any, str]] = [
        ({}, f"lacks '{names[0]}'"), (few, f"lacks '{names[0]}'"), (all_of | {"head": Pattern(2, 4)}, "has 'head'"),
        (dict.fromkeys(names, "2:4"), "has '2:4' for"), ([], "they are a dict of Pattern"), (5, "they are a dict"),
    ]  # fmt: skip
    for patterns, says in cases:
        with pytest.raises(InputError, match=says):
            model.prune(patterns=patterns, method="magnitude", texts=[[1, 2]])
    assert model.prune(patterns=all_of, method="magnitude", texts=np.array([[1, 2]])).patterns == all_of
    for nm in ("", 5, Pattern(2, 4)):
        with pytest.raises(InputError, match="N:M pattern"):
            model.prune(nm, texts=[[1, 2]])
    for prefix in ("abc", [1.5], [True], 5):
        with pytest.raises(InputError, match="prefix"):
            model.in_integers(prefix)
    calls: list[Callable[[], object]] = [
        lambda: model.session(check="no"), lambda: model.session(best=1), lambda: model.prune("2:4", report=1),
        lambda: model.in_integers([1], report="x"), lambda: model.generate_batch(["a"], told=1),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(InputError, match=r"it is (True or False|a function)"):
            call()
    with pytest.raises(InputError, match=r"rules is {}"):
        model.in_integers([1], rules={})
    for wrong in ({"block": 0}, {"block": 1.5}, {"groups": 0}, {"groups": True}, {"rotate": "no"},
                  {"feedback": 1}):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(wrong))):
            Rules(**wrong)

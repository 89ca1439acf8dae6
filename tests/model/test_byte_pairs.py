"""Tokenizers of decoders: tokens are those that Hugging Face's classes give; text streams whole characters."""

from __future__ import annotations

import json
import re
import resource
import sys
from functools import cache
from pathlib import Path

import pytest
import transformers as hf
from decoder_files import MARKS, TEMPLATE, TEXTS, byte_pairs, decoder_folder, gguf_bytes, tokenizer_metadata
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers

from sta_hw.errors import InputError
from sta_hw.model.byte_pairs import Streamed, Vocabulary, tokenizer_of
from sta_hw.model.chat import ChatTemplate
from sta_hw.model.gguf import read_gguf
from sta_hw.model.language import load_language_model

# As the tokenizer.json of Llama 3 and SmolLM2 has it.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


def from_gguf(folder: Path, tokenizer: Tokenizer, split: str, **more: object) -> Vocabulary:
    path = folder / "a.gguf"
    path.write_bytes(gguf_bytes(tokenizer_metadata(tokenizer, split) | more, {}))
    return tokenizer_of(read_gguf(path))


def theirs(tokenizer: Tokenizer, split: str) -> Tokenizer:
    about = json.loads(tokenizer.to_str())
    vocabulary, merges = about["model"]["vocab"], [tuple(m) for m in about["model"]["merges"]]
    if split == "gpt-2":
        made = hf.GPT2Tokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
    elif split == "qwen2":
        made = hf.Qwen2Tokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
    else:
        made = Tokenizer.from_str(tokenizer.to_str())
        first = {
            "llama-bpe": pre_tokenizers.Split(Regex(_LLAMA3), "isolated"), "smollm": pre_tokenizers.Digits(True),
        }[split]  # fmt: skip
        last = pre_tokenizers.ByteLevel(False, use_regex=split == "smollm")
        made.pre_tokenizer = pre_tokenizers.Sequence([first, last])
    return made


@pytest.mark.parametrize("split", ["gpt-2", "qwen2", "llama-bpe", "smollm"])
def test_tokens(split: str, tmp_path: Path) -> None:
    tokenizer = byte_pairs()
    found, wanted = from_gguf(tmp_path, tokenizer, split), theirs(tokenizer, split)
    begin = [*found.begin]  # of Llama 3's a file need not say that there is one
    assert begin == ([1] if split == "llama-bpe" else [])
    for text in [*TEXTS, "".join(TEXTS), "e\u0301 Å"]:
        assert found.encode(text) == begin + wanted.encode(text, add_special_tokens=False).ids, text
        if split != "qwen2":
            assert found.decode(found.encode(text)) == text
    assert found.encode(f"a{MARKS[1]}b")[len(begin) + 1] == 1
    assert found.decode([1, 2, 0]) == found.decode([2]) and found.decode([1], special=True) == MARKS[1]


def test_marks_without_a_kind(tmp_path: Path) -> None:
    """What a file says begins and ends texts is found whole, if no kinds are there, or normal or user's ones alone."""
    tokenizer = byte_pairs()
    number = tokenizer.token_to_id("Ġthe")
    assert number is not None
    for kinds in ([], [1] * 300, [4] * 2 + [1] * 298):
        for name in ("eot", "eom"):
            about = {"tokenizer.ggml.token_type": kinds, f"tokenizer.ggml.{name}_token_id": number}
            found = from_gguf(tmp_path, tokenizer, "gpt-2", **about)
            assert found.encode(f"a{MARKS[0]}b{MARKS[1]}")[1::2] == [0, 1], kinds
            assert found.decode([66, 0]) == found.decode([66, number]) == found.decode([66])
            assert found.encode("aĠthe")[1:] == [number]


def test_what_stands_ahead(tmp_path: Path) -> None:
    found = from_gguf(tmp_path, byte_pairs(), "gpt-2", **{"tokenizer.ggml.add_bos_token": True})
    assert found.encode("a")[0] == 1 and found.encode("a", begin=False) == found.encode("a")[1:]


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=30))
def test_streamed_text_is_the_text(text: str) -> None:
    vocabulary = Vocabulary(byte_pairs_once())
    streamed = Streamed(vocabulary)
    ids = vocabulary.encode(text)
    pieces = [streamed.push(i) for i in ids]
    assert "".join(pieces) + streamed.rest() == vocabulary.decode(ids)
    assert not any("�" in p for p in pieces) or "�" in text


@cache
def byte_pairs_once() -> Tokenizer:
    return byte_pairs()


def test_a_character_that_never_ends() -> None:
    vocabulary = Vocabulary(byte_pairs_once())
    whole = vocabulary.encode("🙃")
    streamed = Streamed(vocabulary)
    assert [streamed.push(i) for i in whole[:-1]] == [""] * (len(whole) - 1)
    assert "�" in streamed.rest()


def test_a_text_that_goes_on_amid_a_character() -> None:
    """As behind one that ended with its last token; a character that is lost in silence is no other text."""
    vocabulary = Vocabulary(byte_pairs_once())
    ids = vocabulary.encode("日🙃é")
    assert all(vocabulary.decode([i]) == "�" for i in ids)
    for cut, wanted in ((1, "日🙃é"), (2, "日🙃é"), (3, "🙃é"), (len(ids) - 1, "é"), (len(ids), "")):
        streamed = Streamed(vocabulary, ids[:cut])
        assert "".join(streamed.push(i) for i in ids[cut:]) + streamed.rest() == wanted
    streamed = Streamed(vocabulary, [*vocabulary.encode("a�")])
    assert streamed.push(vocabulary.encode("b")[0]) == "b"


CONVERSATIONS = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": " a\nß "}],
    [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}],
]
OTHERS = [
    "{{ bos_token }}{% for m in messages %}[{{ m.role | upper }}]\n  {%- if m.content %} {{ m.content | trim }}"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}[A]{% endif %}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% continue %}{% endif %}{{ m | tojson }}{% endfor %}",
    "{% for m in messages %}{% generation %}\n{% set x = m.role %}{{ x }}{% endgeneration %}{{ x }}"
    "{{ m | tojson(ensure_ascii=True, separators=(',', ':'), sort_keys=True) }}{{ odd_token }}{% endfor %}",
]


@pytest.mark.parametrize("source", [TEMPLATE, *OTHERS], ids=["chatml", "blocks", "loops", "answers"])
@pytest.mark.parametrize("messages", CONVERSATIONS, ids=["one", "system", "three"])
@pytest.mark.parametrize("answer", [True, False])
def test_templates(source: str, messages: list[dict[str, str]], answer: bool, tmp_path: Path) -> None:
    decoder_folder(tmp_path, template=source)
    tokenizer = hf.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer)
    found = ChatTemplate(source, {"bos_token": "<|start|>", "eos_token": "<|end|>"}).text(messages, answer=answer)
    assert found == wanted


def test_tokens_that_a_template_names(tmp_path: Path) -> None:
    """Every token that the configuration gives a name: one that is missing would be no text, in silence."""
    decoder_folder(
        tmp_path, template="{{ bos_token }}|{{ sep_token }}|{{ cls_token }}|{{ odd_token }}|{{ none_token }}"
    )
    path = tmp_path / "tokenizer_config.json"
    about = json.loads(path.read_text()) | {"sep_token": "a", "extra_special_tokens": {"odd_token": "b"}}
    path.write_text(json.dumps(about | {"cls_token": "c", "tokenizer_class": "PreTrainedTokenizerFast"}))
    template = load_language_model(tmp_path).template
    assert template is not None and template.text(CONVERSATIONS[0]) == "<|start|>|a|c|b|"
    theirs = hf.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.apply_chat_template(CONVERSATIONS[0], tokenize=False) == "<|start|>|a|c|b|"
    # Older folders name tokens in a file of their own.
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"sep_token": {"content": "d"}}))
    template = load_language_model(tmp_path).template
    assert template is not None and template.text(CONVERSATIONS[0]) == "<|start|>|d|c|b|"
    for token, said in (({"content": 7}, "is no text"), ("<|nowhere|>", "is '<|nowhere|>'; tokenizer.json has no")):
        (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": token}))
        with pytest.raises(InputError, match=re.escape(f"eos_token of special_tokens_map.json {said}")):
            load_language_model(tmp_path)
    # Where the configuration has numbers of tokens, that file does not count, to transformers neither.
    kept = about | {"cls_token": "c", "added_tokens_decoder": {"0": {"content": MARKS[0], "special": True}}}
    path.write_text(json.dumps(kept | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    template = load_language_model(tmp_path).template
    theirs = hf.AutoTokenizer.from_pretrained(tmp_path)
    assert template is not None and template.text(CONVERSATIONS[0]) == "<|start|>|a|c|b|"
    assert theirs.apply_chat_template(CONVERSATIONS[0], tokenize=False) == "<|start|>|a|c|b|"


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{{ raise_exception('Roles must alternate') }}", "Roles must alternate"), ("{% for %}", "chat template"),
        ("{{ messages.__class__.__mro__ }}", "chat template"), ("{{ messages[0]['content'] + 1 }}", "chat template"),
        ("{{ raise_exception() }}", "it says no reason"), ("{{ raise_exception('a\\n\\nb') }}", "conversation: a b.$"),
        # What Jinja makes code of, and Python does not take.
        ("{% break %}", "'break' outside loop"), ("{% if true %}" * 150 + "{% endif %}" * 150, "too many levels"),
        ("{{ cycler() }}", "at least one item"), ("{{ '" + "x" * 100_000 + "' }}", "has 100,008 characters"),
        # What never ends, and what no memory holds.
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more than 1 s"),
        ("{{ 10 ** (10 ** 9) }}", r"\*\* gives a number of more than"),
        ("{% set n = namespace(a=10) %}{% for i in range(60) %}{% set n.a = n.a * n.a %}{% endfor %}", "of more than"),
        ("{{ 'a' * 10000000000 }}", "more than 256 MB"), ("{{ 'a'|center(2000000000) }}", "more than 256 MB"),
    ],
    ids=lambda v: v[:30],
)  # fmt: skip
def test_templates_that_refuse(source: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sta_hw.model.chat._SECONDS", 1.0)
    limit, trace = resource.getrlimit(resource.RLIMIT_AS), sys.gettrace()
    with pytest.raises(InputError, match=sentence):
        ChatTemplate(source).text(CONVERSATIONS[0])
    assert (resource.getrlimit(resource.RLIMIT_AS), sys.gettrace()) == (limit, trace)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}}, "the tokenizer fails: index"),
        ({"model": {"dropout": 0.5}}, "dropout is 0.5"),
    ],
)  # fmt: skip
def test_tokenizers_that_fail(change: dict[str, dict[str, object]], sentence: str, tmp_path: Path,
                              capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Among them those with which the library panics, which is no Exception, and prints a stack."""
    about = json.loads(byte_pairs().to_str())
    for key, value in change.items():
        about[key] = (about[key] or {}) | value
    (tmp_path / "tokenizer.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=sentence):
        tokenizer_of(tmp_path)
    assert capfd.readouterr().err == ""


def test_a_token_that_is_none_and_a_text_that_is_far_too_long(tmp_path: Path) -> None:
    decoder_folder(tmp_path)
    model = load_language_model(tmp_path)
    for text in ("a" * (1 << 16), "a" * 4000):  # few characters are counted by their tokens
        model.require_short(text)
    with pytest.raises(InputError, match="has 200,073 characters, more than 60 tokens, which the model takes, can be"):
        model.chat_ids([{"role": "user", "content": "a" * 200_000}])
    about = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about | {"eos_token": "<|nowhere|>"}))
    with pytest.raises(
        InputError, match=r"eos_token of tokenizer_config.json is '<\|nowhere\|>'; tokenizer.json has no"
    ):
        load_language_model(tmp_path)

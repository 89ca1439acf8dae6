"""Tokenizers: WordPiece from its vocabulary alone, as transformers reads it; files that contradict each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from decoder_files import byte_pairs

from sta_hw.errors import InputError
from sta_hw.model.tokenizer import TextTokenizer

WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "hard", "##ware", "skip", "##s", "zero", "Ze", "##ro", ".",
    ",", "é", "e", "模", "型", "never",
]  # fmt: skip
TEXTS = ["The hardware skips zeros.", "Zero, zéro É 模型 [MASK] neverthe", "", "  the\tthe \u200b "]


@pytest.mark.parametrize(
    "about",
    [{}, {"do_lower_case": False}, {"strip_accents": False}, {"strip_accents": True, "do_lower_case": False},
     {"tokenize_chinese_chars": False}],
    ids=str,
)  # fmt: skip
def test_vocabulary_alone(about: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about | {"tokenizer_class": "BertTokenizer"}))
    theirs = hf.BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"), **about)
    ours = TextTokenizer.load(tmp_path)
    for text in TEXTS:
        assert ours.token_ids(text) == theirs(text)["input_ids"], text
    # And by way of the file that transformers writes.
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").exists()
    assert [TextTokenizer.load(tmp_path).token_ids(t) for t in TEXTS] == [ours.token_ids(t) for t in TEXTS]
    normalizer = json.loads((tmp_path / "tokenizer.json").read_text())["normalizer"]
    kept = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(kept | {"do_lower_case": not normalizer["lowercase"]}))
    with pytest.raises(InputError, match="make them agree"):
        TextTokenizer.load(tmp_path)


def test_added_tokens(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[NEW]": len(WORDS)}))
    assert len(WORDS) in TextTokenizer.load(tmp_path).token_ids("the [NEW] zero")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[NEW]": len(WORDS) + 3}))
    with pytest.raises(InputError, match="would get the id"):
        TextTokenizer.load(tmp_path)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no tokenizer.json and no vocab.txt"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"")
    with pytest.raises(InputError, match=r"sentencepiece.bpe.model alone is not supported"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=r"has no token \[UNK\], \[SEP\], \[CLS\]"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "MPNetTokenizer"}')
    with pytest.raises(InputError, match="tokenizer_class MPNetTokenizer"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer.json"):
        TextTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tokenizer_config.json", {"tokenizer_class": 5}, "tokenizer_class 5 is not supported"),
        ("tokenizer_config.json", {"sep_token": {"content": 5}}, "sep_token .* it is a text"),
        ("tokenizer_config.json", {"do_lower_case": "yes"}, "do_lower_case .* is 'yes'; it is true or false"),
        ("tokenizer_config.json", {"strip_accents": 1}, "strip_accents .* is 1"),
        ("tokenizer_config.json", {"do_basic_tokenize": "no"}, "do_basic_tokenize .* is 'no'"),
        ("added_tokens.json", {"[NEW]": len(WORDS), "[OLD]": "z"}, r"the id of '\[OLD\]' is 'z'"),
        ("added_tokens.json", {"[NEW]": None, "[OLD]": 3}, r"the id of '\[NEW\]' is None"),
    ],
)  # fmt: skip
def test_other_kinds(name: str, content: object, says: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=says):
        TextTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("part", "value", "problem"),
    [
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}, "has normalizer Sequence, and"),
        ("normalizer", None, "has normalizer null, and transformers' BertTokenizer puts a BertNormalizer there"),
        ("pre_tokenizer", {"type": "WhitespaceSplit"}, "has pre_tokenizer WhitespaceSplit"),
        ("post_processor", None, "has post_processor null"),
        ("do_lower_case", None, r"lowercase = False, and .* do_lower_case = True \(as nothing is said\); make them"),
    ],
)
def test_what_transformers_replaces(part: str, value: Any, problem: str, tmp_path: Path) -> None:
    """Its classes for BERT build every part anew, whatever a tokenizer.json has there; the general one does not."""
    hf.BertTokenizerFast(vocab={w: n for n, w in enumerate(WORDS)}, do_lower_case=False).save_pretrained(tmp_path)
    file, about = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    plain = TextTokenizer.load(tmp_path).token_ids("Ze, é")
    if part == "do_lower_case":
        about.write_text(json.dumps({k: v for k, v in json.loads(about.read_text()).items() if k != part}))
    else:
        file.write_text(json.dumps(json.loads(file.read_text()) | {part: value}))
    with pytest.raises(InputError, match=problem):
        TextTokenizer.load(tmp_path)
    theirs = hf.AutoTokenizer.from_pretrained(tmp_path)("Ze, é")["input_ids"]
    assert (theirs == plain) == (part != "do_lower_case")  # as if the file had been left alone
    about.write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    theirs = hf.AutoTokenizer.from_pretrained(tmp_path)("Ze, é")["input_ids"]
    assert TextTokenizer.load(tmp_path).token_ids("Ze, é") == theirs


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("template", ["$A", "[CLS] $A", "[CLS] $A [SEP]", "$A [SEP] [MASK]"])
def test_texts_are_cut_as_transformers_cuts(template: str, side: str, tmp_path: Path) -> None:
    """Whatever marks the tokenizer puts around a text, none or several."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece({w: n for n, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [(w, WORDS.index(w)) for w in ("[CLS]", "[SEP]", "[MASK]")]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
    theirs = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, truncation_side=side, pad_token="[PAD]")
    theirs.save_pretrained(tmp_path)
    ours, text = TextTokenizer.load(tmp_path), "the hardware skips , zero ."
    for most in range(2, 12):
        assert ours.token_ids(text, most) == theirs(text, truncation=True, max_length=most)["input_ids"], most
    assert len(ours.token_ids(text)) > 6
    if template == "[CLS] $A [SEP]":
        with pytest.raises(InputError, match="cut at 1 tokens, and the tokenizer's marks around it are more"):
            ours.token_ids(text, 1)


def pairs_folder(folder: Path, about: dict[str, Any], added: bool) -> None:
    """Byte pairs whose marks are words of the vocabulary; tokenizer.json says that they are found whole if `added`."""
    tokenizer = json.loads(byte_pairs().to_str())
    if not added:
        tokenizer["added_tokens"] = []
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    kept = {"tokenizer_class": "PreTrainedTokenizerFast"} | about
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))


def token(content: str, **flags: bool) -> dict[str, Any]:
    return dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False) | {"content": content} | flags


@pytest.mark.parametrize(
    ("about", "added"),
    [({"eos_token": "<|end|>", "bos_token": "<|start|>"}, False),
     ({"eos_token": token("<|end|>", rstrip=True) | {"__type": "AddedToken"}}, False),
     ({"added_tokens_decoder": {"0": token("<|end|>", special=True)}}, False),
     ({"added_tokens_decoder": {"0": token("<|end|>", special=True, rstrip=True)}}, True),
     ({"additional_special_tokens": ["<|end|>"]}, False), ({"extra_special_tokens": {"a": "<|end|>"}}, False),
     ({"pad_token": "[nowhere]"}, True), ({"add_prefix_space": True}, True)],
    ids=str,
)  # fmt: skip
def test_tokens_that_the_configuration_adds(about: dict[str, Any], added: bool, tmp_path: Path) -> None:
    """Those of the vocabulary are found whole in a text, as transformers finds them, whatever tokenizer.json lists."""
    pairs_folder(tmp_path, about, added)
    theirs, ours = hf.AutoTokenizer.from_pretrained(tmp_path), TextTokenizer.load(tmp_path)
    for text in ("a<|end|> b", "<|start|>the fox<|end|>", "plain"):
        assert ours.token_ids(text) == theirs(text)["input_ids"], text
    assert 0 in ours.token_ids("a<|end|>b")


def test_tokens_found_in_what_is_normalized(tmp_path: Path) -> None:
    """As tokens are that are not special, if nothing else is said of them."""
    pairs_folder(tmp_path, {"added_tokens_decoder": {"0": {"content": "<|end|>"}}}, added=True)
    about = json.loads((tmp_path / "tokenizer.json").read_text()) | {"normalizer": {"type": "Lowercase"}}
    about["added_tokens"] = [t | {"special": False} for t in about["added_tokens"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(about))
    theirs, ours = hf.AutoTokenizer.from_pretrained(tmp_path), TextTokenizer.load(tmp_path)
    assert ours.token_ids("a<|END|>b") == theirs("a<|END|>b")["input_ids"] and 0 in ours.token_ids("a<|END|>b")


def test_older_files_beside_numbers_of_tokens(tmp_path: Path) -> None:
    """They do not count where tokenizer_config.json has tokens by their numbers."""
    pairs_folder(tmp_path, {"added_tokens_decoder": {"0": token("<|end|>", special=True)}}, added=False)
    for name, content in (("special_tokens_map", {"bos_token": "<|start|>"}), ("added_tokens", {"<|start|>": 1})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    theirs, ours = hf.AutoTokenizer.from_pretrained(tmp_path), TextTokenizer.load(tmp_path)
    text = "<|start|>the<|end|>"
    assert ours.token_ids(text) == theirs(text)["input_ids"] and not {1} & set(ours.token_ids(text))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("tokenizer_config", {"added_tokens_decoder": {"300": token("<|x|>")}}, r"adds .*'<\|x\|>' as 300, and its"),
        ("tokenizer_config", {"added_tokens_decoder": {"7": token("<|end|>")}}, r"as 7, and .* has it as 0"),
        ("tokenizer_config", {"added_tokens_decoder": {"x": token("<|end|>")}}, "as 'x'; it is a token"),
        ("tokenizer_config", {"added_tokens_decoder": []}, "it is an object"),
        ("tokenizer_config", {"additional_special_tokens": ["<|x|>"]}, "tokenizer.json has no such token"),
        ("tokenizer_config", {"additional_special_tokens": 5}, "is '5'; it is a list of tokens"),
        ("tokenizer_config", {"split_special_tokens": True}, "split_special_tokens = true is not supported"),
        ("tokenizer_config", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, "make them agree"),
        ("special_tokens_map", {"additional_special_tokens": ["<|x|>"]}, "tokenizer.json has no such token"),
        ("added_tokens", {"<|x|>": 300}, "as 300, and its tokenizer.json has no such token"),
    ],
    ids=str,
)  # fmt: skip
def test_tokens_that_are_not_there(name: str, content: dict[str, Any], problem: str, tmp_path: Path) -> None:
    pairs_folder(tmp_path, {}, added=True)
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=problem):
        TextTokenizer.load(tmp_path)

"""GGUF: what is in a file is what ggml's own package and Hugging Face's model have; what is wrong is one sentence."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_files import (
    SIZES,
    byte_pairs,
    decoder_folder,
    decoder_metadata,
    decoder_tensors,
    gguf_bytes,
    plain,
    tokenizer_metadata,
)
from test_decoders import GPT2, IDS, LLAMA3, close, logits
from test_families import saved

from sta_hw.errors import InputError
from sta_hw.model.families.from_gguf import network_of
from sta_hw.model.fp32 import evaluate
from sta_hw.model.gguf import read_gguf
from sta_hw.model.language import load_language_model
from sta_hw.tasks.sampling import Sampling
from sta_hw.tasks.text import load_text_model

BLOCKS = {"Q8_0": (8, 34), "Q4_0": (2, 18), "Q4_1": (3, 20), "F16": (1, 2), "F32": (0, 4)}
"""ggml's number of a type, and the bytes of a block."""


def written(path: Path, *arguments: Any, **options: Any) -> Path:
    path.write_bytes(gguf_bytes(*arguments, **options))
    return path


def random_blocks(kind: str, shape: tuple[int, ...]) -> bytes:
    """Any bytes, but scales and minima that are finite."""
    number, size = BLOCKS[kind]
    rng = np.random.default_rng(number)
    count = int(np.prod(shape)) // (32 if kind.startswith("Q") else 1)
    raw = rng.integers(0, 256, (count, size), np.uint8)
    for place in range(0, 4 if kind == "Q4_1" else 2 if kind != "F32" else 0, 2):
        raw[:, place : place + 2] = rng.normal(size=(count, 1)).astype("<f2").view(np.uint8)
    if kind == "F32":
        raw = rng.normal(size=(count, 1)).astype("<f4").view(np.uint8)
    return raw.tobytes()


@pytest.mark.parametrize("kind", BLOCKS)
def test_against_the_package(kind: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    shape = (3, 5, 64)
    path = written(tmp_path / "a.gguf", {"general.architecture": "llama", "list": [1, -2], "words": ["a", "ß"]},
                   {"x": (BLOCKS[kind][0], shape, random_blocks(kind, shape))})  # fmt: skip
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    (tensor,) = theirs.tensors
    wanted = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
    np.testing.assert_array_equal(ours.tensors["x"].array(), wanted)
    assert ours.tensors["x"].kind == kind
    assert ours.metadata == {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}


def test_blocks_by_hand(tmp_path: Path) -> None:
    """Without the package: 32 values of which the low halves of the bytes come first."""
    nibbles = bytes(range(16))  # the high halves are 0
    half = np.array([0.5, 3.0], "<f2").tobytes()
    q8 = half[:2] + np.arange(-16, 16, dtype=np.int8).tobytes()
    tensors = {"a": (2, (32,), half[:2] + nibbles), "b": (3, (32,), half + nibbles), "c": (8, (1, 32), q8)}
    found = read_gguf(written(tmp_path / "a.gguf", {}, tensors)).tensors
    low = np.concatenate([np.arange(16), np.zeros(16)])
    np.testing.assert_array_equal(found["a"].array(), 0.5 * (low - 8))
    np.testing.assert_array_equal(found["b"].array(), 0.5 * low + 3)
    np.testing.assert_array_equal(found["c"].array(), 0.5 * np.arange(-16, 16)[None])


@pytest.mark.parametrize(
    ("name", "family", "sizes", "changes"),
    [
        ("LlamaForCausalLM", "llama", SIZES, {}), ("LlamaForCausalLM", "llama", SIZES, {"tie_word_embeddings": True}),
        ("LlamaForCausalLM", "llama", SIZES, {"attention_bias": True, "mlp_bias": True}),
        ("Qwen2ForCausalLM", "qwen2", SIZES, {}), ("Qwen3ForCausalLM", "qwen3", SIZES | {"head_dim": 12}, {}),
        ("GPT2LMHeadModel", "gpt2", GPT2, {}),
    ],
    ids=lambda v: str(v)[:24],
)  # fmt: skip
def test_families(name: str, family: str, sizes: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    model = saved(tmp_path, name, sizes, **changes)
    arrays = decoder_tensors(tmp_path, family)
    path = written(tmp_path / "a.gguf", decoder_metadata(tmp_path, family), plain(arrays))
    graph, _, unused, keys = network_of(read_gguf(path))
    assert close(evaluate(graph, {"ids": IDS})["next_token"], logits(model))
    assert not unused and keys == ["general.name"]


def llama3_factors(about: dict[str, Any], width: int) -> np.ndarray:
    """As llama.cpp's converter computes them from a configuration's ``rope_parameters``."""
    found = []
    for exponent in np.arange(0, width, 2) / width:
        length = 2 * np.pi * about["rope_theta"] ** exponent
        low, high = (about["original_max_position_embeddings"] / about[f"{k}_freq_factor"] for k in ("low", "high"))
        smooth = about["original_max_position_embeddings"] / length - about["low_freq_factor"]
        smooth /= about["high_freq_factor"] - about["low_freq_factor"]
        between = 1 / ((1 - smooth) / about["factor"] + smooth)
        found.append(1 if length < high else about["factor"] if length > low else between)
    return np.array(found, np.float32)


def test_llama_3(tmp_path: Path) -> None:
    """Its rotary positions are a tensor of factors in these files."""
    about = LLAMA3 | {"original_max_position_embeddings": 48}
    model = saved(tmp_path, "LlamaForCausalLM", SIZES, rope_parameters=about)
    metadata, factors = decoder_metadata(tmp_path, "llama"), llama3_factors(about, 8)
    assert factors[0] == 1 < factors[1] < 8 == factors[3]
    arrays = decoder_tensors(tmp_path, "llama") | {"rope_freqs.weight": factors}
    path = written(tmp_path / "a.gguf", metadata, plain(arrays))
    graph, _, unused, _ = network_of(read_gguf(path))
    assert close(evaluate(graph, {"ids": IDS})["next_token"], logits(model)) and not unused
    for odd, said in ((factors[:3], "has shape"), (-factors, "not above 0"), (0 * factors, "not above 0")):
        path = written(tmp_path / "a.gguf", metadata, plain(arrays | {"rope_freqs.weight": odd}))
        with pytest.raises(InputError, match=rf"rope_freqs.weight .*{said}"):
            network_of(read_gguf(path))


def test_factors_that_readers_do_not_take(tmp_path: Path) -> None:
    saved(tmp_path, "Qwen2ForCausalLM", SIZES)
    arrays = decoder_tensors(tmp_path, "qwen2") | {"rope_freqs.weight": np.full(4, 2, np.float32)}
    path = written(tmp_path / "a.gguf", decoder_metadata(tmp_path, "qwen2"), plain(arrays))
    with pytest.raises(InputError, match=r"have no place in the model: rope_freqs.weight"):
        network_of(read_gguf(path))


def test_what_readers_take_where_a_file_does_not_say(tmp_path: Path) -> None:
    """As many heads of key and value as of query, whose widths are the model's: transformers has other defaults."""
    model = saved(tmp_path, "Qwen3ForCausalLM", SIZES | {"head_dim": 8, "num_key_value_heads": 4})
    metadata = decoder_metadata(tmp_path, "qwen3")
    for key in ("attention.head_count_kv", "attention.key_length", "attention.value_length"):
        del metadata[f"qwen3.{key}"]
    path = written(tmp_path / "a.gguf", metadata, plain(decoder_tensors(tmp_path, "qwen3")))
    graph, *_ = network_of(read_gguf(path))
    assert close(evaluate(graph, {"ids": IDS})["next_token"], logits(model))


def test_byte_pairs_without_merges(tmp_path: Path) -> None:
    decoder_folder(tmp_path / "a")
    metadata = decoder_metadata(tmp_path / "a", "llama") | tokenizer_metadata(byte_pairs(), "gpt-2")
    del metadata["tokenizer.ggml.merges"]
    path = written(tmp_path / "a.gguf", metadata, plain(decoder_tensors(tmp_path / "a", "llama")))
    with pytest.raises(InputError, match=r"lacks tokenizer.ggml.merges"):
        load_language_model(path)


def test_a_tensor_under_two_names(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    arrays = decoder_tensors(tmp_path, "llama")
    arrays |= {"model.layers.0.self_attn.q_proj.weight": arrays["blk.0.attn_q.weight"] + 1}
    path = written(tmp_path / "a.gguf", decoder_metadata(tmp_path, "llama"), plain(arrays))
    with pytest.raises(InputError, match=r"layers.0.self_attn.q_proj.weight under another name, too"):
        network_of(read_gguf(path))


def test_a_whole_model(tmp_path: Path) -> None:
    """The same tokens, template and logits from the folder and from the file."""
    decoder_folder(tmp_path / "a")
    metadata = decoder_metadata(tmp_path / "a", "llama") | tokenizer_metadata(byte_pairs(), "gpt-2")
    path = written(tmp_path / "a.gguf", metadata, plain(decoder_tensors(tmp_path / "a", "llama")))
    folder, file = load_language_model(tmp_path / "a"), load_language_model(path)
    messages = [{"role": "user", "content": "It's <|end|> 12"}]
    ids = folder.chat_ids(messages)
    assert ids == file.chat_ids(messages) and folder.stops == file.stops == {0} and file.positions == 60
    found, wanted = (evaluate(m.graph, {"ids": ids})["next_token"] for m in (file, folder))
    np.testing.assert_array_equal(found, wanted)


HEAD = {"general.architecture": "llama", "words": ["one", "two"], "numbers": [1, 2, 3]}
TENSORS = {"x": (0, (2, 32), bytes(256)), "y": (8, (64,), bytes(68))}


def test_every_truncation_is_one_sentence(tmp_path: Path) -> None:
    whole = gguf_bytes(HEAD, TENSORS)
    path = tmp_path / "a.gguf"
    path.write_bytes(whole)
    assert set(read_gguf(path).tensors) == {"x", "y"}
    for length in [*range(0, len(whole) - 400), *range(len(whole) - 400, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as refused:
            read_gguf(path)
        assert len(str(refused.value).splitlines()) == 1, length


def test_damage_ends_in_a_sentence_or_in_other_values(tmp_path: Path) -> None:
    """A byte that is wrong never leads beyond the file, to another exception, or to work without end."""
    whole = bytearray(gguf_bytes(HEAD, TENSORS))
    path, rng = tmp_path / "a.gguf", np.random.default_rng(0)
    refused = 0
    for place in range(len(whole) - 330):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read_gguf(path)
        except InputError:
            refused += 1
    assert refused > 150


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no GGUF file"), (b"GGML" + bytes(60), "no GGUF file"), (gguf_bytes({}, {}, version=1), "version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "big-endian"),
        (gguf_bytes({}, {"x": (14, (256,), bytes(210))}), "x (Q6_K); F32, F16, Q8_0, Q4_0, Q4_1 are"),
        (gguf_bytes({}, {"x": (77, (256,), bytes(210))}), "type 77"),
        (gguf_bytes({}, {"x": (8, (2, 16), bytes(34))}), "do not fit"),
        (gguf_bytes({"general.alignment": 3}, {}), "power of two"),
    ],
)  # fmt: skip
def test_what_is_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_gguf(path)
    assert sentence in str(refused.value) and str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"general.architecture": "mamba"}, "'mamba' is not supported; it is one of llama"),
        ({"llama.expert_count": 4}, "llama.expert_count is not understood"),
        ({"llama.rope.dimension_count": 4}, "not the width of a head, 8"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0}, "'yarn' are not supported"),
        ({"llama.attention.head_count": 5}, "no pairs of 5 heads"),
        ({"llama.attention.head_count": "four"}, "no pairs of four heads"),
        ({"tokenizer.ggml.model": "llama"}, "its tokenizer is 'llama'"),
        ({"tokenizer.ggml.pre": "odd"}, "'odd' is not supported"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "no list of different words"),
        ({"tokenizer.ggml.merges": ["a b c"]}, "list of pairs"),
        ({"tokenizer.ggml.merges": ["never there"]}, "tokenizer.ggml.merges"),
        ({"tokenizer.ggml.eos_token_id": 4000}, "tokenizer.ggml.eos_token_id is 4000, and the tokenizer has"),
        ({"tokenizer.ggml.add_eos_token": True}, "add_eos_token"),
        ({"tokenizer.ggml.add_bos_token": "yes"}, "add_bos_token is 'yes'"),
        ({"tokenizer.ggml.token_type": [9] * 300}, "token_type 9 of token 0 is unknown"),
        ({"tokenizer.ggml.bos_token_id": 300}, "bos_token_id is 300, and the tokenizer has 300 tokens"),
        ({"tokenizer.ggml.unknown_token_id": 2**32 - 1}, "unknown_token_id is 4294967295"),
        ({"tokenizer.ggml.eot_token_id": 301}, "eot_token_id is 301"),
        ({"split.count": 2}, "is one of 2 parts"), ({"general.type": "adapter"}, "general.type is 'adapter'"),
        ({"tokenizer.ggml.normalizer.lowercase": True}, "tokenizer.ggml.normalizer.lowercase is not understood"),
    ],
    ids=lambda v: str(v)[:40],
)  # fmt: skip
def test_models_that_are_refused(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    decoder_folder(tmp_path / "a")
    metadata = decoder_metadata(tmp_path / "a", "llama") | tokenizer_metadata(byte_pairs(), "gpt-2") | changes
    path = written(tmp_path / "a.gguf", metadata, plain(decoder_tensors(tmp_path / "a", "llama")))
    with pytest.raises(InputError) as refused:
        load_language_model(path)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("key", ["context_length", "attention.layer_norm_rms_epsilon", "attention.head_count"])
def test_what_has_no_default(key: str, tmp_path: Path) -> None:
    decoder_folder(tmp_path / "a")
    metadata = decoder_metadata(tmp_path / "a", "llama")
    del metadata[f"llama.{key}"]
    path = written(tmp_path / "a.gguf", metadata, plain(decoder_tensors(tmp_path / "a", "llama")))
    with pytest.raises(InputError, match=f"lacks llama.{key}, which its readers have no default for"):
        network_of(read_gguf(path))


@pytest.mark.parametrize("offset", [0, 32, 1024])
def test_tensors_that_overlap(offset: int, tmp_path: Path) -> None:
    """An offset that is wrong would read another tensor's bytes."""
    whole = gguf_bytes({}, {"x": (0, (2, 32), bytes(256)), "y": (8, (64,), bytes(68)), "z": (0, (300,), bytes(1200))})
    place = whole.index(b"\1\0\0\0\0\0\0\0y") + 9 + 4 + 8 + 4
    assert struct.unpack_from("<Q", whole, place) == (256,)
    path = tmp_path / "a.gguf"
    path.write_bytes(whole[:place] + struct.pack("<Q", offset) + whole[place + 8 :])
    with pytest.raises(InputError, match=rf"y lies at byte {offset:,} behind the header, and .* end at 256"):
        read_gguf(path)
    path.write_bytes(gguf_bytes({"general.alignment": 1}, {"x": (8, (32,), bytes(34)), "y": (8, (32,), bytes(34))}))
    with pytest.raises(InputError, match=r"y lies at byte 64 behind .* end at 34"):
        read_gguf(path)


@pytest.mark.filterwarnings("error")
def test_a_scale_that_is_infinite(tmp_path: Path) -> None:
    decoder_folder(tmp_path / "a")
    tensors = plain(decoder_tensors(tmp_path / "a", "llama"))
    tensors["output.weight"] = (8, (320, 32), b"\0\x7c" + bytes(34 * 320 - 2))
    path = written(tmp_path / "a.gguf", decoder_metadata(tmp_path / "a", "llama"), tensors)
    with pytest.raises(InputError, match=r"lm_head.weight, row 0, column 0, is nan"):
        network_of(read_gguf(path))


def test_what_is_not_used_of_a_tokenizer_is_listed(tmp_path: Path) -> None:
    decoder_folder(tmp_path / "a")
    more = {"tokenizer.ggml.scores": [0.5], "tokenizer.ggml.fim_pre_token_id": 3, "tokenizer.chat_template.rag": "x"}
    more["tokenizer.ggml.padding_token_id"] = 300  # as of a vocabulary that was cut
    metadata = decoder_metadata(tmp_path / "a", "llama") | tokenizer_metadata(byte_pairs(), "gpt-2") | more
    path = written(tmp_path / "a.gguf", metadata, plain(decoder_tensors(tmp_path / "a", "llama")))
    assert load_language_model(path).notes == ("general.name: not needed", *(f"{key}: not needed" for key in more))


@pytest.mark.parametrize(
    "name", ["token_embd.weight", "blk.0.attn_norm.weight", "blk.1.ffn_up.weight", "output.weight"]
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_that_overflow(name: str, temperature: float, tmp_path: Path) -> None:
    """Finite weights whose sums are not: no token is chosen from what is no number."""
    decoder_folder(tmp_path / "a")
    arrays = decoder_tensors(tmp_path / "a", "llama")
    arrays[name] = np.full_like(arrays[name], 3e38)
    metadata = decoder_metadata(tmp_path / "a", "llama") | tokenizer_metadata(byte_pairs(), "gpt-2")
    model = load_text_model(written(tmp_path / "a.gguf", metadata, plain(arrays)))
    with pytest.raises(
        InputError, match=r"the largest logit of the next token is (nan|inf); the model's weights overflow"
    ):
        model.generate([5, 6], max_tokens=2, sampling=Sampling(temperature))

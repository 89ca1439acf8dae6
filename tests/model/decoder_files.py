"""Small decoders as files: Hugging Face's folders with a tokenizer, and GGUF as llama.cpp's converter writes it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from test_families import saved
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXTS = [
    "The quick brown fox jumps over the lazy dog; it's 1234 o'clock.", "We'll see what they've done, they said.",
    "def main(x):\n    return x + 1\n\n\nmain(42)",
    "Größe, naïve café, ½ 日本語 🙂🙃", "  spaces   and\ttabs \r\n\r\n end  ",
    "I'M SHOUTING AND YOU'RE NOT 999999", "", " ", "a",
]  # fmt: skip
MARKS = ["<|end|>", "<|start|>"]
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|start|>system\nBe kind.<|end|>\n' }}"
    "{% endif %}\n{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>' }}\n"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
SIZES = {
    "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64,
    "max_position_embeddings": 60, "num_key_value_heads": 2, "vocab_size": 320, "eos_token_id": 0, "bos_token_id": 1,
}  # fmt: skip


def byte_pairs(split: Any = None) -> Tokenizer:
    """A byte-level tokenizer of 300 tokens; `split` goes ahead of the bytes, which then split nothing themselves."""
    tokenizer = Tokenizer(models.BPE())
    steps = [split] if split is not None else []
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def decoder_folder(folder: Path, name: str = "LlamaForCausalLM", *, template: str | None = TEMPLATE,
                   **changes: Any) -> Any:  # fmt: skip
    """A model of Hugging Face's, with its tokenizer beside it."""
    model = saved(folder, name, SIZES, **changes)
    byte_pairs().save(str(folder / "tokenizer.json"))
    about: dict[str, Any] = {"eos_token": "<|end|>", "bos_token": "<|start|>"}
    if template:
        about["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return model


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_string, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + np.asarray(value, "<i4").tobytes()


def gguf_bytes(metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, tuple[int, ...], bytes]],
               version: int = 3) -> bytes:  # fmt: skip
    """A file; a tensor is ggml's number of its type, its shape as numpy has it, and its bytes."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += _string(key) + _value(value)
    body = b""
    for name, (kind, shape, raw) in tensors.items():
        body += bytes(-len(body) % 32)
        head += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, len(body))
        body += raw
    return head + bytes(-len(head) % 32) + body


def _renamed(name: str) -> str:
    words = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
        "post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
        "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", ".ln_1": ".attn_norm", ".ln_2": ".ffn_norm",
        "model.layers.": "blk.", "transformer.h.": "blk.",
    }  # fmt: skip
    for theirs, ggml in words.items():
        name = name.replace(theirs, ggml)
    return name


def decoder_metadata(folder: Path, family: str) -> dict[str, Any]:
    """What llama.cpp's converter writes about a folder's model, and its tokenizer."""
    about = json.loads((folder / "config.json").read_text())
    keys = {
        "block_count": "num_hidden_layers", "context_length": "max_position_embeddings",
        "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
        "attention.layer_norm_rms_epsilon": "rms_norm_eps", "vocab_size": "vocab_size",
    }  # fmt: skip
    if family == "gpt2":
        keys = {
            "block_count": "n_layer", "context_length": "n_positions", "embedding_length": "n_embd",
            "attention.head_count": "n_head", "attention.layer_norm_epsilon": "layer_norm_epsilon",
        }  # fmt: skip
    found: dict[str, Any] = {"general.architecture": family, "general.name": "small"}
    found |= {f"{family}.{key}": about[theirs] for key, theirs in keys.items()}
    if family == "gpt2":
        found["gpt2.feed_forward_length"] = 4 * about["n_embd"]
    else:
        found[f"{family}.rope.freq_base"] = float(about["rope_parameters"]["rope_theta"])
        if about.get("head_dim"):
            found[f"{family}.attention.key_length"] = found[f"{family}.attention.value_length"] = about["head_dim"]
    return found


def tokenizer_metadata(tokenizer: Tokenizer, split: str) -> dict[str, Any]:
    """A tokenizer as GGUF has it."""
    about = json.loads(tokenizer.to_str())
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": split,
        "tokenizer.ggml.tokens": [w for w, _ in words],
        "tokenizer.ggml.token_type": [3 if w in MARKS else 1 for w, _ in words],
        "tokenizer.ggml.merges": [" ".join(m) for m in about["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 0, "tokenizer.chat_template": TEMPLATE,
    }  # fmt: skip


def decoder_tensors(folder: Path, family: str) -> dict[str, np.ndarray]:
    """A folder's tensors under ggml's names, in ggml's order."""
    about = json.loads((folder / "config.json").read_text())
    found = {}
    for name, array in load_file(folder / "model.safetensors").items():
        if family == "llama" and (".q_proj." in name or ".k_proj." in name):
            heads = about["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"]
            halves = array.reshape(heads, 2, len(array) // heads // 2, *array.shape[1:])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        if family == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            array = array.T
        found[_renamed(name)] = np.ascontiguousarray(array)
    return found


def plain(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    """Tensors as float32."""
    return {name: (0, a.shape, a.astype("<f4").tobytes()) for name, a in arrays.items()}

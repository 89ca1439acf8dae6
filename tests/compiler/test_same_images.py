"""The road to hardware gives the images that it gave before it was rebuilt on the graph: data and program, by digest.

`python tests/compiler/test_same_images.py` writes what the present code gives into `golden/images.json`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.prune import prune_model
from sta_hw.compiler.quantize import quantize
from sta_hw.model.encoder_shape import encoder_part
from sta_hw.model.families import load_network
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import preset
from sta_hw.tasks.embedder import Embedder, read_patterns

GOLDEN = Path(__file__).parents[1] / "golden" / "images.json"

TEXT = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64,
        "vocab_size": 50, "max_position_embeddings": 64, "initializer_range": 0.3}  # fmt: skip
IMAGE = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64,
         "image_size": 8, "patch_size": 2, "num_channels": 1, "initializer_range": 0.3}  # fmt: skip
CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertModel", TEXT),
    "roberta": ("RobertaConfig", "RobertaModel", TEXT),
    "electra": ("ElectraConfig", "ElectraModel", TEXT | {"embedding_size": 16}),
    "classifier": ("BertConfig", "BertForSequenceClassification", TEXT),
    "tokens": ("BertConfig", "BertForTokenClassification", TEXT),
    "vit": ("ViTConfig", "ViTForImageClassification", IMAGE),
    "deit": ("DeiTConfig", "DeiTForImageClassification", IMAGE),
    "clip": ("CLIPVisionConfig", "CLIPVisionModel", IMAGE),
}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:20]


def described(program: CompiledModel) -> dict[str, str]:
    """Digests of all before the program, of the program's fields, and of its waits."""
    fields = [
        (i.opcode.name, {k: int(v) for k, v in sorted(i.fields.items()) if v and not k.startswith("wait")})
        for i in program.instructions
    ]
    waits = [{k: int(v) for k, v in sorted(i.fields.items()) if v and k.startswith("wait")}
             for i in program.instructions]  # fmt: skip
    return {
        "data": digest(program.image[: program.program_address].tobytes()),
        "program": digest(json.dumps(fields).encode()), "waits": digest(json.dumps(waits).encode()),
        "size": str(program.program_address),
    }  # fmt: skip


def of_random(shape: tuple[int, int, int, int], tokens: int, hardware: str, nm: tuple[str, ...] = (),
              method: str = "", activation: str = "gelu") -> Callable[[], CompiledModel]:  # fmt: skip
    def make() -> CompiledModel:
        hidden, heads, layers, intermediate = shape
        model = random_model(
            tokens, hidden=hidden, heads=heads, layers=layers, intermediate=intermediate, activation=activation
        )
        patterns = mixed_patterns([parse_nm(p) for p in nm]) if nm else {}
        texts = [random_ids(i, 24) for i in range(6)]
        if method:
            model = prune_model(model, patterns, texts, method=method)
        return compile_encoder(quantize(model, texts, patterns), preset(hardware), tokens)

    return make


def of_family(kind: str, tokens: int = 0) -> Callable[[], CompiledModel]:
    def make() -> CompiledModel:
        settings, network, sizes = CLASSES[kind]
        torch.manual_seed(0)
        theirs = getattr(hf, network)(getattr(hf, settings)(**sizes)).eval()
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(folder)
            part = encoder_part(load_network(Path(folder)).graph)
        rng = np.random.default_rng(0)
        if part.tokens is None:
            given: list[np.ndarray] = [part.embed("ids", rng.integers(2, 50, 20).tolist()) for _ in range(6)]
        else:
            given = [part.embed("pixels", rng.normal(size=(8, 8, 1)).astype(np.float32)) for _ in range(6)]
        return compile_encoder(quantize(part.model, given), preset("ci"), part.tokens or tokens)

    return make


def of_minilm(nm: str) -> Callable[[], CompiledModel]:
    def make() -> CompiledModel:
        embedder = Embedder.load()
        patterns = read_patterns(nm, None, embedder.model.layers)
        return embedder.pruned(patterns).compile(patterns, preset("reference"), 16)

    return make


CASES: dict[str, Callable[[], CompiledModel]] = {
    **{f"{p}, {n}": of_random((64, 4, 2, 128), n, p)
       for p in ("ci", "tiny", "small", "medium", "reference", "ecp5-25f", "ecp5-85f-256") for n in (1, 33, 70)},
    "wide": of_random((96, 3, 1, 192), 9, "small", activation="relu"),
    "square": of_random((64, 2, 2, 64), 9, "small"),
    "mixed": of_random((64, 4, 2, 128), 16, "reference", ("2:4", "dense", "8:16")),
    **{f"{m} {nm}": of_random((64, 4, 1, 128), 16, "reference", (nm,), m)
       for nm in ("2:4", "8:16") for m in ("sparsegpt", "magnitude")},
    **{k: of_family(k, 13) for k in CLASSES},
    **{f"MiniLM {nm}": of_minilm(nm) for nm in ("dense", "2:4", "8:16")},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_same_image(name: str) -> None:
    assert described(CASES[name]()) == json.loads(GOLDEN.read_text())[name]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: described(make()) for name, make in CASES.items()}, indent=1) + "\n")

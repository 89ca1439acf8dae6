"""Every key of a configuration and every tensor: what changes Hugging Face's result changes ours, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.numpy import load_file, save_file
from test_decoders import GPT2, QWEN3, SIZES
from test_families import DISTIL, IDS, IMAGE, TEXT, TOLERANCE, WHISPER, saved

from sta_hw.errors import InputError
from sta_hw.model.families import load_network
from sta_hw.model.fp32 import evaluate

CASES = {
    "BertForSequenceClassification": TEXT, "BertModel": TEXT, "RobertaForSequenceClassification": TEXT,
    "CamembertForTokenClassification": TEXT, "ElectraForSequenceClassification": TEXT | {"embedding_size": 16},
    "DistilBertForSequenceClassification": DISTIL, "ViTForImageClassification": IMAGE,
    "DeiTForImageClassificationWithTeacher": IMAGE, "CLIPVisionModelWithProjection": IMAGE | {"projection_dim": 16},
    "WhisperForAudioClassification": WHISPER, "LlamaForCausalLM": SIZES, "Qwen2ForCausalLM": SIZES,
    "Qwen3ForCausalLM": QWEN3, "GPT2LMHeadModel": GPT2,
}  # fmt: skip
ABOUT_THE_FILE = {"_name_or_path", "architectures", "dtype", "model_type", "return_dict", "transformers_version"}
"""Keys that say what the file is, or in which form the library answers."""
_RNG = np.random.default_rng(0)
PIXELS = _RNG.normal(size=(3, 8, 8)).astype(np.float32)
FEATURES = _RNG.normal(size=(8, 24)).astype(np.float32)


def theirs(folder: Path, name: str) -> np.ndarray | None:
    """Hugging Face's result; None if it cannot load the folder."""
    hf.utils.logging.disable_progress_bar()
    try:
        model = getattr(hf, name).from_pretrained(folder, local_files_only=True).eval()
    except Exception:  # whatever it raises for a key of a wrong kind
        return None
    given = {"pixel_values": torch.from_numpy(PIXELS[None])}
    if name.startswith("Whisper"):
        given = {"input_features": torch.from_numpy(FEATURES[None])}
    elif not name.startswith(("ViT", "DeiT", "CLIP")):
        given = {"input_ids": torch.tensor([IDS])}
    with torch.no_grad():
        found = model(**given)
    for kind in ("logits", "image_embeds"):
        if kind in found:
            return np.asarray(found[kind][0].numpy())
    return np.asarray(found.last_hidden_state[0].mean(0).numpy())


def ours(folder: Path) -> np.ndarray:
    graph = load_network(folder).graph
    given: Any = {"pixels": np.moveaxis(PIXELS, 0, -1), "features": FEATURES.T, "ids": IDS}
    found = evaluate(graph, {name: value for name, value in given.items() if name in graph.by_name})
    return next(found[name] for name in ("logits", "next_token", "embedding") if name in found)


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.shape == wanted.shape and bool(np.abs(found - wanted).max() <= 2 * TOLERANCE * np.abs(wanted).max())


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 3 + 1 if isinstance(value, int) else value * 3 + 0.05
    words = {"gelu": "relu", "quick_gelu": "relu", "absolute": "relative_key"}
    return words.get(value, "other") if isinstance(value, str) else [1] if isinstance(value, list) else True


@pytest.mark.parametrize("name", CASES)
def test_keys(name: str, tmp_path: Path) -> None:
    saved(tmp_path, name, CASES[name])
    path = tmp_path / "config.json"
    written = json.loads(path.read_text())
    keys = getattr(hf, name).config_class(**written).to_dict() | written
    changed = [(k, written | {k: other(v)}) for k, v in keys.items() if not isinstance(v, dict)]
    changed += [(f"no {k}", {n: v for n, v in written.items() if n != k}) for k in written]
    outcomes: dict[str, list[str]] = {"refused": [], "the same": [], "different": []}
    for key, configuration in changed:
        if key.removeprefix("no ") in ABOUT_THE_FILE:
            continue
        path.write_text(json.dumps(configuration))
        try:
            found = ours(tmp_path)
        except InputError:
            outcomes["refused"].append(key)
            continue
        wanted = theirs(tmp_path, name)
        if wanted is not None:
            outcomes["the same" if same(found, wanted) else "different"].append(key)
    assert not outcomes["different"]
    assert len(outcomes["refused"]) > 5 and len(outcomes["the same"]) > 10


@pytest.mark.parametrize("name", CASES)
def test_tensors(name: str, tmp_path: Path) -> None:
    """What is changed changes both results alike; what is missing is refused, or was listed as not used."""
    saved(tmp_path, name, CASES[name])
    path = tmp_path / "model.safetensors"
    written = load_file(path)
    plain = ours(tmp_path)
    chosen = [n for n in written if ".1." not in n and "decoder.layers" not in n]
    for number, tensor in enumerate(chosen):
        noise = np.random.default_rng(number).normal(size=written[tensor].shape).astype(np.float32)
        save_file(written | {tensor: written[tensor] + noise}, path)
        found, wanted = ours(tmp_path), theirs(tmp_path, name)
        assert wanted is not None and same(found, wanted), tensor
        save_file({n: v for n, v in written.items() if n != tensor}, path)
        try:
            assert same(ours(tmp_path), plain) and same(found, plain), tensor
        except InputError as refused:
            assert tensor.rpartition(".")[0].rpartition(".")[2] in str(refused) or "holds no" in str(refused), tensor

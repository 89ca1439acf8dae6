"""Small models of every family as ONNX, by both of PyTorch's exporters."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from test_families import DISTIL, IMAGE, TEXT, WHISPER, saved
from torch import nn

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"


@dataclass(frozen=True)
class Case:
    """A model and what is exported of it."""

    name: str
    sizes: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ("last_hidden_state",)


CASES = {
    "bert": Case("BertModel", TEXT, (IDS, MASK, TYPES), ("last_hidden_state", "pooler_output")),
    "bert-classes": Case("BertForSequenceClassification", TEXT | {"num_labels": 3}, (IDS, MASK, TYPES), ("logits",)),
    "bert-tokens": Case("BertForTokenClassification", TEXT | {"num_labels": 3}, (IDS, MASK), ("logits",)),
    "roberta": Case("RobertaModel", TEXT | {"pad_token_id": 7}, (IDS, MASK)),
    "xlm-roberta": Case("XLMRobertaModel", TEXT | {"type_vocab_size": 1}, (IDS, MASK)),
    "camembert": Case("CamembertForSequenceClassification", TEXT | {"hidden_act": "gelu_new"}, (IDS, MASK),
                      ("logits",)),
    "electra": Case("ElectraModel", TEXT | {"embedding_size": 16}, (IDS, MASK, TYPES)),
    "distilbert": Case("DistilBertModel", DISTIL, (IDS, MASK)),
    "vit": Case("ViTForImageClassification", IMAGE | {"image_size": [4, 12]}, ("pixel_values",), ("logits",)),
    "deit": Case("DeiTForImageClassification", IMAGE, ("pixel_values",), ("logits",)),
    "clip": Case("CLIPVisionModelWithProjection", IMAGE | {"projection_dim": 16}, ("pixel_values",),
                 ("image_embeds", "last_hidden_state")),
    "whisper": Case("WhisperModel", WHISPER, ("input_features",)),
}  # fmt: skip


class Wrapped(nn.Module):
    """A model of Hugging Face's with tensors in and out, and what follows it."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...], behind: Any = None) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs, self.behind = model, inputs, outputs, behind

    def forward(self, *given: Any) -> Any:
        found = self.model(**dict(zip(self.inputs, given, strict=True)))
        if self.behind is not None:
            return self.behind(found.last_hidden_state, *given)
        return tuple(getattr(found, name) for name in self.outputs)


def export(
    model: Any, path: Path, case: Case, *, opset: int = 17, dynamo: bool = False, attention: str = "sdpa",
    behind: Any = None, dtype: torch.dtype = torch.int64, fixed: bool = False,
) -> None:  # fmt: skip
    """Write `model` as ONNX; the newer exporter if `dynamo`; `fixed`: for 9 tokens alone, or the image's size."""
    if hasattr(model, "encoder") and case.name.startswith("Whisper"):
        model = model.encoder
    model = copy.deepcopy(model).eval()
    model.set_attn_implementation(attention)
    size = case.sizes.get("image_size", 8)
    height, width = size if isinstance(size, list) else (size, size)
    batch = 1 if fixed else 2
    whole = torch.zeros(batch, 9, dtype=dtype)
    made = {
        IDS: torch.randint(8, case.sizes.get("vocab_size", 40), (batch, 9)).to(dtype), MASK: whole + 1, TYPES: whole,
        "pixel_values": torch.randn(batch, 3, height, width), "input_features": torch.randn(batch, 8, 24),
    }  # fmt: skip
    given = tuple(made[n] for n in case.inputs)
    wrapped = Wrapped(model, case.inputs, case.outputs, behind).eval()
    names = {"input_names": list(case.inputs), "output_names": list(case.outputs), "opset_version": opset}
    text = case.inputs[0] == IDS
    if dynamo:
        count, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
        free = {0: count, 1: tokens} if text else {0: count}
        torch.onnx.export(wrapped, given, str(path), **names, dynamo=True, external_data=False, verbose=False,
                          dynamic_shapes=None if fixed else (tuple(dict(free) for _ in given),))  # fmt: skip
    else:
        axes = {0: "batch", 1: "tokens"} if text else {0: "batch"}
        torch.onnx.export(
            wrapped,
            given,
            str(path),
            **names,
            dynamo=False,
            dynamic_axes=None if fixed else dict.fromkeys(case.inputs, axes),
        )


def export_text(path: Path, **changes: Any) -> Any:
    """A BERT with a pooler; its output is the first of two."""
    case = CASES["bert"]
    sizes = TEXT | {"max_position_embeddings": 64} | changes
    model = saved(path.parent / f"{path.stem}-folder", case.name, sizes)
    export(model, path, Case(case.name, sizes, case.inputs, case.outputs))
    return model

"""Importers: a checkpoint's folder becomes a graph, one module for each family."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...files import read_json, visible
from ..graph import Graph
from ..operations import Mean, Output
from ..packed import unpacked
from ..settings import Settings
from ..stored import MODEL_TYPE, stored_graph
from ..tensors import Tensors, read_tensors
from . import bert, clip, gpt2, llama, vit, whisper
from .sentences import Limits, modules, pool, texts_files

__all__ = ["DECODERS", "FAMILIES", "Network", "load_network"]

_OTHERS = {family: module for module in (vit, clip, whisper, llama, gpt2) for family in module.FAMILIES}

DECODERS = (*llama.FAMILIES, *gpt2.FAMILIES)
"""Those of ``model_type`` that are decoders'."""
FAMILIES = {
    "bert": "BERT", "roberta": "RoBERTa", "xlm-roberta": "XLM-R", "camembert": "CamemBERT", "electra": "ELECTRA",
    "distilbert": "DistilBERT", "vit": "ViT", "deit": "DeiT", "clip_vision_model": "CLIP", "clip": "CLIP",
    "whisper": "Whisper", "llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gpt2": "GPT-2",
}  # fmt: skip
"""What ``model_type`` may be, and the family's name."""


@dataclass(frozen=True)
class Network:
    """An imported network.

    Attributes
    ----------
    graph : Graph
        Verified; its output is called ``embedding``, ``logits``, or for decoders ``next_token``.
    root : Path
        What was imported.
    folder : Path
        Of the configuration and tensors: the same, or inside it.
    tensors : Tensors
        All of the checkpoint's.
    unused_tensors : tuple of sentences
        Tensors that are not used, and why not.
    unused_keys : tuple of str
        Keys of the configuration that change nothing of what is computed.
    labels : tuple of str
        Names of the classes, where there is a classifier.
    scoring : str
        What makes scores of its logits, of `settings.SCORINGS`.
    limits : Limits
        What is done to texts.
    """

    graph: Graph
    root: Path
    folder: Path
    tensors: Tensors
    unused_tensors: tuple[str, ...]
    unused_keys: tuple[str, ...]
    labels: tuple[str, ...]
    scoring: str
    limits: Limits

    def beside(self) -> dict[str, bytes]:
        """The checkpoint's files beside tensors and tokenizer, by their places in its folder."""
        kept = [self.folder / "config.json", self.root / "modules.json"]
        kept += texts_files(self.root, self.folder)
        for _, place in (modules(self.root) or [])[1:]:
            kept += visible(place, "*.json", "*.safetensors")
        return {os.path.relpath(p, self.root): p.read_bytes() for p in dict.fromkeys(kept) if p.exists()}

    def files(self, graph: Graph) -> dict[str, bytes | str]:
        """The checkpoint with the arrays of `graph`: what `load_network`, and its family's other libraries, read.

        Raises
        ------
        InputError
            If an array of `graph` is another, and the checkpoint has no tensor for it; or a file cannot be read.
        """
        from safetensors.numpy import save

        found = dict(self.tensors.found)
        for name, array in graph.tensors.items():
            if np.array_equal(array, self.graph.tensors[name]):
                continue
            if name not in found or found[name].size != array.size:
                raise InputError(
                    f"{name} was changed, and {self.tensors.path} has no tensor of that name to keep it in."
                )
            found[name] = array.reshape(found[name].shape)
        tensors = {self.tensors.prefixed.get(n, n): np.ascontiguousarray(t) for n, t in found.items()}
        files: dict[str, bytes | str] = {**self.beside()}
        files[os.path.relpath(self.folder / "model.safetensors", self.root)] = save(tensors)
        return files


def _text(settings: Settings, tensors: Tensors, family: str, folder: Path) -> Graph:
    b, x = bert.build(settings, tensors, family)
    if modules(folder) is not None:
        tensors.leave({n: "modules.json does not name it" for n in ("pooler.*", "classifier.*", "pre_classifier.*")})
        pool(b, x, folder, b.width)
    elif logits := bert.classify(settings, b, x, family):
        tensors.leave({"pooler.*": "this head does not take it"})
        b.add(Output("logits", (logits,)))
    else:
        tensors.leave({"pooler.*": "the embedding is the mean of the tokens' outputs"})
        b.add(Output("embedding", (b.add(Mean("mean", (x,))),)))
    return b.graph(family)


def load_network(folder: Path) -> Network:
    """Import a checkpoint's folder.

    Raises
    ------
    InputError
        If files are missing or unreadable, the family is not supported, a key or tensor is not understood, or they do
        not fit each other; everything that is wrong is named.
    """
    if not folder.is_dir():
        raise InputError(f"model folder {folder} is not there, or no folder.")
    listed = modules(folder)
    place = folder if listed is None else listed[0][1]
    path = place / "config.json"
    if not path.exists():
        raise InputError(f"model folder {place}: there is no config.json.")
    settings = Settings(read_json(path, "configuration"), path)
    family = str(settings.found.get("model_type"))
    if family == MODEL_TYPE:
        tensors = read_tensors(place)
        graph, labels, scoring = stored_graph(settings, tensors)
        keys, unused = settings.finish(), tensors.finish()
        limits = Limits(folder, place)
        return Network(graph, folder, place, tensors, tuple(unused), tuple(keys), tuple(labels), scoring, limits)
    if family not in FAMILIES:
        raise InputError(f"{path}: model_type {family!r} is not supported; it is one of {', '.join(FAMILIES)}.")
    tensors = unpacked(read_tensors(place), settings)
    if family in _OTHERS:
        graph = _OTHERS[family].build(settings, tensors, family)
    else:
        graph = _text(settings, tensors, family, folder)
    # The two logits of question answering are of a text's beginning and end: no classes.
    classes = "logits" in graph.by_name and not settings.architecture.endswith("ForQuestionAnswering")
    labels = settings.labels if classes else []
    scoring = settings.scoring(len(labels)) if classes else "none"
    keys = settings.finish()
    unused = tensors.finish()
    graph.verify()
    limits = Limits(folder, place)
    return Network(graph, folder, place, tensors, tuple(unused), tuple(keys), tuple(labels), scoring, limits)

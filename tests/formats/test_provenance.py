"""Compiled images know what they were made from, and are refused when they, or that, have changed."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from support import save_bert
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from sta_hw.compiler.model import CompiledModel
from sta_hw.errors import InputError
from sta_hw.formats.provenance import Provenance, Source, bytes_digest, digest, tokenizer_digest, weights_digest
from sta_hw.model.operations import Attention
from sta_hw.model.random import random_model
from sta_hw.run.backends import ReferenceBackend, RtlBackend
from sta_hw.run.board import BoardBackend
from sta_hw.spec.patterns import Pattern
from sta_hw.spec.presets import PRESETS
from sta_hw.tasks.embedder import Embedder

CONFIG = PRESETS["ci"]
WORDS = ["[UNK]", "the", "a", "of", "to", "and", "in", "is", "for", "that", "with", "on", "as", "by", "this", "are"]


def make_checkpoint(place: Path, seed: int = 0, words: list[str] = WORDS) -> Path:
    save_bert(random_model(seed, hidden=32, heads=2, layers=1, intermediate=64), place)
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(place / "tokenizer.json"))
    return place


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder.load(make_checkpoint(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def compiled(embedder: Embedder) -> CompiledModel:
    return embedder.compile({}, CONFIG, 4)


def test_digests_are_of_content(embedder: Embedder, tmp_path: Path) -> None:
    again = Embedder.load(make_checkpoint(tmp_path / "again"))
    assert again.source.difference(embedder.source) is None
    other = random_model(1, hidden=32, heads=2, layers=1, intermediate=64)
    assert weights_digest(other) != embedder.source.weights
    name = "encoder.layer.0.output.dense.weight"
    nearly = embedder.graph.tensors[name].copy()
    nearly[3, 5] = np.nextafter(nearly[3, 5], np.float32(9))
    assert weights_digest(embedder.graph.with_tensors(embedder.graph.tensors | {name: nearly})) != again.source.weights
    attention = embedder.graph.by_name["0.context"]
    assert isinstance(attention, Attention)
    other = embedder.graph.replaced({attention.name: dataclasses.replace(attention, heads=4)})
    assert weights_digest(other) != again.source.weights
    turned = Embedder.load(make_checkpoint(tmp_path / "turned", words=[WORDS[0], *WORDS[:0:-1]]))
    assert turned.source.difference(embedder.source) == "tokenizer"
    # Padding and truncation do not change what is embedded here: both are off.
    padded = Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json"))
    padded.enable_padding(length=128)
    padded.enable_truncation(128)
    assert tokenizer_digest(padded) == embedder.source.tokenizer


def test_digests_by_hand() -> None:
    """Of bytes, whatever array has them; of JSON, whatever the order of keys."""
    for data in (b"", b"a", b"a\0\0"):
        assert bytes_digest(data) == bytes_digest(np.frombuffer(data, np.uint8)) == hashlib.sha256(data).hexdigest()
    assert bytes_digest(np.arange(9, dtype=np.uint8)[::4]) == bytes_digest(b"\0\4\10")
    assert bytes_digest(np.arange(4, dtype=np.uint8).reshape(2, 2).T) == bytes_digest(b"\0\2\1\3")
    wanted = hashlib.sha256(b'{"a": [1, 2], "b": 0}').hexdigest()
    assert digest({"b": 0, "a": [1, 2]}) == digest({"a": [1, 2], "b": 0}) == wanted


def test_where_a_source_is() -> None:
    there, installed = Source("tiny", "/there", "1", "2"), Source("tiny", None, "1", "2", pruned=True)
    assert (there.path, there.place, there.pruned) == (Path("/there"), "/there", False)
    assert (installed.path, installed.place, installed.pruned) == (None, "tiny", True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        there.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Provenance(there, "3", "4", "magnitude", "percentile").pruner = "other"


def test_an_image_carries_its_origin(compiled: CompiledModel, embedder: Embedder, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    compiled.save(path)
    again = CompiledModel.load(path, CONFIG)
    assert again.provenance == compiled.provenance and again.provenance is not None
    assert again.provenance.source == embedder.source and again.checksum == bytes_digest(compiled.image)
    embedded = embedder.part.embed("ids", [1, 2, 3, 4])
    assert np.array_equal(again.with_input(embedded), compiled.with_input(embedded))
    half = embedder.compile({"0.output.dense": Pattern(2, 4)}, CONFIG, 4)
    assert half.provenance is not None and half.provenance.patterns != again.provenance.patterns


def _archive(**parts: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **{k: np.array(v) for k, v in parts.items()})
    return file.getvalue()


def _edited(compiled: CompiledModel, edit: Callable[[dict[str, Any]], None], *, image: Any = None) -> bytes:
    """The file with its description edited, and its checksum right for it."""
    with np.load(io.BytesIO(compiled.to_bytes())) as file:
        described = json.loads(str(file["description"]))
    edit(described)
    text = json.dumps(described)
    image = compiled.image if image is None else image
    return _archive(image=image, description=text, checksum=bytes_digest(text.encode()))


EDITS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    *((f"without {k}", lambda d, k=k: d.pop(k)) for k in
      ("format", "configuration", "hash", "tokens", "hidden", "program_address", "input_address", "output_address",
       "labels", "info", "image_sha256")),
    *((f"info without {k}", lambda d, k=k: d["info"].pop(k)) for k in
      ("layers", "buffers", "values", "outputs", "ideal_cycles", "embedded_scale", "output_scale")),
    *((f"layers without {k}", lambda d, k=k: d["info"]["layers"][0].pop(k)) for k in
      ("layer", "nm", "used", "columns", "work", "bytes")),
    ("format 1", lambda d: d.update(format=1)),
    ("format new", lambda d: d.update(format="3")),
    ("tokens text", lambda d: d.update(tokens="4")),
    ("tokens true", lambda d: d.update(tokens=True)),
    ("tokens 0", lambda d: d.update(tokens=0)),
    ("tokens many", lambda d: d.update(tokens=10**12)),
    ("hidden fraction", lambda d: d.update(hidden=32.0)),
    ("hidden wide", lambda d: d.update(hidden=1 << 40)),
    ("program outside", lambda d: d.update(program_address=1 << 40)),
    ("program elsewhere", lambda d: d.update(program_address=d["program_address"] + 64)),
    ("program negative", lambda d: d.update(program_address=-64)),
    ("input outside", lambda d: d.update(input_address=1 << 31)),
    ("output null", lambda d: d.update(output_address=None)),
    ("no texts", lambda d: d.pop("texts")),
    ("texts empty", lambda d: d.update(texts=[])),
    ("texts overlap", lambda d: d.update(texts=[[0, 2], [1, d["tokens"] - 2]])),
    ("texts outside", lambda d: d.update(texts=[[1 << 40, d["tokens"]]])),
    ("texts of more tokens", lambda d: d.update(texts=[[0, d["tokens"] + 1]])),
    ("texts of names", lambda d: d.update(texts=["a"])),
    ("shares short", lambda d: d["info"].update(pooled_shares=[])),
    ("share 0", lambda d: d["info"].update(pooled_shares=[0])),
    ("labels short", lambda d: d["labels"].pop()),
    ("labels numbers", lambda d: d.update(labels=[1] * len(d["labels"]))),
    ("labels text", lambda d: d.update(labels="all")),
    ("info list", lambda d: d.update(info=[])),
    ("scale nan", lambda d: d["info"].update(embedded_scale=float("nan"))),
    ("scale 0", lambda d: d["info"].update(output_scale=0)),
    ("scale text", lambda d: d["info"].update(output_scale="1")),
    ("layers object", lambda d: d["info"].update(layers={})),
    ("layers numbers", lambda d: d["info"].update(layers=[1])),
    ("no N:M", lambda d: d["info"]["layers"][0].update(used="2:5")),
    ("N:M number", lambda d: d["info"]["layers"][0].update(nm=24)),
    ("outputs elsewhere", lambda d: d["info"].update(outputs="x")),
    ("values of numbers", lambda d: d["info"]["values"].update(x=1)),
    ("values in no buffer", lambda d: d["info"]["values"]["0.context"].update(buffers=["x"])),
    ("values of no layer", lambda d: d["info"]["values"]["0.context"].update(layer="0")),
    ("values of more", lambda d: d["info"]["values"]["0.context"].update(more=1)),
    ("info without places", lambda d: d["info"].pop("places")),
    ("info of more", lambda d: d["info"].update(more=1)),
    ("places short", lambda d: d["info"].update(places=[["program", 0]])),
    ("places null", lambda d: d["info"].update(places=None)),
    ("outputs scale", lambda d: d["info"].update(outputs_scale=None)),
    ("layer of more", lambda d: d["info"]["layers"][0].update(more=1)),
    ("layer of less", lambda d: d["info"]["layers"][0].pop("depth")),
    ("buffers short", lambda d: d["info"]["buffers"].update(x=[1])),
    ("hash of another", lambda d: d.update(hash="0123456789abcdef")),
    ("configuration of another", lambda d: d["configuration"].update(rows=8)),
    ("configuration nonsense", lambda d: d["configuration"].update(rows="four")),
    ("configuration none", lambda d: d["configuration"].update(nm=None)),
    ("configuration unknown", lambda d: d["configuration"].update(flux=1)),
    ("configuration list", lambda d: d.update(configuration=[])),
    ("provenance empty", lambda d: d.update(provenance={})),
    ("provenance text", lambda d: d.update(provenance="mine")),
    ("source number", lambda d: d["provenance"]["source"].update(weights=1)),
    ("calibration null", lambda d: d["provenance"].update(calibration=None)),
]  # fmt: skip


@pytest.mark.parametrize("name", [name for name, _ in EDITS])
def test_a_malformed_description_is_a_sentence(name: str, compiled: CompiledModel, tmp_path: Path) -> None:
    path = tmp_path / "edited.npz"
    path.write_bytes(_edited(compiled, dict(EDITS)[name]))
    with pytest.raises(InputError, match=r"edited\.npz.*compile it again\.$") as error:
        CompiledModel.load(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_damaged_files(compiled: CompiledModel, tmp_path: Path) -> None:
    whole = compiled.to_bytes()
    path = tmp_path / "damaged.npz"
    rng = np.random.default_rng(0)
    changed = compiled.image.copy()
    changed[int(rng.integers(len(changed)))] ^= 1
    text = json.dumps({"format": 2})
    files = [b"", b"PK", whole[: len(whole) // 2], whole[:-1], _archive(image=[1, 2]), _archive(description="{}"),
             _archive(image=compiled.image, description="[]", checksum=""),
             _archive(image=compiled.image, description="{", checksum=""),
             _archive(image=compiled.image, description=text, checksum="0" * 64),
             _edited(compiled, lambda d: None, image=changed),
             _edited(compiled, lambda d: None, image=compiled.image.astype(np.int64)),
             _edited(compiled, lambda d: None, image=compiled.image[None])]  # fmt: skip
    for byte in rng.integers(0, len(whole), 40):  # of the archive itself: found by its own checksums, or harmless
        files.append(whole[:byte] + bytes([whole[byte] ^ 0x10]) + whole[byte + 1 :])
    for number, data in enumerate(files):
        path.write_bytes(data)
        try:
            again = CompiledModel.load(path)
        except InputError as error:
            assert "damaged.npz" in str(error)
        else:
            assert number >= 12 and np.array_equal(again.image, compiled.image) and again.info == compiled.info
    path.write_bytes(_archive(image=np.array([{}], object), description="{}"))  # a pickle
    with pytest.raises(InputError, match="not a compiled model"):
        CompiledModel.load(path)
    with pytest.raises(InputError, match="there is no file"):
        CompiledModel.load(tmp_path / "none.npz")


def test_every_backend_checks_the_image(compiled: CompiledModel, embedder: Embedder) -> None:
    """One changed byte: of the program, of weights, of where the input goes."""
    embedded = embedder.part.embed("ids", [1, 2, 3, 4])
    hardware = object.__new__(RtlBackend)
    hardware.config, hardware.memory, hardware.model = CONFIG, None, Mock()
    board = object.__new__(BoardBackend)
    board.config, board.size = CONFIG, None
    for backend in (ReferenceBackend(CONFIG), hardware, board):
        for at in (compiled.program_address + 5, 0, compiled.input_address, len(compiled.image) - 1):
            image = compiled.image.copy()
            image[at] ^= 1
            with pytest.raises(InputError, match="checksum differs"):
                backend.run(dataclasses.replace(compiled, image=image), embedded)
    hardware.model.run.assert_not_called()


def test_sources_and_provenance_from_json() -> None:
    source = Source("tiny", "/there", "1", "2")
    whole = Provenance(source, "3", "4", "magnitude", "percentile")
    assert Provenance.read(json.loads(json.dumps(dataclasses.asdict(whole)))) == whole
    for value in (None, [], {}, {"name": 1, "folder": None, "weights": "", "tokenizer": "", "pruned": False},
                  dataclasses.asdict(source) | {"pruned": 1}, dataclasses.asdict(source) | {"folder": 3}):  # fmt: skip
        with pytest.raises(ValueError, match="the source"):
            Source.read(value)

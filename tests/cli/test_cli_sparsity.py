"""prune, evaluate, import and compile, one after the other, on a small model."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from onnx_export import CASES, export, export_text
from support import save_bert
from test_families import IMAGE, saved
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from sta_hw.cli.main import main
from sta_hw.errors import InputError
from sta_hw.formats.nm import satisfies
from sta_hw.model.families import load_network
from sta_hw.model.random import random_model
from sta_hw.sparsity.store import load_pruned
from sta_hw.spec.patterns import Pattern

WORDS = ["[UNK]", "the", "a", "of", "to", "and", "in", "is", "for", "that", "with", "on", "as", "by", "this", "are"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer of a few words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    place = tmp_path_factory.mktemp("model")
    save_bert(random_model(0, hidden=64, heads=2, layers=2, intermediate=128), place)
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(place / "tokenizer.json"))
    return place


@dataclass
class Result:
    stdout: str
    stderr: str


def run(*arguments: object, status: int = 0) -> Result:
    """The command line, in this process: importing PyTorch again takes seconds."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["sta-hw", *map(str, arguments)]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    assert code == status, errors.getvalue()
    return Result(output.getvalue(), errors.getvalue())


def test_prune_compile_evaluate(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "pruned"
    common = ("--model", folder, "-o", output, "--calibration", 32)
    steps = ("--steps", 12, "--rate", 4e-3)
    rows = {}
    for method, nm, more in (
        ("magnitude", "4:16", ()), ("sparsegpt", "4:16", steps), ("domino", "8:16", ("--preset", "small"))
    ):  # fmt: skip
        text = run("prune", "--method", method, "--nm", nm, *more, *common, "--json").stdout
        (rows[method],) = json.loads(text)
    assert rows["sparsegpt"]["fp32"]["cosine"] > rows["magnitude"]["fp32"]["cosine"]
    for row in rows.values():
        stored = load_pruned(Path(row["folder"]))
        graph = load_network(stored.folder).graph
        assert all(satisfies(graph.linear(key).weight, p) for key, p in stored.patterns.items())
    assert len(set(load_pruned(Path(rows["domino"]["folder"])).patterns.values())) > 1
    # Done already: nothing is made again.
    again = run("prune", "--method", "sparsegpt", "--nm", "4:16", *steps, *common, "--json")
    assert "is there already" in again.stderr and json.loads(again.stdout) == [rows["sparsegpt"]]
    # Quantization-aware steps bring the integers nearer to fp32.
    tuned = ("prune", "--method", "sparsegpt", "--nm", "4:16", *steps, "--aware-steps", 12, "--preset", "small")
    (rows["sparsegpt, quantization-aware"],) = json.loads(run(*tuned, *common, "--json").stdout)
    arguments = ("--tokens", 16, "--preset", "small", "--picture", tmp_path / "aware.png", "--json")
    evaluated = {Path(r["name"]).name: r for r in json.loads(run("evaluate", output, *arguments).stdout)}
    plain, aware = (evaluated[Path(rows[n]["folder"]).name] for n in ("sparsegpt", "sparsegpt, quantization-aware"))
    assert aware["int8"]["cosine"] > plain["int8"]["cosine"] and "aware12" in aware["name"]

    picture = tmp_path / "picture.png"
    text = run("evaluate", output, "--picture", picture, "--preset", "small", "--tokens", 16, "--json").stdout
    found = {r["method"]: r for r in json.loads(text)}
    assert picture.stat().st_size > 5000 and set(found) == set(rows)
    for method, r in found.items():
        assert r["fp32"] == rows[method]["fp32"] and abs(r["int8"]["cosine"] - r["fp32"]["cosine"]) < 0.02
    assert found["domino"]["cycles"] > found["magnitude"]["cycles"] and found["magnitude"]["density"] == 0.25
    table = run("evaluate", output, "--picture", picture, "--preset", "small", "--tokens", 16, "--layers").stdout
    assert "0.attention.self.query" in table and "limit" in table

    place = Path(rows["domino"]["folder"])
    compiled = run(
        "compile", "--model", place, "--nm-table", place / "nm.json", "--tokens", 9, "--preset", "small",
        "-o", tmp_path / "model.npz", "--json",
    )  # fmt: skip
    wanted = {name: "dense" if p.dense else str(p) for name, p in load_pruned(place).patterns.items()}
    used = {r["layer"]: r["used"] for r in json.loads(compiled.stdout)["layers"] if r["layer"] in wanted}
    assert used == wanted


def test_series(folder: Path, tmp_path: Path) -> None:
    text = run("prune", "--method", "idp", "--nm", "6:8", "--steps", 3, "--model", folder, "-o", tmp_path,
               "--calibration", 4, "--json").stdout  # fmt: skip
    assert [(r["nm"], r["total_steps"]) for r in json.loads(text)] == [("7:8", 3), ("6:8", 6)]


def test_bad_input(folder: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--method", "lottery"), "method 'lottery' is unknown"),
        (("--nm", "3:5"), "M = 5"),
        (("--nm", "dense", "--calibration", 4, "--model", folder), "nothing to prune"),
        (("--steps", -1), "greater than or equal to 0"),
    ):
        assert message in run("prune", *arguments, "-o", tmp_path, status=2).stderr
    assert "no pruned encoder" in run("evaluate", tmp_path, status=2).stderr
    (tmp_path / "pruned.json").write_text("{}")
    with pytest.raises(InputError, match="holds no pruned network"):
        load_pruned(tmp_path)


def test_import(tmp_path: Path) -> None:
    """What is imported from ONNX runs as what is imported from the checkpoint does."""
    model = export_text(tmp_path / "text.onnx", vocab_size=len(WORDS), num_hidden_layers=1)
    words = WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    about = json.loads(run("import", tmp_path / "text.onnx", "-o", tmp_path / "text", "--json").stdout)
    assert (about["family"], about["layers"], about["left_out"]) == ("ONNX", 1, ["pooler_output"])
    assert about["tokenizer"] == str(tmp_path / "tokenizer.json") and about["pooling"] == "mean"
    given = ("--text", "the words of this", "--preset", "ci", "--nm", "dense", "--backend", "reference", "--json")
    found = np.array(json.loads(run("run", "--model", tmp_path / "text", *given).stdout)["embedding"])
    with torch.no_grad():
        tokens = model(input_ids=torch.tensor([tokenizer.encode("the words of this").ids])).last_hidden_state[0]
    wanted = tokens.mean(0).numpy()
    assert found @ wanted / np.linalg.norm(wanted) > 0.99
    pooled = json.loads(
        run("import", tmp_path / "text.onnx", "--pooling", "max", "-o", tmp_path / "max", "--json").stdout
    )
    assert pooled["pooling"] == "max"
    other = run("import", tmp_path / "text.onnx", "--output", "pooler_output", "-o", tmp_path / "pooler", "--json")
    assert json.loads(other.stdout)["of_output"] == "pooler_output"
    assert (
        "has no output" in run("import", tmp_path / "text.onnx", "--output", "x", "-o", tmp_path / "x", status=2).stderr
    )
    assert "a folder says itself" in run("import", tmp_path / "text", "--pooling", "max", status=2).stderr
    (tmp_path / "config.json").write_text("{}")
    assert "own folder" in run("import", tmp_path / "text.onnx", "-o", tmp_path, status=2).stderr
    export_text(tmp_path / "other.onnx", hidden_act="mish")
    refused = run("import", tmp_path / "other.onnx", "-o", tmp_path / "other", status=2)
    assert "is not supported" in refused.stderr or "is no encoder" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_import_of_images(tmp_path: Path) -> None:
    model = saved(tmp_path / "theirs", "ViTForImageClassification", IMAGE | {"num_labels": 4, "num_hidden_layers": 1})
    export(model, tmp_path / "image.onnx", CASES["deit"])
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {str(i): name for i, name in enumerate("abcd")}}))
    assert "ONNX" in run("import", tmp_path / "image.onnx", "-o", tmp_path / "image").stdout
    assert "ONNX" in run("import", tmp_path / "image", "-o", tmp_path / "again").stdout
    arrays = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "one.npy", arrays[0])
    np.save(tmp_path / "many.npy", arrays)
    found = json.loads(run("run", "--model", tmp_path / "again", "--input", tmp_path / "one.npy", "--calibration",
                           tmp_path / "many.npy", "--preset", "ci", "--nm", "dense", "--backend", "reference",
                           "--json").stdout)  # fmt: skip
    with torch.no_grad():
        wanted = model(pixel_values=torch.from_numpy(arrays[:1])).logits[0].numpy()
    logits = np.array(found["logits"])
    assert logits @ wanted / np.linalg.norm(logits) / np.linalg.norm(wanted) > 0.99
    assert found["label"] == "abcd"[int(wanted.argmax())]


def test_patterns_of_a_table(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "nm.json"
    table.write_text(json.dumps({"output.dense": "2:16", "1.intermediate.dense": "dense"}))
    text = run("prune", "--method", "wanda", "--nm", "8:16", "--nm-table", table, "--model", folder, "-o", tmp_path,
               "--calibration", 8, "--json").stdout  # fmt: skip
    patterns = load_pruned(Path(json.loads(text)[0]["folder"])).patterns
    assert patterns["0.output.dense"] == Pattern(2, 16) and patterns["1.intermediate.dense"].dense
    assert patterns["1.attention.self.key"] == Pattern(8, 16)

"""The command line with checkpoints of every kind: texts, images, spectrograms; what does not fit is one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli_sparsity import run
from test_families import IMAGE, TEXT, WHISPER, saved

from sta_hw.sparsity.workbench import Workbench
from sta_hw.tasks.embedder import Embedder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "hard", "##ware", "skips", "zeros"]
ON = ("--preset", "ci", "--nm", "dense", "--backend", "reference", "--json")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT's folder, with an image and others beside it."""
    folder = tmp_path_factory.mktemp("vit")
    saved(folder, "ViTForImageClassification", IMAGE | {"num_labels": 4, "num_hidden_layers": 1})
    arrays = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    np.save(folder / "one.npy", arrays[0])
    np.save(folder / "many.npy", arrays)
    np.save(folder / "wide.npy", arrays[0, :, :, :7])
    np.save(folder / "whole.npy", np.zeros((3, 8, 8), np.int64))
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa's folder with a vocabulary alone."""
    folder = tmp_path_factory.mktemp("roberta")
    saved(folder, "RobertaForSequenceClassification", TEXT | {"num_labels": 3, "num_hidden_layers": 1,
                                                              "vocab_size": len(WORDS), "pad_token_id": 0})  # fmt: skip
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder


def test_a_report_of_what_would_not_fit_dense(tmp_path: Path) -> None:
    """There is no speed-up to tell, and why."""
    saved(tmp_path, "ViTForImageClassification", IMAGE | {"num_labels": 4, "num_hidden_layers": 1,
                                                          "intermediate_size": 2560})  # fmt: skip
    np.save(tmp_path / "one.npy", np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32))
    given = ("--model", tmp_path, "--preset", "ci", "--nm", "1:4", "--pruner", "magnitude")
    compiled, image = tmp_path / "m.npz", ("--model", tmp_path, "--input", tmp_path / "one.npy")
    run("compile", *given, "-o", compiled)
    page = run("report", compiled, *image, "-o", tmp_path / "r.html", "--json")
    assert json.loads(page.stdout)["speedup_over_dense"] is None and "which do not fit: 0." in page.stderr


def answer(*arguments: object) -> Any:
    return json.loads(run("run", *ON, *arguments).stdout)


def test_an_image(image: Path, tmp_path: Path) -> None:
    import transformers as hf

    found = answer("--model", image, "--input", image / "one.npy", "--calibration", image / "many.npy")
    model = hf.ViTForImageClassification.from_pretrained(image).eval()
    with torch.no_grad():
        wanted = model(torch.from_numpy(np.load(image / "one.npy")[None])).logits[0].numpy()
    logits = np.array(found["logits"])
    assert logits @ wanted / np.linalg.norm(logits) / np.linalg.norm(wanted) > 0.99
    assert found["label"] == f"LABEL_{wanted.argmax()}" and found["tokens"] == 17 and found["text"] is None
    again = run("compile", "--model", image, "--preset", "ci", "--nm", "dense", "-o", tmp_path / "vit.npz", "--json")
    assert json.loads(again.stdout)["tokens"] == 17 and "calibrated with noise" in again.stderr
    given = ("--model", image, "--input", image / "one.npy", "--backend", "reference", "--json")
    assert json.loads(run("run", tmp_path / "vit.npz", *given).stdout)["label"] == found["label"]


def test_a_spectrogram(tmp_path: Path) -> None:
    saved(tmp_path, "WhisperModel", WHISPER | {"encoder_layers": 1})
    np.save(tmp_path / "one.npy", np.random.default_rng(0).normal(size=(8, 24)).astype(np.float32))
    found = answer("--model", tmp_path, "--input", tmp_path / "one.npy")
    assert len(found["embedding"]) == 32 and found["cosine_with_dense_fp32"] > 0.99


def test_a_text(text: Path) -> None:
    found = answer("--model", text, "--text", "The hardware skips zeros")
    assert found["tokens"] == 7 and len(found["logits"]) == 3 and found["cosine_with_dense_fp32"] > 0.99


def test_a_model_of_few_positions(tmp_path: Path) -> None:
    """Fewer than the sentences for calibration and pruning have tokens."""
    saved(
        tmp_path, "BertModel", TEXT | {"num_hidden_layers": 1, "vocab_size": len(WORDS), "max_position_embeddings": 8}
    )
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    given = ("--model", tmp_path, "--text", "the hardware skips", "--preset", "ci", "--backend", "reference", "--json")
    assert json.loads(run("run", *given, "--nm", "dense").stdout)["cosine_with_dense_fp32"] > 0.99
    assert json.loads(run("run", *given, "--nm", "2:4").stdout)["tokens"] == 6
    bench = object.__new__(Workbench)  # what prune embeds with; the corpus is of no interest here
    bench.embedder = Embedder.load(tmp_path)
    assert len(bench.embed("the hardware " * 9)) == 8 and len(bench.embed("the hardware " * 9, 5)) == 5


@pytest.mark.parametrize(
    ("kind", "arguments", "problem"),
    [
        ("image", (), r"takes no texts; give pixel_values of shape \(3, 8, 8\)"),
        ("image", ("--input", "wide.npy"), r"holds float32 of shape \(3, 8, 7\); the model takes pixel_values"),
        ("image", ("--input", "whole.npy"), "holds int64"),
        ("image", ("--input", "many.npy"), "holds 8 inputs; one is run at a time"),
        ("image", ("--input", "config.json"), "is no array"),
        ("image", ("--input", "one.npy", "--calibration", "wide.npy"), "wide.npy holds"),
        ("text", ("--input", "vocab.txt"), "takes texts; give one"),
        ("text", ("--calibration", "vocab.txt"), "leave the calibration file out"),
        ("text", ("--text", "the [PAD] zeros"), r"holds the padding token '\[PAD\]'"),
        ("text", ("--text", " ".join(["zeros"] * 60)), "has 62 tokens; the model takes 39"),
    ],
)
def test_refusals(kind: str, arguments: tuple[str, ...], problem: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    given = [folder / a if a.endswith((".npy", ".json", ".txt")) else a for a in arguments]
    found = run("run", *ON, "--model", folder, *given, status=2)
    assert re.search(problem, found.stderr), found.stderr


def test_tokens_of_an_image(image: Path, tmp_path: Path) -> None:
    found = run("compile", "--model", image, "--tokens", 16, "-o", tmp_path / "x.npz", status=2)
    assert "tokens = 16; this model has 17" in found.stderr


def test_a_tokenizer_that_knows_more(text: Path, tmp_path: Path) -> None:
    run("import", text, "-o", tmp_path / "copy")
    (tmp_path / "copy" / "added_tokens.json").write_text(json.dumps({"[NEW]": len(WORDS)}))
    found = run("run", *ON, "--model", tmp_path / "copy", "--text", "the [NEW] zeros", status=2)
    assert f"token 2 of the text has the id {len(WORDS)}" in found.stderr


def test_an_epsilon_that_matters(tmp_path: Path) -> None:
    saved(tmp_path, "BertModel", TEXT | {"layer_norm_eps": 0.1, "vocab_size": len(WORDS)})
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    assert "with the model's 0.1 the limit is 2" in run("run", *ON, "--model", tmp_path, status=2).stderr


@pytest.mark.parametrize("kind", ["text", "image"])
def test_what_cannot_be_pruned(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(kind)
    found = run("prune", "--method", "magnitude", "--model", folder, "-o", tmp_path / "x", status=2)
    assert "is no text encoder whose embedding is the mean" in found.stderr and not list(tmp_path.glob("x/*-*"))


def test_import_copies_and_lists(text: Path, image: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / ".config-x1.json").write_text("{")  # what another command is writing
    about = json.loads(run("import", text, "-o", tmp_path / "copy", "--json").stdout)
    assert about["family"] == "RoBERTa" and about["labels"] == 3 and "initializer_range" in about["unused_keys"]
    assert (
        answer("--model", tmp_path / "copy", "--text", "the zeros")["logits"]
        == answer("--model", text, "--text", "the zeros")["logits"]
    )
    assert "is the same file as FILE" in run("import", text, "-o", text, status=2).stderr
    (tmp_path / "copy" / "modules.json").write_text("[]")
    refused = run("import", image, "-o", tmp_path / "copy", status=2)
    assert "of another checkpoint" in refused.stderr
    saved(tmp_path / "decoder", "BertModel", TEXT | {"is_decoder": True})
    assert "earlier tokens alone" in run("import", tmp_path / "decoder", "-o", tmp_path / "x", status=2).stderr
    assert not (tmp_path / "x").exists()

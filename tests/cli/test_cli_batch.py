"""`embed` and `classify`: files of texts and images, every output format, standard input, truncation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from test_cli_families import WORDS
from test_cli_sparsity import run
from test_families import IMAGE, TEXT, saved

from sta_hw.cli.batch import read_lines
from sta_hw.errors import InputError
from sta_hw.model.families import load_network
from sta_hw.model.settings import SCORINGS
from sta_hw.tasks.scores import scores

ON = ("--preset", "ci", "--nm", "dense", "--json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models: a text encoder, classifiers of texts and images; inputs beside them."""
    here = tmp_path_factory.mktemp("batch")
    text = TEXT | {"num_hidden_layers": 1, "vocab_size": len(WORDS), "pad_token_id": 0}
    saved(here / "encoder", "BertModel", text | {"max_position_embeddings": 12})
    saved(here / "classes", "RobertaForSequenceClassification", text | {"num_labels": 3})
    saved(here / "images", "ViTForImageClassification", IMAGE | {"num_labels": 4, "num_hidden_layers": 1})
    for name in ("encoder", "classes"):
        (here / name / "vocab.txt").write_text("\n".join(WORDS))
    (here / "texts.txt").write_text("the hardware skips zeros\nzeros\r\nthe hard the hard the hardware\n")
    (here / "long.txt").write_text("zeros\n" + "zeros " * 20 + "\n")
    arrays = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    np.save(here / "images.npy", arrays)
    np.save(here / "one.npy", arrays[1])
    return here


def test_embed(folder: Path, tmp_path: Path) -> None:
    given = ("embed", folder / "texts.txt", *ON, "--model", folder / "encoder")
    about = json.loads(run(*given, "-o", tmp_path / "v.npy").stdout)
    vectors = np.load(tmp_path / "v.npy")
    assert vectors.shape == (3, 32) and vectors.dtype == np.float32 and about["inputs"] == 3
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert about["least_cosine_with_dense_fp32"] > 0.99 and about["programs"] == 1
    assert about["tokens"] == 7 + 3 + 9 and "cycles" not in about
    json.loads(run(*given, "-o", tmp_path / "v.json", "--tokens", 4).stdout)
    rows = json.loads((tmp_path / "v.json").read_text())
    assert [r["input"] for r in rows][:2] == ["the hardware skips zeros", "zeros"]
    assert np.abs(np.array([r["embedding"] for r in rows]) - vectors).max() < 0.02  # poolings round otherwise
    alone = json.loads(
        run("run", *ON, "--backend", "reference", "--model", folder / "encoder", "--text", "zeros").stdout
    )
    assert np.allclose(rows[1]["embedding"], alone["embedding"], atol=2e-6)


def test_embed_on_rtl(folder: Path, tmp_path: Path) -> None:
    given = ("embed", folder / "texts.txt", *ON, "--model", folder / "encoder", "--backend", "rtl")
    about = json.loads(run(*given, "-o", tmp_path / "v.npy").stdout)
    assert about["equal_to_reference"] is True and 0 < about["fraction_of_ideal"] < 1
    run("embed", folder / "texts.txt", *ON, "--model", folder / "encoder", "-o", tmp_path / "w.npy")
    assert np.array_equal(np.load(tmp_path / "v.npy"), np.load(tmp_path / "w.npy"))


def test_standard_input(folder: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", "from sta_hw.cli.main import main; main()", "embed", "-", *ON]
    words += ["--model", str(folder / "encoder"), "-o", str(tmp_path / "v.npy")]
    subprocess.run(words, input="zeros\nthe zeros", text=True, check=True, capture_output=True)
    assert np.load(tmp_path / "v.npy").shape == (2, 32)


def test_lines_that_are_no_texts(folder: Path, tmp_path: Path) -> None:
    """Text in UTF-16, lines of an old Macintosh, files put behind one another: none is taken for another text."""
    lines = [b"the", b" \xc2\xa0\r", b"t\0h\0e\0", b"the\rzeros\r", b"\xef\xbb\xbfzeros", b"\xff"]
    (tmp_path / "texts.txt").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    with pytest.raises(InputError) as refused:
        read_lines(tmp_path / "texts.txt")
    told = [line.partition(", line ")[2] for line in str(refused.value).splitlines()]
    assert [t[:9] for t in told] == ["2: it is ", "3: it has", "4: it has", "5: it beg", "6: it is "]
    for part, line in zip(("empty", "UTF-16", "carriage return", "byte order mark", "UTF-8"), told, strict=True):
        assert part in line
    (tmp_path / "texts.txt").write_bytes("zeros\n\u200b\n\x01\n".encode())
    given = ("embed", tmp_path / "texts.txt", *ON, "--model", folder / "encoder", "-o", tmp_path / "v.npy")
    refused_too = run(*given, status=2).stderr
    assert refused_too.count("the text has no token: the tokenizer drops all of its characters") == 2


def test_long_texts(folder: Path, tmp_path: Path) -> None:
    given = ("embed", folder / "long.txt", *ON, "--model", folder / "encoder", "-o", tmp_path / "v.npy")
    refused = run(*given, status=2)
    assert "long.txt, line 2: the text has 22 tokens; the model takes 12; --truncate cuts it." in refused.stderr
    assert not (tmp_path / "v.npy").exists()
    assert json.loads(run(*given, "--truncate").stdout)["tokens"] == 3 + 12


def test_classify(folder: Path) -> None:
    given = ("classify", folder / "texts.txt", *ON, "--model", folder / "classes", "--top", 2)
    about = json.loads(run(*given).stdout)
    alone = json.loads(
        run("run", *ON, "--backend", "reference", "--model", folder / "classes", "--text", "zeros").stdout
    )
    answer = about["answers"][1]
    assert [a["input"] for a in about["answers"]][1] == "zeros" and len(answer["classes"]) == 2
    assert answer["classes"][0]["label"] == alone["label"]
    shares = np.exp(alone["logits"]) / np.exp(alone["logits"]).sum()
    # A batch's means are of weights in 7 bits for each text, a single text's of ones and one exact factor.
    assert answer["classes"][0]["share"] == pytest.approx(shares.max(), abs=5e-3)
    table = run("classify", folder / "texts.txt", *ON[:-1], "--model", folder / "classes").stdout
    assert "the hardware skips zeros" in table and "LABEL_" in table
    assert "has 3 classes; the nearest is 3" in run(*given[:-1], 4, status=2).stderr


@pytest.mark.parametrize(
    ("kind", "labels", "what"),
    [("regression", 1, "value"), (None, 1, "probability"), ("multi_label_classification", 3, "probability"),
     (None, 3, "share"), ("regression", 3, "value")],
)  # fmt: skip
def test_scores_are_those_of_transformers_pipelines(kind: str | None, labels: int, what: str, tmp_path: Path) -> None:
    sizes = TEXT | {"num_hidden_layers": 1, "vocab_size": len(WORDS), "num_labels": labels, "problem_type": kind}
    model = saved(tmp_path, "BertForSequenceClassification", sizes)
    tokenizer = hf.BertTokenizerFast(vocab={w: n for n, w in enumerate(WORDS)})
    pipeline = hf.TextClassificationPipeline(model=model, tokenizer=tokenizer)
    logits = np.random.default_rng(0).normal(size=labels)
    wanted = pipeline.postprocess({"logits": torch.from_numpy(logits)[None]}, top_k=None)
    network = load_network(tmp_path)
    assert SCORINGS[network.scoring] == what
    found = dict(zip(network.labels, scores(logits, network.scoring).tolist(), strict=True))
    assert found == pytest.approx({w["label"]: w["score"] for w in wanted}, rel=1e-6)


def test_a_single_class(tmp_path: Path) -> None:
    """It has no share, and no cosine of its logit says anything."""
    sizes = TEXT | {"num_hidden_layers": 1, "vocab_size": len(WORDS), "num_labels": 1}
    saved(tmp_path, "BertForSequenceClassification", sizes)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "texts.txt").write_text("the hardware skips zeros\n")
    about = json.loads(run("classify", tmp_path / "texts.txt", *ON, "--model", tmp_path).stdout)
    alone = json.loads(run("run", *ON, "--backend", "reference", "--model", tmp_path, "--text",
                           "the hardware skips zeros").stdout)  # fmt: skip
    (logit,) = alone["logits"]
    assert about["answers"][0]["classes"][0]["probability"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=2e-2)
    assert alone["probability"]["LABEL_0"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)
    assert 0 < about["largest_difference"] < 0.2 and 0 < alone["difference"] < 0.2 and "label" not in alone
    said = run("run", *ON[:-1], "--backend", "reference", "--model", tmp_path, "--text", "zeros").stdout
    assert re.search(r"LABEL_0: probability 0\.\d+\nDifference from fp32 of .*: 0\.", said) and "osine" not in said


def test_classify_images(folder: Path) -> None:
    given = ("classify", folder / "images.npy", folder / "one.npy", *ON, "--model", folder / "images")
    answers = json.loads(run(*given, "--calibration", folder / "images.npy").stdout)["answers"]
    assert [a["input"] for a in answers] == [f"{folder / 'images.npy'}, {i}" for i in (1, 2, 3)] + [
        f"{folder / 'one.npy'}, 1"
    ]
    assert answers[1]["classes"] == answers[3]["classes"] != answers[0]["classes"]
    assert "--truncate is not used with" in run(*given, "--truncate", status=2).stderr


def test_the_other_command(folder: Path, tmp_path: Path) -> None:
    texts = folder / "texts.txt"
    refused = run("embed", texts, *ON, "--model", folder / "classes", "-o", tmp_path / "v.npy", status=2)
    assert "take sta-hw classify" in refused.stderr
    assert "no classes" in run("classify", texts, *ON, "--model", folder / "encoder", status=2).stderr


def test_the_smallest_of_several_programs_that_holds_the_text(folder: Path, tmp_path: Path) -> None:
    """Whatever their order; a text that none holds is refused."""
    model = ("--model", folder / "encoder")
    for tokens in (4, 9):
        run("compile", *ON, *model, "--tokens", tokens, "-o", tmp_path / f"{tokens}.npz")
    long = "the hard the hard the hardware"

    def answer(*given: Any, status: int = 0) -> Any:
        return run("run", *given, *model, "--backend", "reference", "--json", status=status)

    for text, size in (("zeros", 4), (long, 9)):
        alone = json.loads(answer(tmp_path / f"{size}.npz", "--text", text).stdout)
        for files in ((4, 9), (9, 4)):
            assert json.loads(answer(*(tmp_path / f"{n}.npz" for n in files), "--text", text).stdout) == alone
    assert "4" in answer(tmp_path / "4.npz", "--text", long, status=2).stderr


def test_estimates_of_a_checkpoint_and_of_batches(folder: Path, tmp_path: Path) -> None:
    """A checkpoint's sizes are those given by hand; a batch's cycles are those of its programs."""
    sizes = ("--hidden", 32, "--heads", 2, "--layers", 1, "--intermediate", 64)

    def cycles(*given: Any) -> dict[str, Any]:
        return json.loads(run("estimate", *ON, *given).stdout)

    config = json.loads((folder / "encoder" / "config.json").read_text())
    assert [config[k] for k in ("hidden_size", "num_attention_heads", "intermediate_size")] == [32, 2, 64]
    assert cycles("--model", folder / "encoder", "--tokens", 9) == cycles(*sizes, "--tokens", 9)
    most = config["max_position_embeddings"]
    longer = cycles("--model", folder / "encoder", "--batch", f"3,{most + 1}")
    assert longer["problems"] == [f"tokens = {most + 1} exceeds the model's positions; the nearest is {most}."]
    image = json.loads((folder / "images" / "config.json").read_text())
    found = cycles("--model", folder / "images")
    assert found["tokens"] == (image["image_size"] // image["patch_size"]) ** 2 + 1 and not found["problems"]
    (tmp_path / "lengths.txt").write_text("7\n3\n9\n")
    batch = cycles(*sizes, "--batch", "7,3,9")
    assert batch == cycles(*sizes, "--batch", tmp_path / "lengths.txt")
    assert (batch["tokens"], batch["texts"], batch["programs"]) == (19, 3, 1)
    assert batch["cycles"] < sum(cycles(*sizes, "--tokens", n)["cycles"] for n in (7, 3, 9))
    apart = cycles(*sizes, "--batch", "7,3,9", "--most", 12)
    assert apart["programs"] == 2 and apart["cycles"] > batch["cycles"]
    assert cycles(*sizes, "--batch", "3x5") == cycles(*sizes, "--batch", "5,5,5")

"""Commands on what commands made: stale, damaged, of another model, one over the other, on a disk that is full."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli_sparsity import run
from test_provenance import WORDS, make_checkpoint

from sta_hw.compiler.model import CompiledModel
from sta_hw.model.families import load_network
from sta_hw.spec.presets import PRESETS

TEXT = "the hardware is for that and this"
RUN_IMAGE = ("--backend", "reference", "--text", TEXT, "--json")
"""With a compiled model, which has its own hardware."""
RUN = (*RUN_IMAGE, "--preset", "ci")


def pruned(model: Path, output: Path, *more: object, nm: str = "4:16") -> tuple[Path, str]:
    arguments = ("--method", "magnitude", "--nm", nm, "--calibration", 4, "--model", model, "-o", output)
    result = run("prune", *arguments, *more, "--json")
    (row,) = json.loads(result.stdout)
    return Path(row["folder"]), result.stderr


def embedding(*arguments: object) -> tuple[np.ndarray, dict[str, Any], str]:
    result = run("run", *arguments, *(RUN_IMAGE if str(arguments[0]).endswith(".npz") else RUN))
    figures = json.loads(result.stdout)
    return np.array(figures["embedding"]), figures, result.stderr


def test_a_pruned_checkpoint_brings_its_table(tmp_path: Path) -> None:
    dense = make_checkpoint(tmp_path / "dense")
    folder, _ = pruned(dense, tmp_path / "out")
    table = folder / "nm.json"
    own, figures, said = embedding("--model", folder)
    assert str(table) in said and figures["compared_with"] == str(dense) and "cosine_with_dense_fp32" in figures
    named, _, said = embedding("--model", folder, "--nm-table", table)
    assert np.array_equal(own, named) and not said
    loose, _, said = embedding("--model", folder, "--nm", "8:16")  # loses nothing
    assert np.array_equal(own, loose) and "no weight is lost" in said
    for wrong in (("--nm", "2:16"), ("--nm", "2:4"), ("--nm-table", tmp_path / "other.json")):
        (tmp_path / "other.json").write_text('{"0.output.dense": "1:16"}')
        for command in (("run", *RUN), ("compile", "--preset", "ci", "-o", tmp_path / "no.npz")):
            refused = run(command[0], "--model", folder, *wrong, *command[1:], status=2)
            assert "would prune" in refused.stderr and str(table) in refused.stderr
    # The same after an import.
    run("import", folder, "-o", tmp_path / "imported", "--json")
    imported, figures, said = embedding("--model", tmp_path / "imported")
    assert np.array_equal(own, imported) and "nm.json" in said and figures["compared_with"] == str(dense)
    # A dense model in its place does not keep the table.
    assert "is deleted" in run("import", dense, "-o", tmp_path / "imported", "--json").stderr
    assert not (tmp_path / "imported" / "nm.json").exists()
    # Pruned once more, on purpose: compared with what it was pruned from, which is said.
    twice, said = pruned(folder, tmp_path / "out", nm="2:16")
    assert "pruned already" in said
    assert "cosine_with_pruned_fp32" in embedding("--model", twice)[1]
    # The dense model is another one now.
    make_checkpoint(dense, 5)
    again, figures, said = embedding("--model", folder)
    assert np.array_equal(own, again) and "cosine_with_dense_fp32" not in figures
    assert figures["compared_with"] == str(folder) and figures["cosine_with_pruned_fp32"] > 0.9
    assert "not there as it was" in said
    refused = run("evaluate", folder, "--preset", "small", "--tokens", 4, "--picture", tmp_path / "p.png", status=2)
    assert "has other weights than when" in refused.stderr
    (folder / "pruned.json").write_text('{"settings": {}, "measured": {}}')
    again, figures, said = embedding("--model", folder)
    assert "older version" in said and "cosine_with_pruned_fp32" in figures
    for text in ("{", "[]", '{"0.output.dense": "3:5"}', '{"0.output.dense": 4}', '{"9.output.dense": "2:4"}'):
        table.write_text(text)
        assert "nm.json" in run("run", "--model", folder, *RUN, status=2).stderr


def test_images_run_with_their_own_checkpoint(tmp_path: Path) -> None:
    first, second = make_checkpoint(tmp_path / "first"), make_checkpoint(tmp_path / "second", 1)
    third = make_checkpoint(tmp_path / "third", words=[WORDS[0], *WORDS[:0:-1]])
    image = tmp_path / "image.npz"
    run("compile", "--model", first, "--text", TEXT, "--preset", "ci", "-o", image, "--json")
    assert embedding(image, "--model", first)[1]["compared_with"] == str(first)
    for other, what in ((second, "other weights ("), (third, "other tokenizer (")):
        refused = run("run", image, "--model", other, *RUN_IMAGE, status=2).stderr
        assert str(first) in refused and str(other) in refused and what in refused
    assert str(first) in run("run", image, *RUN_IMAGE, status=2).stderr  # all-MiniLM-L6-v2
    assert "--nm is not used" in run("run", image, "--nm", "2:4", "--model", first, *RUN_IMAGE, status=2).stderr
    moved = tmp_path / "moved"
    shutil.move(first, moved)
    assert embedding(image, "--model", moved)[1]["compared_with"] == str(moved)  # the content counts
    compiled = CompiledModel.load(image)
    broken = compiled.image.copy()
    broken[0] ^= 1
    with np.load(image) as file:
        parts = dict(file)
    np.savez_compressed(image, **parts | {"image": broken})
    for command in ("run", "report", "trace"):
        output = () if command == "run" else ("-o", tmp_path / "out.x")
        refused = run(command, image, "--model", moved, "--text", TEXT, *output, status=2)
        assert "checksum" in refused.stderr and not (tmp_path / "out.x").exists()


def test_prune_knows_what_it_made(tmp_path: Path) -> None:
    model, output = make_checkpoint(tmp_path / "a" / "model"), tmp_path / "out"
    folder, said = pruned(model, output)
    assert not said
    assert "is there already" in pruned(model, output)[1]
    whole = {p.name: p.read_bytes() for p in folder.iterdir()}
    (done,) = (output / ".states").glob("*/done.json")
    noted = done.read_text()

    def made_again() -> str:
        again, said = pruned(model, output)
        assert again == folder and "is made again" in said and "Traceback" not in said
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == whole
        return said

    for text in (None, "", "{", "[]", "{}", '{"key": 1, "folders": 2}', noted.replace('"key": "', '"key": "0')):
        done.unlink()
        if text is not None:
            done.write_text(text)
        made_again()
        assert done.read_text() == noted
    for name, data in whole.items():
        damages = (data[:-40] + bytes([data[-40] ^ 1]) + data[-39:], None, data[: len(data) // 2])
        for damage in damages if name == "pruned.json" else damages[:1]:
            (folder / name).unlink()
            if damage is not None:
                (folder / name).write_bytes(damage)
            made_again()
    shutil.rmtree(folder)
    made_again()
    # Another model of the same name has its own folder; other settings too.
    other, said = pruned(make_checkpoint(tmp_path / "b" / "model", 1), output)
    assert other != folder and not said and {p.name: p.read_bytes() for p in folder.iterdir()} == whole
    assert pruned(model, output, "--seed", 1)[0] != folder
    assert pruned(model, output, "--steps", 1, "--rate", 1e-3)[0] != folder
    # The model's content counts: weights, then the tokenizer, then what is copied beside them.
    make_checkpoint(model, 7)
    again, said = pruned(model, output)
    name = "encoder.layer.0.output.dense.weight"
    found, wanted = (load_network(f).graph.tensors[name] for f in (again, model))
    assert again == folder and "are not those it was made with" in said
    assert np.array_equal(found[found != 0], wanted[found != 0])
    make_checkpoint(model, 7, [WORDS[0], *WORDS[:0:-1]])
    assert "are not those it was made with" in pruned(model, output)[1]
    about = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(about | {"id2label": {"0": "odd", "1": "even"}}))
    assert "are not those it was made with" in pruned(model, output)[1]
    assert "is there already" in pruned(model, output)[1]


def test_what_a_pass_gives(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    common = ("compile", "--model", model, "--preset", "ci", "--tokens", 4, "--no-raw", "-o", tmp_path / "m.npz")
    text = run(*common, "--nm", "2:4", "--dump-after", "quantize").stdout
    assert "0.output.dense (tokens, 32) = integerlinear 0.activated" in text and "pattern=2:4" in text
    found = json.loads(run(*common, "--nm", "dense", "--dump-after", "lower", "--json").stdout)
    assert "buffer stream0 32 x 16 bits: embedded, 0.sum1, 0.sum2" in found["dump"]
    refused = run(*common, "--dump-after", "link", status=2).stderr
    assert "'link' is unknown; it is one of prune, calibrate, quantize, lower, schedule" in refused


def test_evaluate_measures_what_is_there(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    folder, _ = pruned(model, tmp_path / "out")

    def evaluated(status: int = 0) -> Any:
        arguments = ("--preset", "small", "--tokens", 4, "--picture", tmp_path / "p.png", "--json")
        result = run("evaluate", folder, *arguments, status=status)
        return json.loads(result.stdout)[0] if not status else result.stderr

    first = evaluated()
    assert first == evaluated() and first["compared_with"] == "model"
    network = load_network(folder)
    name = "encoder.layer.0.output.dense.weight"
    files = network.files(network.graph.with_tensors({name: -network.graph.tensors[name]}))
    assert isinstance(files["model.safetensors"], bytes)
    (folder / "model.safetensors").write_bytes(files["model.safetensors"])
    second = evaluated()
    assert second["fp32"] != first["fp32"] and second["int8"] != first["int8"]
    described = json.loads((folder / "pruned.json").read_text())
    for key, value in (("settings", []), ("measured", {"fp32": 1}), ("source", {}), ("key", None)):
        (folder / "pruned.json").write_text(json.dumps(described | {key: value}))
        assert "holds no pruned network" in evaluated(2)
    old = {k: described[k] for k in ("settings", "measured")}
    (folder / "pruned.json").write_text(json.dumps(old))
    assert "older version" in evaluated(2)


def test_no_output_takes_anothers_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = make_checkpoint(tmp_path / "model")
    (tmp_path / "table.json").write_text("{}")
    (tmp_path / "hardware.json").write_text(json.dumps({"configuration": PRESETS["ci"].as_dict()}))
    (tmp_path / "link.txt").symlink_to(tmp_path / "model" / "tokenizer.json")
    folder, _ = pruned(model, tmp_path / "out")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for arguments in (
        ("compile", "--model", model, "--listing", "-o", "x.txt"),
        ("compile", "--model", model, "-o", "model/model.safetensors"),
        ("compile", "--model", model, "-o", "model/../model/tokenizer.json"),
        ("compile", "--model", model, "-o", "link.txt"),
        ("compile", "--model", model, "--listing", "-o", "link.npz"),
        ("compile", "--model", model, "--nm-table", "table.json", "-o", "table.json"),
        ("report", "--model", model, "-o", "x.json"),
        ("report", "--model", model, "-o", "model/config.html"),
        ("report", "--model", model, "--nm-table", "table.json", "-o", "table.html"),
        ("report", "--model", model, "--preset", "hardware.json", "-o", "hardware.html"),
        ("trace", "--model", model, "-o", "model/config.json"),
        ("import", model, "-o", model),
        ("import", model, "--tokenizer", "model/tokenizer.json", "-o", "model"),
    ):
        refused = run(*arguments, status=2).stderr
        assert "same file" in refused or "written twice" in refused, arguments
    assert "is no picture" in run("evaluate", folder, "--picture", folder / "model.safetensors", status=2).stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file grows beyond so many bytes: as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    model, place = make_checkpoint(tmp_path / "model"), tmp_path / "place"
    place.mkdir()
    folder, _ = pruned(model, place / "pruned")
    for name in ("image.npz", "image.txt", "picture.png"):
        (place / name).write_text("before")
    run("import", model, "-o", place / "imported", "--json")
    before = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    make_checkpoint(model, 3)
    for arguments in (
        ("compile", "--model", model, "--preset", "ci", "--listing", "-o", place / "image.npz"),
        ("import", model, "-o", place / "imported"),
        ("prune", "--method", "magnitude", "--nm", "4:16", "--calibration", 4, "--model", model, "-o", folder.parent),
    ):
        with small_files(1000):
            failed = run(*arguments, status=3).stderr
        last = failed.strip().splitlines()[-1]
        assert "cannot be written" in last and "as it was" in last, failed
        assert {p: p.read_bytes() for p in place.rglob("*") if p.is_file()} == before


def test_a_damaged_state_is_made_again(tmp_path: Path) -> None:
    model, output = make_checkpoint(tmp_path / "model"), tmp_path / "out"
    folder, _ = pruned(model, output, "--steps", 1)
    weights = (folder / "model.safetensors").read_bytes()
    (state,) = (output / ".states").glob("*/*/tuning.safetensors")
    for damage in (b"", state.read_bytes()[:-3], b"\x80\x04K*."):  # the last is a pickle
        state.write_bytes(damage)
        (folder / "pruned.json").unlink()
        again, said = pruned(model, output, "--steps", 1)
        assert again == folder and "is made again" in said
        assert (folder / "model.safetensors").read_bytes() == weights

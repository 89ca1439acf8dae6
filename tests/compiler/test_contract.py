"""The image's contract: a program of one's own, with the raw image and its JSON alone, gets what the reference gets."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli_sparsity import run
from test_golden import small_encoder
from test_provenance import make_checkpoint

from sta_hw.compiler.contract import INPUTS_HEADER_BYTES, Host, inputs_file, raw_files
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.image import norm_words, parameter_words
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.parameters import NormParameters
from sta_hw.compiler.shorter import shortened
from sta_hw.errors import InputError
from sta_hw.generate.generator import generate
from sta_hw.reference.program import run_program
from sta_hw.spec.c_header import c_prefix
from sta_hw.spec.isa import Opcode, program_bytes
from sta_hw.spec.parameters import COLUMN, NORM_COLUMN, SHORT_COLUMN
from sta_hw.spec.presets import PRESETS

ROOT = Path(__file__).parents[2]
TEXT = "the hardware is for that and this"
STRANGER = '''
"""Somebody's program, who has the image, its JSON, and hardware: it knows nothing of the compiler."""
import json, sys
import numpy as np
from sim.accelerator import AcceleratorModel
from sta_hw.spec.config import Config

folder, name = sys.argv[1:3]
about = json.load(open(f"{folder}/{name}.json"))
image = np.fromfile(f"{folder}/{about['image']['file']}", np.uint8)
assert len(image) == about["image"]["bytes"]

def place(tensor, line, channel):
    s = tensor["strides"]
    tile, row = divmod(line, tensor["rows"])
    return tensor["offset"] + tile * s["tile"] + channel * s["column"] + row * s["row"]

values = np.load(f"{folder}/values.npy")  # of all texts' tokens
given, before = about["input"], 0
for text, stop in zip(about["texts"], [*(t["first"] for t in about["texts"][1:]), given["lines"]], strict=True):
    for line in range(text["first"], stop):
        token = before + min(line - text["first"], text["tokens"] - 1)
        for channel in range(given["channels"]):
            at = place(given, line, channel)
            image[at : at + 2] = np.array([values[token, channel]], "<i2").view(np.uint8)
    before += text["tokens"]
parameters = {k: tuple(v) if isinstance(v, list) else v for k, v in about["hardware"]["configuration"].items()}
hardware = AcceleratorModel(Config(**parameters))
for register in ("id", "version", "hash_low", "hash_high", "shape", "memories"):
    assert hardware.read(register) == about["hardware"][register], register
base = 3 * about["image"]["alignment"]
length = about["texts"][0]["tokens"] if len(about["texts"]) == 1 else 0
after = hardware.run(image, about["program"]["offset"], base=base, length=length).image

def read(tensor, line, channel):
    at = place(tensor, line, channel)
    return int(after[at : at + 2].view("<i2")[0])

pooled = [[read(about["pooled"], t, c) for c in range(about["pooled"]["channels"])] for t in range(len(about["texts"]))]
tokens = [t["first"] + i for t in about["texts"] for i in range(t["tokens"])]
outputs = [[read(about["outputs"], t, c) for c in range(about["outputs"]["channels"])] for t in tokens]
wrong = [m for m in sys.modules if m.startswith(("sta_hw.compiler", "sta_hw.model", "sta_hw.reference"))]
assert not wrong, wrong
json.dump({"pooled": pooled, "outputs": outputs}, open(f"{folder}/found.json", "w"))
'''


def stranger(folder: Path, name: str, values: np.ndarray) -> dict[str, Any]:
    """What a program in a process of its own gets."""
    np.save(folder / "values.npy", values)
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(folder), name], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("lengths", [(7,), (3, 6, 1, 4, 2)], ids=["a text", "a batch"])
def test_a_strangers_program_runs_the_image(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    """On RTL, and byte for byte what the reference gives, which has the compiler's own idea of where things are."""
    model = compile_encoder(small_encoder(), PRESETS["ci"], lengths)  # tiles that are not full; more texts than rows
    for path, content in raw_files(model, tmp_path / "small.npz").items():
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    values = np.arange(8 * sum(lengths)).reshape(-1, 8) * 4321 % 30000 - 15000
    found = stranger(tmp_path, "small", values)
    texts = np.split(values.astype(np.float32), np.cumsum(lengths)[:-1])
    image = run_program(model.with_input(texts), model.program_address, model.config, length=model.length)
    about = json.loads((tmp_path / "small.json").read_text())
    pooled = np.array(found["pooled"]) * np.array(about["pooled"]["scales"])[:, None]
    expected = np.array([model.pooled(image, t) for t in range(len(lengths))])
    assert np.allclose(pooled, expected, rtol=1e-12, atol=0)
    outputs = np.array(found["outputs"]) * about["outputs"]["scale"]
    expected = np.concatenate([model.outputs(image, t) for t in range(len(lengths))])
    assert np.allclose(outputs, expected, rtol=1e-12, atol=0)
    assert np.abs(outputs).max() > 1


def numbers(header: str, prefix: str) -> dict[str, int]:
    found = re.findall(rf"^#define {prefix}_(\w+) (0x[0-9A-F]+|\d+)u ", header, re.M)
    return {name: int(value, 0) for name, value in found}


def test_what_compile_writes(tmp_path: Path) -> None:
    """The raw image is the archive's; JSON and header say the same of it; the inputs' file is what a run has there."""
    checkpoint = make_checkpoint(tmp_path / "model")
    file = tmp_path / "my-model.npz"
    said = json.loads(
        run("compile", "--model", checkpoint, "--text", TEXT, "--preset", "ci", "-o", file, "--json").stdout
    )
    paths = [file.with_suffix(s) for s in (".bin", ".json", ".h")]
    assert said["raw"] == list(map(str, paths)) and all(p.exists() for p in paths)
    model = CompiledModel.load(file)
    image, about, header = paths[0].read_bytes(), json.loads(paths[1].read_text()), paths[2].read_text()
    assert image == model.image.tobytes()
    assert about["image"] == {
        "file": "my-model.bin", "bytes": len(image), "sha256": hashlib.sha256(image).hexdigest(),
        "crc32": zlib.crc32(image), "alignment": model.config.burst * model.config.bus_bytes,
    }  # fmt: skip
    macros = numbers(header, "MY_MODEL")
    assert macros["IMAGE_BYTES"] == len(image) and macros["IMAGE_CRC32"] == zlib.crc32(image)
    assert macros["HASH_LOW"] | macros["HASH_HIGH"] << 32 == macros["HASH"] == int(about["hardware"]["hash"], 16)
    assert macros["PROGRAM_OFFSET"] == about["program"]["offset"] == model.program_address
    for key in ("input", "pooled", "outputs"):
        for part in ("offset", "bytes", "lines", "channels", "rows"):
            assert macros[f"{key}_{part}".upper()] == about[key][part], (key, part)
    assert image[macros["PROGRAM_OFFSET"] :][:4] == b"STAH"
    at = macros["PROGRAM_OFFSET"] + macros["PROGRAM_HASH_OFFSET"]
    assert int.from_bytes(image[at : at + 8], "little") == macros["HASH"]
    assert about["provenance"]["source"]["weights"] == model.provenance.source.weights
    # Whose half is what.
    host = about["host"]
    assert any("embed" in line for line in host["before"]) and host["after"][-1].startswith("embedding")
    assert host["takes"] == "pooled" and host["result"] == "embedding"
    # Every byte belongs to something that has a name.
    end = 0
    for place in about["places"]:
        assert place["name"] and place["offset"] >= end, place
        assert place["offset"] - end < about["image"]["alignment"]
        assert not any(image[end : place["offset"]])
        end = place["offset"] + place["bytes"]
    assert len(image) - end < about["image"]["alignment"]
    names = " ".join(p["name"] for p in about["places"])
    for word in ("values", "positions", "parameters", "LayerNorm", "table", "buffer norm0.8", "pooling", "program"):
        assert word in names, word
    # Inputs.
    sentences = tmp_path / "sentences.txt"
    sentences.write_text(f"{TEXT}\n{TEXT}\n")
    run("input", file, "--model", checkpoint, "--texts", sentences, "--text", TEXT, "-o", tmp_path / "in")
    words = np.frombuffer((tmp_path / "in").read_bytes(), "<u4")
    size = about["input"]["bytes"]
    assert list(words[:8]) == [0x49415453, 2, 3, size, zlib.crc32(image), 0, 0, 0]
    parts = (tmp_path / "in").read_bytes()[32:]
    runs = [parts[i : i + size + 4] for i in range(0, len(parts), size + 4)]
    assert len(parts) == 3 * (size + 4) and runs[0] == runs[1] == runs[2] and any(parts[4:])
    assert parts[:4] == np.uint32(model.tokens).tobytes()
    # A shorter text: its length, and its tokens where `shortened` has them.
    run("input", file, "--model", checkpoint, "--text", "the", "-o", tmp_path / "short")
    short = (tmp_path / "short").read_bytes()[32:]
    assert 0 < int.from_bytes(short[:4], "little") < model.tokens and len(short) == size + 4 and any(short[4:])
    # No files beside where none are wanted.
    (tmp_path / "other").mkdir()
    run("compile", "--model", checkpoint, "--text", TEXT, "--preset", "ci", "--no-raw", "-o", tmp_path / "other" / "m")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["m"]


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("m.bin", (), "the raw image"), ("m.json", (), "the image's JSON"), ("m.h", (), "the image's C header"),
        ("m.txt", ("--listing",), "the listing"), ("_.npz", (), "letter or digit"),
        ("table.npz", (), "where another file is"),
        ("table.npz", ("--nm-table", "table.json"), "--nm-table"),
        ("model/config.npz", (), "--model"),
    ],
)  # fmt: skip
def test_no_output_is_over_another_or_an_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_checkpoint(tmp_path / "model")
    (tmp_path / "table.json").write_text('{"0.output.dense": "2:4"}')
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    refused = run("compile", "--model", "model", "--text", TEXT, "--preset", "ci", "-o", name, *options, status=2)
    assert words in refused.stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_inputs_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_checkpoint(tmp_path / "model")
    make_checkpoint(tmp_path / "other", 1)
    run("compile", "--model", "model", "--text", TEXT, "--preset", "ci", "-o", "m.npz")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    for arguments, words in (
        ((), "there is nothing to write"), (("--text", f"{TEXT} {TEXT}"), "up to "),
        (("--text", " "), "the text is empty"),
        (("--texts", "none.txt"), "none.txt"), (("--texts", "empty.txt"), "line 1: it is empty"),
        (("--texts", "bytes.txt"), "not text in UTF-8"), (("--texts", "model"), "Is a directory"),
        (("--text", TEXT, "-o", "m.npz"), "the same file as FILE"),
        (("--text", TEXT, "--model", "other"), "has other weights"),
        (("--input", "x.npy", "--text", TEXT), "--text is not used"), (("--input", "x.npy"), "takes texts"),
    ):  # fmt: skip
        model = () if "--model" in arguments else ("--model", "model")
        assert words in run("input", "m.npz", *model, *arguments, status=2).stderr, arguments
    assert not (tmp_path / "m.inputs").exists()
    with pytest.raises(InputError, match="no input"):
        inputs_file(CompiledModel.load(tmp_path / "m.npz"), [])


def table(*heading: str) -> list[list[str]]:
    """The rows of the table of docs/image.md that begins with a heading."""
    text = (ROOT / "docs" / "image.md").read_text()
    (found,) = re.findall(rf"^\| {re.escape(' | '.join(heading))} \|\n\|[-|]+\n((?:\|.*\n)+)", text, re.M)
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in found.splitlines()]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def leaves(value: Any, path: str = "") -> set[str]:
    """Where the values of JSON are, ``a.b``; what a reader takes as a whole, as one."""
    if path in ("hardware.configuration", "provenance"):
        return {path}
    if isinstance(value, dict):
        return {leaf for k, v in value.items() for leaf in leaves(v, f"{path}.{k}".strip("."))}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {leaf for v in value for leaf in leaves(v, path)}
    return {path}


def test_the_document_has_every_field_and_macro() -> None:
    model = compile_encoder(small_encoder(), PRESETS["ci"], 3)
    host = Host(["a"], ["b"], "pooled", "embedding")
    _, description, header = raw_files(model, Path("small.npz"), host).values()
    assert leaves(json.loads(description)) == {f for row in table("field", "what") for f in quoted(row[0])}
    macros = set(re.findall(r"^#define SMALL_(\w+)", str(header), re.M)) - {"IMAGE_H"}
    assert macros == {m for row in table("macro", "what") for m in quoted(row[0])}
    words = np.frombuffer(inputs_file(model, [np.ones((3, 8), np.float32)])[:32], "<u4")
    rows = table("offset", "word", "what")
    assert [int(offset) for offset, *_ in rows] == [0, 4, 8, 12, 16, 20] and not words[5:].any()
    assert words[0] == int(rows[0][2].split(",")[0], 0) and words[1] == int(rows[1][2])
    pieces = " ".join(row[0] for row in table("piece", "what"))
    for place in model.info.places:
        kind = place[0].rpartition(": ")[2]
        assert all(word in pieces for word in kind.removesuffix(" unused").split()) or kind == "unused", place


@pytest.mark.parametrize("fill", [0, 1, -1])
def test_the_documents_records(fill: int) -> None:
    """Parameters, taken apart by the document's tables, are what was put together."""
    columns, rng = 50, np.random.default_rng(fill + 1)

    def values(bits: int, signed: bool) -> np.ndarray:
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        return rng.integers(low, high + 1, columns) if not fill else np.full(columns, high if fill > 0 else low)

    def taken_apart(words: bytes, rows: list[list[str]], size: int) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {row[0]: [] for row in rows}
        assert len(words) == size * columns
        for i in range(columns):
            word = int.from_bytes(words[size * i : size * (i + 1)], "little")
            for name, first, bits, signed, _ in rows:
                value = word >> int(first) & ((1 << int(bits)) - 1)
                found[name].append(value - (1 << int(bits)) if signed == "yes" and value >> int(bits) - 1 else value)
                word &= ~(((1 << int(bits)) - 1) << int(first))
            assert word == 0
        return found

    text = (ROOT / "docs" / "image.md").read_text()
    parts = re.findall(r"^\| parameter \| first bit \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M)
    linear, short, norm = ([[c.strip() for c in line.strip("|").split("|")] for line in p.splitlines()] for p in parts)
    for rows, record in ((linear, COLUMN), (short, SHORT_COLUMN), (norm, NORM_COLUMN)):
        placed = record.places.items()
        fields = [[n, str(at), str(f.width), "yes" if f.signed else "no", f.text] for n, (at, f) in placed]
        assert rows == fields
    for rows, record, size in ((linear, COLUMN, 16), (short, SHORT_COLUMN, 8)):
        given = {row[0]: values(int(row[2]), row[3] == "yes") for row in rows}
        words = parameter_words(given["bias"], given["multiplier"], given["shift"], given["second"], record)
        assert taken_apart(words.tobytes(), rows, size) == {k: v.tolist() for k, v in given.items()}
    given = {row[0]: values(int(row[2]), row[3] == "yes") for row in norm}
    packed = norm_words(NormParameters(given["scale"], given["shift"], given["multiplier"]))
    assert taken_apart(packed.astype("<u8").tobytes(), norm, 8) == {k: v.tolist() for k, v in given.items()}


@pytest.mark.parametrize(
    "lengths, loops, right",
    [((70,), False, True), ((70,), True, True), ((3, 2), True, False)],
    ids=["a flat program", "a text", "a batch"],
)
def test_which_images_take_shorter_texts(lengths: tuple[int, ...], loops: bool, right: bool) -> None:
    """JSON and header say what `shortened` does."""
    model = compile_encoder(small_encoder(), PRESETS["ci"], lengths, loops=loops)
    assert any(i.opcode == Opcode.LOOP for i in model.instructions) == loops or not right
    _, description, header = raw_files(model, Path("small.npz")).values()
    about = json.loads(description)
    assert about["program"] == {
        "offset": model.program_address, "bytes": program_bytes(model.instructions),
        "instructions": len(model.instructions), "shorter_texts": right,
    }  # fmt: skip
    assert numbers(str(header), "SMALL")["SHORTER_TEXTS"] == right
    if right:
        assert shortened(model, 2).tokens == 2
    else:
        with pytest.raises(InputError, match="batch"):
            shortened(model, 2)


def test_the_size_of_an_inputs_header() -> None:
    model = compile_encoder(small_encoder(), PRESETS["ci"], 3)
    given = np.zeros((3, model.info.input_width), np.float32)
    size = len(inputs_file(model, [given, given])) - INPUTS_HEADER_BYTES
    assert size == 2 * (4 + 2 * model.packing.tiles * model.config.rows * model.info.input_width)


def test_windows_of_a_mean() -> None:
    """A byte a token, in whole windows; zeros for a program that has no mean."""
    model = compile_encoder(small_encoder(), PRESETS["ci"], 3)
    assert model.info.mean_windows is not None
    offset, depth, blocks = model.info.mean_windows
    size = blocks * model.config.groups * depth * model.config.rows
    without = replace(model, info=replace(model.info, mean_windows=None))
    for one, wanted in ((model, (offset, size, depth)), (without, (0, 0, 0))):
        _, description, header = raw_files(one, Path("small.npz")).values()
        macros = numbers(str(header), "SMALL")
        assert tuple(json.loads(description)["mean"].values()) == wanted
        assert (macros["MEAN_OFFSET"], macros["MEAN_BYTES"], macros["MEAN_DEPTH"]) == wanted


def test_prefixes() -> None:
    assert [c_prefix(n) for n in ("minilm", "my-acc.v2", "4of16", "ünï")] == ["MINILM", "MY_ACC_V2", "_4OF16", "N"]
    for name, why in (
        ("math", "which it would hide"), ("STDINT", "choose another name: my_STDINT"), ("sta_hw", "begins as"),
        ("--", "no letter or digit"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=why):
            c_prefix(name)
    with pytest.raises(InputError, match=r"math\.h is a header of C's library"):
        generate("accelerator", PRESETS["ci"], Path("nowhere"), name="math")  # before anything is made

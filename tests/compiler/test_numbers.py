"""Models with numbers that break integers: the answer is right, or a sentence names tensor, place, value, limit."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from extreme_models import CONFIG, IDS, LAYER, Change, both, changed, make, outcome, put, right_or_refused, scaled
from support import embed, save_bert

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.integers import IntegerAttention, IntegerLinear, IntegerNorm, linear_of
from sta_hw.compiler.prune import prune_model
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import InputError
from sta_hw.host.saturation import saturation_sentences
from sta_hw.model.arrays import read_arrays
from sta_hw.model.families import load_network
from sta_hw.model.fp32 import evaluate
from sta_hw.model.graph import Graph
from sta_hw.model.operations import Input, Operation
from sta_hw.model.part import accelerator_part
from sta_hw.model.random import random_ids, random_model
from sta_hw.run.backends import ReferenceBackend, RtlBackend
from sta_hw.run.outcome import compare
from sta_hw.sparsity.digits import new_vision_graph
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import Pattern
from sta_hw.spec.presets import PRESETS
from sta_hw.spec.registers import SATURATIONS

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
LINEAR = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
          "intermediate.dense", "output.dense")  # fmt: skip
NORMS = ("attention.output.LayerNorm", "output.LayerNorm", "embeddings.LayerNorm")

RIGHT: dict[str, Change] = {
    **{f"row of zeros, {n}": put(f"{n}.weight", 0, 0) for n in LINEAR},
    **{f"rows of zeros with bias 2, {n}": both(put(f"{n}.weight", 0, slice(8)), put(f"{n}.bias", 2, slice(8)))
       for n in LINEAR},
    **{f"column of zeros, {n}": put(f"{n}.weight", 0, (slice(None), 3)) for n in LINEAR},
    **{f"weights of zero, {n}": put(f"{n}.weight", 0) for n in LINEAR},
    **{f"tiny weights, {n}": scaled(f"{n}.weight", 1e-30) for n in LINEAR},
    **{f"a tiny row, {n}": scaled(f"{n}.weight", 1e-30, 0) for n in LINEAR},
    **{f"a column times 100, {n}": scaled(f"{n}.weight", 1e2, (slice(None), 5)) for n in LINEAR},
    **{f"constant channels, {n}": put(f"{n}.weight", 0, slice(0, None, 2)) for n in NORMS},
    **{f"a channel always zero, {n}": both(put(f"{n}.weight", 0, 4), put(f"{n}.bias", 0, 4)) for n in NORMS[:2]},
    **{f"bias of 10000 in all channels, {n}": put(f"{n}.bias", 1e4) for n in LINEAR},
    **{f"dead head, {n}": both(put(f"{n}.weight", 0, slice(16)), put(f"{n}.bias", 0, slice(16))) for n in LINEAR[:3]},
    "head of values of zero, a channel of zeros behind": both(
        put("attention.self.value.weight", 0, slice(16)), put("attention.self.value.bias", 0, slice(16)),
        put("attention.output.dense.weight", 0, 7), put("attention.output.dense.bias", 0, 7),
    ),
    "query times 1e12, key times 1e-12": both(
        *(scaled(f"attention.self.query.{p}", 1e12) for p in ("weight", "bias")),
        *(scaled(f"attention.self.key.{p}", 1e-12) for p in ("weight", "bias")),
    ),
    "one channel of queries times 1e10, of keys times 1e-10": both(
        *(scaled(f"attention.self.query.{p}", 1e10, 3) for p in ("weight", "bias")),
        *(scaled(f"attention.self.key.{p}", 1e-10, 3) for p in ("weight", "bias")),
    ),
    "one head of queries times 1e6, of keys times 1e-6": both(
        *(scaled(f"attention.self.query.{p}", 1e6, slice(16)) for p in ("weight", "bias")),
        *(scaled(f"attention.self.key.{p}", 1e-6, slice(16)) for p in ("weight", "bias")),
    ),
    "values of a channel nothing reads, times 1e8": both(
        scaled("attention.self.value.weight", 1e8, 3), put("attention.output.dense.weight", 0, (slice(None), 3))
    ),
    "a neuron nothing reads, times 1e8": both(
        scaled("intermediate.dense.weight", 1e8, 3), put("output.dense.weight", 0, (slice(None), 3))
    ),
    "a neuron times 1e4, read with 1e-4": both(
        *(scaled(f"intermediate.dense.{p}", 1e4, 3) for p in ("weight", "bias")),
        scaled("output.dense.weight", 1e-4, (slice(None), 3)),
    ),
    "embeddings of one word times 1e9": scaled("embeddings.word_embeddings.weight", 1e9, IDS[0]),
    "embeddings times 1e-3": both(
        *(scaled(f"embeddings.{n}_embeddings.weight", 1e-3) for n in ("word", "position", "token_type"))
    ),
    "a word without embedding": both(
        put("embeddings.word_embeddings.weight", 0, IDS[2]), put("embeddings.position_embeddings.weight", 0, 2),
        put("embeddings.token_type_embeddings.weight", 0),
    ),
    "keys' bias of 1e4 in one channel": put("attention.self.key.bias", 1e4, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("norm_first", [False, True])
def test_right(name: str, norm_first: bool) -> None:
    if norm_first and "embedd" in name:
        pytest.skip("the sum of embeddings is the residual stream there, and has one scale")
    assert not right_or_refused(changed(make(norm_first=norm_first), RIGHT[name]))


REFUSED: dict[str, tuple[Change, str]] = {
    **{f"{v} in {n}": (put(f"{n}.weight", v, (3, 5)), rf"{n}.weight, row 3, column 5, is {v}")
       for n in LINEAR for v in (np.nan, np.inf)},
    **{f"{v} in {n}": (put(f"{n}.bias", v, 3), rf"{n}.bias, channel 3, is {v}")
       for n in NORMS for v in (np.nan, -np.inf)},
    **{f"all times 1e30, {n}": (scaled(f"{n}.weight", 1e30), rf"fp32.*{n}.weight, row \d+, column \d+: .*e\+(29|30)")
       for n in LINEAR[2:]},
    "an embedding of NaN": (
        put("embeddings.word_embeddings.weight", np.nan, (49, 1)), "word_embeddings.weight, row 49, column 1, is nan"
    ),
    "embeddings of 1e30": (scaled("embeddings.word_embeddings.weight", 1e30), "word_embeddings.weight, row"),
    "embeddings of 1e-12": (
        both(*(scaled(f"embeddings.{n}_embeddings.weight", 1e-12) for n in ("word", "position", "token_type"))),
        "variance .* epsilon",
    ),
    "a neuron that only some tokens reach, times 1e7": (
        scaled("intermediate.dense.weight", 1e7, 3), "16 bits hold both up to a ratio of .* row 3"
    ),
    "no output": (
        both(put("encoder.layer.1.output.LayerNorm.weight", 0), put("encoder.layer.1.output.LayerNorm.bias", 0)),
        "output is zero",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    change, sentence = REFUSED[name]
    with pytest.raises(InputError, match=sentence):
        outcome(changed(make(), change))


@pytest.mark.parametrize("seed", [*range(24), 1021, 1040, 1248, 1275, 1294, 2123])
def test_any_of_them_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = make(seed, norm_first=bool(rng.integers(2)), activation=["gelu", "relu"][rng.integers(2)])
    for _ in range(int(rng.integers(1, 3))):
        model = changed(model, RIGHT[str(rng.choice([n for n in RIGHT if "times" not in n]))])
    name = str(rng.choice([n for n in model.tensors if n.startswith("encoder")]))
    right_or_refused(changed(model, scaled(name, 10.0 ** rng.integers(-30, 3), int(rng.integers(16)))))


def with_scores(sigma: float, query: float, seed: int = 0) -> Graph:
    """A model whose scores in the first head of its first layer have about this deviation."""
    prefix = LAYER + "attention.self."

    def one_sided(t: dict[str, np.ndarray]) -> None:
        t[prefix + "query.weight"] *= 1e-3
        t[prefix + "query.bias"][:] = query
        t[prefix + "key.bias"][:] = 0

    model = changed(random_model(seed), one_sided)
    at = evaluate(model, {"ids": IDS}, until="0.context")
    q, k = (at[f"0.attention.self.{n}"].reshape(len(IDS), 2, 16) for n in ("query", "key"))
    factor = sigma / np.std(np.einsum("thd,shd->hts", q, k)[:, 0] / 4)
    return changed(model, scaled("attention.self.key.weight", factor))


@pytest.mark.parametrize(
    ("sigma", "query", "coarse"),
    [(60, 10.0, 0), (100, 10.0, 0), (400, 10.0, 1), (800, 10.0, 1), (3000, 10.0, 1), (4e4, 400.0, 1), (1e8, 1e3, 1)],
)
def test_scores_of_any_size_on_rtl(sigma: float, query: float, coarse: int) -> None:
    model = with_scores(sigma, query)
    attention = quantize(model, [IDS]).by_name["0.context"]
    assert isinstance(attention, IntegerAttention) and attention.coarse.max() == coarse
    # Scores that large leave nearly all to one key: of other texts, whose best two are near, many are refused.
    assert outcome(model, rtl=True, others=0) >= 0.98


@pytest.mark.parametrize("seed", range(4))
def test_on_rtl(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = make(seed, norm_first=bool(seed % 2))
    for name in rng.choice([n for n in RIGHT if "times" not in n and "embedd" not in n], 2, replace=False):
        model = changed(model, RIGHT[str(name)])
    right_or_refused(model, rtl=True)


@pytest.mark.parametrize(
    "config", [pytest.param(CONFIG, id="ci"), pytest.param(PRESETS["small"], id="small", marks=pytest.mark.slow)]
)
def test_what_calibration_did_not_see_is_counted_alike(config: Config) -> None:
    model = make(3, norm_first=True)
    # Calibrated with small inputs, then run with large ones, which saturate everywhere.
    small = [0.05 * embed(model, random_ids(s, 24)) for s in range(4)]
    program = compile_encoder(quantize(model, small), config, 13)
    embedded = 5 * embed(model, random_ids(9, 13))
    reference = ReferenceBackend(config).run(program, embedded)
    hardware = RtlBackend(config).run(program, embedded)
    compare(program, hardware.image, reference.image)
    assert hardware.saturated == reference.saturated
    assert reference.saturated["saturated_inputs"] and reference.saturated["saturated_results"]
    assert len(saturation_sentences(reference.saturated)) == 1
    # And with texts like the calibration's, none but 8-bit results.
    calm = ReferenceBackend(config).run(program, small[0][:13]).saturated
    assert not saturation_sentences(calm) and calm["saturated_results"]


@pytest.mark.parametrize("tokens", [1, 9, 40])
def test_all_that_saturates_is_counted_alike(tokens: int) -> None:
    model = make(5)
    quantized = quantize(model, [random_ids(s, 24) for s in range(4)])
    # Everything is made to leave its range by hand.
    down, norm = linear_of(quantized, "0.output.dense"), quantized.by_name["0.normed"]
    attention = quantized.by_name["0.context"]
    assert isinstance(norm, IntegerNorm) and isinstance(attention, IntegerAttention)
    p = down.parameters
    grown: dict[str, Operation] = {
        down.name: IntegerLinear.of(down, dataclasses.replace(p, multiplier=np.full(32, 65535), shift=p.shift - 1)),
        norm.name: IntegerNorm.of(
            norm, dataclasses.replace(norm.parameters, scale=np.full(32, 131071), shift=np.full(32, 30000))
        ),
        attention.name: dataclasses.replace(
            attention, score_multiplier=np.full(2, 65535), score_shift=np.zeros(2, np.int64)
        ),
    }
    program = compile_encoder(quantized.replaced(grown), CONFIG, tokens)
    embedded = embed(model, random_ids(7, tokens))
    reference = ReferenceBackend(CONFIG).run(program, embedded)
    hardware = RtlBackend(CONFIG).run(program, embedded)
    compare(program, hardware.image, reference.image)
    assert hardware.saturated == reference.saturated
    assert all(reference.saturated[name] for name in SATURATIONS)
    assert len(saturation_sentences(reference.saturated)) == 3


def test_inputs() -> None:
    model = make()
    program = compile_encoder(quantize(model, [IDS]), CONFIG, 12)
    embedded = embed(model, IDS)
    found = ReferenceBackend(CONFIG).run(program, 1e6 * embedded)
    # Only a LayerNorm sees them: whatever their size.
    np.testing.assert_array_equal(found.image, ReferenceBackend(CONFIG).run(program, embedded).image)
    for value in (np.nan, np.inf):
        wrong = embedded.copy()
        wrong[4, 7] = value
        with pytest.raises(InputError, match=f"token 4, channel 7, is {value}"):
            program.with_input(wrong)
    with pytest.raises(InputError, match=r"word has rows 0 to 49, and row 50 is wanted"):
        embed(model, [0, 50])
    with pytest.raises(InputError, match="row -1 is wanted"):
        embed(model, [-1])
    with pytest.raises(InputError, match="position has rows 0 to 4095, and row 4096"):
        embed(model, [0] * 5000)
    with pytest.raises(InputError, match=r"calibration text 1: its sum of embeddings, token 0, channel 3, is nan"):
        quantize(model, [embedded, np.where(np.arange(32) == 3, np.nan, embedded)])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 50 words, whose tokenizer knows a 51st."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("model")
    save_bert(make(), folder)
    words = {f"w{i}": i for i in range(51)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from sta_hw.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["import", "compile", "run", "report", "prune"])
def test_commands_refuse_nan(name: str, checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(checkpoint, tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    tensors["encoder.layer.1.output.dense.weight"][7, 9] = np.nan
    save_file(tensors, file)
    options: dict[str, tuple[object, ...]] = {
        "import": (tmp_path / "m", "-o", tmp_path / "o"),
        "compile": ("--model", tmp_path / "m", "--preset", "ci", "--tokens", 4, "-o", tmp_path / "o.npz"),
        "run": ("--model", tmp_path / "m", "--preset", "ci", "--text", "w1 w2"),
        "report": ("--model", tmp_path / "m", "--preset", "ci", "--text", "w1 w2", "-o", tmp_path / "o.html"),
        "prune": ("--model", tmp_path / "m", "--steps", 1, "-o", tmp_path / "o"),
    }
    result = command(name, *options[name])
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert "encoder.layer.1.output.dense.weight, row 7, column 9, is nan" in result.stderr
    assert not list(tmp_path.glob("o*"))


def test_run_refuses_a_token_without_embedding_and_tells_what_saturated(checkpoint: Path) -> None:
    given = ("run", "--model", checkpoint, "--preset", "ci", "--backend", "reference", "--json", "--text")
    result = command(*given, "w1 w50 w2")
    assert result.returncode == 2 and "token 1 of the text has the id 50" in result.stderr
    result = command(*given, "w1 w49 w2")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert all(found[name] >= 0 for name in (*SATURATIONS, "saturated_inputs"))


def test_images(tmp_path: Path) -> None:
    graph = new_vision_graph(0)
    images = np.zeros((2, 1, 8, 8), np.float32)
    np.save(tmp_path / "a.npy", images)
    assert accelerator_part(graph).embed("pixels", read_arrays(tmp_path / "a.npy", graph)[1]).shape == (17, 64)
    images[1, 0, 2, 3] = np.nan
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(InputError, match="values that are not finite"):
        read_arrays(tmp_path / "a.npy", graph)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "it does not begin as a .npy file does"),
        (b"", "it does not begin as a .npy file does"),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3, 8, 8)}",
            "it is shorter than its header says",
        ),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (99", "is no array of numpy's"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 8, 8)}", "not finite in float32"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 8)}", "goes on behind its array for 768 bytes"),
    ],
)
def test_files_that_are_no_images(content: bytes | str, problem: str, tmp_path: Path) -> None:
    """Headers that name more than there is, or are none; values beyond float32."""
    graph = Graph("image", (Input("pixels", (), (8, 8, 3)),))
    if isinstance(content, str):
        header = content.encode().ljust(117) + b"\n"
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + np.full(192, 1e300).tobytes()
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=problem):
        read_arrays(tmp_path / "a.npy", graph)


@pytest.mark.parametrize("name", ["embeddings.patch_embeddings.projection.weight", "embeddings.position_embeddings",
                                  "classifier.weight"])  # fmt: skip
def test_vision_checkpoints(name: str, tmp_path: Path) -> None:
    import torch
    import transformers as hf

    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64,
             "image_size": 8, "patch_size": 2, "num_channels": 1}  # fmt: skip
    model = hf.ViTForImageClassification(hf.ViTConfig(**sizes))
    with torch.no_grad():
        dict(model.named_parameters())[("" if name.startswith("classifier") else "vit.") + name].view(-1)[7] = torch.inf
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"{name}.*, is inf; values must be finite"):
        load_network(tmp_path)


PRUNED: dict[str, Change] = {
    "inputs of zero": both(put("embeddings.LayerNorm.weight", 0), put("embeddings.LayerNorm.bias", 0)),
    "weights of zero": put("intermediate.dense.weight", 0),
    "weights of 1e30": scaled("output.dense.weight", 1e30),
    "activations of 1e30": scaled("intermediate.dense.weight", 1e30),
    "weights of 1e-30": scaled("output.dense.weight", 1e-30),
}


@pytest.mark.parametrize("name", PRUNED)
def test_pruned(name: str) -> None:
    model = changed(make(), PRUNED[name])
    patterns = {f"{layer}.{linear}": Pattern(2, 4) for layer in range(2) for linear in LINEAR}
    texts = [random_ids(s, 24) for s in range(4)]
    limits = {"activations of 1e30": r"reach .*1e\+15 is the limit", "weights of 1e30": "are not finite, .* in fp32"}
    if name in limits:
        with pytest.raises(InputError, match=rf"pruning encoder\.layer\.\d\..*: its inputs {limits[name]}"):
            prune_model(model, patterns, texts)
    else:
        right_or_refused(prune_model(model, patterns, texts))

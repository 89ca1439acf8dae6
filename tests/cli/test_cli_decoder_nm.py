"""N:M of decoders on the command line: pruned on the way, pruned and kept, and never twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_files import (
    TEMPLATE,
    byte_pairs,
    decoder_folder,
    decoder_metadata,
    decoder_tensors,
    gguf_bytes,
    plain,
    tokenizer_metadata,
)
from test_cli_text import run
from test_decoders import GPT2
from test_families import saved

from sta_hw.cli.sparsity import evaluate
from sta_hw.errors import InputError
from sta_hw.formats.nm import prune, satisfies
from sta_hw.model.gguf import read_gguf
from sta_hw.sparsity.decoders import described
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS
from sta_hw.tasks.text import load_text_model

PROMPT = "The quick brown fox"
NEAR = parse_nm("2:4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder")
    decoder_folder(path)
    return path


def test_pruned_on_the_way(folder: Path) -> None:
    """The same text from the integers and from programs on RTL, which move fewer bytes; a table changes some layers."""
    common = ("generate-text", PROMPT, "--model", folder, "--max-tokens", 4, "--preset", "ci", "--json")
    dense, rtl = (
        json.loads(run(*common, "--backend", "rtl", *more).stdout) for more in ((), ("--nm", "2:4", "--drafts", 2))
    )
    fast = json.loads(run(*common, "--backend", "fast", "--nm", "2:4").stdout)
    model = load_text_model(folder).prune("2:4").in_integers(config=PRESETS["ci"])
    wanted = model.generate(PROMPT, max_tokens=4)
    assert rtl["ids"] == fast["ids"] == wanted.ids and rtl["equal_to_integers"] is True
    weights = sum(o.weight.size for o in model.language.graph.linears.values())
    spared, read = (dense["passes"][-1][k] - rtl["passes"][-1][k] for k in ("least_bytes", "read_bytes"))
    assert spared == weights * 3 // 8 and read > 0.8 * spared  # half of 8 bits, and a bit of position
    table = folder.parent / "table.json"
    table.write_text(json.dumps({"mlp.down_proj": "dense", "0.mlp.up_proj": "1:4"}))
    more = ("--backend", "fast", "--nm", "2:4", "--nm-table", table, "--pruner", "magnitude")
    done = run(*common, *more)
    model = load_text_model(folder).prune("2:4", table=table, method="magnitude")
    graph = model.language.graph
    assert (
        np.count_nonzero(graph.linears["1.mlp.down_proj"].weight) > 0.99 * graph.linears["1.mlp.down_proj"].weight.size
    )
    assert satisfies(graph.linears["0.mlp.up_proj"].weight, parse_nm("1:4"))
    assert json.loads(done.stdout)["ids"] == model.in_integers(config=PRESETS["ci"]).generate(PROMPT, max_tokens=4).ids


def test_patterns_are_given_once(folder: Path) -> None:
    """N:M by name, or N:M and a table; of a model that is pruned already neither."""
    model = load_text_model(folder)
    patterns = dict.fromkeys(model.language.graph.linears, NEAR)
    for others in ({"nm": "2:4"}, {"table": "table.json"}):
        with pytest.raises(InputError, match="take the place of nm and table"):
            model.prune(patterns=patterns, method="magnitude", **others)
    pruned = model.prune(patterns=patterns, method="magnitude")
    assert pruned.patterns == patterns
    with pytest.raises(InputError, match="is pruned already"):
        pruned.prune(patterns=dict.fromkeys(patterns, parse_nm("1:4")), method="magnitude")


def test_a_model_that_is_pruned_or_in_integers(folder: Path) -> None:
    """Pruned again it keeps its N:M, and gets no others in silence; integers are not those of other weights."""
    model = load_text_model(folder).prune("2:4", method="magnitude")
    again = model.prune(method="magnitude")
    assert again.patterns == model.patterns and again.notes == () == model.notes
    assert model.prune("3:4", method="magnitude").patterns != model.patterns  # no weight is lost
    with pytest.raises(InputError, match=r"N:M 1:4 would prune the model once more \(.*\): it was pruned to 2:4"):
        model.prune("1:4", method="magnitude")
    integers = model.in_integers(config="ci", cache=False)
    with pytest.raises(InputError, match=r"is in integers already, .*; prune it before"):
        integers.prune("2:4", method="magnitude")
    assert integers.with_graph(model.language.graph).quantized is None


def test_pruned_and_kept(folder: Path, tmp_path: Path) -> None:
    """The folder brings its table; what is finished is not made again, and nothing is pruned twice in silence."""
    common = ("prune", "--model", folder, "--method", "magnitude", "--nm", "2:4", "-o", tmp_path, "--json")
    place = Path(json.loads(run(*common).stdout)["folder"])
    before = {p.name: p.stat().st_mtime_ns for p in place.iterdir()}
    again = run(*common)
    assert Path(json.loads(again.stdout)["folder"]) == place and "is there already" in again.stderr
    assert {p.name: p.stat().st_mtime_ns for p in place.iterdir()} == before
    dense, pruned = load_text_model(folder).language.graph, load_text_model(place)
    for name, o in pruned.language.graph.linears.items():
        np.testing.assert_array_equal(o.weight, prune(dense.linears[name].weight, NEAR))
    assert set(pruned.patterns.values()) == {NEAR}

    text = ("generate-text", PROMPT, "--max-tokens", 3, "--backend", "fast", "--preset", "ci", "--json")
    done = run(*text, "--model", place)
    assert "N:M is that of" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    on_the_way = run(*text, "--model", folder, "--nm", "2:4", "--pruner", "magnitude")
    assert json.loads(done.stdout)["ids"] == json.loads(on_the_way.stdout)["ids"]
    for arguments, sentence in (
        ((*text, "--model", place, "--nm", "1:4"), "would prune"), (("prune", "--model", place), "is pruned already"),
    ):  # fmt: skip
        done = run(*arguments)
        assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    own = (place / "nm.json").read_text()
    (place / "nm.json").write_text(json.dumps({"mlp.down_proj": "1:4"}))
    done = run(*text, "--model", place)
    assert done.returncode == 2 and "the weights are not pruned as" in done.stderr, done.stderr
    with pytest.raises(InputError, match=f"no pruned encoder in {tmp_path}; {place} is a decoder, which generate-text"):
        evaluate([tmp_path])
    done = run(*common)  # what is damaged is made again
    assert done.returncode == 0 and not done.stderr and (place / "nm.json").read_text() == own


def test_what_is_beside_the_weights_counts(tmp_path: Path) -> None:
    """A result has the source's tokenizer, template and end tokens: with others there it is another result."""
    decoder_folder(tmp_path / "a")

    def settings(path: Path) -> dict[str, Any]:
        return described(load_text_model(path), "magnitude", [], {})

    before = settings(tmp_path / "a")
    for name in ("tokenizer_config.json", "config.json"):
        place = tmp_path / "a" / name
        about = json.loads(place.read_text())
        place.write_text(json.dumps(about | {"pad_token_id": 1, "chat_template": TEMPLATE.replace("kind", "odd")}))
        if name == "config.json":
            place.write_text(json.dumps(about | {"eos_token_id": [0, 5]}))
        after = settings(tmp_path / "a")
        assert {k for k in before if before[k] != after[k]} == {"beside"}
        before = after
    metadata = decoder_metadata(tmp_path / "a", "llama") | tokenizer_metadata(byte_pairs(), "gpt-2")
    tensors = plain(decoder_tensors(tmp_path / "a", "llama"))
    (tmp_path / "a.gguf").write_bytes(gguf_bytes(metadata, tensors))
    before = settings(tmp_path / "a.gguf")
    (tmp_path / "a.gguf").write_bytes(gguf_bytes(metadata | {"tokenizer.ggml.eot_token_id": 5}, tensors))
    after = settings(tmp_path / "a.gguf")
    assert {k for k in before if before[k] != after[k]} == {"beside"}


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_gguf_file(family: str, tmp_path: Path) -> None:
    """It stays one: the pruned weights in F16, every other byte of tensors and metadata as it was."""
    name = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[family]
    decoder_folder(tmp_path / "hf", name)
    tensors = {n: (0, a.shape, a.astype("<f4").tobytes()) for n, a in decoder_tensors(tmp_path / "hf", family).items()}
    metadata = decoder_metadata(tmp_path / "hf", family) | tokenizer_metadata(byte_pairs(), "gpt-2")
    path = tmp_path / "small.gguf"
    path.write_bytes(gguf_bytes(metadata, tensors))
    done = run("prune", "--model", path, "--method", "magnitude", "--nm", "8:16", "-o", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    place = Path(json.loads(done.stdout)["folder"])
    old, new = read_gguf(path), read_gguf(place / "model.gguf")
    assert new.metadata == old.metadata and list(new.tensors) == list(old.tensors)
    halves = {n for n, t in new.tensors.items() if t.kind == "F16"}
    assert len(halves) == 14 and all(n.startswith("blk.") and n.endswith(".weight") for n in halves)
    for other in new.tensors.keys() - halves:
        assert new.tensors[other].raw.tobytes() == old.tensors[other].raw.tobytes()
    dense, pruned = load_text_model(path).language.graph, load_text_model(place)
    for key, o in pruned.language.graph.linears.items():
        wanted = prune(dense.linears[key].weight, parse_nm("8:16")).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(o.weight, wanted)
    assert set(pruned.patterns.values()) == {parse_nm("8:16")}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("generate-text", PROMPT, "--backend", "fast", "--nm", "16:32", "--preset", "ci"), "16:32"),
        (("generate-text", PROMPT, "--nm", "2:3"), "M = 3"),
        (("generate-text", PROMPT, "--nm", "2:4", "--pruner", "random"), "pruner 'random' is unknown"),
        (("generate-text", PROMPT, "--pruner", "magnitude"), "--pruner is not used without --nm or --nm-table"),
        (("chat", "--nm", "dense", "--pruner", "magnitude"), "--pruner is not used without --nm or --nm-table"),
        (("prune", "--method", "wanda"), "method wanda is not for decoders yet"),
        (("prune", "--aware-steps", 5), "--aware-steps is not used for a decoder"),
        (("prune", "--bfloat16"), "--bfloat16 is not used without --steps"),
        (("prune", "--rate", 1e-3), "--rate is not used without --steps"),
        (("prune", "--method", "magnitude", "--seed", 3), "--seed is not used for a decoder by --method magnitude"),
        (("prune", "--nm", "dense"), "there is nothing to prune at N = M"),
    ],
)  # fmt: skip
def test_refusals(folder: Path, arguments: tuple[object, ...], sentence: str) -> None:
    done = run(*arguments, "--model", folder, given="Hi\n")
    assert done.returncode == 2 and not done.stdout, done.stdout
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_refusals_of_tables_and_formats(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "nm.json"
    table.write_text('{"head": "2:4"}')
    done = run("generate-text", PROMPT, "--model", folder, "--nm-table", table)
    assert done.returncode == 2 and "there is no linear layer 'head'" in done.stderr, done.stderr
    saved(tmp_path / "gpt2", "GPT2LMHeadModel", GPT2 | {"vocab_size": 320, "eos_token_id": 0, "bos_token_id": 1})
    byte_pairs().save(str(tmp_path / "gpt2" / "tokenizer.json"))
    done = run("prune", "--model", tmp_path / "gpt2", "--method", "magnitude", "-o", tmp_path / "out")
    assert done.returncode == 2 and "GPT-2's checkpoints hold query, key and value in one" in done.stderr, done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())

"""DominoSearch for decoders: bytes are no more than the uniform N:M's, products that are one have one N:M."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from decoder_files import decoder_folder
from test_cli_text import run
from test_decoders import GPT2, SIZES
from test_distill import divergence
from test_families import saved

from sta_hw.compiler.decoder.traffic import Stored, least_traffic
from sta_hw.errors import ConfigError, InputError
from sta_hw.formats.nm import best_encoding, bits_per_weight, keep_mask, satisfies
from sta_hw.model.families import load_network
from sta_hw.model.graph import Graph
from sta_hw.sparsity.domino_decoders import decoder_patterns, decoder_sensitivities, weights_together
from sta_hw.spec.config import Config
from sta_hw.spec.patterns import Pattern, parse_nm
from sta_hw.spec.presets import PRESETS
from sta_hw.tasks.text import load_text_model

TEXTS = [[1, *np.random.default_rng(i).integers(0, 50, 30).tolist()] for i in range(12)]
HARDWARE = PRESETS["decoder"]
SOME = dataclasses.replace(HARDWARE, nm=("2:16", "4:16", "8:16", "2:4"))


def decoder(folder: Path, name: str = "LlamaForCausalLM") -> Graph:
    saved(folder, name, GPT2 if name.startswith("GPT2") else SIZES)
    return load_network(folder).graph


def total(graph: Graph, patterns: dict[str, Pattern], config: Config) -> int:
    """Bytes of a token."""
    stored = {n: Stored(bits_per_weight(p, best_encoding(p, config.window, config.encodings), config.window))
              for n, p in patterns.items() if not p.dense}  # fmt: skip
    return least_traffic(graph, 9, stored=stored).total


@pytest.mark.parametrize("config", [HARDWARE, SOME], ids=["any", "some"])
@pytest.mark.parametrize("nm", ["8:16", "4:16"])
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "GPT2LMHeadModel"])
def test_within_the_bytes(name: str, nm: str, config: Config, tmp_path: Path) -> None:
    """Nearly all of them are used, hardware runs every N:M, and gate and up agree."""
    graph = decoder(tmp_path, name)
    found = decoder_patterns(graph, parse_nm(nm), config, TEXTS)
    assert list(found) == list(graph.linears) and all(p in config.patterns for p in found.values())
    uniform = total(graph, dict.fromkeys(found, parse_nm(nm)), config)
    assert 0.9 * uniform < total(graph, found, config) <= uniform
    assert len(set(found.values())) > 1 and {p.m for p in found.values()} <= {1, 16}
    for names in weights_together(graph):
        assert len({found[n] for n in names}) == 1
    pairs = [names for names in weights_together(graph) if len(names) == 2]
    assert len(pairs) == (graph.layers if name.startswith("Llama") else 0)
    assert {n.rpartition(".")[2] for names in pairs for n in names} <= {"gate_proj", "up_proj"}


def test_sensitivities(tmp_path: Path) -> None:
    """They fall to zero with N, and are about the divergence that pruning a little of one product causes."""
    graph = decoder(tmp_path)
    found = decoder_sensitivities(graph, TEXTS, 16)
    predicted, real = [], []
    for name, falls in found.items():
        assert len(falls) == 17 and falls[16] == 0 and all(a >= b for a, b in itertools.pairwise(falls))
        weight = graph.linears[name].weight
        pruned = weight * keep_mask(np.abs(weight), Pattern(14, 16))
        others = TEXTS[:4]
        real.append(divergence(graph.with_weights({name: pruned}), graph, others) * len(TEXTS[0]))
        predicted.append(falls[14])
    assert np.corrcoef(np.log(predicted), np.log(real))[0, 1] > 0.5
    assert 0.2 < np.median(np.array(predicted) / real) < 5


def test_refusals(tmp_path: Path) -> None:
    graph = decoder(tmp_path)
    with pytest.raises(ConfigError, match="16:32"):
        decoder_patterns(graph, parse_nm("16:32"), HARDWARE, TEXTS)
    with pytest.raises(InputError, match="no calibration batch"):
        decoder_patterns(graph, parse_nm("8:16"), HARDWARE, [])


def test_from_the_command_line(tmp_path: Path) -> None:
    """Products are as the folder's table says; no more bytes than the uniform N:M's; other budgets are refused."""
    decoder_folder(tmp_path / "dense")
    common = ("prune", "--model", tmp_path / "dense", "--method", "domino", "--calibration", 30, "-o", tmp_path / "out")
    done = run(*common, "--nm", "4:16", "--json")
    about = json.loads(done.stdout)
    made = load_text_model(Path(about["folder"]))
    graph, found = made.language.graph, made.patterns
    assert about["bytes_of"] == "4:16" and all(satisfies(graph.linears[n].weight, p) for n, p in found.items())
    assert len(set(found.values())) > 1
    assert total(graph, found, HARDWARE) <= total(graph, dict.fromkeys(found, parse_nm("4:16")), HARDWARE)
    refused = run(*common, "--budget", "macs")
    assert refused.returncode == 2 and "--budget is not used for a decoder" in refused.stderr, refused.stderr

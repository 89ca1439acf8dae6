"""Programs of decoders: prompts and single tokens give the integers' logits, on the reference and on RTL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_files import SIZES
from numpy.typing import NDArray
from test_decoders import GPT2
from test_families import saved

from sim.accelerator import AcceleratorModel, MemoryModel
from sta_hw.compiler.decoder.integers import Rules
from sta_hw.compiler.decoder.program import DecoderImage, compile_decoder
from sta_hw.compiler.decoder.quantize import quantize_decoder
from sta_hw.compiler.decoder.run import IntegerDecoder
from sta_hw.errors import InputError
from sta_hw.model.families import load_network
from sta_hw.reference.program import run_program
from sta_hw.spec.presets import PRESETS

CONFIG = replace(PRESETS["ci"], features=("decoder",), window_words=256, loads_ahead=1)
RULES = Rules(block=CONFIG.groups * CONFIG.window, groups=CONFIG.groups)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", SIZES | {"vocab_size": 96}),
    "llama-narrow": ("LlamaForCausalLM", SIZES | {"vocab_size": 96, "head_dim": 2}),
    "qwen2": ("Qwen2ForCausalLM", SIZES | {"vocab_size": 96, "num_key_value_heads": 1}),
    "qwen3": ("Qwen3ForCausalLM", SIZES | {"vocab_size": 96, "head_dim": 6}),
    "gpt2": ("GPT2LMHeadModel", GPT2 | {"vocab_size": 96, "n_positions": 60}),
}
LENGTHS = [2, 4, 4, 1, 3, 1, 1, 2, 4, 4, 1, 1, 1, 1, 4, 4, 1, 1, 1, 1, 3]
"""Over more than one block of keys."""
PREFIX = [1, 5]
Run = Callable[[NDArray[np.uint8], int, int, int], NDArray[np.uint8]]


def quantized(folder: Path, family: str, wide: str = "", rules: Rules = RULES, **changes: Any) -> Any:
    """A small random model in integers, with 15-bit activations for the products of these roles."""
    name, sizes = FAMILIES[family]
    saved(folder, name, sizes | changes)
    texts = [np.random.default_rng(i).integers(0, 96, 30).tolist() for i in range(4)]
    return quantize_decoder(load_network(folder).graph, texts, PREFIX, replace(rules, wide=frozenset(wide.split())))


def check(of: Any, compiled: DecoderImage, run: Run, ids: list[int], lengths: list[int]) -> None:
    """A text in runs of so many tokens, none of which leaves its row tile."""
    wanted = np.round(IntegerDecoder(of, 60).logits([*PREFIX, *ids]) / of.logit_scale).astype(np.int64)
    host, image = IntegerDecoder(of, 60), compiled.image.copy()
    rows, position = compiled.config.rows, len(PREFIX)
    for length in lengths:
        host.length = position
        part = ids[position - len(PREFIX) : position - len(PREFIX) + length]
        compiled.with_rows(image, host.embedded(part), position % rows)
        image = run(image, compiled.programs[compiled.number(position, length)], length, position)
        found = compiled.logits(image, position % rows, length)
        np.testing.assert_array_equal(found, wanted[position - len(PREFIX) :][:length])
        position += length
    assert position == len(PREFIX) + len(ids)


ALL = "attention output gate down head"
WIDE = [*((family, "") for family in FAMILIES), ("llama", ALL), ("qwen3", ALL), ("qwen2", "down head"), ("gpt2", ALL)]
"""Products that take 15-bit activations: all, or some beside those that take 8."""


@pytest.mark.parametrize(("family", "wide"), WIDE)
def test_on_the_reference(family: str, wide: str, tmp_path: Path) -> None:
    """Tokens alone, several of a tile, and whole tiles."""
    of = quantized(tmp_path, family, wide)
    lengths = LENGTHS
    capacity = len(PREFIX) + sum(lengths)
    compiled = compile_decoder(of, CONFIG, capacity)
    assert len(compiled.programs) == -(-capacity // RULES.block) == 2

    def run(image: NDArray[np.uint8], program: int, length: int, position: int) -> NDArray[np.uint8]:
        return run_program(image, program, CONFIG, length=length, position=position)

    check(of, compiled, run, np.random.default_rng(7).integers(0, 96, sum(lengths)).tolist(), lengths)


@pytest.mark.parametrize(("family", "wide"), WIDE)
def test_on_rtl(family: str, wide: str, tmp_path: Path) -> None:
    """Every byte of the image is the reference's after every run, with a memory that stalls."""
    of = quantized(tmp_path, family, wide)
    lengths = LENGTHS
    compiled = compile_decoder(of, CONFIG, len(PREFIX) + sum(lengths))
    model = AcceleratorModel(CONFIG)

    def run(image: NDArray[np.uint8], program: int, length: int, position: int) -> NDArray[np.uint8]:
        wanted = run_program(image, program, CONFIG, length=length, position=position)
        memory = MemoryModel(stall=0.2, seed=position)
        found = model.run(image, program, length=length, position=position, memory=memory)
        np.testing.assert_array_equal(found.image, wanted)
        return wanted

    check(of, compiled, run, np.random.default_rng(8).integers(0, 96, sum(lengths)).tolist(), lengths)


def test_what_is_refused(tmp_path: Path) -> None:
    of = quantized(tmp_path, "llama")
    with pytest.raises(InputError, match="needs hardware with causal, gate, position, rms, rotary"):
        compile_decoder(of, PRESETS["ci"], 20)
    with pytest.raises(InputError, match="quantized for blocks of"):
        compile_decoder(of, replace(CONFIG, window=8), 20)
    with pytest.raises(InputError, match="40000 tokens exceeds the 32,768 keys"):
        compile_decoder(of, CONFIG, 40_000)
    compiled = compile_decoder(of, CONFIG, 20)
    for position, length, message in ((19, 2, "do not lie in the context of 20"), (3, 2, "one row tile; 1 is the most"),
                                      (4, 0, "do not lie in"), (20, 1, "do not lie in")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            compiled.number(position, length)
    of = quantized(tmp_path, "llama", "head")
    with pytest.raises(InputError, match="needs hardware with digits"):
        compile_decoder(of, replace(CONFIG, features=("causal", "rms", "position", "gate", "rotary")), 20)


def test_sums_that_32_bits_do_not_hold(tmp_path: Path) -> None:
    """A long column of weights that are all the largest is refused for 15-bit inputs; for 8 bits it is not."""
    name, sizes = FAMILIES["gpt2"]
    saved(tmp_path, name, sizes | {"n_inner": 1040, "n_layer": 1})
    graph = load_network(tmp_path).graph
    down = next(o for o in graph.operations if getattr(o, "weight", np.zeros(1)).shape[-1] == 1040)
    down.weight[3] = np.sign(down.weight[3]) * 0.1
    texts = [list(range(20))]
    quantize_decoder(graph, texts, PREFIX, RULES)
    with pytest.raises(InputError, match=r"weights of column 3 add up to 13[0-9],[0-9]{3}.*131,071.* Leave down at 8"):
        quantize_decoder(graph, texts, PREFIX, replace(RULES, wide=frozenset({"down"})))

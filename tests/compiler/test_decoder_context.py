"""A context of 2,048 tokens on RTL: the last logits are the integers', memory and bytes are what the sizes say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoder_files import SIZES
from test_families import saved

from sta_hw.compiler.decoder.integers import Rules
from sta_hw.compiler.decoder.program import DecoderImage, compile_decoder
from sta_hw.compiler.decoder.quantize import quantize_decoder
from sta_hw.compiler.decoder.run import IntegerDecoder
from sta_hw.compiler.decoder.traffic import least_traffic
from sta_hw.model.families import load_network
from sta_hw.run.decoder import ProgramDecoder
from sta_hw.run.machines import RtlMachine
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["decoder"]
CAPACITY = 2048
PREFIX = [1, 5]
SHAPE = {"vocab_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64}


def program_bytes(compiled: DecoderImage, number: int) -> int:
    """What a program takes of the memory, and of the bus when it runs: its header says its lines."""
    return 64 * int(compiled.image[compiled.programs[number] :][:12].view("<u4")[2])


@pytest.mark.slow
def test_2048_tokens(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", SIZES | SHAPE | {"max_position_embeddings": CAPACITY})
    rng = np.random.default_rng(1)
    texts = [rng.integers(0, 96, 30).tolist() for _ in range(4)]
    rules = Rules(block=CONFIG.groups * CONFIG.window, groups=CONFIG.groups)
    of = quantize_decoder(load_network(tmp_path).graph, texts, PREFIX, rules)
    half, whole = (compile_decoder(of, CONFIG, capacity) for capacity in (CAPACITY // 2, CAPACITY))

    def without_programs(compiled: DecoderImage) -> int:
        return compiled.image.size - sum(program_bytes(compiled, n) for n in range(len(compiled.programs)))

    cached = least_traffic(of.graph, 1).cache_read  # of a position
    assert cached == 2 * 64
    turned = 2 * 64  # cosines and sines of a position, 16 bits for each of 32 pairs
    memory = without_programs(whole) - without_programs(half)
    assert abs(memory / (CAPACITY // 2 * (cached + turned)) - 1) < 0.01

    decoder = ProgramDecoder(of, whole, RtlMachine(CONFIG))
    ids = [*PREFIX, *rng.integers(0, 96, CAPACITY - len(PREFIX)).tolist()]
    wanted = IntegerDecoder(of, CAPACITY).logits(ids)
    np.testing.assert_array_equal(decoder.feed(ids[:-1]), wanted[-2])
    np.testing.assert_array_equal(decoder.feed(ids[-1:]), wanted[-1])
    assert decoder.length == CAPACITY
    moved = []
    decoder.length = CAPACITY // 2  # the tokens behind it are as if they were not there
    np.testing.assert_array_equal(decoder.feed(ids[CAPACITY // 2 :][:1]), wanted[CAPACITY // 2 - len(PREFIX)])
    for run in decoder.runs[-2:]:
        bytes_moved = CONFIG.bus_bytes * (run.counters["read_beats"] + run.counters["write_beats"])
        moved.append(bytes_moved - program_bytes(whole, whole.number(run.position, 1)))
    last, middle = moved
    # Position 1,024 is in the fifth block of keys, and the chip has no room for so many: each of the two heads reads
    # whole blocks, with its queries' tile and its column's parameters for each.
    block = CONFIG.groups * CONFIG.window
    head = block * cached + CONFIG.rows * 64 + 16
    blocks = CAPACITY // block - (CAPACITY // 2 // block + 1)
    assert abs((last - middle) / (blocks * 2 * head) - 1) < 0.01

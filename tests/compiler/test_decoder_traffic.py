"""What a decoder must move and multiply at least, counted from its sizes; and the same network with fewer layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from decoder_files import SIZES
from test_families import saved

from sta_hw.bench.decode import first_layers
from sta_hw.compiler.decoder.traffic import Stored, least_traffic, least_work
from sta_hw.model.families import load_network
from sta_hw.model.families.decoders import NEXT
from sta_hw.model.fp32 import evaluate

WIDTH, INNER, TOKENS, LAYERS = 32, 64, 320, 2
KEYS = 16  # 2 of 4 heads
LAYER = WIDTH * (WIDTH + 2 * KEYS + WIDTH + 3 * INNER)


def test_bytes_and_multiplications(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", SIZES)
    graph = load_network(tmp_path).graph
    found = least_traffic(graph, 7, 3)
    head = graph.linear(graph.by_name[NEXT].inputs[0]).weight
    bare = least_traffic(graph, 7, 3, logits=0)
    assert found.total - bare.total == head.size + 16 * len(head) + 2 * 3 * len(head)
    assert found.total - least_traffic(graph, 7, 3, logits=1).total == 2 * 2 * len(head)
    lists = least_traffic(graph, 7, 3, best=True)
    assert found.total - lists.total == 3 * (2 * len(head) - 8 * 8)
    down = [o.name for o in graph.operations if o.name.endswith("down_proj")]
    four = least_traffic(graph, 7, 3, stored=dict.fromkeys(down, Stored(4 + 24 / 32)))
    assert found.total - four.total == 2 * WIDTH * INNER * 13 // 32
    assert found.weights == LAYERS * LAYER + WIDTH * TOKENS
    columns = LAYERS * (2 * WIDTH + 2 * KEYS + 2 * INNER + WIDTH) + TOKENS
    assert found.parameters == 16 * columns + 8 * (2 * LAYERS + 1) * WIDTH
    assert (found.cache_read, found.cache_written) == (7 * LAYERS * 2 * KEYS, 3 * LAYERS * 2 * KEYS)
    assert found.tokens == 3 * 2 * (WIDTH + TOKENS)
    assert found.total == sum(vars(found).values())
    attended = 8 + 9 + 10
    assert least_work(graph, 7, 3) == 3 * LAYERS * LAYER + WIDTH * TOKENS + LAYERS * 2 * WIDTH * attended
    wide = [graph.linear(graph.by_name[NEXT].inputs[0]).name, "0.mlp.down_proj", "1.mlp.down_proj"]
    assert least_work(graph, 7, 3, wide=wide) - least_work(graph, 7, 3) == 3 * LAYERS * WIDTH * INNER + WIDTH * TOKENS


def test_fewer_layers(tmp_path: Path) -> None:
    """The first of two layers is a network whose logits are those of a model that has it alone."""
    both, one = tmp_path / "both", tmp_path / "one"
    model = saved(both, "LlamaForCausalLM", SIZES)
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    model.save_pretrained(one)
    cut, wanted = first_layers(load_network(both).graph, 1), load_network(one).graph
    assert cut.layers == 1 and [o.name for o in cut.operations] == [o.name for o in wanted.operations]
    logits = [evaluate(g, {"ids": [1, 5, 7]}, keep=(NEXT,))[NEXT] for g in (cut, wanted)]
    np.testing.assert_array_equal(*logits)

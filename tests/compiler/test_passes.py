"""What lies between the passes: their text forms, buffers and how long values live, instructions by value."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support import embed, in_fp32

from sta_hw.compiler.buffers import plan_buffers
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.integers import IntegerLinear
from sta_hw.compiler.lower import LOWERED, lower
from sta_hw.compiler.lower.state import Lowering
from sta_hw.compiler.packing import Packing
from sta_hw.compiler.passes import PASSES
from sta_hw.compiler.quantize import quantize
from sta_hw.compiler.shapes import shape_graph
from sta_hw.errors import InputError
from sta_hw.model.operations import Attention, Linear, Maximum
from sta_hw.model.random import random_ids, random_model
from sta_hw.run.backends import ReferenceBackend
from sta_hw.spec.isa import Opcode
from sta_hw.spec.patterns import Pattern
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
KINDS = {"bert": {}, "vit": {"norm_first": True, "pooling": "first"}, "electra": {"embedding": 16}}


def test_every_pass_tells_what_it_gives() -> None:
    told: dict[str, str] = {}
    patterns = {"0.output.dense": Pattern(2, 4)}
    quantized = quantize(
        random_model(0), [random_ids(0, 9)], patterns, after=lambda name, found: told.update({name: str(found)})
    )
    compile_encoder(quantized, CONFIG, 9, after=lambda name, found: told.update({name: str(found)}))
    assert tuple(told) == PASSES
    # The same operations, with integers and with what pruning left.
    names = [line.split()[0] for line in told["prune"].split("\n")[1:-1]]
    assert names == [line.split()[0] for line in told["quantize"].split("\n")[1:-1]]
    assert "0.output.dense" in names and "pattern=2:4" in told["quantize"]
    assert "0.context (9, 32) from " in told["calibrate"]
    assert "buffer stream0 32 x 16 bits: embedded, 0.sum1, 0.sum2" in told["lower"]
    assert "norm 0.output: ('0.sum2', 0) -> ('0.output', 0)" in told["lower"]
    assert told["schedule"].rstrip().endswith("halt")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 3])
def test_no_buffer_is_taken_while_its_value_is_read(kind: str, layers: int) -> None:
    graph = quantize(random_model(0, layers=layers, **KINDS[kind]), [random_ids(0, 9)])
    plan = plan_buffers(graph)
    place = {o.name: i for i, o in enumerate(graph.operations)}

    def last(name: str) -> int:
        """Where a value is read last: a product whose results something else goes on with runs with that."""
        found = 0
        for o in graph.takers(name):
            fused = isinstance(o, Linear) and o.name not in plan.narrow
            found = max([found, place[o.name], *(place[t.name] for t in graph.takers(o.name) if fused)])
        return found

    for buffer in plan.buffers:
        for value, following in zip(buffer.values, buffer.values[1:], strict=False):
            in_place = following.endswith("sum1") or following.endswith("sum2")
            assert last(value) < place[following] + in_place, (buffer, value, following)
    # As few as there can be, however many layers: each further one lies where the one before lay.
    assert len(plan.buffers) == {"bert": 11, "vit": 11, "electra": 14}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_instructions_by_value(kind: str) -> None:
    """Every instruction but LOAD and HALT belongs to an operation and writes where that says."""
    graph = quantize(random_model(0, layers=2, **KINDS[kind]), [random_ids(0, 9)])
    program = compile_encoder(graph, CONFIG, 9)
    values, buffers, rows = program.info.values, program.info.buffers, CONFIG.rows
    written = set()
    for instruction, label in zip(program.expanded(), (label for _, label in program.issued()), strict=True):
        if instruction.opcode in (Opcode.LOAD, Opcode.HALT):
            continue
        about = values[label]
        written.add(about.value)
        assert graph.by_name[about.value] and about.layer == (int(label[0]) if label[0].isdigit() else None)
        if instruction.opcode in (Opcode.PRODUCT, Opcode.CONTEXT):
            start, width, size = buffers[about.buffers[0]]
            assert 0 <= instruction["result_address"] - start < 3 * rows * width * size
    # All that an operation gives, but for products whose results hardware goes on with, and what the host stores.
    hidden = {
        o.name for o in graph.operations if isinstance(o, IntegerLinear) and o.name not in plan_buffers(graph).narrow
    }
    assert written == {o.name for o in graph.operations} - hidden - {"embedded", "result"}


def test_what_no_accelerator_runs() -> None:
    graph = shape_graph(32, 2, 1, 64)
    assert all(type(o) in LOWERED for o in graph.operations)
    low = Lowering(graph, CONFIG, Packing.aligned([4], CONFIG.rows))
    low.graph = graph.replaced({"mean": Maximum("mean", ("0.output",))})
    with pytest.raises(InputError, match="no accelerator runs maximum mean"):
        lower(low)


def test_shapes_take_no_memory() -> None:
    graph = shape_graph(12288, 96, 96, 49152)
    assert sum(a.size for a in graph.tensors.values()) > 1e11
    assert all(not any(a.strides) or a.size == 1 for a in graph.tensors.values())


def test_layers_need_not_be_alike() -> None:
    """Heads and widths of every layer are looked at; where they fit, the program is right."""
    graph = random_model(0, layers=2, hidden=32, heads=2)
    attention = graph.by_name["1.context"]
    assert isinstance(attention, Attention)
    other = graph.replaced({"1.context": dataclasses.replace(attention, heads=4)})
    texts = [random_ids(i, 9) for i in range(4)]
    program = compile_encoder(quantize(other, texts), CONFIG, 9)
    embedded = embed(other, texts[0])
    found = ReferenceBackend(CONFIG).run(program, embedded).embedding
    exact = in_fp32(other, texts[0])
    assert found @ exact / np.linalg.norm(exact) > 0.98
    odd = graph.replaced({"1.context": dataclasses.replace(attention, heads=32)})
    with pytest.raises(InputError, match="head dimension 1 does not fit"):
        compile_encoder(quantize(odd, texts), CONFIG, 9)

"""ONNX graphs after onnxruntime's optimizers and in float16: the same graph as before."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_export import CASES, export
from onnxruntime.transformers import float16, optimizer
from test_families import saved
from test_onnx_import import lines

from sta_hw.errors import InputError
from sta_hw.model.families import load_network
from sta_hw.model.fp32 import evaluate
from sta_hw.model.onnx.importer import import_onnx

KINDS = {"bert": "bert", "distilbert": "bert", "camembert": "bert", "vit": "vit", "clip": "clip", "whisper": "bart"}
LEVELS = onnxruntime.GraphOptimizationLevel


def made(tag: str, folder: Path, *, opset: int = 17, attention: str = "eager") -> Path:
    model = saved(folder, CASES[tag].name, CASES[tag].sizes)
    export(model, folder / "model.onnx", CASES[tag], opset=opset, attention=attention)
    return folder / "model.onnx"


def fused(path: Path, tag: str, *, half: bool = False) -> tuple[Path, set[str]]:
    """By onnxruntime's tool for Transformers; the operators that it puts in."""
    found = optimizer.optimize_model(str(path), KINDS[tag], num_heads=2, hidden_size=32, opt_level=0)
    if half:
        found.convert_float_to_float16(keep_io_types=True)
    found.save_model_to_file(str(path.with_name("fused.onnx")))
    return path.with_name("fused.onnx"), operators(path.with_name("fused.onnx"))


def operators(path: Path) -> set[str]:
    return set(Counter(n.op_type for n in onnx.load(path).graph.node if n.domain.startswith("com.")))


@pytest.mark.parametrize(
    ("tag", "opset", "wanted"),
    [
        ("bert", 11, {"Attention", "BiasGelu", "EmbedLayerNormalization", "SkipLayerNormalization"}),
        ("bert", 17, {"Attention", "BiasGelu", "EmbedLayerNormalization", "SkipLayerNormalization"}),
        ("distilbert", 17, {"Attention", "BiasGelu", "SkipLayerNormalization"}),
        ("camembert", 14, {"Attention", "FastGelu", "SkipLayerNormalization"}),
        ("vit", 17, {"BiasGelu", "SkipLayerNormalization"}),
        ("clip", 17, {"Attention", "QuickGelu", "SkipLayerNormalization"}),
        ("whisper", 17, {"BiasGelu", "SkipLayerNormalization"}),
    ],
)
def test_the_tool_for_transformers(tag: str, opset: int, wanted: set[str], tmp_path: Path) -> None:
    path, found = fused(made(tag, tmp_path, opset=opset), tag)
    assert wanted <= found
    assert lines(import_onnx(path).graph) == lines(load_network(tmp_path).graph)


@pytest.mark.parametrize("tag", ["bert", "clip", "whisper"])
def test_fused_in_float16(tag: str, tmp_path: Path) -> None:
    path, _ = fused(made(tag, tmp_path), tag, half=True)
    near(import_onnx(path).graph, load_network(tmp_path).graph)


def near(graph: Any, wanted: Any) -> None:
    """The same operations, with arrays as near as float16 is."""
    assert [type(o) for o in graph.operations] == [type(graph.by_name[o.name]) for o in graph.operations]
    assert {o.name: o.inputs for o in graph.operations} == {o.name: o.inputs for o in wanted.operations}
    for o in wanted.operations:
        for name, value in o.attributes().items():
            other = getattr(graph.by_name[o.name], name)
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(other, value, rtol=1e-3, atol=1e-4)
            elif name != "epsilon":
                assert other == value


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("tag", ["bert", "distilbert", "vit"])
def test_float16(tag: str, keep: bool, tmp_path: Path) -> None:
    path = made(tag, tmp_path, attention="sdpa")
    half = float16.convert_float_to_float16(onnx.load(path), keep_io_types=keep)
    onnx.save(half, tmp_path / "half.onnx")
    near(import_onnx(tmp_path / "half.onnx").graph, load_network(tmp_path).graph)


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
@pytest.mark.parametrize("tag", ["bert", "camembert", "vit", "clip", "whisper"])
def test_what_a_session_saves(tag: str, level: str, tmp_path: Path) -> None:
    path = optimized(made(tag, tmp_path, attention="eager" if tag in ("bert", "vit") else "sdpa"), level)
    assert lines(import_onnx(path).graph) == lines(load_network(tmp_path).graph)


def optimized(path: Path, level: str) -> Path:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(LEVELS, level)
    options.optimized_model_filepath = str(path.with_name("optimized.onnx"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return path.with_name("optimized.onnx")


def test_layouts_of_one_machine_are_named(tmp_path: Path) -> None:
    """Convolutions in blocks of the machine's vectors, where onnxruntime makes them."""
    path = optimized(made("vit", tmp_path), "ORT_ENABLE_ALL")
    if any(n.domain == "com.microsoft.nchwc" for n in onnx.load(path).graph.node):
        with pytest.raises(InputError, match=r"operator com.microsoft.nchwc.Conv of node '.*for one machine"):
            import_onnx(path)
    else:
        assert lines(import_onnx(path).graph) == lines(load_network(tmp_path).graph)


def attention_node(*, biased: bool, causal: bool = False) -> onnx.ModelProto:
    """One layer with MultiHeadAttention, over features of 4 bins and 6 frames."""
    rng = np.random.default_rng(0)
    helper, arrays, nodes = onnx.helper, {}, []

    def weight(name: str, *shape: int) -> str:
        arrays[name] = rng.normal(size=shape).astype(np.float32)
        return name

    def node(kind: str, given: list[str], out: str, **about: Any) -> str:
        nodes.append(helper.make_node(kind, given, [out], **about))
        return out

    x = node("Conv", ["features", weight("kernel", 8, 4, 3)], "conv", pads=[1, 1])
    x = node("Add", [node("Transpose", [x], "frames", perm=[0, 2, 1]), weight("positions", 1, 6, 8)], "embedded")
    names = []
    for part in ("query", "key", "value"):
        y = node("MatMul", [x, weight(f"w_{part}", 8, 8)], f"{part}_product")
        names.append(y if biased else node("Add", [y, weight(f"b_{part}", 8)], part))
    given = [*names, *([weight("biases", 24)] if biased else [])]
    y = node("MultiHeadAttention", given, "context", domain="com.microsoft", num_heads=2, unidirectional=int(causal))
    y = node("Add", [node("MatMul", [y, weight("w_out", 8, 8)], "out_product"), weight("b_out", 8)], "out")
    x = node("LayerNormalization", [node("Add", [x, y], "sum1"), weight("g1", 8), weight("s1", 8)], "normed")
    y = node("Add", [weight("b_up", 16), node("MatMul", [x, weight("w_up", 8, 16)], "up_product")], "up")
    y = node("MatMul", [node("Relu", [y], "active"), weight("w_down", 16, 8)], "down")
    node("LayerNormalization", [node("Add", [x, y], "sum2"), weight("g2", 8), weight("s2", 8)], "last_hidden_state")
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "layer", [helper.make_tensor_value_info("features", kind, [1, 4, 6])],
        [helper.make_tensor_value_info("last_hidden_state", kind, [1, 6, 8])],
        [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_multi_head_attention(biased: bool, causal: bool, tmp_path: Path) -> None:
    """A layer written by hand, with biases as the operator's own, and a product without one."""
    onnx.save(attention_node(biased=biased, causal=causal), tmp_path / "model.onnx")
    graph = import_onnx(tmp_path / "model.onnx").graph
    given = np.random.default_rng(1).normal(size=(1, 4, 6)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"features": given})[0][0]
    found = evaluate(graph, {"features": given[0].T})
    np.testing.assert_allclose(found["0.output"], wanted, rtol=1e-4, atol=1e-5)
    assert graph.by_name["0.context"].attributes()["causal"] == causal

"""ONNX graphs of every family, by both exporters: the same graph as from the checkpoint, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers as hf
from onnx_export import CASES, IDS, MASK, TYPES, Case, export, export_text
from test_families import TEXT, check, saved
from torch import nn

from sta_hw.errors import CheckError, InputError
from sta_hw.model.families import load_network
from sta_hw.model.fp32 import FUNCTIONS, evaluate
from sta_hw.model.graph import Graph
from sta_hw.model.minilm import installed_folder
from sta_hw.model.onnx.importer import TOLERANCE, import_onnx

SENTENCE = [9, 7, 3, 11, 49, 2, 7, 30, 2]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """A family's model and its folder, made once."""
    made: dict[str, tuple[Any, Path]] = {}

    def model(tag: str) -> tuple[Any, Path]:
        if tag not in made:
            folder = tmp_path_factory.mktemp(tag)
            made[tag] = saved(folder, CASES[tag].name, CASES[tag].sizes), folder
        return made[tag]

    return model


def lines(graph: Graph) -> list[str]:
    """Its operations with digests of their arrays, in any order."""
    return sorted(str(graph).splitlines()[1:])


OFTEN = ("roberta", "vit", "whisper")
"""Families that the newer exporter, which takes seconds, writes in every run of the tests; the others in slow ones."""


@pytest.mark.parametrize(
    ("tag", "opset", "attention", "dynamo"),
    [(tag, 11, "eager", False) for tag in CASES] + [(tag, 17, "sdpa", False) for tag in CASES]
    + [pytest.param(tag, 18, "sdpa", True, marks=[] if tag in OFTEN else pytest.mark.slow) for tag in CASES],
)  # fmt: skip
def test_families(
    models: Callable[[str], tuple[Any, Path]], tag: str, opset: int, attention: str, dynamo: bool, tmp_path: Path
) -> None:
    if dynamo:
        pytest.importorskip("onnxscript")
    model, folder = models(tag)
    export(model, tmp_path / "model.onnx", CASES[tag], opset=opset, attention=attention, dynamo=dynamo)
    found = import_onnx(tmp_path / "model.onnx")
    assert found.difference < TOLERANCE
    if tag == "bert-tokens":  # whose pooler is the checkpoint's, too
        assert found.graph.shapes["logits"] == ("tokens", 3)
    assert lines(found.graph) == lines(load_network(folder).graph)


@pytest.mark.parametrize(
    ("opset", "attention", "dynamo"),
    [(14, "sdpa", False), (20, "eager", False), pytest.param(20, "eager", True, marks=pytest.mark.slow),
     (23, "sdpa", True)],
)  # fmt: skip
def test_versions(
    models: Callable[[str], tuple[Any, Path]], opset: int, attention: str, dynamo: bool, tmp_path: Path
) -> None:
    if dynamo:
        pytest.importorskip("onnxscript")
    model, folder = models("bert")
    export(model, tmp_path / "model.onnx", CASES["bert"], opset=opset, attention=attention, dynamo=dynamo)
    assert lines(import_onnx(tmp_path / "model.onnx").graph) == lines(load_network(folder).graph)


def test_against_torch(tmp_path: Path) -> None:
    """Not only what onnxruntime and the checkpoint's importer say."""
    model = export_text(tmp_path / "model.onnx")
    found = import_onnx(tmp_path / "model.onnx")
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([SENTENCE])).last_hidden_state[0].mean(0)
    check(evaluate(found.graph, {"ids": SENTENCE})["embedding"], wanted)
    assert found.left_out == ("pooler_output",) and found.pooling == "mean"
    assert found.assumed == ("attention_mask: ones", "token_type_ids: zeros")


def test_real_weights(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2, whose folder says besides that the embedding has length 1."""
    model = hf.BertModel.from_pretrained(installed_folder()).eval()
    export(model, tmp_path / "model.onnx", Case("BertModel", {}, (IDS, MASK, TYPES)))
    found = lines(import_onnx(tmp_path / "model.onnx").graph)
    wanted = load_network(installed_folder()).graph
    assert set(found) - set(lines(wanted)) == {"  embedding (384) = output mean"}
    assert len(found) == len(wanted.operations) - 1


def test_outputs(tmp_path: Path) -> None:
    model = export_text(tmp_path / "model.onnx")
    found = import_onnx(tmp_path / "model.onnx", "pooler_output")
    with torch.no_grad():
        check(evaluate(found.graph, {"ids": SENTENCE})["embedding"],
              model(input_ids=torch.tensor([SENTENCE])).pooler_output[0])  # fmt: skip
    assert found.left_out == ("last_hidden_state",) and found.pooling == "the graph's own"
    with pytest.raises(InputError, match="has no output 'logits'; it has last_hidden_state, pooler_output"):
        import_onnx(tmp_path / "model.onnx", "logits")
    with pytest.raises(InputError, match="is pooled already"):
        import_onnx(tmp_path / "model.onnx", "pooler_output", "mean")
    with pytest.raises(InputError, match="pooling 'sum' is not supported"):
        import_onnx(tmp_path / "model.onnx", pooling="sum")
    for pooling, wanted in (("first", lambda t: t[0]), ("last", lambda t: t[-1]), ("max", lambda t: t.max(0).values)):
        with torch.no_grad():
            tokens = model(input_ids=torch.tensor([SENTENCE])).last_hidden_state[0]
        graph = import_onnx(tmp_path / "model.onnx", pooling=pooling).graph
        check(evaluate(graph, {"ids": SENTENCE})["embedding"], wanted(tokens))


def test_two_outputs_of_one_product(tmp_path: Path) -> None:
    """Begins and ends of answers are two columns of one linear layer's output."""
    case = Case(
        "DistilBertForQuestionAnswering", CASES["distilbert"].sizes, (IDS, MASK), ("start_logits", "end_logits")
    )
    model = saved(tmp_path, case.name, case.sizes)
    export(model, tmp_path / "model.onnx", case)
    with pytest.raises(InputError, match="has outputs start_logits, end_logits; choose one of them"):
        import_onnx(tmp_path / "model.onnx")
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([SENTENCE]))
    for name in case.outputs:
        graph = import_onnx(tmp_path / "model.onnx", name).graph
        check(evaluate(graph, {"ids": SENTENCE})["logits"][:, 0], wanted[name][0])


def _mean(tokens: Any, ids: Any, mask: Any) -> Any:
    spread = mask.unsqueeze(-1).expand(tokens.size()).float()
    return (tokens * spread).sum(1) / torch.clamp(spread.sum(1), min=1e-9)


POOLINGS: dict[str, Callable[..., Any]] = {
    "mean-of-tokens": lambda tokens, ids, mask: tokens.mean(1),
    "mean-by-mask": _mean,
    "mean-normalized": lambda *given: nn.functional.normalize(_mean(*given), p=2, dim=1),
    "mean-divided-by-norm": lambda *given: (v := _mean(*given)) / v.norm(dim=-1, keepdim=True),
    "first-normalized": lambda tokens, ids, mask: nn.functional.normalize(tokens[:, 0], p=2, dim=1),
    "largest": lambda tokens, ids, mask: tokens.max(1).values,
    "largest-by-mask": lambda tokens, ids, mask: tokens.masked_fill(mask.unsqueeze(-1) == 0, -1e9).max(1).values,
    "last": lambda tokens, ids, mask: tokens[:, -1],
}


@pytest.mark.parametrize(
    ("pooling", "dynamo"),
    [(pooling, False) for pooling in POOLINGS]
    + [pytest.param(p, True, marks=[] if p == "mean-normalized" else pytest.mark.slow) for p in POOLINGS],
)
def test_pooling_in_the_graph(
    models: Callable[[str], tuple[Any, Path]], pooling: str, dynamo: bool, tmp_path: Path
) -> None:
    """As sentence-transformers' exports have it."""
    if dynamo:
        pytest.importorskip("onnxscript")
    model, _ = models("distilbert")
    case = Case("DistilBertModel", {}, (IDS, MASK), ("sentence_embedding",))
    export(model, tmp_path / "model.onnx", case, behind=POOLINGS[pooling], opset=18 if dynamo else 17, dynamo=dynamo)
    found = import_onnx(tmp_path / "model.onnx")
    assert found.pooling == "the graph's own"
    ids = torch.tensor([SENTENCE])
    with torch.no_grad():
        wanted = POOLINGS[pooling](model(input_ids=ids).last_hidden_state, ids, torch.ones_like(ids))[0]
    check(evaluate(found.graph, {"ids": SENTENCE})["embedding"], wanted)


def test_modules_beside_the_graph(tmp_path: Path) -> None:
    from test_checkpoint import sentence_transformer

    model = sentence_transformer(tmp_path, {"pooling_mode_cls_token": True}, ("Normalize", {}))
    (tmp_path / "onnx").mkdir()
    export(model, tmp_path / "onnx" / "model.onnx", CASES["bert"])
    found = import_onnx(tmp_path / "onnx" / "model.onnx")
    assert found.pooling == str(tmp_path / "modules.json")
    with torch.no_grad():
        first = model(input_ids=torch.tensor([SENTENCE])).last_hidden_state[0, 0]
    check(evaluate(found.graph, {"ids": SENTENCE})["embedding"], first / first.norm())


@pytest.mark.parametrize("function", ["relu", "silu", "quick_gelu", "gelu_new", "gelu_pytorch_tanh", "tanh"])
def test_activation_functions(function: str, tmp_path: Path) -> None:
    export_text(tmp_path / "model.onnx", hidden_act=function)
    found = import_onnx(tmp_path / "model.onnx").graph.by_name["0.activated"]
    kind = found.attributes()["function"]
    assert kind in FUNCTIONS and kind == {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}.get(
        function, function
    )


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 1e-2])
@pytest.mark.parametrize("opset", [14, 17])
def test_epsilon(opset: int, epsilon: float, tmp_path: Path) -> None:
    model = saved(tmp_path, "BertModel", TEXT, layer_norm_eps=epsilon)
    export(model, tmp_path / "model.onnx", CASES["bert"], opset=opset)
    assert import_onnx(tmp_path / "model.onnx").graph.by_name["1.output"].attributes()["epsilon"] == epsilon


def test_causal_attention(tmp_path: Path) -> None:
    model = saved(tmp_path, "BertModel", TEXT, is_decoder=True, use_cache=False)
    export(model, tmp_path / "model.onnx", Case("BertModel", TEXT, (IDS, MASK)))
    assert lines(import_onnx(tmp_path / "model.onnx").graph) == lines(load_network(tmp_path).graph)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_widths_and_names_of_inputs(dtype: torch.dtype, tmp_path: Path) -> None:
    """What an input is for follows from what is done with it, where its name does not say so."""
    model = saved(tmp_path, "BertModel", TEXT)
    export(model, tmp_path / "model.onnx", CASES["bert"], dtype=dtype)
    graph = onnx.load(tmp_path / "model.onnx")
    for name in (IDS, MASK, TYPES):
        for node in graph.graph.node:
            for i, given in enumerate(node.input):
                node.input[i] = f"x_{name[:2]}" if given == name else given
        next(i for i in graph.graph.input if i.name == name).name = f"x_{name[:2]}"
    onnx.save(graph, tmp_path / "other.onnx")
    found = import_onnx(tmp_path / "other.onnx")
    assert lines(found.graph) == lines(load_network(tmp_path).graph)
    assert found.assumed == ("x_at: ones", "x_to: zeros")


@pytest.mark.parametrize("tag", ["bert", "roberta", "clip", "whisper"])
def test_fixed_sizes(models: Callable[[str], tuple[Any, Path]], tag: str, tmp_path: Path) -> None:
    model, folder = models(tag)
    export(model, tmp_path / "model.onnx", CASES[tag], fixed=True)
    found = {line for line in lines(import_onnx(tmp_path / "model.onnx").graph) if "position" not in line}
    assert found == {line for line in lines(load_network(folder).graph) if "position" not in line}


@pytest.mark.parametrize("tag", ["deit", "whisper"])
def test_sizes_that_the_file_leaves_free(models: Callable[[str], tuple[Any, Path]], tag: str, tmp_path: Path) -> None:
    """As Optimum exports them; the table of positions says what they are."""
    model, folder = models(tag)
    export(model, tmp_path / "model.onnx", CASES[tag])
    graph = onnx.load(tmp_path / "model.onnx")
    for place in graph.graph.input[0].type.tensor_type.shape.dim:
        place.dim_param = "free"
    onnx.save(graph, tmp_path / "free.onnx")
    assert lines(import_onnx(tmp_path / "free.onnx").graph) == lines(load_network(folder).graph)


def rewired(path: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a graph with something else in it."""
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path.with_name("changed.onnx"))
    return path.with_name("changed.onnx")


def _node(graph: Any, kind: str, number: int = 0) -> Any:
    return [n for n in graph.node if n.op_type == kind][number]


def _squared(graph: Any) -> None:
    node = _node(graph, "Softmax")
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 2, 9, 9), np.float32) * 2, "twos"))
    graph.node.insert(list(graph.node).index(node), onnx.helper.make_node("Pow", [node.input[0], "twos"], ["powers"]))
    node.input[0] = "powers"


def _mish(graph: Any) -> None:
    node = _node(graph, "Gelu")
    node.op_type = "Mish"
    del node.attribute[:]


def _hardmax(graph: Any) -> None:
    node = _node(graph, "Gelu")
    node.op_type = "Hardmax"
    del node.attribute[:]


def _other_axis(graph: Any) -> None:
    node = _node(graph, "Softmax", 1)
    node.attribute[0].i = 2


def _scale(graph: Any) -> None:
    node = _node(graph, "Softmax")
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2), "two"))
    graph.node.insert(list(graph.node).index(node), onnx.helper.make_node("Mul", [node.input[0], "two"], ["twice"]))
    node.input[0] = "twice"


def _residual(graph: Any) -> None:
    """The second layer's first sum takes what the first sum of the first layer had."""
    sums = [n for n in graph.node if n.op_type == "LayerNormalization"]
    adds = {n.output[0]: n for n in graph.node if n.op_type == "Add"}
    adds[sums[3].input[0]].input[1] = adds[sums[1].input[0]].input[1]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_mish, r"a function of every element of Linear that is none of gelu, .*"),
        (_hardmax, r"operator Hardmax of node '.*' \(on linear\) is not supported here: it is not known"),
        (_squared, r"operator Softmax of node .*softmax of something else"),
        (_other_axis, r"operator Softmax of node '.*' .* softmax over another axis"),
        (_scale, r"operator MatMul of node .*scores are multiplied by 0.5"),
        (_residual, r"no encoder that is supported: at operator \w+ of node '.*', \w+: .*at once"),
    ],
)  # fmt: skip
def test_what_is_not_understood(
    models: Callable[[str], tuple[Any, Path]], change: Callable[[Any], None], problem: str, tmp_path: Path
) -> None:
    model, _ = models("bert")
    export(model, tmp_path / "model.onnx", CASES["bert"], opset=20, fixed=True, attention="eager")
    with pytest.raises(InputError, match=problem):
        import_onnx(rewired(tmp_path / "model.onnx", change))


def test_a_difference_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_text(tmp_path / "model.onnx")
    monkeypatch.setitem(FUNCTIONS, "gelu", lambda x: FUNCTIONS["gelu_tanh"](x) * np.float32(1.00005))
    monkeypatch.delitem(FUNCTIONS, "relu")
    with pytest.raises((CheckError, InputError), match=r"differs from onnxruntime|none of"):
        import_onnx(tmp_path / "model.onnx")

"""What a graph does with tokens and lengths that a short sample does not hold: refused, or a difference is noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_export import IDS, export_text

from sta_hw.errors import CheckError, InputError
from sta_hw.model.onnx.importer import TOLERANCE, import_onnx
from sta_hw.model.onnx.session import Session


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert") / "model.onnx"
    export_text(path)
    assert import_onnx(path).difference < TOLERANCE
    return path


class Editor:
    """A graph into which nodes are put.

    Attributes
    ----------
    graph : the graph
    special : int
        A token that no short sample holds.
    """

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path)
        self.graph = self.model.graph
        session = Session(path)
        seen = {int(t) for sample in session.samples() for t in sample[IDS].reshape(-1)}
        self.special = next(t for t in range(8, 50) if t not in seen)
        self._made: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"constant{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"made{len(self._made)}"
        self._made.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def behind(self, name: str, change: Callable[[str], str]) -> None:
        """Put what `change` makes of a tensor in its place."""
        giver = next(n for n in self.graph.node if name in n.output)
        giver.output[list(giver.output).index(name)] = "before"
        self._made.append(helper.make_node("Identity", [change("before")], [name]))

    def saved(self, path: Path) -> Path:
        self.graph.node.extend(self._made)
        onnx.save(self.model, path)
        return path

    def output_of(self, kind: str, number: int = 0) -> str:
        found: str = [n for n in self.graph.node if n.op_type == kind][number].output[0]
        return found

    def words(self) -> str:
        return next(n.output[0] for n in self.graph.node if n.op_type == "Gather" and IDS in n.input[1])

    def ordinary(self) -> str:
        """1 for every token but the special one, 0 for that."""
        other = self.node("Not", self.node("Equal", IDS, self.constant(np.int64(self.special))))
        return self.node("Cast", other, to=TensorProto.FLOAT)

    def length(self) -> str:
        return self.node("Gather", self.node("Shape", IDS), self.constant(np.int64(1)), axis=0)


def _no_word(e: Editor) -> None:
    """The special token's row is zero."""
    mask = e.node("Unsqueeze", e.ordinary(), e.constant(np.array([-1])))
    e.behind(e.words(), lambda name: e.node("Mul", name, mask))


def _no_output(e: Editor) -> None:
    condition = e.node("Cast", e.node("Unsqueeze", e.ordinary(), e.constant(np.array([-1]))), to=TensorProto.BOOL)
    e.behind("last_hidden_state", lambda name: e.node("Where", condition, name, e.constant(np.float32(0))))


def _no_score(e: Editor) -> None:
    """The special token is padding."""
    wide = e.node("Unsqueeze", e.ordinary(), e.constant(np.array([1, 2])))
    mask = e.node("Mul", e.node("Sub", e.constant(np.float32(1)), wide), e.constant(np.float32(-1e9)))
    node = next(n for n in e.graph.node if n.op_type == "Softmax")
    node.input[0] = e.node("Add", node.input[0], mask)


def _other_word(e: Editor) -> None:
    """The special token has another's row."""
    node = next(n for n in e.graph.node if n.op_type == "Gather" and IDS in n.input[1])
    same = e.node("Equal", IDS, e.constant(np.int64(e.special)))
    node.input[1] = e.node("Where", same, e.constant(np.int64(9)), IDS)


def _second_type(e: Editor) -> None:
    """What stands behind the special token has another token type."""
    same = e.node("Cast", e.node("Equal", IDS, e.constant(np.int64(e.special))), to=TensorProto.INT64)
    later = e.node("Min", e.node("CumSum", same, e.constant(np.int64(1))), e.constant(np.int64(1)))
    types = next(n for n in e.graph.node if n.op_type == "Gather" and n.input[1] == "token_type_ids")
    types.input[1] = later


def _window(e: Editor) -> None:
    """Tokens attend to 30 on each side."""
    count = e.node("Range", e.constant(np.int64(0)), e.length(), e.constant(np.int64(1)))
    rows, columns = (e.node("Unsqueeze", count, e.constant(np.array([a]))) for a in (1, 0))
    far = e.node("Greater", e.node("Abs", e.node("Sub", rows, columns)), e.constant(np.int64(30)))
    node = next(n for n in e.graph.node if n.op_type == "Softmax")
    node.input[0] = e.node("Where", far, e.constant(np.float32(-1e9)), node.input[0])


def _first_tokens(e: Editor) -> None:
    """Of a longer text the first 20 tokens count."""
    bounds = [e.constant(np.array([n])) for n in (0, 20, 1)]
    e.behind("last_hidden_state", lambda name: e.node("Slice", name, *bounds))


def _number_of_tokens(e: Editor) -> None:
    count = e.node("Cast", e.node("Max", e.length(), e.constant(np.int64(20))), to=TensorProto.FLOAT)
    factor = e.node("Div", count, e.constant(np.float32(20)))
    e.behind("last_hidden_state", lambda name: e.node("Mul", name, factor))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_no_word, r"operator Mul of node 'made\d+' .* in the token ids itself"),
        (_no_output, r"operator Where of node 'made\d+' .* in the token ids itself"),
        (_no_score, r"operator Add of node 'made\d+' .* in the token ids itself"),
        (_other_word, r"operator Gather of node .*rows (of a table by something else than token|for token \d+ than)"),
        (_second_type, r"operator Gather of node .* takes other rows for token \d+ than for others"),
        (_window, "differs from onnxruntime"),
        (_first_tokens, "differs from onnxruntime"),
        (_number_of_tokens, "differs from onnxruntime"),
    ],
)
def test_what_a_short_text_does_not_show(
    bert: Path, change: Callable[[Editor], None], problem: str, tmp_path: Path
) -> None:
    editor = Editor(bert)
    change(editor)
    with pytest.raises((InputError, CheckError), match=problem):
        import_onnx(editor.saved(tmp_path / "changed.onnx"))


@pytest.mark.parametrize("limit", [20.0, 5000.0])
def test_functions_that_are_cut_off_far_from_zero(bert: Path, limit: float, tmp_path: Path) -> None:
    editor = Editor(bert)
    editor.behind(
        editor.output_of("Mul", -1), lambda name: editor.node("Min", name, editor.constant(np.float32(limit)))
    )
    with pytest.raises(InputError, match="a function of every element of Linear that is none of gelu"):
        import_onnx(editor.saved(tmp_path / "changed.onnx"))


def test_a_bias_with_rows(bert: Path, tmp_path: Path) -> None:
    """Gemm's may be a matrix of one row; more belong to tokens."""
    for rows in (1, 2):
        editor = Editor(bert)
        node = next(n for n in editor.graph.node if n.op_type == "Gemm")
        bias = next(numpy_helper.to_array(i) for i in editor.graph.initializer if i.name == node.input[2])
        node.input[2] = editor.constant(np.tile(bias, (rows, 1)))
        path = editor.saved(tmp_path / "changed.onnx")
        if rows == 1:
            assert import_onnx(path, "pooler_output").difference < TOLERANCE
        else:
            with pytest.raises(InputError, match=r"a bias of 2 rows|onnxruntime cannot run it"):
                import_onnx(path, "pooler_output")


def test_sparse_tensors(bert: Path, tmp_path: Path) -> None:
    """As an initializer, and as a constant."""
    for constant in (False, True):
        editor = Editor(bert)
        graph = editor.graph
        dense = next(i for i in graph.initializer if "MatMul" in i.name)
        values = numpy_helper.from_array(numpy_helper.to_array(dense).reshape(-1), dense.name)
        places = numpy_helper.from_array(np.arange(np.prod(dense.dims)))
        sparse = helper.make_sparse_tensor(values, places, list(dense.dims))
        graph.initializer.remove(dense)
        if constant:
            graph.node.insert(0, helper.make_node("Constant", [], [dense.name], sparse_value=sparse))
        else:
            graph.sparse_initializer.append(sparse)
        with pytest.raises(InputError, match=r"MatMul_\d+' is (a sparse|no dense) tensor"):
            import_onnx(editor.saved(tmp_path / "changed.onnx"))


@pytest.mark.parametrize("sizes", [(1, 10**9), (1, 5000), (1, 2**62), (1, -3)])
def test_sizes_of_texts(bert: Path, sizes: tuple[int, int], tmp_path: Path) -> None:
    editor = Editor(bert)
    for given in editor.graph.input:
        given.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.INT64, sizes))
    with pytest.raises(InputError, match=rf"has sizes \(1, {sizes[1]}\); they are positive, and 4,096 values in all"):
        import_onnx(editor.saved(tmp_path / "changed.onnx"))

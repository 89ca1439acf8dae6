"""What a file of a compiled model says of itself, field by field: what is right, and what is just not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sta_hw.compiler.description import check_places, configuration, described_fields
from sta_hw.compiler.packing import Place
from sta_hw.spec.config import Config
from sta_hw.spec.presets import PRESETS

CONFIG = PRESETS["ci"]
LAYER = {
    "layer": "0.query", "columns": 4, "reduction": 8, "nm": "2:4", "used": "dense", "encoding": "bitmap", "depth": 2,
    "passes": 1, "chunk": 4, "work": 16.0, "bytes": 0, "why_not": "",
}  # fmt: skip


def described() -> dict[str, Any]:
    """A description as JSON gives it back: of two texts, in row tiles of four."""
    info = {
        "layers": [dict(LAYER)], "buffers": {"a": [0, 4, 2], "b": [64, 1, 1]},
        "values": {"0.query": {"operation": "linear", "layer": 0, "value": "q", "buffers": ["a", "b"]},
                   "embedding": {"operation": "mean", "layer": None, "value": "mean", "buffers": []}},
        "mean_windows": None, "places": [["program", 0, 64], ["unused", 64, 0]], "outputs": "b", "input_width": 1,
        "ideal_cycles": 1e-9, "embedded_scale": 0.0, "output_scale": 1, "outputs_scale": 0.5,
        "pooled_shares": [1.0, 1e-3],
    }  # fmt: skip
    return {
        "configuration": json.loads(json.dumps(CONFIG.as_dict())), "hash": CONFIG.hash, "tokens": 4, "hidden": 1,
        "program_address": 0, "input_address": 64, "output_address": 0, "labels": ["halt"],
        "texts": [[0, 3], [5, 1]], "info": info, "provenance": None,
    }  # fmt: skip


def test_what_is_right() -> None:
    found = described_fields(described())
    assert found["texts"] == (Place(0, 3), Place(5, 1)) and found["hidden"] == 1 and found["provenance"] is None
    info = found["info"]
    assert info.layers[0].used == "dense" and info.buffers == {"a": (0, 4, 2), "b": (64, 1, 1)}
    assert info.values["0.query"].buffers == ("a", "b") and info.values["embedding"].layer is None
    assert info.places == (("program", 0, 64), ("unused", 64, 0)) and info.mean_windows is None
    assert info.pooled_shares == (1.0, 1e-3)
    given = described()
    given["info"]["mean_windows"], given["texts"] = [0, 0, 0], [[0, 3], [3, 1]]
    assert described_fields(given)["info"].mean_windows == (0, 0, 0)
    assert configuration(described()) == CONFIG


WRONG: dict[str, tuple[tuple[Any, ...], Any]] = {
    "tokens = 0 is no whole number from 1 on": (("tokens",), 0),
    "hidden = True is no whole number": (("hidden",), True),
    "hidden = 1.0 is no whole number": (("hidden",), 1.0),
    "program_address = -1 is no address": (("program_address",), -1),
    "output_address = None is no address": (("output_address",), None),
    "labels are no list of names": (("labels",), ["halt", 1]),
    "labels are no list": (("labels",), "halt"),
    "it has no figures": (("info",), []),
    "its figures are other ones: more": (("info", "more"), 1),
    "ideal_cycles = 0 is no number above 0": (("info", "ideal_cycles"), 0),
    "output_scale = True is no number": (("info", "output_scale"), True),
    "outputs_scale = inf is no number": (("info", "outputs_scale"), float("inf")),
    "embedded_scale = -1 is no number": (("info", "embedded_scale"), -1),
    "input_width = 0 is no whole number from 1": (("info", "input_width"), 0),
    "it has no buffers": (("info", "buffers"), []),
    r"buffer 'a' is \[0, 4\], not": (("info", "buffers", "a"), [0, 4]),
    r"buffer 'b' is \[0, 4, -1\], not": (("info", "buffers", "b"), [0, 4, -1]),
    "buffer 'b' is 'abc', not": (("info", "buffers", "b"), "abc"),
    "outputs are in 'c', which is no buffer": (("info", "outputs"), "c"),
    r"mean_windows are \[1, 2\], not address": (("info", "mean_windows"), [1, 2]),
    r"mean_windows are \[1, 2, -3\], not address": (("info", "mean_windows"), [1, 2, -3]),
    "mean_windows are abc, not address": (("info", "mean_windows"), "abc"),
    "it has no values": (("info", "values"), []),
    "values of '0.query' are 1, not": (("info", "values", "0.query"), 1),
    "values of '0.query' are .*'operation': 1": (("info", "values", "0.query", "operation"), 1),
    "values of '0.query' are .*'value': None": (("info", "values", "0.query", "value"), None),
    "values of '0.query' are .*'layer': -1": (("info", "values", "0.query", "layer"), -1),
    "values of '0.query' are .*not operation, layer": (("info", "values", "0.query", "buffers"), ["a", "c"]),
    "values of 'embedding' are .*not operation, layer": (("info", "values", "embedding", "buffers"), "ab"),
    "values of 'embedding' are .*not operation": (("info", "values", "embedding", "more"), 1),
    "texts are no list of first rows": (("texts",), []),
    "texts are no list": (("texts",), [[0, 4, 0]]),
    "texts are no list of": (("texts",), "ab"),
    "texts are no list of first rows and": (("texts",), [[0, 3], 1]),
    "a text at row 2 of 1 tokens is no place": (("texts", 1), [2, 1]),
    "a text at row 5 of 0 tokens is no place": (("texts", 1), [5, 0]),
    "a text at row -1 of 3 tokens": (("texts", 0), [-1, 3]),
    "the texts have other than 4 tokens": (("texts", 1), [5, 2]),
    "pooled_shares are .* for each of 2 texts": (("info", "pooled_shares"), [1.0]),
    r"pooled_shares are \[1.0, 0\], not": (("info", "pooled_shares"), [1.0, 0]),
    r"pooled_shares are \[1.0, True\], not": (("info", "pooled_shares"), [1.0, True]),
    "pooled_shares are ab, not": (("info", "pooled_shares"), "ab"),
    "places are .*, not name, offset and bytes each": (("info", "places", 1), ["unused", 64]),
    r"places are .*\['unused', -1, 0\]": (("info", "places", 1), ["unused", -1, 0]),
    r"places are .*\['unused', 64, -1\]": (("info", "places", 1), ["unused", 64, -1]),
    r"places are .*\[3, 64, 0\]": (("info", "places", 1), [3, 64, 0]),
    "places are None": (("info", "places"), None),
    "places are .*'abc'": (("info", "places", 1), "abc"),
    "layers are no list of objects": (("info", "layers"), {}),
    "layers are no list": (("info", "layers", 0), 1),
    "layer '0.query' has not the figures of this version: more": (("info", "layers", 0, "more"), 1),
    "layer '0.query': encoding = 1 is no text": (("info", "layers", 0, "encoding"), 1),
    "layer '0.query': work = -1 is no size": (("info", "layers", 0, "work"), -1),
    "layer '0.query': depth = True is no size": (("info", "layers", 0, "depth"), True),
    "layer '0.query': .*'3:4'|layer '0.query': .*x": (("info", "layers", 0, "nm"), "x"),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_just_not(said: str) -> None:
    given = described()
    (*path, last), value = WRONG[said]
    place: Any = given
    for key in path:
        place = place[key]
    place[last] = value
    with pytest.raises(ValueError, match=f"^{said}"):
        described_fields(given)


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    given = described()
    change(given)
    return given


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("configuration"), "it has no configuration of the hardware"),
        (lambda d: d["configuration"].update(more=1), "its configuration has other parameters"),
        (lambda d: d["configuration"].pop("rows"), "its configuration has other parameters"),
        (lambda d: d["configuration"].update(rows=0), "its configuration: "),
        (lambda d: d["configuration"].update(rows="abc"), "its configuration: "),
        (lambda d: d.update(hash="abc"), f"it names hardware abc, and has {CONFIG.hash}"),
    ],
)
def test_configurations(change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        configuration(changed(change))


def places(size: int, **at: int) -> str:
    """What is said of a program, an input and an output in an image of so many bytes; nothing if they are in it."""
    fields = {"program_address": 0, "input_address": 0, "output_address": 0} | at
    described_by = described()
    info = described_by["info"] | {"input_width": 40}
    found = described_fields(described_by | fields | {"hidden": 50, "info": info})
    try:
        check_places(found, Config(rows=4, groups=4), size)
    except ValueError as error:
        return str(error)
    return ""


def test_what_lies_in_the_image() -> None:
    """64 bytes of a program's header; two row tiles of inputs, 40 wide; one tile of outputs, 50 wide, of 16 bits."""
    assert not places(1000, program_address=936, input_address=360, output_address=600)
    assert "program_address = 937: 64 bytes there are not all in the image's 1000" in places(1000, program_address=937)
    assert "input_address = 361: 640 bytes there" in places(1000, input_address=361)
    assert "output_address = 601: 400 bytes there" in places(1000, output_address=601)

"""Points: how many, which cannot be, and what makes two of them the same question."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

import pytest

import sta_hw
from sta_hw.errors import InputError
from sta_hw.explore import question
from sta_hw.explore.question import SOURCES, Question
from sta_hw.explore.subjects import of_shape, read_shape
from sta_hw.explore.sweep import Hardware, Memory, sweep
from sta_hw.fpga.parts import PARTS
from sta_hw.spec.presets import PRESETS

PART = PARTS["lfe5u-85f"]
SMALL = {"hidden": 64, "heads": 2, "layers": 2, "intermediate": 128}


def test_every_point_is_there_or_refused() -> None:
    config = PRESETS["small"]
    hardware = [
        Hardware("small", config), Hardware("bad", None, ("no.",)), Hardware("the same", config),
        Hardware("wide", dataclasses.replace(config, groups=12)),
        Hardware("ci", PRESETS["ci"]),
    ]  # fmt: skip
    subject = dataclasses.replace(of_shape(SMALL, "dense,2:4", [8, 16, 900]), problems={900: "too many."})
    points, refused = sweep(hardware, [subject], PART, Memory(bytes_per_cycle=2.0))
    assert {(p.hardware, p.nm, p.tokens) for p in points} == {
        (h, nm, t) for h in ("small", "ci") for nm in ("dense", "2:4") for t in (8, 16)
    }
    assert {r.name: r.points for r in refused} == {"bad": 6, "wide": 6, subject.name + ", 900 tokens": 6}
    assert "groups a power of two" in next(r for r in refused if r.name == "wide").problems[0]
    # Four configurations' points (two of which are one), one configuration's are refused for their tokens.
    contents = {p.hardware: p.question.content for p in points}
    assert contents["small"]["configuration"]["multiplier"] == "dsp"  # 85F has as many
    assert contents["small"]["memory"]["beats_per_cycle"] == 0.25 and contents["ci"]["memory"]["beats_per_cycle"] == 0.5
    kept, _ = sweep(hardware[:1], [subject], PART, Memory(), choose=False)
    assert kept[0].config == config and kept[0].question.content["memory"]["beats_per_cycle"] == 1.0


def test_too_many_points() -> None:
    subject = of_shape(SMALL, "dense,2:4", range(1, 1001))
    with pytest.raises(InputError, match=r"122,000 points; an exploration has 100,000"):
        sweep([Hardware("h", PRESETS["small"])] * 61, [subject], PART, Memory())


def test_keys_are_those_of_the_content() -> None:
    subject = of_shape(SMALL, "2:4", [8])
    (point,), _ = sweep([Hardware("h", PRESETS["small"])], [subject], PART, Memory())
    content: dict[str, Any] = dict(point.question.content)
    same = Question("point", dict(reversed(content.items())), {"folder": "/elsewhere"})
    assert same.key == point.question.key
    others = [
        {"configuration": content["configuration"] | {"burst": 32}}, {"shape": content["shape"] | {"layers": 3}},
        {"tokens": 9}, {"nm": content["nm"] | {"1.output.dense": "1:4"}}, {"part": "lfe5u-45f"},
        *({"memory": content["memory"] | change} for change in ({"latency": 9}, {"shared": True}, {"bytes": 9})),
    ]  # fmt: skip
    keys = {Question("point", content | other).key for other in others}
    assert len(keys) == len(others) and point.question.key not in keys


def test_another_version_asks_another_question(monkeypatch: pytest.MonkeyPatch) -> None:
    found = question.versions("point")
    assert set(found) == {"sta-hw", "numpy", "sources"}
    before = Question("point", {}).key
    monkeypatch.setattr(question, "versions", lambda kind: found | {"numpy": "1"})
    assert Question("point", {}).key != before


@pytest.mark.parametrize(
    ("kind", "begin"),
    [
        ("point", ("report.plan", "fpga.fit", "fpga.parts", "cycles.timing")),
        ("accuracy", ("report.accuracy", "tasks.embedder")),
        ("synthesis", ("fpga.flow", "fpga.synthesis", "fpga.routing", "fpga.parts")),
    ],
)
def test_all_that_computes_an_answer_is_in_its_versions(kind: str, begin: tuple[str, ...]) -> None:
    """Whatever these modules import of the folders that hold arithmetic."""
    root = Path(sta_hw.__file__).parent
    done = {root / "__init__.py"}  # what it imports is for type checkers, or on demand

    def follow(path: Path) -> None:
        if path in done or not path.exists():
            return
        done.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                for other in (base, *(base / alias.name for alias in node.names)):
                    follow(other.with_suffix(".py"))
                    follow(other / "__init__.py")

    for module in begin:
        follow(root.joinpath(*module.split(".")).with_suffix(".py"))
    names = {str(p.relative_to(root)) for p in done}
    covered = {n for n in names if any(n == s or n.startswith(f"{s}/") for s in SOURCES[kind])}
    # What only reads files, starts programs and refuses.
    others = {"__init__.py", "arguments.py", "cache.py", "errors.py", "files.py", "process.py", "report/__init__.py"}
    assert names - covered <= others


@pytest.mark.parametrize(
    "text",
    ["hidden=64", "hidden=64,heads=2", "hidden=64,heads=2,layers=two", "hidden=64,heads=2,layers=0", "",
     "hidden=64,heads=2,layers=1,hidden=64", "hidden=64,heads=2,layers=1,width=4", "hidden=64,heads=2,layers=2000"],
)  # fmt: skip
def test_bad_shapes(text: str) -> None:
    with pytest.raises(InputError):
        read_shape(text)


def test_shapes() -> None:
    assert read_shape("layers=1, heads=2,hidden=64") == {"hidden": 64, "heads": 2, "layers": 1, "intermediate": 256}
    assert read_shape("layers=1,heads=2,hidden=64,intermediate=8")["intermediate"] == 8

"""Plans: every figure is what the compiler, the cycle model and the reference give on their own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli_sparsity import run
from test_families import IMAGE, TEXT, saved
from test_page import EVIL, Tags

from boards import BOARDS
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.limits import sizes_of
from sta_hw.compiler.quantize import quantize
from sta_hw.compiler.shape import estimate_encoder
from sta_hw.cycles.timing import MachineTiming
from sta_hw.model.families.layers import LINEAR
from sta_hw.model.minilm import evaluation_sentences
from sta_hw.model.random import random_ids, random_model
from sta_hw.report.accuracy import compared_outputs, cosines
from sta_hw.report.plan import Choice, Shape, Target, judge, plan
from sta_hw.report.plan_page import plan_page
from sta_hw.run.backends import ReferenceBackend
from sta_hw.spec.patterns import parse_nm
from sta_hw.spec.presets import PRESETS, preset
from sta_hw.tasks.embedder import Embedder

SHAPE = Shape(hidden=64, heads=4, layers=3, intermediate=128, tokens=20)
SLOW = MachineTiming(15, 0.3, shared=True)


def patterns(nm: str) -> dict[str, Any]:
    return {f"{layer}.{name}": parse_nm(nm) for layer in range(SHAPE.layers) for name in LINEAR.values()}


def test_figures_are_those_of_compiler_and_cycle_model() -> None:
    targets = [
        Target("board", preset("ecp5-25f"), 80.0, SLOW, 1 << 25), Target("ci", preset("ci"), 50.0, MachineTiming()),
    ]  # fmt: skip
    choices = {nm: patterns(nm) for nm in ("dense", "2:4")}
    rows = plan(SHAPE, targets, choices, {"2:4": 0.9})
    assert [(r.target, r.nm) for r in rows] == [(t.name, nm) for t in targets for nm in choices]
    model = random_model(0, hidden=SHAPE.hidden, heads=SHAPE.heads, layers=SHAPE.layers, intermediate=128)
    for row, (target, nm) in zip(rows, [(t, nm) for t in targets for nm in choices], strict=True):
        assert row.fits and not row.problems
        sizes = (SHAPE.hidden, SHAPE.heads, SHAPE.layers, SHAPE.intermediate)
        found = estimate_encoder(*sizes, choices[nm], target.config, SHAPE.tokens, target.timing, alike=True)
        program = compile_encoder(quantize(model, [random_ids(0, 9)], choices[nm]), target.config, SHAPE.tokens)
        assert row.cycles == round(found.cycles) and row.bytes == len(program.image)
        assert row.milliseconds == pytest.approx(row.cycles / target.megahertz / 1000)
        assert row.fraction_of_ideal == pytest.approx(program.info.ideal_cycles / row.cycles, rel=1e-4)
        assert row.cosine == (0.9 if nm == "2:4" else None)
    for dense, sparse in (rows[:2], rows[2:]):
        assert dense.speedup == 1.0 and sparse.speedup == pytest.approx(dense.cycles / sparse.cycles, rel=1e-4)
        assert sparse.speedup > 1.1 and sparse.bytes < dense.bytes


def test_bytes_of_a_program_whose_loops_are_cut_short() -> None:
    """More chunks of columns than an outline keeps: those left out have bytes all the same."""
    config = preset("ecp5-45f")
    shape = Shape(hidden=384, heads=12, layers=2, intermediate=1536, tokens=40)
    row = plan(shape, [Target("45f", config, 80.0, MachineTiming())], {"dense": {}}, {})[0]
    model = random_model(0, hidden=384, heads=12, layers=2, intermediate=1536)
    assert row.bytes == len(compile_encoder(quantize(model, [random_ids(0, 5)]), config, 40).image)


def test_whether_memory_holds_it_is_said_of_the_program_as_it_is() -> None:
    """Its loops make it smaller than the bound that is quickly found: memory between the two is enough."""
    shape = Shape(hidden=16, heads=2, layers=2, intermediate=16, tokens=4)

    def row(memory: int | None) -> Choice:
        return judge(shape, Target("", preset("ci"), 80.0, MachineTiming(), memory), "dense", {})

    quick = row(None).bytes
    assert quick is not None and row(quick).bytes == quick
    nearly = row(quick - 1)
    assert nearly.fits and nearly.bytes is not None and nearly.bytes < quick - 1
    little = row(nearly.bytes - 1)
    assert not little.fits and f"takes {nearly.bytes:,} bytes" in little.problems[0]


def test_what_does_not_fit_says_why() -> None:
    big = dataclasses.replace(SHAPE, intermediate=2048)
    targets = [
        Target("narrow", preset("ecp5-25f"), 80.0, SLOW, 1 << 25),
        Target("little", preset("ci"), 80.0, SLOW, 100_000),
        Target("engine", preset("up5k"), 24.0, SLOW, None, "it has the engine alone, which runs no programs."),
        Target("fixed", dataclasses.replace(preset("ci"), nm=("2:4",)), 80.0, SLOW),
    ]
    rows = {(r.target, r.nm): r for r in plan(big, targets, {n: patterns(n) for n in ("dense", "2:16")}, {})}
    narrow = rows["narrow", "dense"]
    assert not narrow.fits and narrow.cycles is None and "weight_words = 2048; 4096 would do" in narrow.problems[0]
    little = rows["little", "2:16"]
    assert not little.fits and little.cycles and "and the memory has 100,000." in little.problems[-1]
    assert rows["engine", "dense"].problems == ("it has the engine alone, which runs no programs.",)
    fixed = rows["fixed", "2:16"]
    assert not fixed.fits and "not built into this hardware" in fixed.problems[0]


def test_the_page_shows_names_as_they_are() -> None:
    rows = [
        Choice(EVIL, "2:4", 10, 1.0, 0.5, 2.0, 100, 0.9, True, ()),
        Choice(EVIL, "2:16", 5, 0.5, 0.5, 4.0, 50, None, False, (EVIL,)),
        Choice("none", "2:16", None, None, None, None, None, None, False, ("no.",)),
    ]
    page = plan_page(EVIL, EVIL, rows, [{"board": EVIL}])
    parser = Tags()
    parser.feed(page)
    assert "script" not in parser.found and "img" not in parser.found and "svg" in parser.found
    assert parser.text.count(EVIL) == 6  # title, heading, sentence, cell; the problem and whose it is


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "the", "a", "of", "is"]
    saved(folder, "BertModel", TEXT | {"vocab_size": len(words), "num_hidden_layers": 1})
    (folder / "vocab.txt").write_text("\n".join(words))
    return folder


def test_command(small: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "plan.html"
    arguments = ("plan", small, "--nm", "dense,2:4", "--board", "ulx3s-25f", "--board", "icebreaker", "--preset", "ci")
    found = json.loads(run(*arguments, "--tokens", "9", "--inputs", "2", "-o", page, "--json").stdout)
    assert found["tokens"] == 9 and found["inputs"] == 2 and "<svg" in page.read_text()
    rows = {(r["target"], r["nm"]): r for r in found["rows"]}
    assert set(rows) == {(t, nm) for t in ("ulx3s-25f", "icebreaker", "ci") for nm in ("dense", "2:4")}
    board = BOARDS["ulx3s-25f"]
    timing = MachineTiming(15, board.sdram.bytes_per_cycle / board.config.bus_bytes, shared=True)
    embedder = Embedder.load(small)
    sizes = sizes_of(embedder.part.inner)
    dense = rows["ulx3s-25f", "dense"]
    assert dense["cycles"] == round(
        estimate_encoder(**sizes, patterns={}, config=board.config, tokens=9, timing=timing, alike=True).cycles
    )
    assert not rows["icebreaker", "2:4"]["fits"] and rows["icebreaker", "2:4"]["cycles"] is None
    # Accuracy, one sentence after the other through the reference.
    each = []
    for sentence in evaluation_sentences()[:2]:
        given = embedder.part.embed("ids", embedder.token_ids(sentence)[: embedder.network.graph.most_tokens])
        program = compile_encoder(embedder.quantize({}), PRESETS["reference"], len(given))
        got = ReferenceBackend(PRESETS["reference"]).run(program, given).embedding
        each.append(float(got @ embedder.exact(given)))
    assert dense["cosine"] == pytest.approx(np.mean(each)) and dense["smallest_cosine"] == pytest.approx(min(each))
    assert rows["ci", "2:4"]["cosine"] == rows["ulx3s-25f", "2:4"]["cosine"] < dense["cosine"]
    # As a table, within 80 columns; boards that are alike are one.
    text = run("plan", small, "--nm", "2:4", "--inputs", "0", "-o", page).stdout
    assert max(map(len, text.splitlines()[1:-1])) <= 80 and "icesugar" in text and "ulx3s-85f" in text


def test_images(tmp_path: Path) -> None:
    saved(tmp_path, "ViTModel", IMAGE | {"num_hidden_layers": 1})
    arrays = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "images.npy", arrays)
    options = ("plan", tmp_path, "--nm", "dense", "--preset", "ci", "-o", tmp_path / "p.html", "--json")
    without = json.loads(run(*options).stdout)
    assert without["inputs"] == 0 and without["tokens"] == 17 and without["rows"][0]["cosine"] is None
    images = ("--input", tmp_path / "images.npy", "--calibration", tmp_path / "images.npy")
    found = json.loads(run(*options, *images, "--inputs", "2").stdout)
    assert found["inputs"] == 2 and found["rows"][0]["cosine"] > 0.99
    assert "this model has 17" in run(*options, "--tokens", "16", status=2).stderr


def test_outputs_of_one_model_are_its_own(small: Path) -> None:
    embedder = Embedder.load(small)
    given = [embedder.read(text, None) for text in ("the a", "of a is the a")]
    found, exact = compared_outputs(embedder, embedder, {}, PRESETS["ci"], given)
    assert found.shape == exact.shape == (2, embedder.part.inner.shapes[embedder.part.inner.operations[-1].name][-1])
    assert (cosines(found, exact) > 0.99).all() and cosines(found, -exact)[0] < -0.99
    assert cosines(np.zeros((1, 3)), np.ones((1, 3)))[0] == 0

"""A decoder is trained here, for boards with SDRAM: it learns, and a simulated board writes its text."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from boards import board
from sta_hw.compiler.decoder.integers import ROLES, Rules
from sta_hw.compiler.prune import pruning_sentences
from sta_hw.errors import InputError
from sta_hw.model.minilm import evaluation_sentences
from sta_hw.run.decoder import ProgramDecoder
from sta_hw.run.machines import BoardMachine, decoder_machine
from sta_hw.spec.presets import PRESETS, preset
from sta_hw.tasks.text import TextModel, load_text_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_decoder.py"


def script() -> Any:
    specification = importlib.util.spec_from_file_location("train_decoder", SCRIPT)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module
    specification.loader.exec_module(module)
    return module


TRAIN = script()
SETTINGS = TRAIN.Settings(hidden=64, layers=1, vocabulary=384, context=64, steps=150, batch=4, head=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained")
    losses = TRAIN.train(path, pruning_sentences(), SETTINGS)
    assert len(losses) == 150 and np.mean(losses[-10:]) < np.mean(losses[:10]) - 1
    return path


def test_the_same_again(folder: Path, tmp_path: Path) -> None:
    """Byte for byte; another seed gives another model."""
    TRAIN.train(tmp_path / "same", pruning_sentences(), SETTINGS)
    TRAIN.train(tmp_path / "other", pruning_sentences(), replace(SETTINGS, seed=1, steps=1))
    for file in sorted(folder.iterdir()):
        assert file.read_bytes() == (tmp_path / "same" / file.name).read_bytes(), file.name
    tensors, others = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "other"))
    assert tensors.keys() == others.keys() and any(not np.array_equal(tensors[n], others[n]) for n in tensors)


class BrokenOffError(Exception):
    """Power is gone."""


def test_a_run_that_was_broken_off_goes_on(folder: Path, tmp_path: Path) -> None:
    """To the same bytes; a state of another width is refused."""

    def report(text: str) -> None:
        if text.startswith("step 75 of 150"):
            raise BrokenOffError

    state = tmp_path / "state"
    with pytest.raises(BrokenOffError):
        TRAIN.train(tmp_path / "model", pruning_sentences(), SETTINGS, report, state)
    assert state.exists() and not (tmp_path / "model").exists()
    with pytest.raises(InputError, match="not a saved state of this network"):
        TRAIN.train(tmp_path / "model", pruning_sentences(), replace(SETTINGS, hidden=32), state=state)
    done: list[str] = []
    losses = TRAIN.train(tmp_path / "model", pruning_sentences(), SETTINGS, done.append, state)
    assert len(losses) == 150 and len(done) == 80
    name = "model.safetensors"
    assert (tmp_path / "model" / name).read_bytes() == (folder / name).read_bytes()


def test_what_is_held_out_is_not_learnt() -> None:
    sentences = [f"Sentence {n} has a word{n} of its own, and a thing{n}." for n in range(4000)]
    sentences[100] = sentences[90]  # the first place is 83 to 92
    learnt, held = TRAIN.split(sentences)
    assert len(held) == TRAIN.HELD_OUT and all(len(text) == TRAIN.SENTENCES for text in held)
    flat = {s for text in held for s in text}
    assert not flat & set(learnt) and sentences[90] in flat and len(learnt) + len(flat) == len(sentences) - 1


def test_perplexities(folder: Path) -> None:
    """Better than guessing by a third at the least, and integers near to it."""
    rows = TRAIN.perplexities(folder, [" ".join(evaluation_sentences()[:8]), " ".join(evaluation_sentences()[8:16])])
    assert [r["setting"] for r in rows] == list(TRAIN.SETTINGS) and rows[0]["perplexity"] < 384 / 1.5
    assert rows[0]["tokens"] == 2 * 62 and all(0.95 < r["ratio"] < 1.05 for r in rows)


def generated(model: TextModel, board_name: str, config: Any) -> tuple[Any, BoardMachine]:
    """Four tokens by the board's programs, each list compared with the integers', and by the integers alone."""
    machine = decoder_machine("board", config, board=board(board_name))
    assert isinstance(machine, BoardMachine)
    session = model.session(32, machine, check=True, best=True)
    made = model.generate("Return the", max_tokens=4, session=session)
    alone = model.generate("Return the", max_tokens=4, session=model.session(32, best=True))
    assert made.ids == alone.ids and made.text == alone.text
    assert isinstance(session.decoder, ProgramDecoder) and all(r.cycles for r in session.decoder.runs)
    assert machine.link.retries == 0
    return session, machine


@pytest.mark.slow
def test_on_a_simulated_board(folder: Path) -> None:
    """From its pins in, weights in 4 bits, the head's too; what went over the line is counted."""
    config = replace(PRESETS["ci"], features=("decoder",))
    model = load_text_model(folder)
    four = model.in_integers(rules=Rules(blocks=frozenset(ROLES)), config=config)
    session, machine = generated(four, "ulx3s-85f-decoder", config)
    tile = 2 * 64 * config.rows
    lists, norm = 8 * 8 * config.rows, 64 * config.rows
    least = (tile + lists + norm) * len(session.decoder.runs)
    assert least < machine.pass_bytes < 3 * least  # beside them registers, and asking for the end
    assert len(session.decoder.compiled.image) < machine.image_bytes < 1.1 * len(session.decoder.compiled.image)


def test_the_boards_preset() -> None:
    """It has all that decoders need, the multipliers of preset decoder, and a bus for two bytes a cycle."""
    target = board("ulx3s-85f-decoder")
    wanted = preset("decoder")
    assert target.sdram is not None and target.sdram.kind == "SDR"
    assert target.config.features == wanted.features and target.config.bus_bytes == 4
    assert (target.config.rows, target.config.groups) == (wanted.rows, wanted.groups)
    assert TRAIN.Settings().hidden % (wanted.groups * wanted.window) == 0 and target.preset == TRAIN.PRESET

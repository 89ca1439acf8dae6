"""A decoder on a board: what goes over the line, what comes back, what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_files import decoder_folder
from numpy.typing import NDArray

from sta_hw.cli.decoding import Hardware
from sta_hw.errors import CheckError, InputError
from sta_hw.reference.program import ProgramError, run_counted
from sta_hw.run.decoder import ProgramDecoder
from sta_hw.run.machines import BoardMachine, ReferenceMachine, decoder_machine
from sta_hw.spec.board import BOARD_REGISTERS, IDENTITY, MEMORY
from sta_hw.spec.config import Config
from sta_hw.spec.presets import PRESETS
from sta_hw.spec.registers import capabilities
from sta_hw.tasks.text import load_text_model

CONFIG = replace(PRESETS["ci"], features=("causal", "rms", "position", "gate", "rotary"))


class Link:
    """The host's end of a board, whose accelerator is the reference."""

    def __init__(self, size: int) -> None:
        self.memory = np.zeros(size, np.uint8)
        self.registers: dict[str, int] = dict(capabilities(CONFIG))
        self.sent = self.received = 0
        self.resumable = self.image_known = False

    def read(self, address: int, words: int) -> NDArray[np.uint32]:
        if address == BOARD_REGISTERS:
            return np.array([IDENTITY], np.uint32)
        return self.memory[address - MEMORY :][: 4 * words].view("<u4")

    def write(self, address: int, words: NDArray, progress: Callable[[int], None] | None = None) -> None:
        raw = np.ascontiguousarray(words).view(np.uint8)
        self.memory[address - MEMORY : address - MEMORY + len(raw)] = raw
        self.sent += len(raw)

    def register(self, name: str) -> int:
        return self.registers.get(name, 0)

    def set_register(self, name: str, value: int) -> None:
        self.registers[name] = value
        if name == "control" and value & 1:
            r, size = self.registers, self.registers["image_size"]
            try:
                done = run_counted(
                    self.memory[:size], r["program_address"], CONFIG, length=r["length"], position=r["position"]
                )
            except ProgramError as error:
                r["status"], r["error_instruction"] = error.error << 8, error.instruction
                return
            self.memory[:size], r["status"], r["counter_cycles"] = done.image, 2, 77


def test_text_on_a_board(tmp_path: Path) -> None:
    decoder_folder(tmp_path)
    model = load_text_model(tmp_path).in_integers([1], texts=[list(range(40))], config=CONFIG)
    link: Any = Link(1 << 20)
    session = model.session(40, BoardMachine(CONFIG, link, 1 << 20), check=True)
    loaded = link.sent
    made = model.generate([1, 9, 8, 7], max_tokens=5, session=session)
    assert made.ids == model.generate([1, 9, 8, 7], max_tokens=5, session=model.session(40)).ids
    assert isinstance(session.decoder, ProgramDecoder)
    runs = session.decoder.runs
    assert all(r.cycles == 77 for r in runs)
    # Of the image nothing is sent again but the tile of the stream.
    assert link.sent - loaded == len(runs) * 2 * 32 * CONFIG.rows
    link.registers["image_size"] = 0
    link.memory[:] = 0
    with pytest.raises(CheckError, match="stopped: HEADER at instruction 0"):
        session.feed([1, 9, 8, 7, 6])


class HardwareOfTest(Hardware):
    """A board with the configuration of this file."""

    def config(self) -> Config:
        return CONFIG


def test_figures_of_a_board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The share is of the two bytes a cycle that the chip's pins give, not of the bus' four; the line's are counted."""
    decoder_folder(tmp_path)
    model = load_text_model(tmp_path).in_integers([1], texts=[list(range(40))], config=CONFIG)
    link: Any = Link(1 << 20)
    link.sent = 1000  # to see which board it is
    session = model.session(40, BoardMachine(CONFIG, link, 1 << 20), check=True)
    model.generate([1, 9, 8, 7], max_tokens=3, session=session)
    hardware = HardwareOfTest("board", board="ulx3s-85f-decoder")
    figures = hardware.figures(session)
    assert CONFIG.bus_bytes == 4 and hardware.memory_bytes() == 2
    for row in figures["passes"]:
        assert row["bandwidth"] == row["least_bytes"] / (77 * 2)
    tiles = len(figures["passes"]) * 2 * 32 * CONFIG.rows
    assert figures["line_bytes"] == {"image": figures["image_bytes"], "passes": tiles}
    hardware.tell(session)
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"went {figures['image_bytes']:,} bytes for the image, and {tiles:,} for the passes. Every logit" in said


def test_a_batch_on_a_board(tmp_path: Path) -> None:
    """Of the image what slots need to know goes over the line besides the tile, where a sequence comes to another."""
    decoder_folder(tmp_path)
    model = load_text_model(tmp_path).in_integers([1], texts=[list(range(40))], config=CONFIG)
    link: Any = Link(1 << 20)
    batch = model.batch(3, 40, BoardMachine(CONFIG, link, 1 << 20), check=True)
    loaded, prompts = link.sent, [[1, 9, 8, 7], [1, 5], [1, *range(3, 20)]]
    made = model.generate_batch(prompts, max_tokens=9, session=batch)
    alone = [model.generate(p, max_tokens=9, session=model.session(40)).ids for p in prompts]
    assert [t.ids for t in made.texts] == alone
    several = [r for r in batch.runs if r.others]
    assert len(several) > 5 and all(r.cycles == 77 for r in batch.runs)
    tile, turns = 2 * 32 * CONFIG.rows, 2 * 8 * CONFIG.rows
    rest = link.sent - loaded - len(batch.runs) * tile - len(several) * turns
    assert 0 < rest < len(batch.runs) * tile / 2


def test_what_does_not_fit(tmp_path: Path) -> None:
    decoder_folder(tmp_path)
    model = load_text_model(tmp_path).in_integers([1], texts=[list(range(40))], config=CONFIG)
    link: Any = Link(1 << 20)
    with pytest.raises(InputError, match=r"the image takes [\d,]+ bytes with its keys and values; the board's memory"):
        model.session(40, BoardMachine(CONFIG, link, 1 << 12))
    with pytest.raises(CheckError, match="another one"):
        BoardMachine(replace(CONFIG, columns=128), link, 1 << 12)
    with pytest.raises(InputError, match="needs a board with SDRAM"):
        decoder_machine("board", CONFIG)
    with pytest.raises(InputError, match="quantized for blocks of 32 keys"):
        model.session(40, decoder_machine("reference", replace(CONFIG, window=8)))
    with pytest.raises(InputError, match="quantize the model first"):
        load_text_model(tmp_path).session(40, decoder_machine("reference", CONFIG))


class WrongLogit(ReferenceMachine):
    """Of one token the logits in memory are another one's, by one unit."""

    token = 5

    def read(self, address: int, count: int) -> NDArray[np.uint8]:
        found = super().read(address, count).copy()
        rows = self.config.rows
        found[2 * rows * self.token :: 2][:rows] ^= 1
        return found


def test_a_logit_that_is_not_the_integers_is_found(tmp_path: Path) -> None:
    """Of whichever token, also behind the first; named with its position; without the check it is taken as it is."""
    decoder_folder(tmp_path)
    model = load_text_model(tmp_path).in_integers([1], texts=[list(range(40))], config=CONFIG)
    right = model.session(40).feed([1, 9, 8, 7])
    for token in (0, 5, len(right) - 1):
        machine = WrongLogit(CONFIG)
        machine.token = token
        found = model.session(40, machine).feed([1, 9, 8, 7])
        assert np.flatnonzero(found != right).tolist() == [token]
        with pytest.raises(CheckError, match=rf"the logit of token {token} behind position 3: .*\(1 of {len(right)} "):
            model.session(40, machine, check=True).feed([1, 9, 8, 7])
    session = model.session(40, machine, check=True)
    with pytest.raises(CheckError, match=rf"the logit of token {token} behind position 2: .*\(2 of {2 * len(right)} "):
        session.feed_last([1, 9, 8, 7], 2)

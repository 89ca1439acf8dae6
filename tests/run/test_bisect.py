"""A wrong byte is found: faults in RTL and memory, and the instruction that is named, known from elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_programs import PATTERNS, compiled
from stuck_bits import CONFIG, FAULTS, faulty_copy, first_changed
from test_families import TEXT, saved

from sim.accelerator import AcceleratorModel, MemoryModel, Recording
from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.model import CompiledModel
from sta_hw.compiler.quantize import quantize
from sta_hw.errors import CheckError
from sta_hw.model.random import mixed_patterns, random_ids, random_model
from sta_hw.reference.engine import matrix_sums
from sta_hw.reference.program import run_counted
from sta_hw.reference.requantizer import requantize
from sta_hw.run.outcome import compare
from sta_hw.run.search import search
from sta_hw.run.trail import Trail, element_at
from sta_hw.spec.isa import Opcode, Result
from sta_hw.spec.patterns import parse_nm

STALLS = MemoryModel(latency=20, stall=0.3, seed=5)


@pytest.fixture(scope="module")
def program() -> tuple[CompiledModel, np.ndarray]:
    return compiled("ci", 17, hidden=64, layers=2)


@pytest.fixture(scope="module")
def good() -> AcceleratorModel:
    return AcceleratorModel(CONFIG)


@pytest.mark.parametrize("memory", [MemoryModel(), STALLS, MemoryModel(shared=True, beats_per_cycle=0.4)])
@pytest.mark.parametrize("tokens", [1, 17, 40])
def test_what_is_right_is_found_right(good: AcceleratorModel, memory: MemoryModel, tokens: int) -> None:
    model, image = compiled("ci", tokens, seed=tokens, hidden=48, heads=3)
    found = search(model, image, good, memory=memory)
    assert found.equal and "equals the reference's" in found.text()
    stores = [i for i in model.expanded() if i.opcode != Opcode.LOAD]
    assert 0 < found.bisection.instructions < len(stores)
    # The words are all that the hardware wrote.
    run = good.run(image, model.program_address, memory=memory, length=model.length)
    assert found.bisection.words == run.counters["write_beats"]


def writer(model: CompiledModel, offset: int, cycle: int, recording: Recording) -> int:
    """The instruction that wrote a byte in a clock cycle: of those that store there, the first to end after it."""
    rows, done = CONFIG.rows, {"stores": 0, "norms": 0}
    for number, i in enumerate(model.expanded()):
        if i.opcode == Opcode.NORM:
            size = rows * i["width"]
            ranges = [(i["wide_address"], 2 * size), (i["narrow_address"], size)]
            name = "norms"
        elif i.opcode in (Opcode.PRODUCT, Opcode.CONTEXT) and not i["unfinished"]:
            wide = i["result"] in (Result.STORE16, Result.RESIDUAL)
            ranges = [(i["result_address"], rows * i["columns"] * (2 if wide else 1))]
            name = "stores"
        else:
            continue
        end = int(recording.completed[name][done[name]])
        done[name] += 1
        if end >= cycle and any(a <= offset < a + size for a, size in ranges):
            return number
    raise AssertionError("nobody wrote it")


def test_a_flipped_bit_of_memory_is_its_writers(program: tuple, good: AcceleratorModel) -> None:
    """Any beat, in a memory that rests at random: the store that is corrupted is named, to the value."""
    model, image = program
    rng = np.random.default_rng(3)
    record = Recording()
    fresh = AcceleratorModel(CONFIG)  # the same clock cycles each time
    fresh.run(image, model.program_address, memory=STALLS, record=record, length=model.length)
    fresh.close()
    cycles, offsets = np.concatenate(record.cycles), np.concatenate(record.offsets)
    seen = set()
    for beat in [0, len(cycles) - 1, *rng.choice(len(cycles), 10, replace=False).tolist()]:
        bit = int(rng.integers(8 * CONFIG.bus_bytes))
        hardware = AcceleratorModel(CONFIG)
        memory = MemoryModel(latency=20, stall=0.3, seed=5, flip=(beat, bit))
        found = search(model, image, hardware, memory=memory)
        hardware.close()
        assert found.bisection.wrong is not None and not found.equal
        wrong, offset = found.bisection.wrong, int(offsets[beat]) + bit // 8
        assert wrong.ran.number == writer(model, offset, int(cycles[beat]), record)
        assert wrong.at.address <= offset < wrong.at.address + wrong.at.size and wrong.values == 1
        assert wrong.expected ^ (wrong.got or 0) in (
            sign * (1 << (8 * (offset - wrong.at.address) + bit % 8)) for sign in (1, -1)
        )
        assert wrong.ran.first is not None and wrong.ran.last is not None
        assert wrong.ran.first < cycles[beat] <= wrong.ran.last
        seen.add(wrong.ran.opcode)
    assert len(seen) > 1


@pytest.mark.parametrize("name", FAULTS)
def test_a_stuck_bit_is_found(name: str, program: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instruction and value named are those that a reference with the same fault gets wrong first."""
    model, image = program
    verilog, patched, wrap, opcode = FAULTS[name]
    number, address, _ = first_changed(monkeypatch, program, patched, wrap)
    hardware = AcceleratorModel(CONFIG, netlist=verilog())
    found = search(model, image, hardware, memory=STALLS)
    hardware.close()
    wrong = found.bisection.wrong
    assert wrong is not None and wrong.ran.opcode == opcode
    assert wrong.ran.number == number and wrong.at.address <= address < wrong.at.address + wrong.at.size


def test_results_at_another_address_are_missed_where_they_belong(program: tuple) -> None:
    """A bit of the address stuck: the first product that needs it clear wrote nothing where it should."""
    model, image = program
    old, bit = "order[148:133], 2'h0, order[52:21] };", 6
    verilog = faulty_copy("results", "results", old, old.replace("order[52:21]", f"order[52:21] | 32'h{1 << bit:x}"))
    hardware = AcceleratorModel(CONFIG, netlist=verilog)
    found = search(model, image, hardware, memory=STALLS)
    hardware.close()
    first = next(
        n for n, i in enumerate(model.expanded())
        if i.opcode in (Opcode.PRODUCT, Opcode.CONTEXT) and not i["result_address"] >> bit & 1
    )  # fmt: skip
    wrong = found.bisection.wrong
    assert wrong is not None and wrong.ran.number == first and wrong.got is None


def test_a_program_that_hangs(program: tuple, good: AcceleratorModel) -> None:
    """A LayerNorm that never says it is done: what waits for it writes nothing, and why the run stopped is told."""
    model, image = program
    verilog = faulty_copy("norm", "norm", "assign done = ", "assign done = 1'h0 & ")
    hardware = AcceleratorModel(CONFIG, netlist=verilog)
    found = search(model, image, hardware)
    hardware.close()
    assert found.stopped.startswith("TIMEOUT") and "stopped: TIMEOUT" in found.text()
    wrong = found.bisection.wrong
    assert wrong is not None and wrong.got is None and wrong.ran.last is None
    assert wrong.ran.number == next(n for n, i in enumerate(model.expanded()) if i.opcode == Opcode.PRODUCT)


def test_after_a_run_layer_and_value_are_named(program: tuple) -> None:
    """Buffers are shared by all layers: of what is still wrong, the first in the order of the program is named."""
    model, image = program
    trail = Trail(model)
    expected = run_counted(image, model.program_address, CONFIG, None, trail, length=model.length).image
    changed = expected.copy()
    rows = CONFIG.rows
    places = {}
    for name, tile, row, channel in (("stream0", 1, 2, 7), ("activated0", 4, 0, 33), ("linear0", 0, 1, 9)):
        address, width, size = model.info.buffers[name]
        places[name] = address + ((tile * width + channel) * rows + row) * size
        changed[places[name]] ^= 16
    # Queries of the last layer come before its feed-forward part, and that before the sum behind it.
    with pytest.raises(CheckError) as caught:
        compare(model, changed, expected, trail)
    was = int(expected[places["linear0"]].view(np.int8))
    assert re.match(
        r"instruction \d+(, \d+ of the program,)? \(PRODUCT, 1.attention.self.query\): "
        r"1.attention.self.query \(buffer linear0\), "
        rf"token 1, channel 9: expected {was}, got {was ^ 16} \(3 bytes", str(caught.value),
    )  # fmt: skip
    # Without the trail there is the value at the lowest address.
    with pytest.raises(CheckError, match=r"^1.sum2 \(buffer stream0\), token 6, channel 7"):
        compare(model, changed, expected)
    compare(model, expected, expected, trail)


def test_elements_of_a_batch() -> None:
    """Any byte of the outputs and the pooled vectors is where the compiled model itself reads it."""
    model = random_model(0)
    quantized = quantize(model, [random_ids(i, 12) for i in range(3)])
    program = compile_encoder(quantized, CONFIG, [5, 9, 3, 1, 4, 2])
    rng = np.random.default_rng(0)
    zeros = np.zeros(len(program.image), np.uint8)
    texts = range(len(program.texts))
    for name, read in (("norm0.16", program.outputs), ("pooled0", program.pooled)):
        start, width, size = program.info.buffers[name]
        tiles = program.packing.tiles if name == "norm0.16" else len(program.packing.pooled())
        for address in (start + rng.integers(0, tiles * CONFIG.rows * width * size, 60)).tolist():
            changed = zeros.copy()
            changed[address] = 1
            found = [(text, *place) for text in texts for place in np.argwhere(read(changed, text)).tolist()]
            element = element_at(program, address)
            assert element.buffer == name and element.address <= address < element.address + size
            place = (
                (element.text, element.channel) if name == "pooled0" else (element.text, element.token, element.channel)
            )
            assert found == ([] if element.filling else [place])
    assert element_at(program, program.program_address).words() == f"byte {program.program_address}"


def test_keys_channels() -> None:
    """Keys lie transposed, a head's channels in another order: a key's channel is the model's own."""
    model, image = compiled("ci", 5, hidden=64, heads=2)
    trail = Trail(model, keep=True)
    after = run_counted(image, model.program_address, CONFIG, None, trail, length=model.length).image
    bias = {}
    for token, channel in ((0, 0), (4, 63), (3, 17), (1, 34)):
        number = next(
            n
            for n, e in trail.executed.items()
            if e.instruction.opcode == Opcode.PRODUCT and e.instruction["result"] == Result.TRANSPOSE
        )
        address, width, _ = model.info.buffers["linear1"]
        found = [
            a for a in range(address, address + 2 * CONFIG.rows * width)
            if (p := element_at(model, a, trail.executed[number].instruction)).token == token and p.channel == channel
        ]  # fmt: skip
        assert len(found) == 1
        bias[token, channel] = int(after[found[0]].view(np.int8))
    # The same keys from a program that stores them as it stores queries.
    quantized = keys_of(5, hidden=64, heads=2)
    assert {place: int(quantized[place]) for place in bias} == bias


def keys_of(tokens: int, **shape: int) -> np.ndarray:
    """Layer 0's keys, channel after channel as the quantized model has them: 8 bits, shape (tokens, channels)."""
    model = random_model(0, **shape)
    patterns = mixed_patterns([parse_nm(p) for p in PATTERNS["ci"]])
    quantized = quantize(model, [random_ids(i, 12) for i in range(3)], patterns)
    key = quantized.by_name["0.attention.self.key"].parameters
    program, image = compiled("ci", tokens, **shape)
    trail = Trail(program, keep=True)
    run_counted(image, program.program_address, CONFIG, None, trail, length=program.length)
    address, width, _ = program.info.buffers["norm0.8"]
    # The first to write there is the LayerNorm of the embeddings.
    stores: dict[int, np.ndarray] = {}
    for (at, _, _), data in zip(trail.stores, trail.data, strict=True):
        stores.setdefault(at, data)
    tiles = [stores[address + t * width * CONFIG.rows] for t in range(-(-tokens // CONFIG.rows))]
    x = np.concatenate([t.view(np.int8).reshape(width, CONFIG.rows).T for t in tiles])
    sums = matrix_sums(x, key.weights)
    return requantize(
        sums, key.bias[:, None], key.multiplier[:, None], key.shift[:, None], wide=False
    ).T  # fmt: skip


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "hard", "##ware", "skips", "zeros"]
COMMAND = """
import dataclasses, sys
from sim import accelerator
from sta_hw.cli.main import main

flip = {flip}
start = accelerator.AcceleratorModel.start
def faulty(self, *given, memory=None, **named):
    memory = dataclasses.replace(memory or accelerator.MemoryModel(), flip=flip)
    return start(self, *given, memory=memory, **named)
accelerator.AcceleratorModel.start = faulty
main()
"""


def test_command(tmp_path: Path) -> None:
    """As a user runs it: equal, and with a memory that stores one bit wrongly."""
    pywellen = pytest.importorskip("pywellen", reason="pywellen, which reads waveforms, is not installed")
    saved(tmp_path / "model", "BertModel", TEXT | {"num_hidden_layers": 1, "vocab_size": len(WORDS)})
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(WORDS))

    def run(flip: object, *more: str) -> subprocess.CompletedProcess[str]:
        arguments = ["run", "--model", "model", "--preset", "ci", "--nm", "dense", "--text", "the hardware skips zeros"]
        return subprocess.run(
            [sys.executable, "-c", COMMAND.format(flip=flip), *arguments, "--bisect", *more],
            capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip

    right = run(None)
    assert right.returncode == 0 and re.match(r"Each of the [\d,]+ bus words", right.stdout), right.stderr
    assert not (tmp_path / "build").exists()
    wrong = run((700, 9), "--waveform", "wrong.fst", "--json")
    assert wrong.returncode == 1 and "Traceback" not in wrong.stderr
    found = json.loads(wrong.stdout)
    first, last = found["waveform_cycles"]
    assert not found["equal"] and found["wrong"]["first"] >= first and found["wrong"]["last"] == last - 1
    assert abs(found["wrong"]["expected"] - found["wrong"]["got"]) in (1 << 1, 1 << 9)
    assert (
        f"{found['wrong']['value']} (buffer {found['wrong']['buffer']}), token" in wrong.stderr
        and "wrong.fst" in wrong.stderr
    )
    waves = pywellen.Waveform(str(tmp_path / "wrong.fst"))
    (clock,) = [v for v in waves.all_vars() if v.full_name == "TOP.accelerator.clk"]
    assert sorted(int(time) for time, _ in clock.signal) == list(range(2 * first, 2 * last))

"""Programs of decoders: prompts and single tokens give the integers' logits, on the reference and on RTL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_files import SIZES, decoder_folder
from numpy.typing import NDArray
from test_decoders import GPT2
from test_families import saved

from sim.accelerator import MemoryModel
from sta_hw.compiler.decoder.integers import Rules
from sta_hw.compiler.decoder.program import DecoderImage, compile_decoder
from sta_hw.compiler.decoder.quantize import quantize_decoder
from sta_hw.compiler.decoder.run import HostEmbedding, IntegerDecoder
from sta_hw.compiler.schedule import Scheduled, order
from sta_hw.errors import CheckError, InputError
from sta_hw.model.families import load_network
from sta_hw.reference.program import run_counted
from sta_hw.run.decoder import ProgramDecoder
from sta_hw.run.machines import ReferenceMachine, RtlMachine
from sta_hw.spec.isa import Opcode, disassemble
from sta_hw.spec.presets import PRESETS
from sta_hw.tasks.text import load_text_model

CONFIG = replace(PRESETS["ci"], features=("decoder",), window_words=256, loads_ahead=1)
RULES = Rules(block=CONFIG.groups * CONFIG.window, groups=CONFIG.groups)
CAPACITY = 90
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", SIZES | {"vocab_size": 96}),
    "llama-narrow": ("LlamaForCausalLM", SIZES | {"vocab_size": 96, "head_dim": 2}),
    "qwen2": ("Qwen2ForCausalLM", SIZES | {"vocab_size": 96, "num_key_value_heads": 1}),
    "qwen3": ("Qwen3ForCausalLM", SIZES | {"vocab_size": 96, "head_dim": 6}),
    "gpt2": ("GPT2LMHeadModel", GPT2 | {"vocab_size": 96, "n_positions": CAPACITY}),
}
PROMPTS = (1, 15, 16, 17, 40)
DECODED = 4
DECODED_LAST = 40
"""Behind the last prompt."""
PREFIX = [1, 5]
ATTENTION = (Opcode.SCORES, Opcode.CONTEXT)
Run = Callable[[NDArray[np.uint8], int, int, int], NDArray[np.uint8]]


def quantized(folder: Path, family: str, wide: str = "", rules: Rules = RULES, **changes: Any) -> Any:
    """A small random model in integers, with 15-bit activations for the products of these roles."""
    name, sizes = FAMILIES[family]
    saved(folder, name, sizes | changes)
    texts = [np.random.default_rng(i).integers(0, 96, 30).tolist() for i in range(4)]
    return quantize_decoder(load_network(folder).graph, texts, PREFIX, replace(rules, wide=frozenset(wide.split())))


def check(of: Any, compiled: DecoderImage, run: Run, ids: list[int], lengths: list[int]) -> None:
    """A text in runs of so many tokens; where one leaves its row tile, the last tile alone has logits."""
    wanted = np.round(IntegerDecoder(of, compiled.capacity).logits([*PREFIX, *ids]) / of.logit_scale).astype(np.int64)
    host, image = HostEmbedding(of, compiled.capacity), compiled.image.copy()
    rows, position = compiled.config.rows, len(PREFIX)
    for length in lengths:
        part = ids[position - len(PREFIX) : position - len(PREFIX) + length]
        compiled.with_rows(image, host(part, position), position % rows)
        program = compiled.programs[compiled.number(position, length)]
        image = run(image, program, compiled.length(position, length), position)
        position += length
        there = min(length, (position - 1) % rows + 1)
        found = compiled.logits(image, (position - there) % rows, there)
        np.testing.assert_array_equal(found, wanted[position - len(PREFIX) - there :][:there])
    assert position == len(PREFIX) + len(ids)


class Both(RtlMachine):
    """RTL, of which every run is compared with the reference, in every byte; the memory stalls."""

    def run(self, program: int, length: int, position: int, labels: Sequence[str]) -> tuple[int | None, dict[str, int]]:
        self.memory = MemoryModel(stall=0.2, seed=position)
        wanted = run_counted(self.image, program, self.config, length=length, position=position)
        cycles, counters = super().run(program, length, position, labels)
        np.testing.assert_array_equal(self.image, wanted.image)
        assert {name: counters[name] for name in wanted.saturated} == wanted.saturated
        return cycles, counters


ALL = "attention output gate down head"
WIDE = [*((family, "") for family in FAMILIES), ("llama", ALL), ("qwen3", ALL), ("qwen2", "down head"), ("gpt2", ALL)]
"""Products that take 15-bit activations: all, or some beside those that take 8."""


@pytest.mark.parametrize(("family", "wide"), WIDE)
def test_on_rtl(family: str, wide: str, tmp_path: Path) -> None:
    """Prompts of less than a row tile to several blocks of keys, then single tokens: bytes and logits."""
    of = quantized(tmp_path, family, wide)
    compiled = compile_decoder(of, CONFIG, CAPACITY)
    assert [k.keys for k in compiled.kinds if k.logits] == [32, 64, 96, 8, 16, 32, 64, 96] and compiled.most == 2
    decoder = ProgramDecoder(of, compiled, Both(CONFIG))
    for prompt in PROMPTS:
        count = DECODED_LAST if prompt == PROMPTS[-1] else DECODED
        ids = [*PREFIX, *np.random.default_rng(prompt).integers(0, 96, prompt + count).tolist()]
        wanted = IntegerDecoder(of, CAPACITY).logits(ids)
        decoder.length, before, asked = 0, decoder.passes, 1 if prompt >= 16 else prompt
        np.testing.assert_array_equal(decoder.feed_last(ids[:-count], asked), wanted[:prompt][-asked:])
        tiles = -(-(len(PREFIX) % CONFIG.rows + prompt) // CONFIG.rows)
        assert decoder.passes - before == (tiles if asked > CONFIG.rows else -(-tiles // 2))
        for place in range(count):
            found = decoder.feed(ids[len(PREFIX) + prompt + place :][:1])
            np.testing.assert_array_equal(found, wanted[prompt + place])
        assert decoder.length == len(ids) and decoder.passes - before >= count + 1
    assert all(r.cycles and r.counters["read_beats"] for r in decoder.runs)


def test_keys_that_the_chip_does_not_hold(tmp_path: Path) -> None:
    """Blocks of keys come one after the other, for each head and row tile."""
    config = replace(CONFIG, weight_words=512)
    of = quantized(tmp_path, "llama")
    compiled = compile_decoder(of, config, CAPACITY)
    decoder = ProgramDecoder(of, compiled, ReferenceMachine(config))
    ids = [*PREFIX, *np.random.default_rng(3).integers(0, 96, CAPACITY - 3).tolist()]
    np.testing.assert_array_equal(decoder.feed(ids), IntegerDecoder(of, CAPACITY).logits(ids)[-1])
    np.testing.assert_array_equal(decoder.feed([7]), IntegerDecoder(of, CAPACITY).logits([*ids, 7])[-1])
    loads = []
    for address in compiled.programs:
        program = disassemble(compiled.image[address:].tobytes(), config)
        loads.append(sum(i.opcode == Opcode.LOAD for i in program))
    assert len(set(loads[-3:])) == 3  # as many as there are blocks


def test_no_program_waits_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is looked at as it is compiled: a context ahead of its scores is refused."""

    def turned(*given: Any) -> list[Scheduled]:
        found = order(*given)
        scores, context = (next(n for n, i in enumerate(found) if i.opcode == o) for o in ATTENTION)
        found.insert(scores, found[context])
        return found

    of = quantized(tmp_path, "llama")
    compile_decoder(of, CONFIG, 20)
    monkeypatch.setattr("sta_hw.compiler.decoder.program.order", turned)
    with pytest.raises(InputError, match=r"the program waits for itself: .*CONTEXT"):
        compile_decoder(of, CONFIG, 20)


def test_drafts_change_nothing(tmp_path: Path) -> None:
    """The integers, and programs on the reference, make the same text with drafts as without, in fewer passes."""
    decoder_folder(tmp_path)
    model = load_text_model(tmp_path).in_integers([1], texts=[list(range(40))], config=CONFIG)
    prompt = [1, *[7, 8, 9, 10, 11, 12] * 3]
    plain = model.generate(prompt, max_tokens=24, session=model.session(60))
    assert plain.passes == len(plain.ids) - 1 and not plain.drafted
    machine = ReferenceMachine(CONFIG)
    for session in (model.session(60), model.session(60, machine)):
        made = model.generate(prompt, max_tokens=24, session=session, drafts=7)
        assert (made.ids, made.text, made.ended) == (plain.ids, plain.text, plain.ended)
        assert made.passes + made.accepted == len(made.ids) - 1 and 0 < made.accepted < made.drafted
    assert isinstance(session.decoder, ProgramDecoder)
    assert all(r.position % CONFIG.rows + r.tokens <= CONFIG.rows for r in session.decoder.runs[-made.passes :])


def test_an_error_says_where(tmp_path: Path) -> None:
    """A program that stops names the operation, and the next run is right."""
    of = quantized(tmp_path, "llama")
    compiled = compile_decoder(of, CONFIG, 20)
    for machine in (ReferenceMachine(CONFIG), RtlMachine(CONFIG)):
        decoder = ProgramDecoder(of, compiled, machine)
        fine = decoder.feed([*PREFIX, 3])
        decoder.length = 2
        start = compiled.programs[compiled.number(2, 1)]
        kept = machine.read(start, 4096).copy()
        spoilt = kept.copy()
        spoilt[64 + 8 * 32 : 64 + 8 * 40] = 0xFF
        machine.write(start, spoilt)
        with pytest.raises(CheckError, match=r"stopped: OPCODE at instruction \d+ \("):
            decoder.feed([3])
        machine.write(start, kept)
        np.testing.assert_array_equal(decoder.feed([3]), fine)


def test_what_is_refused(tmp_path: Path) -> None:
    of = quantized(tmp_path, "llama")
    with pytest.raises(InputError, match="needs hardware with causal, gate, position, rms, rotary"):
        compile_decoder(of, PRESETS["ci"], 20)
    with pytest.raises(InputError, match="quantized for blocks of"):
        compile_decoder(of, replace(CONFIG, window=8), 20)
    with pytest.raises(InputError, match="40000 tokens exceeds the 32,768 keys"):
        compile_decoder(of, CONFIG, 40_000)
    compiled = compile_decoder(of, CONFIG, 20)
    for position, length, message in ((19, 2, "do not lie in the context of 20"), (3, 6, "in 3 row tiles; 5 are"),
                                      (4, 0, "do not lie in"), (20, 1, "do not lie in")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            compiled.number(position, length)
    of = quantized(tmp_path, "llama", "head")
    with pytest.raises(InputError, match="needs hardware with digits"):
        compile_decoder(of, replace(CONFIG, features=("causal", "rms", "position", "gate", "rotary")), 20)
    compile_decoder(quantized(tmp_path, "llama", head_dim=32), CONFIG, 20)
    with pytest.raises(InputError, match="heads of 34 are wider than groups x window = 32"):
        compile_decoder(quantized(tmp_path, "llama", head_dim=34), CONFIG, 20)


def test_sums_that_32_bits_do_not_hold(tmp_path: Path) -> None:
    """A long column of weights that are all the largest is refused for 15-bit inputs; for 8 bits it is not."""
    name, sizes = FAMILIES["gpt2"]
    saved(tmp_path, name, sizes | {"n_inner": 1040, "n_layer": 1})
    graph = load_network(tmp_path).graph
    down = next(o for o in graph.operations if getattr(o, "weight", np.zeros(1)).shape[-1] == 1040)
    down.weight[3] = np.sign(down.weight[3]) * 0.1
    texts = [list(range(20))]
    quantize_decoder(graph, texts, PREFIX, RULES)
    with pytest.raises(InputError, match=r"weights of column 3 add up to 13[0-9],[0-9]{3}.*131,071.* Leave down at 8"):
        quantize_decoder(graph, texts, PREFIX, replace(RULES, wide=frozenset({"down"})))

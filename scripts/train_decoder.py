"""Train a small decoder for boards with SDRAM, in minutes on one core, from text that is here: docstrings.

A Llama of two layers, 256 wide, for the 16 groups of 16 positions of preset `ecp5-85f-decoder-sdram`; its tokenizer is
of the same text. The folder is in transformers' format. Beside the model lies what was held out, and its perplexity in
fp32 and in the integers of that hardware. A run that was broken off goes on.

Example: python scripts/train_decoder.py -o build/docstrings
Example: python scripts/train_decoder.py -o build/tiny --hidden 64 --layers 1 --vocabulary 384 --steps 100
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from sta_hw.bench import tool_versions
from sta_hw.bench.perplexity import negative_log_likelihood
from sta_hw.cli.app import script
from sta_hw.cli.terminal import Watch, watched
from sta_hw.compiler.decoder.integers import BLOCKED, WIDE, Rules
from sta_hw.compiler.decoder.run import IntegerDecoder
from sta_hw.errors import InputError
from sta_hw.files import working_folder
from sta_hw.model.families.decoders import NEXT
from sta_hw.model.fp32 import evaluate
from sta_hw.sparsity.finetune import Tuning, fine_tune
from sta_hw.sparsity.text import corpus_digest, corpus_sentences, without_near
from sta_hw.spec.presets import preset
from sta_hw.tasks.text import load_text_model

PRESET = "ecp5-85f-decoder-sdram"
END = "<|endoftext|>"
"""Begins every text."""
BETWEEN = "\n\n"
"""Stands between two sentences, as in the texts that scales are calibrated with."""
TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}"
"""Of a conversation: the model has read none, and goes on with what was said."""
HELD_OUT, SENTENCES = 24, 10
"""So many places of so many sentences are held out, evenly spread; sentences near to one of them are not learnt."""
RATE, DECAY = 3e-3, 0.1
SETTINGS = {
    "fp32": None,
    "INT8": Rules(),
    "INT8, activations 15 bits": Rules(WIDE),
    "4 bits": Rules(blocks=BLOCKED),
    "4 bits, activations 15 bits": Rules(WIDE, blocks=BLOCKED),
}
"""The head has 8 bits here: one of 4 bits only lists tokens, which 8 bits choose from."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What a model is trained with.

    Attributes
    ----------
    hidden : int
        Width, a multiple of a head's. Two heads of the query share keys and values where their number is even; the
        feed-forward network is as wide.
    context : int
        Tokens of a text, and those that the model is made for.
    batch : int
        Texts of a step.
    """

    hidden: int = 256
    layers: int = 2
    vocabulary: int = 1024
    context: int = 256
    steps: int = 1400
    batch: int = 8
    seed: int = 0
    head: int = 64


def split(sentences: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Sentences to learn from, and texts that are held out."""
    places = [(2 * n + 1) * len(sentences) // (2 * HELD_OUT) for n in range(HELD_OUT)]
    texts = [list(sentences[p : p + SENTENCES]) for p in places]
    held = {p + n for p in places for n in range(SENTENCES)}
    rest = [s for n, s in enumerate(sentences) if n not in held]
    return without_near(rest, [s for text in texts for s in text]), texts


def byte_pairs(sentences: Sequence[str], vocabulary: int) -> Tokenizer:
    """A byte-level tokenizer of the text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer


def new_model(settings: Settings, tokens: int) -> LlamaForCausalLM:
    """A random Llama."""
    heads = settings.hidden // settings.head
    shared = heads if heads % 2 else heads // 2
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokens, hidden_size=settings.hidden, intermediate_size=settings.hidden,
            num_hidden_layers=settings.layers, num_attention_heads=heads, num_key_value_heads=shared,
            max_position_embeddings=settings.context, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


class NextToken:
    """Texts that begin with a sentence, each behind the token that begins texts: a task for `fine_tune`."""

    def __init__(self, encoded: Sequence[Sequence[int]], context: int) -> None:
        self.stream = np.concatenate([np.asarray(ids, np.int64) for ids in encoded])
        starts = np.cumsum([0, *map(len, encoded)])[:-1]
        self.starts = starts[starts <= len(self.stream) - context + 1]
        self.context = context

    def batch(self, rng: np.random.Generator, size: int) -> tuple[tuple[Any, ...], Tensor]:
        """Texts, which are also what should be given."""
        texts = [[0, *self.stream[s : s + self.context - 1]] for s in rng.choice(self.starts, size)]
        ids = torch.tensor(texts)
        return (ids,), ids

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Of each token, given those ahead of it."""
        return functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), target[:, 1:].flatten())


def optimizer(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """AdamW with the second moments' decay that language models are trained with; norms do not decay."""
    groups = [
        {"params": [p for p in model.parameters() if (p.dim() > 1) == whole], "weight_decay": DECAY * whole}
        for whole in (True, False)
    ]
    return torch.optim.AdamW(groups, RATE, betas=(0.9, 0.95))


def train(
    folder: Path, sentences: Sequence[str], settings: Settings, report: Report = lambda _: None,
    state: Path | None = None,
) -> list[float]:  # fmt: skip
    """Train on sentences in their order and write the folder; the loss of each step.

    The same sentences and settings give the same weights on the same machine, on one thread; so does a run that goes
    on from `state`, a file that is saved every few steps.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(settings.seed)
        tokenizer = byte_pairs(sentences, settings.vocabulary)
        encoded = [e.ids for e in tokenizer.encode_batch([s + BETWEEN for s in sentences])]
        model = new_model(settings, tokenizer.get_vocab_size())
        tuning = Tuning(settings.steps, settings.batch, RATE, settings.seed, weight_decay=DECAY)
        begun, first = time.perf_counter(), -1

        def told(done: int, steps: int, loss: float) -> None:
            nonlocal first
            first = done - 1 if first < 0 else first
            left = (time.perf_counter() - begun) / (done - first) * (steps - done) / 60
            report(f"step {done} of {steps}, loss {loss:.3f}, {left:.1f} minutes left")

        task = NextToken(encoded, settings.context)
        losses = fine_tune(model, {}, {}, task, tuning, optimizer=optimizer(model), state=state, report=told).losses
    finally:
        torch.set_num_threads(threads)
    about = {"bos_token": END, "eos_token": END, "chat_template": TEMPLATE}
    with working_folder(folder) as work:
        model.save_pretrained(work)
        tokenizer.save(str(work / "tokenizer.json"))
        (work / "tokenizer_config.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return losses


def perplexities(folder: Path, texts: Sequence[str], report: Report = lambda _: None) -> list[dict[str, Any]]:
    """Of texts, in fp32 and in integers, each behind the token that begins texts, up to the model's context."""
    model = load_text_model(folder)
    config, context = preset(PRESET), model.context()
    (begin,) = model.language.begin
    encoded = [model.language.vocabulary.encode(t, begin=False)[: context - 1] for t in texts]
    rows: list[dict[str, Any]] = []
    exact: list[NDArray] = []
    for name, rules in SETTINGS.items():
        report(name)
        if rules is None:
            found = [evaluate(model.language.graph, {"ids": [begin, *i]}, keep=(NEXT,))[NEXT][1:] for i in encoded]
            exact = found
        else:
            quantized = model.in_integers(rules=rules, config=config, cache=False).quantized
            assert quantized is not None
            found = [IntegerDecoder(quantized, context).logits([begin, *ids]) for ids in encoded]
        each = [negative_log_likelihood(f[:-1], ids[1:]) for f, ids in zip(found, encoded, strict=True)]
        same = [f.argmax(1) == e.argmax(1) for f, e in zip(found, exact, strict=True)]
        perplexity = float(np.exp(np.concatenate(each).mean()))
        characters = sum(len(model.language.vocabulary.decode(ids[1:])) for ids in encoded)
        rows.append({
            "setting": name, "perplexity": perplexity,
            "ratio": perplexity / rows[0]["perplexity"] if rows else 1.0,
            "bits_per_character": float(np.concatenate(each).sum() / math.log(2) / characters),
            "same_next_token": float(np.concatenate(same).mean()), "tokens": sum(map(len, each)),
        })  # fmt: skip
    return rows


def show(described: dict[str, Any]) -> None:
    """The figures as a table."""
    table = Table(title=f"{described['parameters']:,} parameters, {described['learnt_tokens']:,} tokens learnt from")
    for column in ("held-out text", "perplexity", "of fp32's", "bits a character", "next token fp32's"):
        table.add_column(column)
    for row in described["perplexities"]:
        table.add_row(
            row["setting"], f"{row['perplexity']:.2f}", f"{row['ratio']:.3f}", f"{row['bits_per_character']:.3f}",
            f"{row['same_next_token']:.1%}",
        )  # fmt: skip
    Console().print(table)


def _tell(watch: Watch, setting: str) -> None:
    watch.describe(f"held-out text in {setting}")


def main(
    output: Annotated[Path, typer.Option("-o", "--output", help="The model's folder.")] = Path("build/docstrings"),
    hidden: Annotated[int, typer.Option(help="Width, a multiple of 64.", min=64, max=4096)] = Settings.hidden,
    layers: Annotated[int, typer.Option(min=1, max=64)] = Settings.layers,
    vocabulary: Annotated[int, typer.Option(help="Tokens, 257 at least.", min=257, max=65536)] = Settings.vocabulary,
    steps: Annotated[int, typer.Option(help="Each of 8 texts of 256 tokens.", min=1)] = Settings.steps,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = Settings.seed,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Train, measure, keep both in one folder."""
    if hidden % 64:
        raise InputError(f"--hidden {hidden} is no multiple of 64, a head's; {hidden // 64 * 64} is.")
    state = output.with_name(f"{output.name}.{corpus_digest()}.state")  # of another corpus it is no use
    whole = (output / "training.json").exists() or state.exists()
    if output.exists() and any(output.iterdir()) and not whole:
        raise InputError(f"{output} holds something else; choose another -o.")
    settings = Settings(hidden, layers, vocabulary, steps=steps, seed=seed)

    def work(watch: Watch) -> tuple[Any, ...]:
        watch.step("reading docstrings")
        learnt, held = split(corpus_sentences(10**9, seed=None))
        texts = [BETWEEN.join(text) for text in held]
        before = time.process_time()
        losses = train(output, learnt, settings, watch.describe, state)
        seconds = time.process_time() - before
        return learnt, texts, losses, seconds, perplexities(output, texts, partial(_tell, watch))

    learnt, texts, losses, seconds, rows = watched("train", "", work)
    model = load_text_model(output)
    described = {
        "settings": asdict(settings), "corpus": corpus_digest(), "sentences": len(learnt),
        "parameters": sum(p.numel() for p in LlamaForCausalLM.from_pretrained(output).parameters()),
        "learnt_tokens": sum(len(model.language.vocabulary.encode(s + BETWEEN, begin=False)) for s in learnt),
        "cpu_seconds": round(seconds),
        "losses": [float(np.mean(losses[n : n + 100])) for n in range(0, len(losses), 100)], "perplexities": rows,
        "held_out": texts, "tools": tool_versions(),
    }  # fmt: skip
    with working_folder(output) as work:
        (work / "training.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    state.unlink(missing_ok=True)
    if as_json:
        typer.echo(json.dumps(described, indent=1))
    else:
        show(described)


if __name__ == "__main__":
    script(main)

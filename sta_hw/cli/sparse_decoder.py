"""Command prune of a decoder: searched, pruned, distilled, kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ToolError
from ..formats.provenance import bytes_digest
from ..spec.patterns import Pattern, listed, parse_nm
from ..spec.presets import PRESETS
from ..tasks.patterns import read_patterns
from .terminal import Watch, complain, print_json, say, watched

if TYPE_CHECKING:
    from ..sparsity.decoders import PrunedDecoder
    from ..tasks.text import TextModel

__all__ = ["PrunedAs", "prune_decoder", "require_torch"]

HARDWARE = "decoder"
"""The preset whose bytes DominoSearch counts."""


def require_torch() -> None:
    """Refuse what needs PyTorch where there is none.

    Raises
    ------
    ToolError
        If it is not installed.
    """
    try:
        import_module("torch")
    except ImportError:
        raise ToolError(
            "PyTorch is not installed; make sparsity, or pip install -r requirements-sparsity.txt, brings it."
        ) from None


@dataclass(frozen=True)
class PrunedAs:
    """What is asked for, as the options of `prune` have it.

    Attributes
    ----------
    calibration : int or None
        Sentences that are pruned for; as many as is usual if None.
    steps, batch, rate, seed, bfloat16 :
        Of distillation; a step takes `batch` texts of 256 tokens.
    """

    method: str
    nm: str
    table: Path | None
    calibration: int | None
    steps: int
    batch: int
    rate: float
    seed: int
    bfloat16: bool

    @property
    def searches(self) -> bool:
        """Whether the N:M are DominoSearch's."""
        return self.method == "domino"

    @property
    def settings(self) -> dict[str, Any]:
        """What shapes the result beside method, N:M table, model and texts."""
        found: dict[str, Any] = {"bytes_of": self.nm} if self.searches else {}
        if self.steps:
            names = ("steps", "batch", "rate", "seed", "bfloat16")
            found |= {name: getattr(self, name) for name in names}
        return found


def prune_decoder(path: Path | None, wanted: PrunedAs, output: Path, as_json: bool) -> None:
    """Make the folder, unless it is there, and say where it is.

    Raises
    ------
    InputError
        If the method is not for decoders, or the model cannot be pruned and kept.
    ToolError
        If PyTorch is needed and is not there.
    """
    from ..sparsity.decoders import METHODS_OF_DECODERS, require_writable_format
    from ..tasks.text import load_text_model

    if wanted.method not in METHODS_OF_DECODERS:
        methods = listed(list(METHODS_OF_DECODERS))
        raise InputError(f"method {wanted.method} is not for decoders yet; {methods} is.")
    if wanted.searches:
        PRESETS[HARDWARE].require(parse_nm(wanted.nm))
    if wanted.steps or wanted.searches:
        require_torch()
    model = load_text_model(path)
    source = model.language
    require_writable_format(source)
    if any(not p.dense for p in model.patterns.values()):
        raise InputError(f"{source.path} is pruned already; prune the dense model that it comes from.")
    patterns = read_patterns(wanted.nm, wanted.table, source.graph.linears)
    found, there = watched(
        "prune", "steps" if wanted.steps else "", lambda watch: _work(model, patterns, wanted, output, watch)
    )  # fmt: skip
    if there:
        complain(f"{found.folder} is there already.")
    if as_json:
        print_json({"folder": str(found.folder), **found.settings})
        return
    say(f"Pruned: {found.folder}")
    say(f"Next: sta-hw generate-text 'The capital of France is' --model {quote(str(found.folder))} --backend fast")


def _work(
    model: TextModel, patterns: Mapping[str, Pattern], wanted: PrunedAs, output: Path, watch: Watch
) -> tuple[PrunedDecoder, bool]:  # fmt: skip
    """The pruned decoder, and whether it was there already."""
    from ..sparsity.decoders import (
        METHODS_OF_DECODERS,
        SENTENCES,
        decoder_sentences,
        described,
        finished_decoder,
        save_decoder,
    )
    from ..tasks.decoder_texts import pruning_texts

    source, method = model.language, wanted.method
    texts: list[list[int]] = []
    learnt: list[list[int]] = []
    watch.step("reading sentences")
    if method != "magnitude":
        texts = pruning_texts(source, decoder_sentences(wanted.calibration or SENTENCES, wanted.seed))
    if wanted.steps:
        learnt = pruning_texts(source, decoder_sentences(None, wanted.seed))
    settings = described(model, method, texts, {} if wanted.searches else patterns, learnt) | wanted.settings
    name = f"{method}-{wanted.nm.replace(':', 'of')}"
    name += f"-{source.folder.name if source.path.is_dir() else source.path.stem}"
    name += f"-{bytes_digest(repr(sorted(settings.items())).encode())[:6]}"
    folder = output / name
    if found := finished_decoder(folder, settings):
        return found, True
    if wanted.searches:
        from ..sparsity.domino_decoders import decoder_patterns

        patterns = decoder_patterns(source.graph, parse_nm(wanted.nm), PRESETS[HARDWARE], texts, watch.step)
    pruned = model.prune(patterns=patterns, method=METHODS_OF_DECODERS[method], texts=texts, report=watch.step)
    state = output / ".states" / name / "tuning.safetensors"
    if wanted.steps:
        pruned = _distilled(model, pruned, learnt, wanted, state, watch)
    watch.step("writing")
    made = save_decoder(folder, source, pruned, settings)
    state.unlink(missing_ok=True)  # gigabytes, of what is finished
    return made, False


def _distilled(
    model: TextModel, pruned: TextModel, texts: list[list[int]], wanted: PrunedAs, state: Path, watch: Watch
) -> TextModel:  # fmt: skip
    """The pruned model, trained to give what the dense one does."""
    from ..sparsity.distill import distill_decoder
    from ..sparsity.finetune import Tuning

    def progress(step: int, total: int, loss: float) -> None:
        watch(step, total)
        watch.describe(f"distillation, loss {loss:.4f}")

    watch.step("distillation")
    graph, _ = distill_decoder(
        model.language.graph, pruned.language.graph, pruned.patterns, texts,
        Tuning(wanted.steps, wanted.batch, wanted.rate, wanted.seed), bfloat16=wanted.bfloat16, state=state,
        report=progress,
    )  # fmt: skip
    return pruned.with_graph(graph)

"""What generate-text, chat and demo-llm run a decoder on, and what they tell of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ..errors import InputError
from ..files import read_json
from ..spec.config import Config
from ..spec.patterns import DENSE, parse_nm
from .app import Unused
from .configuration import read_configuration
from .terminal import Watch, complain, say, watched

if TYPE_CHECKING:
    from ..compiler.decoder.integers import Rules
    from ..run.batch_decoder import BatchDecoder
    from ..run.machines import Machine
    from ..tasks.session import Decoder, Session
    from ..tasks.text import TextModel

__all__ = [
    "PRUNES_NOTHING", "ActivationsOption", "BoardOption", "CheckOption", "Hardware", "LayersPatternOption",
    "LayersTableOption", "WeightsOption", "compared", "observed", "opened", "opened_batch", "watching",
]  # fmt: skip

_SHOWN = 30
"""Characters of a text so far that stand beside a bar."""

ActivationsOption = Annotated[int, typer.Option(help="Bits of products' inputs, in integers: 8 or 15.")]
WeightsOption = Annotated[int, typer.Option(help="Bits of weights, in integers: 8, or 4 in blocks as the file's.")]
LayersPatternOption = Annotated[
    str | None,
    typer.Option(
        help="N:M of all products of the layers, or dense; if not given, a pruned checkpoint's own table, or dense."
    ),
]
PRUNES_NOTHING = Unused(
    ("pruner",), lambda o: o["nm"] in (None, "dense") and o["nm_table"] is None,
    "without --nm or --nm-table, where nothing is pruned",
)  # fmt: skip
CheckOption = Annotated[
    bool, typer.Option(help="Compare the logits that programs give with the integers that numpy computes.")
]
BoardOption = Annotated[str, typer.Option(help="For --backend board; its preset is taken, with decoders' features.")]
LayersTableOption = Annotated[
    Path | None, typer.Option("--nm-table", help="JSON: N:M of single products, such as mlp.down_proj.")
]


@dataclass(frozen=True)
class Hardware:
    """What computes a decoder.

    Attributes
    ----------
    backend : str
        Of `sta_hw.run.decoder.DECODER_BACKENDS`.
    activations : int
        Bits: 8, or 15 but for attention's output.
    weights : int
        Bits: 8, or 4 in blocks; of the head in greedy text alone.
    nm, nm_table : str or None, Path or None
        N:M to prune to: of all products of the layers, and of single ones.
    pruner : str
        Of `compiler.prune.METHODS`.

    Raises
    ------
    InputError
        If there is no such back end or board, or no hardware for so many bits.
    """

    backend: str
    preset: str = "decoder"
    board: str = "ulx3s-85f"
    port: str = "sim"
    check: bool = True
    activations: int = 8
    weights: int = 8
    nm: str | None = None
    nm_table: Path | None = None
    pruner: str = "sparsegpt"

    def __post_init__(self) -> None:
        from ..compiler.prune import require_pruner
        from ..run.machines import DECODER_BACKENDS

        if self.backend not in DECODER_BACKENDS:
            raise InputError(f"backend {self.backend!r} is unknown; it is {', '.join(DECODER_BACKENDS)}.")
        for what, bits, known in (("activations", self.activations, (8, 15)), ("weights", self.weights, (8, 4))):
            if bits not in known:
                raise InputError(f"{what} of {bits} bits are not supported; {known[0]} and {known[1]} are.")
        if self.backend == "board":
            from ..host.board import require_port

            require_port(self.port)
        config = None if self.backend == "fp32" else self.config()
        require_pruner(self.pruner)
        if self.nm_table is not None:
            read_json(self.nm_table, "N:M table")
        pattern = DENSE if self.nm is None else parse_nm(self.nm)
        if config is not None and not pattern.dense:
            config.require(pattern)

    def rules(self, *, greedy: bool) -> Rules:
        """Of quantization: the head has 4 bits, too, for greedy text, whose tokens its INT8 weights score again."""
        from ..compiler.decoder.integers import BLOCKED, ROLES, WIDE, Rules

        blocks = (frozenset(ROLES) if greedy else BLOCKED) if self.weights == 4 else frozenset()
        return Rules(WIDE if self.activations == 15 else frozenset(), blocks=blocks)

    def lists(self, needed: int, vocabulary: int) -> bool:
        """Whether so many of the largest logits (0: all) are had from lists, of hardware that has them."""
        from ..compiler.decoder.likeliest import LISTED, MOST_NUMBERED

        return 0 < needed <= LISTED and vocabulary <= MOST_NUMBERED and "best" in self.config().features

    def target(self) -> Any:
        """The board, if that is the back end."""
        from boards import board as find

        return find(self.board) if self.backend == "board" else None

    def config(self) -> Config:
        """The accelerator's configuration, with decoders' features."""
        from ..compiler.decoder.program import decoder_config

        target = self.target()
        return decoder_config(target.config if target else read_configuration(self.preset, top="accelerator"))

    @property
    def programs(self) -> bool:
        """Whether programs run."""
        return self.backend not in ("fp32", "fast")

    def memory_bytes(self) -> int:
        """Bytes a cycle that memory brings at most: the bus, or a board's chip where it has fewer pins."""
        target, bus = self.target(), self.config().bus_bytes
        return bus if target is None or target.sdram is None else min(bus, target.sdram.peak)

    def figures(self, session: Session) -> dict[str, Any]:
        """Of what ran on hardware: cycles of each pass over the weights, and the share of the memory's bandwidth.

        Of a board's serial line the bytes as well, for the image and for all passes together.
        """
        from ..compiler.decoder.traffic import least_traffic, stored_sizes
        from ..run.decoder import ProgramDecoder
        from ..run.machines import BoardMachine

        decoder, config = session.decoder, self.config() if self.programs else None
        found: dict[str, Any] = {"backend": self.backend}
        if not isinstance(decoder, ProgramDecoder) or config is None:
            return found
        found |= {"hash": config.hash, "image_bytes": len(decoder.compiled.image), "equal_to_integers": None}
        if self.check:
            found["equal_to_integers"] = True
        if isinstance(machine := decoder.machine, BoardMachine):
            found["line_bytes"] = {"image": machine.image_bytes, "passes": machine.pass_bytes}
        passes, stored, most = [], stored_sizes(decoder.of.linears, config), self.memory_bytes()
        for run in decoder.runs:
            row: dict[str, Any] = {"position": run.position, "tokens": run.tokens}
            if run.others:
                row["positions"] = [run.position, *run.others]
            if run.cycles:
                before = run.position + sum(run.others)  # of all that are in the pass
                least = least_traffic(
                    decoder.of.graph, before, run.tokens, logits=run.logits, stored=stored, best=bool(decoder.best)
                ).total
                row |= {
                    "cycles": run.cycles, "least_bytes": least, "bandwidth": least / (run.cycles * most),
                    "read_bytes": run.counters["read_beats"] * config.bus_bytes,
                    "written_bytes": run.counters["write_beats"] * config.bus_bytes,
                }  # fmt: skip
            passes.append(row)
        return found | {"passes": passes}

    def tell(self, session: Session) -> None:
        """The same as a sentence or two."""
        figures = self.figures(session)
        passes = [p for p in figures.get("passes", ()) if "cycles" in p]
        if passes:
            cycles, tokens = sum(p["cycles"] for p in passes), sum(p["tokens"] for p in passes)
            share = sum(p["least_bytes"] for p in passes) / sum(p["least_bytes"] / p["bandwidth"] for p in passes)
            same = f" {compared(session)}." if self.check else ""
            line = ""
            if "line_bytes" in figures:
                image, rest = figures["line_bytes"].values()
                line = f" Over the serial line went {image:,} bytes for the image, and {rest:,} for the passes."
            say(
                f"{tokens} tokens in {len(passes)} passes over the weights, {cycles / len(passes):,.0f} cycles each; "
                f"{share:.3f} of the memory's bandwidth.{line}{same}"
            )


def compared(session: Session) -> str:
    """What a check of programs has found to be right, of the logits that they give."""
    best = session.decoder.best
    return (
        f"Every list of the {best} largest logits equals the integers'" if best else "Every logit equals the integers'"
    )


def observed(decoder: Decoder, work: Callable[[Callable[[str], None]], object]) -> list[str]:
    """What comes piece by piece from programs: `work` calls what it is given with each; with a bar on a terminal."""
    from ..compiler.decoder.traffic import least_traffic, stored_sizes
    from ..run.decoder import ProgramDecoder
    from ..run.machines import ReferenceMachine

    assert isinstance(decoder, ProgramDecoder)
    machine, passes = decoder.machine, decoder.runs
    slow = isinstance(machine, ReferenceMachine)
    config = decoder.compiled.config
    stored = stored_sizes(decoder.of.linears, config)
    least = least_traffic(decoder.of.graph, 0, stored=stored, best=bool(decoder.best)).total / config.bus_bytes
    expected = len(decoder.compiled.labels[decoder.compiled.number(0, 1)]) if slow else round(least * 1.1)

    def watched_work(watch: Watch) -> list[str]:
        found: list[str] = []

        def told(done: int) -> None:
            watch.describe(f"pass {len(passes) + 1}: {''.join(found)[-_SHOWN:]!r}")
            watch(done, expected)

        machine.progress = told
        work(found.append)
        return found

    result: list[str] = watched("running", "instructions" if slow else "cycles", watched_work)
    return result


def watching(pieces: Iterable[str], session: Session) -> list[str]:
    """A text's pieces as a machine gives them, with a bar on a terminal, and the text so far."""

    def work(told: Callable[[str], None]) -> None:
        for piece in pieces:
            told(piece)

    return observed(session.decoder, work)


def opened(
    model: TextModel, hardware: Hardware, context: int | None, prefix: Sequence[int] | None, needed: int = 1
) -> tuple[TextModel, Session]:
    """The model as the back end computes it, pruned if wanted, and an empty context there; with a bar on a terminal.

    On stderr, where a pruned checkpoint's N:M is from. So many of the largest logits are `needed` of each token: 1 for
    greedy text, 0 for all.
    """

    def session(given: TextModel, machine: Machine | None, best: bool) -> Session:
        return given.session(context, machine, check=hardware.check and machine is not None, best=best)

    return _opened(model, hardware, context, prefix, needed, session)


def opened_batch(
    model: TextModel, hardware: Hardware, context: int | None, prefix: Sequence[int] | None, needed: int, sequences: int
) -> tuple[TextModel, Session | BatchDecoder]:
    """The same for so many sequences at once, where programs run."""

    def session(given: TextModel, machine: Machine | None, best: bool) -> Session | BatchDecoder:
        if machine is None:
            return given.session(context, best=best)
        return given.batch(sequences, context, machine, check=hardware.check, best=best)

    return _opened(model, hardware, context, prefix, needed, session)


_Opened = TypeVar("_Opened")


def _opened(
    model: TextModel, hardware: Hardware, context: int | None, prefix: Sequence[int] | None, needed: int,
    session: Callable[[TextModel, Machine | None, bool], _Opened],
) -> tuple[TextModel, _Opened]:  # fmt: skip
    model.context(context)
    prunes = hardware.nm is not None or hardware.nm_table is not None

    def work(watch: Watch) -> tuple[TextModel, _Opened]:
        from ..run.machines import BoardMachine, decoder_machine

        config = None if hardware.backend == "fp32" else hardware.config()
        given = model
        if prunes:
            given = model.prune(hardware.nm, table=hardware.nm_table, method=hardware.pruner, hardware=config,
                                report=watch.step)  # fmt: skip
        for note in given.notes:
            complain(note)
        if config is None:
            return given, session(given, None, False)
        for pattern in dict.fromkeys(p for p in given.patterns.values() if not p.dense):
            config.require(pattern)
        lists = hardware.lists(needed, given.language.rows)
        rules = hardware.rules(greedy=lists and needed == 1)
        quantized = given.in_integers(prefix, rules=rules, config=config, report=watch.step)
        if not hardware.programs:
            return quantized, session(quantized, None, lists)
        watch.step("preparing the backend")
        machine = decoder_machine(hardware.backend, config, board=hardware.target(), port=hardware.port)
        watch.step("compiling the programs")

        def loading(done: int, total: int) -> None:
            watch.describe("loading the board's memory, bytes")
            watch(done, total)

        if isinstance(machine, BoardMachine):
            machine.loading = loading
        return quantized, session(quantized, machine, lists)

    if hardware.backend == "fp32" and not prunes:
        for note in model.notes:
            complain(note)
        return model, session(model, None, False)
    found: tuple[TextModel, _Opened] = watched("pruning" if prunes else "quantizing", "", work)
    return found

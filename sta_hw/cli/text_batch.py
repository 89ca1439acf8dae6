"""What generate-text does with a file of prompts: texts at once, as many as a row tile of the hardware holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .decoding import Hardware, observed, opened_batch
from .terminal import complain, print_json, printable, say

if TYPE_CHECKING:
    from ..tasks.sampling import Sampling
    from ..tasks.text import Generated, TextModel
    from ..tasks.together import Together

__all__ = ["generate_batch"]


def generate_batch(
    model: TextModel, prompts: Sequence[Any], hardware: Hardware, prefix: Sequence[int] | None, context: int | None,
    sequences: int | None, sampling: Sampling, max_tokens: int, stop: Sequence[str], as_json: bool,
    figures: Callable[[Generated], dict[str, Any]],
) -> None:  # fmt: skip
    """Print a line for each prompt, line ends within as escapes, or JSON with `figures` of each.

    Raises
    ------
    InputError
        If a prompt is refused, or the hardware does not hold so many sequences.
    CheckError
        As `sta_hw.tasks.together.together`.
    """
    from ..compiler.decoder.slots import require_slots
    from ..run.batch_decoder import BatchDecoder
    from ..tasks.prompts import prompts_ids
    from ..tasks.session import Session

    if hardware.programs:
        rows = hardware.config().rows
        sequences = min(len(prompts), rows) if sequences is None else sequences
        require_slots(sequences, rows)
    # What is no prompt is refused before the work.
    prompts_ids(model.language, model.quantized, prompts, model.context(context))
    loaded, session = opened_batch(model, hardware, context, prefix, sampling.needed, sequences or 1)

    def work(told: Callable[[str], None]) -> None:
        found.append(loaded.generate_batch(
            prompts, max_tokens=max_tokens, sampling=sampling, stop=stop, session=session,
            told=lambda number, new: told(new),
        ))  # fmt: skip

    found: list[Together] = []
    if isinstance(session, BatchDecoder):
        one = Session(session.decoders[0])
        observed(one.decoder, work)
    else:
        one = session
        work(lambda new: None)
    (made,) = found
    if as_json:
        print_json({
            "texts": [figures(t) for t in made.texts], "sequences": sequences or 1, "tokens": made.tokens,
            "weight_passes": made.passes, "prompt_passes": made.prompt_passes,
            "tokens_per_weight_pass": made.tokens_per_pass,
        } | hardware.figures(one))  # fmt: skip
    else:
        for text in made.texts:
            say(printable(text.text))
        if made.tokens_per_pass is not None:
            say(f"{made.tokens} tokens in {made.passes} passes over the weights behind the prompts': "
                f"{made.tokens_per_pass:.2f} for each.")  # fmt: skip
        hardware.tell(one)
    if full := [number for number, t in enumerate(made.texts, 1) if t.ended == "context"]:
        complain(
            f"the context of {one.decoder.capacity} tokens is full for prompt{'s' * (len(full) > 1)} "
            f"{', '.join(map(str, full))}; --context makes it larger, up to what the model was made for."
        )

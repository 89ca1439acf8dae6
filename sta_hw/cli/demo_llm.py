"""`sta-hw demo-llm`: a question to SmolLM2-135M-Instruct, answered by generated RTL, token by token."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .app import app
from .decoding import (
    PRUNES_NOTHING,
    ActivationsOption,
    Hardware,
    LayersPatternOption,
    LayersTableOption,
    WeightsOption,
    compared,
    opened,
    watching,
)
from .options import PresetOption, PrunerOption
from .terminal import JsonOption, Watch, print_json, print_table, printable, say, watched

__all__: list[str] = []


@app.command(
    "demo-llm", unused=[PRUNES_NOTHING], epilog="Example: sta-hw demo-llm 'The capital of Italy is' --max-tokens 2"
)  # fmt: skip
def demo_llm(
    text: Annotated[str, typer.Argument(help="How the text begins.")] = "The capital of France is",
    max_tokens: Annotated[int, typer.Option(help="Tokens to generate.", min=1, max=1 << 16)] = 3,
    context: Annotated[int, typer.Option(help="Tokens that the context holds.")] = 256,
    preset_name: PresetOption = "decoder",
    activations: ActivationsOption = 8,
    weights: WeightsOption = 8,
    nm: LayersPatternOption = None,
    nm_table: LayersTableOption = None,
    pruner: PrunerOption = "sparsegpt",
    as_json: JsonOption = False,
) -> None:
    """Continue a text with SmolLM2-135M-Instruct on RTL.

    The logits that it gives are compared with the integers that numpy computes. A token takes some 20 million cycles: a
    minute or two, and as much for the prompt.
    """
    from ..tasks.text import Generated, load_text_model

    hardware = Hardware(
        "rtl", preset_name, activations=activations, weights=weights, nm=nm, nm_table=nm_table, pruner=pruner
    )  # fmt: skip
    exact = load_text_model()
    exact.context(context)
    model, session = opened(exact, hardware, context, None)
    ids = model.ids(text)

    def alone(watch: Watch) -> Any:
        watch.step("fp32, by numpy")
        return exact.generate(ids, max_tokens=max_tokens, session=exact.session(context))

    own = watched("fp32", "", alone)
    made = Generated([])
    watching(model.stream(text, max_tokens=max_tokens, session=session, into=made), session)
    figures = hardware.figures(session)
    passes = figures["passes"]
    decoded = passes[len(passes) - len(made.ids) + 1 :]
    figures |= {
        "prompt": text, "text": made.text, "fp32_text": own.text, "ids": made.ids, "fp32_ids": own.ids,
        "cycles_per_token": sum(p["cycles"] for p in decoded) / len(decoded) if decoded else None,
    }  # fmt: skip
    if as_json:
        print_json(figures)
        return
    rows = [
        [str(p["position"]), str(p["tokens"]), f"{p['cycles']:,}", f"{p['least_bytes']:,}", f"{p['bandwidth']:.3f}"]
        for p in passes
    ]
    print_table("passes", ("position", "tokens", "cycles", "bytes needed", "of bandwidth"), rows)
    say(f"Prompt: {printable(text)}")
    sparse = f"{nm or nm_table} weights" if nm or nm_table else "weights"
    say(f"RTL, {weights}-bit {sparse}, {activations}-bit activations: {printable(made.text)}")
    say(f"The {'dense' if nm or nm_table else 'same'} model in fp32: {printable(own.text)}")
    same = next((n for n, (a, b) in enumerate(zip(made.ids, own.ids, strict=False)) if a != b), len(made.ids))
    say(
        f"{compared(session)}; {same} of {len(made.ids)} tokens are fp32's. Fewer bits cost accuracy: "
        "docs/decoders.md says how much."
    )

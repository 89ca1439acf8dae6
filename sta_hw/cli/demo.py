"""`sta-hw demo`: a sentence through all of all-MiniLM-L6-v2 on generated RTL, compared with the reference."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer
from threadpoolctl import threadpool_limits

from ..compiler.encoder import compile_encoder
from ..files import distinct, write_text
from ..report.page import html_page
from ..report.tables import by_layer
from ..run.backends import ReferenceBackend, RtlBackend
from ..run.outcome import compare
from ..tasks.embedder import Embedder
from ..tasks.patterns import read_patterns
from .app import app
from .configuration import manifest_file, read_configuration
from .figures import print_layers, run_figures
from .model import Pruning, require_text
from .options import DEFAULT_TEXT, PatternOption, PresetOption, PrunerOption, TableOption, TextOption
from .paths import require_writable
from .terminal import JsonOption, Watch, print_json, say, watched

__all__ = ["SENTENCES"]

SENTENCES = (
    "Pruned models leave out most of their weights and keep their meaning.",
    "The cat sleeps on the warm windowsill all afternoon.",
    "Stock markets fell sharply after the announcement.",
    "She boiled the pasta for nine minutes and added salt.",
    "The orchestra rehearsed the symphony until midnight.",
    "Heavy rain is expected in the mountains tomorrow.",
    "He repaired the bicycle's chain with a borrowed tool.",
    "A compiler turns source code into machine instructions.",
    "The museum opens a new exhibition of old maps.",
    "Vaccines train the immune system to recognise a virus.",
)
"""Ten sentences; the demo finds the one nearest to the user's."""


@app.command(epilog='Example: sta-hw demo --nm 2:16 --text "Hardware that skips zeros."')
def demo(
    nm: PatternOption = "8:16",
    text: TextOption = DEFAULT_TEXT,
    nm_table: TableOption = None,
    pruner: PrunerOption = "sparsegpt",
    preset_name: PresetOption = "reference",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for Verilog and page.")] = Path("build/demo"),
    as_json: JsonOption = False,
) -> None:
    """Run all of all-MiniLM-L6-v2 for a sentence on RTL.

    Every byte is compared with the reference.
    """
    from sim.verilog import module_verilog

    from ..generate.generator import file_names
    from ..generate.generator import generate as write

    config = read_configuration(preset_name, top="accelerator")
    require_text(text)
    Pruning(nm, nm_table, pruner).look_at(preset_name)
    require_writable(folders=[output])
    names = [*file_names("accelerator"), "report.html"]
    inputs = {"--nm-table": nm_table, "--preset": manifest_file(preset_name)}
    distinct({f"-o, {name}": output / name for name in names}, inputs)

    def work(watch: Watch) -> Any:
        watch.step("loading the model")
        embedder = Embedder.load()
        ids = embedder.token_ids(text)
        patterns = read_patterns(nm, nm_table, embedder.linears)
        embedder.require(patterns, config, len(ids))

        def built() -> RtlBackend:
            write("accelerator", config, output, module_verilog("accelerator", config))
            return RtlBackend(config)

        # Yosys, Verilator and the C++ compiler are processes of their own: meanwhile, the reference runs here, on one
        # core, as threads of numpy that wait for each other lose minutes where another process has a core.
        with ThreadPoolExecutor(1) as pool, threadpool_limits(1):
            hardware = pool.submit(built)
            sparse = embedder.pruned(patterns, pruner, watch.step)
            watch.step("quantizing, compiling")
            quantized = sparse.quantize(patterns)
            model = compile_encoder(quantized, config, len(ids))
            watch.step("running the reference")
            embedded = embedder.part.embed("ids", ids)
            reference = ReferenceBackend(config)
            expected = reference.run(model, embedded, watch)
            watch.step("finding the nearest of ten sentences")
            others = []
            for done, sentence in enumerate(SENTENCES):
                watch(done, len(SENTENCES))
                other = embedder.token_ids(sentence)
                small = compile_encoder(quantized, config, len(other))
                others.append(reference.run(small, embedder.part.embed("ids", other)).embedding)
            watch.step("generating and compiling the RTL (kept for the next time)")
            rtl = hardware.result()
        watch.step("running the RTL")
        outcome = rtl.run(model, embedded, watch)
        compare(model, outcome.image, expected.image, expected.trail)
        near = sorted(zip((float(o @ outcome.embedding) for o in others), SENTENCES, strict=True), reverse=True)
        write_text(output / "report.html", html_page(model, outcome.run, f"STA-HW: {text}"))
        return model, outcome, near, embedder.fp32(ids), sparse.fp32(ids)

    model, outcome, near, dense, pruned = watched("demo", "", work)
    figures = run_figures(model, outcome.run) | {
        "text": text, "tokens": model.tokens, "nm": nm, "equal_to_reference": True,
        "cosine_with_dense_fp32": float(outcome.embedding @ dense),
        "cosine_with_fp32_of_the_same_weights": float(outcome.embedding @ pruned),
        "nearest": near[0][1], "nearest_cosine": near[0][0], "page": str(output / "report.html"),
    }  # fmt: skip
    if as_json:
        print_json(figures | {"layers": by_layer(model, outcome.run)})
        return
    print_layers(f"all-MiniLM-L6-v2, {model.tokens} tokens, {nm}, in RTL", by_layer(model, outcome.run))
    say(
        f"{outcome.run.cycles:,} cycles, {figures['fraction_of_ideal']:.3f} of ideal. Memory after the run equals the "
        "reference's, byte for byte."
    )
    say(
        f"Cosine of the embedding: {figures['cosine_with_dense_fp32']:.4f} with dense fp32 (pruned in one shot by "
        f"{pruner}), {figures['cosine_with_fp32_of_the_same_weights']:.4f} with fp32 and the same pruned weights."
    )
    say(f"Nearest of ten sentences ({near[0][0]:.3f}): {near[0][1]}")
    say(f"Page: {figures['page']}")

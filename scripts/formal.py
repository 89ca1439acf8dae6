"""Prove what tests/formal holds, and see each property fail in a block that is broken on purpose.

Every proof, and every property with its edit, is a run of Yosys and the solver of its own; two at a time. With
--write the results go to scripts/results/formal.json, and the table of docs/formal.md is made anew from them.

Example: python scripts/formal.py queue --json
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sim.formal import Outcome, Task, run_task, tasks_of
from sta_hw.cli.app import script
from sta_hw.errors import CheckError, InputError, ToolError
from sta_hw.files import write_text

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "formal"))
from proofs import PROOFS  # noqa: E402

RESULTS = ROOT / "scripts" / "results" / "formal.json"
PAGE = ROOT / "docs" / "formal.md"
BEGIN, END = "<!-- table: python scripts/formal.py --write -->\n", "<!-- end of table -->\n"


def guarded(task: Task) -> Outcome | str:
    """A task's outcome, or what is wrong."""
    try:
        return run_task(task)
    except (CheckError, ToolError) as error:
        return f"{error}"


def collected(outcomes: dict[str, Outcome]) -> list[dict[str, Any]]:
    """Each proof with its properties, as it is kept."""
    found = []
    for proof in PROOFS:
        reached = outcomes.get(f"{Task(proof, 'reach')}")
        if reached is None:
            continue
        mine = [outcomes[f"{task}"] for task in tasks_of([proof])]
        properties = {
            name: {
                "meaning": promise.sentence,
                "depth": promise.depth or proof.depth,
                "broken": {"module": promise.broken.module, "old": promise.broken.old, "new": promise.broken.new},
                "fails_in_cycle": outcomes[f"{Task(proof, 'break', name)}"].step,
            }
            for name, promise in proof.properties.items()
        }
        proving = [outcomes[f"{task}"].seconds for task in tasks_of([proof]) if task.kind == "prove"]
        found.append(
            {
                "name": proof.name, "block": proof.block, "setting": proof.setting, "method": proof.method,
                "depth": proof.depth, "bound": proof.bound, "seconds": round(sum(proving), 1),
                "seconds_in_all": round(sum(o.seconds for o in mine), 1), "reached": reached.reached,
                "properties": properties,
            }
        )  # fmt: skip
    return found


def table(results: list[dict[str, Any]]) -> str:
    """The results as docs/formal.md has them: a part for each block, its proofs, then its properties."""
    lines: list[str] = []
    for block in dict.fromkeys(r["block"] for r in results):
        mine = [r for r in results if r["block"] == block]
        lines += [f"### {block}", "", "| proof | of | method | s | reached |", "|---|---|---|---|---|"]
        for r in mine:
            method = (
                f"induction, {r['depth']}" if r["method"] == "induction" else f"bounded, {r['depth']}: {r['bound']}"
            )
            reached = ", ".join(f"{name} ({step})" for name, step in r["reached"].items())
            lines.append(f"| {r['name']} | {r['setting']} | {method} | {r['seconds']:.0f} | {reached} |")
        lines += ["", "| property | proofs | meaning | broken so | fails in |", "|---|---|---|---|---|"]
        seen: dict[tuple[str, str, str], list[tuple[str, int]]] = {}
        for r in mine:
            for name, p in r["properties"].items():
                edit = f"`{shown(p['broken']['old'])}` to `{shown(p['broken']['new'])}`"
                seen.setdefault((name, p["meaning"], edit), []).append((r["name"], p["fails_in_cycle"]))
        for (name, meaning, edit), where in seen.items():
            proofs = ", ".join(proof for proof, _ in where) if len(where) < len(mine) else "all"
            cycles = sorted({cycle for _, cycle in where})
            cycle = str(cycles[0]) if len(cycles) == 1 else f"{cycles[0]} to {cycles[-1]}"
            lines.append(f"| {name} | {proofs} | {meaning} | {edit} | {cycle} |")
        lines.append("")
    return "\n".join(lines)


def shown(code: str) -> str:
    """Source in a table's cell."""
    return " ".join(code.split()).replace("|", "\\|")


def main(
    only: Annotated[list[str] | None, typer.Argument(help="Proofs whose names begin so; all if none.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
    write: Annotated[bool, typer.Option(help="Keep the results, and make docs/formal.md's table of them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Run the proofs; exit with 1 if one fails, or a property holds in its broken block."""
    errors = Console(stderr=True)
    chosen = [p for p in PROOFS if not only or any(p.name.startswith(o) for o in only)]
    if unknown := [o for o in only or [] if not any(p.name.startswith(o) for p in PROOFS)]:
        raise InputError(f"no proof's name begins with {', '.join(unknown)}: {', '.join(p.name for p in PROOFS)}.")
    start = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    wrong: list[str] = []
    tasks = tasks_of(chosen)
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(guarded, task): task for task in tasks}
        for future in as_completed(running):
            outcome, task = future.result(), running[future]
            if isinstance(outcome, str):
                wrong.append(outcome)
                errors.print(outcome, style="red", highlight=False, markup=False)
            else:
                outcomes[str(task)] = outcome
                errors.print(f"{task} ({outcome.seconds:.0f} s)", highlight=False)
    seconds = time.monotonic() - start
    if wrong:
        raise CheckError(f"{len(wrong)} of {len(tasks)} runs are not as they must be: {wrong[0]}")
    results = collected(outcomes)
    properties = sum(len(r["properties"]) for r in results)
    if write:
        kept = results
        if only and RESULTS.exists():
            fresh = {r["name"]: r for r in results}
            before = {r["name"]: r for r in json.loads(RESULTS.read_text(encoding="utf-8"))["proofs"]} | fresh
            kept = [before[p.name] for p in PROOFS if p.name in before]
        total = round(sum(r["seconds_in_all"] for r in kept))
        write_text(RESULTS, json.dumps({"seconds_of_one_core": total, "proofs": kept}, indent=1) + "\n")
        page = PAGE.read_text(encoding="utf-8")
        head, _, rest = page.partition(BEGIN)
        _, _, tail = rest.partition(END)
        write_text(PAGE, f"{head}{BEGIN}\n{table(kept)}\n{END}{tail}")
    if as_json:
        print(json.dumps({"seconds": round(seconds, 1), "proofs": results}))
    else:
        print(f"{len(results)} proofs of {properties} properties hold, each fails where it must; {seconds:.0f} s.")


if __name__ == "__main__":
    script(main)

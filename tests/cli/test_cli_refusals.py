"""Bad and odd commands, each as a process of its own: a sentence and a status, never a traceback or a damaged file.

Most in forks of a process that has imported the package, see `commands`; those that need a shell in one of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import run_command
from refusals_files import ENVIRONMENTS, INPUTS, OUTPUTS, STREAMS, Case
from refusals_options import NAMES, NUMBERS, SIZES, UNUSED

from sta_hw.generate.generator import manifest
from sta_hw.spec.presets import preset

LIMIT = 60
"""Seconds, for a machine that does much else; alone, each takes less than five."""
REFUSED = [*NAMES, *NUMBERS, *UNUSED, *SIZES, *INPUTS, *OUTPUTS]
COMMAND = f"{shlex.quote(sys.executable)} -c 'from sta_hw.cli.main import main; main()'"


def test_how_many() -> None:
    assert len(REFUSED) + len(ENVIRONMENTS) + len(STREAMS) >= 300
    assert len({c for c, _ in REFUSED}) == len(REFUSED)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model, and files of every kind that is wrong."""
    folder = tmp_path_factory.mktemp("prepared")
    _model(folder / "model")
    for name in ("no-weights", "no-tokenizer", "damaged-config", "damaged-weights", "other-family"):
        shutil.copytree(folder / "model", folder / name)
    (folder / "no-weights/model.safetensors").unlink()
    (folder / "no-tokenizer/tokenizer.json").unlink()
    (folder / "damaged-config/config.json").write_text('{"model_type": "bert",')
    data = (folder / "model/model.safetensors").read_bytes()
    (folder / "damaged-weights/model.safetensors").write_bytes(data[: len(data) // 2])
    (folder / "other-family/config.json").write_text('{"model_type": "t5"}')
    (folder / "damaged-pruned").mkdir()
    (folder / "damaged-pruned/pruned.json").write_text("{")
    for name, file in (("weights", "model.safetensors"), ("tokenizer", "tokenizer.json"), ("config", "config.json"),
                       ("modules", "modules.json")):  # fmt: skip
        shutil.copytree(folder / "model", folder / f"endless-{name}")
        (folder / f"endless-{name}" / file).unlink(missing_ok=True)
        (folder / f"endless-{name}" / file).symlink_to("/dev/zero")
    for name in ("endless.npz", "endless.onnx"):
        (folder / name).symlink_to("/dev/zero")
    (folder / "folder").mkdir()
    (folder / "folder/kept.txt").write_text("kept\n")
    (folder / "lost").symlink_to(folder / "nowhere-at-all")
    (folder / "empty").write_bytes(b"")
    (folder / "bits").write_bytes(b"\xff" * 64)
    np.savez(folder / "other.npz", image=np.zeros(4))
    whole = (folder / "other.npz").read_bytes()
    (folder / "m.npz").write_bytes(whole)
    (folder / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "text.npz").write_text("no model\n")
    (folder / "lines.txt").write_text("One.\nTwo.\n")
    (folder / "gaps.txt").write_text("One.\n \nThree.\n\n")
    (folder / "long.txt").write_text("One.\n" + "word " * 600 + "\n")
    accelerator, engine = manifest("accelerator", preset("ci")), manifest("engine", preset("ci"))
    configuration = accelerator["configuration"]
    texts = {
        "table": {"0.output.dense": "dense"}, "list": [1], "numbers": {"0.output.dense": 24},
        "nested": {"0.output.dense": {"n": 2, "m": 4}}, "strange": {"0.pooler": "2:4"},
        "far": {"7.output.dense": "2:4"}, "bad": {"0.output.dense": "2:3"},
        "accelerator": accelerator, "engine": engine,
        "changed": accelerator | {"configuration": configuration | {"columns": 128}},
        "types": accelerator | {"configuration": configuration | {"rows": 4.0}},
        "flags": accelerator | {"configuration": configuration | {"rows": True}},
        "words": accelerator | {"configuration": configuration | {"nm": "any"}},
        "unknown": accelerator | {"configuration": configuration | {"pipes": 2}},
    }  # fmt: skip
    for name, value in texts.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "latin.json").write_bytes(b'{"\xe9": "2:4"}')
    (folder / "nul.json").write_bytes(b'{"a": "\0"}')
    (folder / "twice.json").write_text('{"output.dense": "2:4", "output.dense": "1:4"}')
    (folder / "nan.json").write_text('{"output.dense": NaN}')
    (folder / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    return folder


def _model(folder: Path) -> None:
    """A BERT of two layers with random weights, and a tokenizer of whole words."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from sta_hw.model.random import random_model

    folder.mkdir()
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "the",
        "sparse",
        "hardware",
        "skips",
        "zeros",
        "and",
        "it",
        "is",
        "fast",
    ]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    rng = np.random.default_rng(1)
    tensors = {}
    for name in random_model(1, layers=2).tensors:
        shape: tuple[int, ...] = (32, 32)
        if "embeddings.weight" in name:
            shape = ({"word": len(words), "position": 128, "token": 2}[name.split(".")[1].split("_")[0]], 32)
        elif "LayerNorm" in name or name.endswith(".bias"):
            shape = (64,) if "intermediate" in name else (32,)
        elif "intermediate" in name:
            shape = (64, 32)
        elif name.endswith("output.dense.weight") and "attention" not in name:
            shape = (32, 64)
        offset = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        tensors[name] = (offset + 0.3 * rng.standard_normal(shape)).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    described = {
        "model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2,
        "intermediate_size": 64, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "vocab_size": len(words),
        "max_position_embeddings": 128, "type_vocab_size": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(described))


def snapshot(folder: Path) -> dict[str, str]:
    """What is in a folder, by name; of a cache, not: a command may keep there what it has finished."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.split("/")[0] not in ("cache", "fifo"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    return found


@pytest.fixture
def scratch(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared folder, to be damaged."""
    here = tmp_path / "scratch"
    shutil.copytree(prepared, here, symlinks=True)
    os.mkfifo(here / "fifo")
    return here


def run(case: Case, here: Path) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    for name, value in case.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value.replace("{here}", str(here))
    line = f"{COMMAND} {case.command} {case.redirect}"
    return subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", line], cwd=here, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, encoding="utf-8", errors="replace", timeout=LIMIT,
    )  # fmt: skip


@pytest.mark.parametrize(("command", "says"), REFUSED, ids=[c for c, _ in REFUSED])
def test_refused(command: str, says: str, scratch: Path) -> None:
    before = snapshot(scratch)
    if "$" in command:  # which a shell has to read
        result = run(Case(command, 2, says), scratch)
    else:
        result = run_command(shlex.split(command), scratch, os.environ, LIMIT)
    assert "Traceback" not in result.stderr
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert says in result.stderr
    assert all(line.startswith("sta-hw: ") and len(line) < 2200 for line in result.stderr.splitlines())
    assert snapshot(scratch) == before


@pytest.mark.parametrize(
    "case", [*ENVIRONMENTS, *STREAMS], ids=lambda c: f"{c.command} {c.redirect} {dict(c.environment)}"
)
def test_environment(case: Case, scratch: Path) -> None:
    before = snapshot(scratch)
    result = run(case, scratch)
    assert "Traceback" not in result.stderr + result.stdout and "mistake in sta-hw" not in result.stderr
    assert result.returncode in np.atleast_1d(case.status), result.stderr
    assert case.says in (result.stderr + result.stdout)
    assert "\x1b" not in result.stdout + result.stderr  # no colours where there is no terminal
    after = snapshot(scratch)
    assert {k: after.get(k) for k in before} == before
    if result.returncode:
        assert after == before


@pytest.mark.parametrize(
    "command", ["fit", "cache", "doctor", "estimate --layers 1 --tokens 8 --preset ci --hidden 32 --heads 2"]
)
def test_json_is_alone_on_standard_output(command: str, scratch: Path) -> None:
    result = run(Case(f"{command} --json", 0, ""), scratch)
    json.loads(result.stdout)


def test_what_is_not_refused(scratch: Path) -> None:
    """The folder's good files are good: else everything above would be refused for the wrong reason."""
    made = run(
        Case(
            "compile --model model --preset accelerator.json --nm dense --nm-table table.json --tokens 5 -o n.npz",
            0,
            "",
        ),
        scratch,
    )
    assert made.returncode == 0, made.stderr
    result = run(
        Case("run n.npz --model model --text 'the sparse hardware' --backend reference --json", 0, ""), scratch
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["tokens"] == 5

"""Configurations on the command line: presets, manifests, changes, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import run

from sta_hw.cli.configuration import read_configuration
from sta_hw.errors import ConfigError
from sta_hw.spec.config import Config
from sta_hw.spec.presets import preset


def test_changes() -> None:
    changed = read_configuration("reference", ["rows=32", "nm=2:4, dense", "multiplier=lut", "columns=64"])
    assert (changed.rows, changed.nm, changed.multiplier, changed.columns) == (32, ("2:4", "dense"), "lut", 64)
    assert changed.lanes == Config(rows=32).lanes  # chosen anew
    assert read_configuration("reference", ["rows=32", "lanes=4"]).lanes == 4
    assert read_configuration("ci") == preset("ci")


def test_manifest(tmp_path: Path) -> None:
    """What `generate` wrote is what the other commands take."""
    result = run("generate", "--preset", "ci", "--nm", "2:4,dense", "-o", str(tmp_path), "--json")
    assert result.returncode == 0 and not result.stderr
    manifest = tmp_path / "engine.json"
    assert read_configuration(str(manifest)).hash == json.loads(result.stdout)["hash"]
    fitted = run("fit", "--preset", str(manifest), "--set", "groups=4", "--part", "lfe5u-25f", "--json")
    (row,) = json.loads(fitted.stdout)["parts"]["lfe5u-25f"]
    assert row["preset"] == "engine groups=4" and row["macs"] == 16


def test_multipliers_that_were_set_are_kept() -> None:
    def row(*changes: str) -> dict:
        result = run("fit", "--preset", "ci", "--part", "lfe5u-25f", "--top", "engine", "--json", *changes)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)["parts"]["lfe5u-25f"][0]

    assert row("--set", "multiplier=lut")["multipliers"] == 0 < row("--set", "rows=4")["multipliers"]
    refused = run("fit", "--part", "lfe5u-85f", "--set", "rows=6")
    assert refused.returncode == 2 and "the accelerator needs rows a power of two" in refused.stderr
    none = run("fit", "--part", "ice40hx8k", "--preset", "up5k", "--set", "multiplier=mac16", "--json")
    assert json.loads(none.stdout)["parts"]["ice40hx8k"][0]["fits"] == "no"  # it has no multipliers


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("reference", ["rowz=3"], "--set rowz=3 is no name=value of a parameter; the nearest is rows=16"),
        ("reference", ["rows"], "--set rows is no name=value"),
        ("reference", ["rows=many"], "rows is a whole number, as 16"),
        ("reference", ["rows=5", "lanes=4"], "lanes = 4 does not divide rows = 5"),
        ("reference", ["multiplier=mul"], "multiplier 'mul' is unknown"),
        ("referenze", [], "the nearest is reference"),
        ("nothing.json", [], "nothing.json cannot be read: No such file"),
        ("list.json", [], "list.json is no JSON object"),
        ("other.json", [], "parameters that this version of sta-hw does not know"),
    ],
)
def test_refusals(name: str, changes: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.json").write_text("[1]")
    Path("other.json").write_text('{"configuration": {"rows": 4, "pipes": 2}}')
    with pytest.raises(ConfigError, match=message):
        read_configuration(name, changes)

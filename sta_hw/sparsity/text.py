"""Text to fine-tune and calibrate with: sentences of the docstrings of an installed package."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from contextlib import suppress
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sim.native import cache_folder

from ..errors import InputError
from ..model.minilm import calibration_sentences

__all__ = ["CORPUS", "corpus_sentences", "evaluation_sentences"]

CORPUS = ("scipy", "sklearn", "sympy", "networkx")
"""Packages whose docstrings are the text: SciPy, scikit-learn, SymPy and NetworkX, all under the BSD license."""

_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_WORDS = re.compile(r"[A-Z][A-Za-z0-9 ,;:'\"()\-/`*]+[.!?]")
"""Prose: no formulas, no code, no field lists."""


def evaluation_sentences() -> list[str]:
    """120 sentences from docstrings of Python's standard library (PSF license), for measuring."""
    text = resources.files("sta_hw.model").joinpath("data", "evaluation-sentences.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line.strip()]


def _docstrings(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [text for node in ast.walk(tree) if isinstance(node, kinds) and (text := ast.get_docstring(node))]


def corpus_sentences(count: int, *, seed: int = 0, packages: tuple[str, ...] = CORPUS) -> list[str]:
    """Sentences of installed packages' docstrings, shuffled; none of those that are evaluated or calibrated with.

    Parameters
    ----------
    count : int
        How many; fewer come if there are not as many.
    seed : int
        Of the order.

    Raises
    ------
    InputError
        If none of the packages is installed.
    """
    sentences = _cached(packages)
    forbidden = {*evaluation_sentences(), *calibration_sentences()}
    sentences = [s for s in sentences if s not in forbidden]
    order = np.random.default_rng(seed).permutation(len(sentences))
    return [sentences[i] for i in order[:count]]


def _cached(packages: tuple[str, ...]) -> list[str]:
    """All sentences, kept by the packages' versions: reading them takes half a minute."""
    versions = []
    for package in packages:
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(_DISTRIBUTIONS.get(package, package))}")
    digest = hashlib.sha256(f"{versions} {_WORDS.pattern} {_SENTENCE.pattern}".encode()).hexdigest()[:16]
    path = cache_folder() / f"corpus-{digest}.json"
    if path.exists():
        return json.loads(path.read_text())
    sentences = _read(packages)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(sentences))
    part.replace(path)
    return sentences


def _read(packages: tuple[str, ...]) -> list[str]:
    found: dict[str, None] = {}
    for package in packages:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(place).rglob("*.py")):
                if "tests" in path.parts:
                    continue
                for text in _docstrings(path):
                    for paragraph in re.split(r"\n\s*\n", text):
                        for sentence in _SENTENCE.split(" ".join(paragraph.split())):
                            if 20 <= len(sentence) <= 240 and _WORDS.fullmatch(sentence):
                                found[sentence] = None
    if not found:
        raise InputError(f"none of {', '.join(packages)} is installed; pip install 'sta-hw[sparsity]' brings them.")
    return list(found)

"""Text to fine-tune and calibrate with: sentences of the docstrings of Python and of installed packages."""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import re
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..cache import cache_folder, keep, kept
from ..errors import InputError
from ..model.minilm import calibration_sentences, evaluation_sentences

__all__ = ["CORPUS", "corpus_digest", "corpus_sentences", "without_near"]

CORPUS = ("python", "scipy", "sklearn", "sympy", "networkx")
"""Whose docstrings are the text: Python's standard library (PSF license; the evaluated sentences are others of it), and
SciPy, scikit-learn, SymPy and NetworkX, all under the BSD license."""

_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_WORDS = re.compile(r"[A-Z][A-Za-z0-9 ,;:'\"()\-/`*]+[.!?]")
"""Prose: no formulas, no code, no field lists."""
_JACCARD, _CONTAINED = 0.6, 0.75
"""Shares of words from which a sentence is too near to an evaluated one: of both sentences', and of its own."""
_NOT_TEXT = {"tests", "test", "site-packages", "dist-packages"}


def _docstrings(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [text for node in ast.walk(tree) if isinstance(node, kinds) and (text := ast.get_docstring(node))]


def _words(sentence: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", sentence.lower()))


class _Nearness:
    """Tells sentences that say almost what one of some others does, or are a part of one.

    Others are looked up by the words that they have: comparing each with each takes minutes for the whole corpus.
    """

    def __init__(self, others: Sequence[str]) -> None:
        words = [_words(s) for s in others]
        self._lengths = np.array([len(w) for w in words], np.int64)
        with_word: dict[str, list[int]] = {}
        for number, own in enumerate(words):
            for word in own:
                with_word.setdefault(word, []).append(number)
        self._with_word = {word: np.array(numbers) for word, numbers in with_word.items()}

    def __call__(self, sentence: str) -> bool:
        own = _words(sentence)
        found = [self._with_word[word] for word in own if word in self._with_word]
        if not found:
            return False
        common = np.bincount(np.concatenate(found), minlength=len(self._lengths))
        union = self._lengths + len(own) - common
        return bool(np.any((common >= _JACCARD * union) | (common >= _CONTAINED * len(own))))


def corpus_sentences(count: int, *, seed: int | None = 0, packages: tuple[str, ...] = CORPUS) -> list[str]:
    """Sentences of docstrings, shuffled; none that is evaluated or calibrated with, or nearly the same.

    Parameters
    ----------
    count : int
        How many; fewer come if there are not as many.
    seed : int or None
        Of the order; None leaves them as they stand in the sources.
    packages : names of packages, or ``python`` for the standard library

    Raises
    ------
    InputError
        If none of the packages is installed.
    """
    sentences = _cached(packages)
    if seed is None:
        return sentences[:count]
    order = np.random.default_rng(seed).permutation(len(sentences))
    return [sentences[i] for i in order[:count]]


def without_near(sentences: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Those that are not, or nearly, a sentence of the texts."""
    near = _Nearness([s for text in texts for s in _SENTENCE.split(" ".join(text.split()))])
    return [s for s in sentences if not near(s)]


def corpus_digest(packages: tuple[str, ...] = CORPUS) -> str:
    """A digest of what decides which sentences there are: the packages' versions and the rules."""
    versions = [f"python {platform.python_version()}"]
    for package in packages:
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(_DISTRIBUTIONS.get(package, package))}")
    forbidden = [*evaluation_sentences(), *calibration_sentences()]
    rules = (packages, versions, _WORDS.pattern, _SENTENCE.pattern, _JACCARD, _CONTAINED, forbidden)
    return hashlib.sha256(repr(rules).encode()).hexdigest()[:16]


def _cached(packages: tuple[str, ...]) -> list[str]:
    """All sentences, kept by the packages' versions: reading them takes half a minute."""
    digest = corpus_digest(packages)
    path = cache_folder() / f"corpus-{digest}.json"
    if (data := kept(path)) is not None:
        return json.loads(data)
    near = _Nearness([*evaluation_sentences(), *calibration_sentences()])
    sentences = [s for s in _read(packages) if not near(s)]
    keep(path, json.dumps(sentences).encode())
    return sentences


def _sources(packages: tuple[str, ...]) -> Iterator[Path]:
    for package in packages:
        if package == "python":
            places = [sysconfig.get_paths()["stdlib"]]
        else:
            spec = find_spec(package)
            places = list(spec.submodule_search_locations or []) if spec else []
        for place in map(Path, places):
            for path in sorted(place.rglob("*.py")):
                if not _NOT_TEXT & set(path.relative_to(place).parts):
                    yield path


def _read(packages: tuple[str, ...]) -> list[str]:
    found: dict[str, None] = {}
    for path in _sources(packages):
        for text in _docstrings(path):
            for paragraph in re.split(r"\n\s*\n", text):
                for sentence in _SENTENCE.split(" ".join(paragraph.split())):
                    if 20 <= len(sentence) <= 240 and _WORDS.fullmatch(sentence):
                        found[sentence] = None
    if not found:
        raise InputError(f"none of {', '.join(packages)} is installed; pip install 'sta-hw[sparsity]' brings them.")
    return list(found)

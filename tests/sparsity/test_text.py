"""The corpus: prose, none of it evaluated or calibrated with; kept between runs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from sta_hw.errors import InputError
from sta_hw.model.minilm import calibration_sentences, evaluation_sentences
from sta_hw.sparsity.text import corpus_sentences


@pytest.mark.parametrize("package", ["networkx", "python"])
def test_nothing_evaluated_is_learned(package: str) -> None:
    corpus = corpus_sentences(10**6, packages=(package,))
    assert len(corpus) > 1000 and len(set(corpus)) == len(corpus)
    assert not set(corpus) & {*evaluation_sentences(), *calibration_sentences()}
    assert all(20 <= len(s) <= 240 and s[-1] in ".!?" for s in corpus)
    # Not in other words either: no sentence contains an evaluated one, nor lies within one.
    for sentence in evaluation_sentences():
        assert not any(sentence in s or s in sentence for s in corpus)
    # Nor in another order, nor with a word or two changed: at least a quarter of the words are not in an evaluated one.
    evaluated = [Counter(set(re.findall(r"\w+", s.lower()))) for s in evaluation_sentences()]
    for sentence in corpus[:3000]:
        words = set(re.findall(r"\w+", sentence.lower()))
        assert all((e & Counter(words)).total() < 0.75 * len(words) for e in evaluated)


def test_seeds_and_counts() -> None:
    packages = ("networkx",)
    first = corpus_sentences(50, seed=1, packages=packages)
    assert (
        first == corpus_sentences(50, seed=1, packages=packages) == corpus_sentences(60, seed=1, packages=packages)[:50]
    )
    assert first != corpus_sentences(50, seed=2, packages=packages)


def test_evaluated_sentences_that_a_package_has_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sta_hw.sparsity import text

    monkeypatch.setenv("STA_HW_CACHE", str(tmp_path))
    monkeypatch.setattr(text, "_read", lambda packages: [*evaluation_sentences(), "Something else entirely."])
    assert text.corpus_sentences(1000) == ["Something else entirely."]


def test_packages_that_are_not_there() -> None:
    with pytest.raises(InputError, match="none of no_such_package is installed"):
        corpus_sentences(1, packages=("no_such_package",))

"""Folds of equal size, or with every trait of the cases (labels, sex, scanner) in equal shares; a subject is never in
two of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from medseg.data.entry import Entry
from medseg.data.randomness import derive_seed

__all__ = ["assign_folds", "make_folds", "stratified_folds", "subject_of"]


def subject_of(entry: Mapping[str, Any]) -> str:
    """What must stay together when entries are split: the ``subject``, or the case itself (``Case.group``)."""
    return str(entry["subject"] if "subject" in entry else entry.get("case_id", entry["image"]))


def assign_folds(entries: Sequence[Mapping[str, Any]], num_folds: int, seed: int = 0) -> list[Entry]:
    """Copies of the entries with ``fold`` set, by ``make_folds``."""
    folds = make_folds([subject_of(entry) for entry in entries], num_folds, seed)
    return [{**entry, "fold": fold} for entry, fold in zip(entries, folds, strict=True)]


def make_folds(subjects: Sequence[str], num_folds: int, seed: int = 0) -> list[int]:
    """The fold of each case: subjects are shuffled, then distributed so that fold sizes stay even.

    Args:
        subjects: subject of each case.
        num_folds: number of folds.
        seed: seed of the shuffling.
    """
    counts = Counter(subjects)
    sizes = [0] * num_folds
    folds: dict[str, int] = {}
    for subject in sorted(_shuffled(counts, seed), key=lambda s: -counts[s]):  # stable: large subjects first
        folds[subject] = sizes.index(min(sizes))
        sizes[folds[subject]] += counts[subject]
    return [folds[subject] for subject in subjects]


def stratified_folds(
    subjects: Sequence[str], traits: Sequence[Collection[str]], num_folds: int, seed: int = 0
) -> list[int]:
    """The fold of each case; those subjects with the rarest traits come first.

    Each goes to the fold that has least of its rarest trait, then of its next, then of cases (after Sechidis et al.
    2011, iterative stratification).

    Args:
        subjects: subject of each case.
        traits: traits of each case; one for classes that exclude each other, several for labels.
        num_folds: number of folds.
        seed: seed of the shuffling.
    """
    counts = Counter(subjects)
    held: dict[str, Counter[str]] = {subject: Counter() for subject in counts}
    for subject, own in zip(subjects, traits, strict=True):
        held[subject].update(own)
    total = sum(held.values(), Counter[str]())
    order = _shuffled(counts, seed)
    order.sort(key=lambda s: (min((total[t] for t in held[s]), default=len(subjects)), -counts[s]))
    placed: list[Counter[str]] = [Counter() for _ in range(num_folds)]
    sizes = [0] * num_folds
    folds: dict[str, int] = {}
    for subject in order:
        rarest_first = sorted(held[subject], key=lambda trait: (total[trait], trait))
        fold = min(range(num_folds), key=lambda f: ([placed[f][trait] for trait in rarest_first], sizes[f]))
        placed[fold] += held[subject]
        sizes[fold] += counts[subject]
        folds[subject] = fold
    return [folds[subject] for subject in subjects]


def _shuffled(subjects: Collection[str], seed: int) -> list[str]:
    order = sorted(subjects)
    np.random.default_rng(derive_seed(seed)).shuffle(order)
    return order

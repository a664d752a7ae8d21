"""Folds that hold every trait of the cases (labels, sex, scanner) in equal shares, with subjects kept together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from medseg.data.datalist import Entry, subject_of
from medseg.data.randomness import derive_seed

__all__ = ["stratified_folds"]


def stratified_folds(
    cases: Sequence[Entry], traits: Sequence[Collection[str]], num_folds: int, seed: int = 0
) -> list[Entry]:
    """Copies of the cases with ``fold`` set.

    Subjects are shuffled; those with the rarest traits are dealt first, each to the fold that has least of its rarest
    trait, then of its next, then of cases (after Sechidis et al. 2011, iterative stratification).

    Args:
        cases: with ``case_id``, and ``subject`` where several cases are one person's.
        traits: of each case; one for classes that exclude each other, several for labels.
        num_folds: number of folds.
        seed: of the shuffling.
    """
    members: dict[str, list[int]] = {}
    for index, case in enumerate(cases):
        members.setdefault(subject_of(case), []).append(index)
    held = {subject: Counter(t for i in indices for t in traits[i]) for subject, indices in members.items()}
    total = sum(held.values(), Counter[str]())
    order = sorted(members)
    np.random.default_rng(derive_seed(seed)).shuffle(order)
    order.sort(key=lambda s: (min((total[t] for t in held[s]), default=len(cases)), -len(members[s])))
    dealt: list[Counter[str]] = [Counter() for _ in range(num_folds)]
    sizes = [0] * num_folds
    folds: dict[int, int] = {}
    for subject in order:
        rarest_first = sorted(held[subject], key=lambda trait: (total[trait], trait))
        fold = min(range(num_folds), key=lambda f: ([dealt[f][trait] for trait in rarest_first], sizes[f]))
        dealt[fold] += held[subject]
        sizes[fold] += len(members[subject])
        folds |= {index: fold for index in members[subject]}
    return [{**case, "fold": folds[index]} for index, case in enumerate(cases)]

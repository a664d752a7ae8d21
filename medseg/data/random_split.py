"""Random sections of a data set by one generator's permutation: as published by case, or with groups kept together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medseg.errors import ConfigError

__all__ = ["grouped_split", "random_split"]


def _ends(count: int, fractions: Sequence[float]) -> list[int]:
    """Where sections end; each sum of fractions is rounded, so that none of the cases is lost."""
    if not fractions or min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-4):
        shown = ", ".join(f"{share:g}" for share in fractions)
        raise ConfigError(f"The fractions of a split are {shown}; give numbers from 0 on whose sum is 1.")
    return [round(count * sum(fractions[: i + 1])) for i in range(len(fractions))]


def random_split(ids: Sequence[str], fractions: Sequence[float], seed: int) -> list[list[str]]:
    """The sorted ids, permuted by ``numpy.random.default_rng(seed)`` and cut; each section is sorted again.

    This is how the neural-operator publications split BraTS'19 and BraTS'23 (seed 100).

    Raises:
        ConfigError: the fractions' sum is not 1.
    """
    ends = _ends(len(ids), fractions)
    permuted = np.random.default_rng(seed).permutation(sorted(ids)).tolist()
    return [sorted(permuted[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def grouped_split(ids: Sequence[str], groups: Sequence[str], fractions: Sequence[float], seed: int) -> list[list[str]]:
    """The same by groups, such as patients: whole groups in random order fill one section after the other.

    Args:
        ids: cases.
        groups: the group of each case.
        fractions: shares of the cases, kept to within the size of a group.
        seed: random seed of the order.

    Raises:
        ConfigError: the fractions' sum is not 1.
    """
    ends = _ends(len(ids), fractions)
    members: dict[str, list[str]] = {}
    for name, group in zip(ids, groups, strict=True):
        members.setdefault(group, []).append(name)
    sections: list[list[str]] = [[] for _ in fractions]
    placed = 0
    for group in np.random.default_rng(seed).permutation(sorted(members)).tolist():
        section = next(i for i, end in enumerate(ends) if placed < end)
        sections[section] += members[group]
        placed += len(members[group])
    return [sorted(section) for section in sections]

"""Which p-values are adjusted together: one primary endpoint by itself, everything else as secondary."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from medseg.errors import ConfigError

__all__ = ["AdjustedP", "Equivalence", "adjust_families", "equivalence", "holm"]

Row = TypeVar("Row", bound=Hashable)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979); NaN stays NaN and does not count."""
    order = [i for i in np.argsort(p_values) if math.isfinite(p_values[i])]
    adjusted = [math.nan] * len(p_values)
    running = 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - position) * p_values[index]))
        adjusted[index] = running
    return adjusted


@dataclass(frozen=True)
class AdjustedP:
    """A p-value, the same after Holm's adjustment within its family, and that family's name and size."""

    p_value: float
    adjusted: float
    family: str
    tests: int


def adjust_families(
    p_values: Mapping[Row, float], families: Mapping[Row, str], *, primary: str = "primary"
) -> dict[Row, AdjustedP]:
    """Adjust each family by Holm (1979), apart from the others.

    Args:
        p_values: row of the table -> p; NaN (no test) stays NaN and does not count.
        families: row -> name of its family: ``primary`` for the comparisons of the one primary endpoint with the
            baseline, and for the rest one family per score, over its labels and methods.
        primary: name of the primary family, which has to be among them.

    Raises:
        ConfigError: no row belongs to the primary endpoint.
    """
    if primary not in families.values():
        raise ConfigError(
            f"No comparison belongs to the endpoint '{primary}'. A study needs one endpoint that was named beforehand: "
            f"name one of {', '.join(sorted(set(families.values())))}."
        )
    result: dict[Row, AdjustedP] = {}
    for family in dict.fromkeys(families.values()):
        rows = [row for row in p_values if families[row] == family]
        adjusted = holm([p_values[row] for row in rows])
        tests = sum(math.isfinite(value) for value in adjusted)
        result |= {
            row: AdjustedP(p_values[row], value, family, tests) for row, value in zip(rows, adjusted, strict=True)
        }
    return {row: result[row] for row in p_values}


@dataclass(frozen=True)
class Equivalence:
    """Whether a 90 % interval shows equivalence or non-inferiority of the second method within a margin.

    A difference that is "not significant" is neither: without either verdict nothing is shown.
    """

    margin: float
    equivalent: bool
    non_inferior: bool


def equivalence(low_90: float, high_90: float, margin: float, *, higher_is_better: bool = True) -> Equivalence:
    """Two one-sided tests at 5 % (Schuirmann 1987).

    Args:
        low_90, high_90: 90 % interval of the difference ``second - first``; NaN shows nothing.
        margin: largest difference that does not matter, stated before the data were seen; in units of the score.
        higher_is_better: false of distances.

    Raises:
        ConfigError: a margin that is not positive.
    """
    if not margin > 0:
        raise ConfigError(f"The margin {margin} is not a valid margin of equivalence; give a number above 0.")
    above, below = low_90 > -margin, high_90 < margin
    return Equivalence(margin, above and below, above if higher_is_better else below)

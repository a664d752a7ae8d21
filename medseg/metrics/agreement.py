"""Agreement of measured volumes: bias and limits of agreement (Bland and Altman 1986)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["BlandAltman", "bland_altman"]


@dataclass(frozen=True)
class BlandAltman:
    """Differences ``prediction - reference`` in the volumes' unit.

    Attributes:
        bias: mean difference.
        bias_low, bias_high: its t interval; NaN with fewer than two pairs.
        sd: standard deviation of the differences.
        lower, upper: limits of agreement, ``bias ± 1.96 sd``.
    """

    bias: float
    bias_low: float
    bias_high: float
    sd: float
    lower: float
    upper: float


def bland_altman(reference: np.ndarray, prediction: np.ndarray, *, level: float = 0.95) -> BlandAltman:
    """Agreement of the volumes ``(n,)`` of independent subjects; pairs with a NaN are ignored."""

    from scipy.stats import t as student_t

    differences = np.asarray(prediction, dtype=float) - np.asarray(reference, dtype=float)
    differences = differences[np.isfinite(differences)]
    count = len(differences)
    if count < 2:
        bias = float(differences[0]) if count else math.nan
        return BlandAltman(bias, math.nan, math.nan, math.nan, math.nan, math.nan)
    bias, sd = float(differences.mean()), float(differences.std(ddof=1))
    half = float(student_t.ppf((1 + level) / 2, count - 1)) * sd / math.sqrt(count)
    return BlandAltman(bias, bias - half, bias + half, sd, bias - 1.96 * sd, bias + 1.96 * sd)

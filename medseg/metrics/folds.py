"""Where only the folds' means exist: the t test corrected for folds that share training data.

With scores per case, pool the cases of all folds and group them by subject (``subject_sums``): a statement on the
trained networks. A statement on the recipe needs several seeds or repeats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.errors import DataError

__all__ = ["FoldTest", "fold_test"]


@dataclass(frozen=True)
class FoldTest:
    """Mean of the folds' differences with t, degrees of freedom and two-sided p-value."""

    mean: float
    t: float
    degrees: int
    p_value: float


def fold_test(differences: Sequence[float], test_over_train: float) -> FoldTest:
    """Corrected resampled t test (Nadeau and Bengio 2003).

    Args:
        differences: mean difference of each fold, of all repeats.
        test_over_train: size of a fold's test part over that of its training part; 1 / (K - 1) of K folds.

    Raises:
        DataError: fewer than two folds.
    """

    from scipy.stats import t as student_t

    values = np.asarray(differences, dtype=float)
    count = len(values)
    if count < 2:
        raise DataError(f"{count} fold has no spread; the test over folds needs at least two. Compare the cases.")
    mean, spread = float(values.mean()), float(values.var(ddof=1))
    if spread == 0:
        return FoldTest(mean, math.nan, count - 1, 1.0 if mean == 0 else 0.0)
    t = mean / math.sqrt((1 / count + test_over_train) * spread)
    return FoldTest(mean, t, count - 1, 2 * float(student_t.sf(abs(t), count - 1)))

"""Several trainings of a method: what chance in training adds to the error of a mean and of a difference.

The mean over seeds speaks about these networks; the intervals here speak about networks retrained from scratch too, by
the two-way analysis of variance without replication.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from medseg.errors import DataError

__all__ = ["CrossedMean", "TrainingDifference", "crossed_mean", "training_difference"]


@dataclass(frozen=True)
class CrossedMean:
    """Mean of subjects × seeds and its interval over new subjects and new trainings.

    Attributes:
        mean: mean of all scores.
        low, high: bounds of the interval.
        standard_error: with both sources of chance.
        degrees: degrees of freedom (Satterthwaite 1946), from 1 to the number of subjects - 1.
        seed_means: mean of each seed.
        seed_sd: standard deviation of the seeds' means.
        ms_case, ms_seed, ms_residual: mean squares.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    degrees: float
    seed_means: tuple[float, ...]
    seed_sd: float
    ms_case: float
    ms_seed: float
    ms_residual: float


@dataclass(frozen=True)
class TrainingDifference:
    """Difference ``second - first`` of two methods trained several times, with t, degrees of freedom and p-value."""

    mean: float
    low: float
    high: float
    t: float
    degrees: float
    p_value: float


def crossed_mean(scores: np.ndarray, *, level: float = 0.95) -> CrossedMean:
    """Mean over subjects and seeds.

    Args:
        scores: ``(subjects, seeds)``, subjects' means where they have several cases; rows with a NaN are ignored.

    Raises:
        DataError: fewer than two subjects or two seeds.
    """

    from scipy.stats import t as student_t

    table = _complete(scores)
    subjects, seeds = table.shape
    case, seed, residual = _mean_squares(table)
    both = case + seed - residual
    if both > case:
        spread = case**2 / (subjects - 1) + seed**2 / (seeds - 1) + residual**2 / ((subjects - 1) * (seeds - 1))
        degrees = min(max(both**2 / spread, 1.0), subjects - 1.0)
    else:
        both, degrees = case, subjects - 1.0
    error = math.sqrt(both / table.size)
    mean, half = float(table.mean()), float(student_t.ppf((1 + level) / 2, degrees)) * error
    means = table.mean(axis=0)
    return CrossedMean(
        mean,
        mean - half,
        mean + half,
        error,
        degrees,
        tuple(means.tolist()),
        float(means.std(ddof=1)),
        case,
        seed,
        residual,
    )


def training_difference(first: np.ndarray, second: np.ndarray, *, level: float = 0.95) -> TrainingDifference:
    """Difference of two methods, each trained with S seeds, on the same subjects.

    Args:
        first, second: ``(subjects, S)`` each; the seeds of the two are not paired. Rows with a NaN are ignored.

    Raises:
        DataError: unequal shapes, or fewer than two subjects or two seeds.
    """

    from scipy.stats import t as student_t

    if np.shape(first) != np.shape(second):
        raise DataError(
            f"The methods have scores of {np.shape(first)} and {np.shape(second)} subjects and seeds; give both the "
            "same subjects and the same number of seeds."
        )
    seeds = np.shape(first)[1]
    both = _complete(np.concatenate([first, second], axis=1))
    tables = both[:, :seeds], both[:, seeds:]
    _complete(tables[0])
    subjects = len(both)
    differences = tables[1].mean(axis=1) - tables[0].mean(axis=1)
    mean, cases = float(differences.mean()), float(differences.var(ddof=1)) / subjects  # squared error over subjects
    spread = [float(table.mean(axis=0).var(ddof=1)) for table in tables]
    residual = sum(_mean_squares(table)[2] for table in tables)
    variance = cases + max(0.0, sum(spread) / seeds - residual / (subjects * seeds))
    if variance == 0:
        return TrainingDifference(mean, mean, mean, math.nan, subjects - 1.0, 1.0 if mean == 0 else 0.0)
    parts = cases**2 / (subjects - 1) + sum(value**2 for value in spread) / (seeds**2 * (seeds - 1))
    degrees = min(max(variance**2 / parts, 1.0), subjects - 1.0)
    error = math.sqrt(variance)
    half = float(student_t.ppf((1 + level) / 2, degrees)) * error
    p_value = 2 * float(student_t.sf(abs(mean) / error, degrees))
    return TrainingDifference(mean, mean - half, mean + half, mean / error, degrees, p_value)


def _complete(scores: np.ndarray) -> np.ndarray:
    """The rows without a NaN."""
    table: np.ndarray = np.asarray(scores, dtype=float)
    table = table[np.isfinite(table).all(axis=1)]
    if min(table.shape) < 2:
        raise DataError(
            f"The scores are of {table.shape[0]} subjects and {table.shape[1]} seeds; chance of training needs two of "
            "each. Train with another seed, or compare these networks by subject."
        )
    return table


def _mean_squares(table: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of rows (subjects), columns (seeds) and what is left."""
    rows, columns = table.shape
    mean = table.mean()
    by_row, by_column = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    left = table - by_row - by_column + mean
    return (
        columns * float(((by_row - mean) ** 2).sum()) / (rows - 1),
        rows * float(((by_column - mean) ** 2).sum()) / (columns - 1),
        float((left**2).sum()) / ((rows - 1) * (columns - 1)),
    )

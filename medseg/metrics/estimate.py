"""A mean score as every report prints it: its interval over subjects, and the failures among its cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.metrics.catalog import is_metric, metric
from medseg.metrics.scores import Scores
from medseg.metrics.shares import Share, failures
from medseg.metrics.single_score import ScoreInterval, score_interval
from medseg.metrics.subjects import subject_sums

__all__ = ["FAILURE", "Estimate", "estimate", "estimate_table", "less_is_better"]

FAILURE = 0.1  # Dice below which a label of a case counts as a failure


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval, and the number of cases in which the Dice of a label is below ``FAILURE``."""

    score: ScoreInterval
    failures: Share


def less_is_better(score: str) -> bool:
    """Whether a score is one of errors, such as a distance."""
    return is_metric(score) and metric(score).lower_is_better


def estimate(scores: Scores, score: str = "dice", label: str | None = None) -> Estimate:
    """The mean of one score over cases, of one label or over labels."""
    columns = slice(None) if label is None else [list(scores.labels).index(label)]
    return estimate_table(scores.table(score)[:, columns], scores.table()[:, columns], scores.units, score)


def estimate_table(table: np.ndarray, dice: np.ndarray, units: Sequence[str], score: str) -> Estimate:
    """The mean over labels of the mean over cases, of values that are chosen already.

    Args:
        table: values of ``score``, ``(cases, labels)``; NaN is ignored.
        dice: Dice of the same, which tells failures.
        units: subject of each case.
    """
    limits = metric(score).limits if is_metric(score) else (-math.inf, math.inf)
    interval = score_interval(subject_sums(table, units), limits=limits)
    return Estimate(interval, failures(np.fmin.reduce(dice, axis=1, initial=math.inf), units, below=FAILURE))

"""The unit of analysis: a table of scores as one sum and one weight per subject.

Two sides, visits or slices of one subject are not independent, so intervals and tests take subjects, not cases. Every
mean is then a ratio, ``sum of sums / sum of weights``: of cases, of lesions found, of false positives per scan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.errors import DataError

__all__ = ["FEWEST_SUBJECTS", "SubjectSums", "subject_sums"]

FEWEST_SUBJECTS = 6  # of five, no sign-flip test gets below p = 0.0625: their values are listed, without an interval


@dataclass(frozen=True)
class SubjectSums:
    """Sums and weights ``(G, L)`` of G subjects and L labels; every subject and every label has some weight.

    Attributes:
        names: names of the subjects.
        sums: sum of each subject's scores.
        weights: their number (or the number of lesions, of scans).
        cases: number of cases with a score.
    """

    names: tuple[str, ...]
    sums: np.ndarray
    weights: np.ndarray
    cases: int

    @property
    def label_means(self) -> np.ndarray:
        """``(L,)``: the mean of each label over all cases."""
        means: np.ndarray = self.sums.sum(axis=0) / self.weights.sum(axis=0)
        return means

    @property
    def mean(self) -> float:
        """Mean over labels of the mean over cases; NaN without any score."""
        return float(self.label_means.mean()) if self.names else math.nan

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        """One sum and one weight per subject, ``(G,)`` each: the sums add up to the mean, the weights to 1."""
        share = 1 / (self.weights.sum(axis=0) * self.weights.shape[1])
        return self.sums @ share, self.weights @ share

    def residuals(self) -> np.ndarray:
        """``(G,)``: what each subject adds to the error of the mean, to first order."""
        share = 1 / (self.weights.sum(axis=0) * self.weights.shape[1])
        residuals: np.ndarray = (self.sums - self.weights * self.label_means) @ share
        return residuals

    def pseudo_values(self) -> np.ndarray:
        """``(G,)``: a value per subject whose plain mean is the mean; the subjects' means where their weights agree."""
        values: np.ndarray = self.mean + len(self.names) * self.residuals()
        return values

    def standard_error(self) -> float:
        """Linearised standard error of the mean over subjects; NaN with fewer than two."""
        count = len(self.names)
        return math.sqrt(count / (count - 1) * float((self.residuals() ** 2).sum())) if count > 1 else math.nan


def subject_sums(
    scores: np.ndarray, subjects: Sequence[str], *, counts: np.ndarray | None = None, per_subject: bool = False
) -> SubjectSums:
    """Group the scores of cases by subject.

    Args:
        scores: ``(cases,)`` or ``(cases, labels)``; a NaN is undefined and ignored. The cases of several folds are
            given together.
        subjects: subject of each case; the case's own name where the datalist has none.
        counts: for ratios such as found lesions per lesion, the denominators in the shape of ``scores``.
        per_subject: subjects weigh the same, however many cases they have.

    Raises:
        DataError: another number of subjects than of cases.
    """
    table = np.asarray(scores, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    if len(table) != len(subjects):
        raise DataError(f"{len(table)} cases have {len(subjects)} subjects; name one subject for each case.")
    known = np.isfinite(table)
    weights = known.astype(float) if counts is None else np.where(known, np.reshape(counts, table.shape), 0.0)
    names, index = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    # Subject after subject, so that the order of the cases changes no digit more than addition does.
    totals, shares = (np.zeros((len(names), table.shape[1])) for _ in range(2))
    np.add.at(totals, index, np.where(known, table, 0.0))
    np.add.at(shares, index, weights)
    if per_subject:
        totals = np.divide(totals, shares, out=totals, where=shares > 0)
        shares = (shares > 0).astype(float)
    rows, labels = (shares > 0).any(axis=1), (shares > 0).any(axis=0)
    return SubjectSums(
        tuple(names[rows].tolist()),
        totals[rows][:, labels],
        shares[rows][:, labels],
        int(np.count_nonzero((weights > 0).any(axis=1))),
    )

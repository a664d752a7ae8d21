"""Do probabilities mean what they say? Expected calibration error, reliability curve, Brier score, log-likelihood.

Bins are ``(i/M, (i+1)/M]``, the first with 0. MONAI's ``calibration_binning`` puts an edge value into the lower bin
only with ``right=False``, against its text; the class-wise error equals its ``CalibrationErrorMetric``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from medseg.labels import IGNORE

__all__ = [
    "Reliability",
    "brier_score",
    "class_reliability",
    "negative_log_likelihood",
    "pooled_reliability",
    "top_label_reliability",
]

_LEAST = 1e-12  # probability below which a logarithm is clipped


@dataclass(frozen=True)
class Reliability:
    """Sums per bin, ``(M,)`` each: the reliability curve is ``hits / counts`` over ``confidence / counts``."""

    counts: np.ndarray
    confidence: np.ndarray
    hits: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 to 1; NaN without any voxel."""
        total = self.counts.sum()
        return float(np.abs(self.hits - self.confidence).sum() / total) if total else math.nan


def _reliability(confidence: np.ndarray, hits: np.ndarray, bins: int) -> Reliability:
    edges = np.arange(bins + 1) / bins
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    return Reliability(
        np.bincount(index, minlength=bins),
        np.bincount(index, confidence, minlength=bins),
        np.bincount(index, hits, minlength=bins),
    )


def top_label_reliability(
    probabilities: np.ndarray, reference: np.ndarray, *, bins: int = 15, foreground: bool = False
) -> Reliability:
    """Largest probability of a voxel, and whether that class is right.

    Args:
        probabilities: ``(C, *spatial)``, 0 to 1.
        reference: label indices ``(*spatial)``; ``IGNORE`` voxels count nowhere.
        foreground: only voxels whose reference or predicted class is not background, which makes the error look small.
    """
    table, labels = _voxels(probabilities, reference)
    predicted = table.argmax(axis=0)
    if foreground:
        kept = (labels != 0) | (predicted != 0)
        table, labels, predicted = table[:, kept], labels[kept], predicted[kept]
    return _reliability(table.max(axis=0), predicted == labels, bins)


def class_reliability(probabilities: np.ndarray, reference: np.ndarray, *, bins: int = 10) -> tuple[Reliability, ...]:
    """One curve for each class: its probability, and whether the voxel is of it."""
    table, labels = _voxels(probabilities, reference)
    return tuple(_reliability(row, labels == index, bins) for index, row in enumerate(table))


def pooled_reliability(curves: Iterable[Reliability]) -> Reliability:
    """The curve of several cases' voxels together."""
    counts, confidence, hits = zip(*((c.counts, c.confidence, c.hits) for c in curves), strict=True)
    return Reliability(np.sum(counts, axis=0), np.sum(confidence, axis=0), np.sum(hits, axis=0))


def brier_score(probabilities: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``(C,)``: mean squared error of each class's probability; their sum is the Brier score, 0 to 2."""
    table, labels = _voxels(probabilities, reference)
    return np.array([np.mean((row - (labels == index)) ** 2) for index, row in enumerate(table)])


def negative_log_likelihood(probabilities: np.ndarray, reference: np.ndarray) -> float:
    """Mean of ``-log`` of the right class's probability, natural logarithm."""
    table, labels = _voxels(probabilities, reference)
    right = np.take_along_axis(table, labels[None], axis=0)
    return float(-np.log(np.maximum(right, _LEAST)).mean())


def _voxels(probabilities: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities ``(C, voxels)`` and label indices ``(voxels,)`` without those to ignore."""
    kept = reference != IGNORE
    return probabilities[:, kept].astype(float), reference[kept].astype(np.int64)

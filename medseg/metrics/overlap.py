"""Counts of voxels of two masks and the scores that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Overlap", "overlap"]


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


@dataclass(frozen=True)
class Overlap:
    """True and false positives and negatives; a score is NaN where its denominator is 0."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def dice(self) -> float:
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def sensitivity(self) -> float:
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> float:
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def specificity(self) -> float:
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def difference(self) -> int:
        """Voxels of the prediction less those of the reference; times the voxel size, the signed volume difference."""
        return self.fp - self.fn

    @property
    def relative_difference(self) -> float:
        """``difference`` over the reference's voxels."""
        return _ratio(self.difference, self.tp + self.fn)


def overlap(prediction: np.ndarray, reference: np.ndarray) -> Overlap:
    """Count the voxels of two boolean masks ``(*spatial)``."""
    tp = int(np.count_nonzero(prediction & reference))
    fp, fn = int(np.count_nonzero(prediction)) - tp, int(np.count_nonzero(reference)) - tp
    return Overlap(tp, fp, fn, reference.size - tp - fp - fn)

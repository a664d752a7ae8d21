"""Instances such as nuclei: one-to-one matching by IoU, and the scores of the matches.

MONAI's panoptic quality takes IoU > 0.5 only and goes mask by mask; StarDist's scores take ``>=``. Both are here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

__all__ = ["DSB_THRESHOLDS", "InstanceMatch", "match_instances", "mean_average_precision", "pooled_match"]

DSB_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # Data Science Bowl 2018


@dataclass(frozen=True)
class InstanceMatch:
    """Matched instances; scores are NaN without any instance on either side.

    Attributes:
        tp, fp, fn: matched pairs, predicted and reference instances without a partner.
        iou: sum of the pairs' IoU.
    """

    tp: int
    fp: int
    fn: int
    iou: float

    def _over(self, numerator: float, denominator: float) -> float:
        if not self.tp + self.fp + self.fn:
            return math.nan
        return numerator / denominator if denominator else 0.0

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN), the recognition quality RQ."""
        return self._over(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), the "AP" of nuclei; not COCO's, so print the formula."""
        return self._over(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        return self._over(self.tp, self.tp + self.fp)

    @property
    def sensitivity(self) -> float:
        return self._over(self.tp, self.tp + self.fn)

    @property
    def segmentation_quality(self) -> float:
        """Mean IoU of the pairs, SQ."""
        return self._over(self.iou, self.tp)

    @property
    def panoptic_quality(self) -> float:
        """SQ times RQ."""
        return self._over(self.iou, self.tp + (self.fp + self.fn) / 2)


def match_instances(
    prediction: np.ndarray,
    reference: np.ndarray,
    thresholds: Sequence[float] = (0.5,),
    *,
    strict: bool = False,
) -> tuple[InstanceMatch, ...]:
    """Match two label maps at each threshold: the most pairs first, then the largest sum of IoU.

    Args:
        prediction, reference: instance numbers ``(*spatial)``, 0 is background, with gaps or without.
        thresholds: least IoU of a pair.
        strict: a pair needs more than the threshold, as for panoptic quality.
    """
    table = _iou_table(prediction, reference)
    return tuple(_match(table, threshold, strict=strict) for threshold in thresholds)


def _iou_table(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """IoU of every predicted (row) with every reference instance (column)."""
    rows, row_of = np.unique(np.append(prediction.ravel(), 0), return_inverse=True)
    columns, column_of = np.unique(np.append(reference.ravel(), 0), return_inverse=True)
    size = len(rows) * len(columns)
    counts = np.bincount(row_of[:-1] * len(columns) + column_of[:-1], minlength=size)
    shared = counts.reshape(len(rows), len(columns)).astype(float)
    either = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    np.divide(shared, either, out=shared, where=either > 0)
    table: np.ndarray = shared[rows != 0][:, columns != 0]
    return table


def _match(table: np.ndarray, threshold: float, *, strict: bool) -> InstanceMatch:
    pairs = table > threshold if strict else table >= threshold
    if threshold > 0.5 or (strict and threshold >= 0.5):
        chosen = pairs  # two instances cannot both cover more than half of a third
    else:
        chosen = np.zeros_like(pairs)
        if table.size:
            gain = pairs + table / (2 * min(table.shape))
            chosen[linear_sum_assignment(gain, maximize=True)] = True
        chosen &= pairs
    tp = int(chosen.sum())
    return InstanceMatch(tp, table.shape[0] - tp, table.shape[1] - tp, float(table[chosen].sum()))


def mean_average_precision(matches: Iterable[InstanceMatch]) -> float:
    """Mean of ``average_precision`` over thresholds (``DSB_THRESHOLDS``); NaN without instances."""
    return float(np.mean([match.average_precision for match in matches]))


def pooled_match(matches: Iterable[InstanceMatch]) -> InstanceMatch:
    """Counts of all images of a data set together, at one threshold."""
    found = list(matches)
    return InstanceMatch(
        sum(match.tp for match in found),
        sum(match.fp for match in found),
        sum(match.fn for match in found),
        math.fsum(match.iou for match in found),
    )

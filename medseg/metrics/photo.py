"""Scores of photographs as the 2D literature counts them (QTSeg, arXiv 2412.17241, section 4): every image has a score,
also one without the object.

``cases.case_scores`` leaves an image without the object out of a label's Dice; here it counts 1 where nothing is
predicted and nearly 0 where something is. True positives of none are taken for one, as in the published figures.
"""

from __future__ import annotations

import numpy as np

from medseg.labels import LabelSpace

__all__ = ["photo_scores"]


def photo_scores(prediction: np.ndarray, reference: np.ndarray, label_space: LabelSpace) -> dict[str, dict[str, float]]:
    """target -> ``dice``, ``iou``, ``accuracy`` and ``mae`` (mean absolute error), from 0 to 1.

    Args:
        prediction, reference: label indices ``(H, W)``; padding counts as pixels like any other.
        label_space: its targets (labels, or regions where it has any) are scored.
    """
    return {
        name: _binary(np.isin(prediction, members), np.isin(reference, members))
        for name, members in label_space.targets.items()
    }


def _binary(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    shared = max(1, int(np.count_nonzero(prediction & reference)))
    extra, missed = np.count_nonzero(prediction & ~reference), np.count_nonzero(~prediction & reference)
    rest = np.count_nonzero(~prediction & ~reference)
    return {
        "dice": 2 * shared / (2 * shared + extra + missed),
        "iou": shared / (shared + extra + missed),
        "accuracy": (shared + rest) / (shared + extra + missed + rest),
        "mae": (extra + missed) / prediction.size,
    }

"""Temperature scaling (Guo et al. 2017): one number, fitted on validation cases, makes a network more or less sure.

It changes no label, as the largest probability stays the largest.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from medseg.errors import DataError
from medseg.labels import IGNORE

__all__ = ["fit_temperature", "scale_probabilities"]

_RANGE = (0.05, 20.0)
_LEAST = 1e-37  # in the place of 0; single precision has nothing smaller


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the largest likelihood, from 0.05 to 20; above 1, the network was too sure.

    Args:
        probabilities: ``(C, voxels)``, 0 to 1, of the validation cases' voxels (all, or a sample of each case).
        labels: label indices ``(voxels,)``; ``IGNORE`` voxels count nowhere.

    Raises:
        DataError: no voxel with a label.
    """
    kept = labels != IGNORE
    if not kept.any():
        raise DataError("No voxel has a label; a temperature needs labelled validation cases.")
    logits = np.log(np.maximum(probabilities[:, kept].astype(float), _LEAST))
    index = labels[kept].astype(np.int64)[None]

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / math.exp(log_temperature), axis=0)
        return float(-np.take_along_axis(scaled, index, axis=0).mean())

    bounds = tuple(math.log(bound) for bound in _RANGE)
    return math.exp(float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def scale_probabilities(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities ``(C, *spatial)`` at another temperature."""
    scaled: np.ndarray = softmax(np.log(np.maximum(probabilities.astype(float), _LEAST)) / temperature, axis=0)
    return scaled

"""What the values of 2D masks tell of the program that wrote them: smoothed edges, JPEG, or two codes of white."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.data.findings import Finding

__all__ = ["MaskValues", "edge_values", "jpeg_finding", "mixed_finding", "soft_finding"]

_WHITES = frozenset({1.0, 255.0, 65535.0})  # of 1, 8 and 16 bits
_BINARY = frozenset({0.0, 255.0})
_MOST = 0.5  # share of a value's pixels that lie between a darker and a lighter one
_COUNTED = 50  # values up to this number are counted labels rather than grey levels
_SEVERAL = 3  # values at edges only: fewer may be a class of thin lines


@dataclass(frozen=True)
class MaskValues:
    """The values of one mask, and those of them that are ``edge_values``; whether it is a JPEG file."""

    values: frozenset[float]
    edges: frozenset[float]
    jpeg: bool = False


def edge_values(mask: np.ndarray) -> frozenset[float]:
    """Values of ``(rows, columns)`` that fill no 3 × 3 pixels and lie between a darker and a lighter neighbour."""
    from scipy.ndimage import maximum_filter, minimum_filter

    values, numbers = np.unique(mask, return_counts=True)
    if len(values) < 3:
        return frozenset()
    darkest, lightest = minimum_filter(mask, 3), maximum_filter(mask, 3)
    filled = set(mask[darkest == lightest].tolist())
    at_edges, often = np.unique(mask[(darkest < mask) & (mask < lightest)], return_counts=True)
    between = dict(zip(at_edges.tolist(), often.tolist(), strict=True))
    counted = zip(values.tolist(), numbers.tolist(), strict=True)
    return frozenset(float(v) for v, n in counted if v not in filled and between.get(v, 0) >= _MOST * n)


def soft_finding(masks: Iterable[MaskValues]) -> Finding | None:
    """Values that a smoothed edge makes, which no mask has but at edges: several, or between two grey levels."""
    masks = list(masks)
    values = frozenset().union(*(mask.values for mask in masks))
    plain = frozenset().union(*(mask.values - mask.edges for mask in masks))
    soft = sorted(values - plain)
    two_greys = len(plain) <= 2 and max(values, default=0) > _COUNTED
    if not soft or not (len(soft) >= _SEVERAL or two_greys):
        return None
    return Finding(
        f"{len(soft)} mask value{'s' if len(soft) > 1 else ''} ({_few(soft)}) at the edges of objects only: soft "
        "(anti-aliased) edges; one value per label is expected",
        "Save the masks without smoothing, or with a threshold half way between the values of two labels.",
    )


def mixed_finding(masks: Iterable[MaskValues]) -> Finding | None:
    """Masks of one foreground value each, which is 1 in some and 255 (or 65535) in others."""
    counts: dict[float, int] = {}
    for mask in masks:
        foreground = mask.values - {0.0}
        if len(foreground) > 1 or not foreground <= _WHITES:
            return None
        for value in foreground:
            counts[value] = counts.get(value, 0) + 1
    if len(counts) < 2:
        return None
    told = " and ".join(f"{value:g} in {number}" for value, number in sorted(counts.items()))
    return Finding(
        f"masks mix two codes of the foreground: it is {told}; one value per label is expected",
        "Save all masks with the same value.",
    )


def jpeg_finding(masks: Iterable[MaskValues]) -> Finding | None:
    """JPEG masks that hold more than black and white."""
    values = frozenset[float]().union(*(mask.values for mask in masks if mask.jpeg))
    if values <= _BINARY:
        return None
    return Finding(
        f"JPEG masks with the values {_few(sorted(values))}; 0 and 255 are expected, as JPEG changes label values",
        "Save the masks as PNG, with a threshold half way between the values of two labels.",
    )


def _few(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values[:6]) + (", …" if len(values) > 6 else "")

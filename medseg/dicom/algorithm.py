"""What drew a segmentation."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Algorithm"]


@dataclass(frozen=True)
class Algorithm:
    """What drew the labels, from the run's record.

    Attributes:
        name: name of the run or bundle.
        version: version of medseg.
        weights: SHA-256 of the weights.
    """

    name: str
    version: str
    weights: str

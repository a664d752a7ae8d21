"""Two masks of one label of one case, and what several scores take from them, computed once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from medseg.metrics.instances import DSB_THRESHOLDS, InstanceMatch, match_instances
from medseg.metrics.lesions import components
from medseg.metrics.overlap import Overlap, overlap

__all__ = ["Masks"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Masks:
    """Prediction and reference, boolean ``(*spatial)``.

    Attributes:
        prediction: predicted mask.
        reference: reference mask.
        spacing: voxel size in mm.
        numbered: instance numbers of prediction and reference, 0 outside; ``None``: connected parts are instances.
        box: slices outside of which both are empty; ``...``: the whole image.
    """

    prediction: np.ndarray
    reference: np.ndarray
    spacing: tuple[float, ...]
    numbered: tuple[np.ndarray, np.ndarray] | None = None
    box: Any = ...
    _known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def once(self, function: Callable[..., T], *args: Any, **settings: Any) -> T:
        """``function(prediction, reference, *args, **settings)``, computed the first time."""
        key = (function, args, *settings.items())
        if key not in self._known:
            self._known[key] = function(self.prediction, self.reference, *args, **settings)
        found: T = self._known[key]
        return found

    def once_in_box(self, function: Callable[..., T], *args: Any) -> T:
        """As ``once``, of what lies in the box, of a function to which what is outside does not matter."""
        if function not in self._known:
            self._known[function] = function(self.prediction[self.box], self.reference[self.box], *args)
        found: T = self._known[function]
        return found

    @property
    def counts(self) -> Overlap:
        """Counts of voxels of the whole image."""
        inside = self.once_in_box(overlap)
        return replace(inside, tn=self.reference.size - inside.tp - inside.fp - inside.fn)

    @property
    def voxel(self) -> float:
        """Size of a voxel in ml, of a pixel in mm²."""
        return math.prod(self.spacing) / (1000.0 if len(self.spacing) == 3 else 1.0)

    @property
    def diagonal(self) -> float:
        """Diagonal of the image in mm."""
        return math.hypot(*(size * mm for size, mm in zip(self.reference.shape, self.spacing, strict=True)))

    @cached_property
    def instances(self) -> tuple[np.ndarray, np.ndarray]:
        """Instance numbers of prediction and reference."""
        return self.numbered or (components(self.prediction)[0], components(self.reference)[0])

    @cached_property
    def matches(self) -> tuple[InstanceMatch, ...]:
        """Matched instances at each of ``DSB_THRESHOLDS``, of which the first is 0.5."""
        return match_instances(*self.instances, DSB_THRESHOLDS)

"""Cleaning of predicted label maps, label by label: small components, all but the largest, holes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    FillHoles,
    KeepLargestConnectedComponent,
    RemoveSmallObjects,
    generate_spatial_bounding_box,
)

from medseg.errors import ConfigError, nearest
from medseg.labels import LabelSpace
from medseg.transforms.each_key import EachKey

__all__ = ["CleanLabelsd", "CleanRule", "bounding_box", "clean_labels", "clean_mask", "least_voxels"]


class CleanRule(NamedTuple):
    """What is done to one label, in this order; components and holes are connected over corners too.

    Attributes:
        min_size: components below this size are removed, in mm³ (2D: mm², pixels where there is no spacing); 0: none.
        keep_largest: only the largest component stays.
        fill_holes: background that the label encloses becomes the label.
    """

    min_size: float = 0.0
    keep_largest: bool = False
    fill_holes: bool = False

    @classmethod
    def from_table(cls, table: Mapping[str, Any], label: str) -> CleanRule:
        """Read ``{min_size: 100, keep_largest: true}``.

        Raises:
            ConfigError: an unknown step, or a value of another kind.
        """
        for step, value in table.items():
            if step not in cls._fields:
                raise ConfigError(f"cleanup of '{label}' has no step '{step}'.{nearest(step, cls._fields)}")
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
            if not (number if step == "min_size" else isinstance(value, bool)):
                expected = "a size from 0 on" if step == "min_size" else "true or false"
                raise ConfigError(f"cleanup of '{label}': {step} is {value!r}; expected {expected}.")
        return cls(**table)

    def to_table(self) -> dict[str, Any]:
        """The steps that do something."""
        return {step: value for step, value in self._asdict().items() if value}


def clean_mask(mask: np.ndarray, rule: CleanRule, spacing: Sequence[float]) -> np.ndarray:
    """Apply a rule to a boolean mask ``(*spatial)`` by MONAI's transforms; ``spacing`` in mm."""
    if not mask.any() or not any(rule):
        return mask
    image: Any = mask[None].astype(np.uint8)
    if rule.min_size:
        # Half a voxel below: scikit-image removes objects below this size up to 0.25, and up to it from 0.26 on.
        size: Any = least_voxels(rule.min_size, spacing) - 0.5
        remove = RemoveSmallObjects(size, connectivity=mask.ndim)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of the same change
            image = remove(image)
    if rule.keep_largest and image.any():
        image = np.asarray(KeepLargestConnectedComponent(applied_labels=1)(image.copy()))
    if rule.fill_holes and image.any():
        image = np.asarray(FillHoles(applied_labels=1)(image.copy()))
    cleaned: np.ndarray = np.asarray(image)[0] > 0
    return cleaned


def least_voxels(size: float, spacing: Sequence[float]) -> int:
    """The smallest number of voxels whose volume is ``size`` or more."""
    return math.ceil(size / math.prod(spacing) - 1e-6)


def clean_labels(
    indices: np.ndarray, rules: Mapping[str, CleanRule], label_space: LabelSpace, spacing: Sequence[float]
) -> np.ndarray:
    """Label indices ``(*spatial)`` with each rule applied to its label: what is removed becomes background, and only
    background is filled.
    """
    result = indices.copy()
    for label, rule in rules.items():
        index = label_space.labels.index(label) + 1
        mask = result == index
        box = bounding_box(mask)
        if box is None:
            continue
        before, part = mask[box], result[box]  # a view
        after = clean_mask(before, rule, spacing)
        part[before & ~after] = 0
        part[after & ~before & (part == 0)] = index
    return result


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The slices of the non-zero part with one voxel around it; ``None`` where there is none."""
    start, end = generate_spatial_bounding_box(mask[None], margin=1, allow_smaller=True)
    return tuple(slice(*bounds) for bounds in zip(start, end, strict=True)) if any(end) else None


class CleanLabelsd(EachKey):
    """Clean label indices ``(1, *spatial)`` on the source grid; sizes are measured by the map's own spacing.

    Args:
        keys: what to clean.
        label_space: names of the labels.
        rules: label -> steps of ``CleanRule``, such as ``{liver: {keep_largest: true}}``.

    Raises:
        ConfigError: an unknown label or step.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_space: LabelSpace,
        rules: Mapping[str, Mapping[str, Any]],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        for label in rules:
            if label not in label_space.labels:
                raise ConfigError(f"cleanup names label '{label}', not declared.{nearest(label, label_space.labels)}")
        self.label_space = label_space
        self.rules = {label: CleanRule.from_table(table, label) for label, table in rules.items()}

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        meta = value.meta if isinstance(value, MetaTensor) else None
        dims = value.ndim - 1
        spacing = [float(mm) for mm in value.pixdim[:dims]] if meta is not None else [1.0] * dims
        cleaned = clean_labels(torch.as_tensor(value)[0].cpu().numpy(), self.rules, self.label_space, spacing)
        return MetaTensor(torch.from_numpy(cleaned)[None], meta=meta)

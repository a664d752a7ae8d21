"""Resampling to a spacing, whatever else a case's dictionary holds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Spacingd

__all__ = ["OwnSpacingd"]


class OwnSpacingd(Spacingd):
    """MONAI's ``Spacingd`` that sees its own keys alone.

    MONAI's takes every entry whose name begins with a key's for its metadata (MONAI 1.6), and fails at others, such as
    the ``image_path`` of MONAI Label.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        return {**data, **super().__call__({key: data[key] for key in self.key_iterator(data)}, lazy)}

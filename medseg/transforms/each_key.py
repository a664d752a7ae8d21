"""Transforms that change the values of their keys one by one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import MapTransform

__all__ = ["EachKey"]


class EachKey(MapTransform):
    """MONAI's ``MapTransform`` from a function of one value."""

    @abstractmethod
    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        """The new value of a key; ``data`` is the whole case."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.change(result[key], result)
        return result

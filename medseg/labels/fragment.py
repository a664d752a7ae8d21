"""What the raw voxel values of one data set mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from medseg.errors import DataError

__all__ = ["BACKGROUND", "IGNORE", "Fragment", "check_name"]

IGNORE = -1
BACKGROUND = "background"
# Characters with a meaning in MONAI configs: a name taken from outside must never become an expression or a reference.
_UNSAFE = re.compile(r"^[$@%+]|::|#|[\x00-\x1f]")


def check_name(name: str, what: str) -> str:
    """Return ``name`` if it is safe to write into a bundle's config; raise ``DataError`` otherwise."""
    if not name.strip() or _UNSAFE.search(name):
        raise DataError(
            f"{what} {name!r} cannot be used: it is empty, begins with one of $ @ % + or contains '::', '#' or a "
            "control character; rename it in the datalist."
        )
    return name


@dataclass(frozen=True)
class Fragment:
    """What one data set's raw voxel values mean.

    Attributes:
        values: label name -> raw values; a label of the space that is missing here is not annotated in this data set.
        background: raw values of the background.
        ignore: raw values that are neither trained on nor scored.
    """

    values: Mapping[str, tuple[int, ...]]
    background: tuple[int, ...] = (0,)
    ignore: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        owner: dict[int, str] = {}
        names = [(BACKGROUND, self.background), *self.values.items(), ("ignore", self.ignore)]
        for name, raw_values in names:
            if not raw_values and name != "ignore":
                raise DataError(f"Label '{name}' has no raw value; give it at least one in the datalist's labels.")
            for raw in raw_values:
                if raw in owner:
                    raise DataError(
                        f"Label value {raw} is declared for both '{owner[raw]}' and '{name}'; "
                        "give each value one meaning in the datalist's labels."
                    )
                owner[raw] = name

    @property
    def declared(self) -> frozenset[int]:
        """All raw values with a meaning."""
        labels = (raw for values in self.values.values() for raw in values)
        return frozenset((*labels, *self.background, *self.ignore))

"""What kind of intensities a channel holds, told from its name in the datalist's ``modality``."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["channel_kind", "is_color", "is_grey_level"]

_WORDS = {
    "ct": {"ct", "hu", "cbct", "ldct"},
    "pet": {"pet", "suv", "fdg"},
    "rgb": {"rgb", "colour", "color", "photo", "dermoscopy", "endoscopy", "fundus"} | {"red", "green", "blue", *"rgb"},
}


def channel_kind(name: str) -> str:
    """``ct``, ``pet``, ``rgb`` or ``mr`` from a modality name such as "CT HU", "PET SUV", "T1gd".

    A channel that is CT in some cases and MR in others ("CT or MR") is ``mr``: its unit differs between cases.
    """
    words = set(re.findall(r"[a-z0-9]+", name.lower()))
    if words & {"mr", "mri"}:
        return "mr"
    return next((kind for kind, known in _WORDS.items() if words & known), "mr")


def is_color(names: Sequence[str]) -> bool:
    """Whether ``modality`` has one name that stands for the red, green and blue of a 2D image, such as "RGB"."""
    return len(names) == 1 and channel_kind(names[0]) == "rgb"


def is_grey_level(names: Sequence[str]) -> bool:
    """Whether ``modality`` has one name that says that 2D images have no colours, such as "grey"."""
    return len(names) == 1 and bool(set(re.findall("[a-z]+", names[0].lower())) & {"grey", "gray"})

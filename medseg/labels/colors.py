"""One colour per label, the same in every figure of a report and in every format that holds colours."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

__all__ = ["label_colors"]

# Bright on grey images, and apart from each other in this order (for common colour blindness too as far as 6 go).
_FIRST = (
    "#f28e2b",
    "#3d9df2",
    "#2fbf71",
    "#e8475f",
    "#b07aff",
    "#e6c229",
    "#16c5c9",
    "#ff7fbf",
    "#9acd32",
    "#b5764a",
    "#7a8cff",
    "#ff5722",
)
_GOLDEN = 0.618034  # hue steps of the golden ratio never come close to each other for long


def label_colors(names: Sequence[str]) -> dict[str, str]:
    """Name -> ``#rrggbb``; any number of names."""
    return {name: _FIRST[i] if i < len(_FIRST) else _further(i) for i, name in enumerate(names)}


def _further(index: int) -> str:
    hue = (0.13 + index * _GOLDEN) % 1
    rgb = colorsys.hls_to_rgb(hue, (0.45, 0.68, 0.57)[index % 3], (0.9, 0.65)[index % 2])
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)

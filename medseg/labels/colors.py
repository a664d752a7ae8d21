"""One colour per label, the same in every figure of a report and in every format that holds colours."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medseg.labels.space import LabelSpace

__all__ = ["label_colors", "rgb_of", "space_colors", "target_colors"]

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
# Colours that names speak of, such as "white matter" or "red nucleus".
_SPOKEN = {
    "orange": _FIRST[0],
    "blue": _FIRST[1],
    "green": _FIRST[2],
    "red": _FIRST[3],
    "violet": _FIRST[4],
    "yellow": _FIRST[5],
    "cyan": _FIRST[6],
    "pink": _FIRST[7],
    "brown": _FIRST[9],
    "white": "#f4f4f4",
    "grey": "#9aa3ad",
}
_SPOKEN |= {"gray": _SPOKEN["grey"], "purple": _SPOKEN["violet"], "magenta": _SPOKEN["pink"]}
_OTHER = "#808080"  # of the background, where it is scored
_GOLDEN = 0.618034  # hue steps of the golden ratio never come close to each other for long


def space_colors(space: LabelSpace) -> dict[str, str]:
    """Label or region -> ``#rrggbb``; regions change no label's colour."""
    return label_colors([*space.labels, *space.regions]) | label_colors(space.labels)


def target_colors(space: LabelSpace, targets: Iterable[str]) -> dict[str, str]:
    """``space_colors``, and those of what is scored: a label's own, also behind its data set (``amos: liver``)."""
    colors = space_colors(space)
    names = {target: target if target in colors else target.partition(": ")[2] for target in targets}
    return colors | {target: colors.get(name, _OTHER) for target, name in names.items()}


def label_colors(names: Sequence[str]) -> dict[str, str]:
    """Name -> ``#rrggbb``; any number of names. The first name that speaks of a colour has it."""
    spoken: dict[str, str] = {}
    for name in names:
        word = next((word for word in re.findall("[a-z]+", name.lower()) if word in _SPOKEN), None)
        if word is not None and _SPOKEN[word] not in spoken.values():
            spoken[name] = _SPOKEN[word]
    free = (color for color in map(_color, range(2 * len(names) + len(_FIRST))) if color not in spoken.values())
    return {name: spoken[name] if name in spoken else next(free) for name in names}


def rgb_of(color: str) -> tuple[int, int, int]:
    """``#rrggbb`` as 0 to 255."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def _color(index: int) -> str:
    if index < len(_FIRST):
        return _FIRST[index]
    hue = (0.13 + index * _GOLDEN) % 1
    rgb = colorsys.hls_to_rgb(hue, (0.45, 0.68, 0.57)[index % 3], (0.9, 0.65)[index % 2])
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)

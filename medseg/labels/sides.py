"""Whether labels tell left from right."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["tells_sides"]

_SIDES = {"left", "right", "lh", "rh"}  # the last two: hemispheres of FreeSurfer
_OTHER = {"l": "r", "lt": "rt"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def tells_sides(names: Iterable[str]) -> bool:
    """Whether one of the names is of one side of the body, such as ``left kidney``, ``lung_right`` or ``LeftLung``;
    letters and parts of words say so where the other side has a name, too: ``kidney_L`` beside ``kidney_R``, but not
    ``L1``, and ``leftlung`` beside ``rightlung``, but not ``leftover``.
    """
    words = {tuple(word.lower() for word in _WORD.findall(name)) for name in names}
    others = {tuple(_OTHER.get(word, word) for word in name) for name in words if _OTHER.keys() & name}
    joined = {"".join(name) for name in words}
    glued = {name.replace("left", "right") for name in joined if "left" in name}
    return bool(others & words or glued & joined) or any(_SIDES.intersection(name) for name in words)

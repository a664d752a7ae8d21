"""Whether labels tell left from right."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["tells_sides"]

_SIDES = {"left", "right", "lh", "rh"}  # the last two: hemispheres of FreeSurfer
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def tells_sides(names: Iterable[str]) -> bool:
    """Whether one of the names is of one side of the body, such as ``left kidney``, ``lung_right`` or ``LeftLung``; a
    letter says so where the other side has a name, too: ``kidney_L`` beside ``kidney_R``, but not ``L1``.
    """
    words = {tuple(word.lower() for word in _WORD.findall(name)) for name in names}
    others = {tuple("r" if word == "l" else word for word in name) for name in words if "l" in name}
    return bool(others & words) or any(_SIDES.intersection(name) for name in words)

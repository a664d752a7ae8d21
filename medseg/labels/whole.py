"""Label values as whole numbers: what a scale factor or floating point adds to them is taken off in one place."""

from __future__ import annotations

import numpy as np

__all__ = ["WHOLE_TOLERANCE", "whole_values"]

# Labels stored in 8 or 16 bits with a scale factor come back up to half a step from a whole number. Interpolation
# leaves every fraction, so that a label map of mixed values never passes as a whole.
WHOLE_TOLERANCE = 0.01
_BLOCK = 1 << 20  # numbers


def whole_values(raw: np.ndarray) -> np.ndarray:
    """Label values ``(*spatial)`` in native byte order, those within ``WHOLE_TOLERANCE`` of a whole number rounded.

    Other fractions, NaN and infinity stay, for the check that names them. Integers stay as they are, bool becomes
    uint8, and numbers of more than 64 bits become float64. The memory order is kept; without a change it is the same
    array.
    """
    if raw.dtype.kind == "b":
        return raw.astype(np.uint8)
    if raw.dtype.kind not in "iuf":
        return raw
    if raw.dtype.itemsize > 8:
        raw = raw.astype(np.float64)
    raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    if raw.dtype.kind != "f":
        return raw
    flat, result = raw.ravel(order="K"), raw
    for start in range(0, raw.size, _BLOCK):  # no second copy of a volume where nothing changes
        block = flat[start : start + _BLOCK]
        rounded = np.rint(block)
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            near = (block != rounded) & (np.abs(block - rounded) <= WHOLE_TOLERANCE)
        if near.any():
            result = raw.copy(order="K") if result is raw else result
            result.ravel(order="K")[start : start + _BLOCK][near] = rounded[near] + 0.0  # no negative zero
    return result

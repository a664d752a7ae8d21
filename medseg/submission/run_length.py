"""Run-length codes of binary masks, as Kaggle's challenges want them: ``"start length start length …"``."""

from __future__ import annotations

import numpy as np

from medseg.errors import DataError

__all__ = ["decode_runs", "encode_runs"]


def encode_runs(mask: np.ndarray, *, by_columns: bool = False) -> str:
    """The runs of non-zero pixels; starts count from 1. An empty mask gives an empty text.

    Args:
        mask: ``(H, W)``.
        by_columns: pixels are counted down the columns (most Kaggle challenges), else along the rows (NeoPolyp).
    """
    pixels = (np.asarray(mask) != 0).ravel(order="F" if by_columns else "C")
    edges = np.flatnonzero(np.diff(np.concatenate(([False], pixels, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    return " ".join(f"{start + 1} {end - start}" for start, end in zip(starts, ends, strict=True))


def decode_runs(runs: str, shape: tuple[int, int], *, by_columns: bool = False) -> np.ndarray:
    """The boolean mask ``(H, W)`` of a code.

    Raises:
        DataError: no pairs of whole numbers, or runs that overlap, go back or leave the image.
    """
    try:
        numbers = np.array([int(part) for part in runs.split()], dtype=np.int64)
    except ValueError as error:
        raise DataError(f"Run-length code '{runs[:40]}' holds no whole numbers; expected 'start length …'.") from error
    if len(numbers) % 2:
        raise DataError(f"Run-length code has {len(numbers)} numbers; expected pairs of start and length.")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    ends = starts + lengths
    size = int(np.prod(shape))
    if (lengths < 1).any() or (starts < 0).any() or (ends > size).any() or (starts[1:] < ends[:-1]).any():
        raise DataError(
            f"Run-length code does not fit an image of {shape[0]} x {shape[1]} pixels: runs leave it, overlap or go "
            "back; check the image's size and the order of its pixels."
        )
    pixels = np.zeros(size, dtype=bool)
    for start, end in zip(starts, ends, strict=True):
        pixels[start:end] = True
    return pixels.reshape(shape, order="F" if by_columns else "C")

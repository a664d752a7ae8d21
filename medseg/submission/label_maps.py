"""The rules that hold for most challenges: a label map per case, on the image's grid, of declared values."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from medseg.data.files import Unreadable, read_volume
from medseg.data.findings import Finding
from medseg.data.geometry import check_same_grid
from medseg.data.voxels import count_values
from medseg.errors import few

__all__ = ["check_label_map"]


def check_label_map(prediction: Path, image: Path, values: Collection[int]) -> Iterator[Finding]:
    """Voxel type uint8, the image's grid, no value but ``values``; background throughout is a warning.

    Both files are read to their ends, so that a damaged one is found.
    """
    try:
        source, predicted = read_volume(image, image.name), read_volume(prediction, prediction.name)
    except Unreadable as error:
        yield Finding(*error.args)
        return
    if len(predicted.channels) > 1:
        yield Finding(f"{len(predicted.channels)} volumes in one file; one label map is expected", "Save the labels.")
        return
    label = predicted.channels[0]
    if label.dtype != np.uint8:
        yield Finding(
            f"voxel type {label.dtype}; uint8 without a scale factor is expected", "Save it as uint8 (medseg infer)."
        )
    yield from check_same_grid(source, predicted, "prediction")
    counts = count_values(label)
    outside = [f"{value:g}" for value in counts if value not in values]
    if outside:
        yield Finding(
            f"label values {few(outside)}; {_listed(values)} are expected",
            "Predict with a network of the challenge's labels.",
        )
    elif set(counts) == {0}:
        yield Finding("background throughout", "Look at the image and the prediction.", warning=True)


def _listed(values: Collection[int]) -> str:
    gapless = set(values) == set(range(min(values), max(values) + 1))
    return f"{min(values)} to {max(values)}" if gapless else ", ".join(map(str, sorted(values)))

"""Ranges of intensities: whether a channel can be normalised, and is in the unit of its modality and of the model.

CT has a unit that everybody shares, so that its numbers can be judged alone. Other channels are normalised case by
case, and no range of theirs is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.data.findings import Finding
from medseg.data.modality import channel_kind

__all__ = ["Expected", "Intensity", "check_intensity"]

_SAMPLES = 20_000  # voxels per channel and case that percentiles are taken from
_LEAST_SPAN = 100  # Hounsfield units between the extremes; less is a normalised image
_LARGEST = 32767  # Hounsfield units: the largest signed number of 16 bits
_FAT = -100  # Hounsfield units of fat and all that is lighter
_BONE = 500
_FACTOR = 50  # by which a case differs from what a model was trained on
_HOUNSFIELD = "Hounsfield units (about -1024…3071) are expected of CT"


@dataclass(frozen=True)
class Intensity:
    """The range of one channel of a case: minimum, maximum, and the 0.5th, 50th and 99.5th percentile of a sample of
    all voxels.
    """

    low: float
    high: float
    bottom: float
    median: float
    top: float

    @classmethod
    def of(cls, channel: np.ndarray) -> Intensity:
        """Measure ``(*spatial)``."""
        flat = channel.ravel(order="F")
        step = max(1, flat.size // _SAMPLES)
        while math.gcd(step, channel.shape[0]) > 1:  # else all samples may come from one plane
            step += 1
        percentiles = np.percentile(flat[::step].astype(np.float64), (0.5, 50, 99.5))
        return cls(float(channel.min()), float(channel.max()), *(float(p) for p in percentiles))

    def __str__(self) -> str:
        return f"{self.low:.4g}…{self.high:.4g}"


def check_intensity(channel: np.ndarray, seen: Intensity, name: str, where: str = "") -> Iterator[Finding]:
    """Whether one channel can be normalised, and CT is in Hounsfield units.

    Args:
        channel: ``(*spatial)``.
        seen: its range.
        name: its modality; empty where no unit is expected.
        where: " in channel 1 (T1c)" where there are several.
    """
    if not (np.isfinite(seen.low) and np.isfinite(seen.high)):
        nans = int(np.count_nonzero(np.isnan(channel)))
        infinite = int(np.count_nonzero(np.isinf(channel)))
        parts = [f"{number:,}".replace(",", " ") + what for number, what in ((nans, " NaN"), (infinite, " infinite"))]
        found = " and ".join(part for part, number in zip(parts, (nans, infinite), strict=True) if number)
        yield Finding(f"{found} voxels{where}; numbers are expected", "Replace them in the file (numpy.nan_to_num).")
    elif seen.low == seen.high:
        yield Finding(
            f"all voxels equal {seen.low:g}{where}: normalisation undefined",
            "Export the image again, or remove the case.",
        )
    elif channel_kind(name) == "ct":
        yield from _check_hounsfield(seen, where)


def _check_hounsfield(seen: Intensity, where: str) -> Iterator[Finding]:
    said, remedy = f"range {seen}{where}", ""
    if seen.high - seen.low < _LEAST_SPAN:
        remedy = "Was it normalised before? Use the original image."
    elif seen.high > _LARGEST:
        remedy = "Were negative numbers stored as unsigned ones? Export the original image again as signed numbers."
    elif seen.low >= 0:
        remedy = "Was it stored with an offset, often 1024, or scaled? Export the original image in Hounsfield units."
    elif seen.bottom > _FAT and seen.top > _BONE:
        said += f", and nearly all voxels are above {_FAT}"
        remedy = "Was it stored with an offset, often 1024? Export the original image in Hounsfield units."
    if remedy:
        yield Finding(f"{said}; {_HOUNSFIELD}", remedy, warning=True)


# ---------------------------------------------------------------------- one case against a model
@dataclass(frozen=True)
class Expected:
    """What a model was trained on.

    Attributes:
        names: modality of each channel.
        ranges: intensities of each channel that the model tells apart; ``None`` where cases are normalised one by one.
    """

    names: tuple[str, ...]
    ranges: tuple[tuple[float, float] | None, ...]

    @classmethod
    def of(cls, preprocess: Mapping[str, Any], names: Sequence[str], modality: str | None = None) -> Expected:
        """From a bundle's ``preprocess`` and its channels' names, or a case's ``modality`` where it takes several."""
        names = (modality,) * len(names) if modality else tuple(names)
        if "window" in preprocess:
            schemes: Sequence[Mapping[str, Any]] = [dict(zip(("lower", "upper"), preprocess["window"], strict=True))]
        elif isinstance(preprocess.get("color"), str):  # the recipe for photographs
            schemes = [{"lower": 0, "upper": 255}]
        else:
            schemes = preprocess.get("normalization") or ()
            if isinstance(schemes, Mapping):
                schemes = schemes.get(modality or "", schemes.get("default", ()))
        ranges = [_range(scheme) for scheme in schemes] or [None]
        return cls(names, tuple(ranges * len(names) if len(ranges) == 1 else ranges))

    def check(self, channels: Sequence[Intensity], *, picture: bool = False) -> Iterator[Finding]:
        """Warnings about the channels of one case; of a PNG, JPEG, TIFF or BMP no unit is expected."""
        for index, (seen, name, expected) in enumerate(zip(channels, self.names, self.ranges, strict=False)):
            where = f" in channel {index} ({name})" if len(channels) > 1 else ""
            # A model of images that are not in Hounsfield units has no use for such ones: its range decides.
            hounsfield = channel_kind(name) == "ct" and not picture and (expected is None or expected[0] < 0)
            findings = list(_check_hounsfield(seen, where)) if hounsfield else []
            if not findings and expected is not None and _outside(seen, *expected):
                findings = [
                    Finding(
                        f"range {seen}{where}; the model was trained on about {expected[0]:g}…{expected[1]:g}",
                        "Use the image in the unit of the training images.",
                        warning=True,
                    )
                ]
            yield from findings


def _range(scheme: Mapping[str, Any]) -> tuple[float, float] | None:
    lower, upper = scheme.get("lower"), scheme.get("upper")
    return None if scheme.get("kind") == "case" or lower is None or upper is None else (float(lower), float(upper))


def _outside(seen: Intensity, lower: float, upper: float) -> bool:
    """Whether nearly nothing of an image is left between the bounds, or all of it looks like one value."""
    width = upper - lower
    apart = seen.high <= lower or seen.low >= upper or seen.median > upper + 4 * width
    return apart or seen.high - seen.low < width / _FACTOR or seen.top - seen.bottom > width * _FACTOR

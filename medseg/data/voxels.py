"""Checks and samples of voxel values, in blocks so that no copy of a volume is made."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from medseg.data.findings import Finding
from medseg.labels import Fragment, LabelSpace

__all__ = ["check_label_values", "content_shape", "count_values", "foreground", "sample", "zero_share"]

_SAMPLES = 20_000  # intensities kept per channel and case
_BLOCK = 1 << 20
_MANY = 50  # label values beyond the declared ones: more are an image, not a label


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))


def _flat(array: np.ndarray) -> np.ndarray:
    """One axis in Fortran order: a view for NIfTI, NRRD and MetaImage, which store the first axis fastest."""
    return array.ravel(order="F")


def _once(value: float) -> float:
    """One object for all NaN, which is equal to no other."""
    return value if value == value else math.nan


def count_values(array: np.ndarray) -> dict[float, int]:
    """Voxel value -> number of voxels; NaN once."""
    flat, counts = _flat(array), Counter[float]()
    for block in _blocks(flat.size):
        values, numbers = np.unique(flat[block], return_counts=True)
        counts.update({_once(v): n for v, n in zip(values.tolist(), numbers.tolist(), strict=True)})
        if len(counts) > 4096:  # an image listed as label: the range is all that is needed
            counts.update({float(flat.min()): 0, float(flat.max()): 0})
            break
    return dict(sorted(counts.items()))


# ---------------------------------------------------------------------- labels
def check_label_values(
    counts: Mapping[float, int],
    space: LabelSpace,
    dataset: str | None,
    path: str,
    edges: frozenset[float] = frozenset(),
) -> Iterator[Finding]:
    """Whether a label file holds whole, declared values.

    Args:
        counts: value -> voxels.
        space: meaning of the values.
        dataset: data set whose values the file has.
        path: name of the file in sentences.
        edges: values of a 2D mask that are at edges only (``edge_values``).
    """
    part = space.fragment(dataset)
    owner = f"data set '{dataset}' declares" if dataset in space.fragments and dataset else "declared"
    declared = f"{owner} {_braces(sorted(part.declared))}"
    unknown = [value for value in counts if value not in part.declared]
    if not unknown:
        return
    jpeg = path.lower().endswith((".jpg", ".jpeg"))
    soft = edges.intersection(unknown)
    if soft and not jpeg:
        yield Finding(
            f"{path} has soft (anti-aliased) edges: values {_braces(sorted(soft))} are there only; {declared}",
            "Save it without smoothing, or with a threshold half way between the values of two labels.",
        )
    elif not jpeg and (len(unknown) > _MANY or min(unknown) < 0):
        yield Finding(
            f"label range {min(counts):g}…{max(counts):g} in {path}; {declared}",
            "Is the image listed as label? Name the label file in the datalist.",
        )
    elif broken := [value for value in unknown if not float(value).is_integer()]:
        yield _broken_value(broken, counts)
    else:
        yield _undeclared(counts, unknown, space, part, path, f"; {declared}")


def _broken_value(broken: Sequence[float], counts: Mapping[float, int]) -> Finding:
    number = sum(counts[value] for value in broken)
    if not all(map(math.isfinite, broken)):
        return Finding(
            f"label has NaN or infinity in {number} voxels; whole numbers are expected",
            "Replace them in the file by the background's value (numpy.nan_to_num).",
        )
    return Finding(
        f"label has {broken[0]:g} in {number} voxels; whole numbers are expected",
        "Was it resampled with linear interpolation? Resample it with nearest neighbours, or export it again.",
    )


def _undeclared(
    counts: Mapping[float, int], unknown: Sequence[float], space: LabelSpace, part: Fragment, path: str, declared: str
) -> Finding:
    """Whole values that the datalist does not declare, with the remedy that their cause calls for."""
    said = f"label values {_braces(list(counts))}{declared}"
    first = next(iter(part.values), space.labels[0])
    if path.lower().endswith((".jpg", ".jpeg")):
        return Finding(said, "JPEG changes label values: export the label as PNG.")
    if set(counts) <= {0, 1} and 255 in part.declared and 255 in part.values.get(first, ()):
        table = f'"labels": {{"background": 0, "{first}": [1, 255]}}'
        return Finding(said, f"Save it with 0 and 255 as the others, or map both in the datalist: {table}.")
    if set(counts) == {0, 255} and space.labels:
        names = {0: "background"} | {raw: name for name, values in part.values.items() for raw in values}
        table = ", ".join(f"{raw}: {name}" for raw, name in sorted(names.items()))
        return Finding(
            f"{path} has values {{0, 255}}; the datalist declares {{{table}}}",
            f'Map it in the datalist: "labels": {{"background": 0, "{first}": 255}}.',
        )
    missing = [int(value) for value in unknown]
    return Finding(said, f'Declare {_braces(missing)} in the datalist\'s "labels", or export the label again.')


def _braces(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:12])
    return "{" + shown + (", …" if len(values) > 12 else "") + "}"


def foreground(
    channels: Sequence[np.ndarray], label: np.ndarray | None, counts: Mapping[float, int], raw: Sequence[int]
) -> np.ndarray:
    """Flat mask of the voxels that a plan looks at: labelled ones (``raw`` values); without any, non-zero ones."""
    if label is not None and any(counts.get(value) for value in raw):
        flat = _flat(label)
        mask = np.empty(flat.size, dtype=bool)
        for block in _blocks(flat.size):
            mask[block] = np.isin(flat[block], raw)
        return mask
    mask = _nonzero(channels)
    return mask if mask.any() else np.ones_like(mask)


def _nonzero(channels: Sequence[np.ndarray]) -> np.ndarray:
    mask: np.ndarray = _flat(channels[0]) != 0
    for channel in channels[1:]:
        mask |= _flat(channel) != 0
    return mask


def zero_share(channels: Sequence[np.ndarray]) -> float:
    """Share of the voxels that are 0 in every channel."""
    mask = _nonzero(channels)
    return 1 - np.count_nonzero(mask) / mask.size


def content_shape(channels: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Size of the smallest box that holds all voxels that are not 0 in every channel; the whole image without any."""
    mask = np.logical_or.reduce([channel != 0 for channel in channels])
    axes = [np.flatnonzero(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis))) for axis in range(mask.ndim)]
    return tuple(int(found[-1] - found[0] + 1) for found in axes) if len(axes[0]) else mask.shape


def sample(channel: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """At most about 20 000 sorted intensities (float32) from the voxels of a flat mask."""
    values = _flat(channel)[mask]
    return np.sort(values[:: max(1, values.size // _SAMPLES)].astype(np.float32))

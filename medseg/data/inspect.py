"""Read every case once: geometry, intensities and labels for the plan, and all problems for the table of checks.

Cases are read in parallel by the reader that training uses. Nothing is raised for a single case: its problems are
collected, so that a user sees all of them at once.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medseg.data.datalist import images_of
from medseg.labels import LabelSpace
from medseg.transforms.reader import IMAGE_SUFFIXES, VolumeReader, is_2d_file

__all__ = ["CaseFacts", "Problem", "inspect_case", "inspect_cases"]

_SAMPLES = 20_000  # intensities kept per channel and case
_MAGIC = {".gz": b"\x1f\x8b", ".png": b"\x89PNG", ".bmp": b"BM", ".jpg": b"\xff\xd8", ".jpeg": b"\xff\xd8"}


@dataclass(frozen=True)
class Problem:
    """One finding: ``message`` says what is wrong and what was expected, ``remedy`` what to do; warnings do not
    stop a command.
    """

    case: str
    message: str
    remedy: str
    warning: bool = False


@dataclass
class CaseFacts:
    """What a case's files hold.

    Attributes:
        case: the case id.
        shape: spatial shape in voxels, source orientation.
        spacing: mm per voxel, source orientation.
        axcodes_spacing, axcodes_shape: the same in RAS order (3D).
        channels: number of image channels.
        intensity: per channel, sorted intensities sampled from the foreground (labels above background; without
        label: non-zero voxels).
        zero_share: share of voxels that are 0 in every channel.
        label_counts: raw label value -> voxels.
        problems: all findings.
    """

    case: str
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    ras_shape: tuple[int, ...] = ()
    ras_spacing: tuple[float, ...] = ()
    channels: int = 0
    intensity: list[np.ndarray] = field(default_factory=list)
    zero_share: float = 0.0
    label_counts: dict[int, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether the case cannot be used."""
        return any(not problem.warning for problem in self.problems)


class _Unreadable(Exception):
    """A file that cannot be read: message and remedy."""


def inspect_cases(
    cases: Sequence[Mapping[str, Any]],
    label_space: LabelSpace,
    channel_names: Sequence[str] = (),
    *,
    num_workers: int | None = None,
) -> list[CaseFacts]:
    """Facts of all cases, in order; reads in parallel (threads: reading and decompressing release Python's lock)."""
    with ThreadPoolExecutor(num_workers or min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda case: inspect_case(case, label_space, channel_names), cases))


def inspect_case(case: Mapping[str, Any], label_space: LabelSpace, channel_names: Sequence[str] = ()) -> CaseFacts:
    """Facts and problems of one case."""
    facts = CaseFacts(str(case["case_id"]))

    def add(message: str, remedy: str, warning: bool = False) -> None:
        facts.problems.append(Problem(facts.case, message, remedy, warning))

    try:
        image, affine = _load(images_of(case))
        label = label_affine = None
        if case.get("label"):
            label, label_affine = _load([case["label"]])
    except _Unreadable as error:
        add(*error.args)
        return facts

    facts.shape = image.shape[1:]
    facts.channels = image.shape[0]
    dims = len(facts.shape)
    facts.spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0)[:dims])
    facts.ras_shape, facts.ras_spacing = _ras_order(facts.shape, facts.spacing, affine)
    _check_geometry(facts, affine, add)
    if label is not None and label_affine is not None and not facts.broken:
        _check_pair(facts, label, affine, label_affine, add)
    if not facts.broken and label is not None:
        _check_labels(facts, label[0], label_space, case.get("dataset"), add)
    _check_intensity(facts, image, channel_names, add)
    if not facts.broken:
        foreground = _foreground(image, label, label_space, case.get("dataset"))
        facts.intensity = [_sample(channel[foreground]) for channel in image]
        facts.zero_share = float(np.mean(~image.any(axis=0)))
    return facts


# ---------------------------------------------------------------------- files
def _load(paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Channel-first array and 4 x 4 RAS affine; raises ``_Unreadable``."""
    for path in paths:
        _check_file(Path(path))
    reader = VolumeReader()
    arrays = []
    affine = np.eye(4)
    try:
        for path in paths:
            array, meta = reader.get_data(reader.read(path))
            channel_dim = meta.get("original_channel_dim", float("nan"))
            if isinstance(channel_dim, float) and np.isnan(channel_dim):
                array = array[None]
            else:
                array = np.moveaxis(array, int(channel_dim), 0)
            arrays.append(np.asarray(array))
            if len(arrays) == 1:
                affine = np.eye(4) if is_2d_file(path) else np.asarray(meta["affine"], dtype=float)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _Unreadable(f"{path} is cut short or damaged: {_reason(error)}", "Copy the file again.") from error
    except Exception as error:  # readers raise anything; the sentence names the file
        raise _Unreadable(f"{path} cannot be read: {_reason(error)}", "Copy or export the file again.") from error
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        sizes = " and ".join("×".join(map(str, s)) for s in sorted(shapes))
        raise _Unreadable(f"its image files have different shapes: {sizes}", "Resample the channels to one grid.")
    return np.concatenate(arrays), affine


def _check_file(path: Path) -> None:
    if not path.name.lower().endswith(IMAGE_SUFFIXES):
        raise _Unreadable(
            f"cannot read '{''.join(path.suffixes[-2:])}' ({path.name}). Known: {' '.join(IMAGE_SUFFIXES)}",
            "Convert the file.",
        )
    if not path.exists():
        raise _Unreadable(f"{path} not found", "Mend the datalist's path, or --data_dir.")
    if not os.access(path, os.R_OK):
        raise _Unreadable(f"no read permission for {path}", "Change the file's permissions.")
    if path.stat().st_size == 0:
        raise _Unreadable(f"{path} is empty (0 bytes)", "Copy the file again.")
    magic = _MAGIC.get(path.suffix.lower())
    with path.open("rb") as file:
        head = file.read(8)
    if magic is not None and not head.startswith(magic):
        raise _Unreadable(
            f"{path} is not a {path.suffix[1:]} file (starts with {head[:4]!r})", "Rename or export it again."
        )


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


# ---------------------------------------------------------------------- geometry
def _ras_order(
    shape: tuple[int, ...], spacing: tuple[float, ...], affine: np.ndarray
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    if len(shape) != 3:
        return shape, spacing
    world = np.argmax(np.abs(affine[:3, :3]) / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-12), axis=0)
    order = np.argsort(world)
    return tuple(int(shape[i]) for i in order), tuple(float(spacing[i]) for i in order)


def _check_geometry(facts: CaseFacts, affine: np.ndarray, add: Any) -> None:
    if not np.isfinite(affine).all() or min(facts.spacing) <= 0:
        add(f"spacing {_by(facts.spacing)} mm is not valid", "Mend the header; expected positive numbers.")
        return
    if len(facts.shape) == 3 and abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        add("the affine has determinant 0", "Mend the header; the three axes must be independent.")
        return
    if len(facts.shape) == 3 and 1 in facts.shape:
        axis = facts.shape.index(1)
        add(f"axis {axis} has 1 voxel", "Store it as a 2D image.")


def _check_pair(facts: CaseFacts, label: np.ndarray, affine: np.ndarray, label_affine: np.ndarray, add: Any) -> None:
    if label.shape[1:] != facts.shape:
        add(f"image {_by(facts.shape)}, label {_by(label.shape[1:])} voxels", "Fix the pair: both must be on one grid.")
        return
    spacing = np.linalg.norm(label_affine[:3, :3], axis=0)[: len(facts.shape)]
    if not np.allclose(spacing, facts.spacing, rtol=1e-2):
        add(
            f"image spacing {_by(facts.spacing)} mm, label spacing {_by(spacing)} mm",
            "Resample the label to the image's grid.",
        )
        return
    if len(facts.shape) == 3:
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in facts.shape], [1], indexing="ij")).reshape(4, -1)
        offset = np.linalg.norm((affine - label_affine) @ corners, axis=0).max() if corners.shape[0] == 4 else 0.0
        if offset > 0.1 * min(facts.spacing):
            add(
                f"the label's corners are up to {offset:.2g} mm from the image's",
                "Copy the image's geometry to the label.",
            )


def _by(numbers: Sequence[float]) -> str:
    return "×".join(f"{n:.4g}" for n in numbers)


# ---------------------------------------------------------------------- labels
def _check_labels(facts: CaseFacts, label: np.ndarray, space: LabelSpace, dataset: str | None, add: Any) -> None:
    values, counts = np.unique(label, return_counts=True)
    fractional = values[values != np.round(values)]
    if len(fractional):
        count = int(counts[values != np.round(values)].sum())
        add(
            f"label has {fractional[0]:g} in {count} voxels: not integers",
            "Was it resampled with linear interpolation? Export it again.",
        )
        return
    facts.label_counts = {int(v): int(c) for v, c in zip(values, counts, strict=True)}
    undeclared = space.undeclared(facts.label_counts, dataset)
    if not undeclared:
        return
    declared = "{" + ", ".join(map(str, sorted(space.fragment(dataset).declared))) + "}"
    if len(values) > 50 or values.min() < -100:
        add(
            f"label range {values.min():g}…{values.max():g}",
            "Is the image listed as label? Expected the declared values " + declared,
        )
        return
    hint = f"Declare them in the datalist's 'labels', or export the label again. Declared: {declared}"
    if set(facts.label_counts) == {0, 255}:
        name = space.labels[0]
        hint = f'Map it in the datalist: "label_space": {{"labels": {{"background": 0, "{name}": 255}}}}'
    found = "{" + ", ".join(map(str, sorted(facts.label_counts)[:12])) + "}"
    add(f"label values {found}; declared {declared}", hint)


def _foreground(image: np.ndarray, label: np.ndarray | None, space: LabelSpace, dataset: str | None) -> np.ndarray:
    if label is not None:
        raw = [v for values in space.fragment(dataset).values.values() for v in values]
        labelled = np.isin(label[0], raw)
        if labelled.any():
            return labelled
    nonzero = np.asarray(image.any(axis=0))
    return nonzero if nonzero.any() else np.ones(image.shape[1:], dtype=bool)


# ---------------------------------------------------------------------- intensities
def _check_intensity(facts: CaseFacts, image: np.ndarray, names: Sequence[str], add: Any) -> None:
    for index, channel in enumerate(image):
        name = f" (channel {index})" if len(image) > 1 else ""
        bad = int(np.size(channel) - np.count_nonzero(np.isfinite(channel)))
        if bad:
            add(f"{bad} NaN or infinite voxels{name}", "Replace them in the file.")
            continue
        low, high = float(channel.min()), float(channel.max())
        if low == high:
            add(f"all voxels equal {low:g}{name}: normalisation undefined", "Remove the case or export it again.")


def _sample(values: np.ndarray) -> np.ndarray:
    step = max(1, values.size // _SAMPLES)
    return np.sort(values.reshape(-1)[::step].astype(np.float32))

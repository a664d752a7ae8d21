"""Read every case once: geometry, intensities and labels for the plan, and all problems for the table of checks.

Cases are read in parallel. Nothing is raised for a single case: its problems are collected, so that a user sees all
of them at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.data.case import Case
from medseg.data.case_facts import CaseFacts
from medseg.data.content import voxel_hash
from medseg.data.files import Unreadable, Volume, read_volume, shown_name
from medseg.data.findings import Finding, by
from medseg.data.geometry import check_grid, check_same_grid, ras_axes
from medseg.data.intensities import Intensity, check_intensity
from medseg.data.mask_values import edge_values
from medseg.data.modality import is_color, is_grey_level
from medseg.data.progress import told
from medseg.data.voxels import check_label_values, content_shape, count_values, foreground, sample, zero_share
from medseg.labels import LabelSpace

__all__ = ["inspect_cases", "read_case"]


def inspect_cases(
    cases: Sequence[Case],
    label_space: LabelSpace,
    channel_names: Sequence[str] | None = None,
    *,
    root: Path | None = None,
    num_workers: int | None = None,
) -> list[CaseFacts]:
    """Facts of all cases, in order; reads in parallel (threads: reading and decompressing release Python's lock).

    Args:
        cases: cases of a datalist.
        label_space: meaning of the label values.
        channel_names: the datalist's modality; ``None`` leaves the number of channels unchecked.
        root: sentences show paths relative to it.
        num_workers: threads.
    """

    def inspect(case: Case) -> CaseFacts:
        return read_case(case, label_space, channel_names, root, intensities=True)[0]

    with ThreadPoolExecutor(num_workers or min(8, os.cpu_count() or 1)) as pool:
        return list(told(pool.map(inspect, cases), "read", len(cases)))


def read_case(
    case: Case,
    label_space: LabelSpace,
    channel_names: Sequence[str] | None = None,
    root: Path | None = None,
    *,
    intensities: bool = False,
) -> tuple[CaseFacts, Case]:
    """Facts and problems of one case (arguments as for ``inspect_cases``), and the case with its files in memory, for
    transforms that would read them again.

    ``intensities``: also sample them, which a plan needs and inference does not.
    """
    facts = CaseFacts(case.id, case.dataset)
    images = [_read(path, root, facts) for path in case.images]
    label = _read(case.label, root, facts, mask=True) if case.label else None
    volumes = [image for image in images if image is not None]
    if is_color(channel_names or ()):
        _color(volumes, facts)
    elif is_grey_level(channel_names or ()):
        _grey(volumes)
    if not facts.broken:
        _inspect(case, volumes, label, facts, label_space, channel_names, root)
    if facts.broken:
        return facts, case
    if intensities:
        _sample(volumes, label, facts, label_space)
    held = replace(case, images=tuple(volume.image for volume in volumes), label=label.image if label else None)
    return facts, held


def _inspect(
    case: Case,
    volumes: Sequence[Volume],
    label: Volume | None,
    facts: CaseFacts,
    label_space: LabelSpace,
    channel_names: Sequence[str] | None,
    root: Path | None,
) -> None:
    first = volumes[0]
    channels = [channel for volume in volumes for channel in volume.channels]
    facts.shape, facts.channels, facts.spacing = first.shape, len(channels), first.spacing
    facts.picture, facts.orientation = first.photo, first.orientation
    facts.label_orientation = label.orientation if label is not None else 1
    for finding in check_grid(first):
        facts.add(finding)
    if facts.broken:
        return
    facts.ras_axes = ras_axes(first)
    facts.ras_shape = tuple(facts.shape[axis] for axis in facts.ras_axes)
    facts.ras_spacing = tuple(facts.spacing[axis] for axis in facts.ras_axes)
    for finding in (*_check_channels(volumes, channel_names), *_check_grids(volumes, label)):
        facts.add(finding)
    counts: dict[float, int] = {}
    if label is not None:
        counts = count_values(label.channels[0])
        if label.photo:
            facts.label_edges = edge_values(label.channels[0])
        shown = shown_name(str(case.label), root)
        for finding in check_label_values(counts, label_space, facts.dataset, shown, facts.label_edges):
            facts.add(finding)
    names = _names(len(channels), channel_names or ())
    for index, (channel, name) in enumerate(zip(channels, names, strict=True)):
        where = f" in channel {index}{f' ({name})' if name else ''}" if len(channels) > 1 else ""
        facts.ranges.append(Intensity.of(channel))
        unit = "" if facts.picture else name  # PNG or JPEG holds no Hounsfield units
        for finding in check_intensity(channel, facts.ranges[-1], unit, where):
            facts.add(finding)
    if not facts.broken:
        facts.label_counts = {int(value): number for value, number in counts.items()}


def _sample(volumes: Sequence[Volume], label: Volume | None, facts: CaseFacts, label_space: LabelSpace) -> None:
    """Intensities and hashes of voxels, which a plan needs."""
    channels = [channel for volume in volumes for channel in volume.channels]
    known = label_space.fragment(facts.dataset).values.values() if label is not None else ()
    raw = [value for values in known for value in values]
    counts: dict[float, int] = {float(value): number for value, number in facts.label_counts.items()}
    mask = foreground(channels, label.channels[0] if label is not None else None, counts, raw)
    facts.intensity = [sample(channel, mask) for channel in channels]
    facts.zero_share = zero_share(channels)
    content = content_shape(channels) if facts.zero_share else facts.shape
    facts.content_shape = tuple(content[axis] for axis in facts.ras_axes)
    facts.image_hashes = tuple(voxel_hash(channel) for channel in channels)
    facts.label_hash = voxel_hash(label.channels[0]) if label is not None else ""


def _color(volumes: Sequence[Volume], facts: CaseFacts) -> None:
    """Grey images of a colour data set have three equal channels, as ``ToRGBd`` makes them."""
    for volume in volumes if len(volumes) == 1 else ():
        if volume.photo and len(volume.channels) == 1:
            volume.channels *= 3
            if volume.channels[0].dtype != np.uint8:
                facts.add(
                    Finding(
                        f"grey image of {volume.channels[0].dtype} pixels; 8 bits per channel are expected of RGB",
                        "Save it with 8 bits, or name the 'modality' grey if all images are.",
                    )
                )


def _grey(volumes: Sequence[Volume]) -> None:
    """Images of a grey data set that are stored as three equal channels have one, as ``ToGreyd`` makes it."""
    for volume in volumes if len(volumes) == 1 else ():
        first, *others = volume.channels
        if volume.photo and len(others) == 2 and all(np.array_equal(first, other) for other in others):
            volume.channels = [first]


def _read(path: str, root: Path | None, facts: CaseFacts, *, mask: bool = False) -> Volume | None:
    try:
        volume = read_volume(path, shown_name(path, root), mask=mask)
    except Unreadable as error:
        facts.add(Finding(*error.args))
        return None
    for finding in volume.findings:
        facts.add(finding)
    facts.notes += volume.notes
    return volume


def _names(number: int, names: Sequence[str]) -> list[str]:
    if len(names) == number:
        return list(names)
    return [names[0] if len(names) == 1 else ""] * number  # one name may stand for all colours


def _check_channels(volumes: Sequence[Volume], names: Sequence[str] | None) -> Iterator[Finding]:
    """Whether the files hold as many channels as the datalist's modality names."""
    if names is None:
        return
    first, found = volumes[0], sum(len(volume.channels) for volume in volumes)
    listed = f"{len(names)} ({', '.join(names)})" if names else "none"
    if len(volumes) == 1 and not first.photo:
        if found > 1 and found != len(names):
            yield Finding(
                f"shape {by(first.shape)}×{found}: 4D file where 3D is expected; 'modality' names {listed}",
                f"Name all {found} channels in the datalist's 'modality', or split it into one file per channel.",
            )
        elif found == 1 and len(names) > 1:
            yield Finding(f"has 1 image, 'modality' names {listed}", "List one file per channel, or fix 'modality'.")
    elif names and found != len(names) and not (first.photo and len(volumes) == 1 == len(names)):
        what = "channels" if first.photo else "images"
        yield Finding(
            f"has {found} {what}, others have {listed} by the datalist's 'modality'",
            "List one file per channel, or fix 'modality'.",
        )


def _check_grids(volumes: Sequence[Volume], label: Volume | None) -> Iterator[Finding]:
    for index, other in enumerate(volumes[1:], 1):
        yield from check_same_grid(volumes[0], other, f"channel {index}")
    if label is None:
        return
    if len(label.channels) > 1:
        yield Finding(
            f"label has {len(label.channels)} channels; one is expected", "Export it with one value per voxel."
        )
        return
    yield from check_same_grid(volumes[0], label, "label")

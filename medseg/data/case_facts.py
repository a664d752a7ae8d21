"""What the files of one case hold: the facts that checks judge and that a plan is made from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from medseg.data.findings import Finding, Problem
from medseg.data.intensities import Intensity

__all__ = ["CaseFacts"]


@dataclass
class CaseFacts:
    """What a case's files hold.

    Attributes:
        case: the case id.
        dataset: the data set whose label values it has, as the datalist says.
        shape: spatial shape in voxels, source orientation.
        spacing: mm per voxel, source orientation.
        ras_shape, ras_spacing: the same in RAS order (3D).
        ras_axes: the source's axis of each RAS axis.
        channels: number of image channels.
        ranges: range of each channel over all voxels.
        intensity: per channel, sorted intensities sampled from the foreground (labels above background; without
        label: non-zero voxels).
        zero_share: share of voxels that are 0 in every channel.
        content_shape: size of the smallest box that holds all other voxels, in RAS order (3D).
        label_counts: raw label value -> voxels; empty without a label.
        label_edges: values of a 2D mask that are at edges only (``edge_values``).
        image_hashes: hash of each channel's voxels (``medseg.data.content.voxel_hash``).
        label_hash: hash of the label's voxels; empty without a label.
        picture: PNG, JPEG, TIFF or BMP: without physical size.
        orientation, label_orientation: EXIF orientation of the image and of the label, 1 without a tag.
        notes: sentences on what is done with the files' values.
        problems: all findings.
    """

    case: str
    dataset: str | None = None
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    ras_shape: tuple[int, ...] = ()
    ras_spacing: tuple[float, ...] = ()
    ras_axes: tuple[int, ...] = ()
    channels: int = 0
    ranges: list[Intensity] = field(default_factory=list)
    intensity: list[np.ndarray] = field(default_factory=list)
    zero_share: float = 0.0
    content_shape: tuple[int, ...] = ()
    label_counts: dict[int, int] = field(default_factory=dict)
    label_edges: frozenset[float] = frozenset()
    image_hashes: tuple[str, ...] = ()
    label_hash: str = ""
    picture: bool = False
    orientation: int = 1
    label_orientation: int = 1
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether the case cannot be used."""
        return any(not problem.warning for problem in self.problems)

    def add(self, finding: Finding) -> None:
        """Note a finding."""
        self.problems.append(Problem(self.case, *finding))

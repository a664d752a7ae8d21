"""A case, turned for display: the one place of orientation and intensity windows of images that people see.

Volumes are turned to RAS and shown in radiological convention: the patient's right is on the left of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.data import MetaTensor
from monai.transforms import Compose

from medseg.data.case import Case
from medseg.data.modality import channel_kind
from medseg.labels import LabelSpace
from medseg.transforms import load

__all__ = ["CaseView", "load_view", "view_of"]

# Usual CT windows in HU, lowest to highest, by the median of the labels that are shown.
_LUNG, _SOFT, _BONE = (-1350.0, 150.0), (-160.0, 240.0), (-450.0, 1050.0)
_BELOW_SOFT, _ABOVE_SOFT = -400.0, 250.0


@dataclass(frozen=True)
class CaseView:
    """A case, ready to be drawn; axis 0 runs to the right of the image, the last axis down.

    Attributes:
        image: ``(*spatial)``, or ``(*spatial, 3)`` in [0, 1] for colour photographs.
        prediction: label indices ``(*spatial)``.
        reference: the same, or ``None`` of a case without label.
        spacing: mm per voxel; ``None`` for 2D images of no known size.
        window: the grey values that become black and white; the first is the higher one where PET is shown dark on
            white.
        note: what a caption should say about the choice of channel and intensity window.
    """

    image: np.ndarray
    prediction: np.ndarray
    reference: np.ndarray | None
    spacing: tuple[float, ...] | None
    window: tuple[float, float]
    note: str

    @property
    def foreground(self) -> np.ndarray:
        """Where the prediction or the reference has a label, ``(*spatial)``."""
        predicted: np.ndarray = self.prediction > 0
        return predicted if self.reference is None else predicted | (self.reference > 0)


def load_view(
    case: Case,
    prediction: Path,
    label_space: LabelSpace,
    channels: Sequence[str] = (),
    normalization: Sequence[Mapping[str, Any]] | Mapping[str, Any] = (),
    *,
    reference: bool = True,
) -> CaseView:
    """Read image, prediction and, unless it is not wanted, reference of a case and turn them for display.

    CT is shown in the intensity window of the plan, else in that of lung, soft tissue or bone, as its labels are; PET
    from zero, dark on white; other images from the 0.5th to the 99.5th percentile above their smallest value.

    Raises:
        Exception: whatever a reader raises on files that are missing or damaged, ``ValueError`` for unequal grids.
    """
    labelled = reference and case.label is not None
    item = Compose(load(["image", "label"] if labelled else ["image"], label_space))(case.to_dict())
    predicted = Compose(load(["label"], label_space))({"label": str(prediction), "dataset": case.dataset})
    maps = [np.asarray(one["label"])[0] for one in (predicted, *([item] if labelled else []))]
    scheme = normalization[0] if normalization and not isinstance(normalization, Mapping) else {}
    true = maps[1] if labelled else None
    return view_of(item["image"], maps[0], true, channels, scheme, picture=case.is_picture)


def view_of(
    image: MetaTensor,
    prediction: np.ndarray,
    reference: np.ndarray | None,
    channels: Sequence[str] = (),
    normalization: Mapping[str, Any] | None = None,
    *,
    picture: bool,
) -> CaseView:
    """Turn images that are read for display.

    Args:
        image: ``(C, *spatial)`` with its affine.
        prediction, reference: label indices ``(*spatial)``.
        channels: names of the image's channels.
        normalization: scheme of the first channel, in the form of a plan; ``None`` where that is not known.
        picture: rows and columns, not the axes of a scanner.

    Raises:
        ValueError: unequal grids.
    """
    maps = [prediction, *([] if reference is None else [reference])]
    shapes = {one.shape for one in maps}
    if shapes != {tuple(image.shape[1:])}:
        raise ValueError(
            f"image {tuple(image.shape[1:])}, prediction and reference {' and '.join(map(str, shapes))} differ"
        )
    values, name = image.numpy(), channels[0] if channels else ""
    if picture:
        maps = [one.T for one in maps]
        true = maps[1] if reference is not None else None
        if len(values) == 3:
            low, high = (float(v) for v in np.percentile(values, [0.5, 99.5]))
            low = min(0.0, low)  # above 0 only as stored, where black is 0
            color = (values.T - low) / max(high - low, 1e-6)
            return CaseView(color.clip(0, 1), maps[0], true, None, (0.0, 1.0), "colour, up to the 99.5th percentile")
        window, how = _window(values[0], "", {}, maps[-1].T)
        return CaseView(values[0].T, maps[0], true, None, window, f"{name or 'grey'}, {how}")
    affine = np.asarray(image.affine, dtype=float)
    window, how = _window(values[0], channel_kind(name), normalization or {}, maps[-1])
    note = f"{name or 'channel 1'}{f' (first of {len(values)} channels)' if len(values) > 1 else ''}, {how}"
    spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0)[: values.ndim - 1])
    volumes = [values[0], *maps]
    if values.ndim == 4:
        turn = nibabel.orientations.io_orientation(affine)
        spacing = tuple(spacing[i] for i in np.argsort(turn[:, 0]))
        volumes = [nibabel.orientations.apply_orientation(one, turn)[::-1, ::-1, ::-1] for one in volumes]
    return CaseView(volumes[0], volumes[1], volumes[2] if reference is not None else None, spacing, window, note)


def _window(
    image: np.ndarray, kind: str, scheme: Mapping[str, Any], labels: np.ndarray
) -> tuple[tuple[float, float], str]:
    """The intensity window, and what a caption says of it."""
    finite = image[np.isfinite(image)]
    if kind == "ct":
        shown = image[(labels > 0) & np.isfinite(image)]
        middle = float(np.median(shown)) if shown.size else 0.0
        usual = _LUNG if middle < _BELOW_SOFT else _BONE if middle > _ABOVE_SOFT else _SOFT
        given = scheme if scheme.get("kind") == "fixed" else {"lower": usual[0], "upper": usual[1]}
        window = float(given["lower"]), float(given["upper"])
        return window, f"HU window {window[0]:g} to {window[1]:g}"
    above = finite[finite > finite.min()] if finite.size else finite
    low, high = (float(v) for v in np.percentile(above, [0.5, 99.5])) if above.size else (0.0, 1.0)
    high = max(high, low + 1e-6)
    if kind == "pet":
        return (high, min(0.0, low)), f"0 to {high:.3g}, dark on white"
    return (low, high), "0.5th to 99.5th percentile"

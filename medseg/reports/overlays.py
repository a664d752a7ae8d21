"""Overlays of one case as a JPEG: image, reference and prediction side by side, in three planes (2D: one).

Volumes are turned to RAS and shown in radiological convention: the patient's right is on the left of the picture.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from monai.transforms import Compose
from PIL import Image

from medseg.data.datalist import images_of
from medseg.labels import LabelSpace
from medseg.reports.colors import rgb
from medseg.transforms import is_2d_file, load

__all__ = ["CaseView", "load_view", "overlay_jpeg"]

_MAX_BYTES = 300_000
_WIDTH = 8.0  # inches
_MAX_HEIGHT = 11.0
_DPI = 120
_LEAST_VIEW = 0.4  # of an axis: a view is never cut closer than this around the foreground
_MARGIN = 0.08  # of an axis, around the foreground
_COLUMNS = ("image", "reference", "prediction")


@dataclass
class CaseView:
    """A case, ready to be drawn; axis 0 runs to the right of a picture, the last axis down.

    Attributes:
        image: ``(*spatial)``, or ``(*spatial, 3)`` in [0, 1] for colour photographs.
        reference, prediction: label indices ``(*spatial)``.
        spacing: mm per voxel (1 for photographs).
        window: the grey values that become black and white.
        note: what a caption should say about the choice of channel and window.
    """

    image: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    spacing: tuple[float, ...]
    window: tuple[float, float]
    note: str


def load_view(
    case: Mapping[str, Any],
    prediction: Path,
    label_space: LabelSpace,
    channels: Sequence[str] = (),
    normalization: Sequence[Mapping[str, Any]] = (),
) -> CaseView:
    """Read image, reference and prediction of a case and turn them for display.

    A fixed window of the plan (CT, PET) is used for display too, else the 0.5th to 99.5th percentile above zero.

    Raises:
        Exception: whatever a reader raises on files that are missing or damaged, ``ValueError`` for unequal grids.
    """
    keys = {"image": case["image"], "label": case["label"], "dataset": case.get("dataset")}
    pair = Compose(load(["image", "label"], label_space))(keys)
    predicted = Compose(load(["label"], label_space))({"label": str(prediction), "dataset": case.get("dataset")})
    image = pair["image"].numpy()
    maps = [np.asarray(item["label"])[0] for item in (pair, predicted)]
    if not image.shape[1:] == maps[0].shape == maps[1].shape:
        raise ValueError(f"image {image.shape[1:]}, reference {maps[0].shape} and prediction {maps[1].shape} differ")
    photo = is_2d_file(images_of(case)[0])
    affine = np.eye(4) if photo else np.asarray(pair["image"].affine, dtype=float)
    if photo and len(image) == 3:
        peak = 255.0 if image.max() > 1 else 1.0
        color = np.moveaxis(image, 0, -1).swapaxes(0, 1) / peak
        return CaseView(color.clip(0, 1), maps[0].T, maps[1].T, (1.0, 1.0), (0.0, 1.0), "colour image")
    volume = image[0]
    window, how = _window(volume, normalization[0] if normalization else {})
    name = channels[0] if channels else ""
    note = f"{name or 'channel 1'}{f' (first of {len(image)} channels)' if len(image) > 1 else ''}, {how}"
    if photo:
        volume, maps = volume.T, [item.T for item in maps]
    spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0)[: volume.ndim])
    if volume.ndim == 3:
        turn = nibabel.orientations.io_orientation(affine)
        spacing = tuple(spacing[i] for i in np.argsort(turn[:, 0]))
        volume, *maps = (
            nibabel.orientations.apply_orientation(item, turn)[::-1, ::-1, ::-1] for item in (volume, *maps)
        )
    return CaseView(volume, maps[0], maps[1], spacing, window, note)


def _window(volume: np.ndarray, scheme: Mapping[str, Any]) -> tuple[tuple[float, float], str]:
    if scheme.get("kind") == "fixed":
        window = float(scheme["lower"]), float(scheme["upper"])
        return window, f"window {window[0]:g} to {window[1]:g}"
    finite = volume[np.isfinite(volume)]
    above = finite[finite > finite.min()] if finite.size else finite
    low, high = (float(v) for v in np.percentile(above, [0.5, 99.5])) if above.size else (0.0, 1.0)
    return (low, max(high, low + 1e-6)), "window: 0.5th to 99.5th percentile"


def overlay_jpeg(view: CaseView, colors: Sequence[str]) -> bytes:
    """Draw a case; ``colors[i]`` is the colour of label index ``i + 1``. At most 300 kB."""
    planes = [(0, 1), (0, 2), (1, 2)] if view.reference.ndim == 3 else [(0, 1)]
    foreground = (view.reference > 0) | (view.prediction > 0)
    box = _view_box(foreground)
    extent = [(part.stop - part.start) * mm for part, mm in zip(box, view.spacing, strict=True)]
    gap = 0.012 * 3 * max(extent[across] for across, _ in planes)
    column = max(extent[across] for across, _ in planes)
    heights = [extent[down] for _, down in planes]
    title = 0.09 * column
    size = 3 * column + 2 * gap, sum(heights) + (len(planes) - 1) * gap + title
    scale = min(_WIDTH / size[0], _MAX_HEIGHT / size[1])
    figure = Figure(figsize=(size[0] * scale, size[1] * scale), dpi=_DPI, facecolor="black")
    top = size[1] - title
    for row, (across, down) in enumerate(planes):
        cut = _slice(foreground, box, across, down)
        for place, name in enumerate(_COLUMNS):
            width, height = extent[across], extent[down]
            left = place * (column + gap) + (column - width) / 2
            axes = figure.add_axes((left / size[0], (top - height) / size[1], width / size[0], height / size[1]))
            labels = {"reference": view.reference, "prediction": view.prediction}.get(name)
            aspect = view.spacing[down] / view.spacing[across]
            _draw(axes, view, cut, labels, colors, aspect)
            if row == 0:
                axes.set_title(name, color="white", fontsize=11, pad=5)
            if view.reference.ndim == 3 and place == 0:
                _directions(axes, across, down)
        top -= heights[row] + gap
    return _jpeg(figure)


def _view_box(foreground: np.ndarray) -> tuple[slice, ...]:
    """The part of the grid to show: the foreground with a margin, at least ``_LEAST_VIEW`` of each axis."""
    box = []
    for axis, length in enumerate(foreground.shape):
        hit = np.flatnonzero(foreground.any(axis=tuple(a for a in range(foreground.ndim) if a != axis)))
        if not len(hit):
            box.append(slice(0, length))
            continue
        margin = _MARGIN * length + 2
        half = max((hit[-1] - hit[0] + 1) / 2 + margin, _LEAST_VIEW * length / 2)
        middle = (hit[-1] + hit[0] + 1) / 2
        start = max(0, min(middle - half, length - 2 * half))
        box.append(slice(int(start), int(np.ceil(min(length, start + 2 * half)))))
    return tuple(box)


def _slice(foreground: np.ndarray, box: tuple[slice, ...], across: int, down: int) -> tuple[Any, ...]:
    """The index of the slice with most foreground, cut to the box; a 2D image is its own slice."""
    cut: list[Any] = list(box)
    for axis in set(range(foreground.ndim)) - {across, down}:
        counts = np.count_nonzero(foreground, axis=(across, down))
        cut[axis] = int(np.argmax(counts)) if counts.any() else foreground.shape[axis] // 2
    return tuple(cut)


def _draw(
    axes: Axes,
    view: CaseView,
    cut: tuple[Any, ...],
    labels: np.ndarray | None,
    colors: Sequence[str],
    aspect: float,
) -> None:
    picture = view.image[cut].swapaxes(0, 1)
    low, high = view.window
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="bilinear")
    axes.set_axis_off()
    if labels is None:
        return
    shown = labels[cut].T
    fill = np.zeros((*shown.shape, 4))
    for index in np.unique(shown[shown > 0]):
        fill[shown == index] = (*rgb(colors[index - 1]), 0.3)
    axes.imshow(fill, aspect=aspect, interpolation="nearest")
    for index in np.unique(shown[shown > 0]):
        # A border of zeros closes contours at the edge of the picture.
        padded = np.pad(shown == index, 1).astype(float)
        rows, columns = np.arange(padded.shape[0]) - 1, np.arange(padded.shape[1]) - 1
        axes.contour(columns, rows, padded, [0.5], colors=[colors[index - 1]], linewidths=1.3)
    axes.set_xlim(-0.5, shown.shape[1] - 0.5)
    axes.set_ylim(shown.shape[0] - 0.5, -0.5)


def _directions(axes: Axes, across: int, down: int) -> None:
    names = {0: ("R", "L"), 1: ("A", "P"), 2: ("S", "I")}
    style: dict[str, Any] = {"color": "#ffd75e", "fontsize": 9, "transform": axes.transAxes}
    axes.text(0.02, 0.5, names[across][0], ha="left", va="center", **style)
    axes.text(0.98, 0.5, names[across][1], ha="right", va="center", **style)
    axes.text(0.5, 0.98, names[down][0], ha="center", va="top", **style)
    axes.text(0.5, 0.02, names[down][1], ha="center", va="bottom", **style)


def _jpeg(figure: Figure) -> bytes:
    """The drawn figure at the best quality that keeps to the size."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    while True:
        for quality in (90, 80, 70, 55):
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= _MAX_BYTES:
                return buffer.getvalue()
        picture = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4))

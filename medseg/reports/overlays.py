"""Overlays of one case as a JPEG: image, reference and prediction side by side, in three planes (2D: one).

Volumes are turned to RAS and shown in radiological convention: the patient's right is on the left of the image.
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
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from monai.transforms import Compose
from PIL import Image

from medseg.data.case import Case
from medseg.data.modality import channel_kind
from medseg.labels import LabelSpace
from medseg.transforms import load

__all__ = ["CaseView", "load_view", "overlay_jpeg"]

_MAX_BYTES = 300_000
_WIDTH = 8.0  # inches
_MAX_HEIGHT = 11.0
_DPI = 120
_LEAST_VIEW = 0.4  # of an axis: a view is never cut closer than this around the foreground
_MARGIN = 0.08  # of an axis, around the foreground
_SIDES = ("R", "A", "S")  # what the left or upper edge of an axis shows
_CONTENTS = ("image", "reference", "prediction")
_TAG = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 3}  # behind words on images


@dataclass(frozen=True)
class CaseView:
    """A case, ready to be drawn; axis 0 runs to the right of the image, the last axis down.

    Attributes:
        image: ``(*spatial)``, or ``(*spatial, 3)`` in [0, 1] for colour photographs.
        reference, prediction: label indices ``(*spatial)``.
        spacing: mm per voxel (1 for photographs).
        window: the grey values that become black and white.
        note: what a caption should say about the choice of channel and display window.
    """

    image: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    spacing: tuple[float, ...]
    window: tuple[float, float]
    note: str


def load_view(
    case: Case,
    prediction: Path,
    label_space: LabelSpace,
    channels: Sequence[str] = (),
    normalization: Sequence[Mapping[str, Any]] = (),
) -> CaseView:
    """Read image, reference and prediction of a case and turn them for display.

    For CT the plan's intensity window is used for display too, else the 0.5th to 99.5th percentile above zero.

    Raises:
        Exception: whatever a reader raises on files that are missing or damaged, ``ValueError`` for unequal grids.
    """
    pair = Compose(load(["image", "label"], label_space))(case.to_dict())
    predicted = Compose(load(["label"], label_space))({"label": str(prediction), "dataset": case.dataset})
    image = pair["image"].numpy()
    maps = [np.asarray(item["label"])[0] for item in (pair, predicted)]
    if not image.shape[1:] == maps[0].shape == maps[1].shape:
        raise ValueError(f"image {image.shape[1:]}, reference {maps[0].shape} and prediction {maps[1].shape} differ")
    photo = case.is_picture
    affine = np.eye(4) if photo else np.asarray(pair["image"].affine, dtype=float)
    if photo and len(image) == 3:
        color = np.moveaxis(image, 0, -1).swapaxes(0, 1) / max(float(np.percentile(image, 99.5)), 1e-6)
        return CaseView(
            color.clip(0, 1), maps[0].T, maps[1].T, (1.0, 1.0), (0.0, 1.0), "colour, up to the 99.5th percentile"
        )
    volume = image[0]
    name = channels[0] if channels else ""
    window, how = _window(volume, normalization[0] if normalization and channel_kind(name) == "ct" else {})
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
        return window, f"intensity window {window[0]:g} to {window[1]:g}"
    finite = volume[np.isfinite(volume)]
    above = finite[finite > finite.min()] if finite.size else finite
    low, high = (float(v) for v in np.percentile(above, [0.5, 99.5])) if above.size else (0.0, 1.0)
    return (low, max(high, low + 1e-6)), "display window: 0.5th to 99.5th percentile"


def overlay_jpeg(view: CaseView, colors: Sequence[str]) -> bytes:
    """Draw a case; ``colors[i]`` is the colour of label index ``i + 1``. At most 300 kB."""
    foreground = (view.reference > 0) | (view.prediction > 0)
    box = _view_box(foreground)
    extent = [(part.stop - part.start) * mm for part, mm in zip(box, view.spacing, strict=True)]
    volume = foreground.ndim == 3
    # Volumes: a column per plane, all of one height. 2D images: the three contents side by side.
    planes = [(0, 1), (0, 2), (1, 2)] if volume else [(0, 1)] * 3
    widths = [extent[across] / extent[down] for across, down in planes]
    rows = [[content] * 3 for content in _CONTENTS] if volume else [list(_CONTENTS)]
    inches = min(_WIDTH / sum(widths), _MAX_HEIGHT / len(rows))
    figure = Figure(figsize=(inches * sum(widths), inches * len(rows)), dpi=_DPI, facecolor="black")
    grid = figure.add_gridspec(
        len(rows), 3, width_ratios=widths, left=0, right=1, bottom=0, top=1, wspace=0.015, hspace=0.015
    )
    labels = {"reference": view.reference, "prediction": view.prediction}
    for row, contents in enumerate(rows):
        for column, (content, (across, down)) in enumerate(zip(contents, planes, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            _draw(axes, view, _slice(foreground, box, across, down), labels.get(content), colors)
            if volume and row == 0:
                _directions(axes, across, down)
            if column == 0 or not volume:
                style: dict[str, Any] = {"color": "white", "fontsize": 12, "bbox": _TAG}
                axes.annotate(content, (0, 0), (6, 7), "axes fraction", "offset points", **style)
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
) -> None:
    picture = view.image[cut].swapaxes(0, 1)
    low, high = view.window
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect="auto", interpolation="bilinear")
    axes.set_axis_off()
    if labels is None:
        return
    shown = labels[cut].T
    fill = np.zeros((*shown.shape, 4))
    for index in np.unique(shown[shown > 0]):
        fill[shown == index] = to_rgba(colors[index - 1], 0.3)
    axes.imshow(fill, aspect="auto", interpolation="nearest")
    for index in np.unique(shown[shown > 0]):
        # A border of zeros closes contours at the edge of the image.
        padded = np.pad(shown == index, 1).astype(float)
        rows, columns = np.arange(padded.shape[0]) - 1, np.arange(padded.shape[1]) - 1
        axes.contour(columns, rows, padded, [0.5], colors=[colors[index - 1]], linewidths=1.3)
    axes.set_xlim(-0.5, shown.shape[1] - 0.5)
    axes.set_ylim(shown.shape[0] - 0.5, -0.5)


def _directions(axes: Axes, across: int, down: int) -> None:
    """The patient's direction at the left and the upper edge."""
    for words, place, offset in ((_SIDES[across], (0, 0.5), (5, 0)), (_SIDES[down], (0.5, 1), (0, -4))):
        axes.annotate(
            words,
            place,
            offset,
            "axes fraction",
            "offset points",
            ha="left" if offset[0] else "center",
            va="center" if offset[0] else "top",
            color="#ffd75e",
            fontsize=12,
            path_effects=[withStroke(linewidth=2.5, foreground="black")],
        )


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

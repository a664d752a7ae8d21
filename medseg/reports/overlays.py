"""Overlays of one case: image, reference, prediction and errors, in three planes (2D images: one), and in 3D."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from PIL import Image

from medseg.data.case_view import CaseView
from medseg.reports.drawing import INK, shortened
from medseg.reports.surfaces import surfaces

__all__ = ["ERRORS", "overlay_figure", "overlay_jpeg", "preview_figure"]

# Brighter than any label's colour.
ERRORS = {"false positive": "#ff2ad4", "false negative": "#00e5ff", "wrong label": "#ffe600"}

_MAX_BYTES = 300_000
_WIDTH = 8.0  # inches
_MAX_HEIGHT = 15.0
_DPI = 120
_FONT = 14  # points; a page shows overlays at half their size
_LEGEND_LINE = 0.22  # inches
_TAG_HEIGHT = 0.3  # inches, above which a bar and a tag of one narrow view do not meet
_MOST_SURFACE = 128  # voxels along an axis, from which on surfaces are drawn of every second, third, …
_LEAST_VIEW = 0.4  # of an axis: a view is never cut closer than this around the foreground
_MARGIN = 0.08  # of an axis, around the foreground
_LONGEST_BAR = 0.35  # of the width of a view
_SIDES = ("R", "A", "S")  # what the left or upper edge of an axis shows
_PLANES = ((0, 1), (0, 2), (1, 2))  # axes to the right and down
_TAG = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 3}  # behind words on images
_EDGE = [withStroke(linewidth=2.5, foreground="black")]


def overlay_figure(view: CaseView, colors: Mapping[str, str]) -> Figure:
    """Image, reference, prediction and errors of a case, of volumes the surfaces too, with a legend below
    (``overlay_jpeg`` leaves it out).

    Args:
        view: the case, with its reference.
        colors: label -> its colour, in the order of the indices.
    """
    if view.spacing is None:
        return _figure(view, [("image", "reference"), ("prediction", "errors")], colors, ERRORS)
    contents = ["image", "reference", "prediction", "errors"]
    contents += ["reference, 3D", "prediction, 3D"] if view.prediction.ndim == 3 else []
    return _figure(view, [(content,) * len(_planes(view)) for content in contents], colors, ERRORS)


def preview_figure(view: CaseView, colors: Mapping[str, str]) -> Figure:
    """The prediction's contours on a volume in three planes; a 2D image beside its label map in colours."""
    if view.spacing is None or len(_planes(view)) == 1:
        return _figure(view, [("image", "labels")], colors, {})
    return _figure(view, [("prediction",) * 3], colors, {})


def overlay_jpeg(figure: Figure) -> bytes:
    """A drawn overlay without its legend, at the best quality that keeps to 300 kB."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture = picture.crop((0, 0, picture.width, round(picture.height * (1 - figure.subplotpars.bottom))))
    while True:
        for quality in (90, 80, 70, 55):
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= _MAX_BYTES:
                return buffer.getvalue()
        picture = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4))


def _planes(view: CaseView) -> tuple[tuple[int, int], ...]:
    return _PLANES if view.prediction.ndim == 3 else _PLANES[:1]


def _figure(
    view: CaseView, rows: Sequence[Sequence[str]], colors: Mapping[str, str], errors: Mapping[str, str]
) -> Figure:
    """Rows of contents; each column is a plane where there are several."""
    foreground = view.foreground
    box = _view_box(foreground)
    spacing = view.spacing or (1.0,) * foreground.ndim
    extent = [(part.stop - part.start) * mm for part, mm in zip(box, spacing, strict=True)]
    several = len(_planes(view)) > 1
    planes = _planes(view) if several else _planes(view) * len(rows[0])
    widths = [extent[across] / extent[down] for across, down in planes]
    inches = min(_WIDTH / sum(widths), _MAX_HEIGHT / len(rows))
    width, height = inches * sum(widths), inches * len(rows)
    there = np.unique(view.prediction if view.reference is None else [view.prediction, view.reference])
    names = list(colors)
    keys = {names[i - 1]: colors[names[i - 1]] for i in there if i > 0} | dict(errors)
    across_legend = max(1, int(width / (0.5 + 0.078 * max((len(shortened(name)) for name in keys), default=1))))
    strip = 0.15 + _LEGEND_LINE * math.ceil(len(keys) / across_legend) if keys else 0.0
    figure = Figure(figsize=(width, height + strip), dpi=_DPI, facecolor="white")
    bottom = strip / (height + strip)
    figure.subplots_adjust(left=0, right=1, bottom=bottom, top=1, wspace=0.015, hspace=0.015)
    grid = figure.add_gridspec(len(rows), len(planes), width_ratios=widths)
    palette = list(colors.values())
    for row, contents in enumerate(rows):
        for column, (content, (across, down)) in enumerate(zip(contents, planes, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            if content.endswith("3D"):
                _draw_surfaces(axes, view, box, content, 3 - across - down, palette)
            else:
                _draw(axes, view, _slice(foreground, box, across, down), content, palette)
            if several and row == 0:
                _directions(axes, across, down)
            if view.spacing is not None and (several or column == 0) and row == 0:
                _scale_bar(axes, spacing[across], lift=_TAG_HEIGHT / inches if column == 0 else 0.0)
            if column == 0 or not several:
                style: dict[str, Any] = {"color": "white", "fontsize": _FONT, "bbox": _TAG}
                axes.annotate(content, (0, 0), (6, 7), "axes fraction", "offset points", **style)
    if keys:
        handles = [Patch(color=color, label=shortened(name)) for name, color in keys.items()]
        legend = figure.legend(
            handles=handles, loc="lower left", ncols=across_legend, frameon=False, fontsize=10, labelcolor=INK
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


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


def _draw(axes: Axes, view: CaseView, cut: tuple[Any, ...], content: str, colors: Sequence[str]) -> None:
    picture = view.image[cut].swapaxes(0, 1)
    # A window from high to low is one of dark on white.
    cmap = "gray" if view.window[0] < view.window[1] else "gray_r"
    low, high = sorted(view.window)
    axes.imshow(picture, cmap=cmap, vmin=low, vmax=high, aspect="auto", interpolation="bilinear")
    axes.set_axis_off()
    if content == "image":
        return
    predicted = view.prediction[cut].T
    if content == "errors":
        assert view.reference is not None
        _fill(axes, _errors(predicted, view.reference[cut].T), list(ERRORS.values()), 0.8)
    elif content == "labels":
        axes.set_facecolor("black")
        axes.imshow(np.zeros((*predicted.shape, 3)), aspect="auto")
        _fill(axes, predicted, colors, 1.0)
    else:
        assert content == "prediction" or view.reference is not None
        _contours(axes, predicted if content == "prediction" else view.reference[cut].T, colors)  # type: ignore[index]
    axes.set_xlim(-0.5, predicted.shape[1] - 0.5)
    axes.set_ylim(predicted.shape[0] - 0.5, -0.5)


def _draw_surfaces(
    axes: Axes, view: CaseView, box: tuple[slice, ...], content: str, axis: int, colors: Sequence[str]
) -> None:
    """The surfaces, seen as the slices are: from the feet, the front and the patient's left."""
    labels = view.reference if content.startswith("reference") else view.prediction
    assert labels is not None and view.spacing is not None
    steps = [math.ceil((part.stop - part.start) / _MOST_SURFACE) for part in box]
    thinned = labels[tuple(slice(part.start, part.stop, step) for part, step in zip(box, steps, strict=True))]
    spacing = [mm * step for mm, step in zip(view.spacing, steps, strict=True)]
    axes.imshow(surfaces(thinned, spacing, axis, colors, from_end=axis != 1), aspect="auto", interpolation="bilinear")
    axes.set_axis_off()


def _errors(predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """1 + index in ``ERRORS`` where the two differ, else 0; what the reference leaves open is not an error."""
    wrong = (predicted != reference) & (reference >= 0)
    return np.where(wrong, np.select([reference == 0, predicted == 0], [1, 2], 3), 0)


def _fill(axes: Axes, shown: np.ndarray, colors: Sequence[str], alpha: float) -> None:
    fill = np.zeros((*shown.shape, 4))
    for index in np.unique(shown[shown > 0]):
        fill[shown == index] = to_rgba(colors[index - 1], alpha)
    axes.imshow(fill, aspect="auto", interpolation="nearest")


def _contours(axes: Axes, shown: np.ndarray, colors: Sequence[str]) -> None:
    for index in np.unique(shown[shown > 0]):
        # A border of zeros closes contours at the edge of the image.
        padded = np.pad(shown == index, 1).astype(float)
        rows, columns = np.arange(padded.shape[0]) - 1, np.arange(padded.shape[1]) - 1
        axes.contour(columns, rows, padded, [0.5], colors=[colors[index - 1]], linewidths=1.8)


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
            fontsize=_FONT,
            path_effects=_EDGE,
        )


def _scale_bar(axes: Axes, spacing: float, *, lift: float) -> None:
    """A bar of 1, 2 or 5 times a power of ten mm at the lower right, lifted by a share of the height."""
    left, right = axes.get_xlim()
    longest = _LONGEST_BAR * (right - left) * spacing
    power = 10.0 ** math.floor(math.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    share = length / spacing / (right - left)
    style: dict[str, Any] = {"transform": axes.transAxes, "color": "white", "path_effects": _EDGE}
    axes.text(0.96, 0.07 + lift, f"{length:g} mm", ha="right", va="bottom", fontsize=_FONT - 2, **style)
    for color, width in (("black", 4.5), ("white", 2.5)):
        style |= {"color": color, "linewidth": width, "solid_capstyle": "butt", "path_effects": None}
        axes.plot([0.96 - share, 0.96], [0.05 + lift] * 2, **style)

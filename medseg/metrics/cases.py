"""Scores of one case per label: Dice, 95th-percentile Hausdorff distance and surface Dice in millimetres.

Distances are MONAI's, on the masks' common bounding box, and use the voxel spacing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from medseg.errors import ConfigError, nearest
from medseg.labels import BACKGROUND, IGNORE, LabelSpace
from medseg.metrics.surface_area import area_surface_scores
from medseg.metrics.surface_distances import surface_distances

warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)  # MONAI calls itself so

__all__ = [
    "CaseRows",
    "Summary",
    "SurfaceSettings",
    "background_cases",
    "background_note",
    "case_scores",
    "dice",
    "mean_dice",
    "pooled",
    "summarize",
]

CaseRows: TypeAlias = Mapping[str, Mapping[str, Mapping[str, float]]]  # case -> target -> score -> value

_SIZES = ("volume_ml", "reference_ml", "area", "reference_area")  # of 3D and 2D cases


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """2|P and R| / (|P| + |R|) of two boolean masks; NaN where the reference is empty."""
    if not reference.any():
        return math.nan
    return float(
        2.0 * np.count_nonzero(prediction & reference) / (np.count_nonzero(prediction) + np.count_nonzero(reference))
    )


def _border_scores(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], tolerance: float, *, pooled: bool = False
) -> tuple[float, float]:
    """HD95 in mm and surface Dice at ``tolerance`` mm; NaN and 0 where only one mask is empty, NaN and NaN where
    both are.
    """
    if not prediction.any() or not reference.any():
        return math.nan, math.nan if not (prediction.any() or reference.any()) else 0.0
    distances = surface_distances(prediction, reference, spacing)
    hd95 = distances.pooled_hausdorff() if pooled else distances.hausdorff()
    return hd95, distances.surface_dice(tolerance)


_SURFACE_SCORES: dict[str, Callable[..., tuple[float, float]]] = {
    "voxels": _border_scores,
    "pooled": partial(_border_scores, pooled=True),
    "area": partial(area_surface_scores, opening=False),
    "area_opened": area_surface_scores,
}


@dataclass(frozen=True)
class SurfaceSettings:
    """How the surfaces of two masks are compared.

    Attributes:
        tolerance: tolerance of the surface Dice in mm; ``None`` is the mean voxel size of each case.
        measure: surfaces are border ``voxels`` (HD95 of MONAI: the larger of both directions' percentiles), ``pooled``
            border voxels (of both directions together, as medpy), or have an ``area`` (DeepMind, BraTS 2023);
            ``area_opened`` removes specks of the prediction first, as the neural-operator papers do.

    Raises:
        ConfigError: an unknown measure.
    """

    tolerance: float | None = 1.0
    measure: str = "voxels"

    def __post_init__(self) -> None:
        if self.measure not in _SURFACE_SCORES:
            hint = nearest(self.measure, _SURFACE_SCORES)
            raise ConfigError(f"No measure '{self.measure}'.{hint} Known: {', '.join(_SURFACE_SCORES)}.")

    def scores(self, prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> tuple[float, float]:
        """HD95 in mm and surface Dice of two boolean masks ``(*spatial)``."""
        tolerance = float(np.mean(spacing)) if self.tolerance is None else self.tolerance
        return _SURFACE_SCORES[self.measure](prediction, reference, spacing, tolerance)


_SURFACE = SurfaceSettings()


def case_scores(
    prediction: np.ndarray,
    reference: np.ndarray,
    label_space: LabelSpace,
    spacing: Sequence[float],
    *,
    dataset: str | None = None,
    surface: SurfaceSettings | None = _SURFACE,
    include_background: bool = False,
) -> dict[str, dict[str, float]]:
    """Scores per evaluation target (label, or region where the label space has regions).

    Args:
        prediction: label indices ``(*spatial)``.
        reference: label indices of the same shape; ``IGNORE`` voxels count nowhere.
        label_space: what is evaluated; targets that the data set does not annotate are skipped.
        spacing: voxel size in mm.
        dataset: the case's data set, for partial labels.
        surface: how surfaces are compared; ``None`` skips HD95 and surface Dice, which take most of the time.
        include_background: also score the background, as some publications do.

    Returns:
        target -> ``dice`` (NaN: the reference lacks it), ``hd95`` (mm; NaN: undefined), ``surface_dice``,
        ``volume_ml`` and ``reference_ml``; 2D: ``area`` and ``reference_area`` in mm², pixels for 2D images.
    """
    valid = reference != IGNORE
    annotated = {0} | {i for i, known in enumerate(label_space.annotated(dataset), 1) if known}
    targets = ({BACKGROUND: (0,)} if include_background else {}) | label_space.targets
    sizes = _SIZES[:2] if len(spacing) == 3 else _SIZES[2:]
    voxel = float(np.prod(spacing)) / (1000.0 if len(spacing) == 3 else 1.0)
    scores = {}
    for name, members in targets.items():
        if not annotated.issuperset(members):
            continue
        predicted, true = np.isin(prediction, members) & valid, np.isin(reference, members)
        row = {"dice": dice(predicted, true)}
        if surface is not None:
            row["hd95"], row["surface_dice"] = surface.scores(predicted, true, spacing)
        row |= {size: np.count_nonzero(mask) * voxel for size, mask in zip(sizes, (predicted, true), strict=True)}
        scores[name] = row
    return scores


def mean_dice(cases: CaseRows) -> float:
    """Mean over labels of the mean over the cases whose reference holds the label; NaN without any."""
    per_label = [row["dice"].mean for row in summarize(cases).values() if not math.isnan(row["dice"].mean)]
    return float(np.mean(per_label)) if per_label else math.nan


def pooled(cases: CaseRows) -> dict[str, dict[str, float]]:
    """target -> ``dice`` and ``iou`` of all cases as one image, by their volumes or areas; NaN where both are empty.

    Small objects count little here, unlike in the mean over cases, and false positives in cases without the target
    count at all. Rows without sizes (``photo_scores``) are ignored.
    """
    table: dict[str, list[tuple[float, float]]] = {}
    for scores in cases.values():
        for target, row in scores.items():
            sizes = [row[size] for size in _SIZES if size in row]
            if not sizes:
                continue
            total = sum(sizes)
            twice_shared = 0.0 if math.isnan(row["dice"]) else row["dice"] * total
            table.setdefault(target, []).append((twice_shared, total))
    result = {}
    for target, sums in table.items():
        twice_shared, total = (math.fsum(column) for column in zip(*sums, strict=True))
        score = twice_shared / total if total else math.nan
        result[target] = {"dice": score, "iou": score / (2 - score)}
    return result


def background_cases(cases: CaseRows) -> list[str]:
    """Cases whose prediction is background throughout, by the sizes in their rows; rows without sizes do not tell."""
    found = []
    for case, rows in cases.items():
        predicted = [
            [row[size] for size in _SIZES[::2] if size in row] for name, row in rows.items() if name != BACKGROUND
        ]
        if predicted and all(sizes and not any(sizes) for sizes in predicted):
            found.append(case)
    return found


def background_note(cases: Sequence[str], total: int) -> str:
    """The sentence about ``total`` predictions of which those of ``cases`` are background; empty without any."""
    if not cases:
        return ""
    shown = ", ".join(cases[:10]) + (", …" if len(cases) > 10 else "")
    return (
        f"Entirely background: the predictions of {len(cases)} of {total} case{'' if total == 1 else 's'} ({shown}). "
        "Check that these images show what the network was trained on, and its scores on others."
    )


@dataclass(frozen=True)
class Summary:
    """One score of one target over cases.

    Attributes:
        mean: mean of the defined values; NaN without any.
        cases: number of cases in it.
        undefined: number of cases in which the score is undefined.
    """

    mean: float
    cases: int
    undefined: int | None = None


def summarize(cases: CaseRows) -> dict[str, dict[str, Summary]]:
    """target -> score -> its summary."""
    table: dict[str, dict[str, list[float]]] = {}
    for scores in cases.values():
        for target, row in scores.items():
            for score, value in row.items():
                table.setdefault(target, {}).setdefault(score, []).append(value)
    return {target: {score: _summary(values) for score, values in row.items()} for target, row in table.items()}


def _summary(values: Sequence[float]) -> Summary:
    defined = [v for v in values if math.isfinite(v)]
    mean = float(np.mean(defined)) if defined else math.nan
    return Summary(mean, len(defined), len(values) - len(defined))

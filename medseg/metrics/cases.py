"""Scores of one case per label or region, by the names of ``catalog`` and one rule for empty masks."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from scipy.ndimage import find_objects

from medseg.labels import BACKGROUND, IGNORE, LabelSpace
from medseg.metrics.catalog import DEFAULT_METRICS, LESION_SIZES, is_metric, metric, metric_names
from medseg.metrics.empty import EmptyRule, LesionFree, lesion_free, settle
from medseg.metrics.instances import InstanceMatch
from medseg.metrics.lesions import components
from medseg.metrics.masks import Masks

warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)  # MONAI calls itself so

__all__ = [
    "CaseRows",
    "Detection",
    "Summary",
    "background_cases",
    "background_note",
    "case_scores",
    "detection",
    "lesion_free_cases",
    "mean_dice",
    "pooled",
    "summarize",
]

CaseRows: TypeAlias = Mapping[str, Mapping[str, Mapping[str, float]]]  # case -> target -> score -> value

_SIZES = ("volume_ml", "reference_ml", "area", "reference_area")  # of 3D and 2D cases
_FALSE_PARTS = "false_parts"  # number of predicted parts where the reference is empty
_RULE = EmptyRule()


def case_scores(
    prediction: np.ndarray,
    reference: np.ndarray,
    label_space: LabelSpace,
    spacing: Sequence[float],
    *,
    dataset: str | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    empty: EmptyRule = _RULE,
    include_background: bool = False,
    instances: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, dict[str, float]]:
    """Scores per evaluation target (label, or region where the label space has regions).

    Args:
        prediction: label indices ``(*spatial)``.
        reference: label indices of the same shape; ``IGNORE`` voxels count nowhere.
        label_space: what is evaluated; targets that the data set does not annotate are skipped.
        spacing: voxel size in mm.
        dataset: the case's data set, for partial labels.
        metrics: names of ``catalog``; Dice is always among them.
        empty: what empty masks count.
        include_background: also score the background, as some publications do.
        instances: instance numbers of prediction and reference; ``None``: connected parts are instances.

    Returns:
        target -> score -> value (NaN: undefined), with ``volume_ml`` and ``reference_ml``; 2D: ``area`` and
        ``reference_area`` in mm², pixels for 2D images. Where the reference is empty, ``false_parts`` is the number of
        predicted parts.
    """
    valid = reference != IGNORE
    annotated = {0} | {i for i, known in enumerate(label_space.annotated(dataset), 1) if known}
    targets = ({BACKGROUND: (0,)} if include_background else {}) | label_space.targets
    names = metric_names(metrics)
    boxes = [find_objects(labels.astype(np.int32, copy=False)) for labels in (prediction, reference)]
    scores = {}
    for name, members in targets.items():
        if annotated.issuperset(members):
            box = _box(boxes, members, reference.shape)
            predicted, true = np.zeros((2, *reference.shape), dtype=bool)
            predicted[box] = _is_one(prediction[box], members) & valid[box]
            true[box] = _is_one(reference[box], members)
            scores[name] = _row(Masks(predicted, true, tuple(spacing), instances, box), names, empty)
    return scores


def _is_one(labels: np.ndarray, members: Sequence[int]) -> np.ndarray:
    """Voxels of any of the labels; for a few of them quicker than ``np.isin``."""
    return functools.reduce(np.logical_or, (labels == index for index in members))


def _box(
    found: Sequence[Sequence[tuple[slice, ...] | None]], members: Sequence[int], shape: Sequence[int]
) -> tuple[slice, ...]:
    """Slices around the labels' parts of several label maps and one voxel around; of the background, the whole image.

    Args:
        found: the slices of each label from 1 on, for each of the maps.
        members: label indices.
        shape: shape of the maps.
    """
    if 0 in members:
        return tuple(map(slice, shape))
    parts = [labels[index - 1] for labels in found for index in members if index <= len(labels)]
    spans = list(zip(*(part for part in parts if part is not None), strict=True)) or [(slice(0, 0),)] * len(shape)
    ends = [(min(one.start for one in span), max(one.stop for one in span)) for span in spans]
    return tuple(slice(max(first - 1, 0), last + 1) for first, last in ends)


def _row(masks: Masks, names: Sequence[str], empty: EmptyRule) -> dict[str, float]:
    of = {name: metric(name) for name in names}
    values = {name: np.array([one.value(masks)], dtype=float) for name, one in of.items()}
    ruled = {name: column for name, column in values.items() if of[name].kind}
    counts = masks.counts
    sizes = (counts.tp + counts.fp, counts.tp + counts.fn)
    empty_masks = [np.array([size == 0]) for size in sizes]
    kinds = {name: of[name].kind for name in ruled}
    settled = settle(ruled, kinds, empty_masks[1], empty_masks[0], np.array([masks.diagonal]), empty)
    row = {name: float(settled[name].values[0] if name in settled else values[name][0]) for name in names}
    own = _SIZES[:2] if len(masks.spacing) == 3 else _SIZES[2:]
    row |= {name: size * masks.voxel for name, size in zip(own, sizes, strict=True)}
    return row if sizes[1] else row | {_FALSE_PARTS: float(components(masks.prediction)[1])}


def mean_dice(cases: CaseRows) -> float:
    """Mean over labels of the mean over the cases whose reference holds the label; NaN without any."""
    per_label = [row["dice"].mean for row in summarize(cases).values() if not math.isnan(row["dice"].mean)]
    return float(np.mean(per_label)) if per_label else math.nan


def lesion_free_cases(cases: CaseRows) -> dict[str, LesionFree]:
    """target -> what was predicted in the cases whose reference lacks it, of volumes where there are any."""
    found = {}
    for target in dict.fromkeys(name for rows in cases.values() for name in rows):
        rows = {case: row[target] for case, row in cases.items() if _FALSE_PARTS in row.get(target, {})}
        if rows and all("volume_ml" in row for row in rows.values()):
            volumes, parts = (np.array([row[key] for row in rows.values()]) for key in ("volume_ml", _FALSE_PARTS))
            found[target] = lesion_free(np.ones(len(rows), dtype=bool), volumes, parts, np.array(list(rows)))
    return found


def detection(cases: CaseRows) -> dict[str, dict[str, Detection]]:
    """target -> size of the lesions -> how they were detected, of scores with the metrics of ``detection``."""
    found: dict[str, dict[str, Detection]] = {}
    for target in dict.fromkeys(name for rows in cases.values() for name in rows):
        rows = [rows[target] for rows in cases.values() if "reference_lesions_0" in rows.get(target, {})]
        for number, size in enumerate(LESION_SIZES if rows else ()):
            of, hits, false = (
                int(sum(row[f"{key}_lesions_{number}"] for row in rows)) for key in ("reference", "found", "false")
            )
            sensitivity = hits / of if of else math.nan
            found.setdefault(target, {})[size] = Detection(of, hits, sensitivity, false / len(rows))
    return found


def pooled(cases: CaseRows) -> dict[str, dict[str, float]]:
    """target -> ``dice`` and ``iou`` of all cases as one image, by their volumes or areas, and ``instance_f1`` and
    ``instance_ap`` of all their instances, where those are counted; NaN where both are empty.

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
        matches = [rows[target] for rows in cases.values() if "instance_tp" in rows.get(target, {})]
        if matches:
            tp, fp, fn = (int(sum(row[f"instance_{key}"] for row in matches)) for key in ("tp", "fp", "fn"))
            match = InstanceMatch(tp, fp, fn, math.nan)
            result[target] |= {"instance_f1": match.f1, "instance_ap": match.average_precision}
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
class Detection:
    """Lesions of one size over all scans.

    Attributes:
        lesions: number in the references.
        found: number of those that a prediction meets.
        sensitivity: share of them; NaN without any.
        false_per_scan: mean number of predicted ones of that size that meet no reference, per scan.
    """

    lesions: int
    found: int
    sensitivity: float
    false_per_scan: float


@dataclass(frozen=True)
class Summary:
    """One score of one target over cases.

    Attributes:
        mean: mean of the defined values; NaN without any.
        cases: number of cases in it.
        undefined: number of cases in which the score is undefined.
        median: median of the defined values.
        penalised: number of values that the rule for empty masks gave.
        without_penalties: mean of the others.
    """

    mean: float
    cases: int
    undefined: int | None = None
    median: float | None = None
    penalised: int | None = None
    without_penalties: float | None = None


def summarize(cases: CaseRows) -> dict[str, dict[str, Summary]]:
    """target -> score -> its summary."""
    table: dict[str, dict[str, list[tuple[float, bool]]]] = {}
    for scores in cases.values():
        for target, row in scores.items():
            one_empty = sum(row.get(size) == 0 for size in _SIZES) == 1
            for score, value in row.items():
                table.setdefault(target, {}).setdefault(score, []).append((value, one_empty and _penalised(score)))
    return {target: {score: _summary(values) for score, values in row.items()} for target, row in table.items()}


def _penalised(score: str) -> bool:
    """Whether empty masks give a score its worst value."""
    return is_metric(score) and metric(score).kind not in ("", "other")


def _summary(values: Sequence[tuple[float, bool]]) -> Summary:
    defined = [(value, ruled) for value, ruled in values if math.isfinite(value)]
    own = [value for value, ruled in defined if not ruled]
    every = [value for value, _ in defined]
    mean = float(np.mean(every)) if every else math.nan
    found = Summary(mean, len(every), len(values) - len(every), float(np.median(every)) if every else None)
    if len(own) == len(every):
        return found
    return replace(found, penalised=len(every) - len(own), without_penalties=float(np.mean(own)) if own else None)

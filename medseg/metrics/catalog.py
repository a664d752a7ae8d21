"""The scores by name. A name is the definition: ``hd95`` is directed, ``hd95_pooled`` another score.

``_at_`` and a number set the limit that a score has: ``surface_dice_at_2`` has a tolerance of 2 mm (2D images: pixels),
``surface_dice_at_voxel`` one of each case's mean voxel size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch

import numpy as np

from medseg.errors import ConfigError, nearest
from medseg.metrics.boundary_iou import boundary_iou, boundary_iou_mm
from medseg.metrics.cldice import centerline_dice
from medseg.metrics.instances import match_instances, mean_average_precision
from medseg.metrics.lesion_wise import BRATS_2023, lesion_wise
from medseg.metrics.lesions import SizeBin, detect_lesions, unmatched_volumes
from medseg.metrics.masks import Masks
from medseg.metrics.surface_area import area_surface_scores
from medseg.metrics.surface_distances import SurfaceDistances, surface_distances
from medseg.settings import takes

__all__ = [
    "DEFAULT_METRICS",
    "LESION_SIZES",
    "Metric",
    "MetricsSettings",
    "is_metric",
    "metric",
    "metric_names",
    "metrics",
    "surface_metrics",
]

DEFAULT_METRICS = ("dice", "hd95", "surface_dice")
LESION_SIZES = ("up to 0.1 ml", "0.1 to 1 ml", "over 1 ml")
_EDGES_ML = (0.0, 0.1, 1.0)  # their lower edges
_VOXEL = "voxel"
_LIMIT = re.compile(r"(.+)_at_(voxel|\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Metric:
    """A score of two masks.

    Attributes:
        kind: what empty masks mean for it (``medseg.metrics.empty.KINDS``); empty for counts, which are always defined.
        title: what tables call it.
        about: its definition.
        of: its value; takes the limit.
        limit: default of the limit, ``None`` for a score without one, NaN for the mean voxel size.
        unit: unit of its values: ``mm``, ``ml``, ``%``, or none.
        dims: numbers of spatial axes that it is defined for.
        name: name with its limit.
    """

    kind: str
    title: str
    about: str
    of: Callable[[Masks, float], float]
    limit: float | None = None
    unit: str = ""
    dims: tuple[int, ...] = (2, 3)
    name: str = ""

    def value(self, masks: Masks) -> float:
        """The score, by its formula: NaN or infinite where that is undefined.

        Raises:
            ConfigError: it is not defined for 2D images, or for volumes.
        """
        dims = len(masks.spacing)
        if dims not in self.dims:
            other = " Use boundary_iou_at_2, a band of 2 mm." if self.name == "boundary_iou" else " Leave it out."
            raise ConfigError(f"{self.name} is a score of {self.dims[0]}D images, these have {dims} axes.{other}")
        limit = math.nan if self.limit is None else self.limit
        if self.limit is not None and math.isnan(limit):
            limit = float(np.mean(masks.spacing))
        return self.of(masks, limit)

    @property
    def lower_is_better(self) -> bool:
        return self.unit == "mm" or self.title.startswith(("false", "missed"))

    @property
    def limits(self) -> tuple[float, float]:
        """Range of the values."""
        share = self.kind in ("overlap", "sensitivity", "precision") or self.title.endswith(("specificity", "Dice"))
        low = -math.inf if "difference" in self.title else 0.0
        return low, 1.0 if share or self.title.startswith("lesion-wise Dice") else math.inf

    def heading(self, unit: str = "mm") -> str:
        """The title with limit and unit; ``unit`` is that of lengths."""
        words = self.title
        if self.limit is not None and self.name.startswith("instance"):
            words += f" at IoU {self.limit:g}"
        elif self.limit is not None:
            words += " at the mean voxel size" if math.isnan(self.limit) else f" at {self.limit:g} {unit}"
        own = {"mm": unit, "ml": "ml" if unit == "mm" else "pixels"}.get(self.unit, self.unit)
        return f"{words}, {own}" if own else words


def _distances(masks: Masks) -> SurfaceDistances:
    return masks.once_in_box(surface_distances, masks.spacing)


def _by_area(masks: Masks, tolerance: float, *, opening: bool) -> tuple[float, float]:
    return masks.once(area_surface_scores, masks.spacing, tolerance, opening=opening)


def _surface_dice_by_area(masks: Masks, tolerance: float) -> float:
    return _by_area(masks, tolerance, opening=True)[1]  # the opening concerns HD95 alone


def _hd95_by_area(masks: Masks, *, opening: bool) -> float:
    return _by_area(masks, float(np.mean(masks.spacing)), opening=opening)[0]


def _bins(masks: Masks) -> tuple[SizeBin, ...]:
    return masks.once(detect_lesions, masks.spacing, edges_ml=_EDGES_ML)


def _lesion_sensitivity(masks: Masks, _: float) -> float:
    number = sum(one.reference for one in _bins(masks))
    return sum(one.found for one in _bins(masks)) / number if number else math.nan


def _instance(masks: Masks, threshold: float, *, strict: bool = False) -> tuple[float, float, float]:
    """F1, TP / (TP + FP + FN) and panoptic quality."""
    if threshold == 0.5 and not strict:
        found = masks.matches[0]
    else:
        (found,) = match_instances(*masks.instances, (threshold,), strict=strict)
    return found.f1, found.average_precision, found.panoptic_quality


_METRICS = {
    "dice": Metric("overlap", "Dice", "2 TP / (2 TP + FP + FN)", lambda m, _: m.counts.dice),
    "iou": Metric("overlap", "IoU", "TP / (TP + FP + FN)", lambda m, _: m.counts.iou),
    "hd95": Metric(
        "distance", "HD95", "larger of both directions' 95th percentiles over border voxels (MONAI)",
        lambda m, _: _distances(m).hausdorff(), unit="mm",
    ),
    "hd95_pooled": Metric(
        "distance", "HD95 (pooled)", "95th percentile of both directions' distances together (medpy, nnU-Net v1)",
        lambda m, _: _distances(m).pooled_hausdorff(), unit="mm",
    ),
    "hd95_area": Metric(
        "distance", "HD95 (area)", "larger of both directions' 95th percentiles by surface area (DeepMind, BraTS 2023)",
        lambda m, _: _hd95_by_area(m, opening=False), unit="mm",
    ),
    "hd95_area_opened": Metric(
        "distance", "HD95 (area, opened)", "hd95_area after an opening of the prediction (neural-operator papers)",
        lambda m, _: _hd95_by_area(m, opening=True), unit="mm",
    ),
    "surface_dice": Metric(
        "overlap", "surface Dice", "share of border voxels within the tolerance of the other mask's (MONAI)",
        lambda m, mm: _distances(m).surface_dice(mm), limit=1.0,
    ),
    "surface_dice_area": Metric(
        "overlap", "surface Dice (area)", "share of surface area within the tolerance (DeepMind, KiTS)",
        _surface_dice_by_area, limit=1.0,
    ),
    "assd": Metric(
        "distance", "ASSD", "mean of both directions' distances together (MONAI)", lambda m, _: _distances(m).assd,
        unit="mm",
    ),
    "masd": Metric(
        "distance", "MASD", "mean of the two directed mean distances (Metrics Reloaded)",
        lambda m, _: _distances(m).masd, unit="mm",
    ),
    "sensitivity": Metric("sensitivity", "sensitivity", "TP / (TP + FN)", lambda m, _: m.counts.sensitivity),
    "precision": Metric("precision", "precision", "TP / (TP + FP)", lambda m, _: m.counts.precision),
    "specificity": Metric("other", "specificity", "TN / (TN + FP)", lambda m, _: m.counts.specificity),
    "volume_difference": Metric(
        "other", "volume difference", "prediction minus reference in ml (2D: the area in mm² or pixels); with its bias "
        "and limits of agreement in the report", lambda m, _: m.counts.difference * m.voxel, unit="ml",
    ),
    "relative_volume_difference": Metric(
        "other", "volume difference", "prediction minus reference, of the reference",
        lambda m, _: 100 * m.counts.relative_difference, unit="%",
    ),
    "boundary_iou": Metric(
        "overlap", "boundary IoU", "IoU of inner bands of 2 % of the diagonal (Cheng et al. 2021), of 2D images",
        lambda m, _: m.once(boundary_iou), dims=(2,),
    ),
    "boundary_iou_band": Metric(
        "overlap", "boundary IoU (band)", "IoU of inner bands of a width in mm; not the published measure",
        lambda m, mm: m.once(boundary_iou_mm, m.spacing, width=mm), limit=2.0,
    ),
    "cldice": Metric(
        "overlap", "clDice", "harmonic mean of the shares of each skeleton inside the other mask (Shit et al. 2021)",
        lambda m, _: m.once(centerline_dice).cldice,
    ),
    "lesion_sensitivity": Metric(
        "sensitivity", "lesion sensitivity", "share of a scan's lesions that share a voxel with the prediction",
        _lesion_sensitivity, dims=(3,),
    ),
    "false_lesions": Metric(
        "", "false lesions", "number of a scan's predicted parts that share no voxel with the reference",
        lambda m, _: sum(one.false for one in _bins(m)), dims=(3,),
    ),
    "false_positive_volume": Metric(
        "", "false-positive volume", "volume of predicted parts without any overlap (autoPET)",
        lambda m, _: m.once(unmatched_volumes, m.spacing)[0], unit="ml", dims=(3,),
    ),
    "false_negative_volume": Metric(
        "", "false-negative volume", "volume of reference parts without any overlap (autoPET)",
        lambda m, _: m.once(unmatched_volumes, m.spacing)[1], unit="ml", dims=(3,),
    ),
    "instance_f1": Metric(
        "overlap", "instance F1", "2 TP / (2 TP + FP + FN) of instances matched at IoU >= 0.5 or the limit (StarDist)",
        lambda m, t: _instance(m, t)[0], limit=0.5,
    ),
    "instance_ap": Metric(
        "overlap", "instance TP/(TP+FP+FN)", "TP / (TP + FP + FN) of instances, as instance_f1; not COCO's AP",
        lambda m, t: _instance(m, t)[1], limit=0.5,
    ),
    "instance_mean_ap": Metric(
        "overlap", "mean instance TP/(TP+FP+FN)", "mean of instance_ap over IoU 0.5, 0.55, … 0.95 (DSB 2018)",
        lambda m, _: mean_average_precision(m.matches),
    ),
    "instance_pq": Metric(
        "overlap", "panoptic quality", "mean IoU of the pairs times F1, at IoU > 0.5 (Kirillov et al. 2019)",
        lambda m, _: _instance(m, 0.5, strict=True)[2],
    ),
    "instance_tp": Metric("", "matched instances", "pairs at IoU >= 0.5", lambda m, _: m.matches[0].tp),
    "instance_fp": Metric("", "false instances", "predicted ones without a pair", lambda m, _: m.matches[0].fp),
    "instance_fn": Metric("", "missed instances", "reference ones without a pair", lambda m, _: m.matches[0].fn),
}  # fmt: skip


_MEASURES = {  # HD95 and surface Dice by what surfaces are
    "voxels": ("hd95", "surface_dice"),
    "pooled": ("hd95_pooled", "surface_dice"),
    "area": ("hd95_area", "surface_dice_area"),
    "area_opened": ("hd95_area_opened", "surface_dice_area"),
}


def _of_lesions(challenge: str, score: str) -> Callable[[Masks, float], float]:
    """A field of ``LesionWise``."""
    return lambda m, _: float(getattr(m.once(lesion_wise, m.spacing, BRATS_2023[challenge]), score))


def _of_bin(number: int, count: str) -> Callable[[Masks, float], float]:
    """A field of ``SizeBin``."""
    return lambda m, _: float(getattr(_bins(m)[number], count))


for _suffix, _challenge, _words in (("", "GLI", "GLI, SSA, PED"), ("_men", "MEN", "MEN"), ("_met", "MET", "MET")):
    _said = f"official rule of BraTS 2023, {_words}: mean over lesions and false positives"
    _METRICS[f"lesion_dice_brats2023{_suffix}"] = Metric(
        "other", f"lesion-wise Dice (BraTS 2023 {_words})", _said, _of_lesions(_challenge, "dice"), dims=(3,)
    )
    _METRICS[f"lesion_hd95_brats2023{_suffix}"] = Metric(
        "other", f"lesion-wise HD95 (BraTS 2023 {_words})", f"{_said}, which count 374 mm",
        _of_lesions(_challenge, "hd95"), unit="mm", dims=(3,),
    )  # fmt: skip
for _number, _size in enumerate(LESION_SIZES):
    for _key, _words in (("reference", "lesions"), ("found", "found lesions"), ("false", "false lesions")):
        _METRICS[f"{_key}_lesions_{_number}"] = Metric(
            "", f"{_words} {_size}", f"number of a scan's {_words}, {_size}", _of_bin(_number, _key), dims=(3,)
        )
_GROUPS = {
    "detection": ("lesion_sensitivity", "false_lesions", *(name for name in _METRICS if "_lesions_" in name)),
    "instances": tuple(name for name in _METRICS if name.startswith("instance_")),
}


def metric(name: str) -> Metric:
    """The score of a name.

    Raises:
        ConfigError: there is none, or it has no limit.
    """
    found = _LIMIT.fullmatch(name)
    family = found[1] if found else name
    if family not in _METRICS:
        raise ConfigError(
            f"No metric '{name}'.{nearest(family, [*_METRICS, *_GROUPS])} `medseg metrics` lists them all."
        )
    known = _METRICS[family]
    if found is None:
        return replace(known, name=name)
    limit = math.nan if found[2] == _VOXEL else float(found[2])
    if known.limit is None:
        raise ConfigError(f"Metric '{name}': {family} takes no limit; use {family}.")
    return replace(known, name=name, limit=limit)


def is_metric(name: str) -> bool:
    """Whether a column of a table is a score of the catalog."""
    found = _LIMIT.fullmatch(name)
    return (found[1] if found else name) in _METRICS


def surface_metrics(tolerance: float | None, measure: str = "voxels") -> tuple[str, str]:
    """The names of HD95 and surface Dice.

    Args:
        tolerance: tolerance of the surface Dice in mm; ``None`` is the mean voxel size of each case.
        measure: surfaces are border ``voxels`` (HD95 of MONAI: the larger of both directions' percentiles), ``pooled``
            border voxels (of both directions together), or have an ``area`` (DeepMind, BraTS 2023); ``area_opened``
            removes specks of the prediction first, as the neural-operator papers do.

    Raises:
        ConfigError: an unknown measure.
    """
    if measure not in _MEASURES:
        raise ConfigError(f"No measure '{measure}'.{nearest(measure, _MEASURES)} Known: {', '.join(_MEASURES)}.")
    limit = "" if tolerance == 1 else f"_at_{_VOXEL if tolerance is None else f'{tolerance:g}'}"
    distance, surface = _MEASURES[measure]
    return distance, surface + limit


def metric_names(given: Iterable[str]) -> tuple[str, ...]:
    """The scores of a choice, each once, in its order behind ``dice``, which every table has; groups are spelled out.

    Raises:
        ConfigError: as ``metric``.
    """
    names = dict.fromkeys(["dice", *(name for one in given for name in _GROUPS.get(one, (one,)))])
    for name in names:
        metric(name)
    return tuple(names)


@dataclass(frozen=True)
class MetricsSettings:
    """What is listed.

    Attributes:
        pattern: shell pattern of their names, such as 'hd95*'.
    """

    pattern: str = field(default="*", metadata={"positional": "PATTERN"})


@takes(MetricsSettings)
def metrics(settings: MetricsSettings) -> Sequence[str]:
    """List the scores that validate and evaluate take as --metrics, with their definitions."""
    groups = {name: f"the {len(members)} scores {members[0]} … {members[-1]}" for name, members in _GROUPS.items()}
    about = {name: one.about + ("; takes _at_" if one.limit else "") for name, one in _METRICS.items()} | groups
    width = max(map(len, about))
    return [f"{name:<{width}}  {text}" for name, text in about.items() if fnmatch(name, settings.pattern)]

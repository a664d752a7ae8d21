"""Metrics against the evaluation set: the reference programs' numbers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from full_set import FULL_SET

from medseg.metrics import area_surface_scores
from medseg.metrics.boundary_iou import boundary_iou
from medseg.metrics.calibration import (
    brier_score,
    class_reliability,
    negative_log_likelihood,
    top_label_reliability,
)
from medseg.metrics.cldice import centerline_dice
from medseg.metrics.instances import DSB_THRESHOLDS, match_instances, mean_average_precision
from medseg.metrics.lesion_wise import BRATS_2023, lesion_wise
from medseg.metrics.lesions import detect_lesions, unmatched_volumes
from medseg.metrics.overlap import overlap
from medseg.metrics.surface_distances import surface_distances

FOLDER = FULL_SET / "evaluation"
REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
pytestmark = pytest.mark.usefixtures("full_set")


def cases(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text())["cases"] if path.is_file() else {}


def pair(file: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    arrays = np.load(FOLDER / f"{file}.npz")
    return arrays[f"{name}_prediction"], arrays[f"{name}_reference"]


def number(value: float | None) -> float:
    return float("nan") if value is None else value


@pytest.mark.parametrize("name", cases("surface"))
def test_surface(name: str) -> None:
    prediction, reference = pair("surface", name)
    case = cases("surface")[name]
    spacing, expected = case["spacing"], case["expected"]
    counts = overlap(prediction, reference)
    voxel = float(np.prod(spacing))
    found: dict[str, float] = {key: getattr(counts, key) for key in ("tp", "fp", "fn", "tn", "dice", "iou")}
    found |= {key: getattr(counts, key) for key in ("sensitivity", "precision", "specificity")}
    found |= {
        "volume_difference_mm": counts.difference * voxel,
        "relative_volume_difference": counts.relative_difference,
    }
    if "hd" in expected:
        distances = surface_distances(prediction, reference, spacing)
        area = [area_surface_scores(prediction, reference, spacing, mm, opening=False) for mm in (1, 2)]
        found |= {
            "hd": distances.hausdorff(100),
            "hd95_directed": distances.hausdorff(),
            "hd95_pooled": distances.pooled_hausdorff(),
            "assd_pooled": distances.assd,
            "masd": distances.masd,
            "hd95_area": area[0][0],
        }
        for mm in (1, 2):
            found[f"surface_dice_voxels_{mm}mm"] = distances.surface_dice(mm)
            found[f"surface_dice_area_{mm}mm"] = area[mm - 1][1]
    assert found.keys() >= expected.keys() - {"hd_area", "assd_area_directed"}  # offered by no score
    assert found == pytest.approx({key: number(expected[key]) for key in found}, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("name", cases("brats2023"))
def test_brats(name: str, region: str) -> None:
    case = cases("brats2023")[name]
    prediction, reference = (np.isin(mask, REGIONS[region]) for mask in pair("brats2023", name))
    found = lesion_wise(prediction, reference, case["spacing"], BRATS_2023[case["challenge"].removeprefix("BraTS-")])
    expected = case["expected"][region]
    assert (found.tp, found.fp, found.fn) == tuple(expected[f"Num_{key}"] for key in ("TP", "FP", "FN"))
    assert found.dice == pytest.approx(expected["LesionWise_Score_Dice"], abs=1e-6)
    assert found.hd95 == pytest.approx(expected["LesionWise_Score_HD95"], abs=1e-6)
    counts = overlap(prediction, reference)
    if reference.any() and prediction.any():
        hd95 = area_surface_scores(prediction, reference, case["spacing"], opening=False)[0]
        assert (counts.dice, hd95) == pytest.approx((expected["Legacy_Dice"], expected["Legacy_HD95"]), abs=1e-6)
        assert (counts.sensitivity, counts.specificity) == pytest.approx(
            (expected["Sensitivity"], expected["Specificity"]), abs=1e-6
        )


@pytest.mark.parametrize("name", cases("instances"))
def test_instances(name: str) -> None:
    case = cases("instances")[name]
    matches = match_instances(*pair("instances", name), DSB_THRESHOLDS)
    empty = name == "both_empty"  # StarDist gives 0, here undefined
    for match, expected in zip(matches, case["stardist"].values(), strict=True):
        assert (match.tp, match.fp, match.fn) == tuple(expected[key] for key in ("tp", "fp", "fn"))
        scores = {
            "precision": match.precision,
            "recall": match.sensitivity,
            "f1": match.f1,
            "accuracy": match.average_precision,
            "mean_matched_score": match.segmentation_quality,
            "panoptic_quality": match.panoptic_quality,
        }
        assert scores == pytest.approx({k: np.nan if empty else expected[k] for k in scores}, abs=1e-6, nan_ok=True)
    expected = np.nan if empty else case["average_precision"]
    assert mean_average_precision(matches) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    if "panoptica_at_0.5" in case:
        expected, match = case["panoptica_at_0.5"], matches[0]
        found = (match.f1, match.segmentation_quality, match.panoptic_quality)
        assert found == pytest.approx((expected["rq"], expected["sq"], expected["pq"]), abs=1e-6)
    if name == "iou_exactly_half":
        strict = match_instances(*pair("instances", name), strict=True)[0]
        assert (matches[0].panoptic_quality, strict.panoptic_quality) == (0.75, 0.5)


@pytest.mark.parametrize("name", cases("detection"))
def test_detection(name: str) -> None:
    case = cases("detection")[name]
    masks = pair("detection", name)
    for found, expected in zip(detect_lesions(*masks, case["spacing"]), case["detection"], strict=True):
        assert {key: getattr(found, key) for key in expected} == expected
    volumes, expected = unmatched_volumes(*masks, case["spacing"]), case["autopet"]
    assert volumes[0] == pytest.approx(expected["false_positive_ml"], abs=1e-9)
    if expected["false_negative_ml"] is not None:
        assert volumes[1] == pytest.approx(expected["false_negative_ml"], abs=1e-9)


@pytest.mark.parametrize("name", cases("cldice"))
def test_cldice(name: str) -> None:
    expected = cases("cldice")[name]
    found = centerline_dice(*pair("cldice", name))
    if "cldice" in expected:
        assert (found.precision, found.sensitivity) == pytest.approx(
            (expected["topology_precision"], expected["topology_sensitivity"]), abs=0.01
        )
        assert found.cldice == pytest.approx(expected["cldice"] or 0.0, abs=0.01)
    else:
        assert np.isnan(found.cldice)


@pytest.mark.parametrize("name", cases("boundary_iou"))
def test_boundary_iou(name: str) -> None:
    expected = number(cases("boundary_iou")[name]["boundary_iou"])
    assert boundary_iou(*pair("boundary_iou", name)) == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", cases("calibration"))
def test_calibration(name: str) -> None:
    expected, arrays = cases("calibration")[name], np.load(FOLDER / "calibration.npz")
    given = arrays[f"{name}_probabilities"], arrays[f"{name}_reference"]
    per_class = [curve.ece for curve in class_reliability(*given)]
    foreground, brier = top_label_reliability(*given, foreground=True), brier_score(*given)
    assert foreground.counts.sum() == expected["foreground_voxels"]
    found = {
        "ece_top_label_15": top_label_reliability(*given).ece,
        "ece_top_label_15_foreground": foreground.ece,
        "ece_class_10_mean": np.mean(per_class),
        "ece_class_10_mean_without_background": np.mean(per_class[1:]),
        "brier": brier.sum(),
        "nll": negative_log_likelihood(*given),
    }
    assert found == pytest.approx({key: expected[key] for key in found}, abs=1e-5)
    assert per_class == pytest.approx(expected["ece_class_10"], abs=1e-5)
    assert brier == pytest.approx(expected["brier_class"], abs=1e-5)

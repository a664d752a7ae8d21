"""Scores of a case against values by hand and against MONAI on whole volumes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

from medseg.labels import IGNORE, LabelSpace
from medseg.metrics import case_scores, mean_dice, pooled, summarize
from medseg.metrics import cases as cases_module
from medseg.metrics.catalog import surface_metrics
from medseg.metrics.empty import EmptyRule
from medseg.metrics.overlap import overlap

TWO = LabelSpace.from_table({"labels": {"background": 0, "a": 1, "b": 2}})
SPACING = (1.0, 2.0, 5.0)


def voxels(*places: tuple[int, int, int], label: int = 1) -> np.ndarray:
    volume = np.zeros((8, 8, 8), dtype=np.int16)
    for place in places:
        volume[place] = label
    return volume


def test_dice_by_hand() -> None:
    first = voxels((1, 1, 1), (2, 1, 1), (3, 1, 1)) > 0
    second = voxels((2, 1, 1), (3, 1, 1), (4, 1, 1), (5, 1, 1)) > 0
    assert overlap(first, second).dice == pytest.approx(4 / 7)
    assert overlap(first, ~first).dice == 0
    assert overlap(first, first).dice == 1
    assert math.isnan(overlap(~(first | True), np.zeros_like(first)).dice)


@pytest.mark.parametrize(("axis", "distance"), [(0, 3.0), (1, 6.0), (2, 15.0)])
def test_distances_are_in_millimetres(axis: int, distance: float) -> None:
    """One voxel each, three voxels apart along one axis of 1, 2 or 5 mm."""
    place = [2, 2, 2]
    place[axis] += 3
    prediction, reference = voxels((2, 2, 2)), voxels(tuple(place))
    for tolerance, surface in ((distance - 0.1, 0.0), (distance + 0.1, 1.0)):
        row = case_scores(prediction, reference, TWO, SPACING, metrics=surface_metrics(tolerance))["a"]
        assert row["hd95"] == pytest.approx(distance)
        assert row[f"surface_dice_at_{tolerance:g}"] == surface
    assert row["volume_ml"] == pytest.approx(0.01) and row["reference_ml"] == pytest.approx(0.01)


@pytest.mark.parametrize("corner", [0, 9])
@pytest.mark.parametrize("dims", [2, 3])
def test_bounding_box_changes_nothing(corner: int, dims: int) -> None:
    """Random blobs, also at the volume's border, against MONAI on the whole volume."""
    rng = np.random.default_rng(corner + dims)
    prediction = np.zeros((20,) * dims, dtype=np.int16)
    reference = prediction.copy()
    box = (slice(corner, corner + 8),) * dims
    for volume in (prediction, reference):
        volume[box] = rng.integers(0, 3, size=(8,) * dims)
    spacing = SPACING[:dims]
    scores = case_scores(prediction, reference, TWO, spacing, metrics=surface_metrics(1.5))
    for index, name in enumerate(TWO.labels, 1):
        pair = {
            "y_pred": torch.from_numpy(prediction == index)[None, None].float(),
            "y": torch.from_numpy(reference == index)[None, None].float(),
        }
        hd95 = compute_hausdorff_distance(**pair, include_background=True, percentile=95, spacing=spacing)
        surface = compute_surface_dice(**pair, class_thresholds=[1.5], include_background=True, spacing=spacing)
        assert scores[name]["dice"] == pytest.approx(float(compute_dice(**pair)), abs=1e-6)
        assert scores[name]["hd95"] == pytest.approx(float(hd95), abs=1e-6)
        assert scores[name]["surface_dice_at_1.5"] == pytest.approx(float(surface), abs=1e-6)


SCORES = ("dice", "hd95", "surface_dice", "sensitivity", "precision")
DIAGONAL = math.hypot(8, 16, 40)


@pytest.mark.parametrize(
    ("rule", "missed", "invented", "neither"),
    [
        ("penalty", (0, DIAGONAL, 0, 0, math.nan), (0, DIAGONAL, 0, math.nan, 0), (math.nan,) * 5),
        ("penalty:374", (0, 374, 0, 0, math.nan), (0, 374, 0, math.nan, 0), (math.nan,) * 5),
        ("reference_only", (0, DIAGONAL, 0, 0, math.nan), (math.nan,) * 5, (math.nan,) * 5),
        ("no_penalty", (0, math.nan, 0, 0, math.nan), (math.nan,) * 5, (math.nan,) * 5),
        ("challenge", (0, 374, 0, 0, 0), (0, 374, 0, 0, 0), (1, 0, 1, 1, 1)),
    ],
)
def test_one_rule_for_empty_masks_in_all_columns(
    rule: str, missed: tuple[float, ...], invented: tuple[float, ...], neither: tuple[float, ...]
) -> None:
    nothing, something = voxels(), voxels((2, 2, 2), (5, 5, 5))
    pairs = {(0, 1): missed, (1, 0): invented, (0, 0): neither}
    for (prediction, reference), expected in pairs.items():
        of = (nothing, something)
        row = case_scores(of[prediction], of[reference], TWO, SPACING, metrics=SCORES, empty=EmptyRule.of(rule))["a"]
        assert [row[score] for score in SCORES] == pytest.approx(expected, nan_ok=True)
        assert row.get("false_parts") == (None if reference else 2.0 * prediction)


def test_summaries_count_what_the_rule_gave() -> None:
    nothing, something = voxels(), voxels((2, 2, 2))
    pairs = {"hit": (something, something), "missed": (nothing, something), "kept": (nothing, nothing)}
    cases = {name: case_scores(*pair, TWO, SPACING) for name, pair in pairs.items()}
    found = summarize(cases)["a"]
    assert found["hd95"].mean == pytest.approx(DIAGONAL / 2) and found["hd95"].without_penalties == 0
    assert (found["hd95"].cases, found["hd95"].undefined, found["hd95"].penalised) == (2, 1, 1)
    assert found["dice"].median == 0.5 and found["volume_ml"].penalised is None


def test_ignored_voxels_count_nowhere() -> None:
    reference = voxels((2, 2, 2), (3, 2, 2))
    reference[5:] = IGNORE
    prediction = voxels((2, 2, 2), (3, 2, 2), (6, 6, 6))
    row = case_scores(prediction, reference, TWO, SPACING)["a"]
    assert row["dice"] == 1 and row["hd95"] == 0 and row["volume_ml"] == pytest.approx(0.02)


def test_regions_are_unions() -> None:
    space = LabelSpace.from_table(
        {"labels": {"background": 0, "a": 1, "b": 2}, "regions": {"whole": ["a", "b"], "core": ["b"]}}
    )
    reference = voxels((2, 2, 2), (3, 2, 2))
    reference[4, 2, 2] = 2
    swapped = np.where(reference > 0, 3 - reference, 0).astype(np.int16)
    scores = case_scores(swapped, reference, space, SPACING, metrics=())
    assert list(scores) == ["whole", "core"]
    assert scores["whole"]["dice"] == 1 and scores["core"]["dice"] == 0


def test_labels_that_a_data_set_does_not_annotate_are_left_out() -> None:
    space = LabelSpace.from_table(
        {
            "labels": {"background": 0, "a": 1, "b": 2},
            "datasets": {"part": {"labels": {"background": 0, "b": 5}}},
        }
    )
    reference = voxels((2, 2, 2), label=2)
    assert list(case_scores(reference, reference, space, SPACING, metrics=())) == ["a", "b"]
    assert list(case_scores(reference, reference, space, SPACING, metrics=(), dataset="part")) == ["b"]


def test_mean_is_over_labels_of_the_mean_over_cases() -> None:
    def rows(a: float, b: float) -> dict[str, dict[str, float]]:
        return {"a": {"dice": a}, "b": {"dice": b}}

    cases = {"1": rows(1.0, math.nan), "2": rows(0.0, math.nan), "3": rows(0.5, 0.9)}
    assert mean_dice(cases) == pytest.approx((0.5 + 0.9) / 2)
    table = summarize(cases)["b"]["dice"]
    assert (table.mean, table.cases, table.undefined) == (0.9, 1, 2)
    assert math.isnan(mean_dice({"1": {"a": {"dice": math.nan}}}))
    assert math.isnan(mean_dice({}))


def test_pooled_scores_count_all_cases_as_one() -> None:
    one = LabelSpace.from_table({"labels": {"background": 0, "a": 1}})
    rng = np.random.default_rng(0)
    keep = np.array([(1, 1), (1, 0), (0, 1), (0, 0)])[:, :, None, None]  # also empty predictions and references
    pairs = rng.integers(0, 2, (4, 2, 9, 7)) * keep
    cases = {
        str(i): case_scores(prediction, reference, one, (1.0, 1.0), metrics=())
        for i, (prediction, reference) in enumerate(pairs)
    }
    together, reference = (np.concatenate([pair[side] for pair in pairs]).astype(bool) for side in (0, 1))
    shared, either = (together & reference).sum(), (together | reference).sum()
    scores = pooled(cases)["a"]
    assert scores["dice"] == pytest.approx(2 * shared / (shared + either))
    assert scores["iou"] == pytest.approx(shared / either)
    assert all(math.isnan(value) for value in pooled({"0": cases["3"]})["a"].values())


def test_a_labels_own_box_gives_the_scores_of_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a label at the border, one that is missing on one side or both, and voxels that count nowhere."""
    space = LabelSpace.from_table({"labels": {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4}})
    prediction, reference = np.zeros((2, 20, 18, 16), dtype=np.int16)
    prediction[0:6, 3:9, 10:16], reference[0:7, 4:9, 9:16] = 1, 1
    prediction[10:14, 2:5, 2:5], reference[15:18, 10:14, 3:6] = 2, 3
    reference[4:6, 3:9, 12:14] = IGNORE

    def scores() -> dict[str, dict[str, float]]:
        metrics = ("hd95", "surface_dice", "specificity", "cldice")
        return case_scores(prediction, reference, space, (1.0, 1.5, 2.0), metrics=metrics, include_background=True)

    in_boxes = scores()
    monkeypatch.setattr(cases_module, "_box", lambda found, members, shape: tuple(map(slice, shape)))
    assert repr(scores()) == repr(in_boxes)

"""Metrics against their definitions, written out by loops over all pairs, and against MONAI where it has the same."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from monai.metrics import CalibrationErrorMetric, compute_average_surface_distance, compute_surface_dice
from monai.metrics.panoptic_quality import compute_panoptic_quality

from medseg.errors import ConfigError, DataError
from medseg.labels import IGNORE
from medseg.metrics import area_surface_scores
from medseg.metrics.boundary_iou import boundary_iou, boundary_iou_mm
from medseg.metrics.calibration import (
    brier_score,
    class_reliability,
    negative_log_likelihood,
    pooled_reliability,
    top_label_reliability,
)
from medseg.metrics.cldice import centerline_dice
from medseg.metrics.instances import match_instances, pooled_match
from medseg.metrics.lesion_wise import BRATS_2023, WORST_MM, lesion_wise
from medseg.metrics.lesions import components, detect_lesions, unmatched_volumes
from medseg.metrics.overlap import Overlap, overlap
from medseg.metrics.surface_distances import surface_distances
from medseg.metrics.temperature import fit_temperature, scale_probabilities

SPACING = (1.0, 2.0, 1.5)
EMPTY = np.zeros((12, 12, 12), dtype=bool)


def blobs(seed: int, size: int = 12) -> np.ndarray:
    """A few random boxes, some at the border."""
    generator, mask = np.random.default_rng(seed), np.zeros((size,) * 3, dtype=bool)
    for _ in range(3):
        start = generator.integers(0, size - 3, 3)
        mask[tuple(slice(s, s + int(e)) for s, e in zip(start, generator.integers(2, 6, 3), strict=True))] = True
    return mask


def cube(start: tuple[int, int, int], length: int, size: int = 24) -> np.ndarray:
    mask = np.zeros((size,) * 3, dtype=bool)
    mask[tuple(slice(s, s + length) for s in start)] = True
    return mask


def border(mask: np.ndarray) -> list[tuple[int, ...]]:
    padded, found = np.pad(mask, 1), []
    for place in np.argwhere(mask):
        steps = [step * sign for step in np.eye(mask.ndim, dtype=int) for sign in (-1, 1)]
        if not all(padded[tuple(place + 1 + step)] for step in steps):
            found.append(tuple(place))
    return found


def directed(first: np.ndarray, second: np.ndarray) -> list[float]:
    others = [np.multiply(place, SPACING) for place in border(second)]
    return [min(math.dist(np.multiply(place, SPACING), other) for other in others) for place in border(first)]


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_border_distances_by_all_pairs(seed: int) -> None:
    prediction, reference = blobs(seed), blobs(seed + 1)
    found = surface_distances(prediction, reference, SPACING)
    forth, back = directed(prediction, reference), directed(reference, prediction)
    assert found.hausdorff() == pytest.approx(max(np.percentile(forth, 95), np.percentile(back, 95)), abs=1e-4)
    assert found.hausdorff(100) == pytest.approx(max(forth + back), abs=1e-5)
    assert found.pooled_hausdorff() == pytest.approx(np.percentile(forth + back, 95), abs=1e-4)
    assert found.assd == pytest.approx(np.mean(forth + back), abs=1e-6)
    assert found.masd == pytest.approx((np.mean(forth) + np.mean(back)) / 2, abs=1e-6)
    assert found.surface_dice(2.0) == pytest.approx(np.mean(np.array(forth + back) <= 2.0))


def test_monai_has_the_same_surfaces() -> None:
    prediction, reference = blobs(0), blobs(1)
    pair = {"y_pred": torch.from_numpy(prediction)[None, None], "y": torch.from_numpy(reference)[None, None]}
    found = surface_distances(prediction, reference, SPACING)
    options = {"include_background": True, "spacing": SPACING}
    assd = compute_average_surface_distance(**pair, symmetric=True, **options)
    assert found.assd == pytest.approx(float(assd), abs=1e-5)
    area = compute_surface_dice(**pair, class_thresholds=[1.5], use_subvoxels=True, **options)
    assert area_surface_scores(prediction, reference, SPACING, 1.5)[1] == pytest.approx(float(area), abs=1e-6)


def test_directed_is_not_pooled() -> None:
    """A false part far away is over 5 % of the prediction's border and under 5 % of both borders together."""
    reference = cube((8, 8, 8), 9)
    prediction = reference | cube((0, 0, 0), 3)
    found = surface_distances(prediction, reference, (1, 1, 1))
    assert found.pooled_hausdorff() == 0 and found.hausdorff() > 8
    assert area_surface_scores(prediction, reference, (1, 1, 1), opening=False)[0] > 8


def test_area_by_hand() -> None:
    """A square plate in one voxel layer, moved by 4 mm: all of its surface is 4 mm off at most."""
    plate = np.zeros((12, 12, 12), dtype=bool)
    plate[3, 2:10, 2:10] = True
    assert area_surface_scores(plate, np.roll(plate, 2, axis=0), (2, 1, 1), opening=False)[0] == 4.0
    assert area_surface_scores(plate, np.roll(plate, 2, axis=0), (2, 1, 1))[0] == math.inf  # the opening removes it


def test_no_distance_of_an_empty_mask() -> None:
    for pair in ((EMPTY, blobs(0)), (blobs(0), EMPTY), (EMPTY, EMPTY)):
        found = surface_distances(*pair, SPACING)
        scores = (found.hausdorff(), found.pooled_hausdorff(), found.assd, found.masd, found.surface_dice(1))
        assert all(map(math.isnan, scores))


def test_counts_by_hand() -> None:
    found = overlap(np.array([1, 1, 1, 0, 0], dtype=bool), np.array([1, 1, 0, 1, 0], dtype=bool))
    assert found == Overlap(2, 1, 1, 1)
    assert (found.dice, found.iou, found.sensitivity, found.precision) == (4 / 6, 2 / 4, 2 / 3, 2 / 3)
    assert (found.specificity, found.difference, found.relative_difference) == (1 / 2, 0, 0)
    nothing = overlap(EMPTY, EMPTY)
    assert all(map(math.isnan, (nothing.dice, nothing.iou, nothing.sensitivity, nothing.precision)))


def test_boundary_iou_by_loops() -> None:
    """Width 2 of a 60 × 80 image: in the band is a mask's pixel with a pixel outside within two steps of a king."""
    first, second = np.zeros((60, 80), dtype=bool), np.zeros((60, 80), dtype=bool)
    first[0:20, 5:30], second[2:22, 8:33] = True, True

    def band(mask: np.ndarray) -> set[tuple[int, int]]:
        padded = np.pad(mask, 2)
        return {(r, c) for r, c in np.argwhere(mask).tolist() if not padded[r : r + 5, c : c + 5].all()}

    one, two = band(first), band(second)
    assert boundary_iou(first, second) == pytest.approx(len(one & two) / len(one | two))
    assert boundary_iou(first, first) == 1 and math.isnan(boundary_iou(first[:0], first[:0]))


def test_boundary_iou_in_mm() -> None:
    """A cube of 10 voxels of 1 mm, band of 1 mm: its shell; moved by one voxel along an axis."""
    first = cube((5, 5, 5), 10)
    shell = np.array([c for c in itertools.product(range(10), repeat=3) if min(c) == 0 or max(c) == 9])
    one, two = {tuple(c) for c in shell}, {tuple(c) for c in shell + [1, 0, 0]}
    found = boundary_iou_mm(first, np.roll(first, 1, axis=0), (1, 1, 1), width=1.0)
    assert found == pytest.approx(len(one & two) / len(one | two))
    assert boundary_iou_mm(first, first, (1, 1, 1), width=0.5) != 1  # an empty band
    assert boundary_iou_mm(cube((0, 0, 0), 5), cube((0, 0, 0), 5), (1, 1, 1), width=1) == 1


def test_centerline_dice() -> None:
    """A tube of which half is missing: nothing false, half of the centreline unseen; its width does not matter."""
    tube = np.zeros((40, 40), dtype=bool)
    tube[18:23, 2:38] = True
    half = tube.copy()
    half[:, 20:] = False
    found = centerline_dice(half, tube)
    assert found.precision == 1 and found.sensitivity == pytest.approx(0.5, abs=0.06)
    assert found.cldice == pytest.approx(2 * found.sensitivity / (1 + found.sensitivity))
    assert centerline_dice(tube[::-1, :] & np.roll(tube, 12, axis=0), tube).precision != 1
    assert centerline_dice(np.roll(tube, 12, axis=0), tube).cldice == 0
    assert math.isnan(centerline_dice(np.zeros_like(tube), tube).cldice)
    volume = np.stack([np.zeros_like(tube)] * 3 + [tube] * 5 + [np.zeros_like(tube)] * 3)
    assert centerline_dice(volume, volume).cldice == 1


def test_lesions_by_hand() -> None:
    """Found: 50 voxels of 2 mm³, on the edge of a bin; missed: 1.2 ml; false: one voxel."""
    reference, prediction = np.zeros((30, 30, 30), dtype=bool), np.zeros((30, 30, 30), dtype=bool)
    reference[0, 0:5, 0:10] = True
    reference[10:16, 10:20, 10:20] = True
    prediction[0, 4, 9] = prediction[25, 25, 25] = True
    bins = detect_lesions(prediction, reference, (1, 1, 2))
    assert [(b.reference, b.found, b.predicted, b.false) for b in bins] == [(1, 1, 2, 1), (0, 0, 0, 0), (1, 0, 0, 0)]
    assert detect_lesions(prediction, reference, (1, 1, 2), iou=0.1)[0].found == 0
    assert detect_lesions(prediction, reference, (1, 1, 2), iou=0.01)[0].found == 1
    assert unmatched_volumes(prediction, reference, (1, 1, 2)) == pytest.approx((0.002, 1.2))
    assert sum(b.false for b in detect_lesions(EMPTY, EMPTY, SPACING)) == 0


def test_connectivity() -> None:
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[1, 2, 2] = True  # an edge, then a corner
    assert [components(mask, neighbours)[1] for neighbours in (6, 18, 26)] == [3, 2, 1]
    with pytest.raises(ConfigError, match="choose 6, 18 or 26"):
        components(mask, 8)


def test_lesion_wise_by_hand() -> None:
    """One lesion matched exactly, one missed, one part false: Dice (1 + 0 + 0) / 3, HD95 (0 + 374 + 374) / 3."""
    reference = cube((2, 2, 2), 4, 40) | cube((20, 2, 2), 4, 40)
    prediction = cube((2, 2, 2), 4, 40) | cube((2, 30, 30), 1, 40)
    found = lesion_wise(prediction, reference, (1, 1, 1))
    assert (found.tp, found.fn, found.fp) == (1, 1, 1)
    assert found.dice == pytest.approx(1 / 3) and found.hd95 == pytest.approx(2 * WORST_MM / 3)
    empty = np.zeros_like(reference)
    assert lesion_wise(empty, empty, (1, 1, 1)).dice == 1
    assert lesion_wise(prediction, empty, (1, 1, 1)).fp == 2
    assert lesion_wise(empty, cube((2, 2, 2), 3, 40), (1, 1, 1)).fn == 0  # 27 mm³ do not count
    assert lesion_wise(empty, cube((2, 2, 2), 3, 40), (1, 1, 1), BRATS_2023["MET"]).fn == 1


def test_dilation_joins_lesions() -> None:
    """Two cubes 5 voxels apart are one lesion after three dilations, two after one; a whole part serves both."""
    reference = cube((2, 10, 10), 4) | cube((11, 10, 10), 4)
    prediction = reference.copy()
    prediction[6:11, 11, 11] = True
    one, two = (lesion_wise(prediction, reference, (1, 1, 1), BRATS_2023[name]) for name in ("GLI", "MEN"))
    assert (one.tp, two.tp) == (1, 2)
    assert one.dice == pytest.approx(2 * 128 / (128 + 133)) and two.dice == pytest.approx(2 * 64 / (64 + 133))


def test_parts_near_a_lesion_are_not_false() -> None:
    """A part two voxels off touches the shell: found, with Dice 0."""
    found = lesion_wise(cube((8, 2, 2), 4), cube((2, 2, 2), 4), (1, 1, 1))
    assert (found.tp, found.fp, found.dice) == (1, 0, 0)


def assignments(table: np.ndarray, threshold: float) -> tuple[int, float]:
    """Most pairs of IoU >= threshold, then their largest sum, over all permutations."""
    rows, columns = table.shape
    best = (0, 0.0)
    for order in itertools.permutations(range(columns), min(rows, columns)):
        values = [table[row, column] for row, column in enumerate(order)]
        hits = [value for value in values if value >= threshold]
        best = max(best, (len(hits), sum(hits)))
    return best


def test_instances_by_all_assignments() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        prediction, reference = np.zeros((12, 12), dtype=int), np.zeros((12, 12), dtype=int)
        for number in (1, 2, 5, 9):
            for image in (prediction, reference):
                r, c = generator.integers(0, 8, 2)
                image[r : r + 4, c : c + 4] = number
        numbers = [np.unique(image[image > 0]) for image in (prediction, reference)]
        if len(numbers[0]) > len(numbers[1]):
            continue
        table = np.array([[overlap(prediction == p, reference == r).iou for r in numbers[1]] for p in numbers[0]])
        for threshold in (0.5, 0.7):
            match = match_instances(prediction, reference, (threshold,))[0]
            hits, total = assignments(table, threshold)
            assert (match.tp, match.iou) == (hits, pytest.approx(total))
            assert (match.fp, match.fn) == (len(numbers[0]) - hits, len(numbers[1]) - hits)


def test_panoptic_quality_of_monai() -> None:
    prediction, reference = np.zeros((24, 24), dtype=int), np.zeros((24, 24), dtype=int)
    prediction[0:6, 0:6], prediction[10:16, 10:16], prediction[0:4, 18:22] = 1, 2, 3
    reference[0:6, 1:7], reference[11:17, 10:16], reference[18:22, 0:4] = 1, 2, 3
    expected = compute_panoptic_quality(torch.from_numpy(prediction), torch.from_numpy(reference), metric_name="pq")
    match = match_instances(prediction, reference, strict=True)[0]
    assert match.panoptic_quality == pytest.approx(float(expected), abs=1e-5)
    assert match.panoptic_quality == pytest.approx(match.segmentation_quality * match.f1)
    both = pooled_match([match, match_instances(reference, reference)[0]])
    assert (both.tp, both.fp, both.fn) == (5, 1, 1) and both.iou == pytest.approx(match.iou + 3)


def test_no_instances() -> None:
    empty, one = np.zeros((4, 4), dtype=int), np.ones((4, 4), dtype=int)
    assert math.isnan(match_instances(empty, empty)[0].f1)
    for pair in ((empty, one), (one, empty)):
        match = match_instances(*pair)[0]
        assert (match.f1, match.panoptic_quality, match.average_precision, match.segmentation_quality) == (0, 0, 0, 0)
    assert match_instances(one, one)[0].f1 == 1


def softmaxed(seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (classes, 10, 10, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    return probabilities, generator.integers(0, classes, (10, 10, 4))


def test_calibration_by_loops() -> None:
    probabilities, labels = softmaxed(0)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probabilities.reshape(3, -1).T, labels.ravel(), strict=True):
        index = next(i for i in range(15) if row.max() <= (i + 1) / 15)
        bins.setdefault(index, []).append((row.max(), row.argmax() == label))
    error = sum(abs(sum(hit for _, hit in held) - sum(p for p, _ in held)) for held in bins.values()) / labels.size
    curve = top_label_reliability(probabilities, labels)
    assert curve.ece == pytest.approx(error)
    assert curve.counts.tolist() == [len(bins.get(index, [])) for index in range(15)]
    rows = np.take_along_axis(probabilities, labels[None], axis=0)
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(-np.log(rows).mean())
    hot = np.eye(3)[labels].transpose(3, 0, 1, 2)
    assert brier_score(probabilities, labels).sum() == pytest.approx(((probabilities - hot) ** 2).sum(axis=0).mean())


def test_calibration_of_monai() -> None:
    probabilities, labels = softmaxed(1)
    metric = CalibrationErrorMetric(num_bins=10, include_background=True, calibration_reduction="expected")
    metric(
        y_pred=torch.from_numpy(probabilities)[None], y=torch.from_numpy(np.eye(3)[labels].transpose(3, 0, 1, 2))[None]
    )
    found = np.mean([curve.ece for curve in class_reliability(probabilities, labels)])
    assert found == pytest.approx(float(metric.aggregate()), abs=1e-6)


def test_edges_ignored_voxels_and_pooling() -> None:
    """0 is in the first bin, an edge in the bin that it closes; ignored voxels and the background count nowhere."""
    row = np.array([0.0, 0.1, 0.3, 0.30001, 1.0])
    second = class_reliability(np.stack([1 - row, row]), np.zeros(5, dtype=int))[1]
    assert second.counts.tolist() == [2, 0, 1, 1, 0, 0, 0, 0, 0, 1]
    probabilities, labels = softmaxed(2)
    labels[:5] = IGNORE
    parts = [top_label_reliability(probabilities[:, a:b], labels[a:b]) for a, b in ((5, 7), (7, 10))]
    whole = top_label_reliability(probabilities, labels)
    assert pooled_reliability(parts).ece == pytest.approx(whole.ece) and whole.counts.sum() == 200
    background = np.stack([np.full((2, 2), 0.9), np.full((2, 2), 0.1)]), np.zeros((2, 2), dtype=int)
    assert math.isnan(top_label_reliability(*background, foreground=True).ece)
    assert top_label_reliability(*background).ece == pytest.approx(0.1)


def test_temperature_of_a_network_that_is_too_sure() -> None:
    """Labels drawn from probabilities that were sharpened by 2.5: that temperature undoes it."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1.5, (3, 40_000))
    honest = np.exp(logits) / np.exp(logits).sum(axis=0)
    labels = (generator.random(40_000) > honest.cumsum(axis=0)).sum(axis=0)
    sharp = scale_probabilities(honest, 1 / 2.5)
    found = fit_temperature(sharp, labels)
    assert found == pytest.approx(2.5, rel=0.03)
    cooled = scale_probabilities(sharp, found)
    assert (cooled.argmax(axis=0) == sharp.argmax(axis=0)).all()
    assert top_label_reliability(cooled, labels).ece < 0.01 < top_label_reliability(sharp, labels).ece
    half = np.append(labels[:20_000], np.full(20_000, IGNORE))
    assert fit_temperature(sharp, half) == pytest.approx(fit_temperature(sharp[:, :20_000], labels[:20_000]))
    with pytest.raises(DataError, match="No voxel has a label"):
        fit_temperature(sharp, np.full(40_000, IGNORE))

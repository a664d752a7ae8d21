"""Lesion-wise Dice and HD95 by the official rule of BraTS 2023; name the year, as 2024's rule is another.

Lesions are the reference's parts after dilation, so that near parts are one; each is held against all predicted parts
that touch its dilated shell, as a whole. Missed lesions and predicted parts near none count 0 and 374 mm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, find_objects, generate_binary_structure

from medseg.metrics.box import bounding_box
from medseg.metrics.lesions import components
from medseg.metrics.overlap import overlap
from medseg.metrics.surface_area import area_surface_scores

__all__ = ["BRATS_2023", "WORST_MM", "LesionRule", "LesionWise", "lesion_wise"]

WORST_MM = 374.0  # diagonal of the challenge's images
_NEIGHBOURS = generate_binary_structure(3, 2)  # 18: faces and edges


@dataclass(frozen=True)
class LesionRule:
    """What makes a lesion.

    Attributes:
        dilations: number of dilations that join near parts of the reference.
        smallest_mm3: lesions up to this volume do not count; predicted parts have no limit.
    """

    dilations: int
    smallest_mm3: float


BRATS_2023 = {
    "GLI": LesionRule(3, 50),
    "SSA": LesionRule(3, 50),
    "PED": LesionRule(3, 50),
    "MEN": LesionRule(1, 50),
    "MET": LesionRule(1, 2),
}


@dataclass(frozen=True)
class LesionWise:
    """Scores of one region of one scan.

    Attributes:
        dice, hd95: means over the lesions that count and the false positives; 1 and 0 mm without either.
        tp, fn: lesions that count with and without a predicted part; a found one may have Dice 0.
        fp: predicted parts near no lesion, of any size.
    """

    dice: float
    hd95: float
    tp: int
    fn: int
    fp: int


def lesion_wise(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], rule: LesionRule = BRATS_2023["GLI"]
) -> LesionWise:
    """Score one region, such as the whole tumour.

    Args:
        prediction, reference: boolean masks ``(X, Y, Z)``.
        spacing: voxel size in mm.
    """
    if prediction.any() or reference.any():
        box = bounding_box(prediction | reference)  # dilations that meet outside of it meet inside, too
        prediction, reference = prediction[box], reference[box]
    lesions, _ = components(binary_dilation(reference, _NEIGHBOURS, rule.dilations))
    lesions[~reference] = 0
    parts, part_count = components(prediction)
    near = np.zeros(part_count + 1, dtype=bool)
    dice: list[float] = []
    hd95: list[float] = []
    tp = 0
    for number, place in enumerate(find_objects(lesions), start=1):
        shell = tuple(slice(max(side.start - rule.dilations, 0), side.stop + rule.dilations) for side in place)
        lesion = lesions[shell] == number
        touched = np.zeros_like(near)
        touched[parts[shell][binary_dilation(lesion, _NEIGHBOURS, rule.dilations)]] = True
        touched[0] = False
        near |= touched
        if np.count_nonzero(lesion) * math.prod(spacing) <= rule.smallest_mm3:
            continue
        if touched.any():
            whole, alone = touched[parts], lesions == number
            tp += 1
            dice.append(overlap(whole, alone).dice)
            hd95.append(area_surface_scores(whole, alone, spacing, opening=False)[0])
        else:
            dice.append(0.0)
            hd95.append(WORST_MM)
    fp = part_count - int(near.sum())
    scored = len(dice) + fp
    if not scored:
        return LesionWise(1.0, 0.0, 0, 0, 0)
    return LesionWise(sum(dice) / scored, (sum(hd95) + WORST_MM * fp) / scored, tp, len(dice) - tp, fp)

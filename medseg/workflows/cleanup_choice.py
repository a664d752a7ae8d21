"""The choice of a cleaning rule per label, from the Dice that every rule gives on every case.

Greedy: of all rules that do one thing more (a smallest size, the largest component, holes filled), those count that
improve the mean over subjects by one test for all labels and rules of a round (``medseg.metrics.rule_selection``); of
each label the one with the largest mean difference is taken, and the search resumes from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from skimage.measure import label as label_components

from medseg.labels import IGNORE, LabelSpace
from medseg.metrics.rule_selection import rule_test
from medseg.metrics.subjects import subject_sums
from medseg.transforms.postprocess import CleanRule, bounding_box, clean_mask, least_voxels

__all__ = ["Pair", "TriedStep", "choose_rules", "dice_by_rule"]

_SIZES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # mm³ (2D: mm², or pixels), about half a decade apart


@dataclass(frozen=True)
class Pair:
    """A case: prediction and reference as label indices ``(*spatial)`` on one grid, its subject, and the place of its
    fold's run.
    """

    case_id: str
    dataset: str | None
    prediction: np.ndarray
    reference: np.ndarray
    spacing: tuple[float, ...]
    subject: str = ""
    fold: int = 0


@dataclass(frozen=True)
class TriedStep:
    """One step from a rule to the next, on the cases of which both have a score.

    Attributes:
        from_, to: rules before and after, step -> value.
        cases: number of cases.
        mean_difference: mean difference of the Dice; NaN without any case.
        p_value: one-sided, corrected for the number of steps of the round; NaN with fewer than six subjects.
        taken: whether the search took it.
    """

    from_: Mapping[str, bool | float]
    to: Mapping[str, bool | float]
    cases: int
    mean_difference: float
    p_value: float
    taken: bool


def choose_rules(
    scores: Mapping[str, Mapping[CleanRule, np.ndarray]], subjects: Sequence[str], *, level: float = 0.05
) -> dict[str, tuple[CleanRule, list[TriedStep]]]:
    """Of each label the rule that greedy search arrives at, and every step that was tried.

    Args:
        scores: label -> Dice per case for each rule, NaN where it is undefined; ``CleanRule()`` among them.
        subjects: subject of each case.
        level: chance, in each round, that any useless step is taken.
    """
    found: dict[str, tuple[CleanRule, list[TriedStep]]] = {label: (CleanRule(), []) for label in scores}
    growing = list(scores)
    while steps := [(label, rule) for label in growing for rule in _neighbours(found[label][0], scores[label])]:
        changes = [scores[label][rule] - scores[label][found[label][0]] for label, rule in steps]
        # A case without a score is no improvement: zeros change neither statistic nor p.
        sums = subject_sums(np.nan_to_num(np.stack(changes, axis=1)), subjects).sums
        p_values = rule_test(sums.T).p_values.tolist()
        tried = [
            _tried(found[label][0], rule, *of) for (label, rule), *of in zip(steps, changes, p_values, strict=True)
        ]
        growing = []
        for label, (current, before) in found.items():
            own = [(rule, step) for (name, rule), step in zip(steps, tried, strict=True) if name == label]
            helping = [(rule, step) for rule, step in own if step.p_value <= level and step.mean_difference > 0]
            taken, best = max(helping, key=lambda one: one[1].mean_difference, default=(current, None))
            found[label] = taken, [*before, *(replace(step, taken=step is best) for _, step in own)]
            growing += [label] if helping else []
    return found


def _tried(current: CleanRule, rule: CleanRule, change: np.ndarray, p_value: float) -> TriedStep:
    known = change[np.isfinite(change)]
    mean = float(known.mean()) if len(known) else math.nan
    return TriedStep(current.to_table(), rule.to_table(), len(known), mean, p_value, taken=False)


def _neighbours(rule: CleanRule, known: Mapping[CleanRule, Any]) -> list[CleanRule]:
    """The rules that do one thing more."""
    return [
        other
        for other in known
        if sum(a != b for a, b in zip(rule, other, strict=True)) == 1
        and all(a <= b for a, b in zip(rule, other, strict=True))
    ]


def dice_by_rule(pair: Pair, label: str, space: LabelSpace) -> dict[CleanRule, float]:
    """The Dice of a case under every rule for a label: the mean over the targets that hold the label."""
    index = space.labels.index(label) + 1
    annotated = {i for i, known in enumerate(space.annotated(pair.dataset), 1) if known}
    targets = [set(members) for members in space.targets.values() if index in members]
    targets = [members for members in targets if members <= annotated]
    valid = pair.reference != IGNORE
    mask = pair.prediction == index
    box = bounding_box(mask)
    totals = []  # per target: intersection, predicted voxels, reference voxels
    for members in targets:
        predicted, true = np.isin(pair.prediction, list(members)) & valid, np.isin(pair.reference, list(members))
        totals.append([_count(voxels) for voxels in (predicted & true, predicted, true)])
    if box is None:
        return dict.fromkeys(_all_rules(), _mean_dice(totals))
    background = pair.prediction[box] == 0
    result = {}
    for rule, after in _masks_by_rule(mask[box], pair.spacing):
        removed = mask[box] & ~after & valid[box]
        added = after & ~mask[box] & background & valid[box]
        change = _count(added) - _count(removed)
        changed = []
        for members, (both, size, true_size) in zip(targets, totals, strict=True):
            reference = np.isin(pair.reference[box], list(members))
            gained = _count(added & reference) - _count(removed & reference)
            changed.append([both + gained, size + change, true_size])
        result[rule] = _mean_dice(changed)
    return result


def _count(voxels: np.ndarray) -> int:
    return int(np.count_nonzero(voxels))


def _mean_dice(counts: Sequence[Sequence[int]]) -> float:
    values = [2 * both / (predicted + true) for both, predicted, true in counts if true]
    return float(np.mean(values)) if values else math.nan


def _all_rules() -> list[CleanRule]:
    return [CleanRule(size, keep, fill) for size in (0.0, *_SIZES) for keep in (False, True) for fill in (False, True)]


def _masks_by_rule(mask: np.ndarray, spacing: Sequence[float]) -> Iterator[tuple[CleanRule, np.ndarray]]:
    """Every rule with its result; rules that differ only in sizes between which no component lies share one."""
    components = np.bincount(label_components(mask, connectivity=mask.ndim).ravel())[1:]  # voxels
    made: dict[tuple[int, bool, bool], np.ndarray] = {}
    for rule in _all_rules():
        removed = _count(components < least_voxels(rule.min_size, spacing))
        left = len(components) - removed
        effective = CleanRule(rule.min_size if removed else 0.0, rule.keep_largest and left > 1, rule.fill_holes)
        key = (removed, effective.keep_largest, effective.fill_holes)
        if key not in made:
            made[key] = clean_mask(mask, effective, spacing)
        yield rule, made[key]

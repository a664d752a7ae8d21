"""Checks over a whole set of cases: equal axes and channels, empty labels, classes that no training case has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from medseg.data.case import Case
from medseg.data.case_facts import CaseFacts
from medseg.data.datalist import Datalist
from medseg.data.findings import Finding, Problem, by
from medseg.data.geometry import far_spacing
from medseg.data.mask_values import MaskValues, mixed_finding, soft_finding
from medseg.errors import few

__all__ = [
    "check_agreement",
    "check_classes",
    "check_empty_labels",
    "check_folds",
    "check_masks",
    "check_orientation",
    "check_regions",
]


def check_agreement(facts: Sequence[CaseFacts]) -> Iterator[Problem]:
    """Cases whose number of spatial axes or channels is not that of most others, or whose spacing is far from it."""
    sound = [case for case in facts if case.shape and not case.broken]
    for what, count_of in (("spatial axes", lambda c: len(c.shape)), ("channels", lambda c: c.channels)):
        numbers = Counter(count_of(case) for case in sound)
        if len(numbers) < 2:
            continue
        usual = numbers.most_common(1)[0][0]
        for case in sound:
            if count_of(case) != usual:
                yield Problem(
                    case.case,
                    f"has {count_of(case)} {what}, others have {usual}",
                    "Remove the case, or make datalists of one kind each.",
                )
    volumes = [case for case in sound if not case.picture]
    if len({len(case.spacing) for case in volumes}) == 1:
        middle = np.median([case.spacing for case in volumes], axis=0).tolist()
        for case in volumes:
            if far_spacing(case.spacing, middle):
                yield Problem(
                    case.case,
                    f"spacing {by(case.spacing)} mm, others have about {by(middle)} mm; one order of size is expected",
                    "Fix the unit or the voxel size in its header, or make datalists of one kind each.",
                )


def check_orientation(facts: Sequence[CaseFacts]) -> Iterator[Problem]:
    """2D images with a camera's orientation tag whose masks have none: were they drawn on it as shown?"""
    turned = [
        case.case for case in facts if case.orientation != 1 and case.label_counts and case.label_orientation == 1
    ]
    if turned:
        yield Problem(
            "some cases",
            f"{len(turned)} images have a camera's orientation tag (EXIF), which is applied, and masks without one "
            f"({few(turned)}); masks drawn on the image as viewers show it are expected",
            "If they were drawn on the rows as stored, remove the tag from the images.",
            warning=True,
        )


def check_masks(facts: Sequence[CaseFacts], datalist: Datalist) -> Iterator[Problem]:
    """Declared values of 2D masks that are not labels: those of smoothed edges, or two codes of one foreground."""
    for dataset in dict.fromkeys(case.dataset for case in facts):
        group = [case for case in facts if case.dataset == dataset and case.picture and case.label_counts]
        masks = [MaskValues(frozenset(map(float, case.label_counts)), case.label_edges) for case in group]
        if soft := soft_finding(masks):
            yield Problem("some cases", *soft)
        part = datalist.label_space.fragment(dataset) if group else None
        meanings = [] if part is None else [set(raw) for raw in (*part.values.values(), part.ignore)]
        codes = {value for mask in masks for value in mask.values} - {0.0}
        if (mixed := mixed_finding(masks)) and not any(codes <= meaning for meaning in meanings):
            yield Problem("some cases", *mixed)


def check_empty_labels(facts: Sequence[CaseFacts], datalist: Datalist, *, training: bool) -> Iterator[Problem]:
    """Labels that are background throughout: a warning with their number; an error if no case is left to train on."""
    labelled = [case for case in facts if case.label_counts]
    fragment = datalist.label_space.fragment
    empty = []
    for case in labelled:
        part = fragment(case.dataset)
        if not set(case.label_counts) - {*part.background, *part.ignore}:
            empty.append(case.case)
    if not empty:
        return
    everything = training and len(empty) == len(labelled)
    yield Problem(
        "all cases" if everything else "some cases",
        f"{len(empty)} of {len(labelled)} labels are all background ({few(empty)})",
        "Check the label files: there is nothing to learn from." if everything else "Check that this is meant.",
        warning=not everything,
    )


def check_classes(
    facts: Sequence[CaseFacts], datalist: Datalist, training: Collection[Case], fold: int | None = None
) -> Iterator[Problem]:
    """Classes that occur in none of the training cases (warnings)."""
    trained = {case.id for case in training}
    space, seen = datalist.label_space, set()
    inspected = [case for case in facts if case.case in trained and case.label_counts]
    for case in inspected:
        values_of = space.fragment(case.dataset).values
        seen |= {name for name, values in values_of.items() if any(value in case.label_counts for value in values)}
    where = "the training cases" if fold is None else f"fold {fold}'s training cases"
    for name in space.labels if inspected and seen else ():
        if name not in seen:
            values = sorted({value for part in space.fragments.values() for value in part.values.get(name, ())})
            yield Problem(
                "all cases",
                f"class '{name}' ({', '.join(map(str, values))}) never occurs in {where}",
                "Check the label files, choose other folds, or remove the class from the datalist's 'labels'.",
                warning=True,
            )


def check_regions(datalist: Datalist) -> Iterator[Problem]:
    """Labels that are in no region: what is evaluated, and in sigmoid mode predicted, leaves them out."""
    space = datalist.label_space
    covered = {name for members in space.regions.values() for name in members}
    if outside := [name for name in space.labels if space.regions and name not in covered]:
        yield Problem(
            "all cases",
            f"{', '.join(map(repr, outside))} {'is' if len(outside) == 1 else 'are'} in no region: not scored"
            + (", and background to the network" if space.mode == "sigmoid" else "")
            + "; every label in a region is expected",
            "Add a region with the label, or declare its value as background.",
            warning=True,
        )


def check_folds(datalist: Datalist) -> Iterator[Problem]:
    """Fewer subjects than folds, where folds have to be made on the spot."""
    if not datalist.folds() and not datalist.sections["validation"] and (finding := datalist.few_subjects()):
        yield Problem("all cases", *Finding(*finding))

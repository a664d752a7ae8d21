"""Checks over a whole set of cases: equal axes and channels, empty labels, classes that no training case has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from medseg.data.case import Case
from medseg.data.datalist import Datalist
from medseg.data.findings import Finding, Problem, by
from medseg.data.geometry import far_spacing
from medseg.data.inspect import CaseFacts

__all__ = ["check_agreement", "check_classes", "check_empty_labels", "check_folds"]


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
    shown = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
    yield Problem(
        "all cases" if everything else "some cases",
        f"{len(empty)} of {len(labelled)} labels are all background ({shown})",
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


def check_folds(datalist: Datalist, num_folds: int = 5) -> Iterator[Problem]:
    """Fewer subjects than folds, where folds have to be made on the spot."""
    if not datalist.folds() and not datalist.sections["validation"] and (finding := datalist.few_subjects(num_folds)):
        yield Problem("all cases", *Finding(*finding))

"""Cases that share an image or a label file: by another spelling of its path, a link, or a copy of its voxels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.data.case import Case
from medseg.data.case_facts import CaseFacts
from medseg.data.datalist import Datalist
from medseg.data.findings import Problem
from medseg.data.subjects import guess_subjects

__all__ = ["check_names", "check_overlaps"]

_REMEDY = "Remove it from one side."
_SUBJECT = "Remove one of them, or give both one 'subject' in the datalist."
_LABEL = "Check which label belongs to which image; give cases of one patient one 'subject' in the datalist."
_NAMES = (
    "Make the folds again grouped by subject (`medseg datalist` does so, or takes --subject_pattern), or write each "
    "case's 'subject' into the datalist."
)


@dataclass(frozen=True)
class _Place:
    """A case where the datalist has it: its section, and in the training section its fold."""

    case: Case
    side: str

    def __str__(self) -> str:
        return f"{self.case.id} ({self.side.partition(':')[0]})"


def _places(datalist: Datalist) -> list[_Place]:
    """All cases; those that will be split by folds made on the spot are each on a side of their own."""
    split_later = not datalist.folds() and not datalist.sections["validation"]
    places = []
    for section, cases in datalist.sections.items():
        for case in cases:
            side = section
            if section == "training" and case.fold is not None:
                side = f"fold {case.fold}"
            elif section == "training" and split_later:
                side = f"training, not yet in a fold: {case.group}"
            places.append(_Place(case, side))
    return places


def _trained(side: str) -> bool:
    return side.startswith(("training", "fold"))


# ---------------------------------------------------------------------- files
def check_overlaps(datalist: Datalist, facts: Sequence[CaseFacts]) -> Iterator[Problem]:
    """Images that two cases share, and labels that cases with different images share.

    One file on both sides of a split is an error, unless the datalist declares the case in ``known_overlaps``. A copy,
    by its voxels among the cases of ``facts``, is a warning, and so is what two cases of one side share.
    """
    known, places = {case.case: case for case in facts}, _places(datalist)
    files = {file: _identity(file) for place in places for file in place.case.files}
    images = {place: {files[file] for file in place.case.images} for place in places}
    voxels = {place: set(known[place.case.id].image_hashes) if place.case.id in known else set() for place in places}
    yield from _shared(images, "the same image file", datalist, certain=True)
    yield from _shared(voxels, "images of the same voxels", datalist, certain=False, but=images)

    labels = {place: {files[place.case.label]} if place.case.label else set() for place in places}
    masks = {place: _mask(known.get(place.case.id), datalist) for place in places}
    apart = {place: images[place] | voxels[place] for place in places}
    yield from _shared_labels(labels, "the same label file", apart)
    yield from _shared_labels(masks, "labels of the same voxels", apart, but=labels)


def _identity(file: str) -> object:
    """Equal for all names of one file."""
    try:
        status = Path(file).stat()
    except OSError:
        return os.path.normpath(file)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(file)


def _mask(facts: CaseFacts | None, datalist: Datalist) -> set[object]:
    """The label's hash, unless all of it is background, as in any two healthy cases."""
    if facts is None or not facts.label_hash:
        return set()
    part = datalist.label_space.fragment(facts.dataset)
    return {facts.label_hash} if set(facts.label_counts) - {*part.background, *part.ignore} else set()


_Keys = Mapping[_Place, set[object]] | Mapping[_Place, set[str]]


def _pairs(keys: _Keys, but: _Keys | None = None) -> Iterator[tuple[_Place, _Place]]:
    """Each place with the first one that it shares a key with, unless they share one of ``but`` too."""
    firsts: dict[object, dict[str, _Place]] = {}  # key -> side -> first place
    for place, own in keys.items():
        for key in own:
            sides = firsts.setdefault(key, {})
            apart = (other for other in sides.values() if not but or set(but[other]).isdisjoint(but[place]))
            first = next(apart, None)  # of thousands that share a key, the first ones alone are looked at
            if first is not None:
                # one on another side matters more than one on the same side
                yield first if first.side != place.side else next(apart, first), place
            sides.setdefault(place.side, place)


def _shared(
    keys: _Keys, what: str, datalist: Datalist, *, certain: bool, but: _Keys | None = None
) -> Iterator[Problem]:
    """Problems of images; one row per kind, which names the first pair and counts the others."""
    biased: list[tuple[_Place, _Place]] = []
    declared: list[tuple[_Place, _Place]] = []
    doubtful: list[tuple[_Place, _Place]] = []
    for one, other in _pairs(keys, but):
        names = {one.case.id, other.case.id, one.case.group, other.case.group}
        if one.side == other.side or not (_trained(one.side) or _trained(other.side)):
            # Two annotations of one image, or one image for two data sets, are not a mistake.
            if one.side != other.side or one.case.label == other.case.label:
                doubtful.append((one, other))
        elif names & datalist.known_overlaps:
            declared.append((one, other))
        else:
            biased.append((one, other))
    for pairs, said, remedy, warning in (
        (biased, ": results would be biased", _SUBJECT if _same_section(biased) else _REMEDY, not certain),
        (declared, " (declared in 'known_overlaps'): results are biased", "Name this with the results.", True),
        (doubtful, "", "Check that this is meant; else remove one.", True),
    ):
        if pairs:
            yield Problem(_names(pairs), f"{_first(pairs)} have {what}{said}{_others(pairs)}", remedy, warning=warning)


def _shared_labels(keys: _Keys, what: str, images: _Keys, but: _Keys | None = None) -> Iterator[Problem]:
    pairs = [
        (one, other)
        for one, other in _pairs(keys, but)
        if one.case.group != other.case.group and not set(images[one]) & set(images[other])
    ]
    if pairs:
        yield Problem(
            _names(pairs),
            f"{_first(pairs)} have {what} for different images{_others(pairs)}",
            _LABEL,
            warning=True,
        )


def _same_section(pairs: Sequence[tuple[_Place, _Place]]) -> bool:
    return bool(pairs) and _trained(pairs[0][0].side) and _trained(pairs[0][1].side)


def _names(pairs: Sequence[tuple[_Place, _Place]]) -> str:
    return pairs[0][1].case.id if len(pairs) == 1 else "some cases"


def _first(pairs: Sequence[tuple[_Place, _Place]]) -> str:
    return f"{pairs[0][0]} and {pairs[0][1]}"


def _others(pairs: Sequence[tuple[_Place, _Place]]) -> str:
    return f"; {len(pairs)} pairs have in all" if len(pairs) > 1 else ""


# ---------------------------------------------------------------------- names
def check_names(datalist: Datalist) -> Iterator[Problem]:
    """A warning where names such as ``patient00_slice03`` suggest that one subject is on both sides of a split, or in
    two folds. Cases whose ``subject`` the datalist gives are taken at its word.
    """
    places = [place for place in _places(datalist) if place.case.subject is None]
    by_dataset: dict[str, list[_Place]] = {}
    for place in places:
        by_dataset.setdefault(place.case.dataset or "", []).append(place)
    for dataset, group in by_dataset.items():
        names = {place.case.id: place.case.id.removeprefix(f"{dataset}_") for place in group}
        guess = guess_subjects(list(names.values()))
        if guess is None:
            continue
        sides: dict[str, dict[str, _Place]] = {}
        for place in group:
            if place.case.id not in datalist.known_overlaps:
                subject = guess.subjects[names[place.case.id]]
                sides.setdefault(subject, {}).setdefault(place.side, place)
        # Where folds are made on the spot every case has a side of its own.
        spread = {subject: found for subject, found in sides.items() if len(found) > 1 and any(map(_trained, found))}
        for subject, found in spread.items():
            shown = " and ".join(map(str, list(found.values())[:2]))
            more = f"; {len(spread)} subjects are so in all" if len(spread) > 1 else ""
            message = f"names suggest that subject '{subject}' is on both sides of a split: {shown}{more}"
            yield Problem("some cases", message, _NAMES, warning=True)
            break

"""Guess from names which cases are of one subject: slices of a volume, frames of a film, visits of a patient."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["SubjectGuess", "guess_subjects"]

_FEWEST = 5  # subjects by numbers alone: fewer may be sites, years or parts of a data set
_PART = r"slice|slc|frame|visit|session|sess|ses|timepoint|time|scan|week|month|day|follow[_\-]?up"
_OWNER = r"sub|subj|subject|pat|patient|participant|person|pt|pid|p|case|vol|volume|animal|mouse|rat"
_END = r"[_\- ]*\(?\d+\)?"
# ``anna_slice-07`` and ``patient00 frame 3`` name the part.
_BY_PART = re.compile(rf"(?P<subject>.*?[^_\- .])(?:[_\- .]+|(?<=\d))(?:{_PART}){_END}.*", re.IGNORECASE)
# ``sub-01_T1w`` and ``patient007_3`` name the subject.
_BY_OWNER = re.compile(rf"(?P<subject>(?:.*[_\- .])?(?:{_OWNER})[_\-]?[a-z]?\d+)[_\- .].+", re.IGNORECASE)
# ``A4B5U4_0`` and ``012_z34`` end in a number after what holds one already.
_BY_NUMBER = re.compile(r"(?P<subject>\D*\d(?:.*[^_\- ])?)[_\- ]+[a-z]{0,3}\(?\d+\)?", re.IGNORECASE)


@dataclass(frozen=True)
class SubjectGuess:
    """Whose cases these are, by their names.

    Attributes:
        subjects: name -> subject; a name that says nothing is a subject of its own.
        example: two names of one subject.
        sure: a word such as ``slice`` or ``patient`` says so, or there are many subjects.
    """

    subjects: dict[str, str]
    example: tuple[str, str]
    sure: bool

    @property
    def number(self) -> int:
        """Number of subjects."""
        return len(set(self.subjects.values()))


def guess_subjects(names: Sequence[str]) -> SubjectGuess | None:
    """What the names suggest; ``None`` where every case seems to be a subject of its own, or all seem to be of one.

    Numbers alone, as in ``A4B5U4_0``, count where they group most of the names. Few groups are not sure: ``site1_001``
    … ``site3_120`` are of three sites.
    """
    for pattern in (_BY_PART, _BY_OWNER, _BY_NUMBER):
        found = {name: match["subject"] for name in dict.fromkeys(names) if (match := pattern.fullmatch(name))}
        counts = Counter(found.values())
        shared = [subject for subject, count in counts.items() if count > 1]
        if not shared or len(counts) < 2:
            continue
        grouped = sum(counts[subject] for subject in shared)
        if pattern is _BY_NUMBER and 2 * grouped < len(set(names)):
            continue
        first, second = [name for name, subject in found.items() if subject == shared[0]][:2]
        sure = pattern is not _BY_NUMBER or len(counts) >= _FEWEST
        return SubjectGuess({name: found.get(name, name) for name in names}, (first, second), sure)
    return None

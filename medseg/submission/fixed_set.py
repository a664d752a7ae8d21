"""The cases of a challenge by its facts: so many, with names of one form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medseg.errors import DataError
from medseg.submission import ChallengeFacts, SubmittedCase

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["fixed_cases"]


def fixed_cases(cases: Sequence[Case], facts: ChallengeFacts) -> list[SubmittedCase]:
    """The cases, sorted by their names in the archive.

    Args:
        cases: cases of the datalist's section.
        facts: ``number`` of cases, form of their ids (``case``) and of the names in the archive (``member``).

    Raises:
        DataError: a case of another name, or another number of cases.
    """
    found: dict[str, SubmittedCase] = {}
    for case in cases:
        match = re.fullmatch(facts.case, case.id)
        if match is None:
            raise DataError(
                f"{case.id} is not a case of {facts.title}; expected names such as {facts.examples[0]} in the section. "
                "Name another with --section."
            )
        member = facts.member.format(*match.groups(), case=case.id)
        found[member] = SubmittedCase(case, member)
    if len(found) != facts.number or len(cases) != facts.number:
        raise DataError(
            f"The section has {len(cases)} cases; {facts.title} takes exactly {facts.number}. Use the datalist of "
            f"`medseg prepare {facts.dataset}`, list them in yours, or name another section with --section."
        )
    return [found[member] for member in sorted(found)]

"""The cases of a challenge by its facts: so many, with names of one form."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from medseg.errors import DataError
from medseg.submission import ChallengeFacts, SubmittedCase

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["fixed_cases"]


def fixed_cases(facts: ChallengeFacts) -> Callable[[Sequence[Case]], list[SubmittedCase]]:
    """The ``submitted`` of a challenge whose facts say the ``number`` of cases, and the form of their ids (``case``)
    and of their names in the archive (``member``), by which they are sorted. It raises ``DataError`` for others.
    """

    def submitted(cases: Sequence[Case]) -> list[SubmittedCase]:
        found: dict[str, SubmittedCase] = {}
        for case in cases:
            match = re.fullmatch(facts.case, case.id)
            if match is None:
                raise DataError(
                    f"{case.id} is not a case of {facts.title}; expected names such as {facts.examples[0]} in the "
                    "section. Name another with --section."
                )
            member = facts.member.format(*match.groups(), case=case.id)
            found[member] = SubmittedCase(case, member)
        if len(found) != facts.number or len(cases) != facts.number:
            raise DataError(
                f"The section has {len(cases)} cases; {facts.title} takes exactly {facts.number}. Use the datalist of "
                f"`medseg prepare {facts.dataset}`, list them in yours, or name another section with --section."
            )
        return [found[member] for member in sorted(found)]

    return submitted

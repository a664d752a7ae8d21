"""The cases of a challenge by its facts: so many, with names of one form."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import DataError
from medseg.submission import ChallengeFacts, Item

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["fixed_items"]


def fixed_items(facts: ChallengeFacts) -> Callable[[Sequence[Case]], list[Item]]:
    """The ``items`` of a challenge whose facts say the ``number`` of cases, and the form of their ids (``case``) and of
    their names in the archive (``member``), by which they are sorted. It raises ``DataError`` for others.
    """

    def items(cases: Sequence[Case]) -> list[Item]:
        found: dict[str, Item] = {}
        for case in cases:
            match = re.fullmatch(facts.case, case.id)
            if match is None:
                raise DataError(
                    f"{case.id} is not a case of {facts.title}; expected names such as {facts.examples[0]} in the "
                    "section. Name another with --section."
                )
            member = facts.member.format(*match.groups(), case=case.id)
            found[member] = Item(case.id, Path(case.images[0]), member)
        if len(found) != facts.number or len(cases) != facts.number:
            raise DataError(
                f"The section has {len(cases)} cases; {facts.title} takes exactly {facts.number}. Use the datalist of "
                f"`medseg prepare {facts.dataset}`, list them in yours, or name another section with --section."
            )
        return [found[member] for member in sorted(found)]

    return items

"""Test sets of a known number of cases with names of one form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import DataError
from medseg.submission import Item

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["fixed_items"]


def fixed_items(
    cases: Sequence[Case], title: str, *, number: int, pattern: str, example: str, member: str
) -> list[Item]:
    """The cases, sorted by id.

    Args:
        cases: of the datalist's section.
        title: of the challenge.
        number: how many it takes.
        pattern: regular expression of their ids, such as ``example``.
        member: name in the archive, with ``{case}``.

    Raises:
        DataError: a case of another name, or another number of cases.
    """

    for case in cases:
        if not re.fullmatch(pattern, case.id):
            raise DataError(
                f"{case.id} is no case of {title}; expected names such as {example} in the section. Name "
                "another with --section."
            )
    if len(cases) != number:
        raise DataError(
            f"The section has {len(cases)} cases; {title} takes exactly {number}. List them in the datalist, or name "
            "another section with --section."
        )
    ordered = sorted(cases, key=lambda case: case.id)
    return [Item(c.id, Path(c.images[0]), member.format(case=c.id)) for c in ordered]

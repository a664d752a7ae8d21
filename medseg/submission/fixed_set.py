"""Test sets of a known number of cases with names of one form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import DataError
from medseg.submission import Item

__all__ = ["fixed_items"]


def fixed_items(
    cases: Sequence[Mapping[str, Any]], title: str, *, number: int, pattern: str, example: str, member: str
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
    from medseg.data.datalist import images_of

    for case in cases:
        if not re.fullmatch(pattern, case["case_id"]):
            raise DataError(
                f"{case['case_id']} is no case of {title}; expected names such as {example} in the section. Name "
                "another with --section."
            )
    if len(cases) != number:
        raise DataError(
            f"The section has {len(cases)} cases; {title} takes exactly {number}. List them in the datalist, or name "
            "another section with --section."
        )
    ordered = sorted(cases, key=lambda case: case["case_id"])
    return [Item(c["case_id"], Path(images_of(c)[0]), member.format(case=c["case_id"])) for c in ordered]

"""ISIC 2016, part 1: a mask for each of the 379 test pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.datasets.isic import FACTS as DATASET
from medseg.errors import DataError
from medseg.submission import ChallengeFacts, Item

__all__ = ["FACTS", "items"]

FACTS = ChallengeFacts(
    title="ISIC 2016, part 1",
    dataset="isic",
    section="test",
    source="challenge.isic-archive.com",
    documented=(
        "one mask ISIC_0000003_Segmentation.png for each of the 379 test pictures, of its size",
        "PNG in grey of 8 bits: 255 inside the lesion, 0 outside",
    ),
    unverified=("one zip without folders",),
)


def items(cases: Sequence[Mapping[str, Any]]) -> list[Item]:
    """The test pictures, named ``ISIC_0000003_Segmentation.png`` and so on.

    Raises:
        DataError: the cases are not those of the test set.
    """
    from medseg.data.datalist import images_of

    for case in cases:
        if not re.fullmatch(r"ISIC_\d{7}", case["case_id"]):
            raise DataError(
                f"{case['case_id']} is no picture of ISIC; expected names such as ISIC_0000003 in the section. Name "
                "another with --section."
            )
    if len(cases) != DATASET.splits["test"]:
        raise DataError(
            f"The section has {len(cases)} cases; the challenge takes exactly {DATASET.splits['test']}. Use the "
            "datalist of `medseg prepare isic`, or name another section with --section."
        )
    return [
        Item(case["case_id"], Path(images_of(case)[0]), f"{case['case_id']}_Segmentation.png")
        for case in sorted(cases, key=lambda case: case["case_id"])
    ]

"""FLARE 2021: label maps of the 50 validation cases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import DataError
from medseg.submission import ChallengeFacts, Item

__all__ = ["FACTS", "items"]

FACTS = ChallengeFacts(
    title="FLARE 2021",
    dataset="flare",
    section="test",
    source="flare.grand-challenge.org",
    documented=(
        "50 validation images without references; the 100 test images are not given out, programs are handed in",
        "values 0 (background), 1 (liver), 2 (kidney), 3 (spleen) and 4 (pancreas)",
    ),
    unverified=(
        "names are the images' without _0000: validation_001.nii.gz",
        "one zip without folders",
        "voxel type uint8, on the image's grid",
    ),
)

_CASES = 50


def items(cases: Sequence[Mapping[str, Any]]) -> list[Item]:
    """The validation cases, named as their images are.

    Raises:
        DataError: the cases are not those of the validation set.
    """
    from medseg.data.datalist import images_of

    for case in cases:
        if not re.fullmatch(r"validation_\d{3}", case["case_id"]):
            raise DataError(
                f"{case['case_id']} is no validation case of FLARE 2021; expected names such as validation_001. Name "
                "another section with --section."
            )
    if len(cases) != _CASES:
        raise DataError(
            f"The section has {len(cases)} cases; the validation phase of FLARE 2021 takes exactly {_CASES}. List them "
            "in the datalist, or name another section with --section."
        )
    return [
        Item(case["case_id"], Path(images_of(case)[0]), f"{case['case_id']}.nii.gz")
        for case in sorted(cases, key=lambda case: case["case_id"])
    ]

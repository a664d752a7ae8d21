"""KiTS 2019: label maps of the 90 test cases (the later releases take programs, no label maps)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import DataError
from medseg.submission import ChallengeFacts, Item

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["FACTS", "items"]

FACTS = ChallengeFacts(
    title="KiTS 2019",
    dataset="kits19",
    section="test",
    source="kits19.grand-challenge.org",
    documented=(
        "90 test images (Heller et al. 2021), which follow the 210 training cases: case_00210 to case_00299",
        "values 0 (background), 1 (kidney) and 2 (tumour)",
    ),
    unverified=(
        "names prediction_00210.nii.gz and so on, in one zip without folders",
        "voxel type uint8, on the test image's grid",
        "KiTS 2021 and 2023 take containers, no label maps",
    ),
)

_NUMBERS = range(210, 300)


def items(cases: Sequence[Case]) -> list[Item]:
    """The test cases, named ``prediction_00210.nii.gz`` and so on.

    Raises:
        DataError: the cases are not those of the test set.
    """

    found: dict[int, Case] = {}
    for case in cases:
        match = re.fullmatch(r"(?:case_)?(\d{5})(?:_imaging)?", case.id)
        if match is None or int(match[1]) not in _NUMBERS:
            raise DataError(
                f"{case.id} is no test case of KiTS 2019; expected case_00210 to case_00299 in the section. "
                "Name another with --section."
            )
        found[int(match[1])] = case
    missing = [f"case_{number:05}" for number in _NUMBERS if number not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(_NUMBERS)} test cases of KiTS 2019 are not in the section "
            f"({', '.join(missing[:5])}); add them to the datalist, or name the section with --section."
        )
    return [
        Item(case.id, Path(case.images[0]), f"prediction_{number:05}.nii.gz") for number, case in sorted(found.items())
    ]

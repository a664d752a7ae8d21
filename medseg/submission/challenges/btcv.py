"""BTCV, abdomen: label maps of the 20 test cases in one archive."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import ConfigError, DataError
from medseg.submission import ChallengeFacts, Item

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["FACTS", "items"]

FACTS = ChallengeFacts(
    title="BTCV",
    dataset="btcv",
    section="test",
    source="Synapse syn3193805",
    documented=("one label map for each of the 20 test images, 0061 to 0080",),
    unverified=(
        "names img0061.nii.gz … as the published system hands them in; --prefix label gives label0061.nii.gz",
        "one zip without folders",
        "voxel type uint8, values 0 to 13, on the test image's grid",
    ),
)

_NUMBERS = range(61, 81)


def items(cases: Sequence[Case], *, prefix: str = "img") -> list[Item]:
    """The test cases, named ``<prefix>0061.nii.gz`` and so on.

    Args:
        cases: of the datalist's section.
        prefix: ``img`` or ``label``.

    Raises:
        ConfigError: another prefix.
        DataError: the cases are not those of the test set.
    """

    if prefix not in ("img", "label"):
        raise ConfigError(f"prefix '{prefix}' is unknown; use 'img' or 'label'.")
    found: dict[int, Case] = {}
    for case in cases:
        match = re.fullmatch(r"(?:img|label)?(\d{4})", case.id)
        if match is None or int(match[1]) not in _NUMBERS:
            raise DataError(f"{case.id} is no test case of BTCV; expected img0061 to img0080 in the section.")
        found[int(match[1])] = case
    missing = [f"img{number:04}" for number in _NUMBERS if number not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(_NUMBERS)} test cases of BTCV are not in the section ({', '.join(missing[:5])}); "
            "use data_json/btcv.json, or name the section with --section."
        )
    return [
        Item(case.id, Path(case.images[0]), f"{prefix}{number:04}.nii.gz") for number, case in sorted(found.items())
    ]

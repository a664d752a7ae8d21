"""BTCV, abdomen: label maps of the 20 test cases in one archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from medseg.errors import ConfigError
from medseg.submission import ChallengeFacts, SubmittedCase
from medseg.submission.fixed_set import fixed_cases

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["FACTS", "submitted"]

FACTS = ChallengeFacts(
    title="BTCV",
    dataset="btcv",
    section="test",
    source="Synapse syn3193805",
    examples=("img0061", "0061", "label0061"),
    documented=("one label map for each of the 20 test images, 0061 to 0080",),
    unverified=(
        "names img0061.nii.gz … as the published system hands them in; --prefix label gives label0061.nii.gz",
        "one zip without folders",
        "voxel type uint8, values 0 to 13, on the test image's grid",
    ),
    number=20,
    case=r"(?:img|label)?(00(?:6[1-9]|7\d|80))",
    member="img{0}.nii.gz",
)


def submitted(cases: Sequence[Case], *, prefix: str = "img") -> list[SubmittedCase]:
    """The test cases, named ``<prefix>0061.nii.gz`` and so on.

    Args:
        cases: cases of the datalist's section.
        prefix: ``img`` or ``label``.

    Raises:
        ConfigError: another prefix.
        DataError: the cases are not those of the test set.
    """
    if prefix not in ("img", "label"):
        raise ConfigError(f"prefix '{prefix}' is unknown; use 'img' or 'label'.")
    return fixed_cases(replace(FACTS, member=FACTS.member.replace("img", prefix)))(cases)

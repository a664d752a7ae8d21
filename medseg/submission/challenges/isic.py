"""ISIC 2016, part 1: a mask for each of the 379 test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medseg.datasets.isic import FACTS as DATASET
from medseg.submission import ChallengeFacts, SubmittedCase
from medseg.submission.fixed_set import fixed_cases

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["FACTS", "submitted"]

FACTS = ChallengeFacts(
    title="ISIC 2016, part 1",
    dataset="isic",
    section="test",
    source="challenge.isic-archive.com",
    examples=("ISIC_0000003",),
    documented=("379 test images, masks of their own size",),
    unverified=(
        "names are those of the published masks: ISIC_0000003_Segmentation.png",
        "grey of 8 bits with the values 0 and 255, as the published masks",
        "one zip without folders",
    ),
    number=DATASET.splits["test"],
    case=r"ISIC_\d{7}",
    member="{case}_Segmentation.png",
)


def submitted(cases: Sequence[Case]) -> list[SubmittedCase]:
    """The test images, named ``ISIC_0000003_Segmentation.png`` and so on.

    Raises:
        DataError: the cases are not those of the test set.
    """
    return fixed_cases(cases, FACTS)

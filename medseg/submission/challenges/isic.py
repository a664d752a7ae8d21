"""ISIC 2016, part 1: a mask for each of the 379 test images."""

from __future__ import annotations

from medseg.datasets.isic import FACTS as DATASET
from medseg.submission import ChallengeFacts
from medseg.submission.fixed_set import fixed_cases

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

submitted = fixed_cases(FACTS)

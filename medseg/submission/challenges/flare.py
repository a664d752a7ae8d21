"""FLARE 2021: label maps of the 50 validation cases."""

from __future__ import annotations

from medseg.submission import ChallengeFacts
from medseg.submission.fixed_set import fixed_cases

__all__ = ["FACTS", "submitted"]

FACTS = ChallengeFacts(
    title="FLARE 2021",
    dataset="flare",
    section="test",
    source="flare.grand-challenge.org",
    examples=("validation_001",),
    documented=(
        "50 validation images without references; the 100 test images are not given out (Ma et al. 2022)",
        "values 0 (background), 1 (liver), 2 (kidney), 3 (spleen) and 4 (pancreas)",
    ),
    unverified=(
        "names are the images' without _0000: validation_001.nii.gz",
        "one zip without folders",
        "voxel type uint8, on the image's grid",
    ),
    number=50,
    case=r"validation_\d{3}",
)

submitted = fixed_cases(FACTS)

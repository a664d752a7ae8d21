"""KiTS 2019: label maps of the 90 test cases (the later releases take programs, no label maps)."""

from __future__ import annotations

from medseg.submission import ChallengeFacts
from medseg.submission.fixed_set import fixed_cases

__all__ = ["FACTS", "submitted"]

FACTS = ChallengeFacts(
    title="KiTS 2019",
    dataset="kits19",
    section="test",
    source="kits19.grand-challenge.org",
    examples=("case_00210", "00210", "case_00210_imaging"),
    documented=(
        "90 test images (Heller et al. 2021), which follow the 210 training cases: case_00210 to case_00299",
        "values 0 (background), 1 (kidney) and 2 (tumour)",
    ),
    unverified=(
        "names prediction_00210.nii.gz and so on, in one zip without folders",
        "voxel type uint8, on the test image's grid",
        "KiTS 2021 and 2023 take containers, no label maps",
    ),
    number=90,
    case=r"(?:case_)?(002[1-9]\d)(?:_imaging)?",
    member="prediction_{0}.nii.gz",
)

submitted = fixed_cases(FACTS)

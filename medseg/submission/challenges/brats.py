"""BraTS, adult glioma: label maps of the validation cases, whose references are hidden; 2023, and 2018 to 2021."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medseg.errors import DataError
from medseg.submission import ChallengeFacts, SubmittedCase

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["FACTS", "submitted"]

FACTS = ChallengeFacts(
    title="BraTS",
    dataset="brats",
    section="test",
    source="synapse.org/brats (2023), ipp.cbica.upenn.edu (2018 to 2020)",
    examples=("BraTS-GLI-00001-000", "BraTS2021_00001", "BraTS20_Validation_001"),
    documented=(
        "label maps on the images' grid, 240×240×155 voxels (Baid et al. 2021)",
        "in 2023 (BraTS-GLI) values 0, 1 (necrosis), 2 (edema) and 3 (enhancing)",
        "in 2018 to 2021 (Brats18, BraTS19, BraTS20, BraTS2021) values 0, 1 (necrosis), 2 (edema) and 4 (enhancing)",
    ),
    unverified=(
        "names are the cases': BraTS-GLI-00001-000.nii.gz, BraTS2021_00001.nii.gz, BraTS20_Validation_001.nii.gz",
        "one zip without folders",
        "voxel type uint8",
        "the number of validation cases: all of the section are submitted",
    ),
)

# The case names of a release and the values of its label maps.
_RELEASES = (
    (re.compile(r"BraTS-[A-Za-z]+-\d{5}-\d{3}"), (0, 1, 2, 3)),
    (re.compile(r"(?:Brats18|BraTS19|BraTS20|BraTS2021)_\w+"), (0, 1, 2, 4)),
)


def submitted(cases: Sequence[Case]) -> list[SubmittedCase]:
    """The cases, named as they are.

    Raises:
        DataError: there is none, a case is none of BraTS's or has a label, or releases are mixed.
    """

    if not cases:
        raise DataError(
            "The section is empty; list the validation cases of BraTS as 'test' (`medseg datalist … --test DIR`), or "
            "name their section with --section."
        )
    found = []
    for case in cases:
        values = [values for pattern, values in _RELEASES if pattern.fullmatch(case.id)]
        if not values:
            raise DataError(
                f"{case.id} is not a case of BraTS; expected names such as BraTS-GLI-00001-000 or BraTS2021_00001 "
                "as 'case_id' of the datalist."
            )
        if case.label:
            raise DataError(
                f"{case.id} has a label, so it is of the training data; the challenge takes validation cases, "
                "whose references are hidden. Name their section with --section."
            )
        found.append(SubmittedCase(case, f"{case.id}.nii.gz", values[0]))
    if len({one.values for one in found}) > 1:
        raise DataError(
            "The section mixes cases of BraTS 2023 and of older releases, whose labels differ; submit them apart."
        )
    return sorted(found, key=lambda one: one.case.id)

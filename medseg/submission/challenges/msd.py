"""Any task of the Medical Segmentation Decathlon: label maps of the test images that its ``dataset.json`` lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import ConfigError, DataError, few
from medseg.submission import ChallengeFacts, SubmittedCase

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["FACTS", "submitted"]

FACTS = ChallengeFacts(
    title="Medical Segmentation Decathlon",
    dataset="msd",
    section="test",
    source="decathlon-10.grand-challenge.org",
    examples=("la_001",),
    documented=(
        "one label map for each test image of dataset.json, with its name (la_001.nii.gz), on its grid, of "
        "declared values",
    ),
    unverified=(
        "one zip without folders; --folder Task04_Hippocampus puts the files into one",
        "voxel type uint8",
        "the names and label values are the archive's where the datalist is its dataset.json, or was made from it; "
        "--dataset_json FILE holds a datalist of another layout against it",
    ),
)


def submitted(
    cases: Sequence[Case], *, dataset_json: str | None = None, folder: str | None = None
) -> list[SubmittedCase]:
    """The test images, named as they are.

    Args:
        cases: cases of the datalist's section.
        dataset_json: the task's, which names the test images and the label values.
        folder: in the archive.

    Raises:
        ConfigError: ``folder`` is a path.
        DataError: no case, or others than ``dataset_json`` names.
    """
    from medseg.transforms.reader import stem_of

    if folder is not None and (not folder.strip(". ") or "/" in folder or "\\" in folder):
        raise ConfigError(f"folder {folder!r} is not a valid folder name; expected one such as Task04_Hippocampus.")
    for case in cases:
        image = case.images[0]
        if stem_of(image).removesuffix("_0000") != case.id:
            raise DataError(
                f"{case.id} is not the name of its image {Path(image).name}; the Decathlon takes label maps "
                "named as the images. Leave 'case_id' out of the datalist."
            )
    values: tuple[int, ...] = ()
    if dataset_json is not None:
        values = _refuse_others(cases, Path(dataset_json))
    if not cases:
        raise DataError("The section is empty; the Decathlon takes its test images. Name their section with --section.")
    prefix = f"{folder}/" if folder else ""
    return [
        SubmittedCase(case, f"{prefix}{case.id}.nii.gz", values) for case in sorted(cases, key=lambda case: case.id)
    ]


def _refuse_others(cases: Sequence[Case], source: Path) -> tuple[int, ...]:
    """The label values of a task whose test images these are."""
    from medseg.data.datalist_file import read_datalist

    task = read_datalist(source)
    expected = {case.id for case in task.sections["test"]}
    found = {case.id for case in cases}
    if found != expected:
        lacking, foreign = sorted(expected - found), sorted(found - expected)
        parts = [f"lacks {few(lacking)}"] if lacking else []
        parts += [f"has {few(foreign)} besides"] if foreign else []
        raise DataError(
            f"{source} lists {len(expected)} test images, the section has {len(found)}: it {' and '.join(parts)}. Use "
            "the datalist of that task, or name another section with --section."
        )
    return tuple(sorted(task.label_space.fragment().declared))

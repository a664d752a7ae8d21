"""Pancreas-CT of The Cancer Imaging Archive: the pancreas in portal-venous CT; DICOM images, NIfTI labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.datasets import DatasetFacts
from medseg.errors import DataError

if TYPE_CHECKING:
    from medseg.data.isotropic import Pair

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="Pancreas-CT",
    spatial_dims=3,
    modality=("CT",),
    labels={0: "background", 1: "pancreas"},
    source="cancerimagingarchive.net/collection/pancreas-ct; Roth et al. 2016, doi 10.7937/K9/TCIA.2016.tNB1kqBU",
    terms="CC BY 3.0",
    layout="PANCREAS_0001/…/*.dcm, … PANCREAS_0082/…/*.dcm and label0001.nii.gz, … label0082.nii.gz, in any folders",
    splits={"training": 80},
)

# Cases 25 and 70 were withdrawn: both were case 2, cropped differently. Their labels are still in the archive.
_NUMBERS = tuple(number for number in range(1, 83) if number not in (25, 70))


def prepare(raw_dir: str | Path, out_dir: str | Path, *, num_folds: int = 5, seed: int = 0) -> Path:
    """Write ``<out_dir>/tcia_pancreas.json`` and, beside it, ``PANCREAS_0001.nii.gz``, ``PANCREAS_0001_gt.nii.gz`` ….

    All cases are in ``training``; there is no published split. Images keep their grid. The headers of the label files
    do not give their place: their slices belong to the images' in the order of the instance numbers, as in published
    conversions (Zhou et al. 2017, arXiv 1612.08230).

    Args:
        raw_dir: the folder that holds the images' folders and the labels, at any depth.
        out_dir: folder of the datalist and all copies.
        num_folds: number of folds of the training cases.
        seed: random seed of the folds.

    Raises:
        DataError: cases are missing.
        CasesFailed: some cannot be converted; the others are done.
    """
    from medseg.data.converted_pairs import convert_pairs

    raw = Path(raw_dir)
    cases = [f"PANCREAS_{number:04}" for number in _NUMBERS]
    labels = {f"PANCREAS_{path.name[5:9]}": path for path in raw.rglob("label[0-9][0-9][0-9][0-9].nii*")}
    slices = {case: sorted({file.parent for file in raw.glob(f"**/{case}/**/*.dcm")}) for case in cases}
    missing = [case for case in cases if case not in labels or not slices[case]]
    if missing:
        raise DataError(
            f"{raw} has {len(cases) - len(missing)} of {len(cases)} cases of {FACTS.title}, without "
            f"{', '.join(missing[:5])}; expected {FACTS.layout}. Download both, and name the folder of both."
        )
    return convert_pairs(
        FACTS.table(),
        {"training": [{"case_id": case} for case in cases]},
        lambda case: _pair(slices[case], labels[case]),
        Path(out_dir) / "tcia_pancreas.json",
        form={},
        num_folds=num_folds,
        seed=seed,
    )


def _pair(folders: Sequence[Path], label_file: Path) -> Pair:
    """The series whose slices are as many as the label's, and the label on its grid."""
    import SimpleITK as sitk

    from medseg.data.dicom_cases import series_of

    values = sitk.GetArrayFromImage(sitk.ReadImage(str(label_file)))
    if len(folders) > 1:
        raise DataError(
            f"{folders[0]} and {folders[1]} hold slices of one case; expected one series. Keep the right one."
        )
    image, series = series_of(folders[0], len(values))
    if values.shape != image.GetSize()[::-1]:
        raise DataError(
            f"{label_file.name} has {values.shape[::-1]} voxels, the slices in {folders[0]} {image.GetSize()}; "
            "expected equal numbers. Download both again."
        )
    numbers = [frame.number for frame in sorted(series.frames, key=lambda frame: frame.place)]
    down = numbers[0] > numbers[-1]
    if len(set(numbers)) < len(numbers) or numbers != sorted(numbers, reverse=down):
        raise DataError(
            f"{folders[0]}: the instance numbers of the slices do not run along the body; expected one after the "
            "other, since the label's slices belong to them. Download the case again."
        )
    label = sitk.GetImageFromArray(values[::-1] if down else values)
    label.CopyInformation(image)
    return image, label

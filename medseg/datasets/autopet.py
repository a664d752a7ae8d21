"""AutoPET: tumour lesions in whole-body FDG PET, at 1.5 mm as for Hermes, or PET and CT as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.datasets import DatasetFacts
from medseg.errors import ConfigError, DataError, few

if TYPE_CHECKING:
    from medseg.data.isotropic import Pair

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="AutoPET (FDG-PET-CT-Lesions)",
    spatial_dims=3,
    modality=("PET SUV",),
    labels={0: "background", 1: "FDG-avid tumour lesion"},
    source="autopet.grand-challenge.org; TCIA, FDG-PET-CT-Lesions, as NIfTI; Gatidis et al. 2022, Scientific Data 9, "
    "601",
    terms="the terms accepted at TCIA",
    layout="PETCT_0011f3deaf/<study>/{SUV.nii.gz, SEG.nii.gz, CTres.nii.gz}, …: 1014 studies of 900 patients",
    splits={"training": 1014},
)

_STUDIES = 1014
_CONTEXT = (20, 30, 30)  # voxels (z, y, x)
_LEAST = 128  # voxels of the published patch, to which small boxes are enlarged
_FORMS = ("isotropic", "published", "native")


def prepare(
    raw_dir: str | Path,
    out_dir: str | Path,
    *,
    form: str = "isotropic",
    num_folds: int = 5,
    seed: int = 0,
    crop: bool = True,
    partial: bool = False,
) -> Path:
    """Write ``<out_dir>/autopet.json``, folds by patient, and, beside it, ``PETCT_0011f3deaf_0.nii.gz`` … of PET.

    A case is its patient and the number of the study in the order of the folders' names, which begin with dates and
    reach no output. Hermes numbered them in the order of its disk: its sections, ``data_json/hermes/autopet.json``, fit
    the files made here, but for the studies of a patient, which may be interchanged.

    Args:
        form: ``isotropic`` (1.5 mm), ``published`` (1.5 mm in the plane, the spacing along z left as it is) or
            ``native`` (two channels, PET and the CT at its grid, uncropped, as links).
        num_folds: number of folds of the patients.
        seed: random seed of the folds.
        crop: to the lesions and 20, 30 and 30 voxels (z, y, x) around them, to at least 128 where there is room, as
            published; studies without a lesion stay whole.
        partial: accept missing studies and use those that are there.

    Raises:
        ConfigError: another form.
        DataError: studies or files are missing.
        CasesFailed: some cannot be converted; the others are done.
    """
    from medseg.data.converted_pairs import convert_pairs

    if form not in _FORMS:
        raise ConfigError(f"AutoPET has no form '{form}'; use {', '.join(_FORMS)}.")
    raw = Path(raw_dir)
    files = ("SUV.nii.gz", "CTres.nii.gz", "SEG.nii.gz") if form == "native" else ("SUV.nii.gz", "SEG.nii.gz")
    studies = _studies(raw, files, partial)
    cases: list[dict[str, Any]] = [{"case_id": case, "subject": case.rpartition("_")[0]} for case in studies]
    path = Path(out_dir) / "autopet.json"
    if form == "native":
        return _link(studies, files, cases, path, num_folds, seed)

    def make(case: str) -> Pair:
        return _convert(studies[case], along_z=form == "isotropic", crop=crop)

    return convert_pairs(
        FACTS.table(),
        {"training": cases},
        make,
        path,
        form={"form": form, "crop": crop},
        num_folds=num_folds,
        seed=seed,
    )


def _studies(raw: Path, files: tuple[str, ...], partial: bool) -> dict[str, Path]:
    """Case -> its study's folder, in the order of the patients."""
    found: dict[str, Path] = {}
    lacking = []
    for patient in sorted(path for path in raw.glob("PETCT_*") if path.is_dir()):
        for number, study in enumerate(sorted(path for path in patient.iterdir() if path.is_dir())):
            case = f"{patient.name}_{number}"
            missing = [f"{case}: {file}" for file in files if not (study / file).is_file()]
            lacking += missing
            if not missing:
                found[case] = study
    if found and (partial or (len(found) == _STUDIES and not lacking)):
        return found
    hint = FACTS.hint(raw, "*/PETCT_*", otherwise="Download the others, or use --partial")
    listed = f"; missing are {few(lacking)}" if lacking else ""
    raise DataError(f"{raw} has {len(found)} of {_STUDIES} studies of AutoPET{listed}. {hint}")


def _link(
    studies: dict[str, Path], files: tuple[str, ...], cases: list[dict[str, Any]], path: Path, num_folds: int, seed: int
) -> Path:
    """Links to PET, CT and label, by which no study's date is told, and their list."""
    from medseg.data.convert import convert_files, link_or_copy

    links = []
    for case in cases:
        name = case["case_id"]
        case["image"], case["label"] = [f"{name}_pet.nii.gz", f"{name}_ct.nii.gz"], f"{name}_label.nii.gz"
        targets = [path.parent / file for file in (*case["image"], case["label"])]
        links += [(studies[name] / file, target) for file, target in zip(files, targets, strict=True)]
    convert_files(links, link_or_copy)
    channels = {"0": "PET SUV", "1": "CT"}
    return FACTS.write(path, path.parent, {"training": cases}, num_folds=num_folds, seed=seed, modality=channels)


def _convert(study: Path, *, along_z: bool, crop: bool) -> Pair:
    from medseg.data.isotropic import crop_to_label, read_pair, to_isotropic

    image, label = read_pair(study / "SUV.nii.gz", study / "SEG.nii.gz")
    image, label = to_isotropic(image, along_z=along_z), to_isotropic(label, label=True, along_z=along_z)
    return crop_to_label(image, label, _CONTEXT, least=_LEAST) if crop else (image, label)

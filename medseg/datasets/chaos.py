"""CHAOS: abdominal organs in MR (T1 in and out of phase, T2) with the sections of Hermes, or the liver in CT; DICOM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from medseg.datasets import DatasetFacts
from medseg.errors import ConfigError, DataError, few

if TYPE_CHECKING:
    import SimpleITK

    from medseg.data.isotropic import Pair

__all__ = ["FACTS", "TEST", "VALIDATION", "prepare"]

FACTS = DatasetFacts(
    title="CHAOS",
    spatial_dims=3,
    modality=("MRI",),
    labels={0: "background", 1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"},
    source="zenodo.org/records/3431873, CHAOS_Train_Sets.zip; Kavur et al. 2021, Medical Image Analysis 69, 101950",
    terms="CC BY-NC-SA 4.0",
    layout="MR/1/{T1DUAL/{DICOM_anon/{InPhase, OutPhase}/*.dcm, Ground/*.png}, T2SPIR/{DICOM_anon/*.dcm, Ground/*.png}}"
    ", …; for --modality CT (liver) CT/1/{DICOM_anon/*.dcm, Ground/*.png}, …",
    splits={"training": 45, "validation": 3, "test": 12},
)

_SUBJECTS = 20  # with labels, of each modality
_CONTEXT = (20, 20, 20)  # voxels (z, y, x)
VALIDATION = (22,)
TEST = (31, 5, 32, 36)

_MR_VALUES = {0: 0, 63: 1, 126: 2, 189: 3, 252: 4}  # grey value in the PNG files -> label
_CT_VALUES = {0: 0, 255: 1}


class _Sequence(NamedTuple):
    """Where the slices and the label images of one sequence are below a subject's folder."""

    images: str
    labels: str
    modality: str


_SEQUENCES = {
    "MR": {
        "t1_in": _Sequence("T1DUAL/DICOM_anon/InPhase", "T1DUAL/Ground", "t1"),
        "t1_out": _Sequence("T1DUAL/DICOM_anon/OutPhase", "T1DUAL/Ground", "t1"),
        "t2": _Sequence("T2SPIR/DICOM_anon", "T2SPIR/Ground", "t2"),
    },
    "CT": {"ct": _Sequence("DICOM_anon", "Ground", "ct")},
}


def prepare(
    raw_dir: str | Path,
    out_dir: str | Path,
    *,
    modality: str = "MR",
    num_folds: int = 5,
    seed: int = 0,
    isotropic: bool = True,
    crop: bool = True,
) -> Path:
    """Write ``<out_dir>/chaos_mr.json`` or ``chaos_ct.json`` and, beside it, volumes of 1.5 mm, ``20_t1_in.nii.gz`` ….

    The three MR sequences of a subject are three cases of one ``subject``; the label of T1 belongs to both phases.
    Sections of MR are the publication's; of CT, which it does not use, all 20 subjects are training cases.

    Args:
        raw_dir: ``Train_Sets``, the folder that holds ``MR`` and ``CT``.
        modality: ``MR`` or ``CT``.
        num_folds: number of folds of the training subjects.
        seed: random seed of the folds.
        isotropic: volumes of 1.5 mm; otherwise they keep their grid.
        crop: to the labels and 20 voxels around them, as published, of the test cases too, which makes those easier.

    Raises:
        ConfigError: another modality.
        DataError: subjects or folders are missing.
        CasesFailed: some cannot be converted; the others are done.
    """
    from medseg.data.converted_pairs import convert_pairs
    from medseg.data.isotropic import to_form

    if modality not in _SEQUENCES:
        raise ConfigError(f"CHAOS has no modality '{modality}'; use {' or '.join(_SEQUENCES)}.")
    raw, sequences = Path(raw_dir), _SEQUENCES[modality]
    subjects = _subjects(raw, modality)
    cases = {f"{subject}_{name}": (subject, name) for subject in subjects for name in sequences}
    values = _MR_VALUES if modality == "MR" else _CT_VALUES

    def make(case: str) -> Pair:
        subject, name = cases[case]
        folder = raw / modality / subject
        pair = _read(folder / sequences[name].images, folder / sequences[name].labels, values)
        return to_form(pair, isotropic=isotropic, context=_CONTEXT if crop else None)

    held_out = {"validation": VALIDATION, "test": TEST} if modality == "MR" else {}
    parts = {str(number): section for section, numbers in held_out.items() for number in numbers}
    sections: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "test": []}
    for case, (subject, name) in cases.items():
        entry = {"case_id": case, "subject": subject, "modality": sequences[name].modality}
        sections[parts.get(subject, "training")].append(entry)
    own: dict[str, Any] = (
        {} if modality == "MR" else {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}}
    )
    return convert_pairs(
        FACTS.table(name=f"CHAOS, {modality}", **own),
        sections,
        make,
        Path(out_dir) / f"chaos_{modality.lower()}.json",
        form={"isotropic": isotropic, "crop": crop},
        num_folds=num_folds,
        seed=seed,
    )


def _subjects(raw: Path, modality: str) -> list[str]:
    """The subjects' numbers, sorted; each has slices and label images of every sequence."""
    folders = sorted((path for path in raw.glob(f"{modality}/*") if path.name.isdigit()), key=lambda p: int(p.name))
    lacking = [
        f"{modality}/{folder.name}/{part}"
        for folder in folders
        for sequence in _SEQUENCES[modality].values()
        for part, pattern in ((sequence.images, "*.dcm"), (sequence.labels, "*.png"))
        if not any((folder / part).glob(pattern))
    ]
    if len(folders) == _SUBJECTS and not lacking:
        return [folder.name for folder in folders]
    what = f"{len(folders)} of {_SUBJECTS} subjects of CHAOS, {modality}"
    if lacking:
        what += f", without files in {few(dict.fromkeys(lacking))}"
    hint = FACTS.hint(raw, f"*/{modality}", f"*/*/{modality}", otherwise="Unpack CHAOS_Train_Sets again")
    raise DataError(f"{raw} has {what}. {hint}")


def _read(images: Path, labels: Path, values: Mapping[int, int]) -> Pair:
    from medseg.data.dicom_cases import series_of

    files = sorted(labels.glob("*.png"))
    image, series = series_of(images, len(files))
    return image, _label(image, series.files, files, values)


def _label(
    image: SimpleITK.Image, slices: list[Path], labels: list[Path], values: Mapping[int, int]
) -> SimpleITK.Image:
    """Label images belong to slices in the order of their names, which may run up or down along the body."""
    import numpy as np
    import SimpleITK as sitk
    from PIL import Image

    places = {file: index for index, file in enumerate(slices)}
    order = [places[file] for file in sorted(slices)]
    if order not in (sorted(order), sorted(order, reverse=True)):
        raise DataError(
            f"{slices[0].parent}: the order of the file names is not that of the slices; expected names numbered along "
            "the body, by which the label images belong to them. Copy the folder from the archive again."
        )
    columns, rows, depth = image.GetSize()
    label = np.zeros((depth, rows, columns), np.uint8)
    table = np.full(256, 255, np.uint8)
    table[list(values)] = list(values.values())
    for index, path in zip(order, labels, strict=True):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L"))
        if pixels.shape != (rows, columns):
            raise DataError(
                f"{path} has {pixels.shape[0]}×{pixels.shape[1]} pixels, its slice {rows}×{columns}; expected equal "
                "numbers. Copy the folder from the archive again."
            )
        label[index] = table[pixels]
        if (label[index] == 255).any():
            found = ", ".join(map(str, np.unique(pixels)))
            raise DataError(
                f"{path} has the values {found}; expected {', '.join(map(str, values))}. "
                "Copy the folder from the archive again."
            )
    made = sitk.GetImageFromArray(label)
    made.CopyInformation(image)
    return made

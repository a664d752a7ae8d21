"""Brain structures: grey matter, white matter and fluid in T1 MR (DLBS), labels made of probability maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medseg.datasets import DatasetFacts
from medseg.errors import DataError

if TYPE_CHECKING:
    from medseg.data.isotropic import Pair

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="Brain structures (DLBS)",
    spatial_dims=3,
    modality=("T1 MRI",),
    labels={0: "background", 1: "grey matter", 2: "white matter", 3: "cerebrospinal fluid"},
    source="Dallas Lifespan Brain Study, fcon_1000.projects.nitrc.org/indi/retro/dlbs.html; the probability maps are "
    "those that Hermes was trained on (arXiv 2306.02416)",
    terms="the terms stated with the download",
    layout="{train, valid, test}/{image/NAME_img.nii, mask/NAME_probmask_{graymatter, whitematter, csf}.nii}, .gz or "
    "not",
)

_FOLDERS = {"training": "train", "validation": "valid", "test": "test"}
_MAPS = ("graymatter", "whitematter", "csf")  # in the order of the labels


def prepare(
    raw_dir: str | Path, out_dir: str | Path, *, num_folds: int = 5, seed: int = 0, isotropic: bool = True
) -> Path:
    """Write ``<out_dir>/brain_structure.json`` and, beside it, volumes of 1.5 mm, ``NAME.nii.gz``, ``NAME_gt.nii.gz``.

    Images by B-splines, maps linearly; a voxel's label is the largest of the three maps, however small, and background
    where all are 0, as published. Sections are the archive's folders; those of Hermes are in
    ``data_json/hermes/brain_structure.json``, which fits the files made here.

    Args:
        num_folds: number of folds of the training cases.
        seed: random seed of the folds.
        isotropic: volumes of 1.5 mm; otherwise they keep their grid.

    Raises:
        DataError: maps are missing, or there is no image.
        CasesFailed: some cannot be converted; the others are done.
    """
    from medseg.data.converted_pairs import convert_pairs

    raw = Path(raw_dir)
    images = {section: _images(raw / folder / "image") for section, folder in _FOLDERS.items()}
    cases = {name: path for found in images.values() for name, path in found.items()}
    if len(cases) < sum(map(len, images.values())):
        raise DataError(f"{raw} has a case in two of train, valid and test; expected each once. Unpack it again.")
    maps = {name: _maps(path, name) for name, path in cases.items()}
    FACTS.require(raw, [path.relative_to(raw).as_posix() for found in maps.values() for path in found])
    if not images["training"]:
        raise DataError(f"{raw / 'train' / 'image'} holds no image; expected {FACTS.layout}. Unpack the archive again.")

    def make(name: str) -> Pair:
        return _convert(cases[name], maps[name], 1.5 if isotropic else None)

    return convert_pairs(
        FACTS.table(),
        {section: [{"case_id": name} for name in found] for section, found in images.items()},
        make,
        Path(out_dir) / "brain_structure.json",
        form={"isotropic": isotropic},
        num_folds=num_folds,
        seed=seed,
    )


def _images(folder: Path) -> dict[str, Path]:
    return {path.name.split("_img.nii")[0]: path for path in sorted(folder.glob("*_img.nii*"))}


def _maps(image: Path, name: str) -> list[Path]:
    folder, suffix = image.parent.parent / "mask", image.name.removeprefix(f"{name}_img")
    return [folder / f"{name}_probmask_{tissue}{suffix}" for tissue in _MAPS]


def _convert(image_file: Path, map_files: list[Path], spacing: float | None) -> Pair:
    import numpy as np
    import SimpleITK as sitk

    from medseg.data.isotropic import refuse_other_grid, resample

    image, *maps = (sitk.ReadImage(str(path)) for path in (image_file, *map_files))
    for probability, path in zip(maps, map_files, strict=True):
        refuse_other_grid(image, probability, image_file.name, path.name)
        probability.CopyInformation(image)
    if spacing is not None:
        image = resample(image, spacing, [(range(3), sitk.sitkBSpline)])
        maps = [resample(probability, spacing, [(range(3), sitk.sitkLinear)]) for probability in maps]
    values = np.stack([sitk.GetArrayFromImage(probability) for probability in maps])
    largest = np.where((values == 0).all(0), 0, values.argmax(0) + 1)
    label = sitk.GetImageFromArray(largest.astype(np.uint8))
    label.CopyInformation(image)
    return image, label

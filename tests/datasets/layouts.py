"""Small raw folders of the true layout of every data set: names, formats and label values as published.

Each function lays one out in ``root`` and returns it. Where an archive has many volumes to convert, ``patch`` makes the
module expect fewer; lists alone are made of empty files in full number.
"""

from __future__ import annotations

import json
import locale
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medseg.datasets import dataset_module

ROOT = Path(__file__).parents[2]
PATIENT = "Secret^Patient"  # in every DICOM file; must reach no output
CONTRASTS_2023 = ("t1c", "t1n", "t2f", "t2w", "seg")

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 255, (10, 12, 3), np.uint8)
MASK = np.zeros((10, 12), np.uint8)
MASK[2:5, 3:9] = 255

IMAGE = RNG.integers(-200, 300, (4, 6, 6)).astype(np.int16)
LABEL = np.zeros((4, 6, 6), np.uint8)
LABEL[1:3, 2:4, 2:5] = 1
PANCREAS = LABEL.copy()
PANCREAS[2] = 0


def labels_to(highest: int, number: int = 0) -> np.ndarray:
    """``LABEL`` with the values 1 to ``highest``; the highest in every case, the others in turn by its number."""
    array, voxels = LABEL.copy(), LABEL.astype(bool)
    array[voxels] = np.resize(np.roll(np.arange(1, highest + 1), -11 * number), 12)
    array[1, 2, 2] = highest
    return array


# ---------------------------------------------------------------------- files
def touch(root: Path, *files: str) -> Path:
    """Empty files."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def label_files(root: Path, values: Sequence[int], *files: str) -> Path:
    """Files of one label map that holds all of the values."""
    volume(root / files[0], np.resize(np.uint8(values), (2, 4, 4)))
    content = (root / files[0]).read_bytes()
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(content)
    return root


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def volume(path: Path, array: np.ndarray, spacing: Sequence[float] = (1.5, 1.5, 1.5)) -> None:
    """An array ``(z, y, x)``, or ``(t, z, y, x)``, with its corner away from 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing(spacing)
    image.SetOrigin([5.0, -7.0, 11.0, 0.0][: array.ndim])
    sitk.WriteImage(image, str(path))


def dicom(
    folder: Path,
    array: np.ndarray,
    spacing: Sequence[float],
    *,
    prefix: str = "IMG-0001",
    series: int = 1,
    down: bool = False,
    places: Sequence[float] | None = None,
) -> None:
    """Slices ``IMG-0001-00001.dcm`` … of an array ``(z, y, x)``; ``down``: numbered from its last slice on; ``places``
    along z in mm where they are uneven.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = places or [index * spacing[2] for index in range(len(array))]
    language = locale.setlocale(locale.LC_CTYPE)  # which writing DICOM turns to "C", and with it Python's text files
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    order = range(len(array))[:: -1 if down else 1]
    for number, index in enumerate(order, 1):
        image = sitk.GetImageFromArray(array[index])
        image.SetSpacing(spacing[:2])
        for tag, value in {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"1.2.826.0.1.3680043.8.498.{series}.{number}",
            "0008|0020": "19990131",
            "0008|0060": "MR",
            "0010|0010": PATIENT,
            "0010|0030": "19500102",
            "0020|000d": "1.2.826.0.1.3680043.8.498.9",
            "0020|000e": f"1.2.826.0.1.3680043.8.498.{series}",
            "0020|0013": str(number),
            "0020|0032": f"-10\\20\\{places[index]}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0018|0050": str(spacing[2]),
        }.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{prefix}-{number:05}.dcm"))
        writer.Execute(image)
    locale.setlocale(locale.LC_CTYPE, language)


# ---------------------------------------------------------------------- volumes
def amos(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """``amos22`` as unpacked: 500 CT, of which 499 are in the published list, and 100 MR; what a Mac leaves behind."""
    published = json.loads((ROOT / "data_json" / "amos_task01.json").read_text())
    hermes = json.loads((ROOT / "data_json" / "hermes" / "amos_mr.json").read_text())
    numbers = {
        section: {int(case["case_id"]) for case in hermes[section]} for section in ("training", "validation", "test")
    }
    mr = {"training": numbers["training"] | numbers["validation"], "validation": numbers["test"]}
    mr["test"] = {*range(501, 601)} - mr["training"] - mr["validation"]
    table: dict[str, list[dict[str, str]]] = {}
    for section, folder in (("training", "Tr"), ("validation", "Va"), ("test", "Ts")):
        names = [f"amos_{n:04}.nii.gz" for n in (*sorted(mr[section]), *([500] if section == "test" else []))]
        made = [{"image": f"./images{folder}/{n}", "label": f"./labels{folder}/{n}"} for n in names]
        table[section] = [
            {"image": entry["image"]} if section == "test" else entry for entry in [*published[section], *made]
        ]
    files = [path for entries in table.values() for entry in entries for path in entry.values()]
    touch(root, *(file for file in files if "images" in file), "imagesTr/._amos_0001.nii.gz")
    label_files(root, range(16), *(file for file in files if "labels" in file))
    (root / "dataset.json").write_text(json.dumps({"name": "AMOS", "numTest": 200, **table}))
    return root


def few_amos(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Two cases of each modality for training, one for validation, as volumes."""
    module = dataset_module("amos")
    patch.setattr(module, "SPLITS", {2: {"training": 4, "validation": 2}})
    patch.setattr(
        module, "HERMES", {"CT": {"validation": (98,), "test": (8,)}, "MR": {"validation": (518,), "test": (588,)}}
    )
    for folder, numbers in (("Tr", (1, 98, 507, 518)), ("Va", (8, 588))):
        for number in numbers:
            label = LABEL.copy()
            label[0, 0, 0] = 14
            volume(root / f"images{folder}" / f"amos_{number:04}.nii.gz", IMAGE)
            volume(root / f"labels{folder}" / f"amos_{number:04}.nii.gz", label)
    return root


def autopet(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Three patients, one with two studies, one without lesion; the folders of studies begin with a date."""
    patch.setattr(dataset_module("autopet"), "_STUDIES", 4)
    studies = {"PETCT_0011f3deaf": ["03-23-2003-NA-PET-CT A-10445", "05-01-2004-NA-PET-CT A-11111"]}
    studies |= {"PETCT_01140d52d8": ["08-13-2005-NA-PET-CT A-1"], "PETCT_0117d7f11f": ["09-13-2001-NA-PET-CT B-2"]}
    for patient, folders in studies.items():
        for folder in folders:
            study = root / patient / folder
            volume(study / "SUV.nii.gz", IMAGE.astype(np.float32) / 50, (2.0, 2.0, 3.0))
            volume(study / "CTres.nii.gz", IMAGE.astype(np.float32), (2.0, 2.0, 3.0))
            volume(study / "SEG.nii.gz", LABEL * (patient != "PETCT_0117d7f11f"), (2.0, 2.0, 3.0))
    return root


def brain_structure(root: Path, patch: pytest.MonkeyPatch) -> Path:
    for folder, numbers in (("train", range(6)), ("valid", (10,)), ("test", (20, 21))):
        for number in numbers:
            name = f"dlbs_{28400 + number:07}"
            volume(root / folder / "image" / f"{name}_img.nii", IMAGE)
            for index, tissue in enumerate(("graymatter", "whitematter", "csf")):
                share = np.zeros(IMAGE.shape, np.float32)
                share[1:3, 2 * index : 2 * index + 2] = 0.3
                volume(root / folder / "mask" / f"{name}_probmask_{tissue}.nii", share)
    return root


def brats(root: Path, patch: pytest.MonkeyPatch) -> Path:
    cases = [f"BraTS-GLI-{number:05}-{scan:03}" for number in range(10) for scan in range(1 + number % 2)]
    label_files(root, range(4), *(f"{case}/{case}-seg.nii.gz" for case in cases))
    return touch(root, *(f"{case}/{case}-{name}.nii.gz" for case in cases for name in CONTRASTS_2023[:-1]))


def btcv(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """``RawData`` as unpacked: 30 training cases, 20 without label."""
    for number in (*range(1, 11), *range(21, 41)):
        volume(root / f"Training/img/img{number:04}.nii.gz", IMAGE)
        volume(root / f"Training/label/label{number:04}.nii.gz", labels_to(13, number))
    return touch(root, *(f"Testing/img/img{number:04}.nii.gz" for number in range(61, 81)))


def chaos(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Four subjects of each modality, one to validate on and one to test on; MR names run down the body in one."""
    module = dataset_module("chaos")
    patch.setattr(module, "_SUBJECTS", 4)
    patch.setattr(module, "TEST", (31,))
    array, label = np.arange(4 * 6 * 6, dtype=np.int16).reshape(4, 6, 6), np.zeros((4, 6, 6), np.uint8)
    for index, value in enumerate((63, 126, 189, 252)):
        label[index, 2:4, 2:5] = value
    for subject in (2, 20, 22, 31):
        down = subject == 2
        shown = label[::-1] if down else label
        for part, phases in (("T1DUAL", ("/InPhase", "/OutPhase")), ("T2SPIR", ("",))):
            folder = root / "MR" / str(subject) / part
            for phase in phases:
                dicom(folder / f"DICOM_anon{phase}", array, (1.5, 1.5, 3.0), down=down)
            for number, pixels in enumerate(shown, 1):
                picture(folder / "Ground" / f"IMG-0001-{number:05}.png", pixels)
        folder = root / "CT" / str(subject)
        dicom(folder / "DICOM_anon", array - 1000, (0.75, 0.75, 3.0), prefix="i")
        for number, pixels in enumerate(label):
            picture(folder / "Ground" / f"liver_GT_{number:03}.png", (pixels == 63) * np.uint8(255))
    return root


def msd(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """A task as its archives are: ``./`` paths, test cases as texts, AppleDouble files, wrong counters."""
    for number in range(9):
        section = "Tr" if number < 7 else "Ts"
        volume(
            root / f"images{section}" / f"tiny_{number:03}.nii.gz", np.float32(RNG.normal(size=(8, 8, 8))), (1, 1, 1)
        )
        if section == "Tr":
            label = np.broadcast_to(np.eye(8, dtype=np.uint8), (8, 8, 8))
            volume(root / "labelsTr" / f"tiny_{number:03}.nii.gz", label, (1, 1, 1))
    (root / "imagesTr" / "._tiny_000.nii.gz").write_bytes(b"apple")
    table = {
        "name": "Tiny",
        "licence": "CC-BY-SA 4.0",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "diagonal"},
        "numTraining": 70,
        "numTest": 20,
        "training": [
            {"image": f"./imagesTr/tiny_{n:03}.nii.gz", "label": f"./labelsTr/tiny_{n:03}.nii.gz"} for n in range(7)
        ],
        "test": [f"./imagesTs/tiny_{n:03}.nii.gz" for n in (7, 8)],
    }
    (root / "dataset.json").write_text(json.dumps(table))
    return root


def feta(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """``feta_2.1``: 80 subjects by two reconstructions, the second half by the other one."""
    names = [(f"sub-{n:03}", "mial" if n <= 40 else "irtk") for n in range(1, 81)]
    touch(root, *(f"{s}/anat/{s}_rec-{how}_T2w.nii.gz" for s, how in names))
    label_files(root, range(8), *(f"{s}/anat/{s}_rec-{how}_dseg.nii.gz" for s, how in names))
    (root / "participants.tsv").write_text("participant_id\tPathology\tGestational age\n")
    return root


def flare(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """``TrainingImg`` and ``TrainingMask`` with their 361 cases, and what a Mac leaves behind."""
    touch(root, *(f"TrainingImg/train_{n:03}_0000.nii.gz" for n in range(361)))
    label_files(root, range(5), *(f"TrainingMask/train_{n:03}.nii.gz" for n in range(361)))
    return touch(root, "TrainingImg/._train_000_0000.nii.gz")


def kits(root: Path, patch: pytest.MonkeyPatch) -> Path:
    cases = [f"case_{n:05}" for n in (*range(30), *range(400, 420))]
    label_files(root, range(4), *(f"{case}/segmentation.nii.gz" for case in cases))
    return touch(root, *(f"{case}/imaging.nii.gz" for case in cases))


def _numbered(name: str, root: Path, patch: pytest.MonkeyPatch, files: tuple[str, str], numbers: Sequence[int]) -> Path:
    module = dataset_module(name)
    patch.setattr(module, "_CASES", 8)
    patch.setattr(module, "VALIDATION", (3,))
    patch.setattr(module, "TEST", (1, 7))
    for number in numbers:
        for file, array in zip(files, (IMAGE, labels_to(2)), strict=True):
            volume(root / file.format(number), array)
    return root


def kits19(root: Path, patch: pytest.MonkeyPatch) -> Path:
    files = ("case_{:05}/imaging.nii.gz", "case_{:05}/segmentation.nii.gz")
    return _numbered("kits19", root, patch, files, range(8))


def lits(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Eight cases in two folders; the voxels of case 2 are stated wrongly."""
    patch.setattr(dataset_module("lits"), "WRONG_SPACING", {2: (1.0, 1.0, 3.0)})
    return _numbered("lits", root, patch, ("a/volume-{}.nii", "b/segmentation-{}.nii"), range(8))


def mnms(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Six, one and two subjects of four frames, the second and the last labelled; ES comes first in one."""
    module = dataset_module("mnms")
    patch.setattr(module, "FACTS", replace(module.FACTS, splits={"training": 12, "validation": 2, "test": 4}))
    names = {
        "Training/Labeled": "A0S9V9 A1D0Q7 A1D9Z7 A1E9Q1 A2C0I1 A2L1N6",
        "Validation": "A2H5K9",
        "Testing": "A1K2P5 A3H1O5",
    }
    rows = ["Index,External code,VendorName,Vendor,Centre,ED,ES,Age,Pathology,Sex,Height,Weight"]
    for folder, text in names.items():
        for name in text.split():
            frames = np.stack([IMAGE + 1000 * frame for frame in range(4)])
            labels = np.stack([labels_to(frame) if frame % 2 else LABEL * 0 for frame in range(4)])
            volume(root / folder / name / f"{name}_sa.nii.gz", frames, (1.5, 1.5, 1.5, 1.0))
            volume(root / folder / name / f"{name}_sa_gt.nii.gz", labels, (1.5, 1.5, 1.5, 1.0))
            ed, es = (3, 1) if name == "A1D0Q7" else (1, 3)
            rows.append(f"{len(rows) - 1},{name},Siemens,A,1,{ed},{es},50,NOR,F,170,70")
    touch(root, "Training/Unlabeled/A3P9V7/A3P9V7_sa.nii.gz")
    (root / "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv").write_text("\n".join(rows) + "\n")
    return root


def mvseg(root: Path, patch: pytest.MonkeyPatch) -> Path:
    cases = [f"{folder}/{folder}_{number:03}" for folder in ("train", "val") for number in (1, 2)]
    label_files(root, range(3), *(f"{case}-label.nii.gz" for case in cases))
    return touch(root, *(f"{case}-US.nii.gz" for case in cases), "test/test_001-US.nii.gz")


def segthor(root: Path, patch: pytest.MonkeyPatch) -> Path:
    module = dataset_module("segthor")
    patch.setattr(module, "FACTS", replace(module.FACTS, splits={"training": 6}))
    for number in range(1, 7):
        volume(root / "train" / f"Patient_{number:02}" / f"Patient_{number:02}.nii.gz", IMAGE)
        volume(root / "train" / f"Patient_{number:02}" / "GT.nii.gz", labels_to(4))
    return touch(root, "test/Patient_41.nii.gz")


def structseg(root: Path, patch: pytest.MonkeyPatch) -> Path:
    module = dataset_module("structseg")
    patch.setattr(module, "_CASES", 8)
    parts = {name: part._replace(validation=(3,), test=(1, 7)) for name, part in module.PARTS.items()}
    patch.setattr(module, "PARTS", parts)
    for folder, value in (("HaN_OAR", 22), ("Thoracic_OAR", 6)):
        for number in range(1, 9):
            volume(root / folder / str(number) / "data.nii.gz", IMAGE)
            volume(root / folder / str(number) / "label.nii.gz", labels_to(value, number))
    return root


def tcia_pancreas(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Six cases, the second numbered down the body; labels without a place, and one of a case that was withdrawn."""
    patch.setattr(dataset_module("tcia_pancreas"), "_NUMBERS", (1, 2, 3, 4, 5, 7))
    for number in range(1, 8):
        if number != 6:
            folder = root / "manifest" / "Pancreas-CT" / f"PANCREAS_{number:04}" / "11-24-2015" / "0.000000-86526"
            dicom(folder, IMAGE - 1000, (0.75, 0.75, 1.0), prefix="1", series=number, down=number == 2)
        label = sitk.GetImageFromArray(PANCREAS[::-1] if number == 2 else PANCREAS)
        file = root / "TCIA_pancreas_labels-02-05-2017" / f"label{number:04}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(label, str(file))
    return root


# ---------------------------------------------------------------------- pictures
def bkai(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Six pictures with masks in colours, JPEG as published, and two without."""
    rng = np.random.default_rng(0)
    for number in range(6):
        mask = np.zeros((48, 64, 3), np.uint8)
        for value in {number % 3, 2} - {0}:
            mask[BKAI_BOXES[value]] = BKAI_COLORS[value]
        name = f"{(number * 7) % 10}{number:02x}.jpeg"
        _jpeg(root / "train" / "train" / name, rng.integers(0, 255, (48, 64, 3), np.uint8))
        _jpeg(root / "train_gt" / "train_gt" / name, mask)
    for name in ("aa.jpeg", "bb.jpeg"):
        _jpeg(root / "test" / "test" / name, rng.integers(0, 255, (48, 64, 3), np.uint8))
    return root


BKAI_BOXES = {1: (slice(4, 20), slice(8, 30)), 2: (slice(26, 44), slice(34, 60))}
BKAI_COLORS = {1: (0, 255, 0), 2: (255, 0, 0)}


def _jpeg(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def busi(root: Path, patch: pytest.MonkeyPatch) -> Path:
    return busi_of(root, {"benign": 11, "malignant": 5, "normal": 2})


def busi_of(root: Path, counts: dict[str, int], shape: tuple[int, int] = (6, 8)) -> Path:
    """``Dataset_BUSI_with_GT``: one mask each, "(2)" a second one, "benign (3)" a third, 1-bit and 8-bit masks."""
    pixels = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    for name, number in counts.items():
        for index in range(1, number + 1):
            picture(root / name / f"{name} ({index}).png", pixels)
            for extra in range({2: 2, 3: 3 if name == "benign" else 1}.get(index, 1)):
                mask = np.zeros(shape, bool)
                mask[2 * extra : 2 * extra + 1, index % 3 : 5] = True
                suffix = f"_{extra}" if extra else ""
                picture(root / name / f"{name} ({index})_mask{suffix}.png", mask if index % 2 else mask * np.uint8(255))
    return root


def dsb2018(root: Path, patch: pytest.MonkeyPatch) -> Path:
    for number in range(11):
        folder = root / "stage1_train" / f"{number:x}f"
        picture(folder / "images" / f"{number:x}f.png", np.dstack([PICTURE, np.full_like(MASK, 255)]))
        for nucleus in range(3):
            mask = np.zeros_like(MASK)
            mask[3 * nucleus : 3 * nucleus + 2, number % 4 : 9] = 255
            picture(folder / "masks" / f"{nucleus}.png", mask)
    picture(root / "stage1_test" / "aa" / "images" / "aa.png", PICTURE)
    return root


def fives(root: Path, patch: pytest.MonkeyPatch) -> Path:
    for part, names in (("train", ("1_A", "2_D", "3_G", "4_N", "5_N")), ("test", ("1_A", "2_G"))):
        for name in names:
            picture(root / part / "Original" / f"{name}.png", PICTURE)
            picture(root / part / "Ground truth" / f"{name}.png", np.repeat(MASK[..., None], 3, axis=-1))
    return root


def isic(root: Path, patch: pytest.MonkeyPatch) -> Path:
    for part, numbers in (("Training", range(7)), ("Test", (9003, 9011))):
        for number in numbers:
            name = f"ISIC_{number:07}"
            picture(root / f"ISBI2016_ISIC_Part1_{part}_Data" / f"{name}.jpg", PICTURE)
            picture(root / f"ISBI2016_ISIC_Part1_{part}_GroundTruth" / f"{name}_Segmentation.png", MASK)
    return root


LAYOUTS: dict[str, Callable[[Path, pytest.MonkeyPatch], Path]] = {
    function.__name__: function
    for function in (
        *(amos, autopet, bkai, brain_structure, brats, btcv, busi, chaos, msd, dsb2018, feta, fives, flare, isic),
        *(kits, kits19, lits, mnms, mvseg, segthor, structseg, tcia_pancreas),
    )
}

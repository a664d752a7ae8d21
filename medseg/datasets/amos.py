"""AMOS 2022: 15 abdominal organs; task 1 is CT alone, task 2 CT and MR."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.datasets import DatasetFacts
from medseg.errors import ConfigError, DataError, few
from medseg.storage import read_json

if TYPE_CHECKING:
    from medseg.data.isotropic import Pair

__all__ = ["FACTS", "HERMES", "REPUX_TEST_IDS", "SPLITS", "modality_of", "prepare"]

FACTS = DatasetFacts(
    title="AMOS 2022 (task 1: CT; task 2: CT and MR)",
    spatial_dims=3,
    modality=("CT",),
    labels={
        0: "background",
        1: "spleen",
        2: "right kidney",
        3: "left kidney",
        4: "gallbladder",
        5: "esophagus",
        6: "liver",
        7: "stomach",
        8: "aorta",
        9: "postcava",
        10: "pancreas",
        11: "right adrenal gland",
        12: "left adrenal gland",
        13: "duodenum",
        14: "bladder",
        15: "prostate/uterus",
    },
    source="amos22.grand-challenge.org, amos22.zip; Ji et al. 2022 (AMOS: a large-scale abdominal benchmark)",
    terms="CC-BY-SA 4.0",
    layout="amos22/{imagesTr/amos_0001.nii.gz, labelsTr/, imagesVa/, labelsVa/, imagesTs/, dataset.json}",
    splits={"training": 200, "validation": 100, "test": 199},
)

# Held out of the 200 labelled CT by the authors of 3D RepUX-Net (Lee et al., MICCAI 2023).
REPUX_TEST_IDS = (
    *(381, 383, 384, 387, 388, 390, 391, 392, 395, 396, 398, 400),
    *(401, 402, 403, 404, 405, 406, 408, 410),
)
# Of the labelled cases of each modality, what Hermes holds out (arXiv 2306.02416). Of the CT that it tests on, 9 are
# training cases of the challenge, of whose validation cases it trains on 9.
HERMES = {
    "CT": {
        "validation": (212, 296, 366, 350, 98),
        "test": (
            *(8, 13, 18, 22, 29, 32, 51, 52, 54, 61, 63, 72, 73, 78, 85, 87, 90, 97, 106, 108, 112, 120, 123, 128, 132),
            *(136, 140, 144, 150, 155, 157, 158, 167, 174, 175, 176, 189, 191, 194, 198, 200, 202, 204, 206, 207, 208),
            *(216, 218, 219, 223, 228, 233, 238, 244, 247, 250, 255, 257, 258, 278, 280, 283, 284, 286, 287, 289, 290),
            *(292, 293, 304, 308, 309, 310, 313, 316, 318, 323, 325, 326, 328, 333, 334, 339, 342, 344, 346, 352, 357),
            *(363, 364, 365, 368, 372, 373, 377, 385, 395, 397, 399, 409),
        ),
    },
    "MR": {
        "validation": (518, 593),
        "test": (
            *(545, 546, 547, 548, 549, 550, 552, 555, 556, 559, 561, 562, 563, 568, 573, 575, 581, 587, 588, 598),
        ),
    },
}
_HERMES_CONTEXT = (10, 30, 30)  # voxels (z, y, x)
_ABSENT_IN_MR = (14, 15)  # bladder and prostate/uterus
# Task -> section -> cases. The published list of task 1 goes to id 499: it leaves out amos_0500, a CT of the test set.
SPLITS = {1: FACTS.splits, 2: {"training": 240, "validation": 120, "test": 240}}
_FOLDERS = {"training": "Tr", "validation": "Va", "test": "Ts"}
_CASE = re.compile(r"amos_(\d{4})(?:\.nii\.gz)?")


def modality_of(case_id: str) -> str:
    """``CT`` for the ids 1 to 500, ``MR`` for 501 to 600; ``case_id``: ``amos_0001``, with or without ``.nii.gz``.

    Raises:
        DataError: no such id.
    """
    match = _CASE.fullmatch(case_id)
    if match is None:
        raise DataError(f"'{case_id}' is not a case of AMOS; expected a name such as amos_0001.")
    return "CT" if int(match[1]) <= 500 else "MR"


def prepare(
    raw_dir: str | Path,
    out_dir: str | Path,
    *,
    task: int = 1,
    split: str = "challenge",
    num_folds: int = 0,
    seed: int = 0,
    isotropic: bool = True,
    crop: bool = True,
) -> Path:
    """Write ``<out_dir>/amos_task01.json`` or ``amos_task02.json``; paths are relative to ``raw_dir``.

    Task 1 gives the published list. In task 2 each case names its ``modality``. With ``split="repux"`` it is
    ``amos22_repux.json``: of the 200 labelled CT, the 20 that 3D RepUX-Net was tested on, and the others in folds. With
    ``split="hermes_ct"`` or ``"hermes_mr"`` it is ``amos_ct.json`` or ``amos_mr.json`` and, beside it, volumes of
    1.5 mm, ``70.nii.gz``, ``70_gt.nii.gz`` …, in MR without bladder and prostate/uterus.

    Args:
        task: 1 (CT) or 2 (CT and MR).
        split: ``challenge``, ``repux`` (task 1), ``hermes_ct`` or ``hermes_mr``.
        num_folds: number of folds of the training cases; 0 keeps the published split alone (``repux``: 5).
        seed: random seed of the folds.
        isotropic: volumes of 1.5 mm (``hermes_ct``, ``hermes_mr``); otherwise they keep their grid.
        crop: crop these volumes to the labels and 10, 30 and 30 voxels (z, y, x) around them, as published, also in
            test cases, which makes those easier.

    Raises:
        ConfigError: another task or split.
        DataError: files are missing.
        CasesFailed: some cannot be converted; the others are done.
    """
    if split in ("hermes_ct", "hermes_mr"):
        kind = split.removeprefix("hermes_").upper()
        return _prepare_hermes(Path(raw_dir), Path(out_dir), kind, isotropic, crop, num_folds, seed)
    if task not in SPLITS:
        raise ConfigError(f"AMOS has no task {task}; use 1 (CT) or 2 (CT and MR).")
    if split not in ("challenge", "repux") or (split == "repux" and task != 1):
        raise ConfigError(
            f"AMOS task {task} has no split '{split}'; use challenge, hermes_ct, hermes_mr, or repux with task 1."
        )
    raw = Path(raw_dir)
    names = {section: _images(raw, section, task) for section in _FOLDERS}
    _refuse_incomplete(raw, names, task)
    sections = {section: [_entry(section, name, task) for name in listed] for section, listed in names.items()}
    if split == "repux":
        return _write_repux(Path(out_dir) / "amos22_repux.json", raw, sections["training"], num_folds or 5, seed)
    what, counts = ("CT", "200/100") if task == 1 else ("CT and MR", "240/120")
    return FACTS.write(
        Path(out_dir) / f"amos_task{task:02}.json",
        raw,
        sections,
        num_folds=num_folds,
        seed=seed,
        name=f"AMOS task {task}",
        description=f"AMOS 2022, task {task}: 15 organs in abdominal {what}; the published {counts} split",
        reference="Ji et al. 2022, AMOS: a large-scale abdominal multi-organ benchmark for versatile medical image "
        "segmentation",
        release="1.0",
        tensorImageSize="3D",
        modality={"0": "CT" if task == 1 else "CT or MR"},
    )


def _write_repux(path: Path, raw: Path, labelled: list[dict[str, Any]], num_folds: int, seed: int) -> Path:
    """The datalist of 3D RepUX-Net: 180 of the 200 labelled cases of task 1 in folds of ours, 20 for testing.

    The tested cases are training cases of the challenge's split, which ``known_overlaps`` declares.
    """
    names = [f"amos_{number:04}" for number in REPUX_TEST_IDS]
    sections: dict[str, list[dict[str, Any]]] = {"training": [], "test": []}
    for entry in labelled:
        tested = Path(entry["image"]).name.removesuffix(".nii.gz") in names
        sections["test" if tested else "training"].append(entry)
    return FACTS.write(
        path,
        raw,
        sections,
        num_folds=num_folds,
        seed=seed,
        name="AMOS22 RepUX",
        description="AMOS 2022, the 200 labelled CT: the 180/20 split of 3D RepUX-Net, whose 20 test cases are "
        "training cases of amos_task01.json",
        tensorImageSize="3D",
        known_overlaps=names,
    )


def _prepare_hermes(raw: Path, out: Path, kind: str, isotropic: bool, crop: bool, num_folds: int, seed: int) -> Path:
    """The labelled cases of one modality at 1.5 mm, in the sections of Hermes."""
    from medseg.data.converted_pairs import convert_pairs, split_sections
    from medseg.data.isotropic import read_pair, to_form

    names = {section: _images(raw, section, 2) for section in _FOLDERS}
    _refuse_incomplete(raw, {section: found for section, found in names.items() if section != "test"}, 2)
    files = {
        str(int(name[5:9])): _files(section, name, 2)
        for section in ("training", "validation")
        for name in names[section]
        if modality_of(name) == kind
    }

    def make(name: str) -> Pair:
        import SimpleITK as sitk

        image_file, label_file = (raw / file for file in files[name])
        image, label = read_pair(image_file, label_file)
        if kind == "MR":
            label = sitk.ChangeLabel(label, {value: 0 for value in _ABSENT_IN_MR})
        return to_form((image, label), isotropic=isotropic, context=_HERMES_CONTEXT if crop else None)

    absent = _ABSENT_IN_MR if kind == "MR" else ()
    return convert_pairs(
        FACTS.table(
            name=f"AMOS 2022, {kind}",
            modality={"0": kind},
            labels={str(value): name for value, name in FACTS.labels.items() if value not in absent},
        ),
        split_sections(files, **HERMES[kind]),
        make,
        out / f"amos_{kind.lower()}.json",
        form={"isotropic": isotropic, "crop": crop},
        num_folds=num_folds,
        seed=seed,
    )


def _images(raw: Path, section: str, task: int) -> list[str]:
    folder = raw / f"images{_FOLDERS[section]}"
    return sorted(path.name for path in folder.glob("amos_*.nii.gz") if _belongs(path.name, task))


def _belongs(name: str, task: int) -> bool:
    """Whether a file is a case of the task: 1 takes the ids below 500, as published."""
    match = _CASE.fullmatch(name)
    return match is not None and (task == 2 or int(match[1]) < 500)


def _entry(section: str, name: str, task: int) -> dict[str, Any]:
    entry = {"image": f"./images{_FOLDERS[section]}/{name}"}
    if section != "test":
        entry["label"] = f"./labels{_FOLDERS[section]}/{name}"
    return entry if task == 1 else entry | {"modality": modality_of(name)}


def _refuse_incomplete(raw: Path, names: dict[str, list[str]], task: int) -> None:
    """Compare with the archive's own list, where it is there, and with the published numbers of cases."""
    listed = {file for section, found in names.items() for name in found for file in _files(section, name, task)}
    listed |= _named(raw, task)
    missing = sorted(file for file in listed if not (raw / file).is_file())
    counts = [
        f"images{_FOLDERS[section]} has {len(found)} of {SPLITS[task][section]} cases of task {task}"
        for section, found in names.items()
        if len(found) != SPLITS[task][section]
    ]
    if not missing and not counts:
        return
    if missing:
        counts.append(f"{len(missing)} of {len(listed)} files are missing: {few(missing)}")
    raise DataError(f"AMOS is incomplete in {raw}: {'; '.join(counts)}. {FACTS.hint(raw, '*/imagesTr')}")


def _files(section: str, name: str, task: int) -> list[str]:
    entry = _entry(section, name, task)
    return [Path(entry[key]).as_posix() for key in ("image", "label") if key in entry]


def _named(raw: Path, task: int) -> set[str]:
    """The files of the task that the archive's ``dataset.json`` names."""
    source = raw / "dataset.json"
    if not source.is_file():
        return set()
    try:
        table = read_json(source)
        entries = [entry for section in _FOLDERS for entry in table.get(section, [])]
        texts = [text for entry in entries for text in (entry.values() if isinstance(entry, dict) else [entry])]
        paths = [Path(text) for text in texts]
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{source} is not a valid list of cases ({error}); copy it from the archive again.") from error
    return {path.as_posix() for path in paths if _belongs(path.name, task)}

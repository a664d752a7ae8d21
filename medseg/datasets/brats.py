"""BraTS, adult glioma in four MR contrasts: the release of 2023, and those of 2018 to 2021 (enhancing tumour: 4)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medseg.datasets import DatasetFacts
from medseg.errors import ConfigError, DataError, few

__all__ = ["FACTS", "REGIONS", "SIZES", "patient_of", "prepare"]

FACTS = DatasetFacts(
    title="BraTS 2023 adult glioma (and BraTS 2018 to 2021)",
    spatial_dims=3,
    modality=("T1c", "T1n", "T2-FLAIR", "T2w"),
    labels={0: "background", 1: "necrotic tumor core", 2: "edema", 3: "enhancing tumor"},
    source="synapse.org/brats (registration), BraTS-GLI training data; Baid et al. 2021, arXiv 2107.02314; "
    "Menze et al. 2015; Bakas et al. 2017",
    terms="the terms accepted at Synapse; cite the articles; no redistribution",
    layout="ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/{BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1c, t1n, t2f, "
    "t2w, seg}.nii.gz, …}; older: {BraTS2021_00000/BraTS2021_00000_{t1ce, t1, flair, t2, seg}.nii.gz, …}, in 2018 and "
    "2019 below HGG and LGG",
    splits={"training": 751, "validation": 125, "test": 375},
)

REGIONS = {
    "WT": ["necrotic tumor core", "edema", "enhancing tumor"],
    "TC": ["necrotic tumor core", "enhancing tumor"],
    "ET": ["enhancing tumor"],
}
SIZES = ("240x240x155", "120x120x78", "80x80x52", "60x60x39")  # voxels of the resolution study, arXiv 2507.08205

_SECTIONS = ("training", "validation", "test")


class _Release(NamedTuple):
    """How the files of a release are named: ``<case><joint><contrast>.nii.gz``, contrasts in the order of FACTS."""

    name: str
    case: re.Pattern[str]  # its group is the patient
    joint: str
    contrasts: tuple[str, ...]
    enhancing: int


_OLDER = ("t1ce", "t1", "flair", "t2")
_RELEASES = (
    _Release("brats23", re.compile(r"(BraTS-[A-Za-z]+-\d+)-\d+"), "-", ("t1c", "t1n", "t2f", "t2w"), 3),
    _Release("brats21", re.compile(r"(BraTS2021_\d+)"), "_", _OLDER, 4),
    _Release("brats20", re.compile(r"(BraTS20_Training_\d+)"), "_", _OLDER, 4),
    _Release("brats19", re.compile(r"(BraTS19_\w+)_\d+"), "_", _OLDER, 4),
    _Release("brats18", re.compile(r"(Brats18_\w+)_\d+"), "_", _OLDER, 4),
)


def patient_of(case: str) -> str:
    """``BraTS-GLI-00008`` of the scan ``BraTS-GLI-00008-001``.

    Raises:
        DataError: no name of a known release.
    """
    match = _release_of([case]).case.fullmatch(case)
    assert match is not None
    return match[1]


def prepare(
    raw_dir: str | Path,
    out_dir: str | Path,
    *,
    split: str = "patient",
    fractions: Sequence[str | float] = (0.6, 0.1, 0.3),
    seed: int = 100,
    mode: str = "softmax",
    size: str = "",
    interpolation: str = "nearest",
    num_folds: int = 0,
) -> Path:
    """Write ``<out_dir>/brats23.json`` (or ``brats21.json`` … by the files' names).

    Paths are relative to ``raw_dir``, of resized copies to ``out_dir``. WT, TC and ET are evaluated.

    Args:
        raw_dir: the folder of the cases, or of ``HGG`` and ``LGG``, which are split one by one.
        split: ``patient`` keeps the scans of a patient in one section; ``published`` is the split of the
            neural-operator publications by scan (751/125/375 of 2023; of 2019 with ``fractions`` 0.9, 0.1, 0), whose
            patients on two sides are declared as known overlaps.
        fractions: shares of training, validation and test.
        seed: random seed of the split, 100 as published, and of the folds.
        mode: ``softmax`` over labels, as published, or ``sigmoid`` over the regions.
        size: voxels of resized copies, such as ``120x120x78``; empty uses the files as they are.
        interpolation: interpolation of the copies: ``nearest``, as published, or ``linear``.
        num_folds: number of folds of the training cases, grouped by patient.

    Raises:
        ConfigError: an option has an unknown value.
        DataError: files are missing, or there is no case.
        CasesFailed: copies could not be made.
    """
    if split not in ("patient", "published"):
        raise ConfigError(f"split '{split}' is unknown; use patient or published.")
    raw, out = Path(raw_dir), Path(out_dir)
    groups = _cases(raw)
    release = _release_of([case for cases in groups.values() for case in cases])
    suffix = _refuse_incomplete(raw, groups, release)
    shares = [float(share) for share in fractions]
    sections: dict[str, list[dict[str, Any]]] = {name: [] for name in _SECTIONS}
    for folder, cases in groups.items():
        for name, part in zip(_SECTIONS, _parts(cases, split, shares, seed), strict=True):
            sections[name] += [_entry(folder, case, release, suffix) for case in part]
    if size:
        _write_resized(raw, out, [entry for entries in sections.values() for entry in entries], size, interpolation)
    year = release.name.removeprefix("brats")
    return FACTS.write(
        out / f"{release.name}.json",
        out if size else raw,
        sections,
        num_folds=num_folds,
        seed=seed,
        name=f"BraTS'{year}",
        description=f"BraTS 20{year}, glioma in four MR contrasts; "
        + ("the published split by scan" if split == "published" else "split by patient")
        + (f"; resized to {size}, {interpolation}" if size else ""),
        tensorImageSize="4D",
        labels=_labels(release),
        label_space={
            "mode": mode,
            "labels": {name: int(value) for value, name in _labels(release).items()},
            "regions": REGIONS,
        },
        known_overlaps=_overlaps(sections) or None,
    )


def _parts(cases: Sequence[str], split: str, shares: Sequence[float], seed: int) -> list[list[str]]:
    """Training, validation and test cases of one folder."""
    from medseg.data.random_split import grouped_split, random_split

    if split == "published":
        return random_split(cases, shares, seed)
    return grouped_split(cases, [patient_of(case) for case in cases], shares, seed)


def _write_resized(raw: Path, out: Path, entries: Sequence[dict[str, Any]], size: str, interpolation: str) -> None:
    """Copies below ``<out>/<size>``, to which the entries then point."""
    from medseg.data.convert import convert_files
    from medseg.data.resized import parse_size, write_resized

    voxels = parse_size(size)
    jobs: list[tuple[tuple[Path, bool], Path]] = []
    for entry in entries:
        files = [*entry["image"], entry["label"]]
        copies = [f"{size}/{file.removesuffix('.gz')}.gz" for file in files]
        jobs += [((raw / file, file == entry["label"]), out / copy) for file, copy in zip(files, copies, strict=True)]
        *entry["image"], entry["label"] = copies
    convert_files(jobs, lambda job, target: write_resized(job[0], target, voxels, interpolation, label=job[1]))


def _labels(release: _Release) -> dict[str, str]:
    """Raw value -> name."""
    return {str(release.enhancing if value == 3 else value): name for value, name in FACTS.labels.items()}


def _cases(raw: Path) -> dict[str, list[str]]:
    """Folder of cases (``""``, or ``HGG`` and ``LGG``) -> their names, sorted."""
    folders = {"": raw} | {name: raw / name for name in ("HGG", "LGG") if (raw / name).is_dir()}
    found = {
        name: sorted(path.name for path in folder.glob("[Bb]ra[Tt][Ss]*") if path.is_dir())
        for name, folder in folders.items()
    }
    found = {name: cases for name, cases in found.items() if cases}
    if not found or all(not any((raw / name / case).glob("*.nii*")) for name, cases in found.items() for case in cases):
        raise DataError(f"{raw} holds no case of BraTS. {FACTS.hint(raw, '*/[Bb]ra[Tt][Ss]*/')}")
    return found


def _release_of(cases: Sequence[str]) -> _Release:
    for release in _RELEASES:
        if all(release.case.fullmatch(case) for case in cases):
            return release
    known = [case for case in cases if not any(release.case.fullmatch(case) for release in _RELEASES)]
    what = f"'{known[0]}' is not a case of BraTS" if known else f"{cases[0]} and {cases[-1]} are of different releases"
    raise DataError(f"{what}; name the folder of one release, such as {FACTS.layout}.")


def _files(case: str, release: _Release) -> list[str]:
    """The four images and the label map, without suffix."""
    return [f"{case}/{case}{release.joint}{contrast}" for contrast in (*release.contrasts, "seg")]


def _refuse_incomplete(raw: Path, groups: Mapping[str, Sequence[str]], release: _Release) -> str:
    """The suffix that all files have: ``.nii.gz``, in some releases ``.nii``."""
    stems = [
        raw / folder / stem for folder, cases in groups.items() for case in cases for stem in _files(case, release)
    ]
    counts = {
        suffix: [stem for stem in stems if not Path(f"{stem}{suffix}").is_file()] for suffix in (".nii.gz", ".nii")
    }
    suffix = min(counts, key=lambda name: len(counts[name]))
    missing = counts[suffix]
    if missing:
        raise DataError(
            f"BraTS is incomplete in {raw}: {len(missing)} of {len(stems)} files are missing: "
            f"{few([f'{stem.name}{suffix}' for stem in missing])}. Unpack the archive of the training data again."
        )
    return suffix


def _entry(folder: str, case: str, release: _Release, suffix: str) -> dict[str, Any]:
    *images, label = (str(Path(folder, f"{stem}{suffix}").as_posix()) for stem in _files(case, release))
    return {"image": images, "label": label, "case_id": case, "subject": patient_of(case)}


def _overlaps(sections: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Patients in more than one section."""
    subjects = [{entry["subject"] for entry in entries} for entries in sections.values()]
    return sorted({name for i, one in enumerate(subjects) for other in subjects[:i] for name in one & other})

"""Any task folder of the Medical Segmentation Decathlon: ``dataset.json``, ``imagesTr``, ``labelsTr``, ``imagesTs``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.datasets import DatasetFacts
from medseg.errors import DataError

if TYPE_CHECKING:
    from medseg.data import Case, Datalist

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="Medical Segmentation Decathlon",
    spatial_dims=3,
    source="medicaldecathlon.com; Antonelli et al. 2022, Nature Communications 13, 4128",
    terms="CC-BY-SA 4.0",
    layout="Task??_Name/{dataset.json, imagesTr/, labelsTr/, imagesTs/}",
)

_CONTEXT = (20, 20, 20)  # voxels (z, y, x), as most CT data sets of Hermes
_KEPT = (
    "name",
    "description",
    "reference",
    "licence",
    "release",
    "tensorImageSize",
    "modality",
    "labels",
    "regions",
    "ignore",
    "label_space",
)


def prepare(
    raw_dir: str | Path,
    out_dir: str | Path,
    *,
    num_folds: int = 5,
    seed: int = 0,
    isotropic: bool = False,
    crop: bool = False,
) -> Path:
    """Write ``<out_dir>/msd_<task>.json`` with folds; paths are relative to ``raw_dir``.

    Folds that the archive's list has are kept. Lists may write a path with or without ``./``, and a test case as a
    string or an object. With ``isotropic`` the labelled cases are copied at 1.5 mm, as Hermes takes them
    (Task07_Pancreas is one of its downstream data sets, arXiv 2306.02416); paths are then relative to ``out_dir``.

    Args:
        num_folds: number of folds of the training cases, at most as many as there are.
        seed: random seed of the folds.
        isotropic: copies of 1.5 mm, of tasks with one channel.
        crop: the copies, to the labels and 20 voxels around them.

    Raises:
        DataError: there is no readable ``dataset.json``, files that it names are missing, or the task has several
            channels and shall be isotropic.
        CasesFailed: some cannot be converted; the others are done.
    """
    from medseg.data import assign_folds, read_datalist, write_datalist

    root, source = Path(raw_dir), Path(raw_dir) / "dataset.json"
    if not source.is_file():
        inner = sorted(str(path.parent) for path in root.glob("*/dataset.json"))
        hint = f" Did you mean {' or '.join(inner[:10])}?" if inner else " Unpack the archive again."
        raise DataError(f"{root} has no dataset.json; expected a folder as {FACTS.layout}.{hint}")
    datalist = read_datalist(source, root)
    _refuse_missing(datalist, root)
    sections = {name: [case.to_dict() for case in cases] for name, cases in datalist.sections.items()}
    training = sections["training"]
    if not datalist.folds():
        training = sections["training"] = assign_folds(training, min(num_folds, len(training)), seed)
    table: dict[str, Any] = {key: datalist.table[key] for key in _KEPT if key in datalist.table}
    table |= {"numTraining": len(training), "numTest": len(sections.get("test", []))}
    table |= {name: [_relative(case, root) for case in cases] for name, cases in sections.items() if cases}
    target = Path(out_dir) / f"msd_{datalist.name.lower().replace(' ', '_').replace('/', '_')}.json"
    if isotropic:
        return _prepare_isotropic(datalist, table, target, crop, num_folds, seed)
    return write_datalist(table, target, root)


def _prepare_isotropic(
    datalist: Datalist, table: dict[str, Any], target: Path, crop: bool, num_folds: int, seed: int
) -> Path:
    from medseg.data.converted_pairs import convert_pairs
    from medseg.data.isotropic import pairs_from_files

    if len(datalist.channels) != 1:
        raise DataError(
            f"{datalist.path} has the channels {', '.join(datalist.channels)}; --isotropic takes tasks with one. Train "
            "on the files as they are: the plan resamples them."
        )
    labelled = {section: datalist.sections[section] for section in ("training", "validation")}
    sources = {c.id: (Path(c.images[0]), Path(str(c.label))) for cases in labelled.values() for c in cases}
    kept = ("case_id", "subject", "fold")
    return convert_pairs(
        {key: value for key, value in table.items() if key in _KEPT},
        {name: [_some(case, kept) for case in cases] for name, cases in labelled.items()},
        pairs_from_files(sources, isotropic=True, context=_CONTEXT if crop else None),
        target,
        form={"crop": crop},
        num_folds=0 if datalist.folds() else num_folds,
        seed=seed,
    )


def _some(case: Case, keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in case.to_dict().items() if key in keys}


def _refuse_missing(datalist: Datalist, root: Path) -> None:
    named = [file for cases in datalist.sections.values() for case in cases for file in case.files]
    missing = [path for path in named if not Path(path).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(named)} files that {root / 'dataset.json'} names are missing, the first is "
            f"{missing[0]}; unpack the archive again."
        )


def _relative(case: dict[str, Any], root: Path) -> dict[str, Any]:
    """An entry of the datalist; the case id comes from the file names again."""
    entry = {key: value for key, value in case.items() if key != "case_id"}
    for key in ("image", "label"):
        if key in entry:
            entry[key] = Path(entry[key]).relative_to(root).as_posix()
    return entry

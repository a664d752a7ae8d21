"""Any task folder of the Medical Segmentation Decathlon: ``dataset.json``, ``imagesTr``, ``labelsTr``, ``imagesTs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.datasets import DatasetFacts
from medseg.errors import DataError

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="Medical Segmentation Decathlon",
    spatial_dims=3,
    source="medicaldecathlon.com; Antonelli et al. 2022, Nature Communications 13, 4128",
    terms="CC-BY-SA 4.0",
    layout="Task??_Name/{dataset.json, imagesTr/, labelsTr/, imagesTs/}",
)

_KEPT = (
    "name",
    "description",
    "reference",
    "licence",
    "release",
    "tensorImageSize",
    "modality",
    "labels",
    "label_space",
)


def prepare(raw_dir: str | Path, out_dir: str | Path, *, num_folds: int = 5, seed: int = 0) -> Path:
    """Write ``<out_dir>/decathlon_<task>.json`` with folds; paths are relative to ``raw_dir``.

    Folds that the archive's list has are kept. Lists may write a path with or without ``./``, and a test case as a
    text or an object.

    Args:
        raw_dir: the task's folder, such as ``Task04_Hippocampus``.
        out_dir: where the datalist goes.
        num_folds: folds of the training cases, at most as many as there are.
        seed: of the folds.

    Raises:
        DataError: there is no readable ``dataset.json``, or files that it names are missing.
    """
    from medseg.data import assign_folds, read_datalist, write_datalist

    root, source = Path(raw_dir), Path(raw_dir) / "dataset.json"
    if not source.is_file():
        raise DataError(f"{root} has no dataset.json; expected a folder as {FACTS.layout}.")
    datalist = read_datalist(source, root)
    _refuse_missing(datalist.sections, root)
    training = datalist.sections["training"]
    if not datalist.folds():
        training = assign_folds(training, min(num_folds, len(training)), seed)
    sections = datalist.sections | {"training": training}
    table: dict[str, Any] = {key: datalist.table[key] for key in _KEPT if key in datalist.table}
    table |= {"numTraining": len(training), "numTest": len(sections.get("test", []))}
    table |= {name: [_relative(case, root) for case in cases] for name, cases in sections.items() if cases}
    target = Path(out_dir) / f"decathlon_{datalist.name.lower().replace(' ', '_').replace('/', '_')}.json"
    return write_datalist(table, target, root)


def _refuse_missing(sections: dict[str, list[dict[str, Any]]], root: Path) -> None:
    named = [case[key] for cases in sections.values() for case in cases for key in ("image", "label") if key in case]
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

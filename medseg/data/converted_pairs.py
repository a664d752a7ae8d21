"""A data set whose images and labels are made: written as ``NAME.nii.gz`` and ``NAME_gt.nii.gz``, then listed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.data.convert import convert_files
from medseg.data.datalist_file import write_datalist
from medseg.data.folds import assign_folds
from medseg.data.label_files import refuse_undeclared
from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.storage import read_table, write_json

if TYPE_CHECKING:
    from medseg.data.isotropic import Pair

__all__ = ["convert_pairs", "split_sections"]


def convert_pairs(
    table: Mapping[str, Any],
    sections: Mapping[str, Sequence[Mapping[str, Any]]],
    make: Callable[[str], Pair],
    path: Path,
    *,
    form: Mapping[str, Any],
    num_folds: int = 5,
    seed: int = 0,
) -> Path:
    """Make the files of all cases beside the datalist, which is written last.

    Args:
        table: the datalist without its sections.
        sections: ``training``, ``validation``, ``test`` -> what is said of each case, ``case_id`` at least.
        make: case id -> image and label; called from several threads.
        path: the datalist.
        form: the options that the files depend on. Files of another form are not mixed in: they are refused.
        num_folds: number of folds of the training cases by subject, at most as many as there are; 0 makes none.
        seed: random seed of the folds.

    Raises:
        ConfigError: the folder holds another data set, or this one in another form.
        CasesFailed: some cases cannot be made; the others are done.
    """
    folder = path.parent
    _refuse_other_form(folder / "form.json", {"name": table["name"], **form})
    space = LabelSpace.from_table({"labels": table["labels"]})

    def write(name: str, temporary: Path) -> None:
        import SimpleITK as sitk

        image, label = make(name)
        refuse_undeclared(sitk.GetArrayViewFromImage(label), space, f"the label of {name}")
        target = folder / f"{name}_gt.nii.gz"
        part = target.with_name(f".partial_{target.name}")
        for volume, file in ((label, part), (image, temporary)):
            sitk.WriteImage(volume, str(file), useCompression=True)
        part.replace(target)  # the image is renamed last: where it is, its label is

    names = [case["case_id"] for cases in sections.values() for case in cases]
    for name in names:
        if not (folder / f"{name}_gt.nii.gz").exists():
            (folder / f"{name}.nii.gz").unlink(missing_ok=True)  # both are made again
    convert_files([(name, folder / f"{name}.nii.gz") for name in names], write)
    listed = {section: [_entry(case) for case in cases] for section, cases in sections.items() if cases}
    if num_folds:
        subjects = {case.get("subject", case["case_id"]) for case in listed["training"]}
        listed["training"] = assign_folds(listed["training"], min(num_folds, len(subjects)), seed)
    return write_datalist({**table, **listed}, path, folder)


def split_sections(
    names: Iterable[object], validation: Iterable[object], test: Iterable[object]
) -> dict[str, list[dict[str, Any]]]:
    """Sections of cases whose name or number is all there is to say of them; what is left is for training."""
    held_out = {"validation": [str(name) for name in validation], "test": [str(name) for name in test]}
    used = {name for cases in held_out.values() for name in cases}
    training = [name for name in map(str, names) if name not in used]
    return {
        section: [{"case_id": name} for name in cases] for section, cases in ({"training": training} | held_out).items()
    }


def _entry(case: Mapping[str, Any]) -> dict[str, Any]:
    name = case["case_id"]
    return {"image": f"{name}.nii.gz", "label": f"{name}_gt.nii.gz", **case}


def _refuse_other_form(file: Path, form: Mapping[str, Any]) -> None:
    if not file.exists():
        write_json(file, form)
        return
    found = read_table(file, "the options that the files were made with")
    differing = [key for key in {**found, **form} if found.get(key) != form.get(key)]
    if differing:
        stated = ", ".join(f"{key} {found.get(key)} (now {form.get(key)})" for key in differing)
        raise ConfigError(f"{file.parent} holds files made with {stated}; expected equal options. Name another --out.")

"""Label maps of any tool beside their references: paired by the names of their files, and held on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.data.case import Case
from medseg.data.datalist_file import read_datalist
from medseg.data.files import Unreadable, Volume, read_volume
from medseg.data.geometry import check_same_grid
from medseg.data.label_files import refuse_undeclared
from medseg.data.layouts import image_files
from medseg.errors import ConfigError, DataError, few, nearest
from medseg.labels import LabelSpace
from medseg.transforms.reader import stem_of

__all__ = ["LabelPairs", "find_references", "pair_label_maps", "read_label_pair"]


@dataclass(frozen=True)
class LabelPairs:
    """References and what was predicted of them.

    Attributes:
        cases: those with a prediction.
        predictions: case id -> its predicted label map.
        missing: ids of the cases without.
        surplus: predicted files without a reference.
    """

    cases: Sequence[Case]
    predictions: Mapping[str, Path]
    missing: Sequence[str]
    surplus: Sequence[Path]

    def problems(self, folder: Path) -> list[str]:
        """What the two sets do not share, in words."""
        found = []
        if self.surplus:
            count = f"{len(self.surplus)} prediction{'s have' if len(self.surplus) > 1 else ' has'}"
            found.append(f"{count} no reference: {few([path.name for path in self.surplus])}")
        if self.missing:
            count = f"{len(self.missing)} reference{'s have' if len(self.missing) > 1 else ' has'}"
            found.append(f"{count} no prediction in {folder}: {few(self.missing)}")
        return found


def find_references(source: str | Path, section: str | None = None) -> list[Case]:
    """The cases of a folder of label maps, or the labelled ones of a datalist.

    Args:
        source: a case of a folder has no images, and the name of its file.
        section: section of the datalist; ``None`` for all.

    Raises:
        ConfigError: a section of a folder, or one that the datalist lacks.
        DataError: there is none.
    """
    path = Path(source)
    if path.is_dir():
        if section is not None:
            raise ConfigError(f"{path} is a folder, which has no section '{section}'; name a datalist, or omit it.")
        cases = [Case(name, (), str(file)) for name, file in _by_name(image_files(path)).items()]
    else:
        sections = read_datalist(source).sections
        if section is not None and section not in sections:
            raise ConfigError(
                f"{source} has no section '{section}'.{nearest(section, sections)} It has {few(sections)}."
            )
        chosen = [section] if section else list(sections)
        cases = list({case.id: case for name in chosen for case in sections[name] if case.label}.values())
    if not cases:
        raise DataError(f"{source} holds no reference; expected label maps. Name their folder, or a datalist of them.")
    return cases


def pair_label_maps(cases: Sequence[Case], folder: Path) -> LabelPairs:
    """Find the predictions of cases, by the case's id or the name of its label file.

    Args:
        folder: folder of label maps, or one of nnU-Net's trained networks, whose ``fold_*/validation`` are pooled.

    Raises:
        DataError: the folder holds none, or two of a case.
    """
    if not folder.is_dir():
        raise DataError(f"Folder {folder} not found; name an existing one with predicted label maps.")
    folds = sorted(folder.glob("fold_*/validation"))
    found = _by_name([file for place in folds or [folder] for file in image_files(place)])
    if not found:
        raise DataError(
            f"{folder} holds no label map; expected one image file per case. Name the folder of predictions."
        )
    names = {case.id: case.id if case.id in found else stem_of(str(case.label)) for case in cases}
    predictions = {case: found[name] for case, name in names.items() if name in found}
    return LabelPairs(
        [case for case in cases if case.id in predictions],
        predictions,
        [case.id for case in cases if case.id not in predictions],
        [file for name, file in found.items() if name not in names.values()],
    )


def _by_name(files: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        name = stem_of(file)
        if name in found:
            raise DataError(f"{found[name]} and {file} are of one case, '{name}'; expected one file each. Remove one.")
        found[name] = file
    return found


def read_label_pair(case: Case, prediction: Path, space: LabelSpace | None) -> tuple[Volume, Volume]:
    """The predicted and the reference label map, raw values; instance numbers without a ``space``.

    Raises:
        DataError: a file cannot be read, holds an undeclared value, or the two are not on one grid.
    """
    try:
        predicted, true = (read_volume(path, mask=True) for path in (prediction, str(case.label)))
    except Unreadable as error:
        raise DataError(". ".join(error.args)) from error
    for message, remedy, _ in check_same_grid(true, predicted, "prediction", of="reference"):
        raise DataError(f"{prediction}: {message}. {remedy}")
    for volume, path in ((predicted, prediction), (true, case.label)):
        if len(volume.channels) > 1:
            raise DataError(f"{path} has {len(volume.channels)} channels; expected one label map. Export it as one.")
        if space is not None:
            refuse_undeclared(volume.channels[0], space, str(path), case.dataset)
    return predicted, true

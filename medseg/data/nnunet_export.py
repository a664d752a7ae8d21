"""Write a datalist as nnU-Net's raw data with its own splits, so that both tools train and test on equal cases.

``nnUNet_raw/DatasetXXX_Name`` has the training cases as ``imagesTr`` and ``labelsTr``, other cases as ``imagesTs`` and,
where they are labelled, ``labelsTs``; ``nnUNet_preprocessed/DatasetXXX_Name`` has ``splits_final.json``, where nnU-Net
looks for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from medseg.data.case import Case
from medseg.data.convert import link_or_copy
from medseg.data.datalist import Datalist
from medseg.data.datalist_file import read_datalist
from medseg.data.datalist_form import DIVIDED
from medseg.data.files import Unreadable, Volume, read_volume
from medseg.data.label_files import refuse_undeclared
from medseg.data.nnunet_plans import read_nnunet_plans
from medseg.errors import ConfigError, DataError
from medseg.labels import BACKGROUND, IGNORE, LabelSpace
from medseg.settings import File, Folder, takes
from medseg.storage import whole_file, write_json
from medseg.transforms.nifti import new_image, placed_like
from medseg.transforms.save import write_label_map

__all__ = ["ExportNnunetSettings", "ExportedNnunet", "export_nnunet"]

_FOLDS = 5


@dataclass(frozen=True)
class ExportNnunetSettings:
    """What is written for nnU-Net.

    Attributes:
        json_list: datalist.
        output: folder that nnUNet_raw and nnUNet_preprocessed are made in.
        dataset_id: number of the data set for nnU-Net, 1 to 999.
        data_dir: base directory for relative paths in the datalist (default: its folder).
        plans: nnUNetPlans.json to put beside the splits, such as the one that a run took its plan from.
    """

    json_list: File
    output: Folder
    _: KW_ONLY
    dataset_id: int = 100
    data_dir: Folder | None = None
    plans: File | None = None


@dataclass(frozen=True)
class ExportedNnunet:
    """What was written.

    Attributes:
        raw: folder of the raw data.
        preprocessed: folder of the splits.
        splits: numbers of training and validation cases of each split.
        tests: number of cases in ``imagesTs``.
    """

    raw: Path
    preprocessed: Path
    splits: tuple[tuple[int, int], ...]
    tests: int


@takes(ExportNnunetSettings)
def export_nnunet(settings: ExportNnunetSettings) -> ExportedNnunet:
    """Write a datalist as nnU-Net's raw data, with the datalist's folds as splits_final.json.

    Raises:
        ConfigError: the folder is there already, or the number is not one of nnU-Net's.
        DataError: labels that nnU-Net cannot hold (several data sets), or a file that cannot be read.
    """
    datalist, number = read_datalist(settings.json_list, settings.data_dir), settings.dataset_id
    if not 1 <= number <= 999:
        raise ConfigError(f"dataset_id {number} is not valid; nnU-Net's are 1 to 999.")
    name = f"Dataset{number:03}_{re.sub(r'[^A-Za-z0-9]+', '', datalist.name) or 'medseg'}"
    raw, preprocessed = (Path(settings.output) / place / name for place in ("nnUNet_raw", "nnUNet_preprocessed"))
    if raw.exists():
        raise ConfigError(f"{raw} exists; name another --output or --dataset_id, or remove it.")
    space = datalist.label_space
    if set(space.fragments) != {""}:
        raise DataError(f"{datalist.path} has labels of several data sets, nnU-Net one; export them one by one.")
    plans = None if settings.plans is None else read_nnunet_plans(settings.plans)
    splits, training, tests = _splits(datalist)
    ending = ".png" if training[0].is_picture else ".nii.gz"
    channels = [_write_case(case, raw, "Tr", ending, space) for case in training]
    for case in tests:
        _write_case(case, raw, "Ts", ending, space)
    write_json(raw / "dataset.json", _dataset(datalist, len(training), channels[0], ending))
    write_json(preprocessed / "splits_final.json", splits)
    if plans is not None:
        write_json(preprocessed / "nnUNetPlans.json", {**plans.table, "dataset_name": name})
    numbers = tuple((len(split["train"]), len(split["val"])) for split in splits)
    return ExportedNnunet(raw, preprocessed, numbers, len(tests))


def _splits(datalist: Datalist) -> tuple[list[dict[str, list[str]]], list[Case], list[Case]]:
    """nnU-Net's splits, the cases that they are of, and all others."""
    sections = datalist.sections
    if datalist.folds() or not sections["validation"]:
        number = min(_FOLDS, len({case.group for case in sections["training"]}))
        pairs = [datalist.split(fold) for fold in datalist.folds() or range(number)]
        training, tests = sections["training"], [c for name, cs in sections.items() if name != "training" for c in cs]
    else:
        pairs = [datalist.split()]
        training = [*sections["training"], *sections["validation"]]
        tests = [case for name, cases in sections.items() if name not in DIVIDED for case in cases]
    splits = [{"train": sorted(c.id for c in train), "val": sorted(c.id for c in val)} for train, val in pairs]
    return splits, training, tests


def _dataset(datalist: Datalist, number: int, channels: int, ending: str) -> dict[str, Any]:
    space, names = datalist.label_space, dict(enumerate(datalist.channels))
    table: dict[str, Any] = {
        "name": datalist.name,
        "channel_names": {str(index): _channel(names.get(index, f"channel {index}")) for index in range(channels)},
        "labels": {BACKGROUND: 0} | {name: index for index, name in enumerate(space.labels, 1)},
        "numTraining": number,
        "file_ending": ending,
    }
    if ending == ".png":
        table["channel_names"] = {str(index): name for index, name in enumerate("RGB"[:channels])}
    if space.regions:
        # nnU-Net writes regions in their order, later ones over earlier ones.
        order = space.paint_order() if space.mode == "sigmoid" else []
        if not order:
            raise DataError(f"{datalist.path}: nnU-Net needs nested regions, these are not; leave out 'regions'.")
        regions = list(space.targets.items())
        table["labels"] = {BACKGROUND: 0} | {regions[channel][0]: list(regions[channel][1]) for channel, _ in order}
        table["regions_class_order"] = [label for _, label in order]
    if space.has_ignore:
        table["labels"]["ignore"] = len(space.labels) + 1
    return table


def _channel(name: str) -> str:
    return "CT" if name.lower() == "ct" else name  # by which nnU-Net chooses the normalisation


def _write_case(case: Case, raw: Path, part: str, ending: str, space: LabelSpace) -> int:
    """Write the images and the label; returns the number of channels."""
    images = raw / f"images{part}"
    images.mkdir(parents=True, exist_ok=True)
    if case.is_picture != (ending == ".png"):
        raise DataError(f"{case.id}: 2D images and volumes are mixed; nnU-Net takes one kind. Export them apart.")
    number = 0
    for file in map(Path, case.images):
        volume = _read(file)
        if (ending == ".png" or len(volume.channels) == 1) and file.name.lower().endswith(ending):
            link_or_copy(file, images / f"{case.id}_{number:04}{ending}")
        elif ending == ".png":
            raise DataError(f"{file}: nnU-Net takes 2D images as PNG; convert the images to PNG.")
        else:
            for index, channel in enumerate(volume.channels, number):
                with whole_file(images / f"{case.id}_{index:04}{ending}") as temporary:
                    nibabel.save(_placed(channel, volume), temporary)
        number += len(volume.channels)
    if case.label:
        volume = _read(Path(case.label), mask=True)
        refuse_undeclared(volume.channels[0], space, case.label, case.dataset)
        values = space.encode(volume.channels[0], case.dataset)
        values[values == IGNORE] = len(space.labels) + 1
        write_label_map(values.astype(np.uint8), _meta(volume), raw / f"labels{part}" / f"{case.id}{ending}")
    return number


def _read(path: Path, *, mask: bool = False) -> Volume:
    try:
        return read_volume(path, mask=mask)
    except Unreadable as error:
        raise DataError(". ".join(error.args)) from error


def _meta(volume: Volume) -> Mapping[Any, Any]:
    return {"original_affine": volume.affine, **volume.image.meta}


def _placed(channel: np.ndarray, volume: Volume) -> nibabel.Nifti1Image:
    own = volume.placement is not None
    return placed_like(channel, volume.image.meta) if own else new_image(channel, volume.affine)

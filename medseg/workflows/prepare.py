"""Prepare a public data set: its module makes the datalist, here it is read back and summed up."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.data import Datalist, read_datalist
from medseg.data.label_files import check_label_files
from medseg.datasets import dataset_module
from medseg.errors import ConfigError, DataError
from medseg.settings import Folder, takes
from medseg.workflows.options import check_options

__all__ = ["PrepareSettings", "Prepared", "prepare"]


@dataclass
class Prepared:
    """A prepared data set: its datalist and the folder that its paths are relative to (``datalist.data_dir``)."""

    dataset: str
    datalist: Datalist

    def lines(self) -> list[str]:
        """What a user wants to know next."""
        datalist = self.datalist
        sections = [f"{len(cases)} {name}" for name, cases in datalist.sections.items() if cases]
        folds = f" in {len(datalist.folds())} folds" if datalist.folds() else ""
        sections[0] += folds
        space = datalist.label_space
        paths = shlex.join(["--json_list", str(datalist.path), "--data_dir", str(datalist.data_dir)])
        return [
            f"{datalist.path}: {', '.join(sections)} cases; {', '.join(datalist.channels)}; {len(space.labels)} labels",
            f"terms: {dataset_module(self.dataset).FACTS.terms}",
            f"next: medseg check {paths}",
        ]


@dataclass(frozen=True)
class PrepareSettings:
    """Which data set is prepared from which folder.

    Attributes:
        dataset: name of the data set, such as btcv.
        raw: folder of the unpacked archive; nothing in it changes.
        out: folder for the datalist and converted files, outside the archive.
        options: options of the data set itself by their names, such as the task.
    """

    dataset: str = field(metadata={"positional": "DATASET"})
    raw: Folder
    out: Folder = field(metadata={"option": ("out", "output")})
    options: Mapping[str, Any] | None = field(default=None, metadata={"option": None})


@takes(PrepareSettings)
def prepare(settings: PrepareSettings) -> Prepared:
    """Turn the unpacked archive of a public data set into a checked datalist; --list shows the data sets.

    The same call again does only what is missing.

    Raises:
        ConfigError: an unknown data set or option, or folders that cannot be used.
        DataError: the archive is incomplete, or a label file holds a value that the data set does not declare.
    """
    module, raw, out, options = (
        dataset_module(settings.dataset),
        Path(settings.raw),
        Path(settings.out),
        dict(settings.options or {}),
    )
    if not raw.is_dir():
        raise ConfigError(f"Folder {raw} not found; --raw names the unpacked archive: {module.FACTS.layout}.")
    if out.resolve().is_relative_to(raw.resolve()):
        raise ConfigError(f"--out {out} lies in the raw folder {raw}, which stays as it is; name a folder outside.")
    check_options(settings.dataset, module.prepare, options)
    path = Path(module.prepare(raw, out, **options))
    for root in (out, raw):
        datalist = read_datalist(path, root)
        first = next(case for cases in datalist.sections.values() for case in cases)
        if all(Path(image).is_file() for image in first.images):
            check_label_files(datalist)
            return Prepared(settings.dataset, datalist)
    raise DataError(f"{path} names files that are neither below {out} nor below {raw}; report this with the archive.")

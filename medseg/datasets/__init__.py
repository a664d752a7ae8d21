"""Public data sets: one module each, and the only place where a data set is named in Python.

A module ``medseg/datasets/<name>.py`` holds

* ``FACTS``: a ``DatasetFacts`` with what is fixed about the data set, its source and its terms;
* ``prepare(raw_dir, out_dir, *, num_folds=5, seed=0) -> Path``: turns the archive as it is unpacked into a checked
  datalist ``<out_dir>/<name>.json`` and returns its path. Images stay where they are if they can be used as they are;
  converted ones go below ``out_dir``. The datalist's paths are relative to ``out_dir`` where files were made there,
  else to ``raw_dir``. It may take further keyword arguments with defaults, which become options of ``medseg prepare``;
  it downloads nothing and changes nothing in ``raw_dir``. The same call again gives the same file. Raises ``DataError``
  where the archive is incomplete.

``FACTS.require`` refuses an archive that lacks files; ``FACTS.write`` writes the list;
``medseg.data.convert.convert_files`` converts files in parallel, resumes where it was stopped, and shows a progress bar
on a terminal; ``medseg.data.converted_pairs.convert_pairs`` does both for images and labels that are made.

Modules import torch and other heavy packages inside ``prepare``, so that listing data sets is quick.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from medseg.errors import ConfigError, DataError, few, nearest

__all__ = ["DatasetFacts", "dataset_module", "datasets"]


@dataclass(frozen=True)
class DatasetFacts:
    """What is fixed about a public data set.

    Attributes:
        title: its own name.
        modality: name of each image channel, such as ``("CT",)``; empty where the archive says it.
        labels: raw voxel value -> name, background included; empty where the archive says it.
        spatial_dims: 2 or 3.
        source: where it is obtained, and how to cite it.
        terms: licence or terms of use.
        splits: published section -> number of cases; empty where there is no fixed split.
        layout: the files and folders that ``prepare`` expects in ``raw_dir``.
    """

    title: str
    spatial_dims: int
    source: str
    terms: str
    layout: str
    modality: tuple[str, ...] = ()
    labels: Mapping[int, str] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)

    def table(self, **changed: Any) -> dict[str, Any]:
        """The head of a datalist; ``changed``: keys that differ or come in addition, ``None`` omits one."""
        told = {
            "name": self.title,
            "description": None,
            "reference": self.source,
            "licence": self.terms,
            "release": None,
            "tensorImageSize": None,
            "modality": {str(index): name for index, name in enumerate(self.modality)},
            "labels": {str(value): name for value, name in self.labels.items()},
        }
        return {key: value for key, value in (told | changed).items() if value is not None}

    def write(
        self,
        path: Path,
        root: Path,
        sections: Mapping[str, Sequence[Mapping[str, Any]]],
        *,
        num_folds: int = 0,
        seed: int = 0,
        **changed: Any,
    ) -> Path:
        """Write a datalist with the numbers of its cases; returns its path.

        Args:
            path: the datalist.
            root: base directory of the paths.
            sections: section -> cases; empty ones are omitted.
            num_folds: number of folds of the training cases by subject, at most as many as there are; 0 makes none.
            seed: random seed of the folds.
            **changed: of ``table``.
        """
        from medseg.data import assign_folds, write_datalist
        from medseg.data.folds import subject_of

        listed = dict(sections)
        if num_folds:
            subjects = {subject_of(case) for case in listed["training"]}
            listed["training"] = assign_folds(listed["training"], min(num_folds, len(subjects)), seed)
        counts = {f"num{section.capitalize()}": len(cases) for section, cases in listed.items()}
        filled = {section: cases for section, cases in listed.items() if cases}
        return write_datalist(self.table(**changed) | counts | filled, path, root)

    def hint(self, raw: Path, *patterns: str, otherwise: str = "Unpack the archive again") -> str:
        """What to do about an incomplete archive: the folder that was meant, whose content a pattern finds below
        ``raw``, or how to get it.
        """
        inner = next((found.parent for pattern in patterns for found in raw.glob(pattern)), None)
        return f"Did you mean {inner}?" if inner else f"{otherwise}; expected {self.layout}."

    def require(self, raw: Path, files: Sequence[str]) -> None:
        """Refuse an archive that lacks any of ``files`` (relative to ``raw``), or that has none to name.

        Raises:
            DataError: with the first missing files, and with the folder that was meant where one below has them.
        """
        missing = [file for file in files if not (raw / file).is_file()]
        if files and not missing:
            return
        top = Path(files[0]).parts[0] if files else ""
        hint = self.hint(raw, *([f"*/{top}", f"*/*/{top}"] if top else []))
        what = f"{len(missing)} of {len(files)} files of {self.title} are missing in {raw}: {few(missing)}"
        raise DataError(f"{what if files else f'{raw} holds no case of {self.title}'}. {hint}")


@cache
def datasets() -> dict[str, DatasetFacts]:
    """Facts of all data sets by module name, sorted."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").FACTS for name in names}


def dataset_module(name: str) -> ModuleType:
    """The module of a data set.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in datasets():
        raise ConfigError(f"No data set '{name}'.{nearest(name, datasets())} All: {', '.join(datasets())}.")
    return importlib.import_module(f"{__name__}.{name}")

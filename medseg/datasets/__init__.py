"""Public data sets: one module each, and the only place where a data set is named in Python.

A module ``medseg/datasets/<name>.py`` holds

* ``FACTS``: a ``DatasetFacts`` with what is fixed about the data set, its source and its terms;
* ``prepare(raw_dir, out_dir, *, num_folds=5, seed=0) -> Path``: turns the archive as it is unpacked into a checked
  datalist ``<out_dir>/<name>.json`` and returns its path. Images stay where they are if they can be used as they are;
  converted ones go below ``out_dir``. The datalist's paths are relative to ``out_dir`` where files were made there,
  else to ``raw_dir``. It may take further keyword arguments with defaults, which become options of ``medseg prepare``;
  it downloads nothing and changes nothing in ``raw_dir``. The same call again gives the same file. Raises ``DataError``
  where the archive is incomplete.

``medseg.data.write_datalist`` writes the list; ``medseg.data.convert.convert_files`` converts files in parallel, goes
on where it was stopped, and shows a progress bar on a terminal.

Modules import torch and other heavy packages inside ``prepare``, so that listing data sets is quick.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType

from medseg.errors import ConfigError, nearest

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

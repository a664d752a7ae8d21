"""Layouts of users' own folders: one module each, told apart by what the folder holds.

A module ``medseg/data/layouts/<name>.py`` holds

* ``TITLE``: what a sentence calls it;
* ``recognises(folder) -> bool``: whether a folder is of this layout, by names alone;
* ``read(folder, *, …) -> Found``: its cases. Keyword-only arguments with defaults are options of ``medseg datalist``
  that this layout takes. Raises ``DataError`` where a case is incomplete.

No image is opened here, headers of DICOM and what is drawn on it aside; what a layout does not say (modality, labels),
``make_datalist`` reads from the files.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from medseg.data.entry import Entry
from medseg.errors import ConfigError, nearest
from medseg.transforms.reader import IMAGE_SUFFIXES

__all__ = ["LAYOUTS", "Found", "image_files", "layout_module", "read_layout"]

LAYOUTS = ("nnunet", "msd", "bids", "pairs", "dicom")  # in the order in which a folder is tried


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        name: name of the data set.
        root: base directory for the datalist's relative paths.
        sections: ``training``, ``validation``, ``test`` -> cases with ``case_id``, ``image`` (a list of files), in the
            first two ``label``, and keys that the datalist keeps.
        modality: names of the channels; empty where the layout does not say.
        labels: label table in either direction; empty where the layout does not say.
        about: further entries of the datalist, such as ``licence``.
        splits: a file of nnU-Net's splits that belongs to the folder.
        traits: case id -> what is known of its subject, for stratified folds.
        notes, warnings: sentences.
    """

    name: str
    root: Path
    sections: dict[str, list[Entry]]
    modality: list[str] = field(default_factory=list)
    labels: Mapping[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    splits: Path | None = None
    traits: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def layout_module(name: str) -> ModuleType:
    """The module of a layout.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in LAYOUTS:
        raise ConfigError(f"No layout '{name}'.{nearest(name, LAYOUTS)} All: {', '.join(LAYOUTS)}.")
    return importlib.import_module(f"{__name__}.{name}")


def read_layout(
    folder: Path | None, layout: str | None, options: Mapping[str, Any], offered: Mapping[str, Any] | None = None
) -> Found:
    """The cases of a folder, by the layout given or recognised.

    Args:
        folder: may be ``None`` where ``options`` name the folders of images and labels.
        layout: name of one of ``LAYOUTS``.
        options: options of the layout's ``read``.
        offered: further options, for a layout that takes them.

    Raises:
        ConfigError: no layout is recognised, or an option is given that the layout does not take.
        DataError: a case is incomplete.
    """
    if folder is None and not {"images", "labels"} <= set(options):
        raise ConfigError("No folder is named; give one, or --images and --labels.")
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"Folder {folder} not found; name an existing one.")
    module = layout_module(layout or ("pairs" if folder is None or "images" in options else _recognised(folder)))
    taken = [p.name for p in inspect.signature(module.read).parameters.values() if p.kind is p.KEYWORD_ONLY]
    foreign = [key for key in options if key not in taken]
    if foreign:
        option = foreign[0].replace("channels", "channel")  # given once per channel
        raise ConfigError(
            f"{folder} is read as {module.TITLE}, which takes no --{option}; omit it, or name the folders with "
            "--images and --labels."
        )
    also = {key: value for key, value in (offered or {}).items() if key in taken}
    found: Found = module.read(folder, **options, **also)
    found.notes.insert(0, f"layout: {module.TITLE}")
    return found


def _recognised(folder: Path) -> str:
    for name in LAYOUTS:
        if layout_module(name).recognises(folder):
            return name
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    hints = [path for path in inner if any(layout_module(name).recognises(path) for name in LAYOUTS)]
    raise ConfigError(
        f"The layout of {folder} is not recognised; expected dataset.json (MSD, nnU-Net), dataset_description.json "
        "(BIDS), folders such as images and labels, or DICOM. "
        + (f"Did you mean {hints[0]}?" if hints else "Name the two folders with --images and --labels.")
    )


def image_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Image files of a folder, sorted; hidden ones and copies that archives hold (``._x``) are skipped."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.name.lower().endswith(IMAGE_SUFFIXES) and not path.name.startswith(".") and path.is_file()
    )

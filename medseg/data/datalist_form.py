"""The JSON form of a datalist: its keys, and how it is written, one case per line."""

from __future__ import annotations

import json
import logging
import textwrap
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from medseg.errors import DataError, nearest

__all__ = [
    "DIVIDED",
    "ENTRY_KEYS",
    "ROOT",
    "SECTIONS",
    "UNION_SUFFIXES",
    "check_keys",
    "holds_cases",
    "to_text",
    "warn_once",
]

logger = logging.getLogger("medseg")

SECTIONS = ("training", "validation", "test")
DIVIDED = SECTIONS[:2]  # by folds; their cases have labels
ENTRY_KEYS = ("image", "label", "fold", "subject", "modality", "dataset", "case_id")
ROOT = "data_dir"
UNION_SUFFIXES = (".yaml", ".yml")  # of files that name several datalists

# What is read: a misspelling of these would change what is trained on.
_READ: tuple[str, ...] = (*SECTIONS, "testing", "name", "modality", "channel_names", ROOT, "known_overlaps")
_READ += ("labels", "regions", "ignore", "codes", "label_space", "weights", "capacity")
# What tells people of the data, in reports and model cards, or is for Decathlon's and nnU-Net's programs alone.
_TOLD: tuple[str, ...] = ("description", "reference", "licence", "license", "release", "tensorImageSize")
_TOLD += ("numTraining", "numValidation", "numTest", "file_ending", "regions_class_order", "dataset_name")
_TOLD += ("overwrite_image_reader_writer", "converted_by")


def check_keys(table: Mapping[str, Any], path: Path) -> None:
    """Refuse a top-level key that is a misspelling of one that is read, and warn of others that nothing reads.

    Raises:
        DataError: with the nearest key.
    """
    absent = [key for key in _READ if key not in table]
    unknown = [key for key in table if key not in (*_READ, *_TOLD)]
    for key in unknown:
        if close := nearest(key, absent, 0.8):
            raise DataError(f"{path} has unknown key '{key}'.{close} Correct it, or give it another name.")
    if ignored := [key for key in unknown if not holds_cases(table[key])]:
        close = nearest(ignored[0], _TOLD, 0.8) if len(ignored) == 1 else ""
        warn_once(f"{path}: unknown keys are ignored: {', '.join(ignored)}.{close}")


@lru_cache
def warn_once(message: str) -> None:
    """Log a warning the first time: a run reads and splits the same list several times."""
    logger.warning(message)


def to_text(table: Mapping[str, Any]) -> str:
    """The JSON of a datalist, one case per line."""
    entries = []
    for key, value in table.items():
        if holds_cases(value):
            rows = ",\n".join("  " + json.dumps(case, ensure_ascii=False) for case in value)
            text = f"[\n{rows}\n ]"
        else:
            text = textwrap.indent(json.dumps(value, indent=1, ensure_ascii=False), " ").lstrip()
        entries.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def holds_cases(value: Any) -> bool:
    """Whether a list is a section of cases, and not a list of something else such as ``regions_class_order``."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and "image" in item for item in value)

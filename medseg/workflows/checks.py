"""The checks before the first iteration: all cases are read once, all problems are listed at once."""

from __future__ import annotations

import json
import logging
import math
import shutil
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.bundle.config_check import check_roi
from medseg.data import Case, CaseFacts, Datalist, Problem, inspect_cases
from medseg.data.consistency import (
    check_agreement,
    check_classes,
    check_empty_labels,
    check_masks,
    check_orientation,
    check_regions,
)
from medseg.data.files import is_there
from medseg.data.fit import image_channels, model_spacing, unfit
from medseg.data.odd_cases import check_odd_cases
from medseg.data.overlaps import check_names, check_overlaps
from medseg.data.union import is_union
from medseg.errors import ConfigError, DataError, nearest
from medseg.free_memory import available_gib
from medseg.labels import LabelSpace

__all__ = [
    "check_cases",
    "check_fit",
    "check_window",
    "problem_table",
    "refuse_other_names",
    "refuse_wrong_folder",
]

logger = logging.getLogger("medseg")

_ROWS = 30  # of a table in a training log; `medseg check` shows all
_WIDTHS = (80, 120)  # columns of a table, whatever the terminal


def check_cases(
    cases: Sequence[Case],
    datalist: Datalist,
    *,
    training: Sequence[Case] | None = None,
    fold: int | None = None,
    strict: bool = False,
    rows: int | None = _ROWS,
    more: Sequence[Problem] = (),
) -> list[CaseFacts]:
    """Facts of all cases; warnings are logged.

    Args:
        cases: to read.
        datalist: that they are from.
        training: those of them that are trained on: classes that they lack are named, and what they share with
            other cases of the datalist.
        fold: named in sentences.
        strict: warnings are errors.
        rows: number of rows of the table; ``None`` for all.
        more: further problems of the caller.

    Raises:
        DataError: some case cannot be used; the message is the table of all problems.
    """
    refuse_wrong_folder(cases, datalist)
    facts = inspect_cases(cases, datalist.label_space, datalist.channels, root=datalist.data_dir)
    problems = [
        *(problem for case in facts for problem in case.problems),
        *check_agreement(facts),
        *check_orientation(facts),
        *check_masks(facts, datalist),
        *check_odd_cases(facts, datalist.channels),
        *check_empty_labels(facts, datalist, training=training is not None),
        *check_regions(datalist),
        *(check_classes(facts, datalist, training, fold) if training is not None else ()),
        *((*check_overlaps(datalist, facts), *check_names(datalist)) if training is not None else ()),
        *more,
    ]
    _report(problems, len(facts), strict=strict, rows=rows)
    for note, number in Counter(note for case in facts for note in dict.fromkeys(case.notes)).items():
        logger.info("%s: %s", _count(number, "case"), note)
    return facts


def _report(
    problems: Sequence[Problem], number_of_cases: int, *, strict: bool = False, rows: int | None = None
) -> None:
    """Log warnings as a table, raise errors as one.

    Raises:
        DataError: there is an error, or a warning with ``strict``.
    """
    errors = [problem for problem in problems if strict or not problem.warning]
    warnings = [problem for problem in problems if problem.warning and not strict]
    if warnings:
        logger.warning("%s:\n%s", _count(len(warnings), "warning"), problem_table(warnings, rows))
    if errors:
        found = _count(len(errors), "problem")
        raise DataError(f"{found} in {_count(number_of_cases, 'case')} checked:\n{problem_table(errors, rows)}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def problem_table(problems: Sequence[Problem], rows: int | None = None) -> str:
    """A text table with case, problem and remedy, wrapped to the terminal (80 to 120 columns)."""
    low, high = _WIDTHS
    total = max(low, min(high, shutil.get_terminal_size((high, 24)).columns))
    first = min(max(4, *(len(problem.case) for problem in problems)), total // 4)
    second = (total - first - 6) * 11 // 20
    widths = (first, second, total - first - 6 - second)
    shown = problems if rows is None else problems[:rows]
    lines = [
        _row(("case", "problem", "what to do"), widths),
        *(_row((p.case, p.message, p.remedy), widths) for p in shown),
    ]
    if len(shown) < len(problems):
        lines.append(f"  … and {len(problems) - len(shown)} more; `medseg check` lists all.")
    return "\n".join(lines)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    wrapped = [
        textwrap.wrap(cell, width, break_on_hyphens=False) or [""] for cell, width in zip(cells, widths, strict=True)
    ]
    lines = []
    for number in range(max(map(len, wrapped))):
        parts = [cell[number] if number < len(cell) else "" for cell in wrapped]
        lines.append("  " + "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)


def refuse_wrong_folder(cases: Sequence[Case], datalist: Datalist) -> None:
    """One sentence instead of hundreds where most files are missing: the folder is not the right one.

    Raises:
        DataError: naming the first of them.
    """
    files = [(case, "label" if path == case.label else "image", path) for case in cases for path in case.files]
    missing = [item for item in files if not is_there(item[2])]
    if not missing or 2 * len(missing) <= len(files):
        return
    case, key, path = missing[0]
    root = datalist.data_dir
    shown = Path(path).relative_to(root) if Path(path).is_relative_to(root) else path
    others = len(missing) - 1
    also = f" {_count(others, 'other file')} {'is' if others == 1 else 'are'} missing too." if others else ""
    raise DataError(
        f"{datalist.locate(case)}.{key}: {shown} not found (relative to data root {root}).{also} "
        "Name the folder of the images with --data_dir, or fix the datalist."
    )


def check_fit(facts: Sequence[CaseFacts], datalist: Datalist, config: Mapping[str, Any]) -> None:
    """Whether a bundle's network takes the cases and has a channel for each class.

    Raises:
        DataError: another number of spatial axes or channels.
        ConfigError: other classes.
    """
    network = config.get("network_def")
    arguments = network if isinstance(network, Mapping) else {}
    dims, channels = arguments.get("spatial_dims"), image_channels(config)
    for case in facts:
        wrong = unfit(
            case,
            dims if isinstance(dims, int) else len(case.shape),
            channels if isinstance(channels, int) else case.channels,
            model_spacing(config.get("preprocess")),
        )
        if wrong:
            raise DataError(". ".join(wrong))
    if isinstance(config.get("labels"), Mapping):
        own, other = LabelSpace.from_table(config["labels"]), datalist.label_space
        if is_union(own):
            _refuse_other_datasets(own, datalist)
            return
        if own.num_channels != other.num_channels:
            raise ConfigError(
                f"The bundle has {own.num_channels} output channels ({', '.join(own.channels)}), the datalist "
                f"{other.num_channels} ({', '.join(other.channels)}). Plan a bundle for the datalist with --network, "
                "or use the bundle's labels."
            )
        _refuse_other_values(own, other)
        refuse_other_names(own, other, "The bundle")


def _refuse_other_datasets(own: LabelSpace, datalist: Datalist) -> None:
    """A bundle of several data sets trains on some or all of them, whose labels it knows by their names."""
    for name, fragment in datalist.label_space.fragments.items():
        if name not in own.fragments:
            raise ConfigError(
                f"The bundle has no data set '{name or datalist.name}'.{nearest(name, own.fragments)} It has "
                f"{', '.join(own.fragments)}. Plan a bundle for the datalist with --network."
            )
        given, expected = dict(fragment.values), dict(own.fragments[name].values)
        if given != expected:
            raise ConfigError(
                f"Data set '{name}' has other labels in {datalist.path} than in the bundle: {given} for {expected}. "
                "Use the bundle's, or plan one for the datalist with --network."
            )


def _refuse_other_values(own: LabelSpace, other: LabelSpace) -> None:
    """Masks of 0 and 1 for a bundle that reads 0 and 255 would fail in the first iteration only."""
    if set(own.fragments) != {""} or set(other.fragments) != {""}:
        return
    unknown = sorted(other.fragment().declared - own.fragment().declared)
    if unknown:
        raise ConfigError(
            f"The bundle reads the label values {sorted(own.fragment().declared)}, the datalist declares {unknown} "
            f"besides; give the bundle the datalist's table, for example --set labels::labels="
            f"{json.dumps(other.to_table()['labels'])}."
        )


def refuse_other_names(own: LabelSpace, other: LabelSpace, whose: str) -> None:
    """Two tables that give one name different values would train and score one structure as another.

    Raises:
        ConfigError: naming the label.
    """
    if set(own.fragments) != {""} or set(other.fragments) != {""}:
        return
    values, others = (dict(space.fragment().values) for space in (own, other))
    for name, raw in others.items():
        if name in values and not set(raw) <= set(values[name]):
            raise ConfigError(
                f"{whose} reads {list(values[name])} as label '{name}', the datalist {list(raw)}; use one table of "
                "labels for both."
            )


def check_window(roi_size: Any, facts: Sequence[CaseFacts], batch_size: int) -> None:
    """Whether a patch given by the user has the images' axes and its batch fits the memory, networks aside.

    Raises:
        ConfigError: with the nearest valid patch.
    """
    dims = len(facts[0].shape)
    check_roi(roi_size, dims)
    # The least that training holds: image, logits and their gradients, in float32.
    per_voxel = 4 * int(batch_size) * (facts[0].channels + 4)
    free = available_gib() * 2**30
    needed = math.prod(roi_size) * per_voxel
    if needed > free:
        factor = (free / needed) ** (1 / dims)
        fitting = [max(8, int(n * factor) // 8 * 8) for n in roi_size]
        raise ConfigError(
            f"roi_size {list(roi_size)} needs at least {needed / 2**30:.0f} GiB for a batch of {batch_size}, "
            f"{free / 2**30:.0f} are free; use {fitting} or smaller, or a smaller batch_size."
        )

"""Label tables: plain mappings of JSON or YAML, read into the parts of a ``LabelSpace`` and written back."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medseg.errors import DataError, nearest
from medseg.labels.fragment import BACKGROUND, Fragment

__all__ = ["complete_ids", "read_table", "write_table"]

_KEYS = ("mode", "labels", "ignore", "regions", "tasks", "modalities", "codes", "datasets")


def read_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``LabelSpace`` from a table, or from a plain ``labels`` mapping in either direction.

    Raises:
        DataError: the table holds what no label table holds.
    """
    table = _mapping(table, "labels")
    if "labels" not in table and "datasets" not in table or isinstance(table.get("labels"), int):
        table = {"labels": table}
    for key in table:
        if key not in _KEYS:
            raise DataError(f"Unknown key '{key}' in the label table.{nearest(key, _KEYS)} Known: {', '.join(_KEYS)}.")
    parts = _mapping(table.get("datasets", {}), "datasets")
    fragments: dict[str, Fragment] = {}
    if "labels" in table:
        table = _regions_from_labels(table)
        fragments[""] = _fragment(table["labels"], table.get("ignore", ()))
    for dataset, part in parts.items():
        part = _mapping(part, f"datasets: {dataset}")
        fragments[str(dataset)] = _fragment(part.get("labels", {}), part.get("ignore", ()))
    labels = list(dict.fromkeys(name for fragment in fragments.values() for name in fragment.values))
    regions = {
        str(name): _members(str(name), members, fragments.values())
        for name, members in _mapping(table.get("regions", {}), "regions").items()
    }
    tasks = _ids(table, "tasks", "Task")
    if "labels" not in table and all(name in tasks for name in labels):
        labels.sort(key=lambda name: tasks[name])
    return {
        "labels": tuple(labels),
        "fragments": fragments,
        "mode": table.get("mode", "softmax"),
        "regions": regions,
        "tasks": tasks,
        "modalities": _ids(table, "modalities", "Modality"),
        "codes": {str(name): str(code) for name, code in _mapping(table.get("codes", {}), "codes").items()},
    }


def write_table(
    mode: str,
    fragments: Mapping[str, Fragment],
    regions: Mapping[str, Sequence[str]],
    tasks: Mapping[str, int],
    modalities: Mapping[str, int],
    codes: Mapping[str, str],
) -> dict[str, Any]:
    """The table that ``read_table`` reads back; plain numbers, lists and dicts only."""
    table: dict[str, Any] = {"mode": mode}
    own = fragments.get("")
    if own is not None:
        table["labels"] = _plain(own)
        if own.ignore:
            table["ignore"] = list(own.ignore)
    if regions:
        table["regions"] = {name: list(members) for name, members in regions.items()}
    if tasks:
        table["tasks"] = dict(tasks)
    if modalities:
        table["modalities"] = dict(modalities)
    if codes:
        table["codes"] = dict(codes)
    others = {
        dataset: {"labels": _plain(part), **({"ignore": list(part.ignore)} if part.ignore else {})}
        for dataset, part in fragments.items()
        if dataset
    }
    if others:
        table["datasets"] = others
    return table


def complete_ids(names: Sequence[str], given: Mapping[str, int]) -> dict[str, int]:
    """Name -> its given id or the next free one."""
    used = {given[name] for name in names if name in given}
    free = (i for i in itertools.count() if i not in used)
    return {name: given[name] if name in given else next(free) for name in names}


def _mapping(value: Any, what: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise DataError(f"'{what}' of the label table is {value!r}; expected a table of names.")
    return value


def _members(region: str, members: Any, fragments: Iterable[Fragment]) -> tuple[str, ...]:
    """The labels of a region, each once."""
    listed = members if isinstance(members, (list, tuple)) else [members]
    for member in listed:
        if not isinstance(member, str):
            names = [name for part in fragments for name, values in part.values.items() if member in values]
            hint = f" Write '{names[0]}' for it." if names else ""
            raise DataError(f"Region '{region}' uses label {member!r}; expected names of declared labels.{hint}")
    return tuple(dict.fromkeys(listed))


def _ids(table: Mapping[str, Any], key: str, what: str) -> dict[str, int]:
    ids = dict(_mapping(table.get(key, {}), key))
    for name, number in ids.items():
        if not _is_integer(number) or number < 0:
            raise DataError(f"{what} id of '{name}' is {number!r}; expected an integer of 0 or more.")
    return ids


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _regions_from_labels(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """nnU-Net's ``labels`` with overlapping values: each value becomes a label, each entry a region (sigmoid).

    Other tables come back as they are.
    """
    labels = table["labels"]
    if not isinstance(labels, Mapping) or "regions" in table:
        return table
    entries = {
        str(name): list(raw) if isinstance(raw, (list, tuple)) else [raw]
        for name, raw in labels.items()
        if str(name).lower() not in (BACKGROUND, "ignore")
    }
    values = [value for raw in entries.values() for value in raw]
    if not all(map(_is_integer, values)) or len(set(values)) == len(values):
        return table
    if any(len(set(raw)) < len(raw) for raw in entries.values()) or len({tuple(raw) for raw in entries.values()}) < len(
        entries
    ):
        return table  # a value twice in one entry, or two names for the same values: a slip, refused as one
    names = {raw[0]: name for name, raw in entries.items() if len(raw) == 1}
    leaves = {value: names.get(value, f"value {value}") for value in sorted(set(values))}
    plain = {name: raw for name, raw in labels.items() if str(name).lower() in (BACKGROUND, "ignore")}
    return {
        "mode": "sigmoid",
        **table,
        "labels": plain | {name: value for value, name in leaves.items()},
        "regions": {name: [leaves[value] for value in raw] for name, raw in entries.items()},
    }


def _fragment(labels: Any, ignore: Any) -> Fragment:
    """Read ``name -> value(s)`` or the Decathlon form ``value -> name``."""
    if not isinstance(labels, Mapping) or not labels:
        raise DataError(
            f"The label table's 'labels' is {labels!r}; expected for example "
            '{"0": "background", "1": "liver"}. Write it into the datalist.'
        )
    if all(str(key).lstrip("-").isdigit() and isinstance(name, str) for key, name in labels.items()):
        grouped: dict[str, list[int]] = {}
        for key, name in labels.items():
            grouped.setdefault(name, []).append(int(key))
    else:
        grouped = {str(name): _integers(raw, f"Label '{name}'") for name, raw in labels.items()}
    ignored = [*_integers(ignore, "'ignore'"), *grouped.pop("ignore", [])]
    names = {name.lower(): name for name in grouped}
    zero = next((name for name, raw in grouped.items() if 0 in raw), BACKGROUND)
    if BACKGROUND not in names and zero != BACKGROUND:
        raise DataError(
            f"Label value 0 is named '{zero}'; expected '{BACKGROUND}'. Rename it, or declare a background."
        )
    background = tuple(grouped.pop(names.get(BACKGROUND, BACKGROUND), [0]))
    return Fragment({name: tuple(v) for name, v in grouped.items()}, background, tuple(dict.fromkeys(ignored)))


def _integers(raw: Any, what: str) -> list[int]:
    values = list(raw) if isinstance(raw, (list, tuple)) else [raw]
    if not all(map(_is_integer, values)):
        raise DataError(f"{what} has value {raw!r}; expected an integer or a list of integers.")
    return values


def _plain(part: Fragment) -> dict[str, int | list[int]]:
    named = {BACKGROUND: part.background, **part.values}
    return {name: values[0] if len(values) == 1 else list(values) for name, values in named.items()}

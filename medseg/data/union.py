"""Several datalists as one, for universal training: a data set more is its datalist and a few lines.

A union is a YAML file, read wherever a datalist is (every key but ``datasets`` and ``json_list`` optional)::

    name: abdomen and brain
    tasks: {spleen: 0, liver: 5}      # stable ids; labels without one take the next free ids
    modalities: {ct: 0, mr: 1}        # likewise
    capacity: 96                      # tasks that networks have room for; default: as many as there are
    datasets:
      spleen:
        json_list: task09.json        # relative to the union's folder
        data_dir: Task09_Spleen       # in --data_dir or the union's folder; default: the datalist's folder
        weight: 1.5                   # of each image when cases are drawn; default: 1 / √(number of training images)
      sarcoma:
        json_list: sts/dataset.json
        channel: CT HU                # which file of a list of channels, by name or number
        modality: ct                  # of images that name none; default: by the name of the datalist's channel
        fold: 0                       # validation fold; default: its validation section, else fold 0
        labels: {sarcoma: 1}          # other names or values than the datalist's; also a whole label table
      pelvis:
        labels: {bladder: 1}          # without json_list: tasks of images that are not at hand, kept from earlier
      published: {json_list: hermes/universal.yaml}  # a union of its own, with its weights

Labels of equal name are one task; give them names of their own to keep them apart. Of each data set only the labels
that it annotates are trained on and scored.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.data.modality import channel_kind
from medseg.errors import DataError, nearest
from medseg.labels import LabelSpace
from medseg.storage import read_yaml

if TYPE_CHECKING:
    from medseg.data.case import Case
    from medseg.data.datalist import Datalist

__all__ = ["UNION_SUFFIXES", "is_union", "union_table"]

UNION_SUFFIXES = (".yaml", ".yml")
_KEYS = ("name", "description", "reference", "tasks", "modalities", "capacity", "datasets")
_DATASET_KEYS = ("json_list", "data_dir", "weight", "channel", "modality", "fold", "labels")
_SECTIONS = ("training", "validation", "test")


def is_union(label_space: LabelSpace) -> bool:
    """Whether labels come from several data sets, none of them the datalist's own."""
    return "" not in label_space.fragments


def union_table(path: str | Path, data_dir: str | Path | None = None) -> tuple[dict[str, Any], Path]:
    """The datalist of a union file, as one would write it into JSON, and the folder that its paths are relative to.

    Case ids and subjects are led by the name of their data set; ``weights`` says how cases are drawn.

    Raises:
        DataError: the file or one of its datalists cannot be used, an image is both trained on and scored, or ids
            collide.
    """
    from medseg.data.datalist import read_datalist  # which reads unions by this module

    path = Path(path)
    base = Path(data_dir) if data_dir is not None else path.parent
    content = read_yaml(path, DataError)
    _refuse_unknown(content, _KEYS, str(path))
    parts = content.get("datasets")
    if not isinstance(parts, Mapping) or not parts:
        raise DataError(f"{path} has no 'datasets'; expected for example {{spleen: {{json_list: spleen.json}}}}.")
    lists: dict[str, Datalist] = {}
    tables: dict[str, dict[str, Any]] = {}
    kinds: dict[str, str] = {}
    folds: dict[str, int | None] = {}
    for name, entry in parts.items():
        where = f"{path}: data set '{name}'"
        part = {"json_list": entry} if isinstance(entry, str) else entry
        if isinstance(part, Mapping) and part.keys() == {"labels"}:
            tables[str(name)] = _labels(part["labels"])
            continue
        if not isinstance(part, Mapping) or not isinstance(part.get("json_list"), str):
            raise DataError(f"{where} has no 'json_list'; expected the path of its datalist.")
        _refuse_unknown(part, _DATASET_KEYS, where)
        weight = part.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight > 0:
            raise DataError(f"{where} has weight {weight!r}; expected a number above 0.")
        fold = part.get("fold")
        if fold is not None and (isinstance(fold, bool) or not isinstance(fold, int)):
            raise DataError(f"{where} has fold {fold!r}; expected a number.")
        folds[str(name)] = fold
        file = path.parent / part["json_list"]
        own_dir = base / part["data_dir"] if "data_dir" in part else None
        listed = lists[str(name)] = read_datalist(file, own_dir)
        tables[str(name)] = _labels(part["labels"]) if "labels" in part else listed.label_space.to_table()
        kinds[str(name)] = _kind(part, listed.channels, where)
    if not lists:
        raise DataError(f"{path} has no data set with images; give one of them a 'json_list'.")
    root = Path(os.path.commonpath([listed.data_dir.resolve() for listed in lists.values()]))
    sections: dict[str, list[dict[str, Any]]] = {key: [] for key in _SECTIONS}
    counts: dict[str, int] = {}
    for name, listed in lists.items():
        part = parts[name] if isinstance(parts[name], Mapping) else {}
        training, validation = listed.split(folds[name])
        counts[name] = len(training)
        for section, cases in zip(_SECTIONS, (training, validation, listed.sections["test"]), strict=True):
            for case in cases:
                sections[section].append(_case(name, part, case, kinds[name], listed, root))
    _refuse_shared_images(sections, path)
    space = _label_space(content, tables, sections, path)
    weights: dict[str, float] = {}
    for name, listed in lists.items():
        part = parts[name] if isinstance(parts[name], Mapping) else {}
        own_weights = {} if "weight" in part else listed.table.get("weights", {})
        weight = float(part.get("weight", max(1, counts[name]) ** -0.5))
        weights |= {own or name: own_weights.get(own, weight) for own in listed.label_space.fragments}
    table: dict[str, Any] = {key: content[key] for key in ("description", "reference", "capacity") if key in content}
    kinds_found = sorted(set(kinds.values()))
    return {
        "name": str(content.get("name", path.stem)),
        **table,
        "modality": {"0": " or ".join(k.upper() if len(k) < 4 else k for k in kinds_found)},
        "label_space": space.to_table(),
        "weights": weights,
        "known_overlaps": _known_overlaps(lists),
        **sections,
    }, root


def _refuse_unknown(content: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in content:
        if key not in known:
            raise DataError(f"{where} has unknown key '{key}'.{nearest(str(key), known)} Known: {', '.join(known)}.")


def _labels(given: Any) -> dict[str, Any]:
    """A label table: ``labels`` alone, or a table with ``labels`` and ``ignore``."""
    whole = isinstance(given, Mapping) and isinstance(given.get("labels"), Mapping)
    return dict(given) if whole else {"labels": given}


def _kind(part: Mapping[str, Any], channels: tuple[str, ...], where: str) -> str:
    if "modality" in part:
        return str(part["modality"])
    index = _channel(part, channels, where)
    return channel_kind(channels[index]) if index < len(channels) else "unknown"


def _channel(part: Mapping[str, Any], channels: tuple[str, ...], where: str) -> int:
    wanted = part.get("channel", 0)
    if isinstance(wanted, str):
        if wanted not in channels:
            raise DataError(
                f"{where} has no channel '{wanted}'.{nearest(wanted, channels)} Channels: {', '.join(channels)}."
            )
        return channels.index(wanted)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 0 <= wanted < max(1, len(channels)):
        raise DataError(f"{where} has channel {wanted!r}; expected a name or a number from 0 to {len(channels) - 1}.")
    return wanted


def _case(name: str, part: Mapping[str, Any], case: Case, kind: str, listed: Datalist, root: Path) -> dict[str, Any]:
    result = {key: value for key, value in case.to_dict().items() if key != "fold"}
    image = case.images[0]
    if len(case.images) > 1:
        if "channel" not in part:
            raise DataError(
                f"Data set '{name}' has {len(case.images)} channels per case ({', '.join(listed.channels)}); say which "
                "one is used by 'channel'."
            )
        image = case.images[_channel(part, listed.channels, f"Data set '{name}'")]
    result["image"] = os.path.relpath(Path(image).resolve(), root)
    if case.label:
        result["label"] = os.path.relpath(Path(case.label).resolve(), root)
    result["dataset"] = case.dataset if case.dataset in listed.label_space.fragments else name
    result["modality"] = str(case.modality or kind)
    result["case_id"] = f"{name}_{case.id}"
    if case.subject is not None:
        result["subject"] = f"{name}/{case.subject}"
    return result


def _known_overlaps(lists: Mapping[str, Datalist]) -> list[str]:
    """Those that the datalists declare, as cases and as subjects of the union."""
    known = [(name, item) for name, listed in lists.items() for item in sorted(listed.known_overlaps)]
    return [f"{name}{joint}{item}" for name, item in known for joint in "_/"]


def _refuse_shared_images(sections: Mapping[str, list[dict[str, Any]]], path: Path) -> None:
    """The same file in two data sets would be trained on by one and scored by the other."""
    owner: dict[str, tuple[str, str]] = {}
    for section, cases in sections.items():
        for case in cases:
            other, where = owner.setdefault(case["image"], (case["case_id"], section))
            if where == "training" != section:
                raise DataError(
                    f"{path}: {case['image']} is in {where} as {other} and in {section} as {case['case_id']}: results "
                    "would be biased. Keep it on one side, for example by 'fold'."
                )


def _label_space(
    content: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]], sections: Mapping[str, Any], path: Path
) -> LabelSpace:
    tasks, modalities = (content.get(key) or {} for key in ("tasks", "modalities"))
    try:
        space = LabelSpace.merge(tables)
        for name in tasks:
            if name not in space.labels:
                raise DataError(
                    f"'tasks' names '{name}', which no data set annotates.{nearest(str(name), space.labels)}"
                )
        own = {name: number for table in tables.values() for name, number in table.get("tasks", {}).items()}
        for name in tasks:
            if own.get(name, tasks[name]) != tasks[name]:
                raise DataError(f"'{name}' has task id {tasks[name]} and, in its datalist, {own[name]}; use one id.")
        known = {**space.modalities, **modalities}
        found = sorted({case["modality"] for cases in sections.values() for case in cases} - {"unknown", *known})
        free = (number for number in itertools.count() if number not in known.values())
        merged = space.to_table() | {"modalities": known | dict(zip(found, free, strict=False))}
        some = LabelSpace.from_table(merged | {"tasks": {**own, **tasks}})
        done = LabelSpace.from_table(merged | {"tasks": dict(zip(some.labels, some.task_ids, strict=True))})
        largest, capacity = max(done.task_ids) + 1, content.get("capacity")
        if capacity is not None and (not isinstance(capacity, int) or capacity < largest):
            raise DataError(f"'capacity' is {capacity!r}; expected at least {largest}, the largest task id and one.")
        return done
    except DataError as error:
        raise DataError(f"{path}: {error}") from error

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.data.case import Case
from medseg.data.datalist import Datalist
from medseg.data.datalist_form import SECTIONS
from medseg.data.modality import channel_kind
from medseg.errors import DataError, nearest
from medseg.labels import LabelSpace
from medseg.storage import read_yaml

__all__ = ["Union", "UnionPart", "is_union", "read_union", "union_table"]

_KEYS = ("name", "description", "reference", "tasks", "modalities", "capacity", "datasets")
_PART_KEYS = ("json_list", "data_dir", "weight", "channel", "modality", "fold", "labels")


@dataclass(frozen=True)
class UnionPart:
    """One data set of a union, as its file has it.

    Attributes:
        name: name of the data set.
        where: place in the file, for sentences.
        json_list: path of its datalist, relative to the union's folder; empty without images.
        data_dir: base directory of the datalist's paths; empty: the datalist's own.
        weight: weight of each image when cases are drawn; ``None``: by the number of training images.
        channel: name or number of the channel that is used.
        modality: modality of images that name none.
        fold: validation fold.
        labels: label table instead of the datalist's.
    """

    name: str
    where: str
    json_list: str = ""
    data_dir: str = ""
    weight: float | None = None
    channel: str | int | None = None
    modality: str | None = None
    fold: int | None = None
    labels: Mapping[str, Any] | None = None

    @classmethod
    def from_entry(cls, name: str, entry: Any, where: str) -> UnionPart:
        """A checked entry of ``datasets``.

        Raises:
            DataError: it cannot be used.
        """
        part = {"json_list": entry} if isinstance(entry, str) else entry
        if isinstance(part, Mapping) and part.keys() == {"labels"}:
            return cls(name, where, labels=_labels(part["labels"]))
        if not isinstance(part, Mapping) or not isinstance(part.get("json_list"), str):
            raise DataError(f"{where} has no 'json_list'; expected the path of its datalist.")
        _refuse_unknown(part, _PART_KEYS, where)
        weight: Any = part.get("weight")
        fold = part.get("fold")
        if "weight" in part and (isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight > 0):
            raise DataError(f"{where} has weight {weight!r}; expected a number above 0.")
        if fold is not None and (isinstance(fold, bool) or not isinstance(fold, int)):
            raise DataError(f"{where} has fold {fold!r}; expected a number.")
        modality = str(part["modality"]) if "modality" in part else None
        labels = _labels(part["labels"]) if "labels" in part else None
        values = {key: part[key] for key in ("json_list", "data_dir", "channel") if key in part}
        return cls(name, where, **values, weight=weight, modality=modality, fold=fold, labels=labels)


@dataclass(frozen=True)
class Union:
    """The content of a union file: its data sets, and the entries beside them."""

    path: Path
    parts: tuple[UnionPart, ...]
    content: Mapping[str, Any]


def is_union(label_space: LabelSpace) -> bool:
    """Whether labels come from several data sets, none of them the datalist's own."""
    return "" not in label_space.fragments


def read_union(path: str | Path) -> Union:
    """Read a union file; its datalists are not read.

    Raises:
        DataError: the file cannot be used.
    """
    path = Path(path)
    content = read_yaml(path, DataError)
    _refuse_unknown(content, _KEYS, str(path))
    parts = content.get("datasets")
    if not isinstance(parts, Mapping) or not parts:
        raise DataError(f"{path} has no 'datasets'; expected for example {{spleen: {{json_list: spleen.json}}}}.")
    found = [UnionPart.from_entry(str(name), entry, f"{path}: data set '{name}'") for name, entry in parts.items()]
    if not any(part.json_list for part in found):
        raise DataError(f"{path} has no data set with images; give one of them a 'json_list'.")
    return Union(path, tuple(found), content)


def union_table(union: Union, lists: Mapping[str, Datalist]) -> tuple[dict[str, Any], Path]:
    """The datalist of a union, as one would write it into JSON, and the base directory of its paths.

    Case ids and subjects are led by the name of their data set; ``weights`` says how cases are drawn.

    Args:
        union: content of the file.
        lists: data set -> its datalist, for all parts that have one.

    Raises:
        DataError: the datalists do not fit together, an image is both trained on and scored, or ids collide.
    """
    root = Path(os.path.commonpath([listed.data_dir.resolve() for listed in lists.values()]))
    sections: dict[str, list[dict[str, Any]]] = {key: [] for key in SECTIONS}
    weights: dict[str, float] = {}
    kinds: set[str] = set()
    for part in union.parts:
        if part.name not in lists:
            continue
        listed = lists[part.name]
        kind = _kind(part, listed.channels)
        kinds.add(kind)
        training, validation = listed.split(part.fold)
        for section, cases in zip(SECTIONS, (training, validation, listed.sections["test"]), strict=True):
            sections[section] += [_case(part, case, kind, listed, root) for case in cases]
        own = listed.table.get("weights", {}) if part.weight is None else {}
        weight = float(max(1, len(training)) ** -0.5 if part.weight is None else part.weight)
        weights |= {key or part.name: own.get(key, weight) for key in listed.label_space.fragments}
    _refuse_shared_images(sections, union.path)
    content = union.content
    return {
        "name": str(content.get("name", union.path.stem)),
        **{key: content[key] for key in ("description", "reference", "capacity") if key in content},
        "modality": {"0": " or ".join(k.upper() if len(k) < 4 else k for k in sorted(kinds))},
        "label_space": _label_space(union, lists, sections).to_table(),
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


def _kind(part: UnionPart, channels: tuple[str, ...]) -> str:
    if part.modality is not None:
        return part.modality
    index = _channel(part, channels)
    return channel_kind(channels[index]) if index < len(channels) else "unknown"


def _channel(part: UnionPart, channels: tuple[str, ...]) -> int:
    wanted = 0 if part.channel is None else part.channel
    if isinstance(wanted, str):
        if wanted not in channels:
            raise DataError(
                f"{part.where} has no channel '{wanted}'.{nearest(wanted, channels)} Channels: {', '.join(channels)}."
            )
        return channels.index(wanted)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 0 <= wanted < max(1, len(channels)):
        raise DataError(
            f"{part.where} has channel {wanted!r}; expected a name or a number from 0 to {len(channels) - 1}."
        )
    return wanted


def _case(part: UnionPart, case: Case, kind: str, listed: Datalist, root: Path) -> dict[str, Any]:
    result = {key: value for key, value in case.to_dict().items() if key != "fold"}
    image = case.images[0]
    if len(case.images) > 1:
        if part.channel is None:
            raise DataError(
                f"Data set '{part.name}' has {len(case.images)} channels per case ({', '.join(listed.channels)}); say "
                "which one is used by 'channel'."
            )
        image = case.images[_channel(part, listed.channels)]
    result["image"] = os.path.relpath(Path(image).resolve(), root)
    if case.label:
        result["label"] = os.path.relpath(Path(case.label).resolve(), root)
    result["dataset"] = case.dataset if case.dataset in listed.label_space.fragments else part.name
    result["modality"] = str(case.modality or kind)
    result["case_id"] = f"{part.name}_{case.id}"
    if case.subject is not None:
        result["subject"] = f"{part.name}/{case.subject}"
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


def _label_space(union: Union, lists: Mapping[str, Datalist], sections: Mapping[str, Any]) -> LabelSpace:
    tables = {
        part.name: lists[part.name].label_space.to_table() if part.labels is None else part.labels
        for part in union.parts
    }
    tasks, modalities = (union.content.get(key) or {} for key in ("tasks", "modalities"))
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
        largest, capacity = max(done.task_ids) + 1, union.content.get("capacity")
        if capacity is not None and (not isinstance(capacity, int) or capacity < largest):
            raise DataError(f"'capacity' is {capacity!r}; expected at least {largest}, the largest task id and one.")
        return done
    except DataError as error:
        raise DataError(f"{union.path}: {error}") from error

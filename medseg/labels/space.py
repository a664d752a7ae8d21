"""``LabelSpace``: names, channels, regions, partial labels and task ids of one data set or of many."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medseg.errors import DataError, nearest
from medseg.labels.fragment import BACKGROUND, IGNORE, Fragment, check_name
from medseg.labels.table import complete_ids, read_table, write_table
from medseg.labels.whole import whole_values

__all__ = ["LabelSpace"]

_BLOCK = 1 << 20  # voxels
_MODES = ("softmax", "sigmoid")


@dataclass(frozen=True)
class LabelSpace:
    """Names, channels, regions, partial labels and task ids; see the table of ``medseg.labels``.

    Attributes:
        labels: foreground names; label ``labels[i]`` has index ``i + 1``.
        fragments: data set name -> its raw values; ``""`` is the datalist's own table.
        mode: ``softmax`` (channels: background, then the labels) or ``sigmoid`` (channels: regions, or labels without
            regions).
        regions: evaluation region -> the labels in it.
        tasks: label or region -> stable id.
        modalities: what cases may name as their modality -> stable id.
        codes: label -> SNOMED CT code, for DICOM-SEG and RTSTRUCT.

    Examples:
        >>> space = medseg.LabelSpace.from_table({"labels": {"background": 0, "liver": 6, "spleen": [1, 2]}})
        >>> space.channels
        ('background', 'liver', 'spleen')
        >>> space.encode(np.array([0, 6, 2]))
        array([0, 1, 2], dtype=int16)
        >>> space.decode(np.array([0, 1, 2]))
        array([0, 6, 1], dtype=uint8)
    """

    labels: tuple[str, ...]
    fragments: Mapping[str, Fragment]
    mode: str = "softmax"
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tasks: Mapping[str, int] = field(default_factory=dict)
    modalities: Mapping[str, int] = field(default_factory=dict)
    codes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise DataError(f"Label mode '{self.mode}' is unknown; use 'softmax' or 'sigmoid'.")
        if not self.labels:
            raise DataError("The label table declares no label besides the background; add at least one.")
        for name in (*self.labels, *self.regions, *self.fragments):
            if name:
                check_name(name, "Label name")
        for dataset, fragment in self.fragments.items():
            for name in fragment.values:
                if name not in self.labels:
                    raise DataError(
                        f"Data set '{dataset}' uses label '{name}', not declared.{nearest(name, self.labels)}"
                    )
        for region, members in self.regions.items():
            for name in members:
                if name not in self.labels:
                    raise DataError(
                        f"Region '{region}' uses label '{name}', not declared.{nearest(name, self.labels)} "
                        f"Declared: {', '.join(self.labels)}."
                    )
            if not members:
                raise DataError(f"Region '{region}' is empty; name at least one label.")
        for name, task in self.tasks.items():
            if name not in self.labels and name not in self.regions:
                raise DataError(
                    f"Task {task} names '{name}', not declared.{nearest(name, (*self.labels, *self.regions))}"
                )
        for name, code in self.codes.items():
            if name not in self.labels or not code.isdigit():
                raise DataError(
                    f"Code '{code}' of '{name}': expected the number of a SNOMED CT concept, of a label of the table."
                    f"{nearest(name, self.labels) if name not in self.labels else ''} Fix the label table's codes."
                )
        for what, ids in (("Task", self.tasks), ("Modality", self.modalities)):
            owner: dict[int, str] = {}
            for name, number in ids.items():
                if owner.setdefault(number, name) != name:
                    raise DataError(
                        f"{what} id {number} is used by both '{owner[number]}' and '{name}'; ids must be unique."
                    )
        if self.mode == "sigmoid":
            self.paint_order()  # before training, not at the first prediction

    # ------------------------------------------------------------------ reading and writing tables
    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> LabelSpace:
        """Build from a table (``medseg.labels``), or from a plain ``labels`` mapping in either direction."""
        return cls(**read_table(table))

    @classmethod
    def merge(cls, tables: Mapping[str, Mapping[str, Any]], mode: str = "sigmoid") -> LabelSpace:
        """Join one table per data set into one space for universal training; regions are left behind.

        Labels of equal name are one task. Task and modality ids come from the tables, and must agree; labels without
        an id take the next free ones.

        Raises:
            DataError: two ids for one label, one id for two labels, or a data set named twice.
        """
        tasks: dict[str, int] = {}
        modalities: dict[str, int] = {}
        fragments: dict[str, Fragment] = {}
        for dataset, table in tables.items():
            space = cls.from_table(table)
            for name, part in space.fragments.items():
                if (name or dataset) in fragments:
                    raise DataError(f"Data set '{name or dataset}' is in two tables; give each its own name.")
                fragments[name or dataset] = part
            for name, task in space.tasks.items():
                if name in space.labels and tasks.setdefault(name, task) != task:
                    raise DataError(
                        f"'{name}' has task id {tasks[name]} and, in data set '{dataset}', {task}; use one id."
                    )
            for name, number in space.modalities.items():
                if modalities.setdefault(name, number) != number:
                    raise DataError(
                        f"'{name}' has modality id {modalities[name]} and, in data set '{dataset}', {number}; use one "
                        "id."
                    )
        labels = dict.fromkeys(name for part in fragments.values() for name in part.values)
        ids = complete_ids(tuple(labels), tasks)
        return cls(tuple(sorted(labels, key=ids.__getitem__)), fragments, mode, {}, ids, modalities)

    def to_table(self) -> dict[str, Any]:
        """The table that ``from_table`` reads back to an equal space; plain numbers, lists and dicts only."""
        return write_table(self.mode, self.fragments, self.regions, self.tasks, self.modalities, self.codes)

    # ------------------------------------------------------------------ channels
    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the network's output channels."""
        if self.mode == "softmax":
            return (BACKGROUND, *self.labels)
        return tuple(self.regions) or self.labels

    @property
    def num_channels(self) -> int:
        """``out_channels`` of a network for this space."""
        return len(self.channels)

    @property
    def targets(self) -> dict[str, tuple[int, ...]]:
        """What is evaluated: regions where there are any, else labels; name -> label indices."""
        if self.regions:
            return {
                region: tuple(self.labels.index(m) + 1 for m in members) for region, members in self.regions.items()
            }
        return {name: (i,) for i, name in enumerate(self.labels, 1)}

    @property
    def task_ids(self) -> tuple[int, ...]:
        """The stable id of each channel (where the table gives none: the next free one); softmax: without
        background.
        """
        names = self.labels if self.mode == "softmax" else self.channels
        ids = complete_ids(names, self.tasks)
        return tuple(ids[name] for name in names)

    # ------------------------------------------------------------------ voxels
    def fragment(self, dataset: str | None = None) -> Fragment:
        """The raw values of a data set; ``None`` or an unlisted name means the datalist's own table."""
        if dataset and dataset in self.fragments:
            return self.fragments[dataset]
        if "" in self.fragments:
            return self.fragments[""]
        known = ", ".join(self.fragments)
        raise DataError(
            f"No label table for data set '{dataset}'.{nearest(dataset, self.fragments)} Known: {known}."
            if dataset
            else f"A case names no data set; set its 'dataset' to one of {known}."
        )

    def annotated(self, dataset: str | None = None) -> tuple[bool, ...]:
        """For each label: whether the data set annotates it (partial labels)."""
        values = self.fragment(dataset).values
        return tuple(name in values for name in self.labels)

    def dataset_tasks(self, dataset: str | None = None) -> dict[int, int]:
        """Task id -> label index, for the labels that the data set annotates, by ascending id."""
        ids = complete_ids(self.labels, self.tasks)
        known = self.fragment(dataset).values
        return dict(sorted((ids[name], index) for index, name in enumerate(self.labels, 1) if name in known))

    def asked_labels(self, tasks: Sequence[str] | None = None, dataset: str | None = None) -> list[int]:
        """Indices of the labels that an image is asked for, by ascending task id, or in the order of ``tasks``.

        Without ``tasks`` they are those that the data set annotates; of an image of none of the space's, all.

        Raises:
            DataError: a task that no data set annotates.
        """
        if tasks is None:
            if dataset in self.fragments or "" in self.fragments:
                return list(self.dataset_tasks(dataset).values())
            ids = dict(zip(self.labels, self.task_ids, strict=True))
            return [self.labels.index(name) + 1 for name in sorted(self.labels, key=ids.__getitem__)]
        for name in tasks:
            if name not in self.labels:
                raise DataError(f"No task '{name}'.{nearest(name, self.labels)} Known: {', '.join(self.labels)}.")
        return [self.labels.index(name) + 1 for name in tasks]

    def modality_id(self, name: str | None) -> int:
        """The stable id of a case's modality; -1 for none and for ``unknown``.

        Raises:
            DataError: the table has no such modality.
        """
        if not name or name == "unknown":
            return -1
        if name not in self.modalities:
            raise DataError(
                f"Modality '{name}' is not in the label table.{nearest(name, self.modalities)} "
                f"Known: {', '.join(self.modalities)}; write 'unknown' for another."
            )
        return self.modalities[name]

    @property
    def has_ignore(self) -> bool:
        """Whether some data set declares ignored values."""
        return any(part.ignore for part in self.fragments.values())

    def undeclared(self, raw_values: Iterable[float], dataset: str | None = None) -> list[float]:
        """The raw values that the table gives no meaning."""
        return sorted(set(raw_values) - self.fragment(dataset).declared)

    def encode(self, raw: np.ndarray, dataset: str | None = None) -> np.ndarray:
        """Raw voxel values, rounded by ``whole_values``, -> label indices (int16, ``IGNORE`` where ignored).

        Raises:
            DataError: a value has no meaning.
        """
        part = self.fragment(dataset)
        raw = whole_values(np.asarray(raw))
        raw_values = np.unique(raw)
        unknown = self.undeclared(raw_values.tolist(), dataset)
        if unknown:
            raise DataError(
                f"Label values {_numbers(unknown)} are not declared; declared are {_numbers(part.declared)}. "
                "See `medseg check`."
            )
        index = {raw: 0 for raw in part.background} | {raw: IGNORE for raw in part.ignore}
        for i, name in enumerate(self.labels, 1):
            index |= {raw: i for raw in part.values.get(name, ())}
        table = np.array([index[int(v)] for v in raw_values], dtype=np.int16)
        result = np.empty(raw.size, dtype=np.int16)
        flat = raw.reshape(-1)
        for start in range(0, raw.size, _BLOCK):  # positions are 64-bit numbers: never for a whole volume at once
            block = slice(start, start + _BLOCK)
            result[block] = table[np.searchsorted(raw_values, flat[block])]
        return result.reshape(raw.shape)

    def decode(self, indices: np.ndarray, dataset: str | None = None) -> np.ndarray:
        """Label indices -> the data set's first raw value of each label, in the smallest fitting integer type.

        A label that the data set does not annotate gets a value that it does not use; without a table of one's own
        (``merge``) and without ``dataset``, values are the indices.
        """
        indices = np.asarray(indices)
        if not dataset and "" not in self.fragments:
            raw = [*range(len(self.labels) + 1), 0]
        else:
            part = self.fragment(dataset)
            free = (i for i in itertools.count(1) if i not in part.declared)
            known = (part.values.get(name) for name in self.labels)
            raw = [part.background[0], *(values[0] if values else next(free) for values in known)]
            raw.append((*part.ignore, part.background[0])[0])  # IGNORE is -1: the last entry
        dtype = np.uint8 if min(raw) >= 0 and max(raw) < 256 else np.int32
        values: np.ndarray = np.asarray(raw, dtype=dtype)[indices]
        return values

    def binary(self, indices: np.ndarray) -> np.ndarray:
        """Label indices ``(*spatial)`` -> one binary map per evaluation target ``(T, *spatial)``, bool."""
        return np.stack([np.isin(indices, members) for members in self.targets.values()])

    def compose(self, maps: np.ndarray) -> np.ndarray:
        """Binary channel maps of sigmoid mode ``(C, *spatial)`` -> label indices; inner regions overwrite outer ones.

        Raises:
            DataError: regions are not nested such that each adds exactly one label, so that no label map can hold them.
        """
        result = np.zeros(maps.shape[1:], dtype=np.int16)
        for channel, label in self.paint_order():
            result[maps[channel] > 0] = label
        return result

    def paint_order(self) -> list[tuple[int, int]]:
        """(channel, label index) of sigmoid mode in the order that ``compose`` writes them, outer regions first."""
        if not self.regions:
            return [(i, i + 1) for i in range(len(self.labels))]
        members = [set(indices) for indices in self.targets.values()]
        order = sorted(range(len(members)), key=lambda i: -len(members[i]))
        painted = []
        for position, channel in enumerate(order):
            inner: set[int] = set().union(
                *(members[o] for o in order[position + 1 :] if members[o] <= members[channel])
            )
            own = members[channel] - inner
            if len(own) != 1:
                name = list(self.regions)[channel]
                raise DataError(
                    f"Region '{name}' cannot be written to a label map: it adds {len(own)} labels to the "
                    f"regions inside it, "
                    "expected exactly 1; use mode 'softmax' or nested regions."
                )
            painted.append((channel, own.pop()))
        return painted


def _numbers(values: Iterable[float]) -> str:
    return "{" + ", ".join(f"{v:g}" for v in sorted(values)) + "}"

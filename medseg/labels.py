"""The label space: what voxel values mean, for one data set or for many.

Everything that touches labels (loss, metrics, sampler, inference, submission, metadata) reads this table and nothing
else.

A table in JSON or YAML, every key but ``labels`` optional::

    mode: softmax                    # softmax over exclusive labels (default) | sigmoid over regions or tasks
    labels: {background: 0, necrosis: 1, oedema: 2, enhancing: [3, 4]}     # name -> raw value(s)
    ignore: [255]                    # raw values that are neither trained on nor scored
    regions: {WT: [necrosis, oedema, enhancing], TC: [necrosis, enhancing], ET: [enhancing]}
    tasks: {necrosis: 7}             # stable ids for universal training
    datasets:                        # other data sets: own raw values; a label that is left out is not annotated there
      lits: {labels: {background: 0, liver: [1, 2]}, ignore: []}

The Decathlon form ``{"0": "background", "1": "liver"}`` is read as well, and nnU-Net's two extras: an entry named
``ignore``, and overlapping regions ``{"background": 0, "tumour": [1, 2], "core": 2}``, which become sigmoid channels.
A table with ``datasets`` may leave ``labels`` out (several data sets, none of them the datalist's own).

Inside medseg a label map holds *indices*: 0 is background, 1..L the labels in table order, ``IGNORE`` the ignored
voxels.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medseg.errors import DataError, nearest

__all__ = ["BACKGROUND", "IGNORE", "Fragment", "LabelSpace", "check_name"]

IGNORE = -1
BACKGROUND = "background"
_BLOCK = 1 << 20  # voxels
_MODES = ("softmax", "sigmoid")
_KEYS = ("mode", "labels", "ignore", "regions", "tasks", "datasets")
# Characters with a meaning in MONAI configs: a name taken from outside must never become an expression or a reference.
_UNSAFE = re.compile(r"^[$@%+]|::|#|[\x00-\x1f]")


def check_name(name: str, what: str) -> str:
    """Return ``name`` if it is safe to write into a bundle's config; raise ``DataError`` otherwise."""
    if not name.strip() or _UNSAFE.search(name):
        raise DataError(
            f"{what} {name!r} cannot be used: it is empty, begins with one of $ @ % + or contains '::', '#' or a "
            "control character; rename it in the datalist."
        )
    return name


@dataclass(frozen=True)
class Fragment:
    """What one data set's raw voxel values mean.

    Attributes:
        values: label name -> raw values; a label of the space that is missing here is not annotated in this data set.
        background: raw values of the background.
        ignore: raw values that are neither trained on nor scored.
    """

    values: Mapping[str, tuple[int, ...]]
    background: tuple[int, ...] = (0,)
    ignore: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        owner: dict[int, str] = {}
        names = [(BACKGROUND, self.background), *self.values.items(), ("ignore", self.ignore)]
        for name, raw_values in names:
            if not raw_values and name != "ignore":
                raise DataError(f"Label '{name}' has no raw value; give it at least one in the datalist's labels.")
            for raw in raw_values:
                if raw in owner:
                    raise DataError(
                        f"Label value {raw} is declared for both '{owner[raw]}' and '{name}'; "
                        "give each value one meaning in the datalist's labels."
                    )
                owner[raw] = name

    @property
    def declared(self) -> frozenset[int]:
        """All raw values with a meaning."""
        labels = (raw for values in self.values.values() for raw in values)
        return frozenset((*labels, *self.background, *self.ignore))


@dataclass(frozen=True)
class LabelSpace:
    """Names, channels, regions, partial labels and task ids; see the module's table.

    Attributes:
        labels: foreground names; label ``labels[i]`` has index ``i + 1``.
        fragments: data set name -> its raw values; ``""`` is the datalist's own table.
        mode: ``softmax`` (channels: background, then the labels) or ``sigmoid`` (channels: regions, or labels without
        regions).
        regions: evaluation region -> the labels in it.
        tasks: label or region -> stable id.
    """

    labels: tuple[str, ...]
    fragments: Mapping[str, Fragment]
    mode: str = "softmax"
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tasks: Mapping[str, int] = field(default_factory=dict)

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
        seen: dict[int, str] = {}
        for name, task in self.tasks.items():
            if name not in self.labels and name not in self.regions:
                raise DataError(
                    f"Task {task} names '{name}', not declared.{nearest(name, (*self.labels, *self.regions))}"
                )
            if task in seen:
                raise DataError(f"Task id {task} is used by both '{seen[task]}' and '{name}'; ids must be unique.")
            seen[task] = name
        if self.mode == "sigmoid":
            self.paint_order()  # before training, not at the first prediction

    # ------------------------------------------------------------------ reading and writing tables
    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> LabelSpace:
        """Build from a table (module docstring), or from a plain ``labels`` mapping in either direction."""
        if "labels" not in table and "datasets" not in table or isinstance(table.get("labels"), int):
            table = {"labels": table}
        for key in table:
            if key not in _KEYS:
                raise DataError(
                    f"Unknown key '{key}' in the label table.{nearest(key, _KEYS)} Known: {', '.join(_KEYS)}."
                )
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
            str(name): tuple([members] if isinstance(members, str) else members)
            for name, members in _mapping(table.get("regions", {}), "regions").items()
        }
        tasks = dict(_mapping(table.get("tasks", {}), "tasks"))
        for name, task in tasks.items():
            if not _is_integer(task) or task < 0:
                raise DataError(f"Task id of '{name}' is {task!r}; expected an integer of 0 or more.")
        if "labels" not in table and all(name in tasks for name in labels):
            labels.sort(key=lambda name: tasks[name])
        return cls(tuple(labels), fragments, table.get("mode", "softmax"), regions, tasks)

    @classmethod
    def merge(cls, tables: Mapping[str, Mapping[str, Any]], mode: str = "sigmoid") -> LabelSpace:
        """Join one table per data set into one space for universal training; regions are left behind.

        Labels of equal name are one task. Task ids come from the tables, and must agree; labels without an id take
        the next free ones.

        Raises:
            DataError: two ids for one label, one id for two labels, or a data set named twice.
        """
        tasks: dict[str, int] = {}
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
        labels = dict.fromkeys(name for part in fragments.values() for name in part.values)
        ids = _complete_ids(tuple(labels), tasks)
        return cls(tuple(sorted(labels, key=ids.__getitem__)), fragments, mode, {}, ids)

    def to_table(self) -> dict[str, Any]:
        """The table that ``from_table`` reads back to an equal space; plain numbers, lists and dicts only."""
        table: dict[str, Any] = {"mode": self.mode}
        own = self.fragments.get("")
        if own is not None:
            table["labels"] = _plain(own)
            if own.ignore:
                table["ignore"] = list(own.ignore)
        if self.regions:
            table["regions"] = {name: list(members) for name, members in self.regions.items()}
        if self.tasks:
            table["tasks"] = dict(self.tasks)
        others = {
            dataset: {"labels": _plain(part), **({"ignore": list(part.ignore)} if part.ignore else {})}
            for dataset, part in self.fragments.items()
            if dataset
        }
        if others:
            table["datasets"] = others
        return table

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
        ids = _complete_ids(names, self.tasks)
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

    def annotated_channels(self, dataset: str | None = None) -> tuple[bool, ...]:
        """For each output channel: whether the data set's annotation decides it."""
        known = dict(zip(self.labels, self.annotated(dataset), strict=True))
        if self.mode == "softmax":
            return (True, *known.values())
        if self.regions:
            return tuple(all(known[name] for name in members) for members in self.regions.values())
        return tuple(known.values())

    @property
    def is_partial(self) -> bool:
        """Whether some data set leaves labels out."""
        return any(len(part.values) < len(self.labels) for part in self.fragments.values())

    @property
    def has_ignore(self) -> bool:
        """Whether some data set declares ignored values."""
        return any(part.ignore for part in self.fragments.values())

    @property
    def is_identity(self) -> bool:
        """Whether raw values already are the indices, so that nothing needs mapping."""
        if set(self.fragments) != {""}:
            return False
        own = self.fragments[""]
        plain = all(own.values[name] == (i,) for i, name in enumerate(self.labels, 1) if name in own.values)
        return plain and len(own.values) == len(self.labels) and own.background == (0,) and not own.ignore

    def undeclared(self, raw_values: Iterable[float], dataset: str | None = None) -> list[float]:
        """The raw values that the table gives no meaning."""
        return sorted(set(raw_values) - self.fragment(dataset).declared)

    def encode(self, raw: np.ndarray, dataset: str | None = None) -> np.ndarray:
        """Raw voxel values -> label indices (int16, ``IGNORE`` where ignored).

        Raises:
            DataError: a value has no meaning.
        """
        part = self.fragment(dataset)
        raw = np.asarray(raw)
        raw_values = np.unique(raw)
        unknown = self.undeclared((float(v) for v in raw_values), dataset)
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
        return np.asarray(raw, dtype=dtype)[indices]

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


def _mapping(value: Any, what: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise DataError(f"'{what}' of the label table is {value!r}; expected a table of names.")
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _complete_ids(names: Sequence[str], given: Mapping[str, int]) -> dict[str, int]:
    """Name -> its given id or the next free one."""
    used = {given[name] for name in names if name in given}
    free = (i for i in itertools.count() if i not in used)
    return {name: given[name] if name in given else next(free) for name in names}


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


def _numbers(values: Iterable[float]) -> str:
    return "{" + ", ".join(f"{v:g}" for v in sorted(values)) + "}"

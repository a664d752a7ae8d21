"""A folder of predictions that knows what each of them came from.

Beside the label maps, ``provenance/<case id>.json`` holds the hashes of the case's images and of the label map, and the
name of an origin; ``provenance/origins/<hash>.json`` holds the weights, settings and post-processing of all predictions
that were made alike.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medseg.data.case import Case, output_files
from medseg.data.content import content_hash
from medseg.errors import ConfigError, DataError
from medseg.storage import read_table, write_text
from medseg.transforms.probability_file import files_beside
from medseg.transforms.save import find_label_map, label_map_case
from medseg.version import __version__

__all__ = ["Origin", "PredictionFolder", "PredictionRecord", "background_predictions"]

logger = logging.getLogger("medseg")

_FOLDER = "provenance"
_SHOWN = 5
_CHANGES = {"weights": "other weights", "cleanup": "other post-processing", "medseg": "another version of medseg"}


@dataclass(frozen=True)
class Origin:
    """How predictions were made.

    Attributes:
        weights: SHA-256 of each network's weights.
        settings: config values that the result depends on.
        cleanup: rules of post-processing, label -> steps; empty for raw predictions.
        medseg: version.
    """

    weights: tuple[str, ...]
    settings: Mapping[str, Any]
    cleanup: Mapping[str, Any] = field(default_factory=dict)
    medseg: str = __version__

    @cached_property
    def text(self) -> str:
        """As JSON; equal origins have equal texts."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, default=str, ensure_ascii=False) + "\n"

    @cached_property
    def name(self) -> str:
        """Short hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PredictionRecord:
    """What one prediction came from.

    Attributes:
        images: SHA-256 of each image file, in the order of the channels.
        modality, dataset: what the network was told of the case.
        origin: name of the ``Origin``.
        label_map: SHA-256 of the prediction itself; empty until it is written.
        background: whether all of the prediction is background.
    """

    images: tuple[str, ...]
    modality: str | None
    dataset: str | None
    origin: str
    label_map: str = ""
    background: bool = False


class PredictionFolder:
    """Label maps in ``folder``, made by ``origin`` from now on, of the format ``form`` (``label_map_name``)."""

    def __init__(self, folder: Path, origin: Origin, form: str | None = None) -> None:
        self.folder = folder
        self.origin = origin
        self.form = form

    def pending(self, cases: Sequence[Case], *, overwrite: bool = False, beside: Sequence[str] = ()) -> list[Case]:
        """The cases that are left to do: without a prediction, or with one that was made from something else.

        Args:
            cases: cases of this call; ids differ, and no output lies among the inputs (``require_apart``).
            overwrite: do all of them, whatever the folder holds.
            beside: what else a case has to have, names of ``files_beside``.

        Raises:
            ConfigError: a file has the name of a prediction but was not written here, or was changed since.
        """
        files = self.require_apart(cases)
        todo, foreign, reasons = [], [], dict[str, str]()
        for case in cases:
            path = files[case.id]
            if overwrite or not path.is_file() or path.stat().st_size == 0:
                todo.append(case)
                continue
            record = self._read(case.id)
            others = files_beside(path, case.id)
            if record is not None and not record.label_map:  # interrupted between the two files
                todo.append(case)
            elif record is None or record.label_map != content_hash(path):
                foreign.append(path.name)
            elif differs := self._differences(record, case):
                todo.append(case)
                reasons[case.id] = differs
            elif not all(others[name].is_file() for name in beside):
                todo.append(case)
        if foreign:
            raise ConfigError(
                f"{self.folder} holds {_few(foreign)}, which medseg did not write, or which changed since; expected "
                "predictions of this command alone. Use another --output folder, or replace the files with --overwrite."
            )
        for reason in dict.fromkeys(reasons.values()):
            logger.info(
                "predicted again, with %s: %s", reason, _few([c for c, why in reasons.items() if why == reason])
            )
        if len(todo) < len(cases):
            logger.info("%d of %d cases are predicted already", len(cases) - len(todo), len(cases))
        self._warn_of_others({case.id for case in cases})
        for case in todo:  # what a new prediction may fail to replace must not pass for one
            for file in (files[case.id], *files_beside(files[case.id], case.id).values()):
                file.unlink(missing_ok=True)
            self._write(case, PredictionRecord((), case.modality, case.dataset, self.origin.name))
        return todo

    def require_apart(self, cases: Sequence[Case]) -> dict[str, Path]:
        """Case id -> label map.

        Raises:
            ConfigError: the folder is one of the input images' folders.
            DataError: two cases have one id.
        """
        target = self.folder.resolve()
        for case in cases:
            for file in case.files:
                if target in (Path(file).absolute().parent, Path(file).resolve().parent):
                    raise ConfigError(
                        f"--output {self.folder} is the folder of the input {Path(file).name}; label maps would lie "
                        "among the images. Name another folder."
                    )
        return output_files(cases, self.folder, self.form)

    def add(self, case: Case, *, background: bool) -> None:
        """Record a label map that was just written; ``background``: all of it is."""
        made = content_hash(self.folder / case.output_name(self.form))
        self._write(case, replace(self._wanted(case), label_map=made, background=background))

    def _write(self, case: Case, record: PredictionRecord) -> None:
        origin = self._origin(self.origin.name)
        if not origin.is_file():
            write_text(origin, self.origin.text)
        write_text(self._record(case.id), json.dumps(asdict(record), indent=1) + "\n")

    def _record(self, case_id: str) -> Path:
        return self.folder / _FOLDER / f"{case_id}.json"

    def _origin(self, name: str) -> Path:
        return self.folder / _FOLDER / "origins" / f"{name}.json"

    def _wanted(self, case: Case) -> PredictionRecord:
        images = tuple(content_hash(image) for image in case.images)
        return PredictionRecord(images, case.modality, case.dataset, self.origin.name)

    def _read(self, case_id: str) -> PredictionRecord | None:
        content = _read(self._record(case_id))
        try:
            return PredictionRecord(**{**content, "images": tuple(content["images"])})
        except (TypeError, KeyError):
            return None

    def _differences(self, record: PredictionRecord, case: Case) -> str:
        """What a prediction was made from that is not as now, in words; empty where all is equal."""
        wanted = self._wanted(case)
        found = [] if record.images == wanted.images else ["other images"]
        if (record.modality, record.dataset) != (wanted.modality, wanted.dataset):
            found.append("another modality or data set")
        if record.origin != wanted.origin:
            old, new = _read(self._origin(record.origin)), json.loads(self.origin.text)
            found += [text for key, text in _CHANGES.items() if old.get(key) != new[key]]
            before, after = old.get("settings", {}), new["settings"]
            keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
            found += [f"other settings ({_few(keys)})"] if keys else []
        return " and ".join(found)

    def _warn_of_others(self, ids: set[str]) -> None:
        """Predictions of other cases that were made by something else: the folder is a mixture."""
        others = [path.name.removesuffix(".json") for path in sorted((self.folder / _FOLDER).glob("*.json"))]
        records = {case_id: self._read(case_id) for case_id in others if case_id not in ids}
        mixed = [
            case_id
            for case_id, record in records.items()
            if record is not None and record.origin != self.origin.name and find_label_map(self.folder, case_id)
        ]
        if mixed:
            logger.warning("%s also holds predictions made in another way: %s.", self.folder, _few(mixed))


def background_predictions(label_maps: Sequence[Path]) -> list[str]:
    """Case ids of the label maps, of one or several folders, that are recorded as background throughout."""
    places = [(path.parent, label_map_case(path)) for path in label_maps]
    return [
        case_id for folder, case_id in places if _read(folder / _FOLDER / f"{case_id}.json").get("background") is True
    ]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f", … ({len(names)})" if len(names) > _SHOWN else "")


def _read(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty where it is missing or damaged."""
    try:
        return read_table(path, "a record")
    except DataError:
        return {}

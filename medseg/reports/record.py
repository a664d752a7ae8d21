"""What a run folder records, read for a report: config, facts, datalist table, curves, scores and warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.data.case import channel_files
from medseg.data.content import content_hash
from medseg.data.run_settings import read_origins, reasons_in
from medseg.engines.run_facts import RunFacts, read_facts
from medseg.engines.run_files import Curves, is_outdated
from medseg.errors import ConfigError, DataError
from medseg.labels import LabelSpace
from medseg.metrics import Scores
from medseg.networks import network_name
from medseg.storage import as_formed, read_table, read_yaml
from medseg.transforms import find_label_map, is_2d_file

__all__ = ["RunRecord", "read_record"]

_FORM = {
    "network_def": {"_target_": str},
    "dataset_dir": str,
    "roi_size": [int],
    "labels?": dict,
    "epochs?": int,
    "augment?": (dict, None),
    "preprocess?": {
        "spacing?": ([float], None, str),
        "normalization?": [({"kind": str, "lower?": float, "upper?": float, "mean?": float, "std?": float}, str)],
    },
}
_LIST = {
    "training?": [{"image": (str, [str])}],
    "modality?": ({str: str}, str, [str]),
    "channel_names?": {str: str},
    "labels?": dict,
    "label_space?": dict,
    "known_overlaps?": (list, None),
}


@dataclass(frozen=True)
class RunRecord:
    """A run as its files tell it.

    Attributes:
        folder: the run folder.
        config: ``configs/train.yaml`` as written.
        facts: facts of the run.
        reasons: config id -> who or what set it.
        table: ``configs/datalist.json`` as written.
        label_space: meaning of the label values.
        curves: course of the training; ``None`` where there was none.
        metrics: scores; ``None`` where the run is not validated.
        warnings: warning lines of ``log.txt``, each once.
    """

    folder: Path
    config: dict[str, Any]
    facts: RunFacts
    reasons: dict[str, str]
    table: dict[str, Any]
    label_space: LabelSpace
    curves: Curves | None
    metrics: Scores | None
    warnings: list[str]

    @property
    def network(self) -> str:
        """The network's class name."""
        return network_name(self.config.get("network_def", {}))

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return str(self.table.get("name") or "the datalist")

    @property
    def channels(self) -> list[str]:
        """Names of the image channels, in order."""
        modality = self.table.get("modality", self.table.get("channel_names", {}))
        if isinstance(modality, Mapping):
            numbers = all(str(key).isdecimal() for key in modality)
            return [str(modality[key]) for key in (sorted(modality, key=int) if numbers else modality)]
        return [modality] if isinstance(modality, str) else list(modality)

    @property
    def unit(self) -> str:
        """The unit of lengths: photographs have pixels only."""
        cases = self.table.get("training") or [{"image": ""}]
        return "px" if is_2d_file(channel_files(cases[0])[0]) else "mm"

    @property
    def outdated(self) -> bool:
        """Whether the run no longer has the weights that were scored."""
        return self.metrics is not None and is_outdated(self.folder, self.metrics)

    @property
    def targets(self) -> list[str]:
        """The labels or regions that have scores."""
        assert self.metrics is not None
        return list(self.metrics.labels)

    def setting(self, path: str, default: Any = None) -> Any:
        """A value of the config, such as ``preprocess::spacing``; plain references to other ids are followed."""
        value: Any = self.config
        for key in path.split("::"):
            if not isinstance(value, Mapping) or key not in value:
                return default
            value = value[key]
        if isinstance(value, str) and value.startswith("@") and value[1:] != path:
            return self.setting(value[1:], default)
        return value

    def scores(self, score: str = "dice") -> tuple[list[str], np.ndarray]:
        """Case ids and one score per case and target ``(cases, targets)``; NaN where it is undefined."""
        assert self.metrics is not None
        return list(self.metrics.cases), self.metrics.table(score)

    def prediction(self, case_id: str) -> Path | None:
        """The label map of a case that was scored; ``None`` where there is none, or another was written since."""
        written = None if self.metrics is None else self.metrics.predictions
        path = None if written is None else find_label_map(self.folder / written.folder, case_id)
        if written is None or path is None or content_hash(path) != written.sha256.get(case_id, content_hash(path)):
            return None
        return path

    def pooled(self, target: str, score: str) -> float:
        """A score of one target over all cases taken as one; NaN where ``metrics.json`` has none."""
        return math.nan if self.metrics is None else self.metrics.pooled.get(target, {}).get(score, math.nan)


def read_record(folder: str | Path) -> RunRecord:
    """Read a run folder.

    Raises:
        ConfigError: there is no run.
        DataError: a file of the run is damaged.
    """
    run = Path(folder)
    if not (run / "configs" / "train.yaml").is_file():
        fold = next((path.parents[1] for path in sorted(run.glob("fold*/configs/train.yaml"))), None)
        remedy = f"It holds folds: name one, such as {fold}" if fold else "Name a folder that `medseg train` wrote"
        raise ConfigError(f"{run} is not a run: configs/train.yaml is missing. {remedy}.")
    file = run / "configs" / "train.yaml"
    config = as_formed(read_yaml(file, DataError), _FORM, f"{file} is damaged", "restore it, or train again")
    listed = run / "configs" / "datalist.json"
    table = read_table(listed, "a datalist; restore it", _LIST) if listed.is_file() else {}
    space = config.get("labels") or table.get("label_space") or {"labels": table.get("labels", {})}
    return RunRecord(
        folder=run,
        config=config,
        facts=read_facts(run),
        reasons=reasons_in({id_: why for id_, (_, why) in read_origins(run).items()}),
        table=table,
        label_space=LabelSpace.from_table(space),
        curves=Curves.of(run),
        metrics=Scores.found(run),
        warnings=_logged_warnings(run / "log.txt"),
    )


def _logged_warnings(path: Path) -> list[str]:
    """Warning and error messages of the log in order, without their times."""
    if not path.is_file():
        return []
    found = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        parts = line.split(" ", 3)
        if len(parts) == 4 and parts[2] in ("WARNING", "ERROR"):
            found[parts[3]] = True
    return list(found)

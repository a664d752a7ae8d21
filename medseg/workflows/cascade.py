"""The cascade: a training that refines the label maps of an earlier one, which goes with the run from then on.

A run of the second stage holds the first one in its folder ``previous``: a bundle that predicts the label map of any
image, and the label maps of the training and validation cases, none of them by a network that was trained on the case.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from medseg.bundle.compose import resolve
from medseg.bundle.copy import copy_texts
from medseg.bundle.folder import PREVIOUS, Bundle
from medseg.data import Case, Datalist
from medseg.data.content import content_hash
from medseg.data.fingerprint import DataFingerprint
from medseg.engines.run_facts import read_facts
from medseg.errors import ConfigError, DataError, ModelError
from medseg.labels import LabelSpace
from medseg.metrics.scores import Scores
from medseg.transforms import find_label_map, load
from medseg.transforms.in_memory import InMemory
from medseg.workflows.checkpoints import WEIGHTS, weights_of
from medseg.workflows.folds import fold_runs
from medseg.workflows.inference import Inference, InferenceSettings
from medseg.workflows.out_of_fold import Fold, label_map_of, raw_scores
from medseg.workflows.predictor import Predictor
from medseg.workflows.run_folder import require_run, trained_on

__all__ = ["FirstStage", "PreviousStage"]

_MAPS = "predictions"  # in the folder of the first stage


class PreviousStage:
    """The label map of the first stage for a case, as configs of the second one name it.

    Args:
        root: folder of the second stage's run or bundle.
        label_space: its labels, which are those of the first.
        device: device of the first stage's network.
        sha256: hash of that network's weights.
        maps_sha256: hash of the label maps that were predicted out of fold.
        stored: whether label maps are these; else the network makes them.

    Raises:
        ModelError: the first stage is not there, or has other weights or label maps.
    """

    def __init__(
        self,
        root: str | Path,
        label_space: LabelSpace,
        device: torch.device | str,
        sha256: str,
        maps_sha256: str,
        *,
        stored: bool = False,
    ) -> None:
        self.folder = Path(root) / PREVIOUS
        self.label_space = label_space
        self.predictor: Predictor | None = None
        maps = self.folder / _MAPS
        if stored and _hash_of(path for path in maps.glob("*") if path.is_file()) != maps_sha256:
            raise ModelError(f"{maps} has not the label maps that the run began with; restore the folder.")
        if stored:
            return
        if content_hash(weights_of(self.folder, "best")) != sha256:
            raise ModelError(
                f"{self.folder / WEIGHTS} is not the first stage that the run was trained with; restore the folder."
            )
        settings = InferenceSettings(device=str(device), postprocess=False)  # as the stored label maps
        self.predictor = Predictor(Inference.of(Bundle(self.folder), settings))

    def __call__(self, data: Mapping[Hashable, Any]) -> MetaTensor:
        """Label indices ``(1, *spatial)`` on the grid of the case's ``image`` ``(C, *spatial)``."""
        case_id, image = str(data.get("case_id", "image")), data["image"]  # members of an ensemble see the image alone
        if self.predictor is not None:
            held = InMemory.of(image, image.ndim - 1, name=case_id)
            indices = self.predictor.indices(Case(f"{case_id}, first stage", (held,)))
            return MetaTensor(torch.from_numpy(indices)[None], affine=image.affine)
        path = find_label_map(self.folder / _MAPS, case_id)
        if path is None:
            raise DataError(f"{self.folder / _MAPS} has no label map of {case_id}; restore the folder.")
        labels: MetaTensor = Compose(load(["label"], self.label_space))({**data, "label": str(path)})["label"]
        return labels


@dataclass(frozen=True)
class FirstStage:
    """What a training of the second stage takes from earlier runs.

    Attributes:
        run: the one whose network goes with it: it has not seen the validation cases.
        maps: case id -> label map that was predicted out of fold.
    """

    run: Path
    maps: Mapping[str, Path]

    @classmethod
    def of(
        cls, sources: Sequence[str | Path], datalist: Datalist, training: Sequence[Case], validation: Sequence[Case]
    ) -> FirstStage:
        """From runs, or folders of the runs of all folds, whose validation cases were predicted.

        Raises:
            ConfigError: other labels or images; a run that is a second stage itself, or does not know its training
                cases; a case that no run holds out, so that its only label maps are by networks that were trained on
                it.
            DataError: a run is not validated, or a label map is lost.
            ModelError: a run cannot predict.
        """
        runs = [run for source in sources for run in fold_runs(source) or [Path(source)]]
        files = DataFingerprint.of([*training, *validation]).cases
        held: dict[Path, set[str]] = {}
        maps: dict[str, Path] = {}
        seen: set[str] = set()
        for run in runs:
            _require_fit(require_run(run), datalist)
            fold, facts = Fold(run, run), read_facts(run)
            scored, trained = raw_scores(fold), trained_on(facts, files)
            if facts.training_cases is None:
                raise ConfigError(f"{run} does not tell its training cases; restore its run.json, or train it again.")
            held[run] = (set(scored.cases) & set(files)) - trained
            _require_images(run, scored, {case_id: files[case_id] for case_id in sorted(held[run])})
            own = {case_id: label_map_of(fold, scored, case_id) for case_id in held[run]}
            maps = own | maps  # of several the first, whose network goes with the run
            seen |= trained
        lost = [case.id for case in (*training, *validation) if case.id not in maps]
        first = next((run for run in runs if held[run].issuperset(case.id for case in validation)), None)
        if lost or first is None:
            what = "was trained on by the runs of --previous" if seen & set(lost) else "is in no run of --previous"
            why = f"{lost[0]} {what}" if lost else "no run of --previous holds out all validation cases of this one"
            raise ConfigError(
                f"{why}; expected each case in the validation fold of one of them, and the folds of this training. "
                "Train the earlier configuration with --fold all, run `medseg validate --no_postprocess` on its "
                "folder, and name that."
            )
        resolve(Bundle(first), "infer")
        return cls(first, maps)

    @property
    def hashes(self) -> dict[str, str]:
        """Those that ``PreviousStage`` is given."""
        return {"sha256": content_hash(weights_of(self.run, "best")), "maps_sha256": _hash_of(self.maps.values())}

    def copy(self, run: Path) -> None:
        """Put it into the folder of a run."""
        target = run / PREVIOUS
        copy_texts(self.run, target)
        places = {file: target / _MAPS / file.name for file in self.maps.values()}
        for file, place in (places | {self.run / WEIGHTS: target / WEIGHTS}).items():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def _hash_of(files: Iterable[Path]) -> str:
    """One hash of files by their names and contents, in whatever folders they lie."""
    lines = sorted(f"{path.name} {content_hash(path)}" for path in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _require_images(run: Path, scored: Scores, files: Mapping[str, Sequence[str]]) -> None:
    """The cases are those that the run predicted, by their images, not by their names alone."""
    known = scored.facts.files_sha256 or {}
    for case_id, (*images, _) in files.items():
        if list(known.get(case_id, ()))[: len(images)] != images:
            raise ConfigError(
                f"{case_id} has another image than the case of this name that {run} predicted; expected a run of "
                "--previous on these data. Name one."
            )


def _require_fit(earlier: Bundle, datalist: Datalist) -> None:
    """Its labels are those of the channels, and it stands alone."""
    if "previous" in earlier.trained:
        raise ConfigError(
            f"--previous {earlier} is a second stage itself; expected a run that refines no other. Name the one before."
        )
    own, theirs = datalist.label_space, LabelSpace.from_table(earlier.trained["labels"])
    if own.to_table() != theirs.to_table():
        raise ConfigError(
            f"--previous {earlier} has the labels {theirs.to_table()}, {datalist.path} {own.to_table()}; expected the "
            "same. Train the earlier configuration on this datalist."
        )

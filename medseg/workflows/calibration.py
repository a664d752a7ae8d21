"""Calibrate: one temperature, fitted on a run's validation cases, so that its probabilities mean what they say.

The figures after it are of cases that the temperature was not fitted on: those of one half of the subjects by the
temperature of the other half. What is stored is fitted on all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

import numpy as np
from monai.transforms import Compose

from medseg.bundle.folder import Bundle
from medseg.data import Case
from medseg.engines.log_file import log_to
from medseg.labels import IGNORE, LabelSpace
from medseg.metrics.calibration import (
    Reliability,
    brier_score,
    negative_log_likelihood,
    pooled_reliability,
    top_label_reliability,
)
from medseg.metrics.single_score import ScoreInterval, score_interval
from medseg.metrics.subjects import subject_sums
from medseg.metrics.temperature import fit_temperature, scale_probabilities
from medseg.reports.calibrated import Calibration, ProbabilityScores
from medseg.reports.drawing import save_png
from medseg.reports.reliability import reliability_figure
from medseg.settings import Folder, takes
from medseg.storage import write_json
from medseg.transforms import load
from medseg.transforms.probability_file import files_beside, read_probabilities
from medseg.workflows.evaluation import EvaluateSettings
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.folds import fold_runs
from medseg.workflows.probabilities import store_temperature
from medseg.workflows.run_folder import require_run
from medseg.workflows.validation import evaluate

__all__ = ["CalibrateSettings", "calibrate"]

logger = logging.getLogger("medseg")

_PLACE = "calibration"  # folder in a run
_SAMPLE = 1_000_000  # voxels that a temperature is fitted on, of all cases together
_BLOCK = 1_000_000  # voxels that are scored at once


@dataclass(frozen=True)
class CalibrateSettings:
    """The run whose probabilities are calibrated.

    Attributes:
        run: run folder; folds are pooled.
        data_dir: folder of images and references, where they were moved (default: as in training).
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
    """

    run: Folder
    _: KW_ONLY
    data_dir: Folder | None = None
    device: str | None = None


@dataclass(frozen=True)
class _Voxels:
    """Probabilities ``(C, voxels)`` and label indices ``(voxels,)`` of a case; each region is a choice of two."""

    group: str
    case_id: str
    probabilities: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class _CaseScores:
    curve: Reliability
    foreground: Reliability
    brier: float
    nll: float


@takes(CalibrateSettings)
@writes_into("run")
def calibrate(settings: CalibrateSettings) -> Calibration:
    """Fit a temperature on a run's validation cases, with ECE, Brier score and NLL before and after.

    The folds of a run of `--fold all` are pooled.
    Probabilities are predicted into ``calibration/`` of each run, or read there if they were made from the same.
    Writes ``calibration.json`` and ``reliability.png``, and ``temperature`` into ``configs/inference.yaml`` of the run
    or of all its folds: inference, validation and ensembles apply it to the probabilities that they save or join.
    Label maps of a single network stay as they are.

    Raises:
        ConfigError, DataError: as ``evaluate``, such as of cases that are not the run's validation cases.
    """
    run = Path(settings.run)
    folders = fold_runs(run) or [require_run(run).root]
    log_to(run)
    for folder in folders:
        _predict(folder, settings)
    parts = [(part.group, part) for part in _sampled(folders, settings)]
    groups = sorted({group for group, _ in parts})
    half = {group: index % 2 for index, group in enumerate(groups)}
    temperature = _fitted([part for _, part in parts])
    halves = [_fitted([part for group, part in parts if half[group] == side]) for side in (0, 1) if len(groups) > 1]
    before: dict[str, _CaseScores] = {}
    after: dict[str, _CaseScores] = {}
    subjects: dict[str, str] = {}
    for case in _cases(folders, settings):
        subjects[case.case_id] = case.group
        before[case.case_id] = _scored(case)
        if halves:
            after[case.case_id] = _scored(case, halves[1 - half[case.group]])
    curves = {"before": before, "after": after} if halves else {"before": before}
    found = Calibration(
        temperature=round(temperature, 6),
        halves=halves,
        cases=list(before),
        before=_summary(before, subjects),
        after=_summary(after, subjects) if halves else None,
        reliability={
            name: _table(pooled_reliability([case.foreground for case in of.values()])) for name, of in curves.items()
        },
    )
    write_json(run / "calibration.json", found)
    save_png(reliability_figure(found.reliability), run / "reliability.png")
    for folder in folders:
        store_temperature(Bundle(folder), found.temperature)
    logger.info("temperature of %s: %.4g", run, found.temperature)
    return found


# ---------------------------------------------------------------------- cases
def _evaluation(folder: Path, settings: CalibrateSettings) -> EvaluateSettings:
    return EvaluateSettings(
        folder,
        data_dir=settings.data_dir,
        device=settings.device,
        section="validation",
        into=_PLACE,
        postprocess=False,
        probabilities="float32",  # half precision has no small probabilities, by which a temperature is decided
        reuse=True,
    )


def _predict(folder: Path, settings: CalibrateSettings) -> None:
    """Raw probabilities of a run's validation cases, where they do not lie there already."""
    asked = _evaluation(folder, settings)
    evaluate.of(asked)
    if not all(_file(folder, case).is_file() for case in asked.selection().cases):
        evaluate.of(replace(asked, reuse=False))


def _file(folder: Path, case: Case) -> Path:
    return files_beside(folder / _PLACE / "predictions" / case.output_name(), case.id)["probabilities"]


def _cases(folders: Sequence[Path], settings: CalibrateSettings) -> Iterator[_Voxels]:
    for folder in folders:
        space = LabelSpace.from_table(Bundle(folder).trained["labels"])
        reader = Compose(load(["label"], space))
        for case in _evaluation(folder, settings).selection().cases:
            reference = reader({"label": case.label, "dataset": case.dataset})["label"][0].numpy()
            values = read_probabilities(_file(folder, case), rows=case.is_picture).values
            yield _Voxels(case.group, case.id, *_choices(values, reference, space))


def _choices(values: np.ndarray, reference: np.ndarray, space: LabelSpace) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities ``(K, voxels)`` and label indices: of exclusive classes as they are, of regions "no" and "yes"."""
    if space.mode == "softmax":
        return values.reshape(len(values), -1), reference.reshape(-1)
    labels = np.where(reference == IGNORE, IGNORE, space.binary(reference).astype(np.int16)).reshape(-1)
    return np.stack([1 - values.reshape(-1), values.reshape(-1)]), labels


def _sampled(folders: Sequence[Path], settings: CalibrateSettings) -> Iterator[_Voxels]:
    """Some voxels of each case, drawn at random and the same every time."""
    number = sum(len(_evaluation(folder, settings).selection().cases) for folder in folders)
    for index, case in enumerate(_cases(folders, settings)):
        known = np.flatnonzero(case.labels != IGNORE)
        size = min(len(known), max(1, _SAMPLE // number))
        drawn = np.random.default_rng(index).choice(known, size, replace=False)
        yield _Voxels(case.group, case.case_id, case.probabilities[:, drawn], case.labels[drawn])


# ---------------------------------------------------------------------- figures
def _fitted(parts: Sequence[_Voxels]) -> float:
    table = np.concatenate([part.probabilities for part in parts], axis=1)
    return fit_temperature(table, np.concatenate([part.labels for part in parts]))


def _scored(case: _Voxels, temperature: float | None = None) -> _CaseScores:
    """In blocks, as a volume's probabilities in double precision are large."""
    known = case.labels != IGNORE
    table, labels = case.probabilities[:, known], case.labels[known]
    blocks, weights = [], []
    for start in range(0, len(labels), _BLOCK):
        part, true = table[:, start : start + _BLOCK], labels[start : start + _BLOCK]
        part = part if temperature is None else scale_probabilities(part, temperature)
        blocks.append(
            _CaseScores(
                top_label_reliability(part, true),
                top_label_reliability(part, true, foreground=True),
                float(brier_score(part, true).sum()),
                negative_log_likelihood(part, true),
            )
        )
        weights.append(len(true))
    return _CaseScores(
        pooled_reliability([block.curve for block in blocks]),
        pooled_reliability([block.foreground for block in blocks]),
        float(np.average([block.brier for block in blocks], weights=weights)),
        float(np.average([block.nll for block in blocks], weights=weights)),
    )


def _summary(cases: Mapping[str, _CaseScores], subjects: Mapping[str, str]) -> ProbabilityScores:
    groups = [subjects[case_id] for case_id in cases]

    def interval(values: Sequence[float]) -> ScoreInterval:
        return score_interval(subject_sums(np.array(values), groups), limits=(0.0, np.inf))

    return ProbabilityScores(
        interval([case.curve.ece for case in cases.values()]),
        interval([case.foreground.ece for case in cases.values()]),
        interval([case.brier for case in cases.values()]),
        interval([case.nll for case in cases.values()]),
    )


def _table(curve: Reliability) -> dict[str, list[float]]:
    """Bins without voxels are omitted."""
    kept = curve.counts > 0
    counts = curve.counts[kept]
    return {
        "voxels": counts.tolist(),
        "probability": (curve.confidence[kept] / counts).tolist(),
        "right": (curve.hits[kept] / counts).tolist(),
    }

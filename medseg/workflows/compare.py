"""Compare methods that were validated on the same cases: paired differences over subjects with the test and its
interval, beside their cost.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.engines.run_facts import RunFacts
from medseg.errors import ConfigError, nearest
from medseg.metrics import Scores
from medseg.metrics.estimate import estimate_table, less_is_better
from medseg.metrics.families import adjust_families, equivalence
from medseg.metrics.paired_difference import paired_difference
from medseg.metrics.seeds import crossed_mean, training_difference
from medseg.metrics.subjects import FEWEST_SUBJECTS, subject_sums
from medseg.reports.compared import ComparedRun, Comparison, Difference
from medseg.reports.comparison import write_comparison
from medseg.settings import Folder, takes
from medseg.storage import as_table, whole_file, write_json
from medseg.storage.csv_file import CsvWriter
from medseg.workflows.comparable import Method, differing, methods, refuse_unlike, units

__all__ = ["CompareSettings", "compare"]

logger = logging.getLogger("medseg")

_FEW = 10  # subjects
_MANY = 50  # subjects from which rare failures can be judged
_RARE = 0.04  # share of failures above which an interval of fewer is too narrow


@dataclass(frozen=True)
class CompareSettings:
    """Which runs are compared, by which score.

    Attributes:
        runs: run folders, results of `medseg ensemble` or `evaluate`, scores/test of a run, or nnU-Net's folders with
            summary.json; the first is the baseline. NAME=DIR names a method, and several runs of one name are its
            trainings with other seeds.
        output: folder for comparison.html, .md, .tex, .csv, .json and figures.
        score: score that is compared, one of those that the runs have (see `medseg metrics`).
        primary: endpoint that was named beforehand, SCORE or SCORE:LABEL (default: the mean of --score over labels).
            All others are secondary, with p-values adjusted together.
        margin: largest difference of the primary endpoint that does not matter, named beforehand, for a test of
            equivalence.
    """

    runs: Sequence[Folder] = field(metadata={"option": "run"})
    output: Folder
    _: KW_ONLY
    score: str = "dice"
    primary: str | None = None
    margin: float | None = None


@takes(CompareSettings)
def compare(settings: CompareSettings) -> Comparison:
    """Compare validated runs: paired differences over subjects with intervals, tests and effect sizes.

    Every method is compared with the first; writes ``comparison.json``, ``.csv``, ``.md``, ``.tex`` and ``.html`` and
    its figures.

    Raises:
        ConfigError: fewer than two methods, an unknown endpoint, or a margin that is not positive.
        DataError: a run was not validated, or its scores mean something else (``refuse_unlike``).

    Examples:
        >>> compared = medseg.compare(["runs/first", "runs/second"], "compared")
        >>> [row.label for row in compared.comparisons]
        ['mean', 'liver', 'spleen', 'kidneys']
    """
    compared = methods(settings.runs)
    if len(compared) < 2:
        raise ConfigError("A comparison needs two or more methods; repeat --run, with other names.")
    runs = [run for method in compared for run in method.runs]
    labels = list(runs[0].scores.labels)
    settings = replace(settings, score=runs[0].scores.named(settings.score))
    primary = _endpoint(settings, labels, runs[0].scores)
    for score in dict.fromkeys((primary[0], settings.score)):
        refuse_unlike(runs, score)
    cases = sorted(runs[0].cases)
    subjects = units(runs, cases)
    tables = {score: _Tables.of(compared, cases, labels, subjects, score) for score in {primary[0], settings.score}}
    rows = [
        tables[score].difference(other, target, primary=(score, target) == primary)
        for score, targets in _targets(settings.score, labels, primary)
        for target in targets
        for other in range(1, len(compared))
    ]
    rows = [_judged(row, settings.margin) for row in _adjusted(rows)]
    estimated = [_compared(method, tables[settings.score], place) for place, method in enumerate(compared)]
    comparison = Comparison(
        score=settings.score,
        cases=cases,
        subjects=subjects,
        labels=labels,
        warnings=[*differing(runs, settings.score), *_limits(estimated, rows, cases, subjects)],
        chosen=[f"{run.name}: {text}" for run in runs for text in run.scores.facts.chosen or ()],
        runs=estimated,
        scores={method.name: tables[settings.score].by_label(place) for place, method in enumerate(compared)},
        comparisons=rows,
        margin=settings.margin,
    )
    for text in comparison.warnings:
        logger.warning("%s", text)
    target_dir = Path(settings.output)
    write_json(target_dir / "comparison.json", comparison)
    table_file = target_dir / "comparison.csv"
    with whole_file(table_file) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        flat = [row.to_row() for row in comparison.comparisons]
        writer = CsvWriter(file, list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
    write_comparison(comparison, target_dir)
    return comparison


def _endpoint(settings: CompareSettings, labels: Sequence[str], scores: Scores) -> tuple[str, str]:
    """Score and label (or ``mean``) of the primary endpoint."""
    score, _, label = (settings.primary or settings.score).partition(":")
    score = scores.named(score)
    for name in (settings.score, score):
        if name not in scores.metrics:
            known = ", ".join(scores.metrics)
            raise ConfigError(f"The runs have no score '{name}'.{nearest(name, scores.metrics)} They have: {known}.")
    if label and label not in (*labels, "mean"):
        raise ConfigError(f"The runs have no label '{label}'.{nearest(label, labels)} They have: {', '.join(labels)}.")
    if settings.margin is not None:
        equivalence(0.0, 0.0, settings.margin)
    return score, label or "mean"


def _targets(score: str, labels: Sequence[str], primary: tuple[str, str]) -> list[tuple[str, list[str]]]:
    """Score and its labels, the primary endpoint first."""
    others = [target for target in (*labels, "mean") if (score, target) != primary]
    return [(primary[0], [primary[1]]), (score, others)]


@dataclass(frozen=True)
class _Tables:
    """One score of all methods.

    Attributes:
        names: names of the methods, the baseline first.
        labels: the labels.
        subjects: subject of each case.
        score: name of the score.
        runs: per method ``(seeds, cases, labels)``; NaN where any method has no score, so that all means have equal
            terms.
        dice: Dice of the same, which tells failures.
    """

    names: Sequence[str]
    labels: Sequence[str]
    subjects: Sequence[str]
    score: str
    runs: Sequence[np.ndarray]
    dice: Sequence[np.ndarray]

    @classmethod
    def of(
        cls,
        compared: Sequence[Method],
        cases: Sequence[str],
        labels: Sequence[str],
        subjects: Sequence[str],
        score: str,
    ) -> _Tables:
        runs, dice = (
            [np.stack([_values(run.scores, cases, name) for run in method.runs]) for method in compared]
            for name in (score, "dice")
        )
        # A distance is undefined for the run that misses a label.
        shared = np.logical_and.reduce([np.isfinite(table).all(axis=0) for table in runs])
        runs = [np.where(shared, table, np.nan) for table in runs]
        return cls([method.name for method in compared], labels, subjects, score, runs, dice)

    def columns(self, target: str) -> slice:
        """Of a label, or of all for ``mean``."""
        return slice(None) if target == "mean" else slice(self.labels.index(target), self.labels.index(target) + 1)

    def by_label(self, place: int) -> dict[str, list[float]]:
        """Label, or ``mean`` over labels -> score per case, the mean over seeds."""
        table = self.runs[place].mean(axis=0)
        known = np.isfinite(table)
        totals, counts = np.where(known, table, 0.0).sum(axis=1), known.sum(axis=1)
        means = np.divide(totals, counts, out=np.full(len(table), math.nan), where=counts > 0)
        return {**dict(zip(self.labels, table.T.tolist(), strict=True)), "mean": means.tolist()}

    def by_seed(self, place: int, target: str = "mean") -> np.ndarray:
        """Subjects' values ``(subjects, seeds)`` whose means are those of the seeds."""
        of_each = [subject_sums(table[:, self.columns(target)], self.subjects) for table in self.runs[place]]
        return np.stack([sums.pseudo_values() for sums in of_each], axis=1)

    def difference(self, place: int, target: str, *, primary: bool) -> Difference:
        """A method minus the baseline."""
        first, second = (self.runs[i].mean(axis=0)[:, self.columns(target)] for i in (0, place))
        found = paired_difference(first, second, self.subjects)
        seeds = len(self.runs[0])
        several = 1 < seeds == len(self.runs[place]) and found.subjects.total >= FEWEST_SUBJECTS
        return Difference(
            baseline=self.names[0],
            run=self.names[place],
            score=self.score,
            label=target,
            cases=found.cases.total,
            subjects=found.subjects.total,
            mean_difference=found.mean,
            interval=(found.low, found.high),
            interval_90=(found.low_90, found.high_90),
            p_value=found.p_value,
            effect_size=found.rank_biserial,
            by_subject=found.subjects,
            influence=found.influence,
            family="primary" if primary else self.score,
            p_holm=math.nan,
            trainings=training_difference(self.by_seed(0, target), self.by_seed(place, target)) if several else None,
        )


def _values(scores: Scores, cases: Sequence[str], score: str) -> np.ndarray:
    """``(cases, labels)`` in the order of ``cases``."""
    places = {case: place for place, case in enumerate(scores.cases)}
    return scores.table(score)[[places[case] for case in cases]]


def _adjusted(rows: Sequence[Difference]) -> list[Difference]:
    """With Holm's p-values: the primary endpoint by itself, and each score's other rows together."""
    found = adjust_families({i: row.p_value for i, row in enumerate(rows)}, {i: r.family for i, r in enumerate(rows)})
    return [replace(row, p_holm=found[i].adjusted) for i, row in enumerate(rows)]


def _judged(row: Difference, margin: float | None) -> Difference:
    """With the verdict on the margin, which is the primary endpoint's."""
    if margin is None or not row.primary:
        return row
    found = equivalence(*row.interval_90, margin, higher_is_better=not less_is_better(row.score))
    return replace(row, equivalent=found.equivalent, non_inferior=found.non_inferior)


def _compared(method: Method, tables: _Tables, place: int) -> ComparedRun:
    table, dice = tables.runs[place].mean(axis=0), tables.dice[place].mean(axis=0)
    found = estimate_table(table, dice, tables.subjects, tables.score)
    seeds = len(method.runs)
    several = seeds > 1 and found.score.subjects >= FEWEST_SUBJECTS
    own = ComparedRun(
        run=method.name,
        mean=found.score.mean,
        interval=(found.score.low, found.score.high),
        failures=found.failures,
        scored_on=method.runs[0].scored_on,
        checkpoint=method.runs[0].checkpoint,
        postprocessing=method.runs[0].definition.postprocessing,
        seeds=seeds,
        trainings=crossed_mean(tables.by_seed(place)) if several else None,
    )
    facts = _facts([run.facts for run in method.runs])
    return replace(own, **{field.name: facts[field.name] for field in fields(own) if field.name in facts})


def _facts(of_each: Sequence[RunFacts]) -> Mapping[str, Any]:
    """What is recorded of all runs of a method: means of numbers, and what all have alike."""
    tables = [as_table(facts) for facts in of_each]
    found: dict[str, Any] = {}
    for name in tables[0]:
        values = [table[name] for table in tables if name in table]
        if len(values) == len(tables) and all(value == values[0] for value in values):
            found[name] = values[0]
        elif len(values) == len(tables) and all(type(value) in (int, float) for value in values):
            mean = sum(values) / len(values)
            found[name] = round(mean) if isinstance(values[0], int) else mean
    return found


def _limits(
    runs: Sequence[ComparedRun], rows: Sequence[Difference], cases: Sequence[str], subjects: Sequence[str]
) -> list[str]:
    """What the figures cannot tell, in sentences."""
    found = []
    number, unit = len(set(subjects)), "cases" if subjects == cases else "subjects"
    if number < FEWEST_SUBJECTS:
        found.append(f"Only {number} {unit}: values alone; intervals and tests need {FEWEST_SUBJECTS}.")
    elif number < _FEW:
        found.append(f"Only {number} {unit}: intervals are wide, and tests have little power.")
    for row in rows:
        if row.primary and row.influence.carried and row.subjects >= FEWEST_SUBJECTS:
            found.append(
                f"Two subjects ({', '.join(row.influence.subjects)}) carry {100 * row.influence.share:.0f} % of the "
                f"differences of {row.run}: a difference made by rare failures cannot be judged below about {_MANY} "
                "subjects."
            )
    failing = [run.run for run in runs if run.failures.hits > _RARE * run.failures.of]
    if failing and number < _MANY:
        found.append(
            f"More than {100 * _RARE:.0f} % of the cases of {', '.join(failing)} have a label with Dice below 0.1, in "
            f"fewer than {_MANY} {unit}: intervals cover less than they say."
        )
    return found

"""What a comparison of methods found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medseg.metrics.paired_difference import Counts, Influence
from medseg.metrics.seeds import CrossedMean, TrainingDifference
from medseg.metrics.shares import Share

__all__ = ["ComparedRun", "Comparison", "Difference"]


@dataclass(frozen=True)
class ComparedRun:
    """One method of a comparison, a run or several trainings of one name; what comes after ``trainings`` are facts of
    the run (``RunFacts``), of several their means.

    Attributes:
        run: name, as tables show it.
        mean: mean over labels of the mean over cases that all methods have a score for; NaN where it is undefined.
        interval: its 95 % interval over subjects; NaN with fewer than six.
        failures: cases in which the Dice of a label is below 0.1.
        scored_on: which cases, such as ``validation, fold 0``.
        checkpoint: name of the checkpoint; ``None`` where it is not recorded.
        postprocessing: ``raw`` or ``cleaned``.
        seeds: number of trainings, whose scores are averaged in each case.
        trainings: mean over new trainings as well as new subjects; ``None`` of a single training.
    """

    run: str
    mean: float
    interval: tuple[float, float]
    failures: Share
    scored_on: str
    checkpoint: str | None
    postprocessing: str
    seeds: int = 1
    trainings: CrossedMean | None = None
    network: str | None = None
    multiply_adds_per_case: int | None = None
    seconds_per_case: float | None = None
    peak_memory_bytes: int | None = None
    parameters: int | None = None
    measured_on: str | None = None
    iterations: int | None = None
    epochs_done: int | None = None
    validations: int | None = None
    training_seconds: float | None = None
    cpu_seconds: float | None = None
    schedule_completed: bool | None = None


@dataclass(frozen=True)
class Difference:
    """Method minus baseline for one score and one label, or for the ``mean`` over labels (``PairedDifference``).

    Attributes:
        score: such as ``dice``.
        cases, subjects: numbers of pairs, and of the subjects that they are of.
        interval, interval_90: intervals that invert the test; NaN with fewer than six subjects.
        p_value: two-sided sign-flip test over subjects; NaN with fewer than six.
        effect_size: matched-pairs rank-biserial correlation of the subjects' means.
        by_subject: number of subjects with a higher, lower and equal score.
        influence: the two subjects with the largest share in the differences.
        family: ``primary`` for the primary endpoint, else the score, whose rows are adjusted together.
        p_holm: p-value after Holm's correction within the family.
        equivalent, non_inferior: whether the 90 % interval shows it within the margin; ``None`` without a margin.
        trainings: difference over new trainings as well as new subjects; ``None`` where a method was trained once.
    """

    baseline: str
    run: str
    score: str
    label: str
    cases: int
    subjects: int
    mean_difference: float
    interval: tuple[float, float]
    interval_90: tuple[float, float]
    p_value: float
    effect_size: float
    by_subject: Counts
    influence: Influence
    family: str
    p_holm: float
    equivalent: bool | None = None
    non_inferior: bool | None = None
    trainings: TrainingDifference | None = None

    @property
    def primary(self) -> bool:
        """Whether it is the endpoint that was named beforehand."""
        return self.family == "primary"

    def to_row(self) -> dict[str, Any]:
        """For a table of single values."""
        row: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, tuple):
                row |= {f"{name}_low": value[0], f"{name}_high": value[1]}
            elif isinstance(value, Counts):
                row |= {f"subjects_{sign}": number for sign, number in vars(value).items()}
            elif isinstance(value, Influence):
                row |= {"two_largest": " ".join(value.subjects), "their_share": value.share}
            elif name == "trainings":
                row |= {f"{name}_{part}": getattr(value, part, None) for part in ("low", "high", "p_value")}
            else:
                row[name] = value
        return row


@dataclass(frozen=True)
class Comparison:
    """Methods that were scored on the same cases, each set against the first.

    Attributes:
        score: score that is compared, such as ``dice``.
        cases: ids of the cases.
        subjects: subject of each case; the case itself where none is recorded.
        labels: labels or regions.
        warnings: sentences on what makes the comparison less fair.
        chosen: sentences on which cases each method's checkpoint, rules and weights were chosen.
        runs: the methods, the baseline first.
        scores: method -> label, or ``mean`` over labels -> score per case; NaN where it is undefined.
        comparisons: rows of the primary endpoint, then one per pair and label, and per pair of the mean over labels.
        margin: largest difference of the primary endpoint that does not matter; ``None`` where none was given.
    """

    score: str
    cases: Sequence[str]
    subjects: Sequence[str]
    labels: Sequence[str]
    warnings: Sequence[str]
    chosen: Sequence[str]
    runs: Sequence[ComparedRun]
    scores: Mapping[str, Mapping[str, Sequence[float]]]
    comparisons: Sequence[Difference]
    margin: float | None = None

"""What a comparison of runs found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["ComparedRun", "Comparison", "Difference"]


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison; what comes after ``postprocessing`` are facts of the run (``RunFacts``).

    Attributes:
        run: name, as tables show it.
        mean: mean over labels of the mean over cases that all runs have a score for; NaN where it is undefined.
        interval: its 95 % interval over cases.
        scored_on: which cases, such as ``validation, fold 0``.
        checkpoint: name of the checkpoint; ``None`` where it is not recorded.
        postprocessing: ``raw`` or ``cleaned``.
    """

    run: str
    mean: float
    interval: tuple[float, float]
    scored_on: str
    checkpoint: str | None
    postprocessing: str
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
    """Run minus baseline for one label, or for the ``mean`` over labels (``PairedComparison``).

    Attributes:
        p_holm: p-value after Holm's correction over all rows of the comparison.
    """

    baseline: str
    run: str
    label: str
    cases: int
    mean_difference: float
    interval: tuple[float, float]
    p_value: float
    effect_size: float
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """Runs that were scored on the same cases, each set against the first.

    Attributes:
        score: score that is compared, such as ``dice``.
        cases: ids of the cases.
        labels: labels or regions.
        warnings: sentences on what makes the comparison less fair.
        runs: the runs, the baseline first.
        scores: run -> label, or ``mean`` over labels -> score per case; NaN where it is undefined.
        comparisons: a row per pair and label, and one per pair of the difference of the runs' means; the test of the
            latter is of each case's mean over labels.
    """

    score: str
    cases: Sequence[str]
    labels: Sequence[str]
    warnings: Sequence[str]
    runs: Sequence[ComparedRun]
    scores: Mapping[str, Mapping[str, Sequence[float]]]
    comparisons: Sequence[Difference]

"""What a study found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medseg.metrics.ranking import AverageRanks, RankStability

__all__ = ["Costs", "StudiedData", "StudiedExternal", "StudiedMethod", "StudyDifference", "StudyResult"]


@dataclass(frozen=True)
class Costs:
    """Means over a method's trainings on one data set; ``None`` where one of them does not record it.

    Attributes:
        trainings: number of trainings.
        iterations: number of batches.
        training_seconds, cpu_seconds: time of a training, by the wall's clock and the CPU's.
        training_peak_bytes: largest memory of a training.
        energy_joules: energy of the machine's processors meanwhile.
        parameters: number of parameters.
        multiply_adds_per_case, seconds_per_case, peak_memory_bytes: cost of the inference of a case.
    """

    trainings: int
    iterations: float | None = None
    training_seconds: float | None = None
    cpu_seconds: float | None = None
    training_peak_bytes: float | None = None
    energy_joules: float | None = None
    parameters: float | None = None
    multiply_adds_per_case: float | None = None
    seconds_per_case: float | None = None
    peak_memory_bytes: float | None = None


@dataclass(frozen=True)
class StudiedMethod:
    """One method on one data set.

    Attributes:
        name: name of the method.
        mean: mean score.
        interval: its 95 % interval; over subjects, and over trainings where there are several seeds.
        seed_sd: standard deviation of the seeds' means; ``None`` of one seed.
        labels: label -> mean score.
        failures: number of cases without a prediction.
        learning_rates: rates that its trainings took.
        costs: costs.
    """

    name: str
    mean: float
    interval: tuple[float, float]
    seed_sd: float | None
    labels: Mapping[str, float]
    failures: int
    learning_rates: Sequence[float]
    costs: Costs


@dataclass(frozen=True)
class StudyDifference:
    """A method minus the baseline: mean difference, its 95 % interval, p-value and p-value after Holm's correction."""

    method: str
    mean: float
    interval: tuple[float, float]
    p_value: float
    p_holm: float


@dataclass(frozen=True)
class StudiedData:
    """All methods on one data set.

    Attributes:
        name: name of the data.
        cases, subjects: their numbers.
        seeds: number of seeds.
        folds: number of folds.
        transfer: name of the data that was trained on before; ``None`` from scratch.
        methods: the methods, the baseline first.
        differences: differences of each other method to the baseline.
        stability: ranks in bootstrap samples of subjects.
        average: average ranks and their critical difference; ``None`` of two methods.
        warnings: sentences on what makes the comparison less fair.
    """

    name: str
    cases: int
    subjects: int
    seeds: int
    folds: int
    transfer: str | None
    methods: Sequence[StudiedMethod]
    differences: Sequence[StudyDifference]
    stability: RankStability
    average: AverageRanks | None
    warnings: Sequence[str]


@dataclass(frozen=True)
class StudiedExternal:
    """Scores of the methods on an external set.

    Attributes:
        name: name of the set.
        trained_on: name of the data of the trainings.
        cases: number of cases.
        means: method -> mean over its trainings.
        sds: method -> standard deviation over its trainings; NaN of one.
        trainings: number of trainings of each method.
        biases: sentences on why scores are better than those of new cases.
    """

    name: str
    trained_on: str
    cases: int
    means: Mapping[str, float]
    sds: Mapping[str, float]
    trainings: int
    biases: Sequence[str] = ()


@dataclass(frozen=True)
class StudyResult:
    """A study's result.

    Attributes:
        score: score that is compared, such as ``dice``.
        data: what was found on each data set.
        external: what was found on each external set.
        methods: the Methods paragraph, in sentences.
        missing: members that are not done, with the reason where one is known.
    """

    score: str
    data: Sequence[StudiedData]
    external: Sequence[StudiedExternal]
    methods: Sequence[str]
    missing: Sequence[str]

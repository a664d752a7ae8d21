"""What the members of a study found: pooled over folds, compared, ranked, with what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from medseg.engines.run_facts import RunFacts, read_facts
from medseg.errors import ConfigError, few
from medseg.metrics import Scores
from medseg.metrics.estimate import less_is_better
from medseg.metrics.families import holm
from medseg.metrics.ranking import average_ranks, rank_stability
from medseg.metrics.subjects import subject_sums
from medseg.reports.compared import ComparedRun, Comparison, Difference
from medseg.reports.studied import (
    Costs,
    StudiedData,
    StudiedExternal,
    StudiedMethod,
    StudyDifference,
    StudyResult,
)
from medseg.reports.study_methods import methods_paragraph
from medseg.storage import read_yaml
from medseg.workflows.comparable import EFFORT
from medseg.workflows.compare import CompareSettings, compare
from medseg.workflows.folds import pool_folds
from medseg.workflows.same_settings import SettingsHeld
from medseg.workflows.study_file import ExternalSet, Study, StudyData
from medseg.workflows.study_members import Member, inequalities

__all__ = ["summarize_study"]

_LONG = 60  # characters of a value that a warning shows


def summarize_study(
    study: Study, members: Sequence[Member], root: Path, failed: Mapping[str, str] | None = None
) -> StudyResult:
    """The result of what is done. Data of which a member is missing are left for the next call.

    Raises:
        ConfigError: nothing can be compared yet, or a member was trained with other settings than the study has.
    """
    held = {member.name: member.held() for member in members}
    done = {member.name for member in members if member.is_done()}
    missing = [member.name for member in members if member.name not in done]
    own = {data.name: [m for m in members if m.data == data and m.rate is None] for data in study.data}
    complete = [data for data in study.data if all(member.name in done for member in own[data.name])]
    missing = [f"{name}: {failed[name]}" if failed and name in failed else name for name in missing]
    if not complete:
        raise ConfigError(
            f"No data set is complete: {len(missing)} of {len(members)} members are not done, such as {missing[0]}; "
            "expected all members of one. Rerun the same command to resume."
        )
    data = [_studied(study, data, own[data.name], root, _unknown(own[data.name], held)) for data in complete]
    external = [
        _external(one, [m for m in own[one.trained_on] if one in m.external])
        for one in study.external
        if any(data.name == one.trained_on for data in complete)
    ]
    trained = [member for one in complete for member in own[one.name]]
    return StudyResult(
        score=study.score,
        data=data,
        external=external,
        methods=methods_paragraph(
            {member.folder: member.network.name for member in trained}, _searched(study, trained)
        ),
        missing=missing,
    )


def _searched(study: Study, members: Sequence[Member]) -> str:
    """How the learning rate was searched, in a sentence; empty where it was not."""
    trials = members[0].trials
    if not trials:
        return ""
    facts = [read_facts(trial.folder) for member in members for trial in member.trials]
    numbers = [fact.iterations for fact in facts if fact.iterations]
    iterations = [str(number) for number in sorted({min(numbers), max(numbers)})]
    rates = ", ".join(f"{trial.rate:g}" for trial in trials)
    return (
        f"The learning rate of each network and fold was the best of {len(trials)} ({rates}) by the mean Dice of "
        f"held-out training cases ({len(facts[0].validation_cases or ())} of "
        f"{len(facts[0].validation_cases or ()) + len(facts[0].training_cases or ())} in the first fold), after "
        f"{' to '.join(iterations)} iterations each; validation cases of the fold took no part in it."
    )


def _unknown(members: Sequence[Member], held: Mapping[str, SettingsHeld]) -> list[str]:
    """What cannot be held against the study's file, in sentences."""
    found: dict[tuple[str, ...], list[str]] = {}
    for member in members:
        found.setdefault(held[member.name].unknown, []).append(member.name)
    return [
        f"{few(names)}: trained by an earlier version, which did not record {' and '.join(unknown)}; these are not "
        "compared with the study's file."
        for unknown, names in found.items()
        if unknown
    ]


def _studied(
    study: Study, data: StudyData, members: Sequence[Member], root: Path, unknown: Sequence[str]
) -> StudiedData:
    names = [network.name for network in study.networks]
    runs = [
        f"{name}={_pooled([m for m in members if m.network.name == name and m.seed == seed])}"
        for name in names
        for seed in study.seeds
    ]
    found = compare.of(CompareSettings(runs, root / "compared" / data.name, score=study.score))
    means = _by_subject(found)
    known = np.isfinite(means).all(axis=0)
    higher = not less_is_better(study.score)
    warnings = [*unknown, *_unequal(members), *(text for text in found.warnings if _counts(text, study))]
    rows = {row.run: row for row in found.comparisons if (row.score, row.label) == (study.score, "mean")}
    return StudiedData(
        name=data.name,
        cases=len(found.cases),
        subjects=len(set(found.subjects)),
        seeds=len(study.seeds),
        folds=len({member.fold for member in members}),
        transfer=data.transfer,
        methods=[_method(found, run, [m for m in members if m.network.name == run.run]) for run in found.runs],
        differences=_differences([rows[name] for name in names[1:]]),
        stability=rank_stability(means, higher_is_better=higher),
        average=average_ranks(means[:, known], higher_is_better=higher) if len(names) > 2 and known.any() else None,
        warnings=list(dict.fromkeys(warnings)),
    )


def _counts(warning: str, study: Study) -> bool:
    """Whether a warning of a comparison is one of a study, whose budget is equal by one measure on purpose."""
    measure = (
        "iterations" if study.budget.iterations else f"{'cpu' if study.budget.cpu_seconds else 'training'}_seconds"
    )
    others = [words for name, words in EFFORT.items() if name not in (measure, "validations")]
    return not any(f"not trained alike: {words} " in warning for words in others)


def _unequal(members: Sequence[Member]) -> list[str]:
    """What the methods do not share, in sentences."""
    found = []
    for member in members:
        for key, pair in inequalities(member, members).items():
            before, after = (text if len(text) <= _LONG else "other values" for text in map(repr, pair))
            found.append(f"{member.network.name} was trained with {key} {after}, the first method with {before}.")
    return found


def _pooled(members: Sequence[Member]) -> Path:
    """The folder of one method's and seed's scores, with the folds' cases pooled."""
    folders = [member.folder for member in members]
    if members[0].fold is None:
        return folders[0]
    pool_folds(folders[0].parent, folders, [Scores.read(folder) for folder in folders])
    return folders[0].parent


def _by_subject(found: Comparison) -> np.ndarray:
    """Mean over labels, seeds and a subject's cases, ``(methods, subjects)``; NaN where none has a score."""
    order = np.unique(np.asarray(found.subjects))
    rows = np.full((len(found.runs), len(order)), math.nan)
    for row, run in zip(rows, found.runs, strict=True):
        sums = subject_sums(np.array(found.scores[run.run]["mean"], dtype=float), found.subjects)
        row[np.searchsorted(order, sums.names)] = (sums.sums / sums.weights)[:, 0]
    return rows


def _method(found: Comparison, run: ComparedRun, members: Sequence[Member]) -> StudiedMethod:
    scores = [Scores.read(member.folder) for member in members]
    rates = {read_yaml(member.folder / "configs" / "train.yaml").get("learning_rate") for member in members}
    chance = run.trainings
    return StudiedMethod(
        name=run.run,
        mean=run.mean,
        interval=run.interval if chance is None else (chance.low, chance.high),
        seed_sd=None if chance is None else chance.seed_sd,
        labels={label: _finite_mean(found.scores[run.run][label]) for label in found.labels},
        failures=sum((one.asked or 0) - (one.scored or 0) for one in scores),
        learning_rates=sorted(rate for rate in rates if isinstance(rate, float)),
        costs=_costs([read_facts(member.folder) for member in members]),
    )


def _finite_mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return fmean(known) if known else math.nan


def _costs(facts: Sequence[RunFacts]) -> Costs:
    found: dict[str, Any] = {"trainings": len(facts)}
    for one in fields(Costs):
        values = [value for fact in facts if (value := getattr(fact, one.name, None)) is not None]
        if len(values) == len(facts):
            found[one.name] = fmean(values)
    return Costs(**found)


def _differences(rows: Sequence[Difference]) -> list[StudyDifference]:
    """Of each method to the baseline, over new trainings too where there are several seeds."""
    found = []
    for row in rows:
        chance = row.trainings
        interval, p_value = (
            (row.interval, row.p_value) if chance is None else ((chance.low, chance.high), chance.p_value)
        )
        found.append((row.run, row.mean_difference, interval, p_value))
    adjusted = holm([row[3] for row in found])
    return [StudyDifference(*row, p_holm=p_value) for row, p_value in zip(found, adjusted, strict=True)]


def _external(one: ExternalSet, members: Sequence[Member]) -> StudiedExternal:
    scores: dict[str, list[Scores]] = {}
    for member in members:
        scores.setdefault(member.network.name, []).append(
            Scores.read(member.folder / "scores" / f"external_{one.name}")
        )
    facts = [(name, found.facts) for name, of_each in scores.items() for found in of_each]
    biases = [f"{name}: {text}" for name, noted in facts for text in noted.biases or ()]
    values = {name: [found.mean_dice for found in of_each] for name, of_each in scores.items()}
    return StudiedExternal(
        name=one.name,
        trained_on=one.trained_on,
        cases=len(next(iter(scores.values()))[0].cases),
        means={name: fmean(means) for name, means in values.items()},
        sds={name: stdev(means) if len(means) > 1 else math.nan for name, means in values.items()},
        trainings=len(next(iter(values.values()))),
        biases=list(dict.fromkeys(biases)),
    )

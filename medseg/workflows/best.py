"""The best of several configurations, or of pairs of them, and its post-processing, chosen on out-of-fold cases.

On the cases that chose it the winner's scores are optimistically biased: the more configurations, the more. So the
whole choice is repeated without each fold, and what is chosen there is scored on this fold (nested).
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cache, cached_property
from itertools import combinations
from pathlib import Path
from statistics import fmean
from urllib.parse import quote

import numpy as np

from medseg.bundle.folder import Bundle
from medseg.data.content import content_hash
from medseg.engines.run_facts import read_facts
from medseg.errors import ConfigError, DataError
from medseg.labels import LabelSpace
from medseg.metrics import NOT_RECORDED, CleanupRules, Scores
from medseg.metrics.estimate import estimate_table
from medseg.metrics.paired_difference import paired_difference
from medseg.metrics.single_score import ScoreInterval
from medseg.metrics.subjects import subject_sums
from medseg.settings import Folder, takes
from medseg.storage import write_json
from medseg.transforms import CleanRule
from medseg.version import __version__
from medseg.workflows.checkpoints import weights_of
from medseg.workflows.comparable import named_folders, read_scored, refuse_unlike, run_names, units
from medseg.workflows.ensemble import ensemble
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.folds import fold_runs, require_all_folds
from medseg.workflows.joined_runs import BEST
from medseg.workflows.members import Source, settings_hash, weights_hash
from medseg.workflows.out_of_fold import CleanedDice, Fold, RuleScores, pairs, raw_scores
from medseg.workflows.run_folder import refuse_run_folder, require_run, trained_on

__all__ = ["Best", "BestSettings", "Candidate", "FoldChoice", "best", "winner"]

logger = logging.getLogger("medseg")


@dataclass(frozen=True)
class BestSettings:
    """Which configurations are tried.

    Attributes:
        runs: folders of `medseg train --fold all`, validated, one per configuration: network, 2D or 3D, spacing.
            NAME=DIR names a configuration, and several runs of one name are its folds.
        output: folder for best.json, which `medseg infer --run` takes, and for the predictions of pairs.
        pairs: ensembles of two configurations are tried as well. They are predicted here, fold by fold; those of an
            earlier call with the same weights are kept.
        data_dir: folder of the images, where they were moved (default: as in training).
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
    """

    runs: Sequence[Folder] = field(metadata={"option": "run"})
    output: Folder
    _: KW_ONLY
    pairs: bool = field(default=True, metadata={"option": "no_pairs"})
    data_dir: Folder | None = None
    device: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A configuration, or a pair of them, on the out-of-fold cases.

    Attributes:
        name: its name, or two joined by ``+``.
        mean_dice: mean Dice of the raw predictions.
        difference: mean difference to the chosen one,
        interval: and its 95 % interval over subjects; NaN with fewer than six.
        seconds_per_case: time of inference of a case with one fold's networks; ``None`` where it is not recorded.
    """

    name: str
    mean_dice: float
    difference: float
    interval: tuple[float, float]
    seconds_per_case: float | None


@dataclass(frozen=True)
class FoldChoice:
    """What the cases of all other folds choose, and its score on this fold.

    Attributes:
        name: name of the candidate.
        rules: label -> its rule of post-processing, where it has one.
        mean_dice: mean Dice of the fold's cases.
    """

    name: str
    rules: CleanupRules
    mean_dice: float


@dataclass(frozen=True)
class Best:
    """The choice, as ``best.json`` has it.

    Attributes:
        name: name of the chosen candidate.
        members: run of every fold of its configurations, relative to the folder of ``best.json``.
        weights_sha256: SHA-256 of the weights of every run.
        rules: label -> its rule of post-processing, where it has one.
        cases, subjects: numbers of out-of-fold cases and of their subjects.
        mean_dice: its mean Dice with the rules on the cases that chose both: optimistically biased.
        nested: mean Dice of the nested choice, which is what new cases get, with its 95 % interval over subjects.
        folds: choice without the cases of each fold.
        candidates: all candidates, the best one first.
    """

    name: str
    members: Sequence[str]
    weights_sha256: Sequence[str]
    rules: CleanupRules
    cases: int
    subjects: int
    mean_dice: float
    nested: ScoreInterval
    folds: Sequence[FoldChoice]
    candidates: Sequence[Candidate]


@takes(BestSettings)
@writes_into("output")
def best(settings: BestSettings) -> Best:
    """Choose the best configuration or pair and its post-processing on out-of-fold cases, with an unbiased score.

    All configurations and all pairs of them are candidates, as in nnU-Net; of the one with the highest mean Dice the
    rules of `medseg postprocess` are chosen. The same choice without the cases of each fold, scored on that fold, gives
    the nested score. Writes ``best.json``, by which ``medseg infer --run`` joins the networks of all folds and cleans
    their label maps.

    Raises:
        ConfigError: fewer than two configurations, one without folds, copies, or runs that cannot be joined.
        DataError: a fold is not validated, or has other cases, labels or definitions of scores than the same fold of
            the first configuration; a case or a subject is trained on in the fold that is to hold it out.
    """
    output = Path(settings.output).resolve()
    refuse_run_folder(output)
    singles = _configurations(settings.runs)
    subjects = _subjects(singles)
    both = combinations(singles, 2) if settings.pairs else ()
    tried = [*singles, *(_pair(first, second, output / "pairs", settings) for first, second in both)]
    space = LabelSpace.from_table(Bundle(singles[0].folds[0].run).trained["labels"])

    @cache
    def rule_scores(one: _Configuration) -> RuleScores:
        return RuleScores.of(pairs(one.folds, space, settings.data_dir), space)

    def choose(without: int | None = None) -> tuple[_Configuration, dict[str, CleanRule]]:
        kept = [place for place in range(len(subjects)) if place != without]
        one = tried[winner([one.dice(kept) for one in tried], [name for place in kept for name in subjects[place]])]
        return one, rule_scores(one).rules(without)

    def cleaned(one: _Configuration, rules: dict[str, CleanRule], places: Sequence[int]) -> CleanedDice:
        folds = [one.folds[place] for place in places]
        return CleanedDice.of(pairs(folds, space, settings.data_dir), [rules] * len(folds), space)

    places = range(len(subjects))
    chosen, rules = choose()
    without = [choose(place) for place in places]
    held_out = [cleaned(*choice, [place]) for place, choice in enumerate(without)]
    pooled, units = np.concatenate([dice.cleaned for dice in held_out]), [s for dice in held_out for s in dice.subjects]
    biased = cleaned(chosen, rules, places)
    members = [run for runs in chosen.runs for run in runs]
    found = Best(
        name=chosen.name,
        members=[os.path.relpath(run, output) for run in members],
        weights_sha256=[content_hash(weights_of(run, "best")) for run in members],
        rules=_table(rules),
        cases=len(units),
        subjects=len(set(units)),
        mean_dice=subject_sums(biased.cleaned, biased.subjects).mean,
        nested=estimate_table(pooled, pooled, units, "dice").score,
        folds=[
            FoldChoice(one.name, _table(of_fold), subject_sums(dice.cleaned, dice.subjects).mean)
            for (one, of_fold), dice in zip(without, held_out, strict=True)
        ],
        candidates=_candidates(tried, chosen, [name for of_fold in subjects for name in of_fold]),
    )
    write_json(output / BEST, found)
    return found


def winner(tables: Sequence[np.ndarray], subjects: Sequence[str]) -> int:
    """The place of the highest mean over labels of the mean over cases; of equal ones the first.

    Args:
        tables: per candidate its Dice ``(cases, labels)``; NaN where it is undefined.
        subjects: subject of each case.

    Raises:
        DataError: no case has a score.
    """
    means = [subject_sums(table, subjects).mean for table in tables]
    if any(math.isnan(mean) for mean in means):
        raise DataError("No out-of-fold case has a reference, so nothing can be chosen; expected labelled cases.")
    return means.index(max(means))


@dataclass(frozen=True)
class _Configuration:
    """A configuration, or a pair of them.

    Attributes:
        name: shown in tables.
        runs: runs whose networks are joined, per fold.
        folds: scored predictions of each fold's cases.
    """

    name: str
    runs: tuple[tuple[Path, ...], ...]
    folds: tuple[Fold, ...]

    @cached_property
    def scores(self) -> Sequence[Scores]:
        """Of each fold."""
        return [raw_scores(fold) for fold in self.folds]

    def dice(self, places: Iterable[int]) -> np.ndarray:
        """``(cases, labels)`` of these folds; of each the cases in the order of their ids."""
        of_each = [self.scores[place] for place in places]
        return np.concatenate([scores.table()[np.argsort(list(scores.cases))] for scores in of_each])


def _configurations(given: Sequence[Folder]) -> list[_Configuration]:
    """The configurations in the order in which they are first named."""
    folders = named_folders(given)
    found: dict[str, list[Path]] = {}
    for (name, folder), shown in zip(folders, run_names([folder for _, folder in folders]), strict=True):
        folds = fold_runs(folder)
        if folds:
            require_all_folds(folder, folds)
        found.setdefault(name or shown, []).extend(folds or [require_run(folder).root])
    if len(found) < 2:
        raise ConfigError(
            f"There is one configuration, {next(iter(found))}; expected two or more to choose from. Name another with "
            "--run, or use `medseg postprocess` for one."
        )
    for name, runs in found.items():
        if len(runs) < 2:
            raise ConfigError(
                f"{name} has one fold, {runs[0]}; expected all folds of a cross-validation, whose cases are held out "
                f"of one each. Train them with `medseg train --fold all`, or name them {name}=DIR each."
            )
    number = {name: len(runs) for name, runs in found.items()}
    if len(set(number.values())) > 1:
        shown = ", ".join(f"{name}: {count}" for name, count in number.items())
        raise ConfigError(f"The configurations have different numbers of folds ({shown}); expected the same folds.")
    return [
        _Configuration(name, tuple((run,) for run in runs), tuple(Fold(run, run) for run in runs))
        for name, runs in found.items()
    ]


def _subjects(singles: Sequence[_Configuration]) -> list[list[str]]:
    """Of each fold the subjects of its cases in the order of their ids.

    Raises:
        ConfigError: a fold of one configuration is a copy of another's.
        DataError: the folds are not validated alike, or a subject is trained on where it is validated.
    """
    for one in singles:
        for (run,), scores in zip(one.runs, one.scores, strict=True):
            seen = trained_on(read_facts(run), scores.facts.files_sha256 or dict.fromkeys(scores.cases, ()))
            if seen:
                raise DataError(
                    f"{run} was trained on {len(seen)} of the {len(scores.cases)} cases that it is to hold out, such "
                    f"as {min(seen)}, itself or by the weights that it started from; expected none. Make the folds "
                    "again with `medseg datalist`, or start from weights that have not seen these cases."
                )
    found = []
    for place in range(len(singles[0].folds)):
        _refuse_copies([one.folds[place].run for one in singles], [one.scores[place] for one in singles])
        runs = read_scored([one.folds[place].run for one in singles])
        refuse_unlike(runs, "dice")
        found.append(units(runs, sorted(runs[0].cases)))
    of_fold: dict[str, int] = {}
    for place, subjects in enumerate(found):
        for subject in subjects:
            if of_fold.setdefault(subject, place) != place:
                raise DataError(
                    f"Subject {subject} is in two folds, {singles[0].folds[of_fold[subject]].run} and "
                    f"{singles[0].folds[place].run}: its scores would be optimistically biased. Make the folds again, "
                    "grouped by subject, with `medseg datalist --subject_pattern`."
                )
    return found


def _refuse_copies(runs: Sequence[Path], scores: Sequence[Scores]) -> None:
    """A copy would be a candidate of its own, and its pair an ensemble of one network twice.

    Raises:
        ConfigError: two runs have the same weights and settings.
    """
    known: dict[tuple[str | None, str | None], Path] = {}
    for run, one in zip(runs, scores, strict=True):
        same = known.setdefault((one.facts.weights_sha256, one.facts.settings_sha256), run)
        if same != run and one.facts.weights_sha256 is not None:
            raise ConfigError(
                f"{run} has the weights and settings of {same}: it is a copy, not a configuration of its own. Leave "
                "one of them out."
            )


def _pair(first: _Configuration, second: _Configuration, root: Path, settings: BestSettings) -> _Configuration:
    """The ensemble of two, whose out-of-fold predictions are made where they are not kept."""
    name = f"{first.name} + {second.name}"
    folder = root / " + ".join(quote(one.name, safe=" ") for one in (first, second))
    folds, runs = [], []
    for place, (one, other) in enumerate(zip(first.folds, second.folds, strict=True)):
        runs.append((one.run, other.run))
        folds.append(Fold(one.run, folder / f"fold{place}"))
        if not _is_kept(folds[-1].scored, runs[-1], first.scores[place]):
            logger.info("%s, fold %d of %d", name, place, len(first.folds))
            scored = first.scores[place].definition.empty
            empty = "reference_only" if scored == NOT_RECORDED else scored  # the rule of versions that recorded none
            ensemble(
                runs[-1],
                folds[-1].scored,
                data_dir=settings.data_dir,
                device=settings.device,
                postprocess=False,
                empty=empty,
            )
    return _Configuration(name, tuple(runs), tuple(folds))


def _is_kept(folder: Path, runs: Sequence[Path], own: Scores) -> bool:
    """Whether an earlier call made the same: of these weights, settings and files, by this version."""
    kept = Scores.found(folder)
    if kept is None or kept.asked != kept.scored or kept.facts.medseg != __version__:
        return False
    if kept.definition.differences(own.definition):
        return False
    sources = [Source(Bundle(run), weights_of(run, "best")) for run in runs]
    facts = kept.facts
    made = (facts.weights_sha256, facts.settings_sha256, facts.files_sha256)
    return made == (weights_hash(sources), settings_hash(sources), own.facts.files_sha256)


def _candidates(
    tried: Sequence[_Configuration], chosen: _Configuration, subjects: Sequence[str]
) -> Sequence[Candidate]:
    """The best first."""
    places, found = range(len(chosen.folds)), []
    for one in tried:
        against = paired_difference(chosen.dice(places), one.dice(places), subjects)
        seconds = [time for fold in one.folds if (time := read_facts(fold.scored).seconds_per_case) is not None]
        found.append(
            Candidate(
                name=one.name,
                mean_dice=subject_sums(one.dice(places), subjects).mean,
                difference=against.mean,
                interval=(against.low, against.high),
                seconds_per_case=fmean(seconds) if len(seconds) == len(one.folds) else None,
            )
        )
    return sorted(found, key=lambda one: one.mean_dice, reverse=True)


def _table(rules: Mapping[str, CleanRule]) -> CleanupRules:
    return {label: rule.to_table() for label, rule in rules.items()}

"""Like with like: whether the scores of runs may be set against each other, and what else tells the runs apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medseg.bundle.folder import Bundle
from medseg.engines.run_facts import RunFacts, read_facts
from medseg.engines.run_files import is_outdated, scored_weights
from medseg.errors import ConfigError, DataError
from medseg.labels import LabelSpace
from medseg.metrics import NOT_RECORDED, ScoreDefinition, Scores, target_values
from medseg.workflows.nnunet_results import nnunet_scores
from medseg.workflows.run_folder import trained_on
from medseg.workflows.selection import own_role

__all__ = [
    "EFFORT",
    "Method",
    "ScoredRun",
    "differing",
    "methods",
    "named_folders",
    "read_scored",
    "refuse_unlike",
    "run_names",
    "uneven_effort",
    "units",
]

# Facts of a training -> what they are called; those of the run's config come after.
EFFORT = {
    "iterations": "iterations",
    "epochs_done": "epochs",
    "validations": "validations",
    "training_seconds": "training time",
    "cpu_seconds": "CPU time of training",
}
_TOLERANCE = {"training_seconds": 0.1, "cpu_seconds": 0.1}  # two trainings never take the same time
_SHOWN = 5


@dataclass(frozen=True)
class ScoredRun:
    """A run's scores with what they mean.

    Attributes:
        name: shown in tables.
        folder: folder of the scores.
        scores: the scores.
        facts: facts of the run that was scored.
        role: role of the cases (``medseg.workflows.selection.ROLES``).
        checkpoint: name of the weights; ``last`` where no cases chose them.
    """

    name: str
    folder: Path
    scores: Scores
    facts: RunFacts
    role: str
    checkpoint: str | None

    @property
    def definition(self) -> ScoreDefinition:
        """What the scores mean."""
        return self.scores.definition

    @property
    def cases(self) -> set[str]:
        """Ids of the scored cases."""
        return set(self.scores.cases)

    @property
    def scored_on(self) -> str:
        """Such as ``validation, fold 0``."""
        section, fold = self.scores.facts.section, self.scores.facts.fold
        shown = f"{self.role} ({section})" if section and section != self.role else self.role
        return shown if fold is None else f"{shown}, fold {fold}"


@dataclass(frozen=True)
class Method:
    """One or more trainings of a method, whose scores are averaged in each case."""

    name: str
    runs: tuple[ScoredRun, ...]


def methods(given: Sequence[str | Path]) -> list[Method]:
    """The methods in the order in which they are first named, with the scores of their runs.

    Args:
        given: folders as of ``read_scored``, or ``NAME=FOLDER``; those of one name are trainings of one method.

    Raises:
        ConfigError: a folder is given twice.
        DataError: a folder has no scores of single cases.
    """
    folders = named_folders(given)
    runs = read_scored([folder for _, folder in folders])
    found: dict[str, list[ScoredRun]] = {}
    for (name, _), run in zip(folders, runs, strict=True):
        found.setdefault(name or run.name, []).append(run)
    return [Method(name, tuple(of_name)) for name, of_name in found.items()]


def named_folders(given: Sequence[str | Path]) -> list[tuple[str, Path]]:
    """``NAME=FOLDER`` or ``FOLDER`` -> name, empty where there is none, and folder.

    Raises:
        ConfigError: a folder is given twice.
    """
    texts = [str(text) for text in given]
    parts = [text.partition("=")[::2] if "=" in text and not Path(text).is_dir() else ("", text) for text in texts]
    found = [(name, Path(folder).expanduser().resolve()) for name, folder in parts]
    folders = [folder for _, folder in found]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is given twice; name each folder once.")
    return found


def read_scored(folders: Sequence[Path]) -> list[ScoredRun]:
    """The scores in folders: runs, ensembles, ``scores/<section>`` of a run, evaluations of label maps, or nnU-Net's.

    Raises:
        DataError: a folder has no scores of single cases.
    """
    return [_read(folder, name) for folder, name in zip(folders, run_names(folders), strict=True)]


def units(runs: Sequence[ScoredRun], cases: Sequence[str]) -> list[str]:
    """The subject of each case, by what any of the runs records; the case itself where none does.

    Raises:
        DataError: two runs name different subjects of a case.
    """
    known: dict[str, str] = {}
    for run in runs:
        for case, subject in (run.scores.facts.subjects or {}).items():
            if known.setdefault(case, subject) != subject:
                raise DataError(
                    f"{run.name} has {case} as of subject {subject}, another run as of {known[case]}; run `medseg "
                    "validate` again on both with one datalist."
                )
    return [known.get(case, case) for case in cases]


def _read(folder: Path, name: str) -> ScoredRun:
    scores = Scores.found(folder) or nnunet_scores(folder)
    if scores is None:
        if (folder / "folds.json").is_file():
            raise DataError(
                f"{folder} has a score per fold on the same cases, not one; compare {folder.name} of single folds, or "
                "join the folds with `medseg ensemble`."
            )
        raise DataError(f"{folder} has no metrics.json; run `medseg validate --run {folder}` first.")
    run = next((place for place in (folder, *list(folder.parents)[:2]) if (place / "run.json").is_file()), folder)
    bundle = Bundle(folder)
    if scores.definition.targets == NOT_RECORDED and bundle.has("train"):  # of an earlier version
        space = LabelSpace.from_table(bundle.trained["labels"])
        if "" in space.fragments:
            scores = replace(scores, definition=replace(scores.definition, targets=target_values(space, [None])))
    role = scores.facts.role
    if role is None and (run / "configs" / "datalist.json").is_file():
        role = own_role(Bundle(run), list(scores.cases))
    facts, checkpoint = read_facts(run), scores.facts.checkpoint
    if checkpoint is not None:
        runs = [Path(member) for member in scores.facts.members or ()] or [run]
        kinds = {
            scored_weights(Bundle(one).trained, read_facts(one), checkpoint) for one in runs if Bundle(one).has("train")
        }
        checkpoint = " and ".join(sorted(kinds)) or checkpoint
    return ScoredRun(name, folder, scores, facts, role or NOT_RECORDED, checkpoint)


def run_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of their parents' as tell them apart."""
    deepest = max(len(folder.parts) for folder in folders)
    found = ([str(Path(*folder.parts[-depth:])) for folder in folders] for depth in range(1, deepest + 1))
    return next((names for names in found if len(set(names)) == len(names)), [str(folder) for folder in folders])


def refuse_unlike(runs: Sequence[ScoredRun], score: str) -> None:
    """Refuse runs whose scores mean different things, each held against the first.

    Raises:
        DataError: other cases, other files behind a case, other labels, or another definition of ``score``.
    """
    first = runs[0]
    for other in runs[1:]:
        _same_cases(first, other)
        if list(other.scores.labels) != list(first.scores.labels):
            raise DataError(
                f"{other.name} and {first.name} have different labels ({', '.join(other.scores.labels)} against "
                f"{', '.join(first.scores.labels)}); compare runs of one label table."
            )
        if other.scores.named(score) != first.scores.named(score):
            raise DataError(
                f"The definition of {score} differs: {first.scores.named(score)} in {first.name}, "
                f"{other.scores.named(score)} in {other.name}. Compare like with like: {_remedy({})}"
            )
        differs = first.definition.differences(other.definition)
        if differs:
            raise DataError(
                "; ".join(
                    f"{words} differs: {_value(pair[0])} in {first.name}, {_value(pair[1])} in {other.name}"
                    for words, pair in differs.items()
                )
                + f". Compare like with like: {_remedy(differs)}"
            )


def _same_cases(first: ScoredRun, other: ScoredRun) -> None:
    if other.cases != first.cases:
        raise DataError(
            f"{first.name} ({first.scored_on}) and {other.name} ({other.scored_on}) were validated on different cases "
            f"({len(first.cases - other.cases)} only in the first, {len(other.cases - first.cases)} only in the "
            "second); validate both on the same fold."
        )
    files = [run.scores.facts.files_sha256 or {} for run in (first, other)]
    changed = sorted(case for case in files[0].keys() & files[1].keys() if files[0][case][-1:] != files[1][case][-1:])
    if changed:
        shown = ", ".join(changed[:_SHOWN]) + (", …" if len(changed) > _SHOWN else "")
        raise DataError(
            f"{first.name} and {other.name} were scored against other references in {len(changed)} cases ({shown}); "
            "run `medseg validate` again on both with one datalist."
        )


def _value(value: Any) -> str:
    return "the mean voxel size of each case" if value is None else str(value)


def _remedy(differs: Mapping[str, Any]) -> str:
    if "post-processing" in differs:
        return "run `medseg validate` again on both, with --no_postprocess for raw predictions."
    if "the label table" in differs:
        return "runs of one label table."
    return "run `medseg validate` again on both with the same --space, --tolerance and --overlay."


# ---------------------------------------------------------------------- what is shown
def differing(runs: Sequence[ScoredRun], score: str) -> list[str]:
    """What makes a comparison less fair, in sentences."""
    found = []
    cases = runs[0].cases
    for run in runs:
        scored = run.scores.facts
        seen = trained_on(run.facts, scored.files_sha256 or dict.fromkeys(cases, ()))
        if seen:
            found.append(f"{run.name} was trained on {len(seen)} of the {len(cases)} cases: the comparison is biased.")
        found += [f"{run.name}: {text}" for text in scored.biases or () if not seen or "trained on" not in text]
        if changed := scored.differs_from_training:
            found.append(f"{run.name} was scored with other settings than it was trained with: {', '.join(changed)}.")
        if asked := [id_ for id_ in scored.differs_from_default or () if id_ not in (changed or ())]:
            found.append(
                f"{run.name} was scored with other settings than inference has by default: {', '.join(asked)}."
            )
        if is_outdated(run.folder, run.scores):
            found.append(f"{run.name} no longer has the weights that were scored; run `medseg validate` again.")
        if run.facts.schedule_completed is False:
            found.append(f"The learning-rate schedule of {run.name} was cut before its end.")
    shown: dict[str, Callable[[ScoredRun], Any]] = {
        "Scores are of different roles, sections or folds": lambda run: run.scored_on,
        "Rules of post-processing differ": lambda run: _rules(run.definition),
        "Checkpoints differ": lambda run: run.checkpoint,
        "Times and memory were measured on different machines or threads": lambda run: run.facts.measured_on,
    }
    for words, value in shown.items():
        values = {run.name: value(run) for run in runs if value(run) not in (None, NOT_RECORDED)}
        if len(set(values.values())) > 1:
            found.append(f"{words} ({_listed(values)}).")
    facts = {run.name: run.facts for run in runs}
    for key in EFFORT:
        if uneven := uneven_effort("runs", facts, key, _TOLERANCE.get(key, 0.0)):
            found.append(uneven)
            if key == "validations" and any(run.checkpoint == "best" for run in runs):
                found.append(
                    "The best of more validations is better by chance alone: compare the final weights (`medseg "
                    "validate --checkpoint last`, or `medseg train --select final`)."
                )
    unknown = sorted({run.name for run in runs if NOT_RECORDED in vars(run.definition).values()})
    if unknown:
        found.append(
            f"The scores of {', '.join(unknown)} do not record all of their definition; run `medseg validate` again to "
            "record it."
        )
    return found


def uneven_effort(what: str, facts: Mapping[str, RunFacts], key: str, tolerance: float) -> str:
    """A sentence where trainings differ in a fact of ``EFFORT`` by more than this share; empty where they do not.

    Args:
        what: what the names are of, such as ``runs``.
        facts: name -> facts of the training.
    """
    numbers = {name: float(value) for name, one in facts.items() if (value := getattr(one, key)) is not None}
    if not numbers or max(numbers.values()) <= (1 + tolerance) * min(numbers.values()):
        return ""
    unit = " s" if key.endswith("seconds") else ""
    amounts = {name: f"{number:,.0f}{unit}".replace(",", " ") for name, number in numbers.items()}
    return f"The {what} were not trained alike: {EFFORT[key]} {_listed(amounts)}."


def _rules(definition: ScoreDefinition) -> str:
    return json.dumps(definition.cleanup, sort_keys=True)


def _listed(values: Mapping[str, Any]) -> str:
    """Equal values are named once, with their runs."""
    runs: dict[str, list[str]] = {}
    for name, value in values.items():
        runs.setdefault(str(value), []).append(name)
    return "; ".join(f"{', '.join(names)}: {value}" for value, names in runs.items())

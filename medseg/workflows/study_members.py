"""The members of a study: trainings and their scores, each told by settings of `medseg train` and `medseg validate`.

What is done is read from the members' folders and written down nowhere else.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

from medseg.bundle.folder import Bundle
from medseg.bundle.plan_layer import LIGHT
from medseg.data import Case, Datalist, read_datalist, write_datalist
from medseg.data.folds import make_folds
from medseg.engines.run_facts import read_facts
from medseg.errors import ConfigError
from medseg.metrics import Scores
from medseg.storage import read_json, read_yaml, write_json
from medseg.workflows.evaluation import EvaluateSettings
from medseg.workflows.run_folder import differences
from medseg.workflows.same_settings import SettingsHeld, hold_settings, refuse_other
from medseg.workflows.study_file import ExternalSet, Study, StudyData, StudyNetwork
from medseg.workflows.train_settings import TrainSettings

__all__ = ["Member", "command_line", "inequalities", "plan_members", "study_folds"]

# Ids of train.yaml by which two methods on the same cases may not differ.
_EQUAL: tuple[str, ...] = (
    "roi_size",
    "preprocess",
    "augment",
    "batch_size",
    "repeats",
    "accumulation_steps",
    "epochs",
    "val_interval",
)
_EQUAL += ("max_minutes", "clock", "num_validations", "schedule", "weight_decay", "clip_norm", "ema_decay", "loss")
_EQUAL += ("num_workers", "early_stop")
_CHOSEN = ("precision",)  # by the plan for each network and machine: equal where a method's own settings name it
_STEPS = 100  # iterations per epoch, at whose end a training saves its state, about


@dataclass(frozen=True)
class Member:
    """One training of a study, with the scores of its weights.

    Attributes:
        study: the study.
        root: folder of the study.
        network, data: method and data.
        fold: validation fold; ``None`` for the validation section.
        seed: random seed.
        rate: learning rate that it tries for the search; ``None`` outside of it.
        trials: members whose best learning rate it takes.
        source: member that it is fine-tuned from.
    """

    study: Study
    root: Path
    network: StudyNetwork
    data: StudyData
    fold: int | None
    seed: int
    rate: float | None = None
    trials: tuple[Member, ...] = ()
    source: Member | None = None

    @property
    def folder(self) -> Path:
        """Its run folder."""
        fold = () if self.fold is None else (f"fold{self.fold}",)
        part = ("runs",) if self.rate is None else ("search",)
        seed = f"seed{self.seed}" if self.rate is None else f"rate{self.rate:g}"
        return self.root.joinpath(*part, self.data.name, self.network.name, seed, *fold)

    @property
    def name(self) -> str:
        """Its folder in the study, which names it."""
        return self.folder.relative_to(self.root).as_posix()

    @property
    def needs(self) -> tuple[Member, ...]:
        """Members that must be done before."""
        return (*self.trials, *([] if self.source is None else [self.source]))

    @property
    def stage(self) -> int:
        """Members of one stage do not wait for each other."""
        return max((1 + member.stage for member in self.needs), default=0)

    @property
    def external(self) -> list[ExternalSet]:
        """The external sets that its weights are scored on."""
        mine = [one for one in self.study.external if one.trained_on == self.data.name and self.rate is None]
        return [one for one in mine if not one.folds or self.fold in one.folds]

    def is_trained(self) -> bool:
        """Whether its training is finished."""
        return read_facts(self.folder).status == "finished"

    def is_done(self) -> bool:
        """Whether it is trained and scored as the study asks."""
        return self.is_trained() and self._is_scored(self.folder) and all(map(self._is_scored_on, self.external))

    def held(self) -> SettingsHeld:
        """What the study says of its training, held against its run; nothing where it has none yet.

        Raises:
            ConfigError: the run was trained with other settings.
        """
        if not (self.folder / "configs" / "train.yaml").is_file():
            return SettingsHeld({})
        searched = all(trial.is_done() for trial in self.trials)
        held = hold_settings(self.training() if searched else replace(self, trials=()).training(), self.folder)
        changed = {key: pair for key, pair in held.changed.items() if searched or key != "learning_rate"}
        processes = read_facts(self.folder).processes or self.study.processes
        if processes != self.study.processes:
            changed["processes"] = (processes, self.study.processes)
        refuse_other(self.folder, changed)
        return held

    def _is_scored(self, folder: Path) -> bool:
        found = Scores.found(folder)
        return found is not None and found.asked == found.scored and found.facts.checkpoint == self.study.checkpoint

    def _is_scored_on(self, one: ExternalSet) -> bool:
        """Whether it is scored on an external set as this is defined now."""
        overlay, place = self._overlay(one), self.folder / _place(one)
        if not overlay.is_file() or read_json(overlay) != self._external_content(one) or not self._is_scored(place):
            return False
        datalist = read_datalist(one.json_list, one.data_dir)
        labelled = {case.id for cases in datalist.sections.values() for case in cases if case.label}
        scores = Scores.read(place)
        return scores.facts.datalist == str(Path(datalist.path).resolve()) and {*scores.cases} == labelled

    # ------------------------------------------------------------------ commands
    def training(self) -> TrainSettings:
        """What `medseg train` is told."""
        study, changes = self.study, dict(self.study.settings)
        changes |= {**self.data.settings, **self.network.settings}
        epochs, minutes, budget = self._budget()
        changes |= budget
        rate = self.rate if self.rate is not None else self._best_rate()
        changes |= {} if rate is None else {"learning_rate": rate}
        bundle = self.network.bundle
        return TrainSettings(
            output=self.folder,
            json_list=self._inner_list() if self.rate is not None else self.data.json_list,
            data_dir=self.data.data_dir,
            network=(self.network.network or self.network.name) if bundle is None else None,
            bundle=bundle,
            recipe=(self.network.recipe or study.recipe) if bundle is None else LIGHT,
            configuration=(self.network.configuration or study.configuration) if bundle is None else None,
            fold=0 if self.rate is not None else self.fold,
            epochs=epochs,
            max_minutes=minutes,
            device=study.device,
            seed=self.seed,
            overrides=changes,
            overlays=tuple(self.network.overlays),
            transfer=None if self.source is None else self.source.folder,
        )

    def _budget(self) -> tuple[int | None, float | None, dict[str, Any]]:
        """Epochs, minutes, and settings that make the budget equal for all."""
        study, share = self.study, self.study.search.share if self.rate is not None else 1.0
        if study.budget.iterations is None:
            seconds = share * (study.budget.seconds or 0.0)
            workers = {"num_workers": 0} if study.budget.clock == "cpu" else {}  # whose time would count at the end
            return None, seconds / 60, {"clock": study.budget.clock, "num_validations": study.validations} | workers
        iterations, parts = max(1, round(share * study.budget.iterations)), max(1, study.validations)
        epochs = parts * max(1, round(iterations / (_STEPS * parts)))
        length = max(1, round(iterations / epochs))
        changes = {"val_interval": epochs // parts if study.validations else epochs + 1}
        changes |= {"train::trainer::epoch_length": length}
        if self.network.bundle is None:
            changes |= {"lr_scheduler::steps": epochs * length}
        return epochs, None, changes

    def _best_rate(self) -> float | None:
        """The learning rate that the search chose; ``None`` without one."""
        scores = [(Scores.read(trial.folder).mean_dice, trial) for trial in self.trials]
        return max(scores, key=lambda pair: pair[0])[1].rate if scores else None

    def _inner_list(self) -> Path:
        """The datalist of a search: the fold's training cases, some of which choose; its validation cases are absent.

        It is written at the first call.

        Raises:
            ConfigError: there is one of another search.
        """
        path = self.root / "search" / self.data.name / f"fold{self.fold}.json"
        datalist = read_datalist(self.data.json_list, self.data.data_dir)
        cases = datalist.split(self.fold)[0]
        groups = [case.group for case in cases]
        if len(set(groups)) < 2:
            raise ConfigError(
                f"{self.name}: the fold has one training subject, and a search needs two, to hold one out. Leave "
                "the search out, or make fewer folds."
            )
        folds = [min(fold, 1) for fold in make_folds(groups, max(2, round(1 / self.study.search.holdout)))]
        if path.is_file():
            known = {case.id: case.fold for case in read_datalist(path).sections["training"]}
            if known != (asked := dict(zip([case.id for case in cases], folds, strict=True))):
                refuse_other(self.folder, {"search::holdout": (_held_out(known), _held_out(asked))})
            return path
        entries = [_entry(case, fold) for case, fold in zip(cases, folds, strict=True)]
        kept = {key: value for key, value in datalist.table.items() if key not in datalist.sections}
        kept = {key: value for key, value in kept.items() if key not in ("testing", "data_dir", "numTest")}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_datalist({**kept, "training": entries}, path)
        return path

    def scorings(self) -> list[EvaluateSettings]:
        """What `medseg validate` is told, once the member is trained: its own cases, then each external set."""
        common: dict[str, Any] = {"checkpoint": self.study.checkpoint, "device": self.study.device}
        found = [EvaluateSettings(self.folder, **common)]
        for one in self.external:
            datalist = read_datalist(one.json_list, one.data_dir)
            places = {"json_list": str(Path(datalist.path).resolve()), "dataset_dir": str(datalist.data_dir.resolve())}
            overlays = (f"external_{one.name}",)
            found.append(EvaluateSettings(self.folder, overrides=places, overlays=overlays, into=_place(one), **common))
        return found

    def write_overlays(self) -> None:
        """Write the overlays by which the run is scored on external sets."""
        for one in self.external:
            if not self._is_scored_on(one):  # else a stop before the next scoring leaves scores of another definition
                (self.folder / _place(one) / "metrics.json").unlink(missing_ok=True)
            write_json(self._overlay(one), self._external_content(one))

    def _overlay(self, one: ExternalSet) -> Path:
        return self.folder / "configs" / f"external_{one.name}.json"

    def _external_content(self, one: ExternalSet) -> dict[str, Any]:
        data = {"_target_": "medseg.workflows.labelled", "json_list": "@json_list", "dataset_dir": "@dataset_dir"}
        labels = {"background": 0, **one.labels}
        return {
            "labels": {**Bundle(self.folder).trained["labels"], "datasets": {one.name: {"labels": labels}}},
            "validate::dataset::data": {**data, "dataset": one.name},
        }


def _place(one: ExternalSet) -> str:
    return f"scores/external_{one.name}"


def _held_out(folds: Mapping[str, int | None]) -> list[str]:
    return [case for case, fold in folds.items() if fold == 0]


def _entry(case: Case, fold: int) -> dict[str, Any]:
    known = {key: value for key, value in case.to_dict().items() if key != "fold"}
    return known | {"fold": fold}


def study_folds(data: StudyData) -> list[int | None]:
    """The folds of these data that are trained; ``[None]`` where the list has a validation section in their place.

    Raises:
        ConfigError: a fold that the list lacks.
    """
    datalist: Datalist = read_datalist(data.json_list, data.data_dir)
    groups = {case.group for case in datalist.sections["training"]}
    known = datalist.folds() or list(range(min(5, len(groups))))
    if unknown := [fold for fold in data.folds if fold not in known]:
        raise ConfigError(f"data::{data.name}: {data.json_list} has no fold {unknown[0]}; it has {known}. Correct it.")
    if data.folds:
        return list(data.folds)
    return [None] if datalist.sections["validation"] and not datalist.folds() else list(known)


def plan_members(study: Study, root: Path) -> list[Member]:
    """All members, in an order in which each comes after those that it needs.

    The first fold and seed of all methods come first: what is not equal is found early.
    """
    found: list[Member] = []
    first: dict[tuple[str, str, int], Member] = {}
    of_data = {data.name: study_folds(data) for data in study.data}
    for one in study.external:
        if unknown := [fold for fold in one.folds if fold not in of_data[one.trained_on]]:
            raise ConfigError(
                f"external::{one.name}: fold {unknown[0]} of {one.trained_on} is not trained; these are: "
                f"{', '.join(map(str, of_data[one.trained_on]))}. Correct it."
            )
    for data in _sources_first(study.data):
        for fold in of_data[data.name]:
            for seed in study.seeds:
                for network in study.networks:
                    trials = tuple(
                        Member(study, root, network, data, fold, study.seeds[0], rate)
                        for rate in study.search.learning_rates
                    )
                    found += trials if seed == study.seeds[0] else ()
                    source = first.get((data.transfer or "", network.name, seed))
                    member = Member(study, root, network, data, fold, seed, None, trials, source)
                    first.setdefault((data.name, network.name, seed), member)
                    found.append(member)
    return sorted(found, key=lambda member: member.stage)


def _sources_first(data: Sequence[StudyData]) -> Iterator[StudyData]:
    left = list(data)
    while left:
        waiting = {one.name for one in left}
        ready = next(one for one in left if one.transfer not in waiting)
        left.remove(ready)
        yield ready


def inequalities(member: Member, others: Sequence[Member]) -> dict[str, tuple[Any, Any]]:
    """Ids in which a trained member differs from the first of others on the same cases -> both values.

    Networks are told apart by their own ids, and a searched learning rate is part of the method.
    """
    peers = [one for one in others if (one.data, one.fold) == (member.data, member.fold) and one.rate is None]
    peer = next((one for one in peers if one.network != member.network and _config(one)), None)
    if peer is None or member.rate is not None or not _config(member):
        return {}
    own, other = _config(member), _config(peer)
    names = [*_EQUAL, *(name for name in _CHOSEN if name in {**member.network.settings, **peer.network.settings})]
    return {key: pair for name in names for key, pair in differences(other.get(name), own.get(name), name).items()}


def _config(member: Member) -> Mapping[str, Any]:
    path = member.folder / "configs" / "train.yaml"
    return read_yaml(path) if path.is_file() else {}


def command_line(command: str, settings: Any) -> list[str]:
    """The words of a command that does what ``settings`` say."""
    words = [command]
    for one in fields(settings):
        value, option = getattr(settings, one.name), one.metadata.get("option", one.name)
        default = one.default if one.default_factory is MISSING else one.default_factory()
        if value == default or value is None or option is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}")
        elif isinstance(value, Mapping):
            words += [word for key, item in value.items() for word in (f"--{option}", f"{key}={json.dumps(item)}")]
        elif isinstance(value, (list, tuple)):
            words += [word for item in value for word in (f"--{option}", str(item))]
        else:
            words += [f"--{option}", str(value)]
    return words


def shown(command: str, settings: Any) -> str:
    """The command as one would type it."""
    return shlex.join(["medseg", *command_line(command, settings)])

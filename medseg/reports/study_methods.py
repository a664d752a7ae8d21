"""The Methods paragraph of a study: what its runs stored of what was applied, in sentences.

Nothing is taken from the study's own file; what differs between runs is said with the networks that it is of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from medseg.data.run_settings import settings_of, shown
from medseg.engines.run_facts import RunFacts, read_facts
from medseg.engines.run_files import scored_weights
from medseg.metrics import Scores
from medseg.metrics.catalog import metric
from medseg.metrics.empty import rule_words
from medseg.networks import network_name
from medseg.storage import read_yaml

__all__ = ["methods_paragraph"]

_Value = TypeVar("_Value")
_MIRRORED, _HEADS = "validate::inferer::mirror_axes", "network_def::deep_supervision"
_MOST = 4  # values of one setting that are listed


@dataclass(frozen=True)
class _Run:
    """What a run stored: name of its method, network class, values of its settings in words, steps of augmentation,
    facts, scores, checkpoint that was scored.
    """

    method: str
    network: str
    values: Mapping[str, str]
    steps: tuple[str, ...]
    facts: RunFacts
    scores: Scores
    checkpoint: str
    minutes: float | None
    transfer: str


def methods_paragraph(methods: Mapping[Path, str], search: str = "") -> list[str]:
    """The sentences.

    Args:
        methods: run folder of each training -> name of its method.
        search: sentence on how the learning rate was chosen.
    """
    runs = [_read(folder, method) for folder, method in methods.items()]
    facts = [run.facts for run in runs]
    sentences = [_what(runs), _data(runs), _patches(runs), _augmentation(runs), _optimisation(runs), search]
    sentences += [_budget(runs), _selection(runs), _scores(runs), _machine(facts)]
    return [sentence for sentence in sentences if sentence]


def _read(folder: Path, method: str) -> _Run:
    config = read_yaml(folder / "configs" / "train.yaml")
    found = settings_of(config)
    values = {setting.id.replace("network_def::network::", "network_def::"): setting.value for setting in found}
    overlay = folder / "configs" / "evaluate.yaml"  # over which the run was scored
    if overlay.is_file() and (axes := read_yaml(overlay).get(_MIRRORED)) is not None:
        values[_MIRRORED] = shown(axes)
    steps = tuple(s.value for s in found if s.name.startswith("augmentation"))
    name = network_name(config.get("network_def", {}))
    initial = config.get("initial")
    source = initial.get("path") if isinstance(initial, Mapping) else None
    minutes = config.get("max_minutes")
    facts, scores = read_facts(folder), Scores.read(folder)
    checkpoint = scored_weights(config, facts, scores.facts.checkpoint or "not recorded")
    return _Run(method, name, values, steps, facts, scores, checkpoint, minutes, str(source or ""))


def _said(runs: Sequence[_Run], id_: str, unit: str = "") -> str:
    """A value that all share, or the values with the methods that have them."""
    methods = _owners(runs, [run.values.get(id_, "") or "none" for run in runs])
    if len(methods) == 1:
        return f"{next(iter(methods))}{unit}"
    if all(set(owners) == set(next(iter(methods.values()))) for owners in methods.values()):
        shown = list(methods)[:_MOST]
        return f"{'; '.join(shown)}{'; …' if len(methods) > _MOST else ''}{unit} (by data and fold)"
    return "; ".join(f"{value}{unit} ({names})" for value, names in _named(methods).items())


def _named(owners: Mapping[_Value, list[str]]) -> dict[_Value, str]:
    """The methods of each value in words; those of the most common one come last where they are many."""
    most = max(owners, key=lambda value: len(owners[value]))
    named = {value: ", ".join(methods) for value, methods in owners.items() if value != most}
    return {**named, most: "the others" if len(owners[most]) > _MOST else ", ".join(owners[most])}


def _owners(runs: Sequence[_Run], values: Sequence[_Value]) -> dict[_Value, list[str]]:
    """Each value and the methods that have it, in the order of the runs."""
    found: dict[_Value, dict[str, None]] = {}
    for run, value in zip(runs, values, strict=True):
        found.setdefault(value, {})[run.method] = None
    return {value: list(methods) for value, methods in found.items()}


def _spread(values: Sequence[float | int | None], unit: str = "") -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return "a number that is not recorded of"
    low, high = (f"{value:,.0f}".replace(",", " ") for value in (known[0], known[-1]))
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _what(runs: Sequence[_Run]) -> str:
    sizes: dict[str, list[int]] = {}
    for run in runs:
        known = "" if run.method == run.network else f"{run.network}, "
        sizes.setdefault(f"{run.method} ({known}", []).append(run.facts.parameters or 0)
    named = ", ".join(f"{name}{_millions(known)} M parameters)" for name, known in sizes.items())
    seeds = len({run.facts.seed for run in runs})
    tuned = sum(bool(run.transfer) for run in runs)
    started = f", {tuned} of them from the weights of another training of the study" if tuned else ", from scratch"
    return (
        f"We trained {named} in {_count(len(runs), 'training', 'trainings')} with {_count(seeds, 'seed', 'seeds')}"
        f"{started}."
    )


def _millions(sizes: Sequence[int]) -> str:
    low, high = min(sizes) / 1e6, max(sizes) / 1e6
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"


def _data(runs: Sequence[_Run]) -> str:
    training = _spread([len(run.facts.training_cases or ()) for run in runs])
    validation = _spread([len(run.scores.cases) for run in runs])
    return (
        f"Each was trained on {training} cases and scored on {validation} others. Images were resampled to "
        f"{_said(runs, 'preprocess::spacing')} and normalised by {_said(runs, 'preprocess::normalization')}."
    )


def _patches(runs: Sequence[_Run]) -> str:
    processes = [run.facts.processes or 1 for run in runs]
    mirrored = any(run.values.get(_MIRRORED) not in (None, "", "none") for run in runs)
    each = f" in each of {_spread(processes)} processes" if max(processes) > 1 else ""
    return (
        f"Networks saw patches of {_said(runs, 'roi_size')} in batches of {_said(runs, 'batch_size')}{each}, and "
        f"predicted by sliding patches with an overlap of {_said(runs, 'overlap')}"
        + (f", averaged over mirror images along axes {_said(runs, _MIRRORED)}." if mirrored else ".")
    )


def _augmentation(runs: Sequence[_Run]) -> str:
    found = _owners(runs, [run.steps for run in runs])
    if len(found) > 1:
        return "Augmentation was not the same for all: " + "; ".join(
            f"{methods}: {', '.join(steps)}" for steps, methods in _named(found).items()
        ) + "."  # fmt: skip
    steps = next(iter(found))
    return f"Augmentation was the same for all: {'; '.join(steps)}." if steps else "Images were not augmented."


def _optimisation(runs: Sequence[_Run]) -> str:
    named = any(run.values.get("recipe") for run in runs)
    known = any(run.values.get("configuration") for run in runs)
    configured = f" in the configuration {_said(runs, 'configuration')}" if known else ""
    supervised = any(run.values.get(_HEADS, "no") != "no" for run in runs)
    averaged = any(run.values.get("ema_decay") for run in runs)
    return (
        (f"Trainings followed the recipe {_said(runs, 'recipe')}{configured}. " if named else "")
        + f"The optimiser was {_said(runs, 'optimizer')} with learning rate {_said(runs, 'learning_rate')} and weight "
        f"decay {_said(runs, 'weight_decay')}, on the schedule {_said(runs, 'schedule')}, in "
        f"{_said(runs, 'precision')}; the loss was {_said(runs, 'loss')}, gradients were clipped at "
        f"{_said(runs, 'clip_norm')}"
        + (f", weights were averaged with decay {_said(runs, 'ema_decay')}" if averaged else "")
        + (f"; heads at lower resolutions were trained: {_said(runs, _HEADS)}." if supervised else ".")
    )


def _budget(runs: Sequence[_Run]) -> str:
    facts = [run.facts for run in runs]
    iterations = _spread([fact.iterations for fact in facts])
    seconds = _spread([fact.cpu_seconds for fact in facts], " s")
    ended = sum(fact.schedule_completed is not True for fact in facts)
    schedule = "all schedules came to their end" if not ended else f"{ended} schedules did not come to their end"
    minutes = [run.minutes for run in runs if run.minutes is not None]
    if len(minutes) < len(runs):
        return f"Every training took {iterations} iterations ({seconds} of CPU time measured); {schedule}."
    clock = {"cpu": "of CPU time", "wall": "by the clock on the wall"}.get(_said(runs, "clock"), _said(runs, "clock"))
    return (
        f"Every training had {_spread([60 * limit for limit in minutes], ' s')} {clock}, which drove its learning-rate "
        f"schedule ({seconds} of CPU time measured, {iterations} iterations); {schedule}."
    )


def _selection(runs: Sequence[_Run]) -> str:
    validations = _spread([run.facts.validations for run in runs])
    chosen = sorted({run.checkpoint for run in runs})
    weights = {"last": "the last iteration", "best": "the best validation"}
    named = " and ".join(weights.get(name, name) for name in chosen)
    rules = sorted({run.scores.definition.postprocessing for run in runs})
    return (
        f"There were {validations} validations in each training; the weights of {named} were scored, with "
        f"{' and '.join(rules)} predictions."
    )


def _scores(runs: Sequence[_Run]) -> str:
    definition = runs[0].scores.definition
    asked = sum(run.scores.asked or 0 for run in runs)
    scored = sum(run.scores.scored or 0 for run in runs)
    lost = "" if asked == scored else f" {asked - scored} of {asked} predictions failed and are not in the means."
    space = {"source": "in the original image space", "model": "after preprocessing"}.get(
        definition.space, definition.space
    )
    metrics = {name: metric(name) for name in runs[0].scores.metrics}
    said = "; ".join(f"{one.heading(definition.unit)}: {one.about}" for one in metrics.values())
    return f"Scores were computed {space} ({said}). {rule_words(definition.empty)}{lost}".rstrip()


def _machine(facts: Sequence[RunFacts]) -> str:
    versions = facts[0].versions or {}
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    devices = ", ".join(sorted({fact.device or "not recorded" for fact in facts}))
    machines = "; ".join(sorted({fact.measured_on or "not recorded" for fact in facts}))
    return f"Trainings ran on {devices} ({machines}) with {named}."

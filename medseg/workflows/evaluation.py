"""Score a trained run: per case and label, on the source images' own grid (or the model's)."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from monai.transforms import Compose

from medseg import __version__
from medseg.bundle.case_parts import case_changes
from medseg.bundle.compose import amended, command, derived, resolve, start, user
from medseg.bundle.folder import Bundle
from medseg.bundle.parts import device_component, start_distributed
from medseg.bundle.recipe import Layer, Recipe
from medseg.data import Case
from medseg.data.content import content_hash
from medseg.engines import CaseCost, network_facts
from medseg.engines.ranks import barrier, is_main, on_main, unwrap
from medseg.engines.run_facts import RunFacts, write_facts
from medseg.errors import CasesFailed, ConfigError
from medseg.labels import LabelSpace
from medseg.metrics import ScoredPredictions, ScoreFacts, Scores, background_cases, background_note
from medseg.metrics.catalog import metric_names
from medseg.metrics.empty import EmptyRule
from medseg.settings import Folder, Names, takes
from medseg.transforms import SaveLabelsd
from medseg.transforms.probability_file import files_beside
from medseg.workflows.checkpoints import weights_of
from medseg.workflows.checks import refuse_other_names, refuse_wrong_folder
from medseg.workflows.choices import choices
from medseg.workflows.cleanup import add_cleaning, rules_of
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.probabilities import ProbabilitySettings, saving, stored_temperature
from medseg.workflows.run_folder import log_to, require_run
from medseg.workflows.run_limits import check_use, mirrored_axes, refuse_double, warn_changed
from medseg.workflows.selection import Selection, select

__all__ = ["EvaluateSettings", "evaluate", "warn_of_background"]

logger = logging.getLogger("medseg")

_SCORES = "validate::key_metric::mean_dice"
_STEPS = "validate::postprocessing::transforms"
# Ids that say where things are and how the work is done, not what comes out.
_PLACES = {"bundle_root", "dataset_dir", "json_list", "output_dir", "score_dir", "prediction_dir", "ckpt_path"}
_PLACES |= {"_meta_", "ckpt_dir", "cache_dir", "device", "num_workers", "sw_batch_size"}


@dataclass(frozen=True)
class EvaluateSettings(ProbabilitySettings):
    """Which cases of a run are scored, and how.

    Attributes:
        run: run folder.
        checkpoint: best, last, best_<metric> where it is kept, all, or a file.
        space: grid of the scores: source, the original image space, or model, after preprocessing. The latter are other
            scores: they lie apart, in scores/<section>_model, without predictions, and are not facts of the run.
        tolerance: tolerance of the surface Dice in mm (default: 1).
        metrics: scores beside Dice, as `medseg metrics` lists them (default: hd95,surface_dice).
        empty: rule for empty masks (default: penalty). One for all scores: penalty, reference_only, no_penalty or
            challenge (``medseg.metrics.empty.EmptyRule``); penalty:374 sets the distance.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        data_dir: folder of the images, where they were moved (default: as in training).
        postprocess: stored cleaning and calibration. The rules of `medseg postprocess` clean label maps, in the
            original image space; the temperature of `medseg calibrate` is that of saved probabilities.
        overrides: config values by their ids, such as overlap=0.25. With json_list, all labelled cases of that
            list are scored, a set that the run never saw.
        overlays: further configs of the run, such as evaluate_published.
        section: section of the run's datalist (default: that of the config, validation). Test is for the last score,
            not for choices, and its scores lie in scores/test.
        into: folder in the run for the results (default: the run itself, or scores/<section>).
        checked: whether the caller has checked the cases, and says itself what differs from the training.
        reuse: whether scores are kept that were made from the same weights, settings and files.
    """

    run: Folder
    _: KW_ONLY
    checkpoint: str = "best"
    space: Literal["source", "model"] = "source"
    tolerance: float | None = None
    metrics: Names = ()
    empty: str | None = None
    device: str | None = None
    data_dir: Folder | None = None
    postprocess: bool = field(default=True, metadata={"option": "no_postprocess"})
    overrides: Mapping[str, Any] | None = field(default=None, metadata={"option": "set"})
    overlays: Sequence[str] = field(default=(), metadata={"option": "overlay"})
    section: str | None = None
    into: str | None = field(default=None, metadata={"option": None})
    checked: bool = field(default=False, metadata={"option": None})
    reuse: bool = field(default=False, metadata={"option": None})

    def recipe(self, bundle: Bundle, *layers: Layer) -> Recipe:
        """The run's evaluation with these settings and further layers.

        Raises:
            ConfigError, ModelError: as ``resolve``; an option and an override contradict each other.
        """
        refuse_double("evaluate", self.overrides or {}, tolerance=self.tolerance, device=self.device)
        own: dict[str, Any] = {"tolerance": self.tolerance, "section": self.section}
        if self.metrics and self.tolerance is not None:
            raise ConfigError("--tolerance is for the usual scores; with --metrics name surface_dice_at_2 for 2 mm.")
        own |= {f"{_SCORES}::metrics": list(metric_names(self.metrics)) if self.metrics else None}
        own |= {f"{_SCORES}::empty": None if self.empty is None else EmptyRule.of(self.empty).text}
        if self.device is not None:
            own["device"] = device_component(self.device)
        if self.data_dir is not None:
            own["dataset_dir"] = str(Path(self.data_dir).resolve())
        given = command({key: value for key, value in own.items() if value is not None})
        return resolve(bundle, "evaluate", user(self.overrides), given, *layers, overlays=self.overlays)

    def selection(self) -> Selection:
        """The cases that ``evaluate`` scores with these settings.

        Raises:
            ConfigError, DataError, ModelError: as ``recipe`` and ``select``.
        """
        bundle = require_run(self.run)
        named = "json_list" in (self.overrides or {})
        return select(bundle, self.recipe(bundle), named=named, section=self.section)

    def place(self, selection: Selection) -> str:
        """Folder of the scores of these cases in the run; empty for the run's own."""
        if self.into is not None or self.space == "source":
            return self.into or selection.place
        return f"{selection.place or 'scores/validation'}_model"


@takes(EvaluateSettings)
@writes_into("run")
def evaluate(settings: EvaluateSettings) -> Scores:
    """Score cases of a run; writes ``metrics.json``, ``metrics_per_case.csv`` and ``predictions/``, and what a
    validation case costs into ``run.json``.

    Scores of other cases than the run's validation cases lie in a folder of their own, ``scores/<section>``, wherever
    the choice came from, and are not facts of the run. Under torchrun every process makes the same call and takes its
    share of the cases.

    Returns:
        The scores, as ``metrics.json`` has them.

    Raises:
        CasesFailed: some cases failed, listed in ``failures.json``; the scores are of the others, and say so.

    Examples:
        >>> scores = medseg.evaluate("runs/first", device="cpu")
        >>> scores.scored, 0 <= scores.mean_dice <= 1
        (2, True)
    """
    bundle = require_run(settings.run)
    folder, checkpoint = bundle.root, settings.checkpoint
    start_distributed()
    if is_main():
        log_to(folder)
    else:
        logger.setLevel(logging.ERROR)  # the first process speaks for all
    weights = weights_of(folder, checkpoint)
    if settings.space not in ("source", "model"):
        raise ConfigError(f"space '{settings.space}' is unknown; use 'source' or 'model'.")
    if settings.space == "model" and settings.kinds:
        raise ConfigError(
            f"--space model writes no predictions, so no {' and '.join(settings.kinds)}; leave --space out, and give "
            "--probability_grid model for probabilities on the grid of the network."
        )
    recipe = settings.recipe(bundle, command({"ckpt_path": str(weights)}))
    given = dict(settings.overrides or {})
    changed = check_use(bundle.trained, recipe.tree, given, own_weights=weights.is_relative_to(folder))
    mirrored_axes(bundle, recipe.tree)
    if not settings.checked:
        warn_changed(changed)
    selection = select(bundle, recipe, named="json_list" in given, section=settings.section)
    refuse_other_names(LabelSpace.from_table(recipe.tree["labels"]), selection.datalist.label_space, "The run")
    if not settings.checked:
        refuse_wrong_folder(selection.cases, selection.datalist)
    rules = rules_of(bundle, recipe.tree) if settings.postprocess and settings.space == "source" else {}
    if rules:
        cleaned = {_STEPS: add_cleaning(recipe.value(_STEPS), rules)}
        recipe = amended(recipe, derived(cleaned, f"{folder}/configs/inference.yaml"))
    temperature = stored_temperature(bundle) if settings.postprocess else 1.0
    recipe = saving(recipe, _STEPS, settings, temperature=temperature, place=f"{folder}/configs/evaluate.yaml")
    if settings.space == "model":
        # As while training: labels go through the preprocessing too, predictions stay where they are.
        parts = ("validate::preprocessing", "validate::postprocessing")
        steps = {part: bundle.recipe("train").value(part) for part in parts}
        recipe = amended(recipe, derived(steps, f"{folder}/configs/train.yaml"))
    biases = _biases(selection, cleaned=bool(rules))
    facts = on_main(lambda: _facts(selection, weights, recipe.tree))
    own = selection.role == "validation"
    chosen = choices(bundle.trained, selection.run, checkpoint, cleaned=bool(rules), validation=own)
    facts = replace(facts, checkpoint=checkpoint, biases=biases, chosen=chosen, differs_from_training=changed or None)
    place = settings.place(selection)
    places = _target(bundle, recipe, place, named=settings.into is not None)
    workflow = start(amended(recipe, places, case_changes(bundle, recipe.tree, "evaluate")), "evaluate")
    target = Path(workflow.parser.get_parsed_content("score_dir"))
    if place and target.resolve() == folder:
        raise ConfigError(
            f"{target} has the scores of validation cases in the original image space, which those of "
            f"{selection.words} would replace; name another score_dir."
        )
    kept = on_main(lambda: _kept(target, facts)) if settings.reuse else None
    if kept is not None:
        workflow.finalize()
        return kept
    logger.info("scoring %s of %s, checkpoint %s", selection.words, folder, checkpoint)
    saved = _saved_to(workflow.parser.get_parsed_content("validate::postprocessing"))
    if saved is not None:
        on_main(lambda: _remove_beside(saved, selection.cases))
    scores = workflow.parser.get_parsed_content(_SCORES)
    scores.facts |= facts  # not in the config, where a name could become an expression
    scores.cleanup = rules or scores.cleanup
    scores.space = "model" if settings.space == "model" else scores.space
    evaluator = workflow.parser.get_parsed_content("validate::evaluator")
    cost = CaseCost()
    cost.attach(evaluator)
    failed: CasesFailed | None = None
    try:
        workflow.run()
    except CasesFailed as error:
        failed = error
    if is_main():
        written = Scores.read(target)
        scored = [case for case in selection.cases if case.id in written.cases]
        predictions = _predictions(target, saved, scored)
        replace(written, asked=len(selection.cases), scored=len(scored), predictions=predictions).write(target)
        if target.resolve() == folder and failed is None:  # others are not the run's
            measured = network_facts(
                unwrap(evaluator.network),
                workflow.parser["network_def::in_channels"],
                workflow.parser.get_parsed_content("roi_size"),
            )
            measured |= cost.facts(measured.multiply_adds_per_window)
            write_facts(folder, measured | RunFacts(mean_dice=written.mean_dice), selection.run)
    barrier()  # the first process writes the scores of all
    result = Scores.read(target)
    warn_of_background(background_cases(result.cases), len(result.cases))
    workflow.finalize()
    if failed is not None:
        raise CasesFailed(f"{failed} The scores in {target} are of {result.scored} of {result.asked} cases.")
    return result


def warn_of_background(cases: Sequence[str], total: int) -> None:
    """Log which predictions are background throughout."""
    if cases and is_main():
        logger.warning("%s", background_note(cases, total))


def _target(bundle: Bundle, recipe: Recipe, place: str, *, named: bool) -> Layer:
    """Where the scores go; nothing where an overlay or the user keeps them apart, unless the caller names a place."""
    own = bundle.recipe("evaluate").tree["score_dir"]
    if named:
        return command({"score_dir": str(bundle.root / place)})
    if not place or recipe.tree["score_dir"] != own:
        return command({})
    return command({"score_dir": {"_target_": "medseg.workflows.inside", "root": own, "name": place}})


def _biases(selection: Selection, *, cleaned: bool) -> list[str]:
    """Why scores are better than those of new cases, in words; logged as well."""
    found = []
    if selection.seen:
        found.append(
            f"The run was trained on {selection.seen} of these {len(selection.cases)} cases: the scores are "
            "optimistically biased."
        )
    if cleaned and selection.role == "validation":
        found.append(
            "The rules of post-processing were chosen on validation cases: scores of cleaned predictions on them are "
            "optimistically biased."
        )
    for text in found:
        logger.warning("%s", text)
    return found


def _facts(selection: Selection, weights: Path, tree: Mapping[str, Any]) -> ScoreFacts:
    """What scores are of, and made from: hashes of weights, settings and files, and the version."""
    settings = {key: value for key, value in tree.items() if key not in _PLACES}
    text = json.dumps(settings, sort_keys=True, default=str)
    return ScoreFacts(
        section=selection.section,
        fold=selection.fold,
        role=selection.role,
        datalist=str(selection.datalist.path),
        weights_sha256=content_hash(weights),
        settings_sha256=hashlib.sha256(text.encode()).hexdigest(),
        medseg=__version__,
        subjects={case.id: case.subject for case in selection.cases if case.subject is not None} or None,
        files_sha256={case.id: [content_hash(file) for file in case.files] for case in selection.cases},
    )


def _kept(target: Path, facts: ScoreFacts) -> Scores | None:
    """Scores that were made from the same; ``None`` without."""
    kept = Scores.found(target)
    if kept is None or kept.asked != kept.scored:
        return None
    made = ("weights_sha256", "settings_sha256", "medseg", "files_sha256")
    return kept if all(getattr(kept.facts, name) == getattr(facts, name) for name in made) else None


def _saved_to(steps: Any) -> Path | None:
    """Where post-processing writes label maps; ``None`` where it writes none."""
    for step in steps.transforms if isinstance(steps, Compose) else [steps]:
        if isinstance(step, SaveLabelsd):
            return Path(step.output_dir)
    return None


def _remove_beside(folder: Path, cases: Sequence[Case]) -> None:
    """Probabilities and uncertainty of an earlier call must not pass for those of this one."""
    for case in cases:
        for file in files_beside(folder / case.output_name(), case.id).values():
            file.unlink(missing_ok=True)


def _predictions(target: Path, folder: Path | None, cases: Sequence[Case]) -> ScoredPredictions | None:
    """The label maps that were scored: their folder, below the scores' own where it is there, and their hashes."""
    if folder is None:
        return None
    folder, target = folder.resolve(), target.resolve()
    name = folder.relative_to(target) if folder.is_relative_to(target) else folder
    return ScoredPredictions(str(name), {case.id: content_hash(folder / case.output_name()) for case in cases})

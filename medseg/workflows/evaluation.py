"""A run's evaluation as it was asked for: its recipe, held against the training, its weights, and its cases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from medseg.bundle.case_parts import case_changes
from medseg.bundle.compose import Workflow, amended, command, derived, resolve, start, user
from medseg.bundle.folder import Bundle
from medseg.bundle.parts import device_component
from medseg.bundle.recipe import Layer, Recipe
from medseg.data.content import content_hash
from medseg.engines.mirrored import MIRROR_AXES, TTA
from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.metrics import CleanupRules, ScoreFacts
from medseg.metrics.catalog import metric_names
from medseg.metrics.empty import EmptyRule
from medseg.settings import Folder, Names
from medseg.version import __version__
from medseg.workflows.checkpoints import weights_of
from medseg.workflows.checks import refuse_other_names, refuse_wrong_folder
from medseg.workflows.choices import biases, choices
from medseg.workflows.cleanup import add_cleaning, rules_of
from medseg.workflows.probabilities import ProbabilitySettings, saving, stored_temperature
from medseg.workflows.run_folder import differences, require_run
from medseg.workflows.run_limits import check_use, mirrored_axes, refuse_double, warn_changed
from medseg.workflows.selection import Selection, select

__all__ = ["SCORES", "EvaluateSettings", "Evaluation"]

SCORES = "validate::key_metric::mean_dice"
_STEPS = "validate::postprocessing::transforms"
_MIRRORED = "validate::inferer::mirror_axes"
# Ids that say where things are and how the work is done, not what comes out.
_PLACES = {"bundle_root", "dataset_dir", "json_list", "output_dir", "score_dir", "prediction_dir", "ckpt_path"}
_PLACES |= {"_meta_", "ckpt_dir", "cache_dir", "device", "num_workers", "sw_batch_size"}
# Parts of ids that do not change a raw label map: these, the cases, what is measured, and rules of cleaning.
_NOT_PREDICTED = _PLACES | {"cache", "compile", "sw_device", "behind", "dataloader", "section", "data"}
_NOT_PREDICTED |= {"key_metric", "additional_metrics", "tolerance", "cleanup"}


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
        tta: average over mirror images, as training saw them. Along the axes that training mirrored. The scores lie
            apart, in scores/<section>_tta; the report says what it brings.
        data_dir: folder of the images, where they were moved (default: as in training).
        postprocess: stored post-processing and calibration. The rules of `medseg postprocess` clean label maps, in the
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
    tta: bool = False
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
        own |= {f"{SCORES}::metrics": list(metric_names(self.metrics)) if self.metrics else None}
        own |= {f"{SCORES}::empty": None if self.empty is None else EmptyRule.of(self.empty).text}
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

    def check(self) -> None:
        """Refuse what no run allows.

        Raises:
            ConfigError: naming the option.
        """
        if self.space not in ("source", "model"):
            raise ConfigError(f"space '{self.space}' is unknown; use 'source' or 'model'.")
        if self.space == "model" and self.kinds:
            raise ConfigError(
                f"--space model writes no predictions, so no {' and '.join(self.kinds)}; leave --space out, and give "
                "--probability_grid model for probabilities on the grid of the network."
            )

    def place(self, selection: Selection) -> str:
        """Folder of the scores of these cases in the run; empty for the run's own."""
        if self.into is not None or not self.ending:
            return self.into or selection.place
        return f"{selection.place or 'scores/validation'}{self.ending}"

    @property
    def ending(self) -> str:
        """End of the folder's name of scores that are made otherwise than the run's own."""
        return "_model" * (self.space == "model") + TTA * self.tta


@dataclass(frozen=True)
class Evaluation:
    """A run's evaluation as it was asked for, held against its training.

    Attributes:
        settings: what was asked for.
        bundle: the run.
        recipe: its ``evaluate.yaml`` with the user's overrides, and what the options say.
        selection: the cases.
        weights: file of the network's weights.
        rules: rules of the cleaning that is applied.
        differences: differences that ``check_use`` found.
        changed: id of a setting that changes predictions -> its value by default and here, where they differ.
    """

    settings: EvaluateSettings
    bundle: Bundle
    recipe: Recipe
    selection: Selection
    weights: Path
    rules: CleanupRules
    differences: Mapping[str, Any]
    changed: Mapping[str, Any]

    @classmethod
    def of(cls, settings: EvaluateSettings) -> Evaluation:
        """With these settings.

        Raises:
            ConfigError: a setting is not what the run allows.
            DataError: a case is missing or has no label.
            ModelError: there are no weights.
        """
        bundle, given = require_run(settings.run), dict(settings.overrides or {})
        weights = weights_of(bundle.root, settings.checkpoint)
        settings.check()
        recipe = settings.recipe(bundle, command({"ckpt_path": str(weights)}))
        own = weights.is_relative_to(bundle.root)
        from_training = check_use(bundle.trained, recipe.tree, given, own_weights=own)
        mirrored_axes(bundle, recipe.tree)
        if settings.tta:
            recipe = amended(recipe, command({_MIRRORED: _tta_axes(bundle)}))
        changed = differences(bundle.recipe("evaluate").tree, recipe.tree)
        changed = {key: pair for key, pair in changed.items() if not _NOT_PREDICTED & set(key.split("::"))}
        selection = select(bundle, recipe, named="json_list" in given, section=settings.section)
        refuse_other_names(LabelSpace.from_table(recipe.tree["labels"]), selection.datalist.label_space, "The run")
        if not settings.checked:
            warn_changed(from_training)
            refuse_wrong_folder(selection.cases, selection.datalist)
        rules = rules_of(bundle, recipe.tree) if settings.postprocess and settings.space == "source" else {}
        if rules:
            cleaned = {_STEPS: add_cleaning(recipe.value(_STEPS), rules)}
            recipe = amended(recipe, derived(cleaned, f"{bundle.root}/configs/inference.yaml"))
        temperature = stored_temperature(bundle) if settings.postprocess else 1.0
        place = f"{bundle.root}/configs/evaluate.yaml"
        recipe = saving(recipe, _STEPS, settings, temperature=temperature, place=place)
        if settings.space == "model":
            # As while training: labels go through the preprocessing too, predictions stay where they are.
            parts = ("validate::preprocessing", "validate::postprocessing")
            steps = {part: bundle.recipe("train").value(part) for part in parts}
            recipe = amended(recipe, derived(steps, f"{bundle.root}/configs/train.yaml"))
        return cls(settings, bundle, recipe, selection, weights, rules, from_training, changed)

    def workflow(self) -> Workflow:
        """The workflow over the cases, its engine not built yet."""
        recipe = amended(self.recipe, self._target(), case_changes(self.bundle, self.recipe.tree, "evaluate"))
        return start(recipe, "evaluate")

    def _target(self) -> Layer:
        """Where the scores go; nothing where an overlay or the user keeps them apart, unless the caller says where."""
        place, own = self.settings.place(self.selection), self.bundle.recipe("evaluate").tree["score_dir"]
        if self.settings.into is not None:
            return command({"score_dir": str(self.bundle.root / place)})
        if not place or self.recipe.tree["score_dir"] != own:
            return command({})
        return command({"score_dir": {"_target_": "medseg.workflows.inside", "root": own, "name": place}})

    def facts(self) -> ScoreFacts:
        """What the scores are of, and made from: hashes of weights, settings and files, the version, and choices."""
        settings = {key: value for key, value in self.recipe.tree.items() if key not in _PLACES}
        text = json.dumps(settings, sort_keys=True, default=str)
        selection, cleaned, checkpoint = self.selection, bool(self.rules), self.settings.checkpoint
        own = selection.role == "validation"
        return replace(
            selection.facts(),
            weights_sha256=content_hash(self.weights),
            settings_sha256=hashlib.sha256(text.encode()).hexdigest(),
            medseg=__version__,
            checkpoint=checkpoint,
            biases=biases([("The run", selection.seen)], len(selection.cases), cleaned=cleaned and own),
            chosen=choices(self.bundle.trained, selection.run, checkpoint, cleaned=cleaned, validation=own),
            differs_from_training=self.differences or None,
            differs_from_default=self.changed or None,
            others={MIRROR_AXES: self.recipe.value(_MIRRORED)} if self.settings.tta else {},
        )


def _tta_axes(bundle: Bundle) -> list[int] | None:
    """The axes that training mirrored.

    Raises:
        ConfigError: as ``mirrored_axes``; or inference averages over mirror images by itself.
    """
    tree = bundle.recipe("infer").tree
    if tree.get("mirror_axes"):
        raise ConfigError(
            f"--tta: inference of {bundle} averages over mirror images by default, and so do its own scores; expected "
            "a run whose mirror_axes are empty. Leave --tta out."
        )
    return mirrored_axes(bundle, tree, tta=True)

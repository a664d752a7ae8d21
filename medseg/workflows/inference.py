"""A bundle's inference as it was asked for: its recipe, held against the training, and its weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.bundle import ReferenceResolver
from torch import nn

from medseg.bundle import TRAINED_AXES
from medseg.bundle.case_parts import case_changes
from medseg.bundle.compose import Workflow, amended, command, resolve, start, user
from medseg.bundle.folder import Bundle
from medseg.bundle.known_parts import components
from medseg.bundle.parts import device as choose_device
from medseg.bundle.parts import device_component
from medseg.bundle.recipe import Recipe, Tree, leaves
from medseg.data import Case
from medseg.data.content import content_hash
from medseg.errors import ConfigError
from medseg.inferers import Ensemble
from medseg.inferers.prediction_folder import Origin
from medseg.labels import LabelSpace
from medseg.metrics import CleanupRules
from medseg.settings import Names
from medseg.workflows.checkpoints import weights_of
from medseg.workflows.joined_runs import joined_runs
from medseg.workflows.members import Source, load_member, refuse_twice, shared_rules
from medseg.workflows.probabilities import TEMPERATURE, stored_temperature
from medseg.workflows.run_limits import check_members, check_use, mirrored_axes, refuse_double, warn_changed

__all__ = ["Inference", "InferenceSettings"]

logger = logging.getLogger("medseg")

_ONE_SET = "--tasks and --modality are for networks trained on several data sets; leave them out."
# Ids of inference.yaml that say where things are and how the work is done, not what comes out.
_PLACES = {"bundle_root", "dataset_dir", "json_list", "section", "output_dir", "ckpt_path", "device"}
_PLACES |= {"sw_batch_size", "dataset", "dataloader", "network", "handlers", "initialize", "run", "finalize", "cleanup"}
_PLACES |= {TRAINED_AXES, TEMPERATURE, "_meta_"}  # the temperature is that of saved probabilities alone
_PARTS = ("ckpt_path", "label_space", "network", "preprocessing", "inferer", "postprocessing")
# What post-processing has to do -> components that do it.
_STEPS = {
    "makes labels of logits": "ToSourceGridd TasksToSourceGridd LogitsToLabelsd TasksToLabelsd",
    "writes label maps": "SaveLabelsd",
}


@dataclass(frozen=True)
class InferenceSettings:
    """Which weights of a bundle segment, and how.

    Attributes:
        checkpoint: best, last, best_<metric>, all, or a file. A metric's is kept where the run says so.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        tta: average over mirror images, as training saw them. Along the axes that training mirrored.
        postprocess: stored post-processing and calibration. The rules of `medseg postprocess` clean label maps, the
            temperature of `medseg calibrate` is that of saved probabilities.
        tasks: labels to segment, of a run on several data sets. By default all, or those of a case's own data set.
        overrides: config values, such as overlap=0.25.
    """

    _: KW_ONLY
    checkpoint: str = "best"
    device: str | None = None
    tta: bool = False
    postprocess: bool = field(default=True, metadata={"option": "no_postprocess"})
    tasks: Names | None = None
    overrides: Mapping[str, Any] | None = field(default=None, metadata={"option": "set"})


@dataclass(frozen=True)
class Inference:
    """A bundle's inference as it was asked for, held against its training.

    Attributes:
        bundle: the bundle; of several that are joined, the first.
        recipe: its ``inference.yaml`` with the user's overrides, and what the options say.
        weights: file of the network's weights.
        differences: differences that ``check_use`` found.
        members: those of the runs that are joined; empty for one run.
        rules: rules of the members' post-processing.
        calibrated: whether the members have their temperatures.
    """

    bundle: Bundle
    recipe: Recipe
    weights: Path
    differences: Mapping[str, Any]
    members: tuple[Inference, ...] = ()
    rules: CleanupRules = field(default_factory=dict)
    calibrated: bool = True

    @classmethod
    def of(cls, bundle: Bundle, settings: InferenceSettings) -> Inference:
        """With these settings; of a folder that stands for several runs, all of them joined.

        Raises:
            ConfigError: a setting is not what a run allows, or the runs cannot be joined.
            ModelError: there are no weights.
        """
        joined = joined_runs(bundle.root)
        if joined is None:
            return cls._of_run(bundle, settings)
        members = tuple(cls._of_run(Bundle(run), settings) for run in joined.runs)
        bundles = [member.bundle for member in members]
        if any(member.of_tasks for member in members):
            raise ConfigError(
                f"{bundle} holds runs on several data sets, whose cases are asked for different tasks; expected runs "
                f"on one. Predict with each run alone, such as {bundles[0]}."
            )
        check_members(bundles)
        refuse_twice([Source(member.bundle, member.weights) for member in members])
        rules: CleanupRules = {}
        if settings.postprocess:
            rules = shared_rules(bundles) if joined.rules is None else joined.rules
        device = {} if settings.device is None else {"device": device_component(settings.device)}
        recipe = resolve(bundles[0], "ensemble", command(device))
        recipe = amended(recipe, case_changes(bundles[0], recipe.tree, "infer"))
        logger.info("%d runs of %s are joined", len(members), bundle)
        first = members[0]
        tempered = settings.postprocess and joined.rules is None  # `medseg best` chose by plain probabilities
        return cls(bundles[0], recipe, first.weights, first.differences, members, rules, tempered)

    @classmethod
    def _of_run(cls, bundle: Bundle, settings: InferenceSettings) -> Inference:
        """Of one run or bundle.

        Raises:
            ConfigError: a setting is not what the run allows.
            ModelError: there are no weights.
        """
        given = dict(settings.overrides or {})
        refuse_double("infer", given)
        weights = weights_of(bundle.root, settings.checkpoint)
        recipe = resolve(bundle, "infer", user(given), command({"ckpt_path": str(weights)}))
        own = weights.is_relative_to(bundle.root)
        differences = check_use(bundle.trained, recipe.tree, given, own_weights=own)
        warn_changed(differences)
        changes: dict[str, Any] = {}
        axes = mirrored_axes(bundle, recipe.tree, tta=settings.tta, chosen=given.get("mirror_axes"))
        if settings.tasks is not None:
            if "tasks" not in recipe.tree:
                raise ConfigError(_ONE_SET)
            LabelSpace.from_table(recipe.tree["labels"]).asked_labels(settings.tasks)
            changes["tasks"] = list(settings.tasks)
        if not settings.postprocess and "cleanup" in recipe.tree:
            changes["cleanup"] = {}
        if axes is not None:
            changes["mirror_axes"] = axes
        if settings.device is not None:
            changes["device"] = device_component(settings.device)
        recipe = amended(recipe, command(changes), case_changes(bundle, recipe.tree, "infer"))
        _refuse_incomplete(recipe.tree)
        return cls(bundle, recipe, weights, differences)

    @cached_property
    def label_space(self) -> LabelSpace:
        """What label values mean."""
        return LabelSpace.from_table(self.recipe.tree["labels"])

    @property
    def of_tasks(self) -> bool:
        """Whether the network was trained on several data sets, so that it is asked for tasks."""
        return "tasks" in self.recipe.tree

    def origin(self, device: str | None) -> Origin:
        """What its predictions come from, on this device, whose kind may change the precision."""
        if self.members:
            each = [member.origin(device) for member in self.members]
            weights = tuple(weights for one in each for weights in one.weights)
            temperatures = [stored_temperature(member.bundle) for member in self.members if self.calibrated]
            settings = {"members": [dict(one.settings) for one in each], "temperatures": temperatures}
            return Origin(weights, settings, self.rules)
        tree = self.recipe.tree
        settings = {key: value for key, value in tree.items() if key not in _PLACES}
        settings["device_type"] = choose_device(device).type
        if self.differences:
            settings["differs_from_training"] = self.differences
        return Origin((content_hash(self.weights),), settings, tree.get("cleanup") or {})

    def workflow(self, cases: Sequence[Case], output: Path | None = None) -> Workflow:
        """The workflow over these cases, its evaluator not built yet; the bundle's own list is not asked for."""
        places = {"output_dir": str(output)} if output is not None else {}
        built = {"ensemble": self._ensemble(), "rules": self.rules} if self.members else None
        workflow = start(amended(self.recipe, command({"dataset::data": [], **places})), "infer", built)
        workflow.parser.get_parsed_content("dataset").data = [case.to_dict() for case in cases]
        return workflow

    def _ensemble(self) -> Ensemble:
        """The network of the members."""
        networks: dict[str, nn.Module] = {}
        sources = [Source(one.bundle, one.weights, one.recipe) for one in self.members]
        return Ensemble([load_member(source, networks, calibrated=self.calibrated) for source in sources])

    def conditioned(self, cases: Sequence[Case], modality: str | None) -> list[Case]:
        """The cases with their modality, which a network trained on several data sets is told.

        Raises:
            ConfigError: a modality for another network, or one that has to be told.
            DataError: no such modality.
        """
        if not self.of_tasks:
            if modality:
                raise ConfigError(_ONE_SET)
            return list(cases)
        known = self.label_space.modalities
        if modality is not None:
            self.label_space.modality_id(modality)
        elif len(known) == 1:
            modality = next(iter(known))
        if modality is None and any(case.modality is None for case in cases):
            raise ConfigError(
                f"Images are normalised by modality; name their modality (--modality): {', '.join(known)}."
            )
        return [replace(case, modality=case.modality or modality) for case in cases]


def _refuse_incomplete(tree: Tree) -> None:
    """A config whose parts are there, but not used: no case could succeed, or all with weights that nobody loads.

    Raises:
        ConfigError: naming the part.
    """
    texts = [value for _, value in leaves(tree) if isinstance(value, str)]
    used = {id_.partition("::")[0] for text in texts for id_ in ReferenceResolver.match_refs_pattern(text)}
    for name in _PARTS:
        if name in tree and (tree[name] is None or name not in used):
            what = "is null" if tree[name] is None else f"is not used: nothing refers to @{name}"
            raise ConfigError(f"{tree.where}: {name} {what}; expected it as in the configs of medseg. Restore it.")
    written = tree.get("postprocessing")
    steps = written.get("transforms") if isinstance(written, Mapping) else None
    targets = [step.get("_target_") for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else None
    if targets is None or not components().issuperset(targets):
        return  # of another author, who knows what they do
    for does, names in _STEPS.items():
        found = [f"medseg.transforms.{name}" for name in names.split()]
        if not set(found) & set(targets):
            raise ConfigError(f"{tree.where}: nothing in postprocessing {does}; expected {found[0]}. Restore it.")

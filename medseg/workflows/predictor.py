"""A predictor: a bundle's inference, built once, for images in memory and files; the path that `medseg infer` goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import nn

from medseg.bundle import TRAINED_AXES
from medseg.bundle.case_parts import case_changes
from medseg.bundle.compose import Workflow, amended, command, resolve, start, user
from medseg.bundle.folder import Bundle
from medseg.bundle.parts import device as choose_device
from medseg.bundle.parts import device_component
from medseg.bundle.recipe import Recipe
from medseg.data import Case
from medseg.data.case import stem_of
from medseg.data.content import content_hash
from medseg.data.fit import model_spacing
from medseg.engines.ranks import unwrap
from medseg.errors import ConfigError, DataError
from medseg.inferers.prediction_folder import Origin
from medseg.labels import LabelSpace
from medseg.settings import Names
from medseg.transforms import SaveLabelsd, is_2d_file
from medseg.transforms.in_memory import InMemory
from medseg.transforms.nifti import placed_like
from medseg.workflows.evaluation import weights_of
from medseg.workflows.run_limits import check_use, mirrored_axes, refuse_double, warn_changed

__all__ = ["Inference", "InferenceSettings", "Predictor"]

_ONE_SET = "--tasks and --modality are for networks trained on several data sets; leave them out."
# Ids of inference.yaml that say where things are and how the work is done, not what comes out.
_PLACES = {"bundle_root", "dataset_dir", "json_list", "section", "output_dir", "ckpt_path", "device"}
_PLACES |= {"sw_batch_size", "dataset", "dataloader", "network", "handlers", "initialize", "run", "finalize", "cleanup"}
_PLACES |= {TRAINED_AXES, "_meta_"}


@dataclass(frozen=True)
class InferenceSettings:
    """Which weights of a bundle segment, and how.

    Attributes:
        checkpoint: best, last, best_<metric> where it is kept, all, or a file.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        tta: average over mirror images along the axes that training mirrored.
        postprocess: cleaning by the rules that `medseg postprocess` stored in the run.
        tasks: names of the labels to segment, of a run on several data sets (default: all, or those of a case's own
            data set).
        overrides: values of inference.yaml by their ids, such as overlap=0.25.
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
        bundle: the bundle.
        recipe: its ``inference.yaml`` with the user's overrides, and what the options say.
        weights: file of the network's weights.
        differences: of ``check_use``.
    """

    bundle: Bundle
    recipe: Recipe
    weights: Path
    differences: Mapping[str, Any]

    @classmethod
    def of(cls, bundle: Bundle, settings: InferenceSettings) -> Inference:
        """With these settings.

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
        tree = self.recipe.tree
        settings = {key: value for key, value in tree.items() if key not in _PLACES}
        settings["device_type"] = choose_device(device).type
        if self.differences:
            settings["differs_from_training"] = self.differences
        return Origin((content_hash(self.weights),), settings, tree.get("cleanup") or {})

    def workflow(self, cases: Sequence[Case], output: Path | None = None) -> Workflow:
        """The workflow over these cases, its evaluator not built yet; the bundle's own list is not asked for."""
        places = {"output_dir": str(output)} if output is not None else {}
        workflow = start(amended(self.recipe, command({"dataset::data": [], **places})), "infer")
        workflow.parser.get_parsed_content("dataset").data = [case.to_dict() for case in cases]
        return workflow

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


class Predictor:
    """A run or bundle that segments one image after another; its network is built and its weights are loaded once.

    Args:
        inference: the bundle's inference as it was asked for.
    """

    def __init__(self, inference: Inference) -> None:
        self.inference = inference
        parser = inference.workflow([Case("", ("",))]).parser  # the engine is built for one case
        self._dataset = parser.get_parsed_content("dataset")
        self._evaluator = parser.get_parsed_content("evaluator")
        self._evaluator.behind = 0
        steps = self._evaluator.postprocessing.transforms
        self._evaluator.postprocessing = Compose([step for step in steps if not isinstance(step, SaveLabelsd)])
        self._evaluator.done = self._keep
        self._evaluator.fire_event(Events.STARTED)  # weights are loaded
        self._finished: Mapping[str, Any] = {}

    @property
    def network(self) -> nn.Module:
        """The network, in evaluation mode."""
        network: nn.Module = unwrap(self._evaluator.network)
        return network.eval()

    def predict(
        self,
        image: Any,
        *,
        spacing: float | Sequence[float] | None = None,
        affine: Any = None,
        modality: str | None = None,
    ) -> Any:
        """Segment one image.

        Args:
            image: a path, a nibabel image, a MetaTensor ``(C, *spatial)``, or an array or tensor ``(*spatial)`` or
                ``(C, *spatial)``; or a list with one of these per channel.
            spacing: mm per axis of an array, whose axes are taken to run to the right, the front and the top;
            affine: or its index -> RAS mm, 4 x 4.
            modality: such as ``ct``, for a run on several data sets.

        Returns:
            Label values in the original image space, of the kind that was given: an array or tensor ``(*spatial)``, a
            MetaTensor ``(1, *spatial)``, or a nibabel image; of a path a nibabel image, of a PNG, JPEG, TIFF or BMP an
            array ``(rows, columns)``.

        Raises:
            DataError: the image cannot be used, or failed.
        """
        given = list(image) if isinstance(image, (list, tuple)) else [image]
        images = tuple(self._image(channel, spacing, affine) for channel in given)
        (case,) = self.inference.conditioned([Case(stem_of(images[0]), images)], modality)
        self._dataset.data = [case.to_dict()]
        self._evaluator.run()
        if self._evaluator.failures:
            raise DataError("; ".join(self._evaluator.failures.values()))
        indices, meta = torch.as_tensor(self._finished["pred"])[0].numpy(), self._finished["image"].meta
        self._finished = {}
        return _as_given(given[0], self.inference.label_space.decode(indices, case.dataset), meta)

    def _image(self, image: Any, spacing: float | Sequence[float] | None, affine: Any) -> str:
        if isinstance(image, (str, Path)):
            return str(image)
        dims = len(self.inference.recipe.tree["roi_size"])
        if (
            spacing is None
            and affine is None
            and dims == 2
            and not isinstance(image, nibabel.spatialimages.SpatialImage)
        ):
            resampled = model_spacing(self.inference.recipe.tree["preprocess"]) is not None
            spacing = None if resampled or isinstance(image, MetaTensor) else 1.0  # pixels of no known size
        return InMemory.of(image, dims, spacing=spacing, affine=affine)

    def _keep(self, data: Mapping[str, Any]) -> None:
        self._finished = data


def _as_given(image: Any, values: np.ndarray, meta: Mapping[Any, Any]) -> Any:
    """Label values ``(*spatial)`` as an object of the kind of ``image``."""
    if isinstance(image, MetaTensor):
        return MetaTensor(torch.from_numpy(values.copy())[None], affine=image.affine)
    if isinstance(image, torch.Tensor):
        return torch.from_numpy(values.copy())
    if isinstance(image, np.ndarray) or (isinstance(image, (str, Path)) and is_2d_file(image)):
        return values
    header = placed_like(values, meta).header
    return nibabel.Nifti1Image(values, header.get_best_affine(), header)

"""A predictor: a bundle's inference, built once, for images in memory and files; the path that `medseg infer` goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import nn

from medseg.bundle.case_parts import case_changes
from medseg.bundle.compose import Workflow, amended, command, resolve, start, user
from medseg.bundle.folder import Bundle
from medseg.bundle.parts import device_component
from medseg.bundle.recipe import Recipe
from medseg.data import Case
from medseg.data.case import stem_of
from medseg.data.fit import model_spacing
from medseg.engines.ranks import unwrap
from medseg.errors import ConfigError, DataError
from medseg.labels import LabelSpace
from medseg.transforms import SaveLabelsd, is_2d_file
from medseg.transforms.in_memory import InMemory
from medseg.transforms.nifti import placed_like
from medseg.workflows.evaluation import weights_of
from medseg.workflows.run_limits import check_use, mirrored_axes, refuse_double, warn_changed

__all__ = ["Inference", "Predictor"]

_ONE_SET = "--tasks and --modality are for networks trained on several data sets; leave them out."


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
    def of(
        cls,
        bundle: Bundle,
        *,
        checkpoint: str = "best",
        device: str | None = None,
        tta: bool = False,
        postprocess: bool = True,
        tasks: Sequence[str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Inference:
        """Options as for `medseg infer`.

        Raises:
            ConfigError: an option is not what the run allows.
            ModelError: there are no weights.
        """
        given = dict(overrides or {})
        refuse_double("infer", given)
        weights = weights_of(bundle.root, checkpoint)
        recipe = resolve(bundle, "infer", user(given), command({"ckpt_path": str(weights)}))
        own = weights.is_relative_to(bundle.root)
        differences = check_use(bundle.trained, recipe.tree, given, own_weights=own)
        warn_changed(differences)
        changes: dict[str, Any] = {}
        axes = mirrored_axes(bundle, recipe.tree, tta=tta, chosen=given.get("mirror_axes"))
        if tasks is not None:
            if "tasks" not in recipe.tree:
                raise ConfigError(_ONE_SET)
            LabelSpace.from_table(recipe.tree["labels"]).asked_labels(tasks)
            changes["tasks"] = list(tasks)
        if not postprocess and "cleanup" in recipe.tree:
            changes["cleanup"] = {}
        if axes is not None:
            changes["mirror_axes"] = axes
        if device is not None:
            changes["device"] = device_component(device)
        recipe = amended(recipe, command(changes), case_changes(bundle, recipe.tree, "infer"))
        return cls(bundle, recipe, weights, differences)

    def workflow(self, entries: Sequence[Mapping[str, Any]]) -> Workflow:
        """The workflow over these cases (``Case.to_dict``), its evaluator not built yet; the bundle's own list is not
        asked for.
        """
        workflow = start(amended(self.recipe, command({"dataset::data": []})), "infer")
        workflow.parser.get_parsed_content("dataset").data = list(entries)
        return workflow

    def conditioned(self, cases: Sequence[Case], modality: str | None) -> list[Case]:
        """The cases with their modality, which a network trained on several data sets is told.

        Raises:
            ConfigError: a modality for another network, or one that has to be told.
            DataError: no such modality.
        """
        if "tasks" not in self.recipe.tree:
            if modality:
                raise ConfigError(_ONE_SET)
            return list(cases)
        return _with_modality(cases, LabelSpace.from_table(self.recipe.tree["labels"]), modality)


def _with_modality(cases: Sequence[Case], space: LabelSpace, modality: str | None) -> list[Case]:
    if modality is not None:
        space.modality_id(modality)
    elif len(space.modalities) == 1:
        modality = next(iter(space.modalities))
    if modality is None and any(case.modality is None for case in cases):
        raise ConfigError(
            f"Images are normalised by modality; name their modality (--modality): {', '.join(space.modalities)}."
        )
    return [replace(case, modality=case.modality or modality) for case in cases]


class Predictor:
    """A run or bundle that segments one image after another; its network is built and its weights are loaded once.

    Args:
        bundle: run or bundle folder.
        checkpoint, device, tta, postprocess, tasks, overrides: options of `medseg infer`.

    Raises:
        ConfigError, ModelError: as ``Inference.of``.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        checkpoint: str = "best",
        device: str | None = None,
        tta: bool = False,
        postprocess: bool = True,
        tasks: Sequence[str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self.inference = Inference.of(
            Bundle(bundle),
            checkpoint=checkpoint,
            device=device,
            tta=tta,
            postprocess=postprocess,
            tasks=tasks,
            overrides=overrides,
        )
        parser = self.inference.workflow([{"case_id": ""}]).parser  # the engine is built for one case
        self._dataset = parser.get_parsed_content("dataset")
        self._evaluator = parser.get_parsed_content("evaluator")
        self._evaluator.behind = 0
        steps = self._evaluator.postprocessing.transforms
        self._evaluator.postprocessing = Compose([step for step in steps if not isinstance(step, SaveLabelsd)])
        self._evaluator.done = self._keep
        self._evaluator.fire_event(Events.STARTED)  # weights are loaded
        self.label_space: LabelSpace = parser.get_parsed_content("label_space")
        self._finished: Mapping[str, Any] = {}

    @property
    def network(self) -> nn.Module:
        """The network, in evaluation mode."""
        network: nn.Module = unwrap(self._evaluator.network)
        return network.eval()

    def predict(
        self,
        item: Any,
        *,
        spacing: float | Sequence[float] | None = None,
        affine: Any = None,
        modality: str | None = None,
    ) -> Any:
        """Segment one image.

        Args:
            item: a path, a nibabel image, a MetaTensor ``(C, *spatial)``, or an array or tensor ``(*spatial)`` or
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
        items = list(item) if isinstance(item, (list, tuple)) else [item]
        images = tuple(self._image(part, spacing, affine) for part in items)
        (case,) = self.inference.conditioned([Case(stem_of(images[0]), images)], modality)
        self._dataset.data = [case.to_dict()]
        self._evaluator.run()
        if self._evaluator.failures:
            raise DataError("; ".join(self._evaluator.failures.values()))
        indices, meta = torch.as_tensor(self._finished["pred"])[0].numpy(), self._finished["image"].meta
        self._finished = {}
        return _as_given(items[0], self.label_space.decode(indices, case.dataset), meta)

    def _image(self, item: Any, spacing: float | Sequence[float] | None, affine: Any) -> str:
        if isinstance(item, (str, Path)):
            return str(item)
        dims = len(self.inference.recipe.tree["roi_size"])
        if (
            spacing is None
            and affine is None
            and dims == 2
            and not isinstance(item, nibabel.spatialimages.SpatialImage)
        ):
            resampled = model_spacing(self.inference.recipe.tree["preprocess"]) is not None
            spacing = None if resampled or isinstance(item, MetaTensor) else 1.0  # pixels of no known size
        return InMemory.of(item, dims, spacing=spacing, affine=affine)

    def _keep(self, item: Mapping[str, Any]) -> None:
        self._finished = item


def _as_given(item: Any, values: np.ndarray, meta: Mapping[Any, Any]) -> Any:
    """Label values ``(*spatial)`` as an object of the kind of ``item``."""
    if isinstance(item, MetaTensor):
        return MetaTensor(torch.from_numpy(values.copy())[None], affine=item.affine)
    if isinstance(item, torch.Tensor):
        return torch.from_numpy(values.copy())
    if isinstance(item, np.ndarray) or (isinstance(item, (str, Path)) and is_2d_file(item)):
        return values
    header = placed_like(values, meta).header
    return nibabel.Nifti1Image(values, header.get_best_affine(), header)

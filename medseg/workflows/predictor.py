"""A predictor: a bundle's inference, built once, for images in memory and files; the path that `medseg infer` goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import nn

from medseg.data import Case
from medseg.data.fit import model_spacing
from medseg.engines.ranks import unwrap
from medseg.errors import DataError
from medseg.transforms import SaveLabelsd, SaveProbabilitiesd, is_2d_file
from medseg.transforms.in_memory import InMemory
from medseg.transforms.nifti import placed_like
from medseg.transforms.reader import stem_of
from medseg.workflows.inference import Inference

__all__ = ["Predictor"]


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
        self._evaluator.postprocessing = Compose(
            [step for step in steps if not isinstance(step, (SaveLabelsd, SaveProbabilitiesd))]
        )
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
        values = self.inference.label_space.decode(self.indices(case), case.dataset)
        finished, self._finished = self._finished, {}
        return _as_given(given[0], values, finished["image"].meta)

    def indices(self, case: Case) -> np.ndarray:
        """Label indices ``(*spatial)`` of a case in the original image space.

        Raises:
            DataError: the case cannot be used, or failed.
        """
        self._dataset.data = [case.to_dict()]
        self._evaluator.run()
        if self._evaluator.failures:
            raise DataError("; ".join(self._evaluator.failures.values()))
        found: np.ndarray = torch.as_tensor(self._finished["pred"])[0].numpy()
        return found

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

"""A run or bundle in Python: ``load`` it, predict with it, read what it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from medseg.bundle.folder import Bundle
from medseg.engines.run_facts import RunFacts, read_facts
from medseg.engines.run_files import read_history
from medseg.errors import ModelError
from medseg.labels import LabelSpace
from medseg.metrics import Scores
from medseg.settings import Folder
from medseg.workflows.inference import Inference, InferenceSettings
from medseg.workflows.predictor import Predictor

__all__ = ["Run", "load"]


def load(run: Folder, *, checkpoint: str = "best", device: str | None = None, tta: bool = False) -> Run:
    """A run, or a bundle, to predict with and to read.

    Args:
        run: run folder, bundle folder, or name of one of medseg's own bundles.
        checkpoint: best, last, best_<metric> where it is kept, or a file.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        tta: average over mirror images along the axes that training mirrored.

    Raises:
        ModelError: it is neither.

    Examples:
        >>> run = medseg.load("runs/first", device="cpu")
        >>> run
        Run('runs/first')
        >>> run.label_space.labels
        ('liver', 'spleen', 'kidneys')

        A bundle without weights tells what it is as well:

        >>> medseg.load("ssh_unet_btcv_ct_segmentation").label_space.num_channels
        14
    """
    loaded = Run(Bundle(run), InferenceSettings(checkpoint=checkpoint, device=device, tta=tta))
    _ = loaded.bundle.trained  # which is the sentence of a folder that is neither
    return loaded


@dataclass(frozen=True, repr=False)
class Run:
    """A run or bundle on disk; ``load`` makes it. Its files are read when they are first asked for.

    Attributes:
        bundle: its folder and configs.
        settings: how it predicts.

    Examples:
        >>> run = medseg.load("runs/first", device="cpu")
        >>> run.facts.status, run.facts.epochs_done
        ('finished', 1)
        >>> list(run.history)
        ['epoch', 'iteration', 'loss', 'learning_rate', 'mean_dice', 'seconds']
        >>> sorted(run.metrics.labels)
        ['kidneys', 'liver', 'spleen']
        >>> sum(p.numel() for p in run.network.parameters()) == run.facts.parameters
        True
    """

    bundle: Bundle
    settings: InferenceSettings = InferenceSettings()

    def __repr__(self) -> str:
        return f"Run('{_short(self.folder)}')"

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.bundle.root

    @cached_property
    def label_space(self) -> LabelSpace:
        """What the values of its predictions mean.

        Raises:
            ModelError: its configs do not say.
        """
        if "labels" not in self.bundle.trained:
            raise ModelError(
                f"The configs of {self.folder} have no id 'labels'; expected the table of what voxel values mean, as "
                "every bundle of medseg has it. Add it."
            )
        return LabelSpace.from_table(self.bundle.trained["labels"])

    @property
    def network(self) -> nn.Module:
        """The network with its weights, on its device, in evaluation mode.

        Raises:
            ConfigError, ModelError: as ``predict``.
        """
        return self._predictor.network

    @cached_property
    def metrics(self) -> Scores | None:
        """The scores; ``None`` where the run is not validated.

        Raises:
            DataError: it is damaged.
        """
        return Scores.found(self.folder)

    @cached_property
    def history(self) -> dict[str, np.ndarray]:
        """The columns of ``metrics.csv``, one value per epoch, NaN where there is none.

        Raises:
            DataError: it is damaged.
        """
        return read_history(self.folder / "metrics.csv")

    @cached_property
    def facts(self) -> RunFacts:
        """What the run did; of a bundle none is recorded.

        Raises:
            DataError: ``run.json`` is damaged.
        """
        return read_facts(self.folder)

    def predict(
        self,
        image: Any,
        *,
        spacing: float | Sequence[float] | None = None,
        affine: Any = None,
        modality: str | None = None,
    ) -> Any:
        """Segment one image; the network is built at the first one.

        Args:
            image: path, nibabel image, MetaTensor, or array or tensor, as ``Predictor.predict`` takes them.
            spacing: mm per axis of an array, whose axes are taken to run to the right, the front and the top;
            affine: or its index -> RAS mm, 4 x 4.
            modality: such as ``ct``, for a run on several data sets.

        Returns:
            Label values in the original image space, of the kind that was given; of a path a nibabel image, of the
            path of a 2D image an array.

        Raises:
            DataError: the image cannot be used.
            ConfigError: an option is not what the run allows.
            ModelError: there are no weights.

        Examples:
            >>> run = medseg.load("runs/first", device="cpu")
            >>> image = nibabel.load("phantom/imagesTs/organs_006.nii.gz")
            >>> labels = run.predict(image)
            >>> labels.shape == image.shape, bool((labels.affine == image.affine).all())
            (True, True)
            >>> array = run.predict(image.get_fdata(), affine=image.affine)
            >>> array.dtype, bool((array == labels.dataobj).all())
            (dtype('uint8'), True)
        """
        return self._predictor.predict(image, spacing=spacing, affine=affine, modality=modality)

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(Inference.of(self.bundle, self.settings))


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

"""Save what a network is sure of: the probability of each channel, and the uncertainty of each voxel."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Invertd, InvertibleTransform
from PIL import Image

from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.storage import whole_file
from medseg.transforms.each_key import EachKey
from medseg.transforms.nifti import placed_like
from medseg.transforms.picture import as_stored
from medseg.transforms.probability_file import (
    PROBABILITY_TYPES,
    Probabilities,
    files_beside,
    stored_as,
    write_probabilities,
)
from medseg.transforms.reader import is_2d_file
from medseg.transforms.save import label_map_name

__all__ = ["SaveProbabilitiesd", "SaveTaskProbabilitiesd"]

_LEAST = 1e-12  # probability below which a logarithm is clipped
_ROUNDED = 1e-4  # by which a sum of probabilities may miss 1; small ones are not to be lost in it


class SaveProbabilitiesd(EachKey):
    """Write the probability of each channel to ``output_dir/<case_id>.npz`` and, where it is asked for, each voxel's
    entropy to ``output_dir/uncertainty``; the logits pass unchanged, so it stands before what makes labels of them.

    Where preprocessing cropped, all that lies outside is background with probability 1.

    Args:
        keys: logits ``(C, *spatial)``.
        label_space: tells softmax from sigmoid, and the channels' names.
        output_dir: folder of the files.
        transform: the preprocessing that took the image from the source grid; ``None`` for probabilities instead of
            logits that lie in the original image space already, such as those of an ensemble.
        orig_keys: the image whose record of operations is undone.
        dtype: ``float16``, ``float32``, ``uint8`` (steps of 1/255), or ``None`` for no file of probabilities.
        grid: ``source``, the original image space, or ``model``, the grid of the network.
        uncertainty: write the entropy as well, in the original image space: 0 to 1, as share of the largest possible
            one; of sigmoid channels the mean. A 2D image's is a PNG, 0 to 255.
        temperature: divisor of the logits (``medseg calibrate``).

    Raises:
        ConfigError: another type or grid, or a temperature that is not above 0.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_space: LabelSpace,
        output_dir: str | Path,
        transform: InvertibleTransform | None = None,
        orig_keys: str = "image",
        *,
        dtype: str | None = "float16",
        grid: str = "source",
        uncertainty: bool = False,
        temperature: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if dtype not in (*PROBABILITY_TYPES, None) or grid not in ("source", "model"):
            raise ConfigError(
                f"Probabilities as {dtype} on grid '{grid}' are unknown; use {', '.join(PROBABILITY_TYPES)}, on grid "
                "source or model."
            )
        if not temperature > 0:
            raise ConfigError(f"temperature is {temperature}, expected a number above 0; 1 leaves probabilities alone.")
        self.label_space = label_space
        self.output_dir = Path(output_dir)
        self.orig_key = orig_keys
        self.dtype = dtype
        self.grid = grid
        self.uncertainty = uncertainty
        self.temperature = temperature
        self.inverse = transform and Invertd("pred", transform=transform, orig_keys=orig_keys, nearest_interp=False)

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        image, names = data[self.orig_key], self._names(data)
        probabilities = self._probabilities(torch.as_tensor(value)[: len(names)].float())
        if self.dtype is not None and self.grid == "model":
            self._write(probabilities.cpu().numpy(), names, data)
        if self.uncertainty or self.grid == "source":
            source = self._in_source(probabilities, image)
            if self.dtype is not None and self.grid == "source":
                self._write(source, names, data)
            if self.uncertainty:
                self._write_entropy(source, data)
        return value

    def _names(self, data: Mapping[Hashable, Any]) -> Sequence[str]:
        return self.label_space.channels

    @property
    def _exclusive(self) -> bool:
        """Whether the channels' probabilities sum to 1."""
        return self.label_space.mode == "softmax"

    def _probabilities(self, values: torch.Tensor) -> torch.Tensor:
        if self.inverse is None:
            return values
        scaled = values / self.temperature
        return scaled.softmax(0) if self._exclusive else scaled.sigmoid()

    def _in_source(self, probabilities: torch.Tensor, image: MetaTensor) -> np.ndarray:
        """Probabilities ``(C, *source)``, float32."""
        found = np.stack(list(self._inverted(probabilities, image)))
        if self._exclusive:
            rest = 1 - found.sum(0)
            found[0] += np.where(rest > _ROUNDED, rest, 0)
        return found

    def _inverted(self, probabilities: torch.Tensor, image: MetaTensor) -> Iterator[np.ndarray]:
        for channel in probabilities:
            if self.inverse is None:
                yield channel.cpu().numpy()
            else:
                on_grid = MetaTensor(channel[None].cpu(), meta=image.meta)
                inverted: MetaTensor = self.inverse({"pred": on_grid, self.orig_key: image})["pred"]
                yield inverted.as_tensor()[0].numpy()

    def _write(self, values: np.ndarray, names: Sequence[str], data: Mapping[Hashable, Any]) -> None:
        image = data[self.orig_key]
        affine = image.affine if self.grid == "model" else image.meta.get("original_affine", np.eye(4))  # not of a PNG
        found = Probabilities(
            stored_as(values, str(self.dtype)), names, np.asarray(affine, dtype=float), self.temperature, self.grid
        )
        rows = is_2d_file(image.meta["filename_or_obj"])
        write_probabilities(self._files(data)["probabilities"], found, rows=rows)

    def _files(self, data: Mapping[Hashable, Any]) -> dict[str, Path]:
        case_id = str(data["case_id"])
        return files_beside(
            self.output_dir / label_map_name(case_id, data[self.orig_key].meta["filename_or_obj"]), case_id
        )

    def _write_entropy(self, values: np.ndarray, data: Mapping[Hashable, Any]) -> None:
        meta = data[self.orig_key].meta
        entropy = _terms(values).sum(0) / math.log(len(values)) if self._exclusive else _binary(values)
        with whole_file(self._files(data)["uncertainty"], flush=False) as temporary:
            if temporary.suffix == ".png":
                pixels, options = as_stored(stored_as(entropy, "uint8"), int(meta.get("orientation", 1)))
                Image.fromarray(pixels).save(temporary, **options)
            else:
                nibabel.save(placed_like(entropy.astype(np.float32), meta), temporary)


class SaveTaskProbabilitiesd(SaveProbabilitiesd):
    """``SaveProbabilitiesd`` for tasks, each a binary problem of its own.

    Args:
        tasks: names, in the order of the channels; ``None``: those of ``LabelSpace.asked_labels`` for the case.
        keys, label_space, output_dir, kwargs: arguments of ``SaveProbabilitiesd``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_space: LabelSpace,
        output_dir: str | Path,
        tasks: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, label_space, output_dir, **kwargs)
        self.tasks = tasks

    def _names(self, data: Mapping[Hashable, Any]) -> Sequence[str]:
        indices = self.label_space.asked_labels(self.tasks, data.get("dataset"))
        return [self.label_space.labels[index - 1] for index in indices]

    @property
    def _exclusive(self) -> bool:
        return False


def _terms(values: np.ndarray) -> np.ndarray:
    """``-p log p``."""
    terms: np.ndarray = -values * np.log(np.maximum(values, _LEAST))
    return terms


def _binary(values: np.ndarray) -> np.ndarray:
    """Mean over channels of the entropy of "yes or no", as share of ``log 2``."""
    entropy: np.ndarray = (_terms(values) + _terms(1 - values)).mean(0) / math.log(2)
    return entropy

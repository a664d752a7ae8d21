"""A member of an ensemble whose probabilities lie in a folder already, made by medseg, nnU-Net or another program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from monai.data import MetaTensor, decollate_batch
from monai.transforms import Compose
from torch import nn

from medseg.errors import DataError
from medseg.labels import LabelSpace
from medseg.transforms.probability_file import read_probabilities
from medseg.transforms.reader import is_2d_file
from medseg.transforms.slabs import Slabs
from medseg.transforms.to_source import ToSourceGridd

__all__ = ["CASE", "SavedMember", "holds_probabilities", "unprepared"]

CASE = "case_id"  # entry of an image's meta, by which a member finds its file


def holds_probabilities(folder: str | Path) -> bool:
    """Whether a folder is one of predictions with probabilities, and not a run."""
    place = Path(folder)
    return any(place.glob("*.npz")) and not (place / "configs").is_dir()


def unprepared(image: torch.Tensor) -> MetaTensor:
    """The image ``(C, *source)`` of a batch of one, as a reader gives it to the preprocessing: on the CPU, where cases
    of a training are prepared.
    """
    source = decollate_batch(image)[0] if isinstance(image, MetaTensor) else MetaTensor(image[0])
    prepared = cast("MetaTensor", source.cpu())
    prepared.applied_operations = []
    return prepared


class SavedMember(nn.Module):
    """Files ``<case>.npz`` in the place of a network, with the contract of ``Member``.

    Args:
        folder: folder of the files, which are in the original image space.
        label_space: labels or regions that they have a channel each for.
    """

    grid = "saved"  # of all such members

    def __init__(self, folder: Path, label_space: LabelSpace) -> None:
        super().__init__()
        self.folder = folder
        self.label_space = label_space
        self.to_source = ToSourceGridd("pred", Compose([]), label_space)

    def prepare(self, image: torch.Tensor) -> MetaTensor:
        """``(1, C, *source)`` -> ``(C, *source)``."""
        return unprepared(image)

    def slabs(self, prepared: MetaTensor) -> Slabs:
        """Probabilities of an image ``(C, *source)``, float32.

        Raises:
            DataError: no file of the case, or one of other labels or another grid.
        """
        path = self.folder / f"{prepared.meta[CASE]}.npz"
        if not path.is_file():
            raise DataError(
                f"{self.folder} has no {path.name}; expected the probabilities of every case. Save them with "
                "`medseg infer --probabilities float16`."
            )
        found = read_probabilities(path, rows=is_2d_file(prepared.meta["filename_or_obj"]))
        channels = self.label_space.channels
        if len(found.values) != len(channels) or (found.channels and tuple(found.channels) != channels):
            raise DataError(
                f"{path} has the channels {', '.join(found.channels) or len(found.values)}; expected "
                f"{', '.join(channels)}. Join predictions of one label table."
            )
        if found.space != "source" or found.values.shape[1:] != tuple(prepared.shape[1:]):
            raise DataError(
                f"{path} has {found.values.shape[1:]} voxels of grid '{found.space}', the image "
                f"{tuple(prepared.shape[1:])}; expected the original image space. "
                "Save it with --probability_grid source."
            )
        return replace(Slabs.of(torch.from_numpy(found.values)), probable=True)

"""Cases for inference and scoring: files are opened once, and a case that cannot be used does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from monai.data import Dataset
from monai.transforms import Transform

from medseg.data.case import Case
from medseg.data.fit import model_spacing, unfit
from medseg.data.inspect import read_case
from medseg.data.intensities import Expected
from medseg.errors import ConfigError, DataError
from medseg.faults import reason_of, unwrapped
from medseg.labels import LabelSpace

__all__ = ["CaseDataset", "ReadCase"]

logger = logging.getLogger("medseg")


@dataclass(frozen=True)
class ReadCase(Transform):
    """Read the files of a case into memory (``InMemory``), and refuse what a network cannot take; logs warnings, such
    as of intensities that the network does not know.

    Attributes:
        label_space: what label values mean.
        in_channels: number of channels that the network takes.
        roi_size: its patch size, which has its number of spatial axes.
        preprocess: the config's entry, or the function that it stands for: voxel size, range of intensities, whether
            grey 2D images become RGB.
        channel_def: number of a channel -> its modality, as in the bundle's metadata; one name may stand for all.
        label: read the label too.

    Raises:
        DataError: with all that is wrong.
    """

    label_space: LabelSpace
    in_channels: int
    roi_size: Sequence[int]
    preprocess: Mapping[str, Any] | partial[Any]
    channel_def: Mapping[str, str] | None = None
    label: bool = False

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        case = Case.from_entry(data if self.label else {**data, "label": None}, str(data["case_id"]))
        preprocess = self.preprocess.keywords if isinstance(self.preprocess, partial) else self.preprocess
        expected = Expected.of(preprocess, self._channel_names(), case.modality)
        facts, held = read_case(case, self.label_space, self._colors(color=bool(preprocess.get("color"))))
        found = [(p.message, p.remedy) for p in facts.problems if not p.warning]
        if not found:
            spacing = None if self.label else model_spacing(preprocess)  # scores may be of another resolution
            wrong = unfit(facts, len(self.roi_size), self.in_channels, spacing)
            found = [wrong] if wrong is not None else []
        for finding in expected.check(facts.ranges, picture=facts.picture) if not found else ():
            facts.add(finding)
        for warning in (p for p in facts.problems if p.warning):
            logger.warning("%s: %s. %s", facts.case, warning.message, warning.remedy)
        if found:
            raise DataError(" ".join(f"{message}. {remedy}" for message, remedy in found))
        return {**data, **held.to_dict(label=self.label)}

    def _colors(self, *, color: bool) -> Sequence[str] | None:
        """The modality that 2D images are turned into, as ``medseg.transforms.preprocessing`` does it."""
        return ("RGB",) if color else ("grey",) if self.in_channels == 1 and len(self.roi_size) == 2 else None

    def _channel_names(self) -> list[str]:
        given = self.channel_def or {}
        names = [str(given.get(str(channel), "")) for channel in range(self.in_channels)]
        return [names[0]] * self.in_channels if len(given) == 1 else names


class CaseDataset(Dataset):
    """MONAI's data set of this process's share of the cases, where one that fails becomes ``{case_id, failure}``.

    Args:
        data: what ``Case.to_dict`` gives, of all processes.
        transform: from paths, or images in memory, to tensors.
        reader: before that; ``None`` leaves reading and its errors to the transform.

    Raises:
        ConfigError: there is no transform.
    """

    def __init__(self, data: Sequence[Any], transform: Any, reader: ReadCase | None = None) -> None:
        if not callable(transform):
            raise ConfigError(
                f"The cases' transform is {transform!r}; expected a component, a mapping with '_target_'. Name one in "
                "the config."
            )
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        place = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
        super().__init__(list(data)[place[0] :: place[1]], transform)
        self.reader = reader

    def _transform(self, index: int) -> Any:
        data = self.data[index]
        try:
            with unwrapped():
                return self.transform(data if self.reader is None else self.reader(data))
        except Exception as error:  # whatever is wrong with one case must not stop the others
            return {"case_id": data["case_id"], "failure": reason_of(error)}

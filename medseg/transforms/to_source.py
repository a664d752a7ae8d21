"""From a network's logits to a label map in the original image space, a chunk at a time."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Invertd, InvertibleTransform

from medseg.labels import LabelSpace
from medseg.transforms.each_key import EachKey
from medseg.transforms.separable import SourceGrid, source_grid
from medseg.transforms.slabs import CHUNK_BYTES, Slabs

__all__ = ["ToSourceGridd"]


class ToSourceGridd(EachKey):
    """Logits on the model's grid -> label indices in the original image space.

    Equal to "probabilities, inverse of every channel with linear interpolation, argmax" (or a threshold of 0.5 per
    region): all classes of a chunk of voxels at once where the way back runs along the axes (``source_grid``), else
    class by class. Probabilities, not logits, are inverted: outside a crop all of them are 0, which means background.

    Args:
        keys: logits ``(C, *spatial)``.
        transform: the preprocessing that took the image from the source grid.
        label_space: tells softmax from sigmoid and how regions make a label map.
        orig_keys: the image whose record of operations is undone.

    The result is ``(1, *source spatial)`` with the source's affine, uint8 where that holds all labels, else int16.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: InvertibleTransform,
        label_space: LabelSpace,
        orig_keys: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_space = label_space
        self.orig_key = orig_keys
        self.dtype = torch.uint8 if len(label_space.labels) < 256 else torch.int16
        self.inverse = Invertd(keys="pred", transform=transform, orig_keys=orig_keys, nearest_interp=False)

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> MetaTensor:
        slabs = Slabs.of(torch.as_tensor(value).float())
        return self.labels(slabs, data[self.orig_key], data.get("dataset"))

    def probabilities(self, slabs: Slabs, image: MetaTensor) -> torch.Tensor:
        """``(C, *source)`` of a prepared image ``(C, *spatial)``; outside a crop all are 0."""
        grid = source_grid(image)
        if grid is None:
            return torch.cat([self._inverted(channel, image).as_tensor() for channel in self._channels(slabs)])
        grid = grid.reordered(slabs.order)
        result = torch.zeros(slabs.channels, *grid.shape)
        inside = [grid.inside(channel) for channel in result.numpy()]
        for place, values in _chunks(slabs, grid, self.activated):
            for channel, found in zip(inside, values.cpu().numpy(), strict=True):
                channel[place] = found
        return result

    def labels(self, slabs: Slabs, image: MetaTensor, dataset: str | None = None) -> MetaTensor:
        """Label indices ``(1, *source)`` of a prepared image ``(C, *spatial)`` of the data set."""
        exclusive = self._exclusive(dataset)
        grid = source_grid(image)
        if grid is None:
            return self._class_by_class(slabs, image, exclusive)
        labels = torch.zeros(grid.shape, dtype=self.dtype)
        grid = grid.reordered(slabs.order)
        inside = grid.inside(labels.numpy())
        for place, probabilities in _chunks(slabs, grid, self.activated):
            inside[place] = self._decided(probabilities, exclusive)
        return MetaTensor(labels[None], meta={**image.meta, "affine": grid.affine})

    def activated(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities of logits ``(C, *spatial)``."""
        if self.label_space.mode == "sigmoid":
            return logits.sigmoid()
        shares = (logits - logits.amax(0)).exp_()
        return shares.div_(shares.sum(0))

    def _exclusive(self, dataset: str | None) -> tuple[Sequence[int], float] | None:
        """Labels of the channels of which the most probable wins, and the probability that it must be above; ``None``
        for regions, which lie within each other.
        """
        return (range(len(self.label_space.channels)), -1.0) if self.label_space.mode == "softmax" else None

    def _decided(self, channels: Iterable[torch.Tensor], exclusive: tuple[Sequence[int], float] | None) -> np.ndarray:
        """Label indices ``(*spatial)`` of each channel's probabilities ``(*spatial)``; it holds one."""
        if exclusive is None:
            maps = np.stack([(channel > 0.5).cpu().numpy() for channel in channels])
            return self.label_space.compose(maps).astype(np.uint8 if self.dtype is torch.uint8 else np.int16)
        largest = labels = torch.empty(0)
        for number, (index, channel) in enumerate(zip(exclusive[0], channels, strict=False)):
            if number == 0:
                largest = torch.full_like(channel, exclusive[1])
                labels = torch.zeros(channel.shape, dtype=self.dtype, device=channel.device)
            above = (channel > largest).to(self.dtype)  # the first class wins a tie, as with argmax
            labels.mul_(1 - above).add_(above, alpha=index)  # vectorised, other than masked_fill_
            torch.maximum(largest, channel, out=largest)
        return labels.cpu().numpy()

    def _class_by_class(
        self, slabs: Slabs, image: MetaTensor, exclusive: tuple[Sequence[int], float] | None
    ) -> MetaTensor:
        """By MONAI's inverse, which wants whole volumes: of one class at a time."""
        inverted = (self._inverted(channel, image) for channel in self._channels(slabs))
        first = next(inverted)
        channels = (channel.as_tensor()[0] for channel in itertools.chain([first], inverted))
        return MetaTensor(torch.from_numpy(self._decided(channels, exclusive))[None], meta=first.meta)

    def _channels(self, slabs: Slabs) -> Iterator[torch.Tensor]:
        """The probabilities of one channel after the other."""
        logits = slabs.whole()
        if slabs.probable:
            yield from logits
            return
        if self.label_space.mode == "sigmoid":
            yield from (channel.sigmoid() for channel in logits)
            return
        peak = logits.amax(0)
        total = torch.zeros_like(peak)
        for channel in logits:
            total += (channel - peak).exp_()
        yield from ((channel - peak).exp_().div_(total) for channel in logits)

    def _inverted(self, channel: torch.Tensor, image: MetaTensor) -> MetaTensor:
        probabilities = MetaTensor(channel[None].cpu(), meta=image.meta)
        inverted: MetaTensor = self.inverse({"pred": probabilities, self.orig_key: image})["pred"]
        return inverted


def _chunks(
    slabs: Slabs, grid: SourceGrid, activated: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[tuple[tuple[slice, ...], torch.Tensor]]:
    """Probabilities ``(C, *chunk)`` on the source grid, and where in ``grid.inside`` they belong.

    A chunk is some rows of the first axis and some of the second; what its neighbours read as well is made again,
    since features are smaller than probabilities.
    """
    rows, lines = grid.axes[:2]
    order = sorted(range(len(grid.axes)), key=lambda a: len(grid.axes[a].first) / grid.axes[a].matrix.shape[1])
    begin, arrived = 0, 0  # rows that are done, and planes that came
    held: torch.Tensor | None = None  # the last planes, which rows to come read
    for piece in slabs.pieces:
        arrived += piece.shape[1]
        held = piece if held is None or held.shape[1] == 0 else torch.cat([held, piece], 1)
        start = arrived - held.shape[1]
        end = begin + bisect_right(rows.last[begin:], arrived)
        if end > begin:
            planes = slice(rows.first[begin] - start, rows.last[end - 1] - start)
            for part in _parts(grid, end - begin, planes.stop - planes.start, slabs.channels * held.element_size()):
                first = lines.first[part.start]
                values = slabs.logits(held[:, planes, first : lines.last[part.stop - 1]])
                values = values if slabs.probable else activated(values)
                for axis in order:
                    wanted = (range(begin, end), part)[axis] if axis < 2 else range(len(grid.axes[axis].first))
                    offset = (rows.first[begin], first)[axis] if axis < 2 else 0
                    values = grid.axes[axis].apply(values, axis + 1, wanted, offset)
                yield (slice(begin, end), slice(part.start, part.stop)), values
            begin = end
        if begin == len(rows.first):
            return  # what is left of the model's grid lies outside
        held = held[:, max(0, rows.first[begin] - start) :].clone()


def _parts(grid: SourceGrid, rows: int, planes: int, item: int) -> list[range]:
    """Rows of the second axis, so many at once that a chunk keeps to its size on both grids."""
    lines, *others = grid.axes[1:]
    line = item * max(rows, planes) * math.prod(max(len(a.first), a.matrix.shape[1]) for a in others)
    share = min(1.0, len(lines.first) / lines.matrix.shape[1])
    step = max(1, int(CHUNK_BYTES / line * share))
    return [range(i, min(i + step, len(lines.first))) for i in range(0, len(lines.first), step)]

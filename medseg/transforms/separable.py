"""The way from a model's grid back to the source grid as one matrix per axis.

What preprocessing records (crops, padding, flips, changed orders of axes, resampling along the axes) undoes itself
axis by axis, and a product of matrices does for all classes at once what an inverse does class by class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.data.utils import AFFINE_TOL, to_affine_nd
from monai.transforms.utils import create_translate, scale_affine
from monai.utils import TraceKeys

__all__ = [
    "AxisWeights",
    "SourceGrid",
    "axis_positions",
    "linear_weights",
    "positions_along_axes",
    "same_grid",
    "source_grid",
]

_LINEAR = ("linear", "bilinear", "trilinear")
_ACROSS = 1e-3  # voxels by which a voxel may move across its axis for the way to count as along it
_BLOCK = 64  # rows of a matrix product: its band is narrow, all of it mostly zeros


@dataclass(frozen=True)
class AxisWeights:
    """How values along an axis of the source grid follow from those along an axis of the model's.

    Attributes:
        matrix: float64 ``(rows, model size)``, rows in ascending order of the voxels that they read.
        start: first row on the source axis; before it and after the last, voxels lie outside.
        first, last: model voxels that each row reads, ``last`` excluded.
        copied: whether each row is the voxel after that of the row before, as it is.
    """

    matrix: torch.Tensor
    start: int
    first: tuple[int, ...]
    last: tuple[int, ...]
    copied: bool

    @classmethod
    def of(cls, matrix: torch.Tensor) -> AxisWeights:
        """Of all rows of the source axis, those of voxels outside being 0.

        Raises:
            ValueError: no voxel lies inside, or the rows inside are not in one piece and in order.
        """
        read = matrix != 0
        inside = read.any(1).nonzero()[:, 0]
        if len(inside) == 0 or len(inside) != inside[-1] - inside[0] + 1:
            raise ValueError("no piece of the axis lies inside")
        start, stop = int(inside[0]), int(inside[-1]) + 1
        read = read[start:stop].int()
        first = read.argmax(1)
        last = matrix.shape[1] - read.flip(1).argmax(1)
        if (first.diff() < 0).any() or (last.diff() < 0).any():
            raise ValueError("the axis runs backwards")
        inner = matrix[start:stop]
        copied = bool((last - first == 1).all() and (first.diff() == 1).all() and (inner.amax(1) == 1).all())
        return cls(inner, start, tuple(first.tolist()), tuple(last.tolist()), copied)

    def apply(self, values: torch.Tensor, axis: int, rows: range, offset: int) -> torch.Tensor:
        """Rows of the product along an axis of ``values``, whose voxels there begin at ``offset`` of the model's."""
        first, last = self.first[rows.start], self.last[rows.stop - 1]
        values = values.narrow(axis, first - offset, last - first)
        if self.copied:
            return values
        if axis < values.dim() - 1:
            return self._summed(values, axis, rows, first)
        blocks = []
        for begin in range(rows.start, rows.stop, _BLOCK):
            end = min(begin + _BLOCK, rows.stop)
            low, high = self.first[begin], self.last[end - 1]
            blocks.append(values[..., low - first : high - first] @ self.matrix[begin:end, low:high].T.to(values))
        return torch.cat(blocks, axis) if len(blocks) > 1 else blocks[0]

    def _summed(self, values: torch.Tensor, axis: int, rows: range, offset: int) -> torch.Tensor:
        """``apply`` row by row, each a sum of few voxels: quicker than a product but on the last axis."""
        result = values.new_empty((*values.shape[:axis], len(rows), *values.shape[axis + 1 :]))
        for row, found in zip(rows, result.unbind(axis), strict=True):
            low, high = self.first[row], self.last[row]
            first, *others = self.matrix[row, low:high].tolist()
            torch.mul(values.select(axis, low - offset), first, out=found)
            for place, weight in enumerate(others, low + 1 - offset):
                found.add_(values.select(axis, place), alpha=weight)
        return result


@dataclass(frozen=True)
class SourceGrid:
    """The source grid, seen from the model's.

    Attributes:
        axes: weights of each axis of the model's grid.
        order: axis of the source grid that each of them is.
        flipped: whether it runs against the source's.
        shape: spatial shape of the source.
        affine: index -> mm of the source, float64 ``(4, 4)``.
    """

    axes: tuple[AxisWeights, ...]
    order: tuple[int, ...]
    flipped: tuple[bool, ...]
    shape: tuple[int, ...]
    affine: torch.Tensor

    def reordered(self, order: Sequence[int]) -> SourceGrid:
        """Seen from the model's axes in another order."""
        return replace(
            self,
            axes=tuple(self.axes[a] for a in order),
            order=tuple(self.order[a] for a in order),
            flipped=tuple(self.flipped[a] for a in order),
        )

    def inside(self, array: np.ndarray) -> np.ndarray:
        """The part of ``array (*source)`` that the model saw, as a view with the model's axes."""
        view = array.transpose(self.order)[tuple(slice(None, None, -1 if f else 1) for f in self.flipped)]
        return view[tuple(slice(a.start, a.start + len(a.matrix)) for a in self.axes)]


def source_grid(image: MetaTensor) -> SourceGrid | None:
    """The grid that an image ``(C, *spatial)`` was prepared from, by the record of its operations.

    ``None`` where the way back is not along the axes, or a step of it is not known here.
    """
    dims = image.dim() - 1
    sizes = list(image.shape[1:])
    matrices = [torch.eye(n, dtype=torch.float64) for n in sizes]
    order = list(range(dims))  # model axis of each axis of the grid that the way back has come to
    affine = to_affine_nd(3, image.affine).to(torch.float64)
    for record in reversed(image.applied_operations):
        found = _step(record, [len(matrices[a]) for a in order], affine)
        if found is None:
            return None
        steps, moved, affine = found
        for axis, step in zip(order, steps, strict=True):
            matrices[axis] = step @ matrices[axis]
        order = [order[a] for a in moved]
    flipped = [_runs_backwards(matrix) for matrix in matrices]
    try:
        axes = tuple(AxisWeights.of(m.flip(0) if f else m) for m, f in zip(matrices, flipped, strict=True))
    except ValueError:
        return None
    shape = tuple(len(matrices[a]) for a in order)
    return SourceGrid(axes, tuple(order.index(a) for a in range(dims)), tuple(flipped), shape, affine)


def _runs_backwards(matrix: torch.Tensor) -> bool:
    centre = (matrix @ torch.arange(matrix.shape[1], dtype=matrix.dtype))[matrix.any(1)]
    return len(centre) > 1 and bool(centre[0] > centre[-1])


_Step = tuple[Sequence[torch.Tensor], Sequence[int], torch.Tensor]


def _step(record: Mapping[Any, Any], sizes: Sequence[int], affine: torch.Tensor) -> _Step | None:
    """One operation undone: matrices for the axes of the grid after it, which of these axes each axis before it is,
    and the affine before it; ``None`` where that is not along the axes, or not known.
    """
    name, extra = record[TraceKeys.CLASS_NAME], record[TraceKeys.EXTRA_INFO]
    dims, same = len(sizes), range(len(sizes))
    before = [int(n) for n in record[TraceKeys.ORIG_SIZE]]
    if "pad_info" in extra:  # a crop that reaches over the border
        found = _step(extra["pad_info"], sizes, affine)
        cropped = {**record, TraceKeys.EXTRA_INFO: {k: v for k, v in extra.items() if k != "pad_info"}}
        if found is None or (crop := _step(cropped, [len(m) for m in found[0]], found[2])) is None:
            return None
        return [a @ b for a, b in zip(crop[0], found[0], strict=True)], same, crop[2]
    if "padded" in extra:
        pads = [(int(a), int(b)) for a, b in extra["padded"][1:]]
        steps = [torch.eye(n, dtype=torch.float64)[a : n - b] for n, (a, b) in zip(sizes, pads, strict=True)]
        return steps, same, affine @ _translation([a for a, _ in pads])
    if "cropped" in extra:
        cut = np.reshape(extra["cropped"], (-1, 2)).tolist()
        steps = [F.pad(torch.eye(n, dtype=torch.float64), (0, 0, a, b)) for n, (a, b) in zip(sizes, cut, strict=True)]
        return steps, same, affine @ _translation([-a for a, _ in cut])
    if name == "Orientation":
        old = torch.as_tensor(extra["original_affine"], dtype=torch.float64)
        turn = torch.linalg.solve(to_affine_nd(3, old), affine)[:dims, :dims]
        moved = turn.abs().argmax(1)
        if not torch.allclose(turn.abs(), torch.eye(dims, dtype=torch.float64)[moved], atol=AFFINE_TOL):
            return None
        steps = [torch.eye(n, dtype=torch.float64) for n in sizes]
        for row, axis in enumerate(moved.tolist()):
            if turn[row, axis] < 0:
                steps[axis] = steps[axis].flip(0)
        return steps, moved.tolist(), to_affine_nd(3, old)
    if name == "SpatialResample" and extra["padding_mode"] == "border" and extra["mode"] == "bilinear":
        if extra["align_corners"] not in (False, TraceKeys.NONE):
            return None
        old = to_affine_nd(dims, torch.as_tensor(extra["src_affine"])).to(torch.float64)
        new = to_affine_nd(dims, affine)
        weights = _resampled(old, new, sizes, before)
        return None if weights is None else (weights, same, to_affine_nd(3, old))
    if name in ("Resize", "ScaleSized") and (name == "ScaleSized" or extra["mode"] in _LINEAR):
        scale = to_affine_nd(3, torch.as_tensor(scale_affine(before, list(sizes))))
        eyes = [torch.eye(n, dtype=torch.float64)[None] for n in sizes]
        steps = [F.interpolate(eye, n, mode="linear")[0].T for eye, n in zip(eyes, before, strict=True)]
        return steps, same, affine @ torch.linalg.inv(scale)
    return None


def _resampled(
    old: torch.Tensor, new: torch.Tensor, sizes: Sequence[int], before: Sequence[int]
) -> list[torch.Tensor] | None:
    """Weights of MONAI's linear resampling from the affine ``new`` to ``old``; ``None`` where voxels move across the
    axes.
    """
    if same_grid(old, new, before, sizes):
        return [torch.eye(n, dtype=torch.float64) for n in sizes]
    places = positions_along_axes(new, old, sizes, before)
    return places and [linear_weights(place, size) for place, size in zip(places, sizes, strict=True)]


def same_grid(old: torch.Tensor, new: torch.Tensor, before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether MONAI does not resample from one affine, float64, and size to the other."""
    turn = torch.as_tensor(np.linalg.solve(new.numpy(), old.numpy()))
    near = torch.allclose(old, new, atol=AFFINE_TOL) or torch.allclose(
        turn, torch.eye(len(turn)).to(turn), atol=AFFINE_TOL
    )
    return list(before) == list(after) and near


def positions_along_axes(
    old: torch.Tensor, new: torch.Tensor, before: Sequence[int], after: Sequence[int]
) -> list[torch.Tensor] | None:
    """Where, along each axis, the voxels of the affine ``new`` and size ``after`` lie among those of ``old``; ``None``
    where they move across the axes.
    """
    dims = len(before)
    turn = torch.as_tensor(np.linalg.solve(old.numpy(), new.numpy()))
    linear = turn[:dims, :dims]
    across = (linear - linear.diag().diag()).abs() * torch.tensor(after, dtype=torch.float64)
    if across.max() > _ACROSS:
        return None
    return [axis_positions(float(turn[a, a]), float(turn[a, dims]), before[a], after[a]) for a in range(dims)]


def axis_positions(scale: float, offset: float, old: int, new: int) -> torch.Tensor:
    """Where the ``new`` voxels of an axis read the ``old`` ones: ``scale * i + offset`` in voxels, held inside.

    The roundings are those of ``affine_grid`` and ``grid_sample``, so that halves fall as with them.
    """

    def normal(n: int) -> torch.Tensor:
        return torch.tensor([[2 / n, 1 / n - 1], [0, 1]], dtype=torch.float64)

    theta = normal(old) @ torch.tensor([[scale, offset], [0, 1]], dtype=torch.float64)
    theta = theta @ torch.as_tensor(np.linalg.inv(normal(new).numpy()))
    base = torch.linspace(-1, 1, new, dtype=torch.float64) * (new - 1) / new
    return (((base * theta[0, 0] + theta[0, 1] + 1) * old - 1) / 2).clamp(0, old - 1)


def linear_weights(positions: torch.Tensor, size: int) -> torch.Tensor:
    """The matrix ``(rows, size)`` of linear interpolation at positions in voxels."""
    low = positions.floor().long()
    share = positions - low
    weights = torch.zeros(len(positions), size, dtype=torch.float64)
    weights.scatter_(1, low[:, None], (1 - share)[:, None])
    return weights.scatter_add_(1, (low + 1).clamp(max=size - 1)[:, None], share[:, None])


def _translation(shift: Sequence[int]) -> torch.Tensor:
    return torch.as_tensor(create_translate(3, [*shift, 0, 0][:3]), dtype=torch.float64)

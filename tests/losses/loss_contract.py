"""What every loss promises: checks that take a way to judge logits by labels, and say what it breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from medseg.labels import IGNORE

Judge = Callable[[Tensor, Tensor], Tensor]
Check = Callable[[Judge], Iterator[str]]
LABEL_TYPES = (torch.int16, torch.int64, torch.uint8, torch.float32)


def sample(dtype: torch.dtype, label_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits of three channels and labels 0 to 2, nothing ignored."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64).to(dtype)
    return logits, torch.randint(0, 3, (2, 1, 4, 5, 6), generator=generator).to(label_dtype)


def value_and_gradient(judge: Judge, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = judge(leaf, labels)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def close(found: Tensor, expected: Tensor, rtol: float = 1e-7, atol: float = 1e-9) -> bool:
    return torch.allclose(found.double(), expected.double(), rtol=rtol, atol=atol)


# ---------------------------------------------------------------------- checks
def label_types(judge: Judge) -> Iterator[str]:
    """A finite value and a finite, non-zero gradient, the same for labels of each type that training gives."""
    expected = value_and_gradient(judge, *sample(torch.float32, torch.int64))
    for dtype in LABEL_TYPES:
        try:
            value, gradient = value_and_gradient(judge, *sample(torch.float32, dtype))
        except (RuntimeError, TypeError) as error:
            yield f"labels of {dtype} are refused: {error}"
            continue
        if value.shape != () or not value.isfinite():
            yield f"with labels of {dtype} its value is {value}"
        if not gradient.isfinite().all() or not gradient.any():
            yield f"with labels of {dtype} its gradient is zero or not finite"
        if not close(value, expected[0]) or not close(gradient, expected[1]):
            yield f"labels of {dtype} give other numbers than int64"


def ignored_anywhere(judge: Judge) -> Iterator[str]:
    """Ignored voxels, wherever they lie, change neither value nor gradient: it is as if they were not there."""
    logits, labels = sample(torch.float64, torch.int16)
    for where in range(4):  # scattered, at the start, at the end, within
        ignored = torch.zeros(labels[0].numel(), dtype=torch.bool)
        ignored[(slice(0, None, 7), slice(0, 30), slice(-30, None), slice(40, 75))[where]] = True
        if where == 0:
            ignored = ignored[torch.randperm(len(ignored), generator=torch.Generator().manual_seed(0))]
        kept = [x.flatten(2)[..., ~ignored][..., None, None] for x in (logits, labels)]
        value, expected = value_and_gradient(judge, *kept)
        marked = labels.flatten(2).masked_fill(ignored, IGNORE).view_as(labels)
        for noise in (0.0, 30.0):
            changed = logits + noise * ignored.view(labels.shape[2:])  # the same in all channels moves no softmax
            changed[:, :1] += noise * ignored.view(labels.shape[2:])
            found, gradient = value_and_gradient(judge, changed, marked)
            gradient = gradient.flatten(2)
            if not close(found, value):
                yield f"ignored voxels {where} change its value from {float(value):.6g} to {float(found):.6g}"
            if gradient[..., ignored].any():
                yield f"ignored voxels {where} have a gradient"
            if not close(gradient[..., ~ignored], expected[..., 0, 0]):
                yield f"ignored voxels {where} change the gradient of others"


def all_ignored(judge: Judge) -> Iterator[str]:
    """With nothing but ignored voxels the value is finite and there is no gradient."""
    logits, labels = sample(torch.float32, torch.int16)
    value, gradient = value_and_gradient(judge, logits, torch.full_like(labels, IGNORE))
    if not value.isfinite() or not gradient.isfinite().all() or gradient.any():
        yield f"with nothing but ignored voxels its value is {float(value)}, its gradient up to {float(gradient.max())}"


def half_precision(judge: Judge) -> Iterator[str]:
    """Half precision gives float32 and nearly the numbers of float64, on a volume whose sums exceed float16's range."""
    for dtype in (torch.float16, torch.bfloat16):
        logits, labels = (x.repeat(1, 1, 24, 24, 1) for x in sample(dtype, torch.float32))
        labels[..., 4:] = IGNORE
        value, gradient = value_and_gradient(judge, logits, labels)
        exact, expected = value_and_gradient(judge, logits.double(), labels)
        if value.dtype != torch.float32:
            yield f"of {dtype} logits its value is {value.dtype}"
        if not close(value, exact, 1e-3, 1e-4) or not close(gradient, expected, 2e-2, 1e-6):
            yield f"of {dtype} logits its numbers are not those of float64"


CHECKS: tuple[Check, ...] = (label_types, ignored_anywhere, all_ignored, half_precision)

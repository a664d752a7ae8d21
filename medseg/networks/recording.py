"""While a network is recorded: traced, exported or compiled.

``torch.jit.trace`` hands out sizes as tensors, ``torch.export`` with dynamic shapes as symbols. Whoever turns them into
numbers (``int``, ``math.ceil``, ``if padded != size``) freezes the recording to the example's size. Arithmetic with
``+ - * // %`` keeps them: pad by ``-n % divisor``, which may be 0, and always crop.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["autocasting", "exporting", "full_precision", "largest", "recording", "sizes_are_symbols"]


def recording() -> bool:
    """Whether the current forward is being traced, exported or compiled. Scripts have branches of their own."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def exporting() -> bool:
    """Whether it is traced or exported: what is recorded runs elsewhere too, on other devices and batches."""
    # torch.compiler.is_exporting() reads the same, but before torch 2.13 it is true for whatever is compiled.
    return torch.jit.is_tracing() or torch.compiler._is_exporting_flag


def autocasting(x: Tensor) -> bool:
    """Whether autocast is on for the device of ``x``; torch has none for its meta device, and raises.

    A script cannot know, and takes it to be on.
    """
    if torch.jit.is_scripting():
        return True
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """No autocast on the device of ``x``, for what would lose too many digits in half precision."""
    return torch.autocast(x.device.type, enabled=False) if autocasting(x) else nullcontext()


def sizes_are_symbols(x: Tensor) -> bool:
    """Whether the spatial sizes of ``x: (B, C, *spatial)`` stand for any size: no branch may depend on them."""
    if torch.jit.is_scripting():
        return False
    return not all(isinstance(n, int) for n in x.shape[2:])


def largest(sizes: list[int]) -> int:
    """The largest of some sizes, by arithmetic alone."""
    result = sizes[0]
    for n in sizes[1:]:
        result = (result + n + abs(result - n)) // 2
    return result

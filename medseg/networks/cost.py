"""What a network costs on paper: parameters, and the multiply-adds of a pass.

Convention: one multiply-add is one multiplication and one addition (two FLOP) of real numbers. Counted are
convolutions, matrix products and attention, as ``torch.utils.flop_counter`` counts them; products of complex matrices
as four real ones; and Fourier transforms by the usual model of 5 N log2 N FLOP for N complex points, half of that for
real ones (Frigo and Johnson, Proc. IEEE 93(2), 2005). Not counted, as in the literature: normalisation, activation,
pooling, interpolation and other element-wise work. Operators that are no part of torch are named as not counted.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, flop_registry

__all__ = ["CONVENTION", "MultiplyAdds", "count_multiply_adds", "count_parameters", "multiply_adds_of"]

CONVENTION = (
    "A multiply-add is two FLOP. Counted: convolutions, matrix products, attention (complex products as four real "
    "ones) and Fourier transforms (5 N log2 N FLOP, half for real input); not counted: normalisation, activation, "
    "pooling, interpolation."
)

_aten = torch.ops.aten
# Products that torch 2.13 has no formula for; they hardly occur in networks, but must not go unnoticed.
_PRODUCTS = ("mv", "addmv", "dot", "vdot", "addbmm", "_cdist_forward", "_int_mm", "mkldnn_rnn_layer")


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds of a pass.

    Attributes:
        total: their number.
        by_operation: operator of torch -> its share.
        not_counted: operators that took part and have no formula.
    """

    total: int
    by_operation: dict[str, int]
    not_counted: tuple[str, ...]


def count_parameters(network: nn.Module) -> int:
    """The number of parameters, as ``medseg networks`` states it: all of them, no buffers."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_multiply_adds(run: Callable[[], object]) -> MultiplyAdds:
    """The multiply-adds of what ``run`` computes, forward and backward."""
    seen = _Operators()
    with seen, FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        run()
    counts = counter.get_flop_counts().get("Global", {})
    shares = {str(packet).removeprefix("aten."): flops // 2 for packet, flops in counts.items()}
    own = ("aten.", "prim.", "prims.")
    names = {str(packet) for packet in seen.packets - counts.keys()}
    foreign = {name for name in names if not name.startswith(own)} | {f"aten.{name}" for name in _PRODUCTS} & names
    return MultiplyAdds(sum(shares.values()), shares, tuple(sorted(foreign)))


def multiply_adds_of(network: nn.Module, shape: Sequence[int], *, training: bool = False) -> MultiplyAdds:
    """The multiply-adds of a pass over an input of ``shape (B, C, *spatial)``.

    The pass runs on torch's meta device, without time and memory; a network that cannot run there, on its own.

    Args:
        network: stays as it is.
        shape: shape of the input, which is zero.
        training: forward in training mode and backward of all heads.
    """
    try:
        return _pass(copy.deepcopy(network).to("meta"), shape, training)
    except (NotImplementedError, RuntimeError):
        return _pass(copy.deepcopy(network), shape, training)


def _pass(network: nn.Module, shape: Sequence[int], training: bool) -> MultiplyAdds:
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    network.train(training)
    if not training:
        network.requires_grad_(False)  # torch's counter hooks into gradients, not into passes under no_grad

    def run() -> None:
        result = network(torch.zeros(tuple(shape), device=device))
        if training:
            heads = [result] if isinstance(result, torch.Tensor) else list(result)
            torch.stack([head.sum() for head in heads]).sum().backward()

    return count_multiply_adds(run)


class _Operators(TorchDispatchMode):
    """Notes the operators that run below torch's counter, which keeps silent about those that it has no formula for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.packets: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.packets.add(getattr(func, "overloadpacket", func))
        return func(*args, **(kwargs or {}))


def _on_tensors(formula: Callable[..., int]) -> Callable[..., int]:
    """Marks a formula that torch's counter calls with tensors instead of their shapes."""
    formula._get_raw = True  # type: ignore[attr-defined]  # a mark on the function
    return formula


def _product(packet: Any) -> Callable[..., int]:
    """torch's formula of an operator, times four where numbers are complex."""

    @_on_tensors
    def flops(*args: Any, **kwargs: Any) -> int:
        return int(flop_registry[packet](*args, **kwargs)) * (4 if args[0].is_complex() else 1)

    return flops


def _fourier(x: Sequence[int], dim: Sequence[int], *args: Any, out_shape: Sequence[int], **kwargs: Any) -> int:
    """2.5 N log2 N per real transform of N points; half of the spectrum is stored, the other grid is the full one."""
    full = max(x, out_shape, key=math.prod)
    return round(2.5 * math.prod(full) * math.log2(math.prod(full[axis] for axis in dim)))


def _complex_fourier(x: Sequence[int], dim: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """5 N log2 N per transform of N points."""
    return 2 * _fourier(x, dim, out_shape=x)


def _convolution_backward(grad: list[int], x: list[int], weight: list[int], *args: Any, **kwargs: Any) -> int:
    """As much as forward for each gradient that is asked for; torch 2.13 forgets the groups of the weights'."""
    transposed, mask = args[4], args[7]
    return conv_flop_count(x, weight, grad, transposed=transposed) * (int(mask[0]) + int(mask[1]))


# What torch 2.13 counts otherwise or not at all.
_FORMULAS: dict[Any, Callable[..., int]] = {
    **{packet: _product(packet) for packet in (_aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm)},
    _aten.convolution_backward: _convolution_backward,
    **dict.fromkeys((_aten._fft_r2c, _aten._fft_c2r), _fourier),
    _aten._fft_c2c: _complex_fourier,
    _aten._scaled_dot_product_flash_attention_for_cpu: _product(_aten._scaled_dot_product_flash_attention),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _product(
        _aten._scaled_dot_product_flash_attention_backward
    ),
}

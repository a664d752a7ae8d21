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
from torch.utils.flop_counter import conv_flop_count, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

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
    counter = _Counter()
    with counter:
        run()
    shares = {str(packet).removeprefix("aten."): flops // 2 for packet, flops in counter.flops.items()}
    own = ("aten.", "prim.", "prims.")
    names = {str(packet) for packet in counter.without}
    foreign = {name for name in names if not name.startswith(own)} | {f"aten.{name}" for name in _PRODUCTS} & names
    return MultiplyAdds(sum(shares.values()), shares, tuple(sorted(foreign)))


def multiply_adds_of(network: nn.Module, shape: Sequence[int], *, training: bool = False) -> MultiplyAdds:
    """The multiply-adds of a pass over an input of ``shape (B, C, *spatial)``.

    The pass runs on torch's meta device, without time and memory; a network that cannot run there, on its own.

    Args:
        network: stays as it is.
        shape: of the input, which is zero.
        training: forward in training mode and backward of all heads.
    """
    try:
        return _pass(copy.deepcopy(network).to("meta"), shape, training)
    except (NotImplementedError, RuntimeError):
        return _pass(copy.deepcopy(network), shape, training)


def _pass(network: nn.Module, shape: Sequence[int], training: bool) -> MultiplyAdds:
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    network.train(training)

    def run() -> None:
        with torch.set_grad_enabled(training):
            result = network(torch.zeros(tuple(shape), device=device))
            if training:
                heads = [result] if isinstance(result, torch.Tensor) else list(result)
                torch.stack([head.sum() for head in heads]).sum().backward()

    return count_multiply_adds(run)


class _Counter(TorchDispatchMode):
    """Adds up the FLOP of the operators that run; ``torch.utils.flop_counter.FlopCounterMode`` also hooks into every
    module, and some networks cannot train with that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops: dict[Any, int] = {}
        self.without: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "overloadpacket", func)
        formula = _FORMULAS.get(packet)
        if formula is None and hasattr(func, "decompose"):
            with self:
                result = func.decompose(*args, **kwargs)  # of what it is made, where it is made of others
            if result is not NotImplemented:
                return result
        out = func(*args, **kwargs)
        if formula is None:
            self.without.add(packet)
        else:
            self.flops[packet] = self.flops.get(packet, 0) + formula(*args, **kwargs, out_val=out)
        return out


def _product(packet: Any) -> Callable[..., int]:
    """torch's formula, times four where numbers are complex."""

    def flops(*args: Any, out_val: torch.Tensor, **kwargs: Any) -> int:
        return flop_registry[packet](*args, out_val=out_val, **kwargs) * (4 if out_val.is_complex() else 1)

    return flops


def _fourier(full_size: Callable[..., torch.Tensor], real: bool) -> Callable[..., int]:
    """5 N log2 N per transform of N points, half where input or output is real; ``full_size`` of the two tensors."""

    def flops(x: torch.Tensor, dim: Sequence[int], *args: Any, out_val: torch.Tensor, **kwargs: Any) -> int:
        full = full_size(x, out_val)
        points = math.prod(full.shape[axis] for axis in dim)
        return round(full.numel() * math.log2(max(points, 1)) * (2.5 if real else 5.0))

    return flops


def _convolution_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *args: Any, out_val: Any = None, **kwargs: Any
) -> int:
    """As much as forward for each gradient that is asked for; torch 2.13 forgets the groups of the weights'."""
    transposed, mask = args[4], args[7]
    forward = conv_flop_count(list(x.shape), list(weight.shape), list(grad.shape), transposed=transposed)
    return forward * (int(mask[0]) + int(mask[1]))


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(q.shape, k.shape, v.shape)


def _attention_backward(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any
) -> int:
    return sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)


_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    **{packet: _product(packet) for packet in (_aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm)},
    _aten.convolution_backward: _convolution_backward,
    _aten._fft_r2c: _fourier(lambda x, out: x, real=True),
    _aten._fft_c2r: _fourier(lambda x, out: out, real=True),
    _aten._fft_c2c: _fourier(lambda x, out: x, real=False),
    # The CPU's fused attention, which torch 2.13 leaves out of its table.
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}

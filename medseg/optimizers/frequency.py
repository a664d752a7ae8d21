"""Bayesian frequency re-parameterisation: the taps of a depth-wise kernel learn the slower the farther they lie from
its centre (Lee et al., MICCAI 2023, arXiv 2303.05785).

``delta = alpha / (d + alpha)`` per tap, ``d`` its distance from the centre in voxels, the same for all channels. With
``W`` the stored kernel, ``g`` the gradient at the kernel that the forward uses, and ``Opt`` the optimiser's step:

============  ===================  ======================================  ==========================================
mode          forward uses         step                                    remark
============  ===================  ======================================  ==========================================
effective     delta W              W <- Opt(W, delta g)                    the paper's figure 2d; any optimiser
update        W                    W <- W + delta (Opt(W, g) - W)          a learning rate per tap; any optimiser
gradient      W                    W <- Opt(W, delta g)                    RepOptimizer; no effect under Adam and AdamW
decay         W, W <- delta W      W <- Opt(W, g)                          the paper's equation 3 to the letter; shrinks
              before each          \\                                       in training alone; the kernel stays nearly
              training forward     \\                                       a single tap
as_released   W, W <- delta W      none                                    the released program: kernels are never
              before each forward  \\                                       trained and shrink to their centre
none          W                    W <- Opt(W, g)                          control
============  ===================  ======================================  ==========================================

Whatever the mode, the network itself always holds the kernels that its forward uses: validation, averaging, export
and inference need nothing, and a checkpoint's network loads into a plain one. In ``effective`` mode the raw ``W`` is
part of the optimiser's state, and the network's kernel is ``delta W``, one float32 product per tap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medseg.errors import ConfigError, nearest

__all__ = ["MODES", "frequency_mask", "frequency_reparameterized"]

MODES = ("effective", "update", "gradient", "decay", "as_released", "none")
_RAW = "frequency_raw"  # the optimiser's state per kernel
_MODE, _ALPHA = "frequency_mode", "frequency_alpha"  # in the optimiser's groups, hence in checkpoints

Masks = dict[nn.Parameter, Tensor]


def frequency_mask(kernel_size: Sequence[int], alpha: float = 1.0) -> Tensor:
    """``alpha / (d + alpha)`` for each tap ``(*kernel_size)``, float32; the centre is index ``k // 2``.

    Raises:
        ConfigError: ``alpha`` is not positive.
    """
    if not alpha > 0:
        raise ConfigError(f"alpha is {alpha}; use a positive length in voxels, as published 1.")
    axes = [torch.arange(k, dtype=torch.float64) - k // 2 for k in kernel_size]
    squares = [axis.square().view([-1 if i == j else 1 for j in range(len(axes))]) for i, axis in enumerate(axes)]
    distance = sum(squares[1:], squares[0]).sqrt()
    return (alpha / (distance + alpha)).to(torch.float32)


def frequency_reparameterized(
    optimizer: Optimizer,
    network: nn.Module,
    *,
    mode: str = "effective",
    alpha: float = 1.0,
    layers: Sequence[str] | None = None,
    initial: str | Mapping[str, Any] = "raw",
) -> Optimizer:
    """The optimiser, which from now on trains the network's large kernels by ``mode``; for a bundle's YAML::

        optimizer:
          _target_: medseg.optimizers.frequency_reparameterized
          network: "@network"
          mode: effective
          optimizer: {_target_: torch.optim.AdamW, params: …, lr: "@learning_rate"}

    Weights that are loaded later are taken as the kernels that the forward uses.

    Args:
        optimizer: any that holds the network's parameters; its state dict names mode and alpha, and refuses others.
        network: plain or wrapped for data-parallel training.
        mode: see above.
        alpha: in voxels; published 1.
        layers: patterns of module names, such as ``["stages.*.conv"]``; default: all depth-wise convolutions with more
            than one tap.
        initial: what the kernels are now: ``raw`` (a fresh network) or ``effective`` (trained weights, whose function
            must stay); or a config's ``initial``, whose ``path`` tells which. Matters in ``effective`` mode only.

    Raises:
        ConfigError: an unknown mode, or no such layer in the network or the optimiser.
    """
    if isinstance(initial, Mapping):
        initial = "effective" if initial["path"] else "raw"
    for name, value, known in (("mode", mode, MODES), ("initial", initial, ("raw", "effective"))):
        if value not in known:
            raise ConfigError(f"No {name} '{value}'.{nearest(str(value), known)} Known: {', '.join(known)}.")
    if isinstance(network, nn.parallel.DistributedDataParallel):
        network = network.module
    own = {p for group in optimizer.param_groups for p in group["params"]}
    chosen = {name: module for name, module in _kernels(network, layers) if module.weight in own}
    if not chosen:
        raise ConfigError(
            f"{type(network).__name__} has no depth-wise convolution that this optimiser trains"
            f"{f' among the layers {list(layers)}' if layers else ''}; name its convolutions with `layers`."
        )
    masks: Masks = {m.weight: frequency_mask(m.weight.shape[2:], alpha).to(m.weight.device) for m in chosen.values()}
    if mode == "effective":
        _Effective(optimizer, masks, initial)
    elif mode == "update":
        _Update(optimizer, masks)
    elif mode == "gradient":
        optimizer.register_step_pre_hook(lambda *_: _scale_gradients(masks))
    elif mode == "as_released":
        optimizer.register_step_pre_hook(lambda *_: _drop_gradients(masks))
    if mode in ("decay", "as_released"):
        for module in chosen.values():
            module.register_forward_pre_hook(_shrink(masks[module.weight], training_only=mode == "decay"))
    _guard(optimizer, mode, alpha)
    return optimizer


def _kernels(network: nn.Module, layers: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    for name, module in network.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.dim() < 3 or max(weight.shape[2:]) == 1:
            continue
        depthwise = getattr(module, "groups", 1) > 1 and weight.shape[1] == 1
        if not isinstance(module, nn.modules.conv._ConvTransposeNd) and (
            depthwise if layers is None else any(fnmatch(name, pattern) for pattern in layers)
        ):
            yield name, module


class _Effective:
    """Before a step the kernels become the raw ones, after it their products with the mask again."""

    def __init__(self, optimizer: Optimizer, masks: Masks, initial: str) -> None:
        self.masks = masks
        self.first: dict[nn.Parameter, Tensor] = {}
        # Raw kernels, and the kernels' versions, of the last step.
        self.made: dict[nn.Parameter, tuple[Tensor, int]] = {}
        if initial == "raw":
            with torch.no_grad():
                for weight, mask in masks.items():
                    self.first[weight] = weight.detach().clone()
                    weight.mul_(mask)
        optimizer.register_step_pre_hook(self.before)
        optimizer.register_step_post_hook(self.after)

    @torch.no_grad()
    def before(self, optimizer: Optimizer, *_: Any) -> None:
        for weight, mask in self.masks.items():
            if weight.grad is None:
                continue
            # Not in the state before the first step: optimisers take a filled state for one of their own.
            raw = optimizer.state[weight].get(_RAW) if weight in optimizer.state else self.first.pop(weight, None)
            made, version = self.made.get(weight, (None, -1))
            own = made is raw and version == weight._version  # which needs no wait for a GPU
            if raw is None or not (own or torch.equal(raw * mask, weight)):  # other weights were loaded since
                raw = weight / mask
            weight.grad.mul_(mask)
            weight.copy_(raw)

    @torch.no_grad()
    def after(self, optimizer: Optimizer, *_: Any) -> None:
        for weight, mask in self.masks.items():
            if weight.grad is not None:
                raw = optimizer.state[weight][_RAW] = weight.detach().clone()
                weight.mul_(mask)
                self.made[weight] = raw, weight._version


class _Update:
    """Of what a step changes in a kernel, the mask's share is kept."""

    def __init__(self, optimizer: Optimizer, masks: Masks) -> None:
        self.masks = masks
        self.previous: dict[nn.Parameter, Tensor] = {}
        optimizer.register_step_pre_hook(self.before)
        optimizer.register_step_post_hook(self.after)

    def before(self, *_: Any) -> None:
        self.previous = {weight: weight.detach().clone() for weight in self.masks}

    @torch.no_grad()
    def after(self, *_: Any) -> None:
        for weight, previous in self.previous.items():
            weight.copy_(previous + self.masks[weight] * (weight - previous))
        self.previous = {}


def _scale_gradients(masks: Masks) -> None:
    for weight, mask in masks.items():
        if weight.grad is not None:
            weight.grad.mul_(mask)


def _drop_gradients(masks: Masks) -> None:
    for weight in masks:
        weight.grad = None


def _shrink(mask: Tensor, training_only: bool) -> Callable[..., None]:
    def before_forward(module: Any, _: Any) -> None:
        if module.training or not training_only:
            with torch.no_grad():
                module.weight.mul_(mask)

    return before_forward


def _guard(optimizer: Optimizer, mode: str, alpha: float) -> None:
    """Write mode and alpha into the optimiser's state dict, and refuse one of others."""
    for group in optimizer.param_groups:
        group[_MODE], group[_ALPHA] = mode, float(alpha)

    def check(_: Optimizer, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            saved = group.get(_MODE, "none"), group.get(_ALPHA, float(alpha))
            if saved != (mode, float(alpha)):
                raise ConfigError(
                    f"The checkpoint was trained with frequency mode '{saved[0]}' and alpha {saved[1]}, this run has "
                    f"'{mode}' and {alpha}; use the same, or begin a new run with its weights."
                )

    optimizer.register_load_state_dict_pre_hook(check)

"""LAMB: Adam whose step is scaled to the length of each tensor (You et al. 2020, arXiv 1904.00962, algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from medseg.errors import ConfigError

__all__ = ["Lamb"]


class Lamb(Optimizer):
    """``p -= lr * r * u`` with ``u = m / (sqrt(v) + eps) + weight_decay * p`` and ``r = |p| / |u|`` per tensor.

    m and v are the bias-corrected moments of the gradient, which is first scaled down where the norm of all gradients
    together exceeds ``max_grad_norm``. ``r`` is 1 for a tensor of zeros and without weight decay, as in the fused
    implementation that the published weights of Hermes were trained with.

    Args:
        max_grad_norm: ``None`` for no clipping, for example where the trainer's ``clip_norm`` does it.

    Raises:
        ConfigError: a number out of its range.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = 1.0,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay), ("max_grad_norm", max_grad_norm)):
            if value is not None and not value >= 0:
                raise ConfigError(f"{name} of LAMB is {value}, expected 0 or more.")
        if not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"betas of LAMB are {list(betas)}, expected two numbers from 0 to below 1.")
        self.max_grad_norm = max_grad_norm
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        scale = torch.ones(())
        if self.max_grad_norm is not None and gradients:
            scale = (get_total_norm(gradients) / self.max_grad_norm).clamp(min=1).reciprocal()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad * scale.to(p.grad), group)
        return loss

    def _update(self, p: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        state["step"] += 1
        step, (beta1, beta2) = int(state["step"]), group["betas"]
        m = state["exp_avg"].lerp_(gradient, 1 - beta1)
        v = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = v.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        update = (m / root).div_(1 - beta1**step)
        if group["weight_decay"]:
            update.add_(p, alpha=group["weight_decay"])
            length, reach = torch.linalg.vector_norm(p), torch.linalg.vector_norm(update)
            update.mul_(torch.where((length > 0) & (reach > 0), length / reach, 1.0))
        p.sub_(update, alpha=group["lr"])

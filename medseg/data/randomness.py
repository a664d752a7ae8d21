"""Every random number is a function of (seed, place, epoch, index): nothing random is ever saved or restored."""

from __future__ import annotations

import random

import numpy as np
import torch

__all__ = ["derive_seed", "seed_everything"]


def derive_seed(*parts: int) -> int:
    """A 32-bit seed from non-negative integers such as (seed, epoch, index); neighbouring parts give unrelated
    seeds.
    """
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def seed_everything(*parts: int) -> None:
    """Seed ``random``, NumPy and torch from the same parts."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)

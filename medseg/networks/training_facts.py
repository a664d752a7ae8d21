"""How networks are trained otherwise than a recipe says, with the evidence.

Facts of medseg's own networks stand in their ``@register(...)``, those of MONAI's here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from medseg.networks.catalog import catalog

__all__ = ["TrainingFacts", "training_facts"]


@dataclass(frozen=True)
class TrainingFacts:
    """What a recipe leaves to the network.

    Attributes:
        heads: whether ``deep_supervision`` trains heads at lower resolutions; elsewhere the argument says something
            else, or is not there.
        rate: factor of the recipe's learning rate of AdamW.
        light_rate: further factor of it where the network is planned light, for a CPU.
        changes: config id of train.yaml -> value, such as ``optimizer::_target_``, ``weight_decay``, ``clip_norm``,
            ``ema_decay`` or ``lr_scheduler::warmup``, likewise of recipes with AdamW.
        evidence: how rates and changes are known.
        bf16_time: time of a training step in bf16 on a CPU that multiplies it, where float32 takes 1; ``None`` where it
            is not clearly less. Measured on an AMD EPYC with AVX-512 BF16: one thread, patches of 32 x 64 x 32,
            networks as planned for a CPU.
    """

    heads: bool = False
    rate: float = 1.0
    light_rate: float = 1.0
    changes: Mapping[str, Any] = field(default_factory=dict)
    evidence: str = ""
    bf16_time: float | None = None


_TRANSFORMER = TrainingFacts(rate=0.1, evidence="AdamW; transformers diverge at the rates of convolutional networks")
_MONAI = {
    "DynUNet": TrainingFacts(heads=True, bf16_time=0.6),
    "MedNeXt": TrainingFacts(heads=True),
    "SwinUNETR": _TRANSFORMER,
    "UNETR": _TRANSFORMER,
}


def training_facts(network: type[nn.Module]) -> TrainingFacts:
    """Of a network's class; a user's own has none."""
    for facts in catalog().values():
        if (facts.module, facts.class_name) == (network.__module__, network.__name__):
            return TrainingFacts(**{one.name: getattr(facts, one.name) for one in fields(TrainingFacts)})
    known = _MONAI if network.__module__.startswith("monai.") else {}
    return known.get(network.__name__, TrainingFacts())

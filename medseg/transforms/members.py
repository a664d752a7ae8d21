"""The predictions of an ensemble's members become one, by MONAI's ensemble transforms."""

from __future__ import annotations

from collections.abc import Sequence

from monai import transforms as mt
from monai.transforms import Compose, Transform

from medseg.errors import ConfigError
from medseg.labels import LabelSpace

__all__ = ["join_members"]


def join_members(keys: Sequence[str], label_space: LabelSpace, method: str = "mean") -> Compose:
    """Logits ``(K, *spatial)`` under each of ``keys`` -> probabilities, or voted labels as 0 and 1, under ``pred``.

    Args:
        keys: of the members' predictions.
        label_space: of their channels.
        method: ``mean`` of probabilities or ``vote`` of labels.

    Raises:
        ConfigError: an unknown method.
    """
    if method not in ("mean", "vote"):
        raise ConfigError(f"method is '{method}'; use 'mean' or 'vote'.")
    softmax, classes = label_space.mode == "softmax", label_space.num_channels
    if method == "mean":
        probabilities = mt.Activationsd(keys, softmax=softmax, sigmoid=not softmax)
        return Compose([probabilities, mt.MeanEnsembled(keys, output_key="pred")])
    if not softmax:  # of logits: 0 is a probability of one half
        return Compose([mt.AsDiscreted(keys, threshold=0.0), mt.VoteEnsembled(keys, output_key="pred")])
    steps: list[Transform] = [
        mt.AsDiscreted(keys, argmax=True),
        mt.VoteEnsembled(keys, output_key="pred", num_classes=classes),
        mt.AsDiscreted("pred", to_onehot=classes),
    ]
    return Compose(steps)

"""Old tasks are held where an earlier network answers the same."""

from __future__ import annotations

import pytest
import torch

from medseg.engines import DistillingInferer
from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.losses import DistilledLoss, TaskLoss, TaskTarget
from medseg.networks import create_network

SPACE = LabelSpace.merge({"old": {"labels": {"a": 1, "b": 2}}, "new": {"labels": {"c": 1}}})


def small(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    narrow = {"base_channels": 8, "num_blocks": [1] * 4, "prior_depth": [1] * 5, "num_modalities": 1}
    return create_network("hermes_resunet", spatial_dims=2, in_channels=1, out_channels=3, **narrow | options)


@pytest.mark.parametrize("mask_null", [True, False])
def test_nothing_pulls_where_the_answers_are_the_same(mask_null: bool) -> None:
    network = small(mask_null=mask_null)
    inferer = DistillingInferer(network, SPACE, ["old"], null_tasks=0 if mask_null else 1)
    image, modality = torch.randn(2, 1, 32, 32), torch.tensor([0, -1])
    own = {"tasks": torch.tensor([[2], [2]]), "modality": modality, "return_modality": True}
    logits, (old,), answers, kind = inferer(image, network, **own)
    assert logits.shape[1] == 1 and old.shape[1] == 2 and kind.shape == (2, 2)
    target = TaskTarget(torch.zeros(2, 1, 32, 32), torch.ones(2, 1, dtype=torch.bool), modality)
    loss = TaskLoss()

    def drift() -> torch.Tensor:
        found = inferer(image, network, **own)
        return DistilledLoss(loss, weight=3.0)(found, target) - loss((found[0], found[3]), target)

    table = network.encoder_priors[0].priors.task
    (still,) = torch.autograd.grad(drift(), table)
    with torch.no_grad():
        table[0] += 1.0
        assert not torch.equal(inferer(image, network, **own)[1][0], answers)
    (pull,) = torch.autograd.grad(drift(), table)
    assert float(pull.norm()) > 20 * float(still.norm())  # of rounding


def test_no_old_data_set() -> None:
    with pytest.raises(ConfigError, match="Distillation needs a data set"):
        DistillingInferer(small(), SPACE, [])

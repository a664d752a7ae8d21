"""Parameter groups by patterns of names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.optimizers import make_schedule, parameter_groups


def network() -> nn.Module:
    return nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2), "head": nn.Linear(2, 1)})


def test_every_parameter_is_in_the_group_of_its_first_pattern() -> None:
    net = network()
    groups = parameter_groups(net, 0.1, {"encoder.weight": 0.5, "encoder*": 0.01})
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    expected = {"encoder.weight": 0.05, "encoder.bias": 0.001}
    assert {name: rates[id(p)] for name, p in net.named_parameters()} == {
        name: pytest.approx(expected.get(name, 0.1)) for name, _ in net.named_parameters()
    }


def test_factor_zero_keeps_a_part_through_decay_and_schedule() -> None:
    net = network()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(net, 0.1, {"encoder*": 0.0}), lr=0.1, weight_decay=0.5)
    schedule = make_schedule(optimizer, "cosine", steps=4)
    for _ in range(3):
        optimizer.zero_grad()
        net["head"](net["decoder"](net["encoder"](torch.ones(1, 2)))).sum().backward()
        optimizer.step()
        schedule.step()
    moved = {name.partition(".")[0] for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"decoder", "head"}


def test_no_factors_give_one_group_and_wrong_ones_are_named() -> None:
    net = network()
    assert [len(group["params"]) for group in parameter_groups(net, 0.1)] == [6]
    with pytest.raises(ConfigError, match="'encode_r\\*': no parameter is left"):
        parameter_groups(net, 0.1, {"encode_r*": 0.1})
    with pytest.raises(ConfigError, match="negative"):
        parameter_groups(net, 0.1, {"encoder*": -1})

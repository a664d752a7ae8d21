"""A frozen part keeps its weights for so many epochs, and its batch norms their averaging."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from torch import nn

from medseg.engines import FreezePart
from medseg.errors import ConfigError


@pytest.mark.parametrize("distributed", [False, True])
def test_first_epochs(distributed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg.engines.freeze.is_distributed", lambda: distributed)
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("encoder", nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    net.add_module("head", nn.Conv2d(2, 1, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    seen: list[tuple[bool, bool, bool]] = []

    def step(engine: Any, x: torch.Tensor) -> None:
        before = [net.encoder[0].weight.clone(), net.encoder[1].running_mean.clone(), net.head.weight.clone()]
        optimizer.zero_grad(set_to_none=True)
        net.train()(x).square().mean().backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        optimizer.step()
        after = [net.encoder[0].weight, net.encoder[1].running_mean, net.head.weight]
        seen.append(tuple(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    FreezePart(net, "encoder", epochs=2).attach(engine)
    engine.run([torch.randn(2, 1, 6, 6)], max_epochs=4)
    assert seen == [(False, True, True)] * 2 + [(True, True, True)] * 2


def test_no_such_part() -> None:
    with pytest.raises(ConfigError, match="no part 'encodre'; name one of encoder"):
        FreezePart(nn.ModuleDict({"encoder": nn.Identity()}), "encodre")

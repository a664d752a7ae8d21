"""One pass per data set; choosing tasks leaves channels out and changes no value."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medseg.errors import DataError
from medseg.inferers import HalfStepWindow, SlidingWindow, TaskPasses
from medseg.labels import LabelSpace

SPACE = LabelSpace.from_table(
    {
        "mode": "sigmoid",
        "tasks": {"liver": 0, "spleen": 2, "heart": 5},
        "datasets": {"a": {"labels": {"liver": 1, "spleen": 2}}, "b": {"labels": {"spleen": 1, "heart": 2}}},
    }
)


class Company(torch.nn.Module):
    """Logits that depend on all tasks that are asked for, and a record of what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[int]] = []

    def forward(self, x: torch.Tensor, tasks: torch.Tensor, modality: Any = None) -> torch.Tensor:
        self.asked.append(tasks[0].tolist())
        return x * (tasks[0] + 1).view(1, -1, 1, 1, 1) + 0.1 * tasks.sum()


def test_choosing_tasks_changes_no_value() -> None:
    image = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    for window in (SlidingWindow([8, 8, 8]), HalfStepWindow([8, 8, 8])):
        network = Company()
        full = TaskPasses(window, SPACE, null_tasks=1)(image, network)
        assert network.asked == [[0, 2, -1], [2, 5, -1]] and full.shape[1] == 3
        chosen = TaskPasses(window, SPACE, ["heart", "spleen"], null_tasks=1)(image, Company())
        assert torch.equal(chosen, full[:, [2, 1]])
        shared = torch.stack([image * 3 + 0.1, image * 3 + 0.6]).sigmoid().mean(0)  # mean of both passes
        assert torch.allclose(full[:, 1:2].sigmoid(), shared, atol=1e-4)


def test_own_data_set_first() -> None:
    image = torch.ones(1, 1, 8, 8, 8)
    network = Company()
    own = TaskPasses(SlidingWindow([8, 8, 8]), SPACE)(image, network, ["b"])
    assert network.asked == [[2, 5]] and own.shape[1] == 2
    network.asked.clear()
    mixed = TaskPasses(SlidingWindow([8, 8, 8]), SPACE, ["spleen", "liver"])(image, network, ["b"])
    assert network.asked == [[0, 2], [2, 5]]  # liver from the other's pass, spleen from its own
    assert torch.equal(mixed[:, 0], own[:, 0])
    both = TaskPasses(SlidingWindow([8, 8, 8]), SPACE)(image.repeat(2, 1, 1, 1, 1), network, ["b", "b"])
    assert torch.equal(both, own.expand_as(both))


def test_unknown_task() -> None:
    with pytest.raises(DataError, match=r"No task 'hart'.*'heart'"):
        TaskPasses(SlidingWindow([8, 8, 8]), SPACE, ["hart"])

"""Weights of a task-conditioned network for another table of tasks: rows are found by name, never by place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medseg.errors import ModelError
from medseg.labels import LabelSpace
from medseg.networks.layers.priors import PriorTable

__all__ = ["rows_by_name"]


def rows_by_name(
    state: Mapping[str, Tensor], old: LabelSpace, network: nn.Module, new: LabelSpace
) -> tuple[dict[str, Tensor], list[str]]:
    """A state dict of ``old`` tasks and modalities for a ``network`` of ``new`` ones.

    Tasks and modalities of equal name keep their rows, those of ``new`` alone the network's fresh ones; the rows of the
    null task and the unknown modality are the last ones.

    Returns:
        The state dict, and lines that say which tasks and modalities were taken over, are new, and were left.

    Raises:
        ModelError: a table that is not a table of the old label space.
    """
    result, fresh = dict(state), network.state_dict()
    tasks = (_ids(old), _ids(new))
    modalities = (dict(old.modalities), dict(new.modalities))
    for name, part in network.named_modules():
        if isinstance(part, PriorTable):
            result[f"{name}.task"] = _moved(state, fresh, f"{name}.task", *tasks)
            result[f"{name}.modality"] = _moved(state, fresh, f"{name}.modality", *modalities)
    for name, value in fresh.items():
        if name.startswith("modality_head.") and name in state and state[name].shape != value.shape:
            result[name] = _moved(state, fresh, name, *modalities)
    lines = []
    for what, (before, after) in (("tasks", tasks), ("modalities", modalities)):
        groups = {
            "taken over": [n for n in after if n in before],
            "new": [n for n in after if n not in before],
            "left": [n for n in before if n not in after],
        }
        lines += [f"{len(names)} {what} {group} ({', '.join(names)})" for group, names in groups.items() if names]
    return result, lines


def _ids(space: LabelSpace) -> dict[str, int]:
    return dict(zip(space.labels, space.task_ids, strict=True))


def _moved(
    state: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
    name: str,
    before: Mapping[str, int],
    after: Mapping[str, int],
) -> Tensor:
    if (
        name not in state
        or state[name].shape[1:] != fresh[name].shape[1:]
        or len(state[name]) <= max(before.values(), default=-1)
    ):
        raise ModelError(f"The weights have no '{name}' that fits their label table; take the weights of that run.")
    rows = fresh[name].clone()
    shared = [key for key in after if key in before]
    rows[torch.tensor([*(after[key] for key in shared), len(rows) - 1])] = state[name][
        torch.tensor([*(before[key] for key in shared), len(state[name]) - 1])
    ].to(rows)
    return rows

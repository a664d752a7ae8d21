"""Configs of other authors run case by case, as those that medseg builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.bundle.compose import derived
from medseg.bundle.folder import Bundle
from medseg.bundle.recipe import Layer
from medseg.errors import ConfigError

__all__ = ["case_changes"]

_AHEAD = {2: 4, 3: 1}  # cases read ahead of the network, by spatial axes
_BEHIND = {2: 4, 3: 0}  # images whose logits wait to be written; those of volumes are large
_OURS = "medseg.engines.CaseEvaluator"
_STOCK = ("SupervisedEvaluator", "monai.engines.SupervisedEvaluator")


def case_changes(bundle: Bundle, tree: Mapping[str, Any], task: str) -> Layer:
    """The changes by which a merged config runs with a ``CaseEvaluator``; none where it names one.

    Args:
        bundle: that it is of.
        tree: merged and unresolved.
        task: ``infer`` or ``evaluate``.

    Raises:
        ConfigError: it has an evaluator of another kind.
    """
    place = "validate::" if task == "evaluate" else ""
    part = tree["validate"] if place else tree
    evaluator, dataset = part.get("evaluator"), part.get("dataset")
    target = evaluator.get("_target_") if isinstance(evaluator, Mapping) else None
    if target == _OURS:
        return derived({}, "")
    if target not in _STOCK or not isinstance(dataset, Mapping):
        raise ConfigError(
            f"{place}evaluator is {target}, with the dataset {dataset}; expected {_OURS} with a "
            "medseg.data.CaseDataset. Name them in the config."
        )
    dims = len(tree["roi_size"])
    reader = {
        "_target_": "medseg.data.ReadCase",
        "label_space": "@label_space",
        "in_channels": "@network_def::in_channels",
        "roi_size": "@roi_size",
        "preprocess": "@preprocess",
        "channel_def": {str(number): name for number, name in enumerate(bundle.channel_names)},
        "label": bool(place),
    }
    loader = {"_target_": "ThreadDataLoader", "dataset": f"@{place}dataset", "batch_size": 1, "num_workers": 0}
    folder = "@score_dir" if place and "score_dir" in tree else "@output_dir"
    data, parts = dataset.get("data"), {"transform": f"@{place}preprocessing", "reader": reader}
    changes = {
        f"{place}dataset": {"_target_": "medseg.data.CaseDataset", "data": data} | parts,
        f"{place}dataloader": loader | {"buffer_size": _AHEAD[dims]},
        f"{place}evaluator::_target_": _OURS,
        f"{place}evaluator::behind": 0 if place else _BEHIND[dims],
        "run": [{"_target_": "medseg.engines.run_cases", "evaluator": f"@{place}evaluator", "output_dir": folder}],
    }
    return derived(changes, f"{bundle}/configs")

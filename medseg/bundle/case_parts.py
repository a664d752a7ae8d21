"""Configs of earlier versions, and of other authors, run case by case as those that are written now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError
from medseg.storage import read_table

__all__ = ["BEHIND", "case_changes", "case_dataset", "case_loader", "case_run"]

_AHEAD = {2: 4, 3: 1}  # cases read ahead of the network, by spatial axes
BEHIND = {2: 4, 3: 0}  # images whose logits wait to be written; those of volumes are large
_OURS = "medseg.engines.CaseEvaluator"
_STOCK = ("SupervisedEvaluator", "monai.engines.SupervisedEvaluator")


def case_changes(bundle: Path, tree: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The overrides by which a merged config runs with a ``CaseEvaluator``; none where it names one.

    Args:
        bundle: its folder.
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
        return {}
    if target not in _STOCK or not isinstance(dataset, Mapping):
        raise ConfigError(
            f"{place}evaluator is {target}, with the dataset {dataset}; expected {_OURS} with a "
            "medseg.data.CaseDataset. Name them in the config."
        )
    dims = len(tree["roi_size"])
    return {
        f"{place}dataset": case_dataset(
            dataset.get("data"), f"@{place}preprocessing", label=bool(place), channel_def=_channel_def(bundle)
        ),
        f"{place}dataloader": case_loader(f"@{place}dataset", dims),
        f"{place}evaluator::_target_": _OURS,
        f"{place}evaluator::behind": 0 if place else BEHIND[dims],
        "run": [case_run(f"@{place}evaluator", "@score_dir" if place and "score_dir" in tree else "@output_dir")],
    }


def _channel_def(bundle: Path) -> dict[str, str]:
    """Modality of each channel by the bundle's metadata; empty where they do not say."""
    path = bundle / "configs" / "metadata.json"
    described: Any = read_table(path, "metadata; restore it") if path.is_file() else {}
    for key in ("network_data_format", "inputs", "image", "channel_def"):
        described = described.get(key, {}) if isinstance(described, Mapping) else {}
    return {str(channel): str(name) for channel, name in described.items()} if isinstance(described, Mapping) else {}


def case_dataset(
    data: Any,
    transform: str,
    *,
    label: bool,
    channel_def: Any = "@_meta_::network_data_format::inputs::image::channel_def",
) -> dict[str, Any]:
    """The component of cases that are read, checked and prepared one by one."""
    reader = {
        "_target_": "medseg.data.ReadCase",
        "label_space": "@label_space",
        "in_channels": "@network_def::in_channels",
        "roi_size": "@roi_size",
        "preprocess": "@preprocess",
        "channel_def": channel_def,
        "label": label,
    }
    return {"_target_": "medseg.data.CaseDataset", "data": data, "transform": transform, "reader": reader}


def case_loader(dataset: str, dims: int) -> dict[str, Any]:
    """The component that reads ahead of the network."""
    shape = {"batch_size": 1, "num_workers": 0, "buffer_size": _AHEAD[dims]}
    return {"_target_": "ThreadDataLoader", "dataset": dataset, **shape}


def case_run(evaluator: str, output_dir: str) -> dict[str, Any]:
    """The component that runs an evaluator."""
    return {"_target_": "medseg.engines.run_cases", "evaluator": evaluator, "output_dir": output_dir}

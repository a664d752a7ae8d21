"""Workflows: a bundle and overrides become a MONAI workflow; train, evaluate and predict as functions."""

from __future__ import annotations

import importlib
from typing import Any

from medseg.bundle.parts import (
    cases,
    device,
    finalize,
    initialize,
    inside,
    labelled,
    network,
    section,
)

__all__ = [
    "PreviousStage",
    "cases",
    "common_rules",
    "device",
    "evaluate",
    "finalize",
    "initialize",
    "inside",
    "joined",
    "labelled",
    "network",
    "predict",
    "section",
    "train",
]

_FUNCTIONS = {
    "PreviousStage": "medseg.workflows.cascade",
    "train": "medseg.workflows.training",
    "evaluate": "medseg.workflows.validation",
    "predict": "medseg.workflows.prediction",
    "common_rules": "medseg.workflows.members",
    "joined": "medseg.workflows.members",
}


def __getattr__(name: str) -> Any:
    # Bundles import this package for the parts above; the functions that read bundles come when they are asked for.
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'medseg.workflows' has no attribute '{name}'")

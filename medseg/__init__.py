"""medseg: published medical image segmentation systems under one roof, on MONAI.

``import medseg`` imports nothing heavy; each name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from medseg.version import __version__ as __version__

if TYPE_CHECKING:
    from medseg.data.datalist import Datalist as Datalist
    from medseg.labels import LabelSpace as LabelSpace
    from medseg.networks.catalog import list_networks as list_networks
    from medseg.networks.registry import create_network as create_network
    from medseg.workflows.compare import compare as compare
    from medseg.workflows.prediction import predict as predict
    from medseg.workflows.run import load as load
    from medseg.workflows.scored_predictions import score_predictions as score_predictions
    from medseg.workflows.training import train as train
    from medseg.workflows.validation import evaluate as evaluate

if sys.platform == "linux" and "torch" not in sys.modules:
    # Large tensors in huge pages: without it, inference spends a third of its time in page faults (torch reads this
    # when it first allocates one; the same numbers come out).
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_HOMES = {
    "Datalist": "medseg.data.datalist",
    "LabelSpace": "medseg.labels",
    "compare": "medseg.workflows.compare",
    "create_network": "medseg.networks.registry",
    "evaluate": "medseg.workflows.validation",
    "list_networks": "medseg.networks.catalog",
    "load": "medseg.workflows.run",
    "predict": "medseg.workflows.prediction",
    "score_predictions": "medseg.workflows.scored_predictions",
    "train": "medseg.workflows.training",
}

__all__ = [
    "Datalist",
    "LabelSpace",
    "__version__",
    "compare",
    "create_network",
    "evaluate",
    "list_networks",
    "load",
    "predict",
    "score_predictions",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'medseg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

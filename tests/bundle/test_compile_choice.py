"""Compiling is chosen where it saves more than it takes, and the plan says so."""

from __future__ import annotations

from typing import Any

import pytest

from medseg.bundle.compile_choice import MEASURED, compile_layer
from medseg.networks import catalog

CONFIG: dict[str, Any] = {
    "network_def": {"_target_": "medseg.networks.HNOSegXS"},
    "roi_size": [155, 240, 240],
    "batch_size": 1,
    "epochs": 100,
    "max_minutes": None,
}


@pytest.mark.parametrize(
    ("changes", "per_epoch", "chosen"),
    [
        ({}, 250, True),  # 24 minutes, of which 17 % are saved
        ({}, 100, False),
        ({"roi_size": [64, 64, 64]}, 250, False),
        ({"roi_size": [64, 64, 64], "batch_size": 35}, 250, True),
        ({"max_minutes": 30}, 1, True),
        ({"max_minutes": 10}, 250, False),
        ({"network_def": {"_target_": "DynUNet"}}, 10**6, False),
    ],
)
def test_the_length_of_the_run_decides(changes: dict[str, Any], per_epoch: int, chosen: bool) -> None:
    layer = compile_layer({**CONFIG, **changes}, per_epoch)
    assert layer.changes == {"compile": chosen}
    said = "were not measured" if "network_def" in changes else "it saves about"
    assert said in layer.reasons["compile"]


def test_figures_are_of_registered_networks() -> None:
    assert set(MEASURED) <= {facts.class_name for facts in catalog().values()}

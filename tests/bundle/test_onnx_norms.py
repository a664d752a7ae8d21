"""Norms over large volumes keep their digits in ONNX."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from medseg.bundle.export import export_network

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs the extra `export`"),
]


@pytest.mark.parametrize("size", [(72, 72, 80), (640, 640)], ids=["3D", "2D"])
def test_group_norm_is_a_mean_of_means(size: tuple[int, ...], tmp_path: Path) -> None:
    """Values far from 0 show the rounding: one accumulator for all voxels is off by ten times as much."""
    torch.manual_seed(0)
    conv = (nn.Conv2d if len(size) == 2 else nn.Conv3d)(1, 4, 1)
    nn.init.constant_(conv.bias, 30.0)
    network = nn.Sequential(conv, nn.GroupNorm(2, 4), nn.ReLU()).eval()
    made = export_network(network, 1, [size], tmp_path, formats=["onnx"])["onnx"]
    assert made.parity[0].difference < 3e-5

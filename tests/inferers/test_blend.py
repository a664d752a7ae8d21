"""The ring of planes, the last layer apart, patches of constant content, and the memory that they need."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from medseg.errors import ResourceError
from medseg.inferers import SlidingWindow, forecast
from medseg.inferers.blend import slow_first
from medseg.inferers.constant_patches import by_content, constants, run_patches
from medseg.inferers.head import split_head
from medseg.transforms.slabs import Slabs


class Net(nn.Module):
    """Ends in a convolution of single voxels, and may do more."""

    def __init__(self, end: str = "", wide: int = 9) -> None:
        super().__init__()
        self.body = nn.Conv3d(1, 4, 3, padding=1)
        self.head = nn.Conv3d(4, wide, 1)
        self.end = end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.end == "cropped":
            x = nn.functional.pad(x, (1, 1, 1, 0, 2, 0))
        logits = self.head(self.body(x).tanh())
        if self.end == "cropped":
            return logits[:, :, 2:, 1:, 1:-1]
        if self.end == "in place":
            return logits.mul_(2)
        if self.end == "softmax":
            return logits.softmax(1)
        if self.end == "twice":
            return logits + self.head(self.body(x))
        return logits


@pytest.mark.parametrize(
    ("end", "wide", "found"),
    [
        ("", 9, True),
        ("cropped", 9, True),
        ("in place", 9, False),
        ("softmax", 9, False),
        ("twice", 9, False),
        ("", 3, False),
    ],
)
@torch.no_grad()
def test_head_is_split_only_where_it_comes_last_and_widens(end: str, wide: int, found: bool) -> None:
    torch.manual_seed(0)
    network, image = Net(end, wide).eval(), torch.randn(2, 1, 7, 6, 8)
    expected = network(image)
    head, output = split_head(network, lambda: network(image))
    assert (head is network.head) == found
    assert torch.equal(network.head(output) if found else output, expected)
    assert torch.equal(network(image), expected)  # the network is as it was


@torch.no_grad()
def test_blend_of_features_equals_that_of_logits() -> None:
    network, image = Net("cropped").eval().double(), torch.randn(1, 1, 30, 14, 17).double()
    window = SlidingWindow((10, 8, 9), sw_batch_size=3)
    apart, at_once = window(image, network), window(image, lambda x: network(x))
    assert torch.allclose(apart, at_once, rtol=0, atol=1e-12)
    assert window.slabs(image, network).head is not None
    half = SlidingWindow((10, 8, 9), precision="bf16")
    assert half.slabs(image.float(), network.float()).head is None  # it would not be in half precision


@torch.no_grad()
def test_slow_axis_of_large_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches proceed along the axis with the smallest ring; the blend is the same up to rounding."""
    assert slow_first((100, 100, 300), (64, 64, 64)) == (0, 1, 2)
    assert slow_first((512, 512, 800), (64, 64, 64)) == (2, 0, 1)
    network, image = Net("cropped").eval().double(), torch.randn(1, 1, 12, 25, 14).double()
    window = SlidingWindow((8, 8, 8), sw_batch_size=2)
    usual = window(image, network)
    monkeypatch.setattr("medseg.inferers.blend._LARGE", 1)
    slabs = window.slabs(image, network)
    assert slabs.order == (1, 0, 2)
    assert torch.allclose(slabs.whole(), usual[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("mirror", [(), (0, 2)])
@torch.no_grad()
def test_constant_patches_run_once_with_equal_logits(batch: int, mirror: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    image = torch.full((1, 1, 40, 20, 20), -1.3)
    image[..., 28:, 5:15, 5:15] = torch.randn(12, 10, 10)
    image[:, :, :9] = 0.5  # another constant
    network = Net(wide=3).eval()
    window = SlidingWindow((8, 8, 8), sw_batch_size=batch, mirror_axes=mirror)
    every = window(image, copy.deepcopy(network).train())  # nothing is reused while training
    all_of_them = window.windows
    assert torch.equal(window(image, network), every)
    assert window.windows < 0.6 * all_of_them


def test_what_depends_on_more_than_a_patch_runs_every_patch() -> None:
    assert by_content(Net().eval())
    assert not by_content(Net().train())
    assert not by_content(lambda x: x)
    assert by_content(nn.Sequential(nn.InstanceNorm3d(2), nn.BatchNorm3d(2)).eval())
    assert not by_content(nn.Sequential(nn.BatchNorm3d(2, track_running_stats=False)).eval())


def test_patches_of_one_content() -> None:
    two = torch.tensor([[1.0, 1.0, math.nan, math.nan], [2.0, 2.0, 2.0, 2.5]])
    assert constants(two, [(slice(i, i + 2),) for i in range(3)]) == [(1.0, 2.0), None, None]
    image = torch.tensor([[0.0, 0, 0, 1, 2, 0, 0, 0, 0]])
    places = [(slice(start, start + 2),) for start in range(8)]
    seen: list[Any] = []

    def run(patches: torch.Tensor) -> torch.Tensor:
        seen.extend(patches[:, 0].tolist())
        return patches + 1

    found = [(place[0].start, output.tolist()) for place, output in run_patches(image, places, run, 2, reuse=True)]
    assert seen == [[0, 0], [0, 1], [1, 2], [2, 0]]
    assert found == [(start, [[value + 1 for value in image[0, start : start + 2].tolist()]]) for start in range(8)]


def test_nothing_is_read_between_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: did.append("read") or tolist(x))
    monkeypatch.setattr(torch, "equal", lambda *_: did.append("read"))
    image, places = torch.arange(4.0)[None], [(slice(start, start + 2),) for start in (0, 2)]
    assert len(list(run_patches(image, places, lambda x: did.append("run") or x, 1, reuse=True))) == 2
    assert did == ["read", "run", "run"]


def test_memory_is_forecast(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    shape = (512, 512, 800)
    slabs = Slabs(105, shape, iter(()), held=2 * 2**30)
    image = MetaTensor(torch.zeros(1, 1, 1, 1))
    free = [64.0]
    monkeypatch.setattr(forecast, "available_gib", lambda: free[0])
    with caplog.at_level("INFO", logger="medseg"):
        forecast.require_memory(slabs, image)
    assert "at once (105 classes x 512 x 512 x 800 voxels); using streaming (2.4 GiB)" in caplog.text
    free[0] = 1.5
    with pytest.raises(ResourceError, match="needs about 2.4 GiB .*1.5 GiB are free. Use a smaller patch"):
        forecast.require_memory(slabs, image)

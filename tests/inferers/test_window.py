"""The sliding window against MONAI's own, and its options."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.data.utils import dense_patch_slices
from monai.inferers import SlidingWindowInferer
from monai.inferers.utils import _get_scan_interval
from torch import nn

from medseg.errors import ConfigError, ResourceError
from medseg.inferers import SlidingWindow, WholeVolume, even_overlap
from medseg.inferers.blend import Ring


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 3, padding=1)).eval()


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("shape", [(19, 16, 23), (7, 20, 9)])
@torch.no_grad()
def test_equals_monai_without_options(network: nn.Module, mode: str, shape: tuple[int, ...]) -> None:
    image = torch.randn(1, 1, *shape)
    ours = SlidingWindow((10, 12, 8), 0.4, mode, 2, even_spacing=False)(image, network)
    assert torch.equal(ours, SlidingWindowInferer((10, 12, 8), 2, 0.4, mode)(image, network))


def starts(size: int, roi: int, overlap: float) -> list[int]:
    interval = _get_scan_interval((max(size, roi),), (roi,), 1, (overlap,))
    return [s[0].start for s in dense_patch_slices((max(size, roi),), (roi,), interval)]


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 300), st.integers(1, 128), st.floats(0, 0.95))
def test_even_spacing(size: int, roi: int, overlap: float) -> None:
    """Never more windows than MONAI or than even spacing needs, no step above ceil(roi * (1 - overlap))."""
    ours, monai = starts(size, roi, even_overlap(size, roi, overlap)), starts(size, roi, overlap)
    assert len(ours) <= len(monai)
    assert ours[0] == 0 and ours[-1] == max(size, roi) - roi
    if size > roi:
        assert len(ours) <= math.ceil((size - roi) / (roi * (1 - overlap))) + 1
        assert max(b - a for a, b in zip(ours, ours[1:], strict=False)) <= math.ceil(roi * (1 - overlap))


def test_even_spacing_saves_windows() -> None:
    assert len(starts(160, 64, 0.7)) == 7
    assert len(starts(160, 64, even_overlap(160, 64, 0.7))) == 6


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("predictor", [lambda x: x, lambda x: x[:], lambda x: x.view_as(x)])
def test_identity_is_exact(mode: str, batch: int, predictor: Any) -> None:
    """MONAI weights a window's output in place: a predictor that returns its input must not damage the image."""
    image = torch.randn(1, 1, 21, 17, 12)
    before = image.clone()
    result = SlidingWindow((8, 8, 8), 0.6, mode, batch)(image, predictor)
    assert torch.equal(image, before)
    assert torch.allclose(result, image, atol=1e-6)


@torch.no_grad()
def test_mirrors_are_the_mean_over_flips(network: nn.Module) -> None:
    image = torch.randn(1, 1, 8, 9, 10)
    expected = torch.zeros(1, 2, 8, 9, 10)
    for axes in [(), (2,), (4,), (2, 4)]:
        expected += network(image.flip(axes)).flip(axes) / 4
    assert torch.allclose(WholeVolume(mirror_axes=(0, 2))(image, network), expected, atol=1e-6)
    window = SlidingWindow((8, 9, 10), mirror_axes=(0, 2))
    assert torch.allclose(window(image, network), expected, atol=1e-5)
    before = image.clone()
    assert torch.allclose(WholeVolume(mirror_axes=(0, 1, 2))(image, lambda x: x), image, atol=1e-6)
    assert torch.equal(image, before)


@torch.no_grad()
def test_bf16_is_close_and_comes_back_in_fp32(network: nn.Module) -> None:
    image = torch.randn(1, 1, 16, 16, 16)
    full = SlidingWindow((8, 8, 8))(image, network)
    half = SlidingWindow((8, 8, 8), precision="bf16")(image, network)
    assert half.dtype == torch.float32
    assert not torch.equal(full, half) and torch.allclose(full, half, atol=0.05)
    assert WholeVolume(precision="bf16")(image, network).dtype == torch.float32


@torch.no_grad()
def test_volume_smaller_than_the_window(network: nn.Module) -> None:
    image = torch.randn(1, 1, 5, 20, 6)
    result = SlidingWindow((8, 8, 8))(image, network)
    assert result.shape == (1, 2, 5, 20, 6)
    # Windows of this size go through the network in pairs: equal up to rounding.
    torch.testing.assert_close(
        result, SlidingWindowInferer((8, 8, 8), 1, [0.5, even_overlap(20, 8, 0.5), 0.5], "gaussian")(image, network)
    )


def test_network_sees_plain_tensors() -> None:
    """Compiled networks refuse MetaTensors."""
    kinds = set()

    def predictor(window: torch.Tensor) -> torch.Tensor:
        kinds.add(type(window))
        return window * 2

    image = MetaTensor(torch.randn(1, 1, 12, 12, 12))
    result = SlidingWindow((8, 8, 8))(image, predictor)
    WholeVolume()(image, predictor)
    assert kinds == {torch.Tensor}
    assert torch.allclose(torch.as_tensor(result), torch.as_tensor(image) * 2, atol=1e-6)


def test_overlap_is_left_as_it_was() -> None:
    window = SlidingWindow((8, 8, 8), 0.7)
    window(torch.zeros(1, 1, 20, 20, 20), lambda x: x)
    with pytest.raises(ZeroDivisionError):
        window(torch.zeros(1, 1, 20, 20, 20), lambda x: 1 / 0)
    assert window.overlap == 0.7


@pytest.mark.parametrize(
    "options",
    [{"overlap": 1.0}, {"overlap": -0.1}, {"roi_size": (8, 0, 8)}, {"precision": "int8"}, {"mirror_axes": (3,)}],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SlidingWindow(**({"roi_size": (8, 8, 8)} | options))


def test_window_of_other_dimensions() -> None:
    with pytest.raises(ConfigError, match="2 spatial axes"):
        SlidingWindow((8, 8, 8))(torch.zeros(1, 1, 9, 9), lambda x: x)


_NO_ENGINE = "FIND was unable to find an engine to execute this computation"


class _Gpu:
    """A network on a GPU of little room: for one patch at once and, after some calls, not beside the blended planes."""

    def __init__(self, network: nn.Module, monkeypatch: pytest.MonkeyPatch, *, moves: bool = True) -> None:
        self.network, self.calls, self.moved = network, 0, False
        monkeypatch.setattr(SlidingWindow, "at_once", lambda inferer, network, device: inferer.sw_batch_size)
        monkeypatch.setattr("medseg.inferers.window.split_head", lambda network, forward: (None, forward()))
        monkeypatch.setattr("medseg.inferers.blend.Ring.to_cpu", lambda ring: moves and self._move(ring))

    def _move(self, ring: Ring) -> bool:
        self.moved, before = True, self.moved
        return not before and len(ring.sums) > 0

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if len(patches) > 1 or (self.calls > 5 and not self.moved):
            one = len(patches) == 1
            raise (
                RuntimeError(_NO_ENGINE)
                if one
                else torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            )
        return self.network(patches)


@torch.no_grad()
def test_without_room_the_result_is_the_same(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    image = torch.randn(1, 1, 19, 16, 23)
    expected = SlidingWindow((10, 12, 8), 0.4)(image, network)
    inferer = SlidingWindow((10, 12, 8), 0.4, sw_batch_size=4)
    torch.testing.assert_close(inferer(image, _Gpu(network, monkeypatch)), expected, rtol=1e-5, atol=1e-6)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "(2.00 GiB more were needed) at inference: patches go one by one from here on" in said[0]
    assert said[1].endswith("the rest of the image is blended on the CPU")
    with pytest.raises(
        ResourceError, match=r"single patch of 10×12×8, blended on the CPU. Use --device cpu, or --set p"
    ):
        inferer(image, _Gpu(network, monkeypatch, moves=False))

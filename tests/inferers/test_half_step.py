"""HalfStepWindow: the original's windows and probabilities; MONAI's where both mean the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from full_set import FULL_SET
from monai.data import MetaTensor, list_data_collate
from monai.inferers import sliding_window_inference

from medseg.errors import ConfigError
from medseg.inferers import HalfStepWindow
from medseg.inferers.half_step import half_step_starts

FIXTURES = FULL_SET / "hermes"


def toy(window: torch.Tensor) -> torch.Tensor:
    """Three channels that depend on the place in the window, as the fixture describes."""
    d, h, w = (torch.linspace(-1, 1, n) for n in window.shape[2:])
    ramp = d[:, None, None] + 0.5 * h[:, None] - 0.25 * w
    return torch.cat([0.5 * (k + 1) * window + (k - 1) * ramp for k in range(3)], 1)


@pytest.mark.usefixtures("full_set")
def test_starts_of_the_original() -> None:
    table = json.loads((FIXTURES / "sliding_window.json").read_text())["window_starts"]
    assert table == {key: half_step_starts(*map(int, key.split("/"))) for key in table}


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("batch", [1, 5])
def test_probabilities_of_the_original(batch: int) -> None:
    arrays = np.load(FIXTURES / "sliding_window_a.npz")
    image = torch.from_numpy(arrays["image"])
    logits = HalfStepWindow((8, 8, 8), sw_batch_size=batch)(image, toy)
    torch.testing.assert_close(logits.sigmoid(), torch.from_numpy(arrays["prob"]), rtol=0, atol=1e-5)


def test_monais_windows_where_no_start_comes_twice() -> None:
    image = torch.randn(2, 1, 11, 19, 5, generator=torch.Generator().manual_seed(0))  # half a window divides none
    monai = sliding_window_inference(image, (8, 8, 4), 2, lambda x: toy(x).sigmoid(), overlap=0.5, mode="constant")
    torch.testing.assert_close(HalfStepWindow((8, 8, 4))(image, toy).sigmoid(), monai, rtol=0, atol=1e-5)


def test_small_volumes_and_long_ones() -> None:
    image = torch.randn(1, 1, 5, 9, 7, generator=torch.Generator().manual_seed(0))
    assert HalfStepWindow((8, 8, 8))(image, toy).shape == (1, 3, 5, 9, 7)
    whole = HalfStepWindow((4, 4, 4), max_slices=None)
    parts = HalfStepWindow((4, 4, 4), max_slices=3)(image, toy)
    torch.testing.assert_close(parts[:, :, :3], whole(image[:, :, :3], toy))
    torch.testing.assert_close(parts[:, :, 3:], whole(image[:, :, 3:], toy))
    assert not torch.allclose(parts, whole(image, toy))


def test_conditions_reach_the_network() -> None:
    def network(window: torch.Tensor, tasks: torch.Tensor, scale: float) -> torch.Tensor:
        return scale * window.repeat(1, tasks.shape[1], 1, 1, 1)

    image = torch.randn(1, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    logits = HalfStepWindow((4, 4, 4), 3)(image, network, torch.zeros(1, 2), scale=0.5)
    torch.testing.assert_close(logits, 0.5 * image.repeat(1, 2, 1, 1, 1), rtol=0, atol=1e-5)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="too small"):
        HalfStepWindow((8, 1, 8))
    with pytest.raises(ConfigError, match="does not fit an image"):
        HalfStepWindow((8, 8))(torch.zeros(1, 1, 8, 8, 8), toy)


def test_batches_that_carry_places() -> None:
    """As evaluators give them: each image of the batch has an affine of its own."""
    case = MetaTensor(torch.randn(1, 8, 8, 12), meta={"spatial_shape": np.array([8, 8, 12])})
    image = list_data_collate([{"image": case}])["image"]
    assert torch.equal(HalfStepWindow((8, 8, 8))(image, toy), HalfStepWindow((8, 8, 8))(image.as_tensor(), toy))

"""A 2D network on the slices of volumes."""

from __future__ import annotations

import pytest
import torch

from medseg.errors import ConfigError
from medseg.networks import SliceWise, create_network, network_name, own_network

_DYNUNET = {
    "_target_": "monai.networks.nets.DynUNet",
    "spatial_dims": 2,
    "in_channels": 2,
    "out_channels": 3,
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [4, 8, 8],
    "deep_supervision": True,
}


def _on_slices(axis: int) -> SliceWise:
    arguments = {"spatial_dims": 3, "in_channels": 2, "out_channels": 3, "axis": axis, "network": _DYNUNET}
    network = create_network("medseg.networks.SliceWise", **arguments)
    assert isinstance(network, SliceWise)
    return network


@pytest.mark.parametrize("axis", range(3))
def test_every_slice_is_seen_alone_and_comes_back_to_its_place(axis: int) -> None:
    network = _on_slices(axis).eval()
    size = [8, 12, 16]
    size[axis] = 3
    volume = torch.randn(2, 2, *size)
    with torch.no_grad():
        logits = network(volume)
        for place in range(3):
            torch.testing.assert_close(
                logits.select(axis + 2, place), network.network(volume.select(axis + 2, place)), rtol=1e-4, atol=1e-5
            )
    assert logits.shape == (2, 3, *size)


def test_heads_have_their_slices_in_place_stacked_or_listed() -> None:
    network = _on_slices(0).train()
    volume = torch.randn(1, 2, 1, 8, 8)
    stacked = network(volume)  # MONAI's DynUNet stacks them
    assert stacked.shape == (1, 2, 3, 1, 8, 8)
    network.network.forward = lambda x: [x, x[..., ::2, ::2]]  # type: ignore[method-assign,assignment]
    assert [tuple(head.shape) for head in network(volume)] == [(1, 2, 1, 8, 8), (1, 2, 1, 4, 4)]


def test_its_own_network_is_what_it_is_named_for() -> None:
    definition = {"_target_": "medseg.networks.SliceWise", "network": _DYNUNET}
    assert own_network(definition) is _DYNUNET and own_network(_DYNUNET) is _DYNUNET
    assert (network_name(definition), network_name(_DYNUNET)) == ("DynUNet (2D)", "DynUNet")
    with pytest.raises(ConfigError, match="expected spatial_dims 3 and an axis of 0, 1 or 2 across the slices, got 2"):
        SliceWise(2, 1, 2, network=torch.nn.Identity(), axis=0)

"""What every registered network promises; a new network is tested by being registered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from medseg.bundle.arguments import accepts_roi, planned_arguments
from medseg.data.plan import Plan
from medseg.errors import ConfigError
from medseg.networks import NETWORKS, catalog, create_network, list_networks, network_class

# Channels (in, out) of the setting whose parameters the catalogue states.
PUBLISHED: dict[str, tuple[int, int]] = {
    "fno": (4, 4),
    "fnoseg": (4, 4),
    "hartley_mha": (4, 4),
    "hermes_medformer": (1, 72),
    "hermes_resunet": (1, 72),
    "hnoseg": (4, 4),
    "hnoseg_xs": (4, 4),
    "qtseg": (3, 2),
    "repuxnet": (1, 5),
    "ssh_unet": (1, 14),
    "uxnet": (1, 5),
    "vnet_ds": (4, 4),
}
SIDE = {2: 32, 3: 16}
ODD = {2: (27, 33), 3: (13, 18, 15)}


def plan(spatial_dims: int, light: bool = True, side: int | None = None) -> Plan:
    roi = (side or SIDE[spatial_dims],) * spatial_dims
    return Plan(
        spatial_dims=spatial_dims,
        in_channels=2,
        out_channels=3,
        spacing=(1.0,) * spatial_dims,
        roi_size=roi,
        median_shape=roi,
        normalization=[],
        crop_foreground=False,
        flip_axes=[],
        rotate=[],
        batch_size=1,
        samples_per_case=1,
        repeats=1,
        cache="cache",
        cache_gib=0.0,
        learning_rate=0.005,
        light=light,
    )


def cases() -> Iterator[Any]:
    for name, facts in catalog().items():
        for dims in facts.spatial_dims:
            yield pytest.param(name, dims, id=f"{name}-{dims}D")


every_network = pytest.mark.parametrize(("name", "dims"), list(cases()))


def small(name: str, dims: int) -> nn.Module:
    torch.manual_seed(0)
    return create_network(name, **planned_arguments(name, plan(dims)))


def image(dims: int, size: tuple[int, ...] | None = None, batch: int = 1) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 2, *(size or (SIDE[dims],) * dims))


@every_network
def test_logits_at_the_inputs_size(name: str, dims: int) -> None:
    net = small(name, dims).eval()
    for size in ((SIDE[dims],) * dims, ODD[dims]):
        x = image(dims, size)
        before = x.clone()
        with torch.no_grad():
            y = net(x)
        assert isinstance(y, torch.Tensor) and y.shape == (1, 3, *size)
        assert y.isfinite().all() and y.dtype == x.dtype
        assert torch.equal(x, before), "the network changed its input"


@every_network
def test_same_logits_with_and_without_gradients(name: str, dims: int) -> None:
    net = small(name, dims).eval()
    x = image(dims)
    with torch.no_grad():
        quiet = net(x)
    torch.testing.assert_close(net(x), quiet, rtol=1e-4, atol=1e-5)


@every_network
def test_every_weight_learns(name: str, dims: int) -> None:
    net = small(name, dims).train()
    result = net(image(dims, batch=2))
    heads = result if isinstance(result, (list, tuple)) else [result]
    sum(head.square().mean() for head in heads).backward()
    without = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


@every_network
def test_meta_device(name: str, dims: int) -> None:
    with torch.device("meta"):
        assert small(name, dims).eval()(torch.zeros(1, 2, *(SIDE[dims],) * dims)).device.type == "meta"
    for light in (True, False):
        side = 96 if dims == 3 else 256
        arguments = planned_arguments(name, plan(dims, light, side))
        assert accepts_roi(name, arguments, (side,) * dims) is None


@every_network
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_trace(name: str, dims: int) -> None:
    net = small(name, dims).eval()
    x = image(dims)
    with torch.no_grad():
        traced = torch.jit.trace(net, x)
        pair = torch.cat((x, x.flip(2)))
        torch.testing.assert_close(traced(pair), net(pair), rtol=1e-3, atol=1e-4)


@every_network
def test_export(name: str, dims: int) -> None:
    net = small(name, dims).eval()
    x = image(dims, batch=2)
    with torch.no_grad():
        exported = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.testing.assert_close(exported.module()(x[:1]), net(x[:1]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", catalog())
def test_stated_parameters(name: str) -> None:
    facts = catalog()[name]
    in_channels, out_channels = PUBLISHED[name]
    with torch.device("meta"):
        net = create_network(
            name, spatial_dims=facts.spatial_dims[-1], in_channels=in_channels, out_channels=out_channels
        )
    assert sum(p.numel() for p in net.parameters()) == facts.parameters


def test_catalog_and_registry_agree() -> None:
    assert all(network_class(name) is NETWORKS[name] for name in catalog())
    assert list_networks("ssh*") == ["ssh_unet"]


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'ssh_unet'"):
        create_network("sshunet")
    with pytest.raises(ConfigError, match="Did you mean 'gate_type'"):
        create_network("ssh_unet", spatial_dims=3, in_channels=1, out_channels=2, gate_typ="tsm")

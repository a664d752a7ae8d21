"""The forms for a GPU give a CPU's numbers: planar convolutions slice by slice, instance norm by batch norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend

from medseg.networks import create_network
from medseg.networks.kernels import channels_last
from medseg.networks.layers.unet_blocks import conv


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Forces the forms for a GPU on the CPU; the weights' shapes of the 2D convolutions that ran."""
    shapes: list[tuple[int, ...]] = []
    conv2d = torch.nn.functional.conv2d

    def noted(x: Tensor, weight: Tensor, *rest: object, **options: object) -> Tensor:
        assert x.stride(1) == 1 or weight.shape[:2] == (1, 2)  # channels last, but for the gates' fusion
        shapes.append(tuple(weight.shape))
        return conv2d(x, weight, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(channels_last.F, "conv2d", noted)
    monkeypatch.setattr(channels_last, "_GPU", ("cpu",))
    yield shapes


def results(net: nn.Module, x: Tensor) -> list[Tensor]:
    """Logits, and the gradients of the image and of each weight."""
    x = x.clone().requires_grad_()
    logits = net(x)
    heads = logits if isinstance(logits, list) else [logits]
    wanted = [x, *net.parameters()]
    loss = sum(head.square().sum() for head in heads)
    return [*heads, *torch.autograd.grad(loss, wanted)]  # type: ignore[arg-type]


@pytest.mark.parametrize("gate", ["tsm", "gsf"])
@pytest.mark.parametrize("size", [(16, 16, 16), (12, 8, 16)])
def test_ssh_unet(
    gate: str, size: tuple[int, ...], count: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    levels = {"kernel_size": ((1, 3, 3),) * 3, "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)), "filters": (8, 8, 16)}
    net = create_network(
        "ssh_unet", spatial_dims=3, in_channels=2, out_channels=3, gate_type=gate, deep_supervision=True,
        norm_name=("instance", {"affine": True}), **levels,
    ).double()  # fmt: skip
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    found = results(net, x)
    assert sum(shape[2:] == (3, 3) for shape in count) >= 10
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        half = net.float()(x.float())[0]
    assert half.dtype == torch.bfloat16
    net.double()
    monkeypatch.setattr(channels_last, "_GPU", ())
    for ours, expected in zip(found, results(net, x), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    assert float((half - found[0].detach()).abs().max() / found[0].detach().abs().max()) < 0.1


@pytest.mark.parametrize("gate", ["tsm", "gsf"])
def test_compiled_it_runs_the_same_convolutions(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels_last, "_GPU", ("cpu",))
    torch.manual_seed(0)
    levels = {"kernel_size": ((1, 3, 3),) * 3, "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)), "filters": (8, 8, 8)}
    net = create_network("ssh_unet", spatial_dims=3, in_channels=2, out_channels=2, gate_type=gate, **levels).double()
    x = torch.randn(1, 2, 8, 8, 8, dtype=torch.float64)
    expected, run = [], torch.nn.functional.conv2d
    with monkeypatch.context() as patch:
        patch.setattr(
            channels_last.F, "conv2d", lambda *args, **kwargs: expected.append(args[1]) or run(*args, **kwargs)
        )
        found = results(net, x)
    compiled: list[tuple[int, ...]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        for node in graph.graph.nodes:
            if node.target is torch.conv2d:
                image, weight = (arg.meta["example_value"] for arg in node.args[:2])
                assert image.stride(1) == 1 or weight.shape[:2] == (1, 2)
                compiled.append(tuple(weight.shape))
        return lookup_backend("aot_eager_decomp_partition")(graph, inputs)  # a CPU's batch norm has layouts of its own

    net.compile(backend=backend, dynamic=False, fullgraph=True)
    for ours, eager in zip(results(net, x), found, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-10, atol=1e-10)
    assert compiled == [tuple(weight.shape) for weight in expected]


@pytest.mark.parametrize(("depth", "stride"), [(5, (2, 2, 2)), (4, (1, 1, 1)), (6, (2, 1, 2))])
def test_strides_pick_the_same_slices(depth: int, stride: tuple[int, int, int], count: list[tuple[int, ...]]) -> None:
    layer = conv(3, 4, (1, 3, 5), stride).double()
    x = torch.randn(1, 3, depth, 6, 7, dtype=torch.float64)
    expected = nn.functional.conv3d(x, layer.weight, None, stride, layer.padding)
    y = layer(x.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    assert count == [(4, 3, 3, 5)]

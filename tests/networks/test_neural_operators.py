"""HNOSeg-XS, HNOSeg, FNOSeg, FNO, HartleyMHA and V-Net-DS: against the original's order of operations, in every mode of
execution, at awkward sizes, exported, and what they refuse.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from network_contract import BF16, error
from reference_neural_operators import forward as original
from torch import nn

from medseg.bundle.arguments import accepts_roi, planned_arguments
from medseg.errors import ConfigError
from medseg.networks import create_network
from medseg.networks.kernels import slabs

FAMILY = ("hnoseg_xs", "hnoseg", "fnoseg", "fno", "hartley_mha")
SIZES = {2: (21, 30), 3: (14, 15, 18)}
SMALL: dict[str, dict[str, Any]] = {
    "hnoseg_xs": {"num_convs": [2, 1, 2, 1, 2]},
    "hnoseg": {"num_blocks": 3},
    "fnoseg": {"num_blocks": 3},
    "fno": {"num_blocks": 3},
    "hartley_mha": {"num_blocks": 2, "num_heads": 2},
    "vnet_ds": {"num_blocks": [1, 2, 1], "fused_levels": [0, 1, 2]},
}
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in FAMILY),
    *((name, {"deep_supervision": True}) for name in FAMILY),
    *((name, {"resize": False, "block_skip": "add"}) for name in FAMILY),
    *((name, {"weights": "individual"}) for name in ("hnoseg_xs", "hnoseg")),
    *((name, {"num_modes": 30}) for name in ("hnoseg_xs", "hnoseg", "fnoseg", "fno")),
    ("hnoseg_xs", {"unet_skip": False}),
    ("hnoseg_xs", {"num_convs": [1] * 4, "deep_supervision": True}),
    ("hnoseg_xs", {"num_convs": [2]}),
    ("hnoseg", {"block_skip": None, "branch_bias": True}),
    ("fno", {"block_skip": "concat", "branch_bias": False}),
    ("hartley_mha", {"patch_size": None, "deep_supervision": False}),
]


def network(name: str, dims: int = 3, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    modes = {} if name == "vnet_ds" else {"num_modes": (2, 4, 2)[-dims:]}
    arguments = {"spatial_dims": dims, "in_channels": 2, "out_channels": 3, "filters": 5} | modes | SMALL[name]
    net = create_network(name, **(arguments | options)).eval()
    for key, parameter in net.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return net


def image(dims: int = 3, size: tuple[int, ...] | None = None, batch: int = 2) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 2, *(size or SIZES[dims]))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_equals_the_originals_order(name: str, options: dict[str, Any], dims: int, monkeypatch: Any) -> None:
    """At once with gradients, and in slabs of one and three rows without; to 9 and 5 digits."""
    if options.get("num_modes") == 30 and (name == "fno" or options.get("weights")):
        options = {**options, "weights": "shared"}  # with individual weights the original refuses small images
    net, x = network(name, dims, **options), image(dims)
    exact = original(net.double(), x.double()).detach()
    torch.testing.assert_close(net(x.double()).detach(), exact, rtol=1e-9, atol=1e-9)
    net.float()
    for rows in (1, 3):
        features = x.shape[2:] if net.conv_in is None else [n // 2 + 1 for n in x.shape[2:]]
        monkeypatch.setitem(slabs._SLAB, "cpu", rows * 5 * math.prod(features[1:]))
        with torch.no_grad():
            torch.testing.assert_close(net(x).double(), exact, rtol=1e-5, atol=2e-5)
            torch.testing.assert_close(net.double()(x.double()), exact, rtol=1e-9, atol=1e-9)
        net.float()


@pytest.mark.parametrize("name", SMALL)
def test_awkward_sizes(name: str) -> None:
    """Prime, flat and tiny volumes; attention alone needs room for a patch of modes."""
    net = network(name)
    for size in ((13, 29, 17), (5, 40, 3), (2, 2, 2), (1, 9, 1)):
        x = image(size=size, batch=1)
        if name == "hartley_mha" and min(size) < 2:
            with pytest.raises(ConfigError, match="use larger images or a smaller patch_size"):
                net(x)
            continue
        y = net(x)
        assert y.shape == (1, 3, *size) and y.isfinite().all()
        with torch.no_grad():
            torch.testing.assert_close(net(x), y.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILY)
def test_logits_do_not_depend_on_the_grid(name: str) -> None:
    """Zero-shot super-resolution: a smooth image with 1.5 times the voxels has the same logits at the same places."""
    net = network(name, num_modes=2, resize=False)

    def smooth(n: int) -> torch.Tensor:
        a, b, c = torch.meshgrid(*[2 * math.pi * torch.arange(n) / n] * 3, indexing="ij")
        return torch.stack([torch.cos(a) + torch.sin(b), torch.cos(b + c)])[None]

    with torch.no_grad():
        coarse, fine = net(smooth(24)), net(smooth(36))
    difference = coarse[..., ::2, ::2, ::2] - fine[..., ::3, ::3, ::3]
    assert difference.abs().max() < 0.02 * coarse.std()


@pytest.mark.parametrize("name", SMALL)
def test_bf16_at_every_size(name: str) -> None:
    net = network(name)
    for size in ((13, 18, 15), (11, 7, 29)):
        x = image(size=size, batch=1)
        for grad in (False, True):
            with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
                y = net(x)
            exact = net(x).detach()
            assert (y.float() - exact).abs().max() < 0.1 * exact.abs().max()
        y.float().sum().backward()


@pytest.mark.parametrize("name", FAMILY)
def test_bf16_at_published_depth(name: str) -> None:
    torch.manual_seed(0)
    net, x = create_network(name, spatial_dims=2, in_channels=2, out_channels=3), torch.randn(1, 2, 48, 48)
    with torch.no_grad():
        expected = net(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert error([net(x)], [expected]) <= BF16


@pytest.mark.parametrize("activation", ["relu", "elu", "leakyrelu", "gelu"])
@pytest.mark.parametrize("name", SMALL)
def test_other_activations_are_normalised(name: str, activation: str) -> None:
    net = network(name, activation=activation)
    assert any(isinstance(module, nn.GroupNorm) for module in net.modules())
    x = image(batch=1)
    y = net(100 * x)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    with torch.no_grad():
        torch.testing.assert_close(net(100 * x), y.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_gradients(name: str) -> None:
    net = network(name, 2, filters=2).double()
    x = image(2, (7, 6), batch=1).double().requires_grad_()
    assert torch.autograd.gradcheck(net, x)


def test_self_normalising_start() -> None:
    """N(0, 1 / fan_in) weights and tiny biases; attention keeps torch's uniform start."""
    net = create_network("hnoseg_xs", spatial_dims=3, in_channels=4, out_channels=4)
    weights = torch.cat([block.conv_blocks[0].weight.flatten() for block in net.layers])
    assert weights.std().item() == pytest.approx(24**-0.5, rel=0.05)
    assert max(float(p.detach().abs().max()) for key, p in net.named_parameters() if key.endswith("bias")) <= 0.001
    attention = create_network("hartley_mha", spatial_dims=3, in_channels=4, out_channels=4).layers[0].op
    assert float(attention.weight_query.detach().abs().max()) <= (12 * 12) ** -0.5
    fno = create_network("fno", spatial_dims=2, in_channels=1, out_channels=2, num_modes=4, num_blocks=1)
    assert fno.layers[0].op.weight_real.std().item() == pytest.approx((24 * 8 * 4) ** -0.5, rel=0.05)


def test_the_stem_halves_with_a_border() -> None:
    net = network("hnoseg_xs")
    assert net.conv_in is not None
    assert net.conv_in(image(size=(240, 155, 1), batch=1)).shape[2:] == (121, 78, 1)


@pytest.mark.parametrize("name", SMALL)
def test_compiles_as_one_graph(name: str) -> None:
    """What ``torch.compile`` needs; the code generation itself is torch's."""
    net, x = network(name), image(batch=1)
    with torch.no_grad():
        result = torch.compile(net, backend="eager", fullgraph=True)(x)
        torch.testing.assert_close(result, net(x), rtol=1e-4, atol=1e-4)


def test_plans() -> None:
    """Modes follow the window, patches divide them, and few voxels get few levels."""
    from network_contract import plan

    for name in SMALL:
        for side in (8, 16, 40, 120):
            arguments = planned_arguments(name, plan(3, light=True, side=side))
            assert accepts_roi(name, arguments, (side,) * 3) is None
    assert planned_arguments("hnoseg_xs", plan(3, side=120))["num_modes"] == [14, 14, 14]
    assert planned_arguments("hnoseg_xs", plan(3, side=78))["num_modes"] == [10, 10, 10]


def test_what_does_not_fit_is_refused() -> None:
    for name, options, words in (
        ("hnoseg_xs", {"num_modes": (2, 3)}, "expected 3 positive numbers"),
        ("hnoseg_xs", {"num_modes": 0}, "expected 3 positive numbers"),
        ("hnoseg_xs", {"num_convs": []}, "a positive number per block"),
        ("hnoseg_xs", {"block_skip": None}, "Known: 'concat', 'add'"),
        ("hnoseg_xs", {"activation": "selux"}, "activation"),
        ("hnoseg", {"block_skip": "cat"}, "Did you mean 'concat'"),
        ("hnoseg", {"num_blocks": 0}, "num_blocks"),
        ("fno", {"weights": "own"}, "Known: shared, individual"),
        ("hartley_mha", {"patch_size": 3}, "divisors of twice the num_modes"),
        ("hartley_mha", {"num_heads": 0}, "num_heads"),
        ("vnet_ds", {"fused_levels": [1, 2]}, "expected 0 and other levels below 3"),
        ("vnet_ds", {"num_blocks": []}, "a positive number per level"),
        ("vnet_ds", {"self_normalizing": True}, "needs activation 'selu'"),
    ):
        with pytest.raises(ConfigError, match=words):
            network(name, **options)

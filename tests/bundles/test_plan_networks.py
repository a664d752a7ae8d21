"""Any network of MONAI, and a user's own class, is planned, built and takes a training step; misfits say why."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import DiceCELoss
from torch import nn

from medseg.bundle import plan_for_network, planned_arguments
from medseg.bundle.plan_layer import plan_recipe
from medseg.data import inspect_cases, read_datalist
from medseg.errors import ConfigError
from medseg.networks import create_network

SPACINGS = {"isotropic": (1.0, 1.0, 1.0), "thick slices": (1.0, 1.0, 5.0)}
NETWORKS = ("DynUNet", "SegResNet", "UNETR", "SwinUNETR", "MedNeXt", "BasicUNet", "UNet", "AttentionUnet", "own")


class Own(nn.Module):
    """A user's class with medseg's constructor."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, *, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(in_channels, width, 3, padding=1), nn.ReLU(), nn.Conv3d(width, out_channels, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Pair(Own):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return self.layers(x), x


class Needy(Own):
    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, depth: int) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        self.depth = depth


class Foreign(nn.Module):
    def __init__(self, n_cls: int) -> None:
        super().__init__()
        self.n_cls = n_cls


def dotted(name: str) -> str:
    return f"{__name__}.{name}"


@pytest.fixture(scope="module", params=SPACINGS.values(), ids=SPACINGS)
def inspected(request, make_datalist):
    thick = request.param[2] > 1
    datalist = read_datalist(make_datalist(spacing=request.param, shape=(40, 24, 9 if thick else 22)))
    return datalist, inspect_cases(datalist.sections["training"], datalist.label_space)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_is_planned_built_and_trained(network, inspected):
    network = dotted("Own") if network == "own" else network
    plan, arguments = plan_for_network(network, *inspected, num_training=4, device_type="cpu")
    torch.manual_seed(0)
    net = create_network(network, **arguments)
    image = torch.randn(1, plan.in_channels, *plan.roi_size)
    label = torch.randint(0, plan.out_channels, (1, 1, *plan.roi_size))
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    logits = net(image)
    assert logits.shape == (1, plan.out_channels, *plan.roi_size)
    loss = DiceCELoss(to_onehot_y=True, softmax=True)(logits, label)
    loss.backward()
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.step()
    assert torch.isfinite(loss)
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("mode", ["effective", "none"])
def test_large_kernels_are_planned_with_their_reparameterization(mode, inspected):
    """The frequency mask is part of RepUX-Net's training, and of no other network's."""
    plan, arguments = plan_for_network("repuxnet", *inspected, num_training=4, device_type="cpu")
    recipe = plan_recipe({"_target_": "medseg.networks.RepUXNet", **arguments}, inspected[0], plan)
    config = recipe.config("train").tree
    assert config["reparameterization"] == "effective"
    plain = plan_recipe({"_target_": "monai.networks.nets.UNet"}, inspected[0], plan)
    assert "reparameterization" not in plain.config("train").tree
    parser = ConfigParser(config | {"reparameterization": mode, "device": "cpu"})
    optimizer = parser.get_parsed_content("optimizer")
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["frequency_mode"] for group in optimizer.param_groups} == {mode}


def test_the_users_arguments_reach_the_network(inspected):
    _, arguments = plan_for_network(
        "SegResNet", *inspected, num_training=4, device_type="cpu", overrides={"network_def::init_filters": 16}
    )
    assert arguments["init_filters"] == 16
    plan, arguments = plan_for_network(
        dotted("Needy"), *inspected, num_training=4, device_type="cpu", overrides={"network_def::depth": 2}
    )
    assert arguments["depth"] == 2
    assert planned_arguments(dotted("Own"), plan) == {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}


@pytest.mark.parametrize(
    ("network", "overrides", "sentence"),
    [
        ("Pair", {}, "returns tuple"),
        ("Needy", {}, "also needs depth"),
        ("Foreign", {}, "no argument in_channels and out_channels"),
        ("Own", {"network_def::widht": 3}, "no argument 'widht'. Did you mean 'width'"),
        ("Own", {"roi_size": [32, 32]}, "has 2 axes, expected 3"),
        ("Absent", {}, "cannot be imported"),
    ],
)
def test_a_misfit_gets_a_sentence(network, overrides, sentence, inspected):
    with pytest.raises(ConfigError, match=sentence):
        plan_for_network(dotted(network), *inspected, num_training=4, device_type="cpu", overrides=overrides)


@pytest.mark.parametrize(("network", "side", "taken"), [("UNETR", 30, 32), ("SwinUNETR", 32, 64)])
def test_a_window_that_a_network_refuses_is_answered_with_one_that_it_takes(network, side, taken, inspected):
    """SwinUNETR's instance norm refuses the one voxel of its deepest level in training alone."""
    with pytest.raises(ConfigError, match=rf"does not take roi_size \[{side}, .*try \[{taken}, {taken}, {taken}\]"):
        plan_for_network(network, *inspected, num_training=4, device_type="cpu", overrides={"roi_size": [side] * 3})

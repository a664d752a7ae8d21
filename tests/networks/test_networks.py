"""What every registered network promises; a new network is tested by being registered. Planted faults are noticed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import network_contract as contract
import pytest
import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks import NETWORKS, catalog, create_network, list_networks, network_class
from medseg.networks.catalog import NetworkFacts

README = Path(__file__).parents[2] / "README.md"


def cases() -> Iterator[Any]:
    for name, facts in catalog().items():
        for dims in facts.spatial_dims:
            yield pytest.param(name, dims, id=f"{name}-{dims}D")


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "dims"), cases())
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_contract(name: str, dims: int, check: contract.Check) -> None:
    if check is contract.exported and dims != catalog()[name].spatial_dims[0]:
        return  # with one number of axes; tests/bundle/test_export.py takes the other
    assert list(check(network_class(name), catalog()[name], dims)) == []


@pytest.mark.parametrize("name", catalog())
def test_the_readme_states_the_same_facts(name: str) -> None:
    facts = catalog()[name]
    (row,) = re.findall(rf"^\| `{name}` \|(.*)\|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    _, dims, parameters, *_, paper = (cell.strip() for cell in row.split("|"))
    assert dims == {(2, 3): "both", (2,): "2D", (3,): "3D"}[facts.spatial_dims]
    assert parameters == f"{facts.parameters:,}".replace(",", " ")
    assert paper[1 : paper.index("]")] in facts.paper


def test_catalog_and_registry_agree() -> None:
    assert all(network_class(name) is NETWORKS[name] for name in catalog())
    assert list_networks("ssh*") == ["ssh_unet"]


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'ssh_unet'"):
        create_network("sshunet")
    with pytest.raises(ConfigError, match="Did you mean 'gate_type'"):
        create_network("ssh_unet", spatial_dims=3, in_channels=1, out_channels=2, gate_typ="tsm")


# ---------------------------------------------------------------------- planted faults
class Sound(nn.Module):
    """Keeps the contract; the classes below break it in one place each."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, *, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.last = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())


class Softmax(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).softmax(1)


class CentredSoftmax(Sound):
    def forward(self, x: Tensor) -> Any:
        return 20 * super().forward(x).softmax(1) - 5


class LogSoftmax(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).log_softmax(1)


class Sigmoid(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).sigmoid()


class Tanh(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).tanh()


class Positive(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).relu()


class SoftmaxInEvaluation(Sound):
    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return y if self.training else y.softmax(1)


class SoftmaxInOneHead(Sound):
    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return [y, y[..., ::2, ::2].softmax(1)] if self.training else y


class Positional(Sound):
    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, width: int = 4) -> None:
        super().__init__(spatial_dims, in_channels, out_channels, width=width)


class OtherNames(Sound):
    def __init__(self, spatial_dims: int, in_channels: int, num_classes: int) -> None:
        super().__init__(spatial_dims, in_channels, num_classes)


class Shrinks(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[..., : x.shape[-1] // 8 * 8]


class OverwritesItsInput(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.mul_(2))


class Amplifies(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x + 100) - super().forward(x + 99)


class NotFinite(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).log()


class Idle(Sound):
    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__(spatial_dims, in_channels, out_channels)
        self.unused = nn.Parameter(torch.zeros(1))


class NeedsValues(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * float(x.shape[0] and x.mean().item() > -9)


class OneBatch(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) + torch.ones(int(x.shape[0]), 1, 1, 1).cumsum(0)


class Untraceable(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * (2.0 if torch.jit.is_tracing() or torch.compiler.is_exporting() else 1.0)


class Unscriptable(Sound):
    def forward(self, *inputs: Tensor) -> Any:
        return self.last(self.first(*inputs).relu())


class ScriptsDiffer(Sound):
    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.first(x).relu())
        return 2 * y if torch.jit.is_scripting() else y


FACTS = NetworkFacts("sound", "Sound", __name__, "Sound", (2,), (3, 2), 122, "", "")
FAULTS = [
    (contract.signature, [Positional, OtherNames]),
    (
        contract.logits,
        [Softmax, CentredSoftmax, LogSoftmax, Sigmoid, Tanh, Positive, SoftmaxInEvaluation, SoftmaxInOneHead],
    ),
    (contract.sizes, [Shrinks, OverwritesItsInput, NotFinite]),
    (contract.gradients, [Idle]),
    (contract.half, [Amplifies]),
    (contract.meta, [NeedsValues]),
    (contract.traced, [OneBatch, Untraceable]),
    (contract.scripted, [Unscriptable, ScriptsDiffer]),
    (contract.exported, [Untraceable]),
]


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_a_sound_network_keeps_the_contract(check: contract.Check) -> None:
    assert list(check(Sound, FACTS, 2)) == []


@pytest.mark.parametrize(("check", "cls"), [(check, cls) for check, classes in FAULTS for cls in classes])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_planted_fault_is_noticed(check: contract.Check, cls: type[nn.Module]) -> None:
    assert list(check(cls, FACTS, 2))


def test_a_fact_that_is_no_longer_true_is_noticed() -> None:
    facts = replace(FACTS, unscripted="of old")
    assert list(contract.scripted(Sound, facts, 2)) == ["it is scripted, but its facts say that it is not"]
    assert list(contract.scripted(Unscriptable, facts, 2)) == []


def test_a_wrong_parameter_count_is_noticed() -> None:
    assert list(contract.parameters(Sound, replace(FACTS, parameters=123), 2)) == [
        "it has 122 parameters, 123 are stated"
    ]

"""The table of a network's layers: nothing is lost, shapes are those of the forward pass, the command prints it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medseg.cli import main
from medseg.errors import ConfigError
from medseg.networks import catalog
from medseg.networks.layer_table import Layer, LayerTable, layers_of
from medseg.networks.listing import networks


class Small(nn.Module):
    """A convolution that runs twice, a pair of outputs, a parameter of its own, and a head that does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2, return_indices=True))
        self.unused = nn.Linear(2, 5)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.body(self.body[0](x))
        return y * self.scale[:, None, None]


def test_a_small_network_by_hand() -> None:
    assert layers_of(Small(), torch.zeros(2, 3, 8, 6)) == (
        Layer("", "Small", (2, 3, 4, 3), 3),
        Layer("body.0", "Conv2d", (2, 3, 8, 6), 84),
        Layer("body.1", "MaxPool2d", (2, 3, 4, 3), 0),
        Layer("unused", "Linear", None, 15),
    )


@pytest.mark.parametrize("name", catalog())
def test_every_registered_network_has_its_table(name: str) -> None:
    table = networks(name, layers=True)
    assert isinstance(table, LayerTable)
    assert sum(layer.parameters for layer in table.layers) == catalog()[name].parameters
    assert sum(layer.output is not None for layer in table.layers) > len(table.layers) / 2


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["networks", "transbts", "--layers"]) == 0
    header, first, *_, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["layer", "class", "output", "parameters"]
    assert first.split() == ["(itself)", "TransBTS", *["1", "×", "5", "×", "96", "×", "96", "×", "96"], "884,736"]
    assert last == "transbts: 31,510,213 parameters; an image of 1 × 1 × 96 × 96 × 96"


def test_layers_are_of_one_network() -> None:
    with pytest.raises(ConfigError, match=r"No network 'ssh\*' whose layers could be shown"):
        networks("ssh*", layers=True)

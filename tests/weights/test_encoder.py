"""Pretrained weights fill an encoder and nothing else; a file that does not fit says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medseg.errors import ConfigError, ModelError
from medseg.networks import create_network
from medseg.weights import save_file
from medseg.workflows.train_settings import TrainSettings
from medseg.workflows.transfer import Transfer, TransferRequest

SMALL = {"spatial_dims": 2, "in_channels": 3, "width": 2, "depths": [1, 1, 1], "num_heads": 2, "mlp_dim": 4}


def network(**changed: Any) -> torch.nn.Module:
    return create_network("qtseg", **{**SMALL, "out_channels": 2, **changed})


@pytest.mark.parametrize("whole", [True, False])
def test_the_encoder_alone_is_filled(tmp_path: Path, whole: bool) -> None:
    trained, fresh = network(), network(out_channels=5)
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    save_file((trained if whole else trained.encoder).state_dict(), tmp_path / "encoder.pt")
    request = TransferRequest(tmp_path / "encoder.pt", encoder=True)
    changes, state = Transfer(request).install(fresh, {"initial": {}}, None)  # type: ignore[arg-type]
    for key, value in fresh.state_dict().items():
        expected = trained.state_dict()[key] if key.startswith("encoder.") else before[key]
        assert torch.equal(value, expected), key
    assert all(key.startswith("encoder.") for key in state)
    assert set(changes.changes["initial"]["reinitialize"]) == {k for k in before if not k.startswith("encoder.")}


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    save_file(network(in_channels=1).encoder.state_dict(), tmp_path / "grey.pt")
    request = TransferRequest(tmp_path / "grey.pt", encoder=True)
    with pytest.raises(ModelError, match=r"1 of its \d+ parameters are missing or of another shape \(stem"):
        Transfer(request).install(network(), {"initial": {}}, None)  # type: ignore[arg-type]
    kept = TransferRequest(tmp_path / "grey.pt", ["encoder.stem*"], encoder=True)
    Transfer(kept).install(network(), {"initial": {}}, None)  # type: ignore[arg-type]
    unet = create_network("UNet", spatial_dims=2, in_channels=1, out_channels=2, channels=[4, 8], strides=[2])
    with pytest.raises(ModelError, match="UNet has no part named 'encoder'"):
        Transfer(request).install(unet, {"initial": {}}, None)  # type: ignore[arg-type]
    given = {"output": tmp_path, "json_list": tmp_path, "network": "qtseg", "encoder_weights": tmp_path / "grey.pt"}
    with pytest.raises(ConfigError, match="Leave one of them out"):
        TrainSettings(**given, transfer=tmp_path).check()

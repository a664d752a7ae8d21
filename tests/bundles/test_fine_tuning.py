"""``train --transfer``: a new run starts from the weights of another one, and says what it took over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg.errors import ConfigError, ModelError
from medseg.storage import read_yaml
from medseg.weights import read_state_dict
from medseg.workflows import train
from medseg.workflows.transfer import channel_tensors

_TINY = {"roi_size": [16, 16, 16], "network_def::init_filters": 8, "network_def::blocks_down": [1, 1]}
_TINY |= {"network_def::blocks_up": [1], "learning_rate": 0.001, "repeats": 1}


@pytest.fixture(scope="module")
def source(make_datalist: Callable[..., Path], tmp_path_factory: Any) -> Path:
    run = tmp_path_factory.mktemp("source") / "run"
    return train(output=run, json_list=make_datalist(), network="SegResNet", epochs=1, device="cpu", overrides=_TINY)


def start(run: Path, datalist: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """The weights after an epoch whose steps change nothing: a fixed network shows what it started from."""
    settings.setdefault("overrides", {"learning_rate_factors": {"*": 0.0}, "repeats": 1})
    train(output=run, json_list=datalist, network="SegResNet", epochs=1, device="cpu", **settings)
    return read_state_dict(run / "models" / "model.pt")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in a if a[name].shape == b[name].shape and torch.equal(a[name], b[name])}


def test_the_architecture_and_all_weights_come_from_the_run(source: Path, make_datalist: Any, tmp_path: Path) -> None:
    weights = start(tmp_path / "run", make_datalist(), transfer=source)
    assert same(weights, read_state_dict(source / "models" / "model.pt")) == set(weights)
    definition = read_yaml(tmp_path / "run" / "configs" / "train.yaml")["network_def"]
    assert (definition["blocks_down"], definition["blocks_up"]) == ([1, 1], [1])


def test_other_labels_get_a_new_head_even_if_it_would_fit(source: Path, make_datalist: Any, tmp_path: Path) -> None:
    before = read_state_dict(source / "models" / "model.pt")
    other = make_datalist(labels=("kidney", "tumour"))
    weights = start(tmp_path / "run", other, transfer=source)
    assert set(weights) - same(weights, before) == {"conv_final.2.conv.weight", "conv_final.2.conv.bias"}
    config = read_yaml(tmp_path / "run" / "configs" / "train.yaml")
    assert config["initial"]["reinitialize"] == ["conv_final.2.conv.weight", "conv_final.2.conv.bias"]
    more = start(tmp_path / "more", make_datalist(labels=("liver", "spleen", "kidney")), transfer=source)
    assert more["conv_final.2.conv.weight"].shape[0] == 4 and len(same(more, before)) == len(before) - 2


def test_named_parts_start_anew_and_a_finished_run_stays(source: Path, make_datalist: Any, tmp_path: Path) -> None:
    before = read_state_dict(source / "models" / "model.pt")
    arguments = {"transfer": source, "reinitialize": ["up_layers*"]}
    weights = start(tmp_path / "run", make_datalist(), **arguments)
    changed = set(weights) - same(weights, before)
    assert changed and all(name.startswith("up_layers") for name in changed)
    again = start(tmp_path / "run", make_datalist(), **arguments)
    assert same(weights, again) == set(weights)
    with pytest.raises(ConfigError, match="initial"):  # other parts anew are another run
        start(tmp_path / "run", make_datalist(), transfer=source)


def test_a_file_of_another_network_is_refused_before_training(source: Path, make_datalist: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="matches 0 of"):
        train(
            output=tmp_path / "run",
            json_list=make_datalist(),
            network="BasicUNet",
            epochs=1,
            device="cpu",
            transfer=source / "models" / "model.pt",
        )
    assert not (tmp_path / "run" / "configs").exists()
    with pytest.raises(ConfigError, match="--transfer"):
        train(output=tmp_path / "b", json_list=make_datalist(), network="BasicUNet", partial=True)


def test_tensors_that_depend_on_the_channels() -> None:
    definition = {"_target_": "medseg.networks.SSHUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2}
    head, stem = (channel_tensors(definition, name) for name in ("out_channels", "in_channels"))
    assert head and stem and not set(head) & set(stem)
    assert all(2 in shape for shape in head.values())

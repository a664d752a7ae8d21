"""nnU-Net's configurations of volumes: a 2D network on slices from training to ensembles, and a lower resolution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from brightness import write_cases, write_run

import medseg
from medseg.data import read_datalist
from medseg.engines.run_facts import read_facts
from medseg.errors import ConfigError
from medseg.inferers.head import split_head
from medseg.networks import SliceWise, create_network
from medseg.storage import read_yaml
from medseg.weights import save_file
from medseg.workflows.ensemble import ensemble
from medseg.workflows.start import Start
from medseg.workflows.train_settings import TrainSettings

_QUICK = {"epochs": 1, "device": "cpu", "tracker": "none"}


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the 2D configuration on volumes of 26×24×14 voxels, 2 mm apart along the last axis."""
    folder = tmp_path_factory.mktemp("slices")
    datalist = write_cases(folder, validation=2)
    given = {"overrides": {"repeats": 16, "overlap": 0.25}, "configuration": "2d", **_QUICK}
    return medseg.train(network="DynUNet", json_list=datalist, output=folder / "run", **given)


def test_a_2d_network_is_planned_for_slices_across_the_coarsest_axis(sliced: Path) -> None:
    train, inference = (read_yaml(sliced / "configs" / f"{name}.yaml") for name in ("train", "inference"))
    assert train["configuration"] == "2d"
    assert train["roi_size"] == inference["roi_size"] == [24, 24, 1]
    assert train["network_def"] == inference["network_def"]
    assert (train["network_def"]["axis"], train["network_def"]["network"]["spatial_dims"]) == (2, 2)
    assert train["preprocess"]["slice_axis"] == inference["preprocess"]["slice_axis"] == 2
    assert train["augment"]["rotate"] == [0.0, 0.0, 0.3]
    assert read_facts(sliced).network == "DynUNet (2D)"


def test_its_volumes_are_those_of_the_slices_one_by_one(sliced: Path) -> None:
    """Every slice keeps its place, whatever the patches; so a case of other spacing keeps its slices."""
    run = medseg.load(sliced)
    values = np.random.default_rng(0).normal(size=(24, 24, 5)).astype(np.float32)
    whole = np.asarray(run.predict(values, spacing=(1.0, 1.0, 7.0)))
    assert whole.shape == values.shape
    network = run.network.eval()
    assert isinstance(network, SliceWise)
    normal = torch.from_numpy((values - values.mean()) / values.std())[None, None]
    with torch.no_grad():
        logits = torch.cat([network.network(normal[..., place])[..., None] for place in range(5)], -1)
    np.testing.assert_array_equal(whole, logits[0].argmax(0).numpy())


def test_the_head_of_slices_is_not_taken_for_one_of_volumes(sliced: Path) -> None:
    network = SliceWise(3, 1, 4, network=torch.nn.Conv2d(1, 4, 1), axis=2)
    head, logits = split_head(network, lambda: network(torch.ones(1, 1, 2, 2, 1)))
    assert head is None and logits.shape == (1, 4, 2, 2, 1)


def test_scores_predictions_and_ensembles_are_of_volumes(sliced: Path) -> None:
    assert len(medseg.evaluate(sliced, device="cpu").cases) == 2
    volume = write_run(sliced.parent / "volume", sliced.parent / "list.json")
    joined = ensemble([sliced, volume], sliced.parent / "joined", device="cpu")
    assert joined is not None and len(joined.cases) == 2
    (found,) = (sliced.parent / "joined" / "predictions").glob("case_2*.nii.gz")
    assert nibabel.load(found).shape == (26, 24, 14)


def test_a_training_starts_from_the_weights_of_slices(sliced: Path) -> None:
    given = {"json_list": sliced.parent / "list.json", "output": sliced.parent / "again", **_QUICK}
    again = medseg.train(network="DynUNet", configuration="2d", transfer=sliced, overrides={"repeats": 16}, **given)
    assert "starts from run" in (again / "configs" / "origin.json").read_text()
    with pytest.raises(ConfigError, match=r"is a run on slices \(--configuration 2d\); expected one in 3D"):
        medseg.train(network="DynUNet", transfer=sliced, **given | {"output": sliced.parent / "volumes"})


def test_an_encoder_of_2d_images_is_that_of_slices(sliced: Path, tmp_path: Path) -> None:
    datalist = read_datalist(sliced.parent / "list.json")
    given = {"network": "resenc_unet", "configuration": "2d", "json_list": datalist.path, "output": tmp_path, **_QUICK}
    settings, cpu = TrainSettings(**given), torch.device("cpu")
    definition = Start.of(settings, datalist, cpu).draft.train.tree["network_def"]["network"]
    network = create_network(definition["_target_"], **{k: v for k, v in definition.items() if k != "_target_"})
    save_file(network.encoder.state_dict(), tmp_path / "encoder.pt")  # type: ignore[union-attr,operator]
    started = Start.of(replace(settings, encoder_weights=tmp_path / "encoder.pt"), datalist, cpu)
    assert started.initial is not None
    assert all(name.startswith("network.encoder.") for name in started.initial)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"configuration": "3d_lowres"}, "3d_lowres: the patch holds a quarter of the median case at full resolution"),
        ({"configuration": "2d", "overrides": {"roi_size": [16, 16, 8]}}, r"1 along one axis, as in \[16, 16, 1\]"),
        ({"configuration": "2d", "network": "ssh_unet"}, "SSH-UNet is for volumes: spatial_dims is 2, expected 3"),
        ({"configuration": "3d_cascade"}, "expected 2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres, or a name in --nnu"),
    ],
)
def test_what_cannot_be_is_told(given: dict, sentence: str, sliced: Path, tmp_path: Path) -> None:
    arguments = {"network": "DynUNet", "json_list": sliced.parent / "list.json", "output": tmp_path / "run", **_QUICK}
    with pytest.raises(ConfigError, match=sentence):
        medseg.train(**arguments | given)

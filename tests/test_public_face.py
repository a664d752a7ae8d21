"""``import medseg``: what it offers, what it costs, and that its examples are true."""

from __future__ import annotations

import doctest
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import medseg
from medseg.data.phantom import write_phantom
from medseg.errors import ConfigError, DataError, ModelError
from medseg.weights import read_state_dict
from medseg.workflows.run import Run

ROOT = Path(__file__).parents[1]
NAMES = [name for name in medseg.__all__ if name != "__version__"]


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, medseg; medseg.__version__; dir(medseg); assert medseg.list_networks('hno*'); "
        "assert not {'torch', 'monai', 'numpy', 'yaml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_it_takes_no_time() -> None:
    code = "import time; start = time.process_time(); import medseg; print(time.process_time() - start)"
    times = [float(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT)) for _ in range(3)]
    assert min(times) < 0.15


def test_its_names() -> None:
    assert set(medseg.__all__) <= set(dir(medseg))
    for name in NAMES:
        assert getattr(medseg, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        medseg.trian  # noqa: B018


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and the runs of the examples."""
    folder = tmp_path_factory.mktemp("examples")
    datalist = write_phantom(folder / "phantom", cases=6)
    small = {"roi_size": [32, 32, 16], "repeats": 1}
    run = folder / "runs" / "first"
    medseg.train(network="UNet", json_list=datalist, output=run, epochs=1, device="cpu", overrides=small)
    medseg.evaluate(run, device="cpu")
    shutil.copytree(run, run.with_name("second"))
    return folder


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("name", [*NAMES, "Run", "Run.predict"])
def test_its_examples(name: str, inside: Path) -> None:
    subject = getattr(medseg, name, None) or {"Run": Run, "Run.predict": Run.predict}[name]
    names = {"medseg": medseg, "np": np, "nibabel": nibabel}
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(subject) or "", names, name, None, 0)
    assert example.examples
    said: list[str] = []
    assert doctest.DocTestRunner().run(example, out=said.append).failed == 0, "".join(said)


def test_what_is_missing_is_said(place: Path, tmp_path: Path, inside: Path) -> None:
    with pytest.raises(ModelError, match="has no config 'inference'. Expected a bundle with"):
        medseg.load(tmp_path)
    with pytest.raises(ModelError, match="Did you mean 'ssh_unet_btcv_ct_segmentation'"):
        medseg.load("ssh_unet_btcv_ct")
    bundle = medseg.load("ssh_unet_btcv_ct_segmentation", device="cpu")
    assert bundle.metrics is None and bundle.facts.status is None and len(bundle.history["epoch"]) == 0
    with pytest.raises(ModelError, match="No weights at"):
        bundle.predict("phantom/imagesTs/organs_006.nii.gz")
    with pytest.raises(ModelError, match="No weights at"):
        _ = bundle.network
    run = medseg.load("runs/first", device="cpu")
    with pytest.raises(DataError, match="neither spacing nor affine"):
        run.predict(np.zeros((9, 9, 9)))
    with pytest.raises(ConfigError, match="modality"):
        run.predict("phantom/imagesTs/organs_006.nii.gz", modality="ct")


def test_the_network_has_the_weights_of_the_run(inside: Path) -> None:
    network = medseg.load("runs/first", device="cpu").network
    stored = read_state_dict(Path("runs/first/models/model.pt"))
    assert not network.training
    assert network.state_dict().keys() == stored.keys()
    assert all(torch.equal(value, stored[name]) for name, value in network.state_dict().items())

"""``medseg export``: what it writes is enough to reproduce ``medseg infer`` without medseg."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai import transforms as mt
from PIL import Image
from scipy.ndimage import gaussian_filter

from medseg.bundle import deployment, reference_runner
from medseg.bundle.draft import Draft
from medseg.cli import main
from medseg.data import PlanSettings, inspect_cases, make_plan, read_datalist
from medseg.inferers import SlidingWindow, WholeVolume
from medseg.networks import create_network
from medseg.transforms import VolumeReader, window_preprocessing
from medseg.transforms.picture import ToRGBd
from medseg.weights import save_file
from medseg.workflows import predict

onnx = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs the extra `export`")
OBLIQUE = np.array([[0.1, -2.0, 0.3, 5.0], [1.5, 0.05, 0.0, -7.0], [0.0, 0.3, 2.4, 11.0], [0.0, 0.0, 0.0, 1.0]])
SPACE = {
    "softmax": {"labels": {"background": 0, "liver": 3, "spleen": 7}},
    "sigmoid": {
        "mode": "sigmoid",
        "labels": {"background": 0, "rim": 1, "core": 2},
        "regions": {"whole": ["rim", "core"], "inner": ["core"]},
    },
}


def smooth(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A field of smooth blobs, so that interpolation has something to keep; 0 in a border."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    field = 100 * field / field.std()
    field[:2] = 0
    return field.astype(np.float32)


def make_bundle(
    folder: Path, mode: str, modality: dict[str, str], shape: tuple[int, ...], roi: tuple[int, ...]
) -> Path:
    """A bundle with random weights of a small U-Net, and two cases beside it: ``a`` and ``b``."""
    affine = OBLIQUE if len(shape) == 3 else np.eye(4)
    suffix = ".nii.gz" if len(shape) == 3 else ".png"
    cases = []
    for case in "ab":
        files = [f"{case}_{channel:04d}{suffix}" for channel in range(len(modality))]
        for number, file in enumerate(files):
            values = smooth(shape, ord(case) + number)
            if suffix == ".png":
                Image.fromarray(np.clip(values + 128, 0, 255).astype(np.uint8)).save(folder / file)
            else:
                nibabel.save(nibabel.Nifti1Image(values, affine), folder / file)
        label = np.zeros(shape, np.uint8)
        for value in [v for v in SPACE[mode]["labels"].values() if v]:
            label[tuple(slice(value, value + 4) for _ in shape)] = value
        if suffix == ".png":
            Image.fromarray(label).save(folder / f"{case}_label.png")
        else:
            nibabel.save(nibabel.Nifti1Image(label, affine), folder / f"{case}_label.nii.gz")
        cases.append({"image": files if len(files) > 1 else files[0], "label": f"{case}_label{suffix}"})
    (folder / "list.json").write_text(json.dumps({"modality": modality, "label_space": SPACE[mode], "training": cases}))
    datalist = read_datalist(folder / "list.json")
    facts = inspect_cases(datalist.sections["training"], datalist.label_space, datalist.channels)
    plan = make_plan(datalist, facts, PlanSettings(roi_size=roi, spacing=(1.7, 1.6, 2.0) if len(shape) == 3 else None))
    channels = {"in_channels": plan.in_channels, "out_channels": plan.out_channels, "spatial_dims": len(shape)}
    network = {"features": [6, 6, 8, 8, 8, 6], **channels}
    bundle = Draft.planned("BasicUNet", network, datalist, plan).write(folder / "bundle")
    torch.manual_seed(1)
    net = create_network("BasicUNet", **network).eval()
    with torch.no_grad():  # centred logits, so that every label occurs
        logits = net(torch.randn(1, plan.in_channels, *roi))
        net.final_conv.bias -= logits.mean((0, *range(2, logits.dim())))
    save_file(net.state_dict(), bundle / "models" / "model.pt")
    return bundle


def shares(values: np.ndarray) -> dict[int, float]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), (counts / values.size).tolist(), strict=True))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """The smallest Dice of the values that occur."""
    return min(2 * np.sum((a == v) & (b == v)) / (np.sum(a == v) + np.sum(b == v)) for v in np.union1d(a, b))


VOLUMES: dict[str, Any] = {
    "softmax-CT": ("softmax", {"0": "CT"}),
    "sigmoid-two-MR-channels": ("sigmoid", {"0": "T1", "1": "FLAIR"}),
}


@onnx
@pytest.mark.parametrize(("mode", "modality"), VOLUMES.values(), ids=VOLUMES)
def test_the_reference_runner_reproduces_infer_on_an_oblique_volume(mode, modality, tmp_path, capsys):
    bundle = make_bundle(tmp_path, mode, modality, (27, 34, 21), (32, 32, 32))
    images = [tmp_path / f"a_{channel:04d}.nii.gz" for channel in range(len(modality))]
    (path,) = predict(bundle, tmp_path / "ours", inputs=images, device="cpu")
    ours, ours_header = np.asarray(nibabel.load(path).dataobj), nibabel.load(path).header
    assert len(shares(ours)) == 3 and min(shares(ours).values()) > 0.01, shares(ours)
    out = tmp_path / "exported"
    formats = ["torchscript", "onnx"] if mode == "softmax" else ["torchscript"]
    for fmt in formats:
        options = ["--format", fmt, "--sizes", "64,32,48"]
        assert main(["export", str(bundle), "--output", str(out), *options]) == 0
    printed = capsys.readouterr().out
    assert "multiples of [32, 32, 16]" in printed and "[64, 32, 48]: differs by" in printed
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for model in ("model.ts", "model.onnx")[: len(formats)]:
        result = tmp_path / f"{model}.nii.gz"
        command = [sys.executable, "-W", "ignore", str(out / "predict.py"), *map(str, images)]
        subprocess.run(
            [*command, "--output", str(result), "--model", str(out / model)],
            check=True, cwd=tmp_path, env=environment, timeout=300,
        )  # fmt: skip
        theirs = nibabel.load(result)
        assert np.asarray(theirs.dataobj).dtype == ours.dtype
        fields = ("qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_x", "pixdim", "xyzt_units")
        assert all(np.array_equal(theirs.header[field], ours_header[field]) for field in fields)
        assert dice(ours, np.asarray(theirs.dataobj)) >= 0.99
        assert "medseg" not in (out / "predict.py").read_text()


def test_it_reproduces_infer_on_a_picture(tmp_path):
    bundle = make_bundle(tmp_path, "softmax", {"0": "MR"}, (50, 41), (32, 32))
    (path,) = predict(bundle, tmp_path / "ours", inputs=[tmp_path / "a_0000.png"], device="cpu", tta=True)
    ours = np.asarray(Image.open(path))
    assert main(["export", str(bundle), "--output", str(tmp_path / "out"), "--format", "torch_export"]) == 0
    content = json.loads((tmp_path / "out" / "deployment.json").read_text())
    content["inference"]["mirror_axes"] = [0, 1]
    network = reference_runner.load_network(tmp_path / "out" / "model.pt2")
    theirs, _ = reference_runner.segment([tmp_path / "a_0000.png"], content, network)
    assert len(shares(ours)) >= 2
    assert dice(ours, theirs) >= 0.99


def test_deployment_says_what_inference_does(tmp_path):
    bundle = make_bundle(tmp_path, "sigmoid", {"0": "CT"}, (27, 34, 21), (32, 32, 32))
    assert main(["export", str(bundle), "--output", str(tmp_path / "out"), "--format", "torchscript"]) == 0
    content = json.loads((tmp_path / "out" / "deployment.json").read_text())
    assert [step["step"] for step in content["preprocessing"]] == ["orient", "resample", "normalize", "pad"]
    assert content["preprocessing"][0]["axcodes"] == "RAS"
    assert content["preprocessing"][1]["spacing"] == [1.7, 1.6, 2.0]
    assert content["inference"]["roi_size"] == [32, 32, 32] and content["inference"]["overlap"] == 0.5
    assert content["labels"]["paint"] == [[0, 1], [1, 2]] and content["labels"]["activation"] == "sigmoid"
    assert content["input"]["channels"] == ["CT"]
    made = content["exports"]["torchscript"]
    assert len(made["parity"]) == 2 and made["multiples_of"] == [32, 32, 32]
    assert str(tmp_path) not in (tmp_path / "out" / "deployment.json").read_text()


def test_without_weights_it_says_how_to_get_some(tmp_path, capsys):
    bundle = Path(__file__).parents[2] / "bundles" / "ssh_unet_btcv_ct_segmentation"
    assert main(["export", str(bundle), "--output", str(tmp_path / "out")]) == 4
    assert "No weights at" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------- the runner's parts against MONAI's
@pytest.mark.parametrize("affine", [OBLIQUE, np.diag([-1.0, 2.0, 3.3, 1.0]), np.diag([1.0, 1.0, 5.0, 1.0])])
def test_the_published_recipe_step_by_step(affine, tmp_path):
    """Window, spacing, crop to what is above 0, pad: image and way back equal to MONAI's."""
    image = smooth((19, 24, 14), 3)
    image[:, :5] = -900
    nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "a.nii.gz")
    recipe = window_preprocessing(["image"], window=[-50, 150], spacing=[1.5, 1.5, 2.0], roi_size=[20, 40, 8])
    compose = mt.Compose(recipe)
    ours = compose({"image": tmp_path / "a.nii.gz"})["image"]
    steps = deployment.describe_preprocessing(compose)
    assert [step["step"] for step in steps] == ["orient", "resample", "scale_range", "crop", "pad"]
    loaded, grid, _ = reference_runner.load([tmp_path / "a.nii.gz"], 3)
    theirs, undo = reference_runner.preprocess(loaded, grid, steps)
    assert theirs.shape == tuple(ours.shape)
    np.testing.assert_allclose(theirs, ours.numpy(), atol=2e-3)
    back = mt.Invertd("pred", transform=compose, orig_keys="image", nearest_interp=False)
    expected = back({"pred": ours.clone(), "image": ours})["pred"][0].numpy()
    channel = theirs[0]
    for inverse in reversed(undo):
        channel = inverse(channel)
    assert channel.shape == image.shape
    np.testing.assert_allclose(channel, expected, atol=2e-3)


@pytest.mark.parametrize(
    "inferer",
    [
        SlidingWindow((16, 12), 0.5),
        SlidingWindow((16, 12), 0.7, "constant"),
        SlidingWindow((16, 12), 0.3, even_spacing=False, mirror_axes=(1,)),
        SlidingWindow((64, 64), 0.5),
        WholeVolume((0, 1)),
    ],
)
def test_windows_are_laid_and_blended_as_monai_does(inferer):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(4, 3, 1)).eval()
    image = torch.randn(1, 1, 50, 37)
    with torch.no_grad():
        ours = inferer(image, network)[0].numpy()

    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(x)).numpy()

    theirs = reference_runner.infer(image[0].numpy(), deployment.describe_inference(inferer), run)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_a_grey_image_goes_into_a_network_of_colour_images():
    steps = deployment.describe_preprocessing(
        mt.Compose([mt.LoadImaged("image", reader=VolumeReader), ToRGBd("image")])
    )
    prepared, _ = reference_runner.preprocess(np.ones((1, 4, 5), np.float32), np.eye(4), steps)
    reference_runner.expect_channels(prepared, 3)
    with pytest.raises(SystemExit, match="2 channels given, the network takes 3"):
        reference_runner.expect_channels(prepared[:2], 3)


def test_what_has_no_description_is_named():
    steps = deployment.describe_preprocessing(
        mt.Compose([mt.LoadImaged("image", reader=VolumeReader), mt.Resized("image", (8, 8)), mt.Zoomd("image", 2.0)])
    )
    described = deployment.Deployment(
        name="any",
        version=None,
        medseg_version="any",
        intended_use=None,
        input=deployment.NetworkInput(2, 1, ["image"], "float32", "NCHW"),
        preprocessing=steps,
        inference=deployment.describe_inference(len),
        labels={"other": ["x.Y"]},
        exports={},
    )
    assert [name.rpartition(".")[2] for name in described.undescribed] == [
        "Resized",
        "Zoomd",
        "builtin_function_or_method",
        "Y",
    ]

"""Prediction from Python: several channels, mirror averaging, what one output folder holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from medseg.bundle.draft import Draft
from medseg.bundle.folder import Bundle
from medseg.data import Case, PlanSettings, inspect_cases, make_plan, read_datalist
from medseg.errors import CasesFailed, ConfigError, DataError
from medseg.networks import create_network
from medseg.weights import save_file
from medseg.workflows import predict
from medseg.workflows.ensemble import ensemble
from medseg.workflows.inference import Inference, InferenceSettings
from medseg.workflows.prediction import collect_cases
from medseg.workflows.previews import draw_previews

_UNET = {"spatial_dims": 3, "in_channels": 2, "out_channels": 2, "channels": [4, 8], "strides": [2]}
_OBLIQUE = np.array([[0.0, -2.0, 0.3, 5.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.3, 2.0, 11.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A two-channel bundle with random weights, and images beside it."""
    rng = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for case in ("a", "b"):
        for channel in range(2):
            voxels = rng.normal(100, 20, (9, 11, 10)).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(voxels, _OBLIQUE), images / f"{case}_000{channel}.nii.gz")
        label = np.zeros((9, 11, 10), np.uint8)
        label[2:5, 3:7, 4:6] = 7
        nibabel.save(nibabel.Nifti1Image(label, _OBLIQUE), tmp_path / f"{case}_label.nii.gz")
    table = {
        "modality": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "lesion": 7},
        "training": [
            {"image": [f"images/{c}_0000.nii.gz", f"images/{c}_0001.nii.gz"], "label": f"{c}_label.nii.gz"}
            for c in "ab"
        ],
    }
    (tmp_path / "list.json").write_text(json.dumps(table))
    datalist = read_datalist(tmp_path / "list.json")
    facts = inspect_cases(datalist.sections["training"], datalist.label_space, datalist.channels)
    plan = make_plan(datalist, facts, PlanSettings(roi_size=(8, 8, 8)))
    folder = Draft.planned("UNet", _UNET, datalist, plan).write(tmp_path / "bundle")
    _save_random(folder, 0)
    return folder


def _save_random(bundle: Path, seed: int) -> None:
    torch.manual_seed(seed)
    save_file(create_network("UNet", **_UNET).state_dict(), bundle / "models" / "model.pt")


def test_channels_are_grouped_by_case(bundle: Path) -> None:
    cases = collect_cases([bundle.parent / "images"], num_channels=2)
    assert [case.id for case in cases] == ["a", "b"]
    assert [Path(image).name for image in cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    with pytest.raises(DataError, match="holds no image"):
        collect_cases([bundle / "docs"])


def test_label_maps_have_the_source_grid_and_the_raw_values(bundle: Path) -> None:
    done = predict(bundle, bundle.parent / "out", inputs=[bundle.parent / "images"], device="cpu")
    assert [path.name for path in done] == ["a.nii.gz", "b.nii.gz"]
    for path in done:
        result = nibabel.load(path)
        assert result.shape == (9, 11, 10)
        np.testing.assert_array_equal(result.affine, _OBLIQUE.astype(np.float32))
        assert set(np.unique(np.asarray(result.dataobj))) <= {0, 7}


def test_previews_and_files_for_viewers(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, images = bundle.parent / "out", [bundle.parent / "images"]
    predict(bundle, out, inputs=images, device="cpu", preview=True, viewer_files=True)
    assert {path.name for path in (out / "previews").iterdir()} == {"a.png", "b.png"}
    with Image.open(out / "previews" / "a.png") as drawn:
        assert np.ptp(np.asarray(drawn.convert("RGB")).astype(int), axis=-1).max() > 80  # a contour in colour
    assert "7 242 142 43" in (out / "viewers" / "labels.txt").read_text()
    before = (out / "previews" / "b.png").stat().st_mtime_ns
    inference, missing = Inference.of(Bundle(bundle), InferenceSettings()), Case("a", ("gone.nii.gz",))
    draw_previews(inference, [missing], {"a": out / "a.nii.gz"}, bundle.parent / "previews")
    assert "No preview of a: " in caplog.text
    predict(bundle, out, inputs=images, device="cpu", preview=True)
    assert (out / "previews" / "b.png").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="not --format rtstruct"):
        predict(bundle, out, inputs=images, device="cpu", preview=True, format="rtstruct", dicom_reference=out)


def test_a_ct_that_is_not_in_hounsfield_units_is_named(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = bundle / "configs" / "metadata.json"
    described = json.loads(path.read_text())
    described["network_data_format"]["inputs"]["image"]["channel_def"]["1"] = "CT"
    path.write_text(json.dumps(described))
    done = predict(bundle, bundle.parent / "out", inputs=[bundle.parent / "images"], device="cpu")
    assert len(done) == 2
    said = [record.getMessage() for record in caplog.records if "Hounsfield" in record.getMessage()]
    assert [line.split(":")[0] for line in said] == ["a", "b"]
    assert all("in channel 1 (CT); Hounsfield units" in line for line in said)


def test_images_are_segmented_where_the_data_of_the_training_are_not(bundle: Path) -> None:
    path = bundle / "configs" / "inference.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(config | {"dataset_dir": "/nowhere"}, sort_keys=False))
    assert len(predict(bundle, bundle.parent / "out", inputs=[bundle.parent / "images"], device="cpu")) == 2


def test_mirror_averaging_changes_the_result(bundle: Path) -> None:
    folder = bundle.parent
    plain = predict(bundle, folder / "plain", inputs=[folder / "images"], device="cpu")
    mirrored = predict(bundle, folder / "tta", inputs=[folder / "images"], device="cpu", tta=True)
    pairs = [
        (np.asarray(nibabel.load(p).dataobj), np.asarray(nibabel.load(m).dataobj))
        for p, m in zip(plain, mirrored, strict=True)
    ]
    assert any((p != m).any() for p, m in pairs)


def _again(bundle: Path, caplog: pytest.LogCaptureFixture, **settings: Any) -> tuple[set[str], str]:
    """Predict the images again: the names of the label maps that were made again, and what was said of it."""
    out = bundle.parent / "out"
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    caplog.clear()
    with caplog.at_level("INFO", "medseg"):
        done = predict(bundle, out, inputs=[bundle.parent / "images"], device="cpu", **settings)
    return {path.name for path in done if path.stat().st_mtime_ns != before.get(path.name)}, caplog.text


def test_only_what_comes_from_the_same_is_not_done_again(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, out = bundle.parent / "images", bundle.parent / "out"
    everything = {"a.nii.gz", "b.nii.gz"}
    assert _again(bundle, caplog)[0] == everything
    assert _again(bundle, caplog) == (set(), caplog.text) and "2 of 2 cases are predicted already" in caplog.text
    (out / "b.nii.gz").unlink()
    assert _again(bundle, caplog)[0] == {"b.nii.gz"}
    (out / "b.nii.gz").write_bytes(b"")
    assert _again(bundle, caplog)[0] == {"b.nii.gz"}
    changed = nibabel.load(images / "a_0001.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.asarray(changed.dataobj) + 1, changed.affine), images / "a_0001.nii.gz")
    made, said = _again(bundle, caplog)
    assert made == {"a.nii.gz"} and "predicted again, with other images: a" in said
    made, said = _again(bundle, caplog, overrides={"overlap": 0.25})
    assert made == everything and "other settings (overlap): a, b" in said
    assert _again(bundle, caplog)[0] == everything
    assert _again(bundle, caplog, overrides={"sw_batch_size": 1})[0] == set()  # the same numbers
    _save_random(bundle, 1)
    made, said = _again(bundle, caplog)
    assert made == everything and "other weights: a, b" in said
    assert _again(bundle, caplog, overwrite=True)[0] == everything


def test_files_of_others_are_neither_predictions_nor_replaced(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, out = bundle.parent / "images", bundle.parent / "out"
    with pytest.raises(ConfigError, match="is the folder of the input a_0000.nii.gz"):
        predict(bundle, images, inputs=[images], device="cpu")
    _again(bundle, caplog)
    edited = nibabel.Nifti1Image(np.ones((9, 11, 10), np.uint8), _OBLIQUE)
    nibabel.save(edited, out / "a.nii.gz")
    content = (out / "a.nii.gz").read_bytes()
    with pytest.raises(ConfigError, match=r"holds a\.nii\.gz, which medseg did not write, or which changed since"):
        _again(bundle, caplog)
    assert (out / "a.nii.gz").read_bytes() == content
    assert _again(bundle, caplog, overwrite=True)[0] == {"a.nii.gz", "b.nii.gz"}


def test_a_case_that_fails_leaves_no_prediction_of_its_old_image(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _again(bundle, caplog)
    (bundle.parent / "images" / "a_0000.nii.gz").write_bytes(b"damaged")
    with pytest.raises(CasesFailed):
        _again(bundle, caplog)
    assert [path.name for path in sorted((bundle.parent / "out").glob("*.nii.gz"))] == ["b.nii.gz"]


@pytest.mark.parametrize("method", ["mean", "vote"])
def test_an_ensemble_of_one_network_twice_is_that_network(bundle: Path, method: str) -> None:
    folder = bundle.parent
    alone = predict(bundle, folder / "alone", inputs=[folder / "images"], device="cpu")
    copy = shutil.copytree(bundle, folder / "copy")
    result = ensemble([bundle, copy], folder / "both", method=method, section="training", fold=0, device="cpu")
    assert result is not None
    assert set(result.cases) <= {"a", "b"}
    for path in alone:
        if path.name[:1] in result.cases:
            both = np.asarray(nibabel.load(folder / "both" / "predictions" / path.name).dataobj)
            np.testing.assert_array_equal(both, np.asarray(nibabel.load(path).dataobj))
    assert result.mean_dice is not None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"inferer": None}, "inferer is null"),
        ({"label_space": None}, "label_space is null"),
        ({"handlers": []}, "nothing refers to @ckpt_path"),
        ({"evaluator::inferer": None}, "nothing refers to @inferer"),
        ({"postprocessing::transforms::1": None}, "nothing in postprocessing writes label maps"),
        ({"postprocessing::transforms::0": None}, "nothing in postprocessing makes labels of logits"),
    ],
)
def test_a_part_that_is_missing_is_named_before_the_first_case(
    bundle: Path, change: dict[str, Any], sentence: str
) -> None:
    path = bundle / "configs" / "inference.yaml"
    config = yaml.safe_load(path.read_text())
    for id_, value in change.items():
        *above, last = id_.split("::")
        found = config
        for key in above:
            found = found[key]
        if not above:
            found[last] = value
        else:
            del found[int(last) if isinstance(found, list) else last]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    with pytest.raises(ConfigError, match=sentence):
        predict(bundle, bundle.parent / "out", inputs=[bundle.parent / "images"], device="cpu")
    assert not (bundle.parent / "out" / "failures.json").exists()

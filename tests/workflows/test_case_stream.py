"""`infer` on a folder of pictures: names and sizes come back, and a picture that fails leaves the others alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medseg.bundle.draft import Draft
from medseg.data import PlanSettings, inspect_cases, make_datalist, make_plan, read_datalist
from medseg.errors import CasesFailed
from medseg.networks import create_network
from medseg.weights import save_file
from medseg.workflows import predict
from medseg.workflows.prediction import collect_cases

_UNET = {"spatial_dims": 2, "in_channels": 3, "out_channels": 2, "channels": [4, 8], "strides": [2]}


def picture(seed: int, shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle for colour pictures with random weights, made from folders as `medseg datalist` takes them."""
    for number in range(3):
        for name, pixels in (("images", picture(number)), ("masks", (picture(number)[..., 0] > 99) * np.uint8(255))):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name / f"p{number}.png")
    made = make_datalist(tmp_path / "list.json", images=tmp_path / "images", labels=tmp_path / "masks")
    datalist = read_datalist(made.path)
    facts = inspect_cases(datalist.sections["training"], datalist.label_space, datalist.channels)
    plan = make_plan(datalist, facts, PlanSettings(roi_size=(16, 16)))
    assert plan.color
    folder = Draft.planned("UNet", _UNET, datalist, plan).write(tmp_path / "bundle")
    torch.manual_seed(0)
    save_file(create_network("UNet", **_UNET).state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """New pictures of several sizes and kinds; those of a numbered series are no channels."""
    folder = tmp_path / "new"
    folder.mkdir()
    for number, (name, shape) in enumerate(
        {"frame_0000.png": (17, 40), "frame_0001.jpg": (20, 30), "frame_0002.bmp": (5, 9)}.items()
    ):
        Image.fromarray(picture(number, shape)).save(folder / name)
    Image.fromarray(picture(7)[..., 0]).save(folder / "grey.tif")
    Image.fromarray(picture(8)).save(folder / "twin.png")
    Image.fromarray(picture(9)).save(folder / "twin.jpg")
    return folder


def test_every_picture_gets_a_mask_of_its_name_and_size(bundle: Path, new: Path, tmp_path: Path) -> None:
    done = predict(bundle, tmp_path / "out", inputs=[new], device="cpu")
    names = ["frame_0000", "frame_0001", "frame_0002", "grey", "twin.jpg", "twin.png"]
    assert [path.name for path in done] == [f"{name}.png" for name in names]
    for source, path in zip(sorted(new.iterdir()), done, strict=True):
        with Image.open(source) as image, Image.open(path) as mask:
            assert mask.size == image.size
            assert set(np.unique(np.asarray(mask))) <= {0, 255}


def test_pictures_are_not_transposed_on_their_way(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that thresholds its input gives the picture back."""
    shown = np.zeros((21, 34, 3), np.uint8)
    shown[3:8, 5:30] = shown[3:20, 5:9] = 200
    Image.fromarray(shown).save(tmp_path / "a.png")
    _forward(monkeypatch, lambda image: torch.cat([-image[:, :1], image[:, :1]], dim=1))
    (path,) = predict(bundle, tmp_path / "out", inputs=[tmp_path / "a.png"], device="cpu")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), (shown[..., 0] > 99) * 255)


def _forward(monkeypatch: pytest.MonkeyPatch, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    monkeypatch.setattr("monai.networks.nets.UNet.forward", lambda self, image: function(image))


def test_what_fails_is_listed_and_the_rest_is_done(
    bundle: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (new / "broken.png").write_bytes((new / "twin.png").read_bytes()[:90])
    calls = []

    def fail_at_the_third(image: torch.Tensor) -> torch.Tensor:
        calls.append(image.shape)
        if len(calls) == 9:  # windows: the second picture's
            raise RuntimeError("no luck\nand a trace")
        return image[:, :2]

    _forward(monkeypatch, fail_at_the_third)
    with pytest.raises(CasesFailed, match="2 of 7 cases failed"):
        predict(bundle, tmp_path / "out", inputs=[new], device="cpu", overrides={"sw_batch_size": 1})
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert list(failures) == ["broken", "frame_0001"]
    assert "cut short or damaged" in failures["broken"]
    assert failures["frame_0001"] == "no luck"
    assert len(list((tmp_path / "out").glob("*.png"))) == 5
    monkeypatch.undo()
    (new / "broken.png").rename(tmp_path / "broken.png")
    assert len(predict(bundle, tmp_path / "out", inputs=[new], device="cpu")) == 6
    kept = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert kept == {"broken": failures["broken"]}  # which this call was not asked for
    (tmp_path / "broken.png").write_bytes((new / "twin.png").read_bytes())
    predict(bundle, tmp_path / "out", inputs=[tmp_path / "broken.png"], device="cpu")
    assert not (tmp_path / "out" / "failures.json").exists()


def test_nothing_but_broken_pictures(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(CasesFailed, match="1 of 1 cases failed"):
        predict(bundle, tmp_path / "out", inputs=[tmp_path / "new"], device="cpu")


def test_grey_files_may_still_be_channels(tmp_path: Path) -> None:
    for name in ("a_0000.png", "a_0001.png", "b_0000.png", "b_0001.png"):
        Image.fromarray(picture(0)[..., 0]).save(tmp_path / name)
    cases = collect_cases([tmp_path], num_channels=2)
    assert [case.id for case in cases] == ["a", "b"]
    assert [Path(image).name for image in cases[0].images] == ["a_0000.png", "a_0001.png"]

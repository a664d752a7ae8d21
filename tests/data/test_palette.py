"""Masks painted in colours become label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.transforms import Compose
from PIL import ExifTags, Image

from medseg.cli import main
from medseg.data import ReadCase, inspect_cases, make_datalist, read_datalist
from medseg.data.palette import read_palette, write_label_values
from medseg.errors import ConfigError, DataError
from medseg.transforms.recipes import preprocessing

PALETTE = {"polyp": "#00FF00", "tool": "#0000ff"}


@pytest.fixture
def painted(tmp_path: Path) -> Path:
    """Three images with a painted mask each; the images of one lie on their side, as a camera stores them."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for number in range(3):
        mask = np.zeros((12, 16, 3), np.uint8)
        mask[2:5, 3:9] = (0, 255, 0)
        mask[8:, 10 + number :] = (0, 0, 255)
        image = np.full((12, 16, 3), 90, np.uint8)
        image[0, 0] = (1, 2, 3)
        for folder, pixels in (("images", image), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            options: Any = {"exif": exif} if number == 2 else {}
            Image.fromarray(pixels).save(tmp_path / folder / f"c{number}.png", **options)
    return tmp_path


def test_a_datalist_of_painted_masks(painted: Path, capsys: Any) -> None:
    output = painted / "lists" / "polyps.json"
    output.parent.mkdir()
    words = ["datalist", str(painted), "--output", str(output)]
    assert main([*words, *(word for item in PALETTE.items() for word in ("--palette", "=".join(item)))]) == 0
    assert "3 label maps were made of the painted masks" in capsys.readouterr().out
    datalist = read_datalist(output)
    assert datalist.label_space.labels == ("polyp", "tool")
    sizes = []
    for case in datalist.sections["training"]:
        label = np.asarray(Image.open(str(case.label)))
        assert set(np.unique(label)) == {0, 1, 2} and (label == 1).sum() == 18
        sizes.append(label.shape)
    assert sizes == [(12, 16), (12, 16), (16, 12)]
    assert main(["check", "--json_list", str(output)]) == 0


def test_the_palette_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "colors.txt"
    file.write_text("background = #FF0000\npolyp=#000000\n\n", encoding="utf-8")
    assert read_palette({str(file): str(file)}) == {"background": 0xFF0000, "polyp": 0}
    assert read_palette(PALETTE) == {"background": 0, "polyp": 0xFF00, "tool": 0xFF}


def test_grey_stored_as_rgb_is_grey(painted: Path) -> None:
    for path in (painted / "images").iterdir():
        pixels = np.repeat(np.random.default_rng(0).integers(0, 255, (12, 16, 1), np.uint8), 3, axis=2)
        Image.fromarray(pixels).save(path)
    Image.fromarray(np.asarray(Image.open(painted / "masks" / "c2.png"))).save(painted / "masks" / "c2.png")
    made = make_datalist(painted / "l.json", folder=painted, palette=PALETTE)
    datalist = read_datalist(made.path)
    cases = datalist.sections["training"]
    assert datalist.channels == ("grey",)
    facts = inspect_cases(cases, datalist.label_space, channel_names=datalist.channels)
    assert [one.channels for one in facts] == [1, 1, 1]
    steps = preprocessing(["image"], normalization=[{"kind": "case"}], roi_size=[8, 8])
    assert Compose(steps)({"image": cases[0].images[0]})["image"].shape == (1, 12, 16)
    plan = {"spacing": None, "normalization": [{"kind": "case"}]}
    read = ReadCase(datalist.label_space, 1, [8, 8], plan)(cases[0].to_dict())
    assert Compose(steps)(read)["image"].shape == (1, 12, 16)
    colored = np.zeros((12, 16, 3), np.uint8)
    colored[0, 0, 0] = 7
    Image.fromarray(colored).save(cases[0].images[0])
    made = make_datalist(painted / "l.json", folder=painted, palette=PALETTE, overwrite=True)
    assert read_datalist(made.path).channels == ("RGB",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"polyp": "green"}, "'polyp=green' is not a valid colour; expected NAME=#RRGGBB"),
        (
            {"nowhere.txt": "nowhere.txt"},
            "nowhere.txt cannot be read; expected NAME=#RRGGBB, such as polyp=#00FF00, or a text",
        ),
        ({"a": "#010203", "b": "010203"}, "'a' and 'b' have one colour, #010203; give each its own"),
        ({"a": "#000000"}, "names no background, which is black then"),
    ],
)
def test_a_palette_that_cannot_be_used(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_palette(given)


def test_other_colours_are_refused(painted: Path) -> None:
    mask = np.asarray(Image.open(painted / "masks" / "c0.png")).copy()
    mask[0, :5] = (0, 250, 4)
    mask[1, 0] = (9, 9, 9)
    Image.fromarray(mask).save(painted / "masks" / "c0.png")
    expected = (
        "c0.png has 6 pixels in 2 colours that the palette lacks, most of them #00FA04 .5 pixels; nearest: polyp "
        "#00FF00.; only its colours are expected. Add the colour"
    )
    with pytest.raises(DataError, match=expected):
        make_datalist(painted / "l.json", folder=painted, palette=PALETTE)
    Image.fromarray(mask).save(painted / "mask.jpg")
    with pytest.raises(DataError, match="JPEG changes colours"):
        write_label_values(painted / "mask.jpg", read_palette(PALETTE), painted / "x.png")


def test_other_uses_are_refused(painted: Path) -> None:
    with pytest.raises(ConfigError, match="leave out --label_names"):
        make_datalist(painted / "l.json", folder=painted, palette=PALETTE, label_names=["background", "polyp"])
    deep = Image.fromarray(np.zeros((12, 16), np.uint16))
    deep.save(painted / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits per colour"):
        write_label_values(painted / "deep.png", read_palette(PALETTE), painted / "x.png")

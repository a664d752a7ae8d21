"""`medseg datalist` and ``make_datalist``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.cli import main
from medseg.data import inspect_cases, make_datalist, read_datalist
from medseg.errors import ConfigError, DataError


def _save(path: Path, label: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(-99, 99, (6, 5, 4)).astype(np.int16)
    if label:
        values = np.zeros((6, 5, 4), np.int16)
        values[1:3, 1:3, 1:3] = 1
        values[4, 4, 3] = 4
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Six cases of three subjects, one image without label, one label without image, two test images."""
    for subject in ("anna", "ben", "cem"):
        for visit in (1, 2):
            _save(tmp_path / "images" / f"{subject}-{visit}.nii.gz")
            _save(tmp_path / "labels" / f"{subject}-{visit}.nii.gz", label=True)
    _save(tmp_path / "images" / "alone.nii.gz")
    _save(tmp_path / "labels" / "orphan.nii.gz", label=True)
    for name in ("x 1", "ü"):
        _save(tmp_path / "test images" / f"{name}.nii.gz")
    return tmp_path


def test_pairs_folds_and_labels(folders: Path, capsys: Any) -> None:
    output = folders / "list.json"
    arguments = [
        "datalist", "--images", str(folders / "images"), "--labels", str(folders / "labels"), "--output", str(output),
        "--test", str(folders / "test images"), "--modality", "CT", "--subject_pattern", "^([a-z]+)-", "--folds", "3",
    ]  # fmt: skip
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "1 images without label are skipped: alone." in said
    assert "1 labels have no image: orphan." in said
    assert "Labels are named by the values found (1, 4); give names with --label_names." in said
    assert f"{output}: 6 training cases in 3 folds, 2 test cases" in said
    assert f"its paths are relative to {folders}\n" in said
    datalist = read_datalist(output)
    assert datalist.channels == ("CT",)
    assert datalist.label_space.labels == ("label 1", "label 4")
    assert [case.subject for case in datalist.sections["training"]] == ["anna", "anna", "ben", "ben", "cem", "cem"]
    assert datalist.folds() == [0, 1, 2]
    training, validation = datalist.split(1)
    assert (len(training), len(validation)) == (4, 2)
    assert len({case.subject for case in validation}) == 1
    assert [case.id for case in datalist.sections["test"]] == ["x 1", "ü"]
    facts = inspect_cases(training, datalist.label_space, datalist.channels)
    assert not [problem for case in facts for problem in case.problems]

    assert main(arguments) == 2
    assert f"{output} exists; name another --output, or allow it with --overwrite." in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--label_names", "background,a,b,c,d"]) == 0
    assert read_datalist(output).label_space.labels == ("a", "b", "c", "d")


def test_output_elsewhere_keeps_paths_relative_to_the_common_folder(folders: Path) -> None:
    made = make_datalist(
        folders / "lists" / "mine.json", images=folders / "images", labels=folders / "labels", modality=["CT"]
    )
    assert made.root == folders
    assert json.loads(made.path.read_text())["training"][0]["image"] == "images/anna-1.nii.gz"
    assert Path(read_datalist(made.path, made.root).sections["training"][0].images[0]).is_file()


def test_nnunet_suffixes_become_channels(tmp_path: Path) -> None:
    for case in ("c1", "c2"):
        for channel in (0, 1):
            _save(tmp_path / "imagesTr" / f"{case}_000{channel}.nii.gz")
        _save(tmp_path / "labelsTr" / f"{case}.nii.gz", label=True)
    made = make_datalist(
        tmp_path / "l.json", images=tmp_path / "imagesTr", labels=tmp_path / "labelsTr", modality=["T1", "T2"]
    )
    datalist = read_datalist(made.path)
    assert [Path(p).name for p in datalist.sections["training"][0].images] == ["c1_0000.nii.gz", "c1_0001.nii.gz"]
    assert [case.id for case in datalist.sections["training"]] == ["c1", "c2"]
    (tmp_path / "imagesTr" / "c2_0001.nii.gz").unlink()
    with pytest.raises(DataError, match="c1 has 2 channel files, c2 another number"):
        make_datalist(tmp_path / "m.json", images=tmp_path / "imagesTr", labels=tmp_path / "labelsTr")


def test_numbered_cases_are_no_channels(tmp_path: Path) -> None:
    for number in range(3):
        _save(tmp_path / "i" / f"case_000{number}.nii.gz")
        _save(tmp_path / "l" / f"case_000{number}.nii.gz", label=True)
    made = make_datalist(tmp_path / "l.json", images=tmp_path / "i", labels=tmp_path / "l", modality=["CT"])
    assert made.sections["training"] == 3


def test_patterns_and_channels(tmp_path: Path, capsys: Any) -> None:
    for case in ("p1", "p.2"):
        for channel in ("t1", "flair"):
            _save(tmp_path / "all" / f"{case}_{channel}.nii.gz")
        _save(tmp_path / "all" / f"{case}_seg.nii.gz", label=True)
    arguments = [
        "datalist", "--images", str(tmp_path / "all"), "--labels", str(tmp_path / "all"), "--label_pattern",
        "{case}_seg.nii.gz", "--channel", "FLAIR={case}_flair", "--channel", "T1={case}_t1.nii.gz", "--output",
        str(tmp_path / "all" / "list.json"),
    ]  # fmt: skip
    assert main(arguments) == 0
    assert "2 cases cannot give 5 folds; using 2." in capsys.readouterr().out
    datalist = read_datalist(tmp_path / "all" / "list.json")
    assert datalist.channels == ("FLAIR", "T1")
    first = datalist.sections["training"][0]
    assert [Path(path).name for path in first.images] == ["p.2_flair.nii.gz", "p.2_t1.nii.gz"]
    assert Path(first.label).name == "p.2_seg.nii.gz"
    assert main([*arguments, "--overwrite", "--strict"]) == 3
    assert "Fix this, or allow it without --strict." in capsys.readouterr().err
    (tmp_path / "all" / "p1_t1.nii.gz").unlink()
    assert main([*arguments, "--overwrite"]) == 3
    assert "1 cases in " in capsys.readouterr().err


def test_image_pattern(tmp_path: Path) -> None:
    _save(tmp_path / "i" / "ct_7.nii.gz")
    _save(tmp_path / "l" / "7.nii.gz", label=True)
    with pytest.raises(
        DataError, match="No image in .* pairs with a label in .*: images ct_7, labels 7. Expected equal"
    ):
        make_datalist(tmp_path / "x.json", images=tmp_path / "i", labels=tmp_path / "l")
    made = make_datalist(
        tmp_path / "x.json", images=tmp_path / "i", labels=tmp_path / "l", image_pattern="ct_{case}.nii.gz"
    )
    assert made.sections["training"] == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_folds": 0}, "folds: expected a positive integer, got 0"),
        ({"image_pattern": "*.nii.gz"}, "Pattern '.*' needs {case} exactly once"),
        ({"subject_pattern": "("}, "is not a valid regular expression"),
        ({"subject_pattern": "^q"}, "matches nothing in 'anna-1'; it must match every case"),
    ],
)
def test_options_that_cannot_be_used(folders: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_datalist(folders / "list.json", images=folders / "images", labels=folders / "labels", **options)
    assert not (folders / "list.json").exists()


def test_images_listed_as_labels(folders: Path) -> None:
    with pytest.raises(DataError, match="Are images listed as labels?"):
        path = folders / "soft"
        values = np.linspace(0, 1, 120, dtype=np.float32).reshape(6, 5, 4)
        path.mkdir()
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path / "anna-1.nii.gz")
        make_datalist(folders / "list.json", images=folders / "images", labels=path)


def test_two_files_of_one_case(folders: Path) -> None:
    _save(folders / "labels" / "anna-1.nii", label=True)
    with pytest.raises(DataError, match="has anna-1.nii and anna-1.nii.gz for case 'anna-1'; expected one file"):
        make_datalist(folders / "list.json", images=folders / "images", labels=folders / "labels")


def _pictures(folder: Path, values: tuple[int, ...] = (0, 255), modes: tuple[str, ...] = ("RGB", "L", "RGBA")) -> None:
    for number in range(6):
        rng = np.random.default_rng(number)
        mask = np.array(values, np.uint8)[rng.integers(0, len(values), (20, 24))]
        mask.flat[: len(values)] = values
        for name, picture in (
            (f"images/p_{number:04}.jpg", Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8))),
            (f"masks/p_{number:04}.png", Image.fromarray(mask)),
        ):
            (folder / name).parent.mkdir(exist_ok=True)
            mode = modes[number % len(modes)]
            name = name.replace(".jpg", ".png") if mode == "RGBA" else name
            (picture.convert(mode) if "images" in name else picture).save(folder / name)


def _of_pictures(folder: Path, *more: str) -> list[str]:
    return [
        "datalist", "--images", str(folder / "images"), "--labels", str(folder / "masks"), "--output",
        str(folder / "list.json"), *more,
    ]  # fmt: skip


def test_pictures_need_no_options(tmp_path: Path, capsys: Any) -> None:
    _pictures(tmp_path)
    assert main([*_of_pictures(tmp_path), "--strict"]) == 0  # what is recognised is no warning
    said = capsys.readouterr().out
    assert "The masks hold 0 and 255: 255 is the label 'foreground'; rename it with --label_names." in said
    assert "warning" not in said
    datalist = read_datalist(tmp_path / "list.json")
    assert datalist.channels == ("RGB",)
    assert [case.id for case in datalist.sections["training"]] == [f"p_{number:04}" for number in range(6)]
    facts = inspect_cases(datalist.sections["training"], datalist.label_space, datalist.channels)
    assert not [problem for case in facts for problem in case.problems]
    assert {case.channels for case in facts} == {3}


def test_names_go_to_the_values_of_masks_in_order(tmp_path: Path, capsys: Any) -> None:
    _pictures(tmp_path, values=(0, 128, 255), modes=("L",))
    assert main(_of_pictures(tmp_path, "--label_names", "background,rim,core")) == 0
    assert "0 is 'background', 128 is 'rim', 255 is 'core'" in capsys.readouterr().out
    table = json.loads((tmp_path / "list.json").read_text())
    assert table["labels"] == {"0": "background", "128": "rim", "255": "core"}
    assert table["modality"] == {"0": "grey"}
    assert main(_of_pictures(tmp_path, "--overwrite", "--label_names", "background,rim")) == 3
    assert "hold the values 0, 128, 255, --label_names has 2 names" in capsys.readouterr().err


def test_masks_with_soft_edges_are_refused(tmp_path: Path, capsys: Any) -> None:
    _pictures(tmp_path, values=tuple(range(0, 255, 3)))
    assert main(_of_pictures(tmp_path)) == 3
    assert "hold 85 values, 0 to 252; expected a few whole numbers." in capsys.readouterr().err


def _binary_masks(folder: Path, masks: list[np.ndarray], suffix: str = ".png") -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index, mask in enumerate(masks):
        Image.fromarray(mask // 2 + 20).save(folder / "images" / f"p{index}.png")
        Image.fromarray(mask).save(
            folder / "masks" / f"p{index}{suffix}", **({"quality": 95} if "jp" in suffix else {})
        )


def _disc(levels: int, size: int = 40) -> np.ndarray:
    """A disc of 255 with so many grey levels over three pixels of its edge."""
    rows, columns = np.mgrid[:size, :size]
    distance = np.hypot(rows - 19, columns - 17) - 11
    return ((np.clip(0.5 - distance / 3, 0, 1) * levels).round() / levels * 255).astype(np.uint8)


@pytest.mark.parametrize("levels", [2, 3, 15, 51])
def test_smoothed_masks_give_no_extra_classes(levels: int, tmp_path: Path, capsys: Any) -> None:
    _binary_masks(tmp_path, [_disc(levels), _disc(1)])
    assert main(_of_pictures(tmp_path)) == 3
    said = capsys.readouterr().err
    assert "soft (anti-aliased) edges; one value per label is expected. Save the masks" in said or levels == 51
    assert not (tmp_path / "list.json").exists()
    if levels == 2:  # a class of thin lines is the user's word
        assert main(_of_pictures(tmp_path, "--label_names", "background,rim,core")) == 0


def test_classes_are_no_soft_edges(tmp_path: Path) -> None:
    rings = np.zeros((40, 40), np.uint8)
    for value, start in ((60, 4), (120, 9), (180, 14), (240, 18)):
        rings[start : 40 - start, start : 40 - start] = value  # nested, each a few pixels wide
    lines = np.zeros((40, 40), np.uint8)
    lines[10:30, 10:30], lines[20] = 60, 240  # a thin line that lies between no two values
    _binary_masks(tmp_path, [rings, lines])
    assert main(_of_pictures(tmp_path)) == 0
    assert len(json.loads((tmp_path / "list.json").read_text())["labels"]) == 5


def test_two_codes_of_white_are_refused(tmp_path: Path, capsys: Any) -> None:
    _binary_masks(tmp_path, [_disc(1), _disc(1) // 255, _disc(1) * 0])
    assert main(_of_pictures(tmp_path)) == 3
    said = capsys.readouterr().err
    assert "masks mix two codes of the foreground: it is 1 in 1 and 255 in 1" in said
    assert "Save all masks with the same value." in said


def test_jpeg_masks_are_refused(tmp_path: Path, capsys: Any) -> None:
    _binary_masks(tmp_path, [_disc(1)], ".jpg")
    assert main(_of_pictures(tmp_path)) == 3
    assert "JPEG masks with the values 0, " in capsys.readouterr().err

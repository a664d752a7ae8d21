"""Labels (numbers 37 to 45 of the matrix)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

_SHAPE = (12, 10, 8)


def _values(*values: float, dtype: Any = np.uint8) -> np.ndarray:
    """A label map with one voxel of each value, the rest 0."""
    label = np.zeros(_SHAPE, dtype)
    label.reshape(-1)[: len(values)] = values
    return label


def test_37_undeclared_value(study: Any) -> None:
    result = study.check([study.case("a", label=study.save("l.nii.gz", _values(1, 4))), study.case("b")])
    assert result.status == 3
    result.has("a", "label values {0, 1, 4}; declared {0, 1}", 'Declare {4} in the datalist\'s "labels"')


def test_38_mask_of_0_and_255(study: Any) -> None:
    Image.fromarray(study.random.integers(0, 255, (20, 24), np.uint8)).save(study.folder / "a.png")
    Image.fromarray(np.eye(20, 24, dtype=np.uint8) * 255).save(study.folder / "mask.png")
    labels = {"0": "background", "1": "nodule"}
    case = {"image": "a.png", "label": "mask.png"}
    result = study.check([case], labels=labels, validation=[])
    assert result.status == 3
    result.has(
        "a",
        "mask.png has values {0, 255}; the datalist declares {0: background, 1: nodule}",
        'Map it in the datalist: "labels": {"background": 0, "nodule": 255}.',
    )
    # What the sentence says helps.
    assert study.check([case], labels={"background": 0, "nodule": 255}, validation=[]).status == 0


def test_38_jpeg_mask(study: Any) -> None:
    Image.fromarray(study.random.integers(0, 255, (20, 24), np.uint8)).save(study.folder / "a.png")
    Image.fromarray(np.eye(20, 24, dtype=np.uint8) * 9).save(study.folder / "mask.jpg")
    result = study.check([{"image": "a.png", "label": "mask.jpg"}], validation=[])
    assert result.status == 3
    result.has("a", "label values", "JPEG changes label values: export the label as PNG.")


def _soft() -> np.ndarray:
    rows, columns = np.mgrid[:40, :40]
    distance = np.hypot(rows - 19, columns - 17) - 11
    return (np.clip(0.5 - distance / 3, 0, 1) * 15).round().astype(np.uint8) * 17


def _masks(study: Any, masks: list[np.ndarray]) -> list[dict[str, str]]:
    cases = []
    for index, mask in enumerate(masks):
        Image.fromarray(study.random.integers(0, 255, mask.shape, np.uint8)).save(study.folder / f"{index}.png")
        Image.fromarray(mask).save(study.folder / f"{index}_mask.png")
        cases.append({"image": f"{index}.png", "label": f"{index}_mask.png"})
    return cases


def test_38_soft_edges(study: Any) -> None:
    cases = _masks(study, [_soft(), (_soft() > 99) * np.uint8(255)])
    black_and_white = {"background": 0, "nodule": 255}
    result = study.check(cases, labels=black_and_white, validation=[])
    assert result.status == 3
    assert len(result.rows()) == 1
    result.has("0", "0_mask.png has soft (anti-aliased) edges", "Save it without smoothing, or with a threshold")
    # Declared, they are still no labels.
    declared = {"background": 0, **{f"label {v}": v for v in range(17, 256, 17)}}
    result = study.check(cases, labels=declared, validation=[])
    assert result.status == 3
    result.has("some cases", "13 mask values (17, 34, 51, 68, 85, 102, …) at the edges of objects only", "smoothing")


def test_38_masks_of_0_and_1_among_those_of_0_and_255(study: Any) -> None:
    plain = (_soft() > 99).astype(np.uint8)
    cases = _masks(study, [plain, plain * 255, plain * 0])
    result = study.check(cases, labels={"background": 0, "nodule": 255}, validation=[])
    assert result.status == 3
    result.has("0", "label values {0, 1}; declared {0, 255}", '"labels": {"background": 0, "nodule": [1, 255]}')
    assert study.check(cases, labels={"background": 0, "nodule": [1, 255]}, validation=[]).status == 0  # as said
    result = study.check(cases, labels={"background": 0, "a": 1, "b": 255}, validation=[])
    assert result.status == 3
    result.has("some cases", "masks mix two codes of the foreground: it is 1 in 1 and 255 in 1", "with the same value")


def test_38_orientation_tag_of_the_image_alone(study: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(study.random.integers(0, 255, (20, 24), np.uint8)).save(study.folder / "a.png", exif=exif)
    shown = np.eye(24, 20, dtype=np.uint8)
    Image.fromarray(shown).save(study.folder / "mask.png")
    result = study.check([{"image": "a.png", "label": "mask.png"}], validation=[])
    assert result.status == 0
    result.warns("some cases", "1 images have a camera's orientation tag (EXIF), which is applied", "remove the tag")
    Image.fromarray(shown.T.copy()).save(study.folder / "mask.png")
    result = study.check([{"image": "a.png", "label": "mask.png"}], validation=[])
    assert result.status == 3
    result.has("a", "image 24×20, label 20×24 voxels", "orientation tag (EXIF) is applied: rotate the label as well")


def test_colour_label(study: Any) -> None:
    Image.fromarray(study.random.integers(0, 255, (20, 24), np.uint8)).save(study.folder / "a.png")
    pixels = np.zeros((20, 24, 3), np.uint8)
    pixels[4:9, 5:8] = 1
    Image.fromarray(pixels).save(study.folder / "mask.png")
    assert study.check([{"image": "a.png", "label": "mask.png"}], validation=[]).status == 0  # grey, stored as RGB
    pixels[4:9, 5:8] = (255, 0, 0)
    Image.fromarray(pixels).save(study.folder / "mask.png")
    result = study.check([{"image": "a.png", "label": "mask.png"}], validation=[])
    assert result.status == 3
    result.has("a", "mask.png: a mask in 2 colours ((0, 0, 0), (255, 0, 0)); one value per pixel", "a grey image")


def test_39_fractions(study: Any) -> None:
    label = study.save("l.nii.gz", _values(1, 0.5, 0.5, 0.5, dtype=np.float32))
    result = study.check([study.case("a", label=label), study.case("b")])
    assert result.status == 3
    result.has("a", "label has 0.5 in 3 voxels; whole numbers are expected", "resampled with linear interpolation?")


def test_39_nan(study: Any) -> None:
    label = study.save("l.nii.gz", _values(1, np.nan, np.nan, dtype=np.float32))
    result = study.check([study.case("a", label=label), study.case("b")])
    assert result.status == 3
    result.has("a", "label has NaN or infinity in 2 voxels; whole numbers are expected", "by the background's value")


def test_39_noise_of_a_scale_factor_is_rounded_with_a_word(study: Any) -> None:
    label = study.save("l.nii.gz", _values(0.99999, 1.0000001, dtype=np.float64))
    result = study.check([study.case("a", label=label), study.case("b")])
    assert result.status == 0
    assert "1 case: label values within 0.01 of a whole number are rounded to it" in result.log


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint64])
def test_39_whole_numbers_in_any_type_are_sound(study: Any, dtype: Any) -> None:
    label = study.save("l.nii.gz", _values(1, dtype=dtype))
    assert study.check([study.case("a", label=label), study.case("b")]).status == 0


def test_40_image_listed_as_label(study: Any) -> None:
    ramp = np.linspace(-1024, 3071, 960).astype(np.int16).reshape(_SHAPE)
    result = study.check([study.case("a", label=study.save("ct.nii.gz", ramp)), study.case("b")])
    assert result.status == 3
    result.has("a", "label range -1024…3071 in ct.nii.gz; declared {0, 1}", "Is the image listed as label?")


@pytest.mark.parametrize("values", [(-1, 1), tuple(range(100))])
def test_40_negative_or_many_values(study: Any, values: tuple[int, ...]) -> None:
    label = study.save("l.nii.gz", _values(*values, dtype=np.int16))
    result = study.check([study.case("a", label=label), study.case("b")])
    assert result.status == 3
    result.has("a", f"label range {min(values)}…{max(values)}", "Is the image listed as label?")


def test_41_empty_labels(study: Any) -> None:
    empty = [study.case(f"e{i}", label=study.save(f"e{i}_label.nii.gz", _values())) for i in range(2)]
    some = study.check([*empty, study.case("a")])
    assert some.status == 0
    some.warns("some cases", "2 of 4 labels are all background (e0, e1)", "Check that this is meant.")
    every = study.check(empty, validation=[])
    assert every.status == 3
    every.has("all cases", "2 of 2 labels are all background", "Check the label files")


def test_41_what_is_background_depends_on_the_data_set(study: Any) -> None:
    space = {
        "labels": {"background": 0, "liver": 1, "kidney": 3},
        "datasets": {"lits": {"labels": {"background": [0, 3], "liver": 1}}},
    }
    three = study.save("three.nii.gz", _values(3))
    result = study.check(
        [study.case("a", label=three), study.case("b", label=three, dataset="lits")], label_space=space
    )
    assert result.status == 0
    result.warns("some cases", "1 of 3 labels are all background (b)", "Check that this is meant.")


def test_42_class_in_no_training_case(study: Any) -> None:
    labels = {"0": "background", "1": "liver", "3": "spleen"}
    both = study.save("both.nii.gz", _values(1, 3))
    cases = [study.case("a", fold=0), study.case("b", fold=0), study.case("c", fold=1, label=both)]
    result = study.check(cases, "--fold", 1, labels=labels)
    assert result.status == 0
    result.warns("all cases", "class 'spleen' (3) never occurs in fold 1's training cases", "choose other folds")
    strict = study.check(cases, "--fold", 1, "--strict", labels=labels)
    assert strict.status == 3
    strict.has("all cases", "class 'spleen' (3) never occurs", "")
    assert "spleen" not in study.check(cases, "--fold", 0, labels=labels).log


def test_43_region_of_an_undeclared_label(study: Any) -> None:
    space = {"labels": {"background": 0, "liver": 1}, "regions": {"TC": ["tumour"]}}
    result = study.check([study.case("a")], label_space=space)
    assert result.status == 3
    path = study.folder / "list.json"
    assert f"{path}: Region 'TC' uses label 'tumour', not declared. Declared: liver." in result.err


def test_43_label_in_no_region(study: Any) -> None:
    space = {"labels": {"background": 0, "liver": 1, "cyst": 2}, "regions": {"organ": ["liver"]}}
    both = study.save("both.nii.gz", _values(1, 2))
    softmax = study.check([study.case("a", label=both)], label_space=space)
    assert softmax.status == 0
    softmax.warns("all cases", "'cyst' is in no region: not scored; every label in a region", "Add a region")
    sigmoid = study.check([study.case("a", label=both)], label_space=space | {"mode": "sigmoid"})
    sigmoid.warns("all cases", "not scored, and background to the network", "declare its value as background")


def test_43_region_of_numbers(study: Any) -> None:
    space = {"labels": {"background": 0, "liver": 1}, "regions": {"TC": [1, 4]}}
    result = study.check([study.case("a")], label_space=space)
    assert result.status == 3
    assert "Region 'TC' uses label 1; expected names of declared labels. Write 'liver' for it." in result.err


def test_44_ignore_collides_with_a_class(study: Any) -> None:
    space = {"labels": {"background": 0, "liver": 1}, "ignore": [1]}
    result = study.check([study.case("a")], label_space=space)
    assert result.status == 3
    assert "Label value 1 is declared for both 'liver' and 'ignore'; give each value one meaning" in result.err


def test_45_partial_labels(study: Any) -> None:
    space = {
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "datasets": {"lits": {"labels": {"background": 0, "liver": 1}}},
    }
    both = study.save("both.nii.gz", _values(1, 2))
    wrong = study.check([study.case("a", label=both, dataset="lits"), study.case("b", label=both)], label_space=space)
    assert wrong.status == 3
    assert len(wrong.rows()) == 1
    wrong.has("a", "label values {0, 1, 2}; data set 'lits' declares {0, 1}", "Declare {2}")
    misspelt = study.check([study.case("a", dataset="list"), study.case("b")], label_space=space)
    assert misspelt.status == 3
    assert "training[0] has data set 'list', not in the label table. Did you mean 'lits'?" in misspelt.err

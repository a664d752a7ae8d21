"""Datalists and files (numbers 1 to 14, 16, 17 of the matrix)."""

from __future__ import annotations

import gzip
import json
import os
from typing import Any

import numpy as np
import pytest
import SimpleITK
from PIL import Image


def test_1_missing_datalist(study: Any) -> None:
    result = study.run("check", "--json_list", study.folder / "none.json")
    assert result.status == 3
    assert f"Datalist {study.folder / 'none.json'} not found" in result.err
    assert "medseg datalist --images DIR --labels DIR" in result.err


def test_2_invalid_json_names_line_and_column(study: Any) -> None:
    path = study.folder / "list.json"
    path.write_text('{\n "training": [,]\n}', encoding="utf-8")
    result = study.run("check", "--json_list", path)
    assert result.status == 3
    assert f"{path}, line 2, column 15: not valid JSON (Expecting value)" in result.err


def test_2_byte_order_mark_is_read(study: Any) -> None:
    path = study.write([study.case("a"), study.case("b")], validation=[study.case("c")])
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert study.run("check", "--json_list", path).status == 0


def test_3_no_training_section(study: Any) -> None:
    path = study.folder / "list.json"
    path.write_text(json.dumps({"trainin": [{"image": "a.nii"}], "test": []}), encoding="utf-8")
    result = study.run("check", "--json_list", path)
    assert result.status == 3
    assert f"{path} has sections trainin, test; need 'training'. Create" in result.err


@pytest.mark.parametrize(("section", "sentence"), [([], "is empty; add cases"), ({}, "is a dict; make it a list")])
def test_4_empty_section(study: Any, section: Any, sentence: str) -> None:
    path = study.folder / "list.json"
    path.write_text(json.dumps({"training": section, "labels": {"0": "background", "1": "a"}}), encoding="utf-8")
    result = study.run("check", "--json_list", path)
    assert result.status == 3
    assert f"Section 'training' of {path} {sentence}" in result.err


def test_5_entry_without_label(study: Any) -> None:
    result = study.check([study.case("a"), {"image": "b.nii.gz"}])
    assert result.status == 3
    assert "training[1] has no 'label'. Add it or move the case to 'test'." in result.err


def test_6_misspelt_key_is_refused_and_own_keys_are_kept(study: Any) -> None:
    result = study.check([{"image": "a.nii.gz", "lable": "b.nii.gz"}])
    assert result.status == 3
    assert "training[0] has unknown key 'lable'. Did you mean 'label'?" in result.err
    assert study.check([study.case("a", mask="m.nii.gz", age=61, instances="i.png")]).status == 0


def test_5_6_all_wrong_entries_are_listed_at_once(study: Any) -> None:
    result = study.check([{"image": "a.nii.gz"}, {"label": "b.nii.gz"}, {"image": "c", "label": "d", "fold": "x"}])
    assert result.status == 3
    assert "3 entries are wrong" in result.err
    for sentence in ("training[0] has no 'label'", "training[1] has no 'image'", "training[2] has fold 'x'"):
        assert sentence in result.err


def test_7_missing_image(study: Any) -> None:
    result = study.check([study.case("a"), study.case("b", image="images/gone.nii.gz")])
    assert result.status == 3
    result.has("gone", "images/gone.nii.gz not found", "Fix the path in the datalist")


def test_7_wrong_data_dir_gives_one_sentence(study: Any) -> None:
    cases = [study.case(f"c{i}") for i in range(4)]
    other = study.folder / "elsewhere"
    other.mkdir()
    result = study.check(cases, "--data_dir", other)
    assert result.status == 3
    assert (
        f"training[0].image: c0.nii.gz not found (relative to data root {other}). 9 other files are missing too. "
        "Name the folder of the images with --data_dir" in result.err
    )
    missing = study.check(cases, "--data_dir", study.folder / "nowhere")
    assert missing.status == 3
    assert f"Data folder {study.folder / 'nowhere'} not found" in missing.err


def test_8_case_twice_or_in_training_and_validation(study: Any) -> None:
    case = study.case("a")
    twice = study.check([case, case])
    assert twice.status == 3
    assert "Case a is listed 2 times in 'training'" in twice.err
    both = study.check([case, study.case("b")], validation=[case])
    assert both.status == 3
    assert "Case a is in both training and validation: results would be biased. Remove it from one." in both.err
    declared = study.check([case, study.case("b")], validation=[case], known_overlaps=["a"])
    assert declared.status == 0
    assert "Case a is in both training and validation" in declared.log


def test_9_subject_in_two_folds(study: Any) -> None:
    cases = [study.case(f"c{i}", fold=i, subject="s1") for i in (0, 1)]
    result = study.check(cases)
    assert result.status == 3
    assert "Subject s1 appears in folds 0 and 1. Make the folds again grouped by subject." in result.err
    declared = study.check(cases, known_overlaps=["s1"])
    assert declared.status == 0
    assert "Subject s1 appears in folds 0 and 1" in declared.log
    always = study.check([study.case("c0", fold=0, subject="s1"), study.case("c1", subject="s1")])
    assert always.status == 3
    assert "Subject s1 appears in fold 0, and has cases without a fold, which are always trained on" in always.err


def test_10_to_14_all_broken_files_are_listed_at_once(study: Any, monkeypatch: Any) -> None:
    cases = [study.case(name) for name in ("sound", "empty", "cut", "flipped", "text", "locked")]
    (study.folder / "empty.nii.gz").write_bytes(b"")
    whole = (study.folder / "cut.nii.gz").read_bytes()
    (study.folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # the checksum: the voxels can be read, but are not known to be whole
    (study.folder / "flipped.nii.gz").write_bytes(damaged)
    (study.folder / "text.nii.gz").write_bytes(b"<html>not found</html>")
    cases.append({"image": "scan.xyz", "label": "sound_label.nii.gz"})
    (study.folder / "scan.xyz").write_bytes(b"?")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "locked.nii" not in str(path) and allowed(path, mode))
    result = study.check(cases)
    assert result.status == 3
    assert result.err.startswith("error: 6 problems in 8 cases checked:")
    result.has("empty", "empty.nii.gz is empty (0 bytes)", "Copy the file again.")
    size = 352 + 2 * 12 * 10 * 8
    result.has("cut", f"of {size} bytes", "Copy the file again.")
    result.has("cut", "cut.nii.gz is cut short or damaged: the compressed data end after", "")
    result.has("flipped", "flipped.nii.gz is cut short or damaged: CRC check failed", "Copy the file again.")
    result.has("text", "text.nii.gz is not a gzip file (starts with b'<htm')", "Give it the name of its format")
    result.has("scan", "Cannot read '.xyz' (scan.xyz). Known: .nii .nii.gz .nrrd", "Convert the file")
    result.has("locked", "no read permission for locked.nii.gz", "permissions")


def _nii_without_data(study: Any) -> str:
    study.image("whole.nii")
    (study.folder / "short.nii").write_bytes((study.folder / "whole.nii").read_bytes()[:600])
    return "short.nii"


def _gzip_of_text(study: Any) -> str:
    (study.folder / "text.nii.gz").write_bytes(gzip.compress(b"no image at all" * 50))
    return "text.nii.gz"


def _plain_as_gz(study: Any) -> str:
    study.image("plain.nii")
    (study.folder / "plain.nii").rename(study.folder / "plain.nii.gz")
    return "plain.nii.gz"


def _png_as_nrrd(study: Any) -> str:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(study.folder / "a.png")
    (study.folder / "a.png").rename(study.folder / "a.nrrd")
    return "a.nrrd"


def _cut_png(study: Any) -> str:
    Image.fromarray(study.random.integers(0, 255, (64, 64), np.uint8)).save(study.folder / "cut.png")
    content = (study.folder / "cut.png").read_bytes()
    (study.folder / "cut.png").write_bytes(content[: len(content) // 2])
    return "cut.png"


def _cut_mha(study: Any) -> str:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((6, 7, 8), np.int16)), str(study.folder / "cut.mha"))
    content = (study.folder / "cut.mha").read_bytes()
    (study.folder / "cut.mha").write_bytes(content[:-300])
    return "cut.mha"


def _folder(study: Any) -> str:
    (study.folder / "folder.nii.gz").mkdir()
    return "folder.nii.gz"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_nii_without_data, "is cut short or damaged: the data end after 600 of 2272 bytes"),
        (_gzip_of_text, "is not a NIfTI file (its data start with b'no i')"),
        (_plain_as_gz, "is not a gzip file"),
        (_png_as_nrrd, "is not a nrrd file (starts with b'\\x89PNG')"),
        (_cut_png, "is cut short or damaged: "),
        (_cut_mha, "cannot be read: "),
        (_folder, "is a folder; an image file is expected"),
    ],
)
def test_11_12_damage_in_every_format(study: Any, make: Any, problem: str) -> None:
    name = make(study)
    result = study.check([study.case("sound"), study.case("bad", image=name)])
    assert result.status == 3
    result.has("", f"{name} {problem}", ".")


def test_16_number_of_channels(study: Any) -> None:
    names = {str(i): name for i, name in enumerate(("T1", "T1c", "T2", "FLAIR"))}
    four = [study.image(f"m{i}.nii.gz") for i in range(4)]
    more = [study.image(f"n{i}.nii.gz") for i in range(4)]
    result = study.check(
        [study.case("a", image=four, case_id="a"), study.case("b", image=more[:3], case_id="b")],
        modality=names,
        validation=[study.case("v", image=more, case_id="v")],
    )
    assert result.status == 3
    result.has("b", "has 3 images, others have 4 (T1, T1c, T2, FLAIR)", "List one file per channel")


def test_16_colour_images(study: Any) -> None:
    cases = []
    for number, channels in enumerate((3, 3, 3, 1)):
        pixels = study.random.integers(0, 255, (16, 20, 3), np.uint8)
        Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(study.folder / f"p{number}.png")
        Image.fromarray((pixels[..., 0] > 99).astype(np.uint8)).save(study.folder / f"l{number}.png")
        cases.append({"image": f"p{number}.png", "label": f"l{number}.png"})
    colour = {"0": "RGB dermoscopy"}
    assert study.check(cases[:2], modality=colour, validation=cases[2:]).status == 0  # a grey picture has a place in it
    ultrasound = {"0": "ultrasound"}
    assert study.check(cases[:2], modality=ultrasound, validation=cases[2:3]).status == 0
    result = study.check(cases[:2], modality=ultrasound, validation=cases[2:])
    assert result.status == 3
    result.has("p3", "has 1 channels, others have 3", "make datalists of one kind each")


@pytest.mark.parametrize("name", ["Bäuch 1 (müde)", "肝脏", "a b.c", "x#y%z"])
def test_17_unicode_and_blanks(study: Any, name: str) -> None:
    folder = study.folder / "mit Leerzeichen é"
    folder.mkdir()
    cases = [study.case(f"{folder.name}/{name}"), study.case("b")]
    result = study.check(cases)
    assert result.status == 0, result.err
    assert "3 cases are sound" in result.out

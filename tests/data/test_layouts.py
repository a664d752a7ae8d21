"""Datalists of users' own folders: nnU-Net of both versions, MSD, BIDS, folders of cases; and what broken ones get."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.cli import main
from medseg.data import MadeDatalist, make_datalist, read_datalist
from medseg.errors import ConfigError, DataError, MedsegError

IDS = [f"case_{number}" for number in (1, 2, 3, 10)]  # 10: "_10_0000" and "_10_0001" share "case_1" and zeros


def _save(path: Path, shape: tuple[int, ...] = (4, 3, 2), origin: float = 0.0, values: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.eye(4)
    affine[0, 3] = origin
    voxels = np.ones(shape) if values is None else np.resize(values, shape)
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.int16), affine), path)
    return path


def _json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    """A raw folder of version 2 with two channels and overlapping regions, and its splits where nnU-Net keeps them."""
    folder = tmp_path / "nnUNet_raw" / "Dataset007_Glioma"
    for case in IDS:
        for channel in (0, 1):
            _save(folder / "imagesTr" / f"{case}_{channel:04}.nii.gz")
        _save(folder / "labelsTr" / f"{case}.nii.gz", values=[0, 1, 2, 3])
    for channel in (0, 1):
        _save(folder / "imagesTs" / f"new_{channel:04}.nii.gz")
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    table = {"channel_names": {"0": "T1", "1": "T2"}, "labels": labels, "regions_class_order": [1, 2, 3]}
    _json(folder / "dataset.json", table | {"numTraining": 4, "file_ending": ".nii.gz"})
    _splits(folder, [{"train": [c for c in IDS if c != val], "val": [val]} for val in IDS])
    return folder


def _splits(folder: Path, content: Any) -> None:
    _json(folder.parents[1] / "nnUNet_preprocessed" / folder.name / "splits_final.json", content)


def _make(folder: Path, **options: Any) -> MadeDatalist:
    return make_datalist(folder.parent / "list.json", folder=folder, **options)


def test_nnunet_with_its_splits(nnunet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "list.json"
    assert main(["datalist", str(nnunet), "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "layout: nnU-Net raw folder" in said and "warning" not in said
    assert f"Sections and folds are those of {tmp_path / 'nnUNet_preprocessed'}" in said
    assert "4 training cases in 4 folds, 1 test case" in said
    datalist = read_datalist(output, nnunet)
    assert {case.id: case.fold for case in datalist.sections["training"]} == dict(zip(IDS, range(4), strict=True))
    assert datalist.channels == ("T1", "T2")
    assert datalist.label_space.channels == ("whole", "core", "enhancing")  # regions: sigmoid
    last = next(case for case in datalist.sections["training"] if case.id == "case_10")
    assert [Path(p).name for p in last.images] == ["case_10_0000.nii.gz", "case_10_0001.nii.gz"]
    assert [case.id for case in datalist.sections["test"]] == ["new"]
    anew = _make(nnunet, num_folds=2, modality=["FLAIR", "T1c"])  # asked for: the splits are left alone
    assert anew.folds == 2 and read_datalist(anew.path, nnunet).channels == ("FLAIR", "T1c")


def test_nnunet_of_version_1_lists_cases_without_their_suffix(tmp_path: Path) -> None:
    folder = tmp_path / "nnUNet_raw_data" / "Task002_Heart"
    entries = []
    for case in ("la_003", "la_004"):
        _save(folder / "imagesTr" / f"{case}_0000.nii.gz")
        _save(folder / "labelsTr" / f"{case}.nii.gz", values=[0, 1])
        entries.append({"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"})
    labels = {"0": "background", "1": "left atrium"}
    _json(folder / "dataset.json", {"name": "Heart", "modality": {"0": "MRI"}, "labels": labels, "training": entries})
    pickle = tmp_path / "nnUNet_preprocessed" / folder.name / "splits_final.pkl"
    pickle.parent.mkdir(parents=True)
    pickle.write_bytes(b"never opened")
    made = _make(folder)
    datalist = read_datalist(made.path, folder)
    assert [case.id for case in datalist.sections["training"]] == ["la_003", "la_004"]
    assert datalist.name == "Heart" and datalist.label_space.labels == ("left atrium",)
    assert made.warnings[0].startswith(f"{pickle} is a pickle, which could run code and is not opened")
    with pytest.raises(ConfigError, match="is a pickle, which could run code"):
        _make(folder, overwrite=True, splits=pickle)


def test_nnunet_lists_files_anywhere_and_pictures_hold_three_channels(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "Dataset009_Skin"
    folder.mkdir(parents=True)
    for name in ("photo.png", "mask.png"):
        Image.fromarray(np.zeros((4, 6, 3) if name[0] == "p" else (4, 6), np.uint8)).save(tmp_path / name)
    case = {"images": ["../../photo.png"], "label": "../../mask.png"}
    table = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "lesion": 1}}
    _json(folder / "dataset.json", table | {"file_ending": ".png", "dataset": {"a": case}})
    datalist = read_datalist(make_datalist(tmp_path / "l.json", folder=folder, num_folds=1).path, tmp_path)
    assert datalist.channels == ("RGB",)
    assert datalist.sections["training"][0].images[0] == str(tmp_path / "photo.png")


def test_regions_that_are_not_nested_are_evaluated_only(nnunet: Path) -> None:
    table = json.loads((nnunet / "dataset.json").read_text())
    table["labels"] = {"background": 0, "a": [1, 2], "b": [2, 3]}
    _json(nnunet / "dataset.json", table)
    made = _make(nnunet)
    space = read_datalist(made.path, nnunet).label_space
    assert (space.mode, list(space.regions)) == ("softmax", ["a", "b"])
    assert any("not nested" in note for note in made.notes)


def _no_channel(folder: Path) -> None:
    (folder / "imagesTr" / "case_2_0001.nii.gz").unlink()


def _no_image(folder: Path) -> None:
    _save(folder / "labelsTr" / "lone.nii.gz")


def _no_label(folder: Path) -> None:
    (folder / "labelsTr" / "case_2.nii.gz").unlink()


def _more_channels(folder: Path) -> None:
    _save(folder / "imagesTr" / "case_2_0002.nii.gz")


def _other_shape(folder: Path) -> None:
    _save(folder / "labelsTr" / "case_2.nii.gz", (4, 3, 3))


def _other_place(folder: Path) -> None:
    _save(folder / "imagesTr" / "case_2_0001.nii.gz", origin=0.4)


def _damaged(folder: Path) -> None:
    (folder / "imagesTr" / "case_2_0000.nii.gz").write_bytes(b"")


def _unknown_case(folder: Path) -> None:
    _splits(folder, [{"train": IDS, "val": ["case_77"]}])


def _twice(folder: Path) -> None:
    _splits(folder, [{"train": IDS[1:], "val": IDS[:1]}] * 2)


def _fewer(folder: Path) -> None:
    _splits(folder, [{"train": IDS[1:], "val": IDS[:1]}, {"train": IDS[2:], "val": IDS[1:2]}])


def _no_splits(folder: Path) -> None:
    _splits(folder, [IDS])


def _no_channel_names(folder: Path) -> None:
    _json(folder / "dataset.json", {"labels": {"background": 0, "x": 1}, "file_ending": ".nii.gz"})


def _no_labels(folder: Path) -> None:
    _json(folder / "dataset.json", {"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz"})


def _foreign_ending(folder: Path) -> None:
    _json(folder / "dataset.json", {"channel_names": {"0": "T1"}, "file_ending": ".npy"})


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_no_channel, r"Case case_2 lacks case_2_0001\.nii\.gz in .*imagesTr; dataset\.json names 2 channels"),
        (_more_channels, r"Case case_2 has 3 channel files in .*imagesTr, dataset\.json names 2"),
        (_no_image, "labelsTr has 1 case without an image in imagesTr: lone"),
        (_no_label, "imagesTr has 1 case without a label in labelsTr: case_2"),
        (_other_shape, "case_2: image 4×3×2, label 4×3×3 voxels; one grid is expected"),
        (_other_place, "case_2: the channel 1's corners are up to 0.4 mm from the image's"),
        (_damaged, r"case_2: .*case_2_0000\.nii\.gz is empty \(0 bytes\)"),
        (_unknown_case, "splits_final.json names 1 training cases that the folder lacks: case_77"),
        (_twice, "has case case_1 in the 'val' of two splits"),
        (_fewer, r"split 1 omits 1 cases that other splits use \(case_1\)"),
        (_no_splits, "is not a valid list of splits"),
        (_no_channel_names, "'channel_names' is None; expected for example"),
        (_no_labels, r"dataset\.json: The label table's 'labels' is {}"),
        (_foreign_ending, r"names the file ending '\.npy'; known are"),
    ],
)
def test_broken_nnunet_folders(spoil: Callable[[Path], None], sentence: str, nnunet: Path) -> None:
    spoil(nnunet)
    with pytest.raises(MedsegError, match=sentence):
        _make(nnunet)
    assert not (nnunet.parent / "list.json").exists()


@pytest.fixture
def msd(tmp_path: Path) -> Path:
    """A Decathlon archive with the names of BTCV's published split."""
    folder = tmp_path / "Task99_Organs"
    training = []
    for number in (*range(1, 11), *range(21, 41)):
        _save(folder / "imagesTr" / f"img{number:04}.nii.gz")
        _save(folder / "labelsTr" / f"label{number:04}.nii.gz", values=[0, 1])
        training.append({"image": f"./imagesTr/img{number:04}.nii.gz", "label": f"./labelsTr/label{number:04}.nii.gz"})
        training[-1]["scanner"] = "b" if number % 5 == 0 else "a"
    _save(folder / "imagesTs" / "img0061.nii.gz")
    table: dict[str, Any] = {"name": "Organs", "licence": "CC-BY-SA 4.0", "modality": {"0": "CT"}}
    table["labels"] = {"0": "background", "1": "spleen"}
    _json(folder / "dataset.json", table | {"training": training, "test": ["./imagesTs/img0061.nii.gz"]})
    return folder


def test_msd_with_folds_and_with_a_published_split(msd: Path) -> None:
    made = _make(msd)
    datalist = read_datalist(made.path, msd)
    assert (made.sections["training"], made.sections["test"], made.folds) == (30, 1, 5)
    assert datalist.table["licence"] == "CC-BY-SA 4.0" and datalist.channels == ("CT",)
    published = _make(msd, splits="btcv", overwrite=True)
    sections = read_datalist(published.path, msd).sections
    assert [len(sections[name]) for name in ("training", "validation", "test")] == [24, 6, 1]
    assert "names 19 test cases that the folder lacks" in published.warnings[0]
    ours = read_datalist(Path(__file__).parents[2] / "data_json" / "btcv.json").sections
    assert {c.id for c in sections["validation"]} == {c.id for c in ours["validation"]}
    with pytest.raises(ConfigError, match="No split 'btvc'. Did you mean 'btcv'"):
        _make(msd, splits="btvc", overwrite=True)


def test_stratified_folds_share_what_is_rare(msd: Path) -> None:
    made = _make(msd, stratify="scanner")
    cases = read_datalist(made.path, msd).sections["training"]
    for fold in range(5):
        inside = [case for case in cases if case.fold == fold]
        assert len(inside) == 6
        assert sum(case.own["scanner"] == "b" for case in inside) in (1, 2)  # 6 of them in 5 folds
    _save(msd / "labelsTr" / "label0001.nii.gz", values=[0, 2])
    _save(msd / "labelsTr" / "label0002.nii.gz", values=[0, 2])
    table = json.loads((msd / "dataset.json").read_text())
    _json(msd / "dataset.json", table | {"labels": {"0": "background", "1": "spleen", "2": "cyst"}})
    cases = read_datalist(_make(msd, stratify="labels", num_folds=2, overwrite=True).path, msd).sections["training"]
    assert cases[0].fold != cases[1].fold  # the two with a cyst
    with pytest.raises(ConfigError, match="have no 'scaner'. Did you mean 'scanner'"):
        _make(msd, stratify="scaner", overwrite=True)


def test_broken_msd_folders(msd: Path) -> None:
    with pytest.raises(ConfigError, match=f"Did you mean {msd}"):
        make_datalist(msd.parent / "x.json", folder=msd.parent)
    with pytest.raises(ConfigError, match="read as Medical Segmentation Decathlon, which takes no --image_pattern"):
        _make(msd, image_pattern="{case}_0000")
    (msd / "labelsTr" / "label0003.nii.gz").unlink()
    with pytest.raises(DataError, match=r"1 of 61 files that .* names are missing: labelsTr/label0003\.nii\.gz"):
        _make(msd)


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Four subjects, the first with two sessions, the last without a label; T1w everywhere, FLAIR but once."""
    folder = tmp_path / "study"
    for case in ("sub-01_ses-1", "sub-01_ses-2", "sub-02", "sub-03", "sub-04"):
        place = Path(*case.split("_"), "anat")
        _save(folder / place / f"{case}_T1w.nii.gz")
        if case != "sub-03":
            _save(folder / place / f"{case}_acq-3D_FLAIR.nii.gz")
        if case != "sub-04":
            _save(folder / "derivatives" / "expert" / place / f"{case}_dseg.nii.gz", values=[0, 1, 4])
    (folder / "derivatives" / "expert" / "dseg.tsv").write_text("index\tname\n1\tlesion\n4\tscar\n")
    (folder / "participants.tsv").write_text("participant_id\tsex\nsub-01\tF\nsub-02\tM\nsub-03\tF\nsub-04\tM\n")
    _json(folder / "dataset_description.json", {"Name": "Lesions", "BIDSVersion": "1.9.0"})
    return folder


def test_bids_keeps_subjects_together(bids: Path) -> None:
    made = _make(bids, stratify="sex", num_folds=3)
    datalist = read_datalist(made.path, bids)
    cases = {case.id: case for case in datalist.sections["training"]}
    assert list(cases) == ["sub-01_ses-1", "sub-01_ses-2", "sub-02", "sub-03"]
    assert cases["sub-01_ses-1"].fold == cases["sub-01_ses-2"].fold != cases["sub-03"].fold
    assert [case.id for case in datalist.sections["test"]] == ["sub-04"]
    assert datalist.channels == ("T1w",)  # what all labelled cases have
    assert datalist.label_space.labels == ("lesion", "scar") and datalist.name == "Lesions"
    assert "sex" not in made.path.read_text()  # what is known of a person stays where it was
    (bids / "derivatives" / "expert" / "sub-03" / "anat" / "sub-03_dseg.nii.gz").unlink()
    two = read_datalist(_make(bids, modality=["acq-3D_FLAIR", "T1w"], overwrite=True, layout="bids").path, bids)
    names = [Path(path).name for path in two.sections["training"][2].images]
    assert names == ["sub-02_acq-3D_FLAIR.nii.gz", "sub-02_T1w.nii.gz"]


def test_bids_asks_where_it_cannot_tell(bids: Path) -> None:
    anat = bids / "derivatives" / "expert" / "sub-02" / "anat"
    mask = _save(anat / "sub-02_desc-brain_mask.nii.gz", values=[0, 1])
    with pytest.raises(ConfigError, match=r"several kinds of labels \(desc-brain_mask, dseg\); choose with --labels"):
        _make(bids)
    chosen = _make(bids, label_pattern="{case}_desc-brain_mask")
    datalist = read_datalist(chosen.path, bids)
    assert [case.id for case in datalist.sections["training"]] == ["sub-02"]
    assert datalist.label_space.labels == ("brain",)
    mask.rename(anat / "sub-09_dseg.nii.gz")
    with pytest.raises(DataError, match="labels 1 cases that have no image in .*: sub-09"):
        _make(bids, overwrite=True)
    with pytest.raises(ConfigError, match="has no T2w; --modality names channels among T1w, acq-3D_FLAIR"):
        (anat / "sub-09_dseg.nii.gz").unlink()
        _make(bids, modality=["T2w"], overwrite=True)


def test_a_folder_per_case(tmp_path: Path) -> None:
    for number in range(3):
        _save(tmp_path / "kits" / f"case_{number:05}" / "imaging.nii.gz")
        _save(tmp_path / "kits" / f"case_{number:05}" / "segmentation.nii.gz", values=[0, 1])
        _save(tmp_path / "new" / f"case_{number + 9:05}" / "imaging.nii.gz")
    made = make_datalist(
        tmp_path / "list.json", images=tmp_path / "kits", labels=tmp_path / "kits", test=tmp_path / "new",
        image_pattern="{case}/imaging", label_pattern="{case}/segmentation.nii.gz", modality=["CT"],
    )  # fmt: skip
    datalist = read_datalist(made.path)
    assert [case.id for case in datalist.sections["training"]] == ["case_00000", "case_00001", "case_00002"]
    assert [case.id for case in datalist.sections["test"]] == ["case_00009", "case_00010", "case_00011"]

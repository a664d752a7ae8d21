"""Data sets whose volumes are made: published golden arrays, true positions, the oddities of each archive."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import layouts
import numpy as np
import pytest
import SimpleITK as sitk
from full_set import FULL_SET
from layouts import LABEL, volume

from medseg.cli import main
from medseg.data import read_datalist
from medseg.data.isotropic import crop_to_label, pairs_from_files
from medseg.datasets import (
    amos,
    autopet,
    brain_structure,
    btcv,
    chaos,
    dataset_module,
    kits19,
    lits,
    mnms,
    msd,
    structseg,
    tcia_pancreas,
)
from medseg.dicom.series import find_series
from medseg.errors import CasesFailed, ConfigError, DataError

IMAGE_WIDE = np.zeros((4, 6, 8), np.int16)
MIXED = (0.0, 2.0, 1.0, 3.0)  # mm: slices that are not numbered along the body
ROOT = Path(__file__).parents[2]
LISTS = ROOT / "data_json" / "hermes"
GOLDENS = FULL_SET / "hermes"


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def golden(name: str) -> tuple[dict[str, np.ndarray], list[float]]:
    """Arrays of a golden, and the spacing of its source."""
    arrays = dict(np.load(GOLDENS / f"convert_{name}.npz"))
    return arrays, json.loads((GOLDENS / f"convert_{name}.json").read_text())["in_spacing_xyz"]


def check(out: Path, name: str, arrays: dict[str, np.ndarray]) -> None:
    assert sitk.ReadImage(str(out / f"{name}.nii.gz")).GetSpacing() == pytest.approx((1.5, 1.5, 1.5))
    np.testing.assert_array_equal(read(out / f"{name}.nii.gz"), arrays["out_img"])
    np.testing.assert_array_equal(read(out / f"{name}_gt.nii.gz"), arrays["out_lab"])


def counts(path: Path, root: Path | None = None) -> dict[str, int]:
    return {section: len(cases) for section, cases in read_datalist(path, root).sections.items()}


# ---------------------------------------------------------------------- as published
@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize(("name", "context"), [("bcv", (20, 20, 20)), ("kits", (30, 40, 20))])
def test_volumes_are_as_published(tmp_path: Path, name: str, context: tuple[int, ...]) -> None:
    arrays, spacing = golden(name)
    files = tmp_path / "image.nii.gz", tmp_path / "label.nii.gz"
    for key, path in zip(("img", "lab"), files, strict=True):
        volume(path, arrays[key], spacing)
    image, label = pairs_from_files({"a": files}, isotropic=True, context=context)("a")
    assert image.GetSpacing() == label.GetSpacing() == (1.5, 1.5, 1.5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), arrays["out_img"])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), arrays["out_lab"])


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
def test_chaos_is_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, down: bool) -> None:
    """From DICOM and pictures, whichever way the slices are numbered."""
    arrays, spacing = golden("chaos")
    raw = layouts.chaos(tmp_path / "raw", monkeypatch)
    shutil.rmtree(raw / "MR" / "20" / "T1DUAL")
    for phase in ("InPhase", "OutPhase"):
        layouts.dicom(raw / "MR" / "20" / "T1DUAL" / "DICOM_anon" / phase, arrays["img"], spacing, down=down)
    for number, pixels in enumerate(arrays["lab"][:: -1 if down else 1], 1):
        layouts.picture(raw / "MR" / "20" / "T1DUAL" / "Ground" / f"IMG-0001-{number:05}.png", pixels)
    chaos.prepare(raw, tmp_path / "out")
    check(tmp_path / "out", "20_t1_in", arrays)
    check(tmp_path / "out", "20_t1_out", arrays)


@pytest.mark.usefixtures("full_set")
def test_brain_structures_are_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, spacing = golden("brain")
    raw, name = layouts.brain_structure(tmp_path / "raw", monkeypatch), "dlbs_0028400"
    volume(raw / "train" / "image" / f"{name}_img.nii", arrays["img"], spacing)
    for short, tissue in (("gm", "graymatter"), ("wm", "whitematter"), ("csf", "csf")):
        volume(raw / "train" / "mask" / f"{name}_probmask_{tissue}.nii", arrays[f"prob_{short}"], spacing)
    brain_structure.prepare(raw, tmp_path / "out")
    check(tmp_path / "out", name, arrays)


def test_positions_stay_true(tmp_path: Path) -> None:
    array = np.zeros((20, 24, 28), np.int16)
    array[8:14, 4:16, 10:20] = 100
    files = tmp_path / "image.nii.gz", tmp_path / "label.nii.gz"
    for path, values in zip(files, (array, (array > 0).astype(np.uint8)), strict=True):
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((1.0, 1.0, 2.0))
        image.SetDirection((-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
        sitk.WriteImage(image, str(path))

    def centre(image: sitk.Image) -> np.ndarray:
        middle = np.argwhere(sitk.GetArrayFromImage(image) > 0).mean(0)[::-1]
        return np.array(image.TransformContinuousIndexToPhysicalPoint([float(v) for v in middle]))

    make = pairs_from_files({"a": files}, isotropic=True, context=(1, 1, 1))
    assert np.abs(centre(sitk.ReadImage(str(files[1]))) - centre(make("a")[1])).max() < 1.0
    volume(files[1], np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(DataError, match="label.nii.gz has .* expected one grid"):
        make("a")


def test_small_boxes_are_enlarged() -> None:
    label = sitk.Image(200, 150, 40, sitk.sitkUInt8)
    label[90:101, 70:130, 20] = 1  # 11 by 60 by 1 voxels
    _, cropped = crop_to_label(label, label, (2, 3, 4), least=20)
    assert cropped.GetSize() == (11 + 2 * (4 + 4), 60 + 2 * 3, 1 + 2 * (2 + 9))


# ---------------------------------------------------------------------- archives
@pytest.mark.parametrize("name", ["lits", "kits19"])
def test_numbered_cases(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, module = layouts.LAYOUTS[name](tmp_path / "raw", monkeypatch), dataset_module(name)
    path = module.prepare(raw, tmp_path / "out")
    assert counts(path) == {"training": 5, "validation": 1, "test": 2}
    assert len(read_datalist(path).folds()) == 5
    label = read(tmp_path / "out" / "2_gt.nii.gz")
    assert {*np.unique(label)} == {0, 1, 2}
    assert label.shape == ((8, 4, 4) if name == "lits" else (4, 6, 6))  # of 6 x 6 x 4, or stated anew
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"made with crop True \(now False\)"):
        module.prepare(raw, tmp_path / "out", crop=False)
    module.prepare(raw, tmp_path / "whole", isotropic=False, crop=False)
    spacing = (1.0, 1.0, 3.0) if name == "lits" else (1.5, 1.5, 1.5)
    assert sitk.ReadImage(str(tmp_path / "whole" / "2.nii.gz")).GetSpacing() == pytest.approx(spacing)
    next(raw.rglob("*segmentation-5.nii" if name == "lits" else "case_00005/segmentation.nii.gz")).unlink()
    with pytest.raises(DataError, match="7 of 8 cases" if name == "lits" else "1 of 16 files .* case_00005/segm"):
        module.prepare(raw, tmp_path / "out")
    assert path.read_bytes() == before


def test_both_parts_of_structseg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.structseg(tmp_path / "raw", monkeypatch)
    for part, labels in (("head", 22), ("thorax", 6)):
        path = structseg.prepare(raw, tmp_path / part, part=part)
        assert counts(path) == {"training": 5, "validation": 1, "test": 2}
        assert len(read_datalist(path).label_space.labels) == labels
        assert read(tmp_path / part / "1_gt.nii.gz").max() == labels
    with pytest.raises(ConfigError, match="holds files made with .*name StructSeg 2019, head and neck"):
        structseg.prepare(raw, tmp_path / "head", part="thorax")
    with pytest.raises(ConfigError, match="no part 'neck'; use head or thorax"):
        structseg.prepare(raw, tmp_path / "neck", part="neck")
    (raw / "HaN_OAR" / "4" / "data.nii.gz").unlink()
    with pytest.raises(DataError, match=r"1 of 16 files of StructSeg 2019 .*HaN_OAR/4/data.nii.gz. Unpack"):
        structseg.prepare(raw, tmp_path / "head")
    with pytest.raises(DataError, match=f"Did you mean {raw}"):
        structseg.prepare(raw.parent, tmp_path / "head")


def test_chaos_tells_nothing_of_the_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    raw = layouts.chaos(tmp_path / "raw", monkeypatch)
    assert layouts.PATIENT.encode() in next(raw.rglob("*.dcm")).read_bytes()
    assert (
        main(["prepare", "chaos", "--raw", str(raw), "--out", str(tmp_path / "out"), "--no-crop", "--no-isotropic"])
        == 0
    )
    entries = json.loads((tmp_path / "out" / "chaos_mr.json").read_text())["training"]
    assert {(e["subject"], e["modality"]) for e in entries} == {(s, m) for s in ("2", "20") for m in ("t1", "t2")}
    folds = {(entry["subject"], entry["fold"]) for entry in entries}
    assert len(folds) == 2  # a subject's sequences are in one
    for subject in ("20", "2"):  # slices numbered up and down
        label = read(tmp_path / "out" / f"{subject}_t2_gt.nii.gz")
        assert [int(level.max()) for level in label] == [1, 2, 3, 4]
    image = sitk.ReadImage(str(tmp_path / "out" / "20_t1_in.nii.gz"))
    assert image.GetOrigin() == pytest.approx((-10, 20, 0))
    assert main(["prepare", "chaos", "--raw", str(raw), "--out", str(tmp_path / "ct"), "--modality", "CT"]) == 0
    datalist = read_datalist(tmp_path / "ct" / "chaos_ct.json")
    assert (datalist.channels, datalist.label_space.labels, counts(datalist.path)["training"]) == (
        ("CT",),
        ("liver",),
        4,
    )
    assert {*np.unique(read(tmp_path / "ct" / "20_ct_gt.nii.gz"))} == {0, 1}
    said = "".join(capfd.readouterr())
    for folder in ("out", "ct"):
        for path in (tmp_path / folder).iterdir():
            image = sitk.ReadImage(str(path)) if path.name.endswith(".nii.gz") else None
            tags = " ".join(image.GetMetaData(key) for key in image.GetMetaDataKeys()) if image else path.read_text()
            assert not any(text in f"{tags} {said}" for text in ("Secret", "19990131", "19500102"))


def test_a_broken_chaos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.chaos(tmp_path / "raw", monkeypatch)
    slices = raw / "MR" / "20" / "T2SPIR" / "DICOM_anon"
    # a second series beside the first: that with as many slices as pictures is taken
    layouts.dicom(slices, np.zeros((2, 6, 6), np.int16), (1.5, 1.5, 9.0), prefix="IMG-0002", series=2)
    chaos.prepare(raw, tmp_path / "out")
    assert read(tmp_path / "out" / "20_t2.nii.gz").max() > 100
    layouts.picture(raw / "MR" / "22" / "T2SPIR" / "Ground" / "IMG-0001-00002.png", np.full((6, 6), 7, np.uint8))
    (tmp_path / "out" / "22_t2.nii.gz").unlink()
    with pytest.raises(CasesFailed, match="IMG-0001-00002.png has the values 7; expected 0, 63, 126, 189, 252"):
        chaos.prepare(raw, tmp_path / "out")
    next((raw / "MR" / "20" / "T2SPIR" / "Ground").glob("*.png")).unlink()
    (tmp_path / "out" / "20_t2.nii.gz").unlink()
    with pytest.raises(
        CasesFailed, match="2 of 2 files .*20_t2.* expected one series of 3 slices.*; also 22_t2.nii.gz. Fix"
    ):
        chaos.prepare(raw, tmp_path / "out")
    shutil.rmtree(raw / "MR" / "2" / "T1DUAL" / "DICOM_anon" / "OutPhase")
    with pytest.raises(DataError, match="4 of 4 subjects .* files in MR/2/T1DUAL/DICOM_anon/OutPhase. Unpack"):
        chaos.prepare(raw, tmp_path / "out")
    with pytest.raises(DataError, match=f"0 of 4 subjects .*Did you mean {raw}"):
        chaos.prepare(raw.parent, tmp_path / "out")
    with pytest.raises(ConfigError, match="no modality 'PET'; use MR or CT"):
        chaos.prepare(raw, tmp_path / "out", modality="PET")


@pytest.mark.parametrize(
    ("place", "said"), [(6.0, "are at one position"), (10.0, "4.00 mm between .* 3.00 mm elsewhere")]
)
def test_uneven_slices_are_refused(tmp_path: Path, place: float, said: str) -> None:
    layouts.dicom(tmp_path, np.zeros((4, 6, 6), np.int16), (1.5, 1.5, 3.0), places=(0, 3, 6, place))
    with pytest.raises(DataError, match=said) as error:
        find_series(tmp_path).stack  # noqa: B018
    assert "Secret" not in str(error.value)


def test_the_labelled_frames_of_mnms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.mnms(tmp_path / "raw", monkeypatch)
    path = mnms.prepare(raw, tmp_path / "out")
    assert counts(path) == {"training": 12, "validation": 2, "test": 4}
    cases = {case.id: case for cases in read_datalist(path).sections.values() for case in cases}
    assert [cases[f"A0S9V9_{i}"].own["phase"] for i in (0, 1)] == ["ED", "ES"]
    assert [cases[f"A1D0Q7_{i}"].own["phase"] for i in (0, 1)] == ["ES", "ED"]
    assert cases["A0S9V9_0"].subject == "A0S9V9" and cases["A0S9V9_0"].own["vendor"] == "Siemens"
    assert cases["A0S9V9_0"].fold == cases["A0S9V9_1"].fold
    mnms.prepare(raw, tmp_path / "whole", isotropic=False, crop=False)
    for index, frame in ((0, 1), (1, 3)):
        np.testing.assert_array_equal(read(tmp_path / "whole" / f"A2H5K9_{index}.nii.gz"), layouts.IMAGE + 1000 * frame)
        assert read(tmp_path / "out" / f"A2H5K9_{index}_gt.nii.gz").max() == frame
    (table,) = raw.glob("*.csv")
    table.write_text("Code,ED\nA0S9V9,1\n")
    with pytest.raises(DataError, match="is not the table of M&Ms .* take it away: it is not needed"):
        mnms.prepare(raw, tmp_path / "out")
    table.unlink()
    one = np.zeros((4, 4, 6, 6), np.uint8)
    one[2] = LABEL
    volume(raw / "Testing" / "A1K2P5" / "A1K2P5_sa_gt.nii.gz", one, (1.5, 1.5, 1.5, 1.0))
    (tmp_path / "out" / "A1K2P5_0.nii.gz").unlink()
    with pytest.raises(CasesFailed, match=r"A1K2P5_sa_gt.nii.gz has labels in 1 frames \(2\); expected two"):
        mnms.prepare(raw, tmp_path / "out")
    shutil.rmtree(raw / "Validation" / "A2H5K9")
    with pytest.raises(DataError, match="Validation has 0 of 1 subjects. Unpack"):
        mnms.prepare(raw, tmp_path / "out")


def test_brain_structures_need_every_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.brain_structure(tmp_path / "raw", monkeypatch)
    path = brain_structure.prepare(raw, tmp_path / "out")
    assert counts(path) == {"training": 6, "validation": 1, "test": 2}
    label = read(tmp_path / "out" / "dlbs_0028420_gt.nii.gz")
    np.testing.assert_array_equal(label[1, :, 0], [1, 1, 2, 2, 3, 3])
    assert not label[0].any()
    (raw / "valid" / "mask" / "dlbs_0028410_probmask_csf.nii").unlink()
    with pytest.raises(DataError, match="1 of 27 files .* valid/mask/dlbs_0028410_probmask_csf.nii. Unpack"):
        brain_structure.prepare(raw, tmp_path / "out")


def test_the_forms_of_autopet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.autopet(tmp_path / "raw", monkeypatch)
    spacings = {}
    for form in ("isotropic", "published"):
        path = autopet.prepare(raw, tmp_path / form, form=form)
        spacings[form] = sitk.ReadImage(str(tmp_path / form / "PETCT_0011f3deaf_1.nii.gz")).GetSpacing()
    assert spacings["isotropic"] == pytest.approx((1.5, 1.5, 1.5))
    assert spacings["published"] == pytest.approx((1.5, 1.5, 3.0))
    cases = read_datalist(path).sections["training"]
    assert [case.subject for case in cases].count("PETCT_0011f3deaf") == 2 and len(cases) == 4
    assert not read(tmp_path / "published" / "PETCT_0117d7f11f_0_gt.nii.gz").any()
    assert "2003" not in path.read_text()
    native = read_datalist(autopet.prepare(raw, tmp_path / "native", form="native"))
    assert native.channels == ("PET SUV", "CT")
    assert Path(native.sections["training"][0].images[1]).resolve().name == "CTres.nii.gz"
    assert "2003" not in native.path.read_text()
    with pytest.raises(ConfigError, match="no form 'ct'; use isotropic, published, native"):
        autopet.prepare(raw, tmp_path / "out", form="ct")
    next(raw.rglob("PETCT_01140d52d8/*/SEG.nii.gz")).unlink()
    with pytest.raises(DataError, match="3 of 4 studies of AutoPET; missing are PETCT_01140d52d8_0: SEG.nii.gz. Down"):
        autopet.prepare(raw, tmp_path / "out")
    assert counts(autopet.prepare(raw, tmp_path / "out", partial=True))["training"] == 3


def test_amos_and_btcv_for_hermes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.few_amos(tmp_path / "amos22", monkeypatch)
    for kind, name, highest in (("ct", "98", 14), ("mr", "518", 1)):
        path = amos.prepare(raw, tmp_path / kind, split=f"hermes_{kind}")
        assert (path.name, counts(path)) == (f"amos_{kind}.json", {"training": 1, "validation": 1, "test": 1})
        assert read(tmp_path / kind / f"{name}_gt.nii.gz").max() == highest
    (raw / "labelsTr" / "amos_0507.nii.gz").unlink()
    with pytest.raises(DataError, match="1 of 12 files are missing: labelsTr/amos_0507"):
        amos.prepare(raw, tmp_path / "mr", split="hermes_mr")
    raw = layouts.btcv(tmp_path / "RawData", monkeypatch)
    path = btcv.prepare(raw, tmp_path / "bcv", split="hermes")
    assert counts(path) == {"training": 23, "validation": 1, "test": 6}
    with pytest.raises(ConfigError, match="no split '24'; use published or hermes"):
        btcv.prepare(raw, tmp_path / "bcv", split="24")


def test_a_decathlon_task_at_one_spacing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = layouts.msd(tmp_path / "raw" / "Task07_Tiny", monkeypatch)
    path = msd.prepare(raw, tmp_path / "out", isotropic=True)
    assert counts(path) == {"training": 7, "validation": 0, "test": 0} and len(read_datalist(path).folds()) == 5
    assert read(tmp_path / "out" / "tiny_003.nii.gz").shape == (5, 5, 5)
    with pytest.raises(DataError, match=f"has no dataset.json.* Did you mean {raw}"):
        msd.prepare(raw.parent, tmp_path / "out")
    table = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps(table | {"modality": {"0": "T2", "1": "ADC"}}))
    with pytest.raises(DataError, match="has the channels T2, ADC; --isotropic takes tasks with one"):
        msd.prepare(raw, tmp_path / "out", isotropic=True)


# ---------------------------------------------------------------------- the ready lists
@pytest.mark.parametrize(
    ("name", "validation", "test"),
    [
        ("lits", lits.VALIDATION, lits.TEST),
        ("kits", kits19.VALIDATION, kits19.TEST),
        ("structseg_head_oar", structseg.PARTS["head"].validation, structseg.PARTS["head"].test),
        ("structseg_oar", structseg.PARTS["thorax"].validation, structseg.PARTS["thorax"].test),
        ("chaos", chaos.VALIDATION, chaos.TEST),
        ("bcv", btcv.HERMES["validation"], btcv.HERMES["test"]),
        ("amos_ct", *amos.HERMES["CT"].values()),
        ("amos_mr", *amos.HERMES["MR"].values()),
    ],
)
def test_sections_are_those_of_the_ready_list(name: str, validation: tuple[int, ...], test: tuple[int, ...]) -> None:
    table = json.loads((LISTS / f"{name}.json").read_text())
    for key, numbers in (("validation", validation), ("test", test)):
        listed = {int(str(case.get("subject", case["case_id"])).removeprefix("img")) for case in table[key]}
        assert listed == {*numbers}


@pytest.mark.parametrize(
    ("dataset", "name", "case"),
    [
        ("autopet", "autopet", "PETCT_0011f3deaf_0"),
        ("brain_structure", "brain_structure", None),
        ("mnms", "mnm", "A0S9V9_1"),
        ("chaos", "chaos", "20_t1_out"),
        ("structseg", "structseg_head_oar", "1"),
    ],
)
def test_the_ready_list_fits_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, name: str, case: str | None
) -> None:
    """Names of files that are made are those that the lists of Hermes expect."""
    datalist = read_datalist(LISTS / f"{name}.json", tmp_path)
    cases = {case.id: case for cases in datalist.sections.values() for case in cases}
    made = read_datalist(
        dataset_module(dataset).prepare(layouts.LAYOUTS[dataset](tmp_path / "raw", monkeypatch), tmp_path)
    )
    found = {case.id: case for cases in made.sections.values() for case in cases}
    shared = [case] if case else [name for name in found if name in cases]
    for case_id in shared:
        assert found[case_id].files == cases[case_id].files
        assert found[case_id].modality == cases[case_id].modality
        assert found[case_id].subject == cases[case_id].subject
    assert shared


# ---------------------------------------------------------------------- Pancreas-CT
def test_labels_of_pancreas_ct_lie_on_their_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way the slices are numbered; the labels' own headers say nothing."""
    raw, out = layouts.tcia_pancreas(tmp_path / "raw", monkeypatch), tmp_path / "out"
    datalist = tcia_pancreas.prepare(raw, out, num_folds=3)
    assert counts(datalist)["training"] == 6
    for number in (1, 2):
        image, label = (sitk.ReadImage(str(out / f"PANCREAS_000{number}{kind}.nii.gz")) for kind in ("", "_gt"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), layouts.IMAGE - 1000)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(label), layouts.PANCREAS)
        assert label.GetOrigin() == image.GetOrigin() and image.GetSpacing() == pytest.approx((0.75, 0.75, 1.0))
    assert not list(out.glob("PANCREAS_0006*"))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda case: layouts.dicom(case / "other", layouts.IMAGE, (1, 1, 1)), "hold slices of one case"),
        (lambda case: next(case.rglob("*00002.dcm")).unlink(), "expected one series of 4 slices"),
        (lambda case: layouts.dicom(next(case.glob("*/*")), IMAGE_WIDE, (1, 1, 1), prefix="1"), "8, 6, 4"),
        (lambda case: layouts.dicom(next(case.glob("*/*")), layouts.IMAGE, (1, 1, 1), prefix="1", places=MIXED), "run"),
    ],
)
def test_a_spoiled_case_of_pancreas_ct_is_refused(tmp_path, monkeypatch, spoil, sentence) -> None:
    raw = layouts.tcia_pancreas(tmp_path / "raw", monkeypatch)
    spoil(raw / "manifest" / "Pancreas-CT" / "PANCREAS_0003")
    with pytest.raises(CasesFailed, match=sentence):
        tcia_pancreas.prepare(raw, tmp_path / "out")
    assert (tmp_path / "out" / "PANCREAS_0004.nii.gz").is_file()

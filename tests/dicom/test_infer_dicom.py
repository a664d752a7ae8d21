"""From DICOM to DICOM: a run that was trained on series and drawn labels segments further series on their voxels."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK
from pydicom.data import get_testdata_file
from synthetic_dicom import PATIENT, STUDY, read, turned, uid, write_enhanced, write_series

import medseg
from medseg.cli import main
from medseg.data import read_datalist
from medseg.data.files import read_volume
from medseg.dicom.algorithm import Algorithm
from medseg.dicom.labels import label_names, read_label_map
from medseg.dicom.series import Series, choose, find_series, scan
from medseg.dicom.write import write_dicom
from medseg.errors import ConfigError
from medseg.labels import LabelSpace

SHAPE = (24, 28, 10)
TABLE = {"background": 0, "liver": 1, "left kidney": 2}
NET = {"channels": "[8,16]", "strides": "[2]", "num_res_units": 0}
SCOUT = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
ALGORITHM = Algorithm("net", "1.0", "ab" * 32)
TILT = {"axes": turned(15), "step": np.array((0, 0, 1 / np.cos(np.deg2rad(15))))}


def organs(shift: int = 0) -> np.ndarray:
    """Labels (columns, rows, slices): a liver with a hole and an island in it, and a kidney."""
    x, y, z = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    made = np.zeros(SHAPE, int)
    made[((x - 9) ** 2 + (y - 11 - shift) ** 2 < 64) & (z > 1) & (z < 8)] = 1
    made[((x - 9) ** 2 + (y - 11 - shift) ** 2 < 9) & (z > 2) & (z < 7)] = 0
    made[9, 11 + shift, 4] = 1
    made[(x > 18) & (y > 4) & (y < 15) & (z > 2)] = 2
    return made


def voxels(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Even numbers, as the enhanced CT holds."""
    noise = np.random.default_rng(seed).normal(0, 15, labels.shape)
    return (np.array((-500, 100, 600))[labels] + noise).astype(int) // 2 * 2


def draw(folder: Path, labels: np.ndarray, name: str) -> None:
    """Labels of the series that a folder holds, as a file beside it."""
    (series,) = choose([folder]).series
    image = nibabel.Nifti1Image(labels.astype(np.int32), series.stack.affine)
    write_dicom(image, LabelSpace.from_table(TABLE), Path(series.path), folder.parent / name, ALGORITHM)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients' folders with a series, a localiser and what is drawn on it."""
    root = tmp_path_factory.mktemp("raw")
    for number in range(4):
        folder = root / f"{PATIENT}{number}"
        labels, study = organs(number), uid(number)
        write_series(folder / "ct", voxels(labels, number), study=study, tags={"PatientID": f"{PATIENT}{number // 2}"})
        write_series(folder / "scout", voxels(labels)[..., :1], study=study, series="scout", tags=SCOUT)
        draw(folder / "ct", labels, "x.seg.dcm" if number % 2 else "x.rtstruct.dcm")
    return root


@pytest.fixture(scope="module")
def run(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on the DICOM of ``raw``, by the command line."""
    root = tmp_path_factory.mktemp("run")
    assert main(["datalist", str(raw), "--output", str(root / "list.json")]) == 0
    network = ["--network", "UNet", *(f"--set=network_def::{k}={v}" for k, v in NET.items())]
    where = ["--json_list", str(root / "list.json"), "--output", str(root / "run"), "--device", "cpu"]
    assert main(["check", "--json_list", str(root / "list.json")]) == 0
    assert main(["train", *network, *where, "--epochs", "3", "--set", "repeats=8", "--set", "cache=cache"]) == 0
    return root / "run"


KINDS: dict[str, Callable[[Path], object]] = {
    "axial": lambda folder: write_series(folder, voxels(organs(2), 9)),
    "oblique": lambda folder: write_series(folder, voxels(organs(2), 9), axes=turned(20) @ turned(10, 2)),
    "tilted": lambda folder: write_series(folder, voxels(organs(2), 9), **TILT),
    "multi-frame": lambda folder: write_enhanced(folder / "all.dcm", voxels(organs(2), 9)),
    "two series and a localiser": lambda folder: (
        write_series(folder / "a", voxels(organs(2), 9)),
        write_series(folder / "b", voxels(organs(2), 9)[..., ::2], series="thick", spacing=(1, 1, 4)),
        write_series(folder, voxels(organs(2))[..., :1], series="s", tags=SCOUT),
    ),
}


def drawn(path: Path, series: Series) -> np.ndarray:
    (item,) = scan(path).labels
    assert item.series == {series.uid} and label_names(item) == ["liver", "left kidney"]
    return read_label_map(item, series, {"liver": 1, "left kidney": 2})[0]


def sound(path: Path) -> None:
    """By dicom3tools, where it is installed."""
    if shutil.which("dciodvfy"):
        said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        assert not [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("kind", KINDS)
def test_from_dicom_to_dicom(kind: str, run: Path, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / "in")
    (series,) = choose([tmp_path / "in"]).series
    made: dict[str, np.ndarray] = {}
    for form in ("nifti", "dicom-seg", "rtstruct"):
        assert medseg.predict(run, tmp_path / form, inputs=[tmp_path / "in"], format=form, device="cpu")
    volume = read_volume(tmp_path / "nifti" / f"{series.name}.nii.gz", mask=True)
    np.testing.assert_allclose(volume.affine, series.stack.affine, atol=1e-4)
    made["nifti"] = volume.channels[0]
    for form, suffix in (("dicom-seg", "seg"), ("rtstruct", "rtstruct")):
        path = tmp_path / form / f"{series.name}.{suffix}.dcm"
        sound(path)
        made[form] = drawn(path, series)
    truth = series.stack.label_map(organs(2).transpose(2, 1, 0))
    assert {0, 1} <= set(np.unique(made["nifti"])) and (made["nifti"] == truth).mean() > 0.8
    # outside of the tilted slices, which the volume alone has, nothing can be drawn
    kept = series.stack.label_map(series.stack.on_slices(made["nifti"]))
    np.testing.assert_array_equal(made["dicom-seg"], kept)
    np.testing.assert_array_equal(made["rtstruct"], kept)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["seg", "rtstruct"])
def test_what_is_drawn_comes_back(kind: str, form: str, tmp_path: Path) -> None:
    """Labels with holes, islands and single voxels at borders and corners."""
    KINDS[kind](tmp_path / "in")
    (series,) = choose([tmp_path / "in"]).series
    slices = organs().transpose(2, 1, 0).copy()
    slices[0, 0, 0] = slices[0, 1, 1] = slices[9, -1, -1] = 1
    slices[5, ::2, ::2] = 2
    labels = series.stack.label_map(slices)
    image = nibabel.Nifti1Image(labels.astype(np.int32), series.stack.affine)
    path = tmp_path / f"x.{form}.dcm"
    write_dicom(image, LabelSpace.from_table(TABLE), tmp_path / "in", path, ALGORITHM)
    np.testing.assert_array_equal(drawn(path, series), labels)
    sound(path)
    if form == "seg" and kind != "multi-frame":  # as highdicom reads it, slice by slice of the source
        uids = [read(frame.source.path).SOPInstanceUID for frame in series.stack.frames]
        pixels = highdicom.seg.segread(path).get_pixels_by_source_instance(
            uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        np.testing.assert_array_equal(pixels, slices)


@pytest.mark.parametrize("name", ["CT_small", "MR_small", "98892001/CT5N"])
def test_drawn_on_files_of_pydicoms_own_package(name: str, tmp_path: Path) -> None:
    """Whose headers lack much of what the standard wants."""
    if "/" in name:
        shutil.copytree(Path(str(get_testdata_file("DICOMDIR"))).parent / name, tmp_path / "in")
    else:
        (tmp_path / "in").mkdir()
        shutil.copy(str(get_testdata_file(f"{name}.dcm")), tmp_path / "in")
    (series,) = choose([tmp_path / "in"]).series
    labels = np.random.default_rng(0).integers(0, 3, series.stack.shape)
    image = nibabel.Nifti1Image(labels.astype(np.int32), series.stack.affine)
    for form in ("seg", "rtstruct"):
        path = tmp_path / f"x.{form}.dcm"
        write_dicom(image, LabelSpace.from_table(TABLE), Path(series.path), path, ALGORITHM)
        np.testing.assert_array_equal(drawn(path, series), labels)


def test_the_datalist_of_dicom(raw: Path, run: Path) -> None:
    datalist = read_datalist(run.parent / "list.json")
    cases = datalist.sections["training"]
    assert len(cases) == 4 and datalist.channels == ("CT",) and datalist.label_space.labels == ("liver", "left kidney")
    assert {case.subject for case in cases} == {"subject_001", "subject_002"}
    for case in cases:
        series = find_series(case.images[0])
        assert case.id == series.name
        number = int(series.container.parent.name[-1])
        np.testing.assert_array_equal(read_volume(str(case.label), mask=True).channels[0], organs(number))
    assert main(["validate", "--run", str(run)]) == 0


def test_no_patient_is_named(raw: Path, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "medseg")
    assert main(["infer", "--run", str(run), "--output", str(tmp_path / "out"), "--device", "cpu", str(raw)]) == 0
    assert main(["report", "--run", str(run)]) == 0
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "localiser (see --series)" in said and len(list((tmp_path / "out").glob("CT_*.nii.gz"))) == 4
    assert PATIENT not in said.replace(str(raw), "")
    for path in [*run.rglob("*"), *(tmp_path / "out").rglob("*"), run.parent / "list.json"]:
        assert PATIENT not in path.name
        if path.is_file() and path.name not in ("list.json", "datalist.json"):  # which name the folders
            content = path.read_bytes()
            assert not any(text.encode() in content for text in (PATIENT, "19500102", STUDY))


def test_no_patient_is_named_in_failures(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "medseg")
    for number in range(3):
        folder = tmp_path / "in" / f"{PATIENT}{number}"
        files = write_series(folder, voxels(organs(2), 9), study=uid("failing", number))
        if number == 0:
            files[4].unlink()
        if number == 1:
            files[4].write_bytes(files[4].read_bytes()[:-100])
    with pytest.raises(medseg.errors.CasesFailed) as error:
        medseg.predict(run, tmp_path / "out", inputs=[tmp_path / "in"], device="cpu")
    said = "\n".join([str(error.value), *(record.getMessage() for record in caplog.records)])
    said += (tmp_path / "out" / "failures.json").read_text()
    assert "4.00 mm between slices 4 and 6" in said and "the pixels of slice 5 cannot be read" in said
    assert PATIENT not in said and STUDY not in said


def test_folders_and_archives_beside_label_files(raw: Path, tmp_path: Path) -> None:
    """Images are DICOM, labels NIfTI of their names."""
    for number in range(2):
        name, source = f"case{number}", raw / f"{PATIENT}{number}" / "ct"
        if number:
            shutil.make_archive(str(tmp_path / "images" / name), "zip", source)
        else:
            shutil.copytree(source, tmp_path / "images" / name)
        (tmp_path / "labels").mkdir(exist_ok=True)
        label = nibabel.Nifti1Image(organs(number).astype(np.uint8), find_series(source).stack.affine)
        nibabel.save(label, tmp_path / "labels" / f"{name}.nii.gz")
    arguments = ["datalist", str(tmp_path), "--output", str(tmp_path / "list.json"), "--modality", "CT"]
    assert main(arguments) == 0
    assert [case.id for case in read_datalist(tmp_path / "list.json").sections["training"]] == ["case0", "case1"]
    assert main(["check", "--json_list", str(tmp_path / "list.json")]) == 0


def test_case_ids_by_the_users_pattern(raw: Path, run: Path, tmp_path: Path) -> None:
    pattern = r"(\d)/ct"
    assert main(["datalist", str(raw), "--output", str(tmp_path / "list.json"), "--case_pattern", pattern]) == 0
    assert {case.id for case in read_datalist(tmp_path / "list.json").sections["training"]} == set("0123")
    made = medseg.predict(run, tmp_path / "out", inputs=[raw], case_pattern=pattern, device="cpu")
    assert sorted(path.name for path in made) == [f"{n}.nii.gz" for n in range(4)]


def test_what_the_dicom_seg_says(run: Path, tmp_path: Path) -> None:
    write_series(tmp_path / "in", voxels(organs(2), 9))
    (path,) = medseg.predict(run, tmp_path / "out", inputs=[tmp_path / "in"], format="dicom-seg", device="cpu")
    header = read(path)
    liver, kidney = header.SegmentSequence
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeValue == "64033007"
    modifier = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (modifier.CodeValue, modifier.CodeMeaning) == ("7771000", "Left")
    algorithm = liver.SegmentationAlgorithmIdentificationSequence[0]
    record = json.loads(next((tmp_path / "out" / "provenance" / "origins").iterdir()).read_text())
    assert algorithm.AlgorithmName == "run" and algorithm.AlgorithmVersion == medseg.__version__
    assert record["weights"][0] in str(algorithm.AlgorithmParameters)
    assert header.PatientName == PATIENT and header.StudyInstanceUID == STUDY  # of the source, as archives want


def test_codes_of_the_label_table() -> None:
    from medseg.dicom.segment import segments_of

    space = LabelSpace.from_table(
        {"labels": {"background": 0, "spleen": 1, "tumour": 2, "thing": 3, "x": 4}, "codes": {"x": "6574001"}}
    )
    assert LabelSpace.from_table(space.to_table()) == space
    kinds = {segment.name: (segment.category.value, segment.kind.value) for segment in segments_of(space)}
    assert kinds == {
        "spleen": ("91723000", "78961009"),
        "tumour": ("49755003", "108369006"),
        "thing": ("91723000", "91723000"),
        "x": ("91723000", "6574001"),
    }
    with pytest.raises(medseg.errors.DataError, match="Code '12' of 'splen'.*Did you mean 'spleen'"):
        LabelSpace.from_table({"labels": {"background": 0, "spleen": 1}, "codes": {"splen": "12"}})


def test_nrrd_and_slicers_own(run: Path, tmp_path: Path) -> None:
    write_series(tmp_path / "in", voxels(organs(2), 9), axes=turned(20))
    files = {}
    for form in ("nifti", "nrrd", "seg.nrrd"):
        (files[form],) = medseg.predict(run, tmp_path / form, inputs=[tmp_path / "in"], format=form, device="cpu")
    plain = read_volume(files["nifti"], mask=True)
    for form in ("nrrd", "seg.nrrd"):
        volume = read_volume(files[form], mask=True)
        np.testing.assert_array_equal(volume.channels[0], plain.channels[0])
        np.testing.assert_allclose(volume.affine, plain.affine, atol=1e-4)
    image = SimpleITK.ReadImage(str(files["seg.nrrd"]))
    assert [image.GetMetaData(f"Segment{i}_Name") for i in (0, 1)] == ["liver", "left kidney"]
    assert [image.GetMetaData(f"Segment{i}_LabelValue") for i in (0, 1)] == ["1", "2"]
    # the default is the input's own format
    (made,) = medseg.predict(run, tmp_path / "same", inputs=[files["nrrd"]], device="cpu")
    assert made.name.endswith(".nrrd")


def test_a_reference_for_images_of_other_formats(run: Path, raw: Path, tmp_path: Path) -> None:
    """NIfTI that was made from a series, its axes in another order."""
    (series,) = choose([next(raw.iterdir()) / "ct"]).series
    volume = read_volume(series.path)
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.channels[0], volume.affine))
    nibabel.save(image, tmp_path / "a.nii.gz")
    options = {"inputs": [tmp_path / "a.nii.gz"], "device": "cpu"}
    (plain,) = medseg.predict(run, tmp_path / "plain", **options)
    (made,) = medseg.predict(run, tmp_path / "seg", format="dicom-seg", dicom_reference=raw, **options)
    found = nibabel.as_closest_canonical(nibabel.Nifti1Image(drawn(made, series), series.stack.affine))
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(nibabel.load(plain).dataobj))
    nibabel.save(nibabel.Nifti1Image(volume.channels[0][:20], volume.affine), tmp_path / "b.nii.gz")
    with pytest.raises(medseg.errors.CasesFailed, match="no series in .* has the grid of the image .20×28×10 voxels"):
        medseg.predict(run, tmp_path / "b", inputs=[tmp_path / "b.nii.gz"], format="rtstruct", dicom_reference=raw)


def test_dicom_without_its_source_is_refused(run: Path, raw: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels(organs()).astype(np.int16), np.eye(4)), image)
    said = "needs the source DICOM folder, and a is not DICOM: name it with --dicom_reference DIR"
    with pytest.raises(ConfigError, match=said):
        medseg.predict(run, tmp_path / "out", inputs=[image], format="dicom-seg")
    with pytest.raises(ConfigError, match="--dicom_reference is for --format dicom-seg and rtstruct"):
        medseg.predict(run, tmp_path / "out", inputs=[image], dicom_reference=raw)
    with pytest.raises(ConfigError, match="--dicom_reference .*none not found"):
        medseg.predict(run, tmp_path / "out", inputs=[image], format="rtstruct", dicom_reference=tmp_path / "none")
    with pytest.raises(ConfigError, match="--series and --case_pattern are for folders"):
        medseg.predict(run, tmp_path / "out", json_list=run / "configs" / "datalist.json", series="all")
    assert not (tmp_path / "out").exists()


def test_python_takes_a_folder_and_a_zip(run: Path, tmp_path: Path) -> None:
    write_series(tmp_path / "in", voxels(organs(2), 9))
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "in")
    loaded = medseg.load(run)
    first, second = (loaded.predict(path) for path in (tmp_path / "in", archive))
    np.testing.assert_array_equal(first.get_fdata(), second.get_fdata())
    np.testing.assert_allclose(first.affine, find_series(tmp_path / "in").stack.affine, atol=1e-4)

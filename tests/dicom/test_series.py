"""Series are found, grouped, chosen and read: each voxel lies and has the value that the headers say."""

from __future__ import annotations

import locale
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.data import get_testdata_file
from pydicom.uid import JPEGLosslessSV1
from synthetic_dicom import PATIENT, pet_tags, turned, write_enhanced, write_series

from medseg.data.content import content_hash
from medseg.data.files import Volume, read_grid, read_volume
from medseg.dicom.series import Series, choose, find_series
from medseg.errors import DataError

SHAPE = (20, 24, 9)
VOXELS = np.random.default_rng(0).integers(-1000, 1000, SHAPE)
SCOUT = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
EVEN = VOXELS // 2 * 2  # of every slope that the enhanced one has


def names(chosen: list[Series]) -> list[str]:
    return [series.description.split()[0] for series in chosen]


@pytest.mark.parametrize("axes", [np.eye(3), turned(20) @ turned(10, 2), turned(90), turned(90, 1)])
def test_slices_lie_where_their_headers_say(axes: np.ndarray, tmp_path: Path) -> None:
    write_series(tmp_path, VOXELS, axes=axes, spacing=(0.7, 0.9, 2.5))
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.channels[0], VOXELS)
    assert volume.channels[0].dtype == np.int16
    place = np.array((-10, 20, 5)) + axes @ (3 * 0.7, 4 * 0.9, 5 * 2.5)
    np.testing.assert_allclose((volume.affine @ (3, 4, 5, 1))[:3], place * (-1, -1, 1), atol=1e-4)
    grid = read_grid(tmp_path)
    assert grid.shape == SHAPE and np.array_equal(grid.affine, volume.affine)


def test_a_tilted_gantry_is_put_upright(tmp_path: Path) -> None:
    """Of intensities that are linear in space, every voxel of the volume has that of its place."""
    axes, step = turned(-18), np.array((0, 0, 1 / np.cos(np.deg2rad(18))))
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    slope = np.array((7.0, 11.0, -13.0))  # per mm, LPS
    places = np.array((-10, 20, 5)) + index[..., :2] @ axes[:, :2].T + 3 * index[..., 2:] * step
    write_series(tmp_path, np.rint(places @ slope).astype(int), axes=axes, step=step, spacing=(1, 1, 3))
    volume = read_volume(tmp_path)
    stack = find_series(tmp_path).stack
    assert volume.shape[0] == SHAPE[0] and volume.shape[1] > SHAPE[1]
    inside = stack.label_map(np.pad(np.ones((9, 20, 16)), ((0, 0), (2, 2), (2, 2)))) > 0
    where = np.argwhere(inside)
    ras = where @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    np.testing.assert_allclose(volume.channels[0][inside], ras * (-1, -1, 1) @ slope, atol=1.0)
    labels = np.random.default_rng(1).integers(0, 3, (9, 24, 20))
    np.testing.assert_array_equal(stack.on_slices(stack.label_map(labels)), labels)


def test_an_enhanced_ct(tmp_path: Path) -> None:
    """Frames out of order, with rescalings of their own."""
    write_enhanced(tmp_path / "a.dcm", EVEN, axes=turned(20))
    np.testing.assert_array_equal(read_volume(tmp_path).channels[0], EVEN)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.dcm").channels[0], EVEN)


def test_rescaling_per_slice(tmp_path: Path) -> None:
    scales = [(1.0 + index % 3, -1000.0 + index) for index in range(SHAPE[2])]
    stored = VOXELS % 500
    values = np.stack([stored[..., k] * scales[k][0] + scales[k][1] for k in range(SHAPE[2])], axis=-1)
    write_series(tmp_path, values, scales=scales)
    np.testing.assert_array_equal(read_volume(tmp_path).channels[0], values)
    write_series(tmp_path / "half", VOXELS // 2 * 0.5, scales=[(0.5, 0)] * SHAPE[2])
    half = read_volume(tmp_path / "half").channels[0]
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, VOXELS // 2 * 0.5)


@pytest.mark.parametrize("change", [{}, {"DecayCorrection": "ADMIN"}, {"Units": "GML"}])
def test_pet_becomes_suv(change: dict[str, str], tmp_path: Path) -> None:
    write_series(tmp_path, VOXELS + 1000, modality="PT", tags=pet_tags(**change))
    decayed = 1e8 * (1 if change else 2 ** (-3600 / 6586.2))
    factor = 1 if "Units" in change else 70 * 1000 / decayed
    np.testing.assert_allclose(read_volume(tmp_path).channels[0], (VOXELS + 1000) * factor, rtol=1e-6)


def test_pet_over_midnight(tmp_path: Path) -> None:
    tags = pet_tags() | {"SeriesTime": "003000", "AcquisitionTime": "003000"}
    tags["RadiopharmaceuticalInformationSequence"][0].RadiopharmaceuticalStartTime = "233000"
    write_series(tmp_path, VOXELS + 1000, modality="PT", tags=tags)
    factor = 70 * 1000 / (1e8 * 2 ** (-3600 / 6586.2))
    np.testing.assert_allclose(read_volume(tmp_path).channels[0], (VOXELS + 1000) * factor, rtol=1e-6)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two volumes, a localiser in a series of its own and one within a volume's, and a derived volume."""
    folder = tmp_path / PATIENT
    write_series(folder / "a" / "thin", VOXELS, series="thin")
    write_series(folder / "b", VOXELS[..., ::2], series="thick", spacing=(1, 1, 4))
    write_series(folder / "a", VOXELS[..., :1], series="scout", tags=SCOUT)
    write_series(folder / "a" / "thin", VOXELS[..., :1], series="thin", axes=turned(90), first=50)
    write_series(folder / "mip", VOXELS, series="mip", tags={"ImageType": ["DERIVED", "SECONDARY", "MIP"]})
    (folder / "notes.txt").write_text("nothing")
    return folder


def test_the_choice_among_series(study: Path) -> None:
    chosen = choose([study])
    assert names(chosen.series) == ["thin"] and len(chosen.series[0].frames) == SHAPE[2]
    said = " ".join(chosen.notes)
    assert [said.count(word) for word in ("localiser", "derived", "too few", "fewer or as many")] == [1, 1, 1, 1]
    assert PATIENT not in said and "thin" not in said
    assert sorted(names(choose([study], "all").series)) == ["thick", "thin"]
    thick = choose([study], "thick*").series[0]
    for wanted in (thick.name, thick.uid, thick.number, "THICK desc*"):
        assert names(choose([study], wanted).series) == ["thick"]
    with pytest.raises(DataError, match="no DICOM series is 'T2'. It holds .*CT_.*Name one of these"):
        choose([study], "T2")
    assert names(choose([study / "mip"]).series) == ["mip"]
    assert "is derived: no original volume is there" in choose([study / "mip"]).warnings[0]


def test_a_name_stands_for_its_series(study: Path) -> None:
    for series in choose([study], "all").series:
        assert PATIENT not in Path(series.path).name
        assert find_series(series.path).name == series.name == Path(series.path).stem
        assert series.container.name == {"thin": "thin", "thick": "b"}[names([series])[0]]
    assert names([find_series(study / "b" / "s002.dcm")]) == ["thick"]  # a slice stands for its series


def test_what_changes_is_noticed(study: Path) -> None:
    path = choose([study], "thick*").series[0].path
    before = content_hash(path)
    assert content_hash(path) == before
    (study / "b" / "s002.dcm").unlink()
    assert content_hash(path) != before
    assert len(find_series(path).frames) == 4


def test_a_zip_archive(study: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "case"), "zip", study))
    (series,) = choose([archive]).series
    assert Path(series.path).parent == archive
    np.testing.assert_array_equal(read_volume(series.path).channels[0], VOXELS)
    np.testing.assert_array_equal(read_volume(archive).channels[0], VOXELS)
    assert content_hash(series.path) != content_hash(choose([archive], "thick*").series[0].path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([PATIENT, "case.zip"])  # nothing is unpacked
    shutil.rmtree(study)
    assert choose([tmp_path]).series[0].path == series.path  # an archive in a folder


def test_echoes_at_one_place_are_two_volumes(tmp_path: Path) -> None:
    for echo in (1, 2):
        write_series(tmp_path, VOXELS * echo, modality="MR", first=100 * echo, tags={"EchoNumbers": echo})
    found = choose([tmp_path], "all").series
    assert len(found) == 2 and len({series.name for series in found}) == 2
    assert {int(np.abs(read_volume(series.path).channels[0]).max()) for series in found} == {
        int(np.abs(VOXELS).max()) * echo for echo in (1, 2)
    }


# ---------------------------------------------------------------------- files of pydicom's own package
def _of_package(name: str, folder: Path) -> Volume:
    folder.mkdir(exist_ok=True)
    shutil.copy(str(get_testdata_file(name)), folder)
    return read_volume(folder)


@pytest.mark.parametrize(
    "name",
    ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_bigendian", "MR_small_implicit"],
)
def test_compressions_and_encodings(name: str, tmp_path: Path) -> None:
    plain = _of_package("MR_small.dcm", tmp_path / "plain")
    assert plain.shape == (64, 64, 1)
    other = _of_package(f"{name}.dcm", tmp_path / name)
    np.testing.assert_array_equal(other.channels[0], plain.channels[0])
    np.testing.assert_array_equal(other.affine, plain.affine)


def test_lossless_jpeg(tmp_path: Path) -> None:
    """As archives of hospitals often have it, and pydicom alone cannot decode; also in a zip archive."""
    (file,) = write_series(tmp_path / "plain", VOXELS[..., :1])
    image = SimpleITK.ReadImage(str(file))
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    writer.SetUseCompression(True)
    writer.SetCompressor("JPEG")
    (tmp_path / "packed").mkdir()
    writer.SetFileName(str(tmp_path / "packed" / "a.dcm"))
    language = locale.setlocale(locale.LC_CTYPE)  # which writing turns to "C"
    writer.Execute(SimpleITK.Cast(image, SimpleITK.sitkInt16))
    locale.setlocale(locale.LC_CTYPE, language)
    packed = pydicom.dcmread(tmp_path / "packed" / "a.dcm")
    assert packed.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    np.testing.assert_array_equal(read_volume(tmp_path / "packed").channels[0], VOXELS[..., :1])
    archive = shutil.make_archive(str(tmp_path / "case"), "zip", tmp_path / "packed")
    np.testing.assert_array_equal(read_volume(archive).channels[0], VOXELS[..., :1])


def test_a_ct_of_the_package(tmp_path: Path) -> None:
    volume = _of_package("CT_small.dcm", tmp_path / "ct")
    header = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    values = header.pixel_array.T * float(header.RescaleSlope) + float(header.RescaleIntercept)
    np.testing.assert_array_equal(volume.channels[0][..., 0], values)


def test_the_media_of_the_package() -> None:
    """A DICOMDIR with studies of three patients, localisers and derived images among them."""
    folder = Path(str(get_testdata_file("DICOMDIR"))).parent
    chosen = choose([folder])
    sizes = {(series.modality, series.number): len(series.frames) for series in chosen.series}
    assert sizes["CT", "5"] == 5 and sizes["CT", "2"] == 4
    assert sum("localiser" in note for note in chosen.notes) == 2
    ct = next(series for series in chosen.series if series.number == "5")
    assert read_volume(ct.path).shape == (16, 16, 5)

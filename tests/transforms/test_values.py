"""Training and check see the same numbers of a file, whatever its header says."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from monai.transforms import Compose

from medseg.data.files import Unreadable, read_grid, read_volume
from medseg.errors import DataError
from medseg.faults import unwrapped
from medseg.labels import LabelSpace
from medseg.transforms import load

_STORED = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def scaled(path: Path, slope: float, inter: float, stored: np.ndarray = _STORED, nifti: Any = None) -> Path:
    """A file whose header holds these numbers, whatever nibabel makes of them."""
    cls = nifti or nibabel.Nifti1Image
    nibabel.save(cls(stored, np.eye(4)), path)
    data = bytearray(gzip.decompress(path.read_bytes()))
    where, form = (112, "<2f") if cls is nibabel.Nifti1Image else (176, "<2d")
    struct.pack_into(form, data, where, slope, inter)
    path.write_bytes(gzip.compress(bytes(data)))
    return path


def trained(path: Path, key: str = "image", space: LabelSpace | None = None) -> np.ndarray:
    with unwrapped():
        return Compose(load([key], space))({key: str(path)})[key].numpy()[0]


@pytest.mark.parametrize("nifti", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(
    ("slope", "inter", "factor", "said"),
    [
        (0, 5, 1, "scale factor (scl_slope) is 0; ignored"),
        (np.nan, 0, 1, "scale factor (scl_slope) is nan; ignored"),
        (-np.inf, 0, 1, "scale factor (scl_slope) is -inf; ignored"),
        (1, np.nan, 1, "offset (scl_inter) is nan; ignored"),
        (2, np.inf, 2, "offset (scl_inter) is inf; ignored"),
        (2, 0, 2, ""),
    ],
)
def test_what_cannot_be_a_scale_is_ignored_with_a_word(
    slope: float, inter: float, factor: float, said: str, nifti: Any, tmp_path: Path
) -> None:
    path = scaled(tmp_path / "a.nii.gz", slope, inter, nifti=nifti)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.channels[0], _STORED * factor)
    np.testing.assert_array_equal(trained(path), _STORED * factor)
    assert read_grid(path).shape == _STORED.shape
    assert [said in finding.message and finding.warning for finding in volume.findings] == [True] * bool(said)


def test_numbers_beyond_float32_are_refused(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 4))
    values[1, 2, 3] = -1e302
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(Unreadable, match="voxel values up to -1e\\+302; numbers within"):
        read_volume(tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match="voxel values up to -1e\\+302"):
        trained(tmp_path / "a.nii.gz")
    scaled(tmp_path / "b.nii.gz", 3e38, 0)  # finite in the header, not in the voxels
    with pytest.raises(Unreadable, match="float32"):
        read_volume(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha"])
def test_scaled_labels_are_whole_numbers_everywhere(name: str, tmp_path: Path) -> None:
    label = np.zeros((4, 4, 4), np.uint8)
    label[1:3] = 255
    path = tmp_path / name
    if name.endswith(".mha"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray((label / 255 * 0.99999).T.copy()), str(path))
    else:
        scaled(path, 1 / 255, 0, label)
    volume = read_volume(path, mask=True)
    assert set(np.unique(volume.channels[0])) == {0, 1}
    assert any("are rounded" in note for note in volume.notes)
    space = LabelSpace.from_table({"labels": {"background": 0, "object": 1}})
    np.testing.assert_array_equal(trained(path, "label", space), label > 0)

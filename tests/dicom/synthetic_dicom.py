"""Synthetic DICOM, written with pydicom: axial, oblique and tilted series, enhanced CT, localisers and PET."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

PATIENT = "Secret^Name"  # in every file; must reach no name, log or report
STUDY = "1.2.826.0.1.3680043.8.498.1"
_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}


def turned(degrees: float, axis: int = 0) -> np.ndarray:
    """Axes (3, 3) that are turned about x (0), y (1) or z (2)."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    first, second = [i for i in range(3) if i != axis]
    axes = np.eye(3)
    axes[[first, first, second, second], [first, second, first, second]] = cos, -sin, sin, cos
    return axes


def uid(*names: object) -> str:
    return str(generate_uid(entropy_srcs=[str(name) for name in names]))


def _header(modality: str, series: str, study: str, instance: str, sop_class: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = sop_class, instance
    made.StudyInstanceUID, made.SeriesInstanceUID = study, uid(study, series)
    made.FrameOfReferenceUID = uid(study, "frame")
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = PATIENT, f"ID{PATIENT}", "19500102", "O"
    made.StudyDate = made.SeriesDate = made.AcquisitionDate = made.ContentDate = "20200131"
    made.StudyTime = made.SeriesTime = made.AcquisitionTime = made.ContentTime = "120000"
    made.StudyID, made.AccessionNumber, made.ReferringPhysicianName = "1", "", ""
    made.Modality, made.Manufacturer, made.SeriesNumber = modality, "Synthetic", sum(map(ord, series)) % 100 + 1
    made.SeriesDescription, made.PositionReferenceIndicator = f"{series} description", ""
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 1
    return made


def write_series(
    folder: Path,
    voxels: np.ndarray,
    *,
    axes: np.ndarray | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 2.0),
    origin: Sequence[float] = (-10.0, 20.0, 5.0),
    places: Sequence[Sequence[float]] | None = None,
    step: np.ndarray | None = None,
    modality: str = "CT",
    series: str = "main",
    study: str = STUDY,
    scales: Sequence[tuple[float, float]] | None = None,
    first: int = 1,
    tags: Mapping[str, Any] | None = None,
) -> list[Path]:
    """A file per slice of (columns, rows, slices), whose values are those after rescaling.

    Args:
        folder: for ``s001.dcm`` ….
        voxels: whole numbers.
        axes: directions of columns, rows and normal (LPS).
        spacing: mm between columns, rows and slices.
        origin: LPS mm, of the first slice.
        places: of each slice, where they are not in a row.
        step: direction from slice to slice where it is not the normal: a tilted gantry.
        scales: slope and intercept per slice; default 1 and -1024 of CT, else 1 and 0.
        first: instance number of the first slice.
        tags: more, by keyword.
    """
    folder.mkdir(parents=True, exist_ok=True)
    axes = np.eye(3) if axes is None else axes
    step = axes[:, 2] if step is None else step
    files = []
    for index in range(voxels.shape[2]):
        place = np.add(origin, index * spacing[2] * step) if places is None else np.asarray(places[index], float)
        slope, intercept = scales[index] if scales else (1.0, -1024.0 if modality == "CT" else 0.0)
        made = _header(modality, series, study, uid(study, series, index + first), _CLASSES[modality])
        made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        made.InstanceNumber, made.Columns, made.Rows = index + first, voxels.shape[0], voxels.shape[1]
        made.ImagePositionPatient = [f"{mm:.6f}" for mm in place]
        made.ImageOrientationPatient = [f"{c:.9f}" for c in (*axes[:, 0], *axes[:, 1])]
        made.PixelSpacing, made.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        made.RescaleSlope, made.RescaleIntercept = slope, intercept
        for keyword, value in (tags or {}).items():
            setattr(made, keyword, value)
        made.PixelData = np.rint((voxels[..., index].T - intercept) / slope).astype("<i2").tobytes()
        files.append(folder / f"s{index + first:03}.dcm")
        made.save_as(files[-1], enforce_file_format=True)
    return files


def write_enhanced(
    path: Path, voxels: np.ndarray, *, axes: np.ndarray | None = None, spacing: Sequence[float] = (1.0, 1.0, 2.0)
) -> Path:
    """All slices (columns, rows, slices) as frames of one enhanced CT, each with a rescaling of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = np.eye(3) if axes is None else axes
    made = _header("CT", "enhanced", STUDY, uid("enhanced"), EnhancedCTImageStorage)
    made.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    made.InstanceNumber, made.NumberOfFrames = 1, voxels.shape[2]
    made.Columns, made.Rows = voxels.shape[:2]
    shared, frames, pixels = Dataset(), [], []
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[spacing[1], spacing[0]], SliceThickness=spacing[2])]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[*axes[:, 0], *axes[:, 1]])]
    order = [*range(0, voxels.shape[2], 2), *range(1, voxels.shape[2], 2)]  # interleaved
    for number, index in enumerate(order, 1):
        place = np.array((-10.0, 20.0, 5.0)) + index * spacing[2] * axes[:, 2]
        frame = Dataset()
        frame.PlanePositionSequence = [_item(ImagePositionPatient=place.round(6).tolist())]
        frame.PixelValueTransformationSequence = [
            _item(RescaleSlope=1 + index % 2, RescaleIntercept=-1024, RescaleType="HU")
        ]
        frame.FrameContentSequence = [
            _item(StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[1, number])
        ]
        frames.append(frame)
        pixels.append(np.rint((voxels[..., index].T + 1024) / (1 + index % 2)).astype("<i2"))
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], frames
    made.PixelData = np.stack(pixels).tobytes()
    made.save_as(path, enforce_file_format=True)
    return path


def _item(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def pet_tags(**changes: Any) -> dict[str, Any]:
    """Of a PET series in Bq/ml, an hour after 100 MBq of F-18 were given to a patient of 70 kg."""
    dose = _item(RadionuclideTotalDose=1e8, RadionuclideHalfLife=6586.2, RadiopharmaceuticalStartTime="110000")
    tags = {
        "Units": "BQML",
        "PatientWeight": 70,
        "CorrectedImage": ["ATTN", "DECY"],
        "DecayCorrection": "START",
        "RadiopharmaceuticalInformationSequence": [dose],
    }
    return tags | changes


def read(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path)

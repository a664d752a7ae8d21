"""A label map as RTSTRUCT: closed contours on the slices of its series."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage
from pydicom.valuerep import format_number_as_ds

from medseg.dicom.algorithm import Algorithm
from medseg.dicom.contours import outlines
from medseg.dicom.frames import Frame, read_header
from medseg.dicom.segment import Segment
from medseg.dicom.series import Series
from medseg.errors import DataError

__all__ = ["write_rtstruct"]

_SERIES_NUMBER = 901


def write_rtstruct(
    label_map: np.ndarray, series: Series, segments: Sequence[Segment], algorithm: Algorithm, path: Path
) -> None:
    """Write label indices (columns, rows, slices) of ``series.stack`` as contours.

    Raises:
        DataError: the source's slices name no frame of reference.
    """
    frames, slices = series.stack.frames, series.stack.on_slices(label_map)
    headers = {frame.source: read_header(frame.source) for frame in frames}
    source = headers[frames[0].source]
    if source is None or not source.get("FrameOfReferenceUID"):
        raise DataError(f"{series.name} has no frame of reference; expected one for RTSTRUCT. Write another --format.")
    now = datetime.now()
    made = hd.base.SOPClass(
        study_instance_uid=series.study,
        series_instance_uid=hd.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        sop_class_uid=RTStructureSetStorage,
        instance_number=1,
        modality="RTSTRUCT",
        manufacturer="medseg",
        manufacturer_model_name=algorithm.name[:64],
        software_versions=algorithm.version,
        series_description="Segmentation",
        patient_id=source.get("PatientID"),
        patient_name=source.get("PatientName"),
        patient_birth_date=source.get("PatientBirthDate"),
        patient_sex=source.get("PatientSex") or None,
        accession_number=source.get("AccessionNumber"),
        study_id=source.get("StudyID"),
        study_date=source.get("StudyDate") or None,
        study_time=source.get("StudyTime") or None,
        referring_physician_name=source.get("ReferringPhysicianName"),
    )
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = source.FrameOfReferenceUID, ""
    made.OperatorsName = ""
    made.ApprovalStatus = "UNAPPROVED"
    made.StructureSetLabel = "SEGMENTATION"
    made.StructureSetDate, made.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    references = {frame: _reference(frame, headers[frame.source]) for frame in frames}
    made.ReferencedFrameOfReferenceSequence = [
        _item(
            FrameOfReferenceUID=source.FrameOfReferenceUID,
            RTReferencedStudySequence=[
                _item(
                    ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",  # of the study, a retired class
                    ReferencedSOPInstanceUID=series.study,
                    RTReferencedSeriesSequence=[
                        _item(SeriesInstanceUID=series.uid, ContourImageSequence=list(references.values()))
                    ],
                )
            ],
        )
    ]
    made.StructureSetROISequence = [
        _item(
            ROINumber=segment.number,
            ReferencedFrameOfReferenceUID=source.FrameOfReferenceUID,
            ROIName=segment.name[:64],
            ROIGenerationAlgorithm="AUTOMATIC",
            ROIGenerationDescription=f"medseg {algorithm.version}, weights {algorithm.weights[:16]}",
        )
        for segment in segments
    ]
    made.ROIContourSequence = [_contours(segment, frames, slices, references) for segment in segments]
    made.RTROIObservationsSequence = [
        _item(
            ObservationNumber=segment.number,
            ReferencedROINumber=segment.number,
            RTROIInterpretedType="",
            ROIInterpreter="",
            RTROIIdentificationCodeSequence=[hd.sr.CodedConcept.from_code(segment.kind)],
        )
        for segment in segments
    ]
    made.save_as(path)


def _contours(
    segment: Segment, frames: Sequence[Frame], slices: np.ndarray, references: dict[Frame, Dataset]
) -> Dataset:
    contours = [
        _item(
            ContourImageSequence=[references[frame]],
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=len(points),
            ContourData=[format_number_as_ds(float(mm)) for mm in _placed(points, frame).ravel()],
        )
        for frame, labels in zip(frames, slices, strict=True)
        if (labels == segment.number).any()
        for points in outlines(labels == segment.number)
    ]
    made = _item(ReferencedROINumber=segment.number, ROIDisplayColor=list(segment.rgb))
    if contours:
        made.ContourSequence = contours
    return made


def _placed(points: np.ndarray, frame: Frame) -> np.ndarray:
    """Pixels (points, 2) -> mm (points, 3), to a thousandth."""
    millimetres: np.ndarray = frame.origin + (points * frame.spacing) @ frame.axes[:, :2].T
    return millimetres.round(3)


def _reference(frame: Frame, header: Dataset | None) -> Dataset:
    assert header is not None  # it was read as an image
    made = _item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
    if "NumberOfFrames" in header:
        made.ReferencedFrameNumber = frame.index + 1
    return made


def _item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made

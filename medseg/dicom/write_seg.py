"""A label map as DICOM-SEG on the slices of its series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from pydicom.sr.coding import Code

from medseg.dicom.algorithm import Algorithm
from medseg.dicom.frames import read_header
from medseg.dicom.segment import Segment
from medseg.dicom.series import Series
from medseg.errors import DataError

__all__ = ["write_seg"]

_SERIES_NUMBER = 900  # of our own series in the study, after the scanner's


def write_seg(
    label_map: np.ndarray, series: Series, segments: Sequence[Segment], algorithm: Algorithm, path: Path
) -> None:
    """Write label indices (columns, rows, slices) of ``series.stack`` as segments of the source's slices.

    Raises:
        DataError: the series has several files of many frames each.
    """
    frames, slices = series.stack.frames, series.stack.on_slices(label_map).astype(np.uint16)
    headers = [header for frame in frames if (header := read_header(frame.source)) is not None]
    if "PerFrameFunctionalGroupsSequence" in headers[0]:
        if len({frame.source for frame in frames}) > 1:
            raise DataError(
                f"{series.name} has several files of many frames; expected one, or one slice per file. Write another "
                "--format."
            )
        headers = headers[:1]
        whole = np.zeros((int(headers[0].NumberOfFrames), *slices.shape[1:]), np.uint16)
        whole[[frame.index for frame in frames]] = slices
        slices = whole
    made = hd.seg.Segmentation(
        source_images=[_complete(header) for header in headers],
        pixel_array=slices,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(segment, algorithm) for segment in segments],
        series_instance_uid=hd.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="medseg",
        manufacturer_model_name=algorithm.name[:64],
        software_versions=algorithm.version,
        device_serial_number=algorithm.weights[:16],
        series_description="Segmentation",
        content_label="SEGMENTATION",
        content_description="Automatic segmentation",
        content_creator_name="medseg^",
    )
    made.save_as(path)


def _complete(header: pydicom.Dataset) -> pydicom.Dataset:
    """With the attributes that have to be there, be they empty, which anonymised images may lack."""
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        header.setdefault(keyword, "")
    for keyword in ("StudyDate", "StudyTime", "ReferringPhysicianName"):
        header.setdefault(keyword, "")
    return header


def _description(segment: Segment, algorithm: Algorithm) -> hd.seg.SegmentDescription:
    made = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.name[:64],
        segmented_property_category=segment.category,
        segmented_property_type=segment.kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=algorithm.name[:64],
            family=Code("123110", "DCM", "Artificial Intelligence"),
            version=algorithm.version,
            source="medseg",
            parameters={"weights_sha256": algorithm.weights},
        ),
        tracking_uid=hd.UID(),
        tracking_id=segment.name[:64],
        display_color=hd.color.CIELabColor.from_rgb(*segment.rgb),
    )
    if segment.side is not None:
        made.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            hd.sr.CodedConcept.from_code(segment.side)
        ]
    return made

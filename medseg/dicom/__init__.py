"""DICOM series as images: found and chosen, read as volumes, and label maps to and from DICOM-SEG and RTSTRUCT.

Needs the extra ``dicom``. Nothing of a patient leaves the tags: series are named by hashes, slices by numbers.
"""

from __future__ import annotations

from medseg.dicom.paths import SERIES, container_of, holds_dicom, may_be_dicom, require_extra

__all__ = ["SERIES", "container_of", "holds_dicom", "may_be_dicom", "require_extra"]

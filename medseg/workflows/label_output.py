"""The format of predictions: refused where it cannot be written, before anything is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.data import Case
from medseg.dicom import require_extra
from medseg.dicom.algorithm import Algorithm
from medseg.errors import ConfigError
from medseg.transforms.reader import is_dicom
from medseg.transforms.save import FORMATS, LabelOutput
from medseg.version import __version__

__all__ = ["label_output", "refuse_format"]

_DICOM = [name for name, suffix in FORMATS.items() if suffix.endswith(".dcm")]


def refuse_format(form: str | None, reference: str | Path | None, cases: Sequence[Case]) -> None:
    """Refuse a format that the cases do not allow.

    Raises:
        ConfigError: DICOM without its source series or without the extra, a volume's format for 2D images, or a
            reference that nothing uses.
    """
    if form not in _DICOM and reference is not None:
        raise ConfigError(
            f"--dicom_reference is for --format {' and '.join(_DICOM)}; name one of them, or leave it out."
        )
    if form is None:
        return
    if any(case.is_picture for case in cases):
        raise ConfigError(f"--format {form} is for volumes; 2D images get PNG. Leave it out.")
    if form not in _DICOM:
        return
    require_extra()
    if reference is not None and not Path(reference).exists():
        raise ConfigError(f"--dicom_reference {reference} not found; name the folder of the source series.")
    other = next((case for case in cases if not is_dicom(case.images[0])), None)
    if reference is None and other is not None:
        raise ConfigError(
            f"--format {form} needs the source DICOM folder, and {other.id} is not DICOM: name it with "
            "--dicom_reference DIR."
        )


def label_output(form: str | None, reference: str | Path | None, run: str, weights: str) -> LabelOutput:
    """How label maps are written; ``run`` and ``weights``, their SHA-256, identify the algorithm."""
    return LabelOutput(form, Path(reference) if reference else None, Algorithm(run, __version__, weights))

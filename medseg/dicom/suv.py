"""The factor from PET activity (Bq/ml) to the standardised uptake value by body weight, SUVbw (g/ml).

As in the vendor-neutral pseudo-code of the Quantitative Imaging Biomarkers Alliance (FDG-PET/CT technical committee).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pydicom.valuerep import DA, DT, TM

from medseg.errors import DataError

__all__ = ["suv_factor"]

_MOST = 10  # half-lives from injection to scan; after more, nothing is left to see


def suv_factor(header: Any) -> float:
    """Factor for rescaled values of a PET slice.

    Args:
        header: header of any slice of the series.

    Raises:
        DataError: units that are neither Bq/ml nor SUVbw, images that are not corrected, or tags that are missing.
    """
    units = str(header.get("Units", ""))
    if units == "GML":
        return 1.0
    if units != "BQML":
        raise DataError(f"PET in units '{units}'; expected BQML, or GML with SUVbw. Convert it to SUV, as NIfTI.")
    corrected = {str(word) for word in header.get("CorrectedImage") or ()}
    dose = (header.get("RadiopharmaceuticalInformationSequence") or [None])[0]
    values = {
        "PatientWeight": header.get("PatientWeight"),
        "RadionuclideTotalDose": dose and dose.get("RadionuclideTotalDose"),
        "RadionuclideHalfLife": dose and dose.get("RadionuclideHalfLife"),
        "CorrectedImage with ATTN and DECY": {"ATTN", "DECY"} <= corrected,
        "DecayCorrection START or ADMIN": header.get("DecayCorrection") in ("START", "ADMIN"),
    }
    times = (_scanned(header), _injected(header, dose))
    if header.get("DecayCorrection") == "START":
        values |= {"SeriesDate and SeriesTime": times[0], "RadiopharmaceuticalStartTime": times[1]}
    lacking = [keyword for keyword, value in values.items() if not value]
    if lacking:
        raise DataError(
            f"PET without {', '.join(lacking)}; expected them for SUVbw. Export the series with these tags, or "
            "convert it to SUV, as NIfTI."
        )
    activity = float(values["RadionuclideTotalDose"])  # Bq, at injection
    if header.DecayCorrection == "START":
        waited = (times[0] - times[1]).total_seconds()  # type: ignore[operator]  # neither is lacking
        half_lives = waited / float(values["RadionuclideHalfLife"])
        if not 0 <= half_lives <= _MOST:
            raise DataError(
                f"the PET scan begins {waited / 60:.0f} minutes or {half_lives:.1f} half-lives after the injection; "
                f"expected 0 to {_MOST} half-lives. "
                "Fix the times in the tags, or convert the series to SUV, as NIfTI."
            )
        activity *= 2**-half_lives
    return float(values["PatientWeight"]) * 1000 / activity


def _scanned(header: Any) -> datetime | None:
    """The time that decay is corrected to: the series', unless processing set it to a later one than the slice's."""
    series, slice_ = (_time(header, f"{what}Date", f"{what}Time") for what in ("Series", "Acquisition"))
    return slice_ if series and slice_ and slice_ < series else series


def _injected(header: Any, dose: Any) -> datetime | None:
    if dose is None:
        return None
    if dose.get("RadiopharmaceuticalStartDateTime"):
        injected: datetime = _plain(DT(str(dose.RadiopharmaceuticalStartDateTime)))
        return injected
    if not (dose.get("RadiopharmaceuticalStartTime") and header.get("SeriesDate")):
        return None
    injected = datetime.combine(DA(header.SeriesDate), _plain(TM(str(dose.RadiopharmaceuticalStartTime))))
    scanned = _scanned(header)
    return injected - timedelta(days=1) if scanned and injected > scanned else injected  # over midnight


def _time(header: Any, day: str, clock: str) -> datetime | None:
    if not (header.get(day) and header.get(clock)):
        return None
    return datetime.combine(DA(header[day].value), _plain(TM(str(header[clock].value))))


def _plain(value: Any) -> Any:
    return value.replace(tzinfo=None)  # whatever zone: both times are of one scanner

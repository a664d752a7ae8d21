"""Cases whose intensities are unlike those of the other cases.

CT has one unit, so an offset is named. PET and colour are normalised with figures of the whole set: there a case that
differs by a large factor is named. Other channels are normalised case by case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from medseg.data.case_facts import CaseFacts
from medseg.data.findings import Problem
from medseg.data.modality import channel_kind

__all__ = ["check_odd_cases"]

_SHIFT = 300  # Hounsfield units by which a case differs from the others, or six of their deviations
_FACTOR = 50  # by which a case of PET or colour differs from the others
_FEWEST = 4  # cases that tell which of them is the odd one


def check_odd_cases(facts: Sequence[CaseFacts], names: Sequence[str]) -> Iterator[Problem]:
    """Cases whose intensities are those of no other (warnings).

    Args:
        facts: sound cases of equal channels among others; each data set is judged by itself.
        names: the datalist's modality.
    """
    for dataset in dict.fromkeys(case.dataset for case in facts):
        group = [case for case in facts if case.dataset == dataset and case.ranges and not case.broken]
        if len(group) < _FEWEST or len({case.channels for case in group}) > 1:
            continue
        for channel in range(group[0].channels):
            name = names[channel] if channel < len(names) else names[0] if len(names) == 1 else ""
            where = f" in channel {channel} ({name})" if group[0].channels > 1 else ""
            kind = channel_kind(name)
            if kind == "ct":
                yield from _shifted(group, channel, where)
            elif kind in ("pet", "rgb"):
                yield from _scaled(group, channel, where)


def _shifted(group: Sequence[CaseFacts], channel: int, where: str) -> Iterator[Problem]:
    """An offset moves the darkest voxels and the labelled ones; another field of view or organ only one of them."""
    dark = np.array([case.ranges[channel].bottom for case in group])
    labelled = np.array([float(np.median(case.intensity[channel])) if case.intensity else np.nan for case in group])
    moves = np.stack([_move(dark), _move(labelled)])
    for case, (first, second) in zip(group, moves.T, strict=True):
        if first * second > 0:
            yield Problem(
                case.case,
                f"intensities are about {abs(second):.3g} {'above' if second > 0 else 'below'} those of the other "
                f"cases{where}; one unit is expected of all",
                "Was it stored with an offset, often 1024? Export the original image in Hounsfield units.",
                warning=True,
            )


def _move(values: np.ndarray) -> np.ndarray:
    """Distance of each value from the median; 0 where it is as usual."""
    distance = values - np.nanmedian(values)
    usual = max(_SHIFT, 6 * 1.4826 * float(np.nanmedian(np.abs(distance))))
    return np.where(np.abs(distance) > usual, distance, 0.0)


def _scaled(group: Sequence[CaseFacts], channel: int, where: str) -> Iterator[Problem]:
    tops = np.array([case.ranges[channel].top for case in group])
    usual = float(np.median(tops))
    for case, top in zip(group, tops, strict=True):
        if usual > 0 and (top > _FACTOR * usual or (top <= 1 and 0 < top * _FACTOR < usual)):
            yield Problem(
                case.case,
                f"intensities reach {top:.3g}{where}, those of most others {usual:.3g}; one unit is expected of all",
                "Export the original image in the unit of the others.",
                warning=True,
            )

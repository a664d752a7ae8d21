"""The normalisation of a plan: CT, PET and colour by figures of the foreground of the set, MR per case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.data.case_facts import CaseFacts
from medseg.data.modality import channel_kind

__all__ = ["channel_kinds", "plan_normalization"]

_REASONS = {
    "ct": "CT: 0.5th to 99.5th percentile of labelled voxels, their mean and deviation",
    "pet": "PET: 0 to the 99.5th percentile of labelled voxels",
    "rgb": "colour: 0 to 255, mean and deviation of the set",
    "mr": "values without a unit, as of MR: z-score per case",
}


def channel_kinds(names: Sequence[str], in_channels: int) -> list[str]:
    """``ct``, ``pet``, ``rgb`` or ``mr`` for each channel; one name may stand for all, none means MR."""
    names = list(names) or ["MR"]
    return [channel_kind(name) for name in (names * in_channels if len(names) == 1 else names)]


def plan_normalization(
    facts: Sequence[CaseFacts], kinds: Sequence[str], reasons: dict[str, str], *, skips_zeros: bool | None = None
) -> list[dict[str, Any]]:
    """One scheme of ``NormalizeChannelsd`` per channel.

    ``skips_zeros``: whether the z-score of a case is over voxels that are not 0 (default: where more than a quarter
    are 0).
    """
    reasons["normalization"] = "; ".join(_REASONS[kind] for kind in dict.fromkeys(kinds))
    if skips_zeros is None:
        skips_zeros = float(np.median([case.zero_share for case in facts])) > 0.25
    return [_scheme(facts, channel, kind, skips_zeros=skips_zeros) for channel, kind in enumerate(kinds)]


def _scheme(facts: Sequence[CaseFacts], channel: int, kind: str, *, skips_zeros: bool) -> dict[str, Any]:
    if kind == "mr":
        return {"kind": "case", "nonzero": skips_zeros}
    values = np.concatenate([case.intensity[channel] for case in facts])
    if kind == "ct":
        low, high = (float(v) for v in np.percentile(values, [0.5, 99.5]))
    elif kind == "pet":
        low, high = 0.0, float(np.percentile(values, 99.5))
    else:
        low, high = 0.0, 255.0 if values.max() > 1 else 1.0
    inside = np.clip(values, low, high)
    figures = {"lower": low, "upper": high, "mean": inside.mean(), "std": inside.std()}
    return {"kind": "fixed", **{name: float(f"{float(value):.5g}") for name, value in figures.items()}}

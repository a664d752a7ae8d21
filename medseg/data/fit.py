"""Whether a network takes a case: as many axes and channels, and voxels of the order of size that it works at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg.data.case_facts import CaseFacts
from medseg.data.findings import by
from medseg.data.geometry import far_spacing
from medseg.labels import LabelSpace

__all__ = ["image_channels", "model_spacing", "unfit"]


def unfit(facts: CaseFacts, dims: int, channels: int, spacing: Sequence[float] | None = None) -> tuple[str, str] | None:
    """Why a model of ``dims`` spatial axes, ``channels`` channels and ``spacing`` (mm) cannot take a case: message and
    remedy.
    """
    axes = len(facts.shape)
    if axes != dims:
        return (
            f"model expects {dims} spatial axes, {facts.case} has {axes}",
            f"Use a model with spatial_dims {axes}.",
        )
    if facts.channels != channels:
        return (
            f"model expects {channels} channels, {facts.case} has {facts.channels}",
            "Give one file per channel (<case>_0000, <case>_0001, …), in the order of training.",
        )
    if spacing is not None and not facts.picture and far_spacing(facts.spacing, spacing):
        return (
            f"model works at spacing {by(spacing)} mm, {facts.case} has {by(facts.spacing)} mm; one order of size is "
            "expected",
            "Fix the unit or the voxel size in its header, for example with nibabel's set_xyzt_units.",
        )
    return None


def model_spacing(preprocess: Any) -> list[float] | None:
    """The voxel size in mm to which a config's ``preprocess`` brings its cases."""
    spacing = preprocess.get("spacing") if isinstance(preprocess, Mapping) else None
    numbers = isinstance(spacing, list) and all(isinstance(mm, (int, float)) and mm > 0 for mm in spacing)
    return list(spacing) if numbers and spacing else None


def image_channels(config: Mapping[str, Any]) -> Any:
    """Number of image channels that a config's network takes: all but the labels of an earlier stage; ``None`` where
    it does not say.
    """
    network = config.get("network_def")
    channels = network.get("in_channels") if isinstance(network, Mapping) else None
    if not isinstance(channels, int) or "previous" not in config:
        return channels
    return channels - len(LabelSpace.from_table(config["labels"]).labels)

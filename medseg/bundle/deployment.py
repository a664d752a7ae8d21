"""What someone without medseg needs to use an exported network: preprocessing, patches, activation, labels, as JSON.

Read from the parts of the bundle's ``inference.yaml`` as they are built, so that it says what inference does. The
steps are those of ``reference_runner``; a transform that is not among them is named, and the runner is omitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai import transforms as mt
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.transforms.utils import is_positive

from medseg.bundle.export import Exported
from medseg.inferers import SlidingWindow, WholeVolume
from medseg.labels import LabelSpace
from medseg.transforms import CaseFactsd, NormalizeChannelsd, SaveLabelsd, ToSourceGridd
from medseg.transforms.cubic_spacing import CubicSpacingd
from medseg.transforms.hermes import EqualPad, NormalizeByModalityd
from medseg.transforms.picture import ToGreyd, ToRGBd
from medseg.transforms.recipes import is_nonzero
from medseg.transforms.spacing import OwnSpacingd

__all__ = ["Deployment", "NetworkInput", "describe_inference", "describe_labels", "describe_preprocessing"]

_LEAST_WEIGHT = 1e-3  # MONAI's floor of its Gaussian weights

Step = dict[str, Any]


def describe_preprocessing(preprocessing: mt.Compose) -> list[Step]:
    """The steps that follow reading the file, each with its figures; ``other`` where there is no description."""
    steps = []
    for transform in preprocessing.flatten().transforms:
        describe = next((d for kind, d in _DESCRIBED.items() if isinstance(transform, kind)), None)
        step = _other(transform) if describe is None else describe(transform)
        steps += [step] if step else []
    return steps


def describe_inference(inferer: Any) -> Step:
    """Patches and their blending, or the whole volume."""
    if isinstance(inferer, SlidingWindowInferer):
        overlap = inferer.overlap if isinstance(inferer.overlap, float) else list(np.ravel(inferer.overlap))
        if not isinstance(overlap, float) or inferer.padding_mode != "constant" or inferer.cval:
            return _other(inferer)
        return {
            "kind": "sliding_window",
            "roi_size": list(np.ravel(inferer.roi_size).tolist()),
            "overlap": overlap,
            "even_spacing": isinstance(inferer, SlidingWindow) and inferer.even_spacing,
            "blending": str(getattr(inferer.mode, "value", inferer.mode)),
            "sigma_scale": inferer.sigma_scale,
            "least_weight": _LEAST_WEIGHT,
            "mirror_axes": list(getattr(inferer, "mirror_axes", ())),
        }
    if isinstance(inferer, (WholeVolume, SimpleInferer)):
        return {"kind": "whole", "mirror_axes": list(getattr(inferer, "mirror_axes", ()))}
    return _other(inferer)


def describe_labels(space: LabelSpace, postprocessing: mt.Compose) -> Step:
    """How logits become raw label values in the original image space."""
    raw = space.decode(np.arange(len(space.labels) + 1))
    labels: Step = {"channels": list(space.channels), "dtype": str(raw.dtype), "activation": space.mode}
    if space.mode == "softmax":
        labels["values"] = raw.tolist()
    else:
        labels |= {"threshold": 0.5, "background": int(raw[0])}
        labels["paint"] = [[channel, int(raw[label])] for channel, label in space.paint_order()]
    known = (ToSourceGridd, SaveLabelsd)  # and nothing that does more
    others = [t for t in postprocessing.flatten().transforms if type(t) not in known]
    return labels | ({"other": [_name(t) for t in others]} if others else {})


@dataclass(frozen=True)
class NetworkInput:
    """What an exported network takes: numbers of axes, names of the channels, type and order of the array."""

    spatial_dims: int
    num_channels: int
    channels: Sequence[str]
    dtype: str
    layout: str


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What someone needs to use an exported network (``deployment.json``).

    Attributes:
        name, version, intended_use: as the bundle's metadata say.
        medseg_version: version of medseg that exported it.
        dataset, modality: what it is asked for; ``None`` where it was trained on a single data set.
        input: what it takes.
        preprocessing: steps that follow reading the file.
        inference: patches and their blending.
        labels: how logits become label values.
        exports: format -> what was written.
    """

    name: str
    version: str | None
    medseg_version: str
    intended_use: str | None
    dataset: str | None = None
    modality: str | None = None
    input: NetworkInput
    preprocessing: Sequence[Step]
    inference: Step
    labels: Step
    exports: Mapping[str, Exported]

    @property
    def undescribed(self) -> list[str]:
        """Names of the parts that the reference runner does not know."""
        parts = [*self.preprocessing, self.inference]
        return [*(part["other"] for part in parts if "other" in part), *self.labels.get("other", [])]


def _name(part: Any) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _other(part: Any) -> Step:
    return {"step": "other", "other": _name(part)}


# ---------------------------------------------------------------------- transforms
def _nothing(transform: Any) -> None:
    return None


def _orient(transform: mt.Orientationd) -> Step:
    return {"step": "orient", "axcodes": transform.ornt_transform.axcodes}


def _crop(transform: mt.CropForegroundd) -> Step:
    cropper = transform.cropper
    keep = {is_positive: "positive", is_nonzero: "nonzero"}.get(cropper.select_fn)
    plain = np.all(np.equal(cropper.margin, 0)) and np.all(np.equal(cropper.k_divisible, 1))
    if keep is None or not plain or cropper.channel_indices is not None or transform.source_key != "image":
        return _other(transform)
    return {"step": "crop", "keep": keep}


def _resample(transform: mt.Spacingd) -> Step:
    spacing = transform.spacing_transform
    plain = transform.mode[0] == "bilinear" and transform.padding_mode[0] == "border"
    limits = np.isfinite([*spacing.min_pixdim, *spacing.max_pixdim]).any()
    if not plain or limits or spacing.diagonal or spacing.scale_extent or transform.align_corners[0]:
        return _other(transform)
    return {"step": "resample", "spacing": spacing.pixdim.tolist(), "interpolation": "linear", "outside": "nearest"}


def _scale_range(transform: mt.ScaleIntensityRanged) -> Step:
    s = transform.scaler
    if s.b_min is None or s.b_max is None:
        return _other(transform)
    return {"step": "scale_range", "from": [s.a_min, s.a_max], "to": [s.b_min, s.b_max], "clip": bool(s.clip)}


def _normalize_intensity(transform: mt.NormalizeIntensityd) -> Step:
    n = transform.normalizer
    if n.subtrahend is not None or n.divisor is not None or not n.channel_wise:
        return _other(transform)
    return {"step": "normalize", "channels": [{"kind": "case", "nonzero": bool(n.nonzero)}]}


def _normalize_channels(transform: NormalizeChannelsd) -> Step:
    return {"step": "normalize", "channels": transform.schemes}


def _pad(transform: mt.SpatialPadd) -> Step:
    padder: Any = transform.padder
    symmetric = str(getattr(padder.method, "value", padder.method)) == "symmetric"
    constant = str(getattr(transform.mode[0], "value", transform.mode[0])) == "constant"
    if not symmetric or not constant or padder.kwargs:
        return _other(transform)
    return {"step": "pad", "size": list(padder.spatial_size), "value": 0}


def _normalize_by_modality(transform: NormalizeByModalityd) -> Step:
    schemes = {name: found.schemes for name, found in transform.normalize.items()}
    return {"step": "normalize", "by_modality": schemes, "other": _name(transform)}


def _pad_equally(transform: mt.Padd) -> Step:
    padder: Any = transform.padder
    if not isinstance(padder, EqualPad):
        return _other(transform)
    return {"step": "pad", "size": list(padder.roi_size), "equal_sides": True, "value": 0, "other": _name(padder)}


_DESCRIBED: dict[type, Callable[[Any], Step | None]] = {
    mt.LoadImaged: _nothing,
    mt.EnsureTyped: _nothing,
    mt.Orientationd: _orient,
    mt.CropForegroundd: _crop,
    CubicSpacingd: _other,
    mt.Spacingd: _resample,
    OwnSpacingd: _resample,
    mt.ScaleIntensityRanged: _scale_range,
    mt.NormalizeIntensityd: _normalize_intensity,
    NormalizeChannelsd: _normalize_channels,
    mt.SpatialPadd: _pad,
    mt.Padd: _pad_equally,
    CaseFactsd: _nothing,
    ToGreyd: lambda transform: {"step": "one_channel"},
    ToRGBd: lambda transform: {"step": "three_channels"},
    NormalizeByModalityd: _normalize_by_modality,
}

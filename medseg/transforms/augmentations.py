"""What a training config augments: the random transforms of its recipe, built with the config's own values, what they
do in words, and the axes that they mirror.

Reports, printed plans and test-time augmentation ask here. Nothing of the config is executed: its recipe is found by
name among medseg's, and its arguments are values and references.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from monai import transforms as mt
from monai.transforms import Randomizable, Transform

from medseg.labels import LabelSpace
from medseg.transforms.channel_changes import (
    RandBlurd,
    RandChannelsd,
    RandCommonNoised,
    RandContrastd,
    RandGammad,
    RandLowResolutiond,
)
from medseg.transforms.hermes import hermes_augmentation
from medseg.transforms.hermes_affine import RandHermesAffined
from medseg.transforms.hermes_intensity import RandHermesIntensityd
from medseg.transforms.label_changes import RandMorphologyd, RandRemoveComponentd
from medseg.transforms.nearest_affine import RandNearestAffined
from medseg.transforms.patches import RandForegroundCropd, RandRotateScaled, around_label, patch_augmentation
from medseg.transforms.photo import RandLinearContrastd, RandSharedNoised, photo_augmentation
from medseg.transforms.published import window_affine_augmentation, window_augmentation
from medseg.transforms.recipes import augmentation
from medseg.transforms.volume import volume_augmentation

__all__ = ["describe_augmentation", "random_transforms", "trained_mirror_axes"]

_RECIPES: dict[str, Callable[..., list[Transform]]] = {
    recipe.__name__: recipe
    for recipe in (
        augmentation,
        hermes_augmentation,
        patch_augmentation,
        photo_augmentation,
        volume_augmentation,
        window_affine_augmentation,
        window_augmentation,
    )
}
_OWN = {
    f"medseg.transforms.{cls.__name__}": cls
    for cls in (
        RandBlurd,
        RandCommonNoised,
        RandContrastd,
        RandForegroundCropd,
        RandGammad,
        RandLowResolutiond,
        RandMorphologyd,
        RandRemoveComponentd,
        RandRotateScaled,
    )
}
_WITHOUT_CHANCE = {f"{kind}preprocessing" for kind in ("", "hermes_", "photo_", "volume_", "window_")}


class _Unknown(Exception):
    """Something that only running the config would tell."""


# ---------------------------------------------------------------------- the transforms
def random_transforms(config: Mapping[str, Any]) -> list[Transform] | None:
    """The random transforms that a train.yaml applies, in order; ``None`` where they are not of medseg's recipes or
    plain components of MONAI.

    Args:
        config: its content, unresolved.
    """
    try:
        chain = _at(config, "train::preprocessing")
        if isinstance(chain, Mapping) and chain.get("_target_") == "medseg.transforms.pipeline":
            return _of_pipeline(config, chain)
        steps = _at(config, "train::preprocessing::transforms")
        if isinstance(steps, Sequence) and not isinstance(steps, str):
            return [built for step in steps for built in _of_component(config, step)]
    except (_Unknown, RecursionError, TypeError, ValueError):
        pass  # a recipe with arguments that it does not take says so where it is built
    return None


def trained_mirror_axes(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Spatial axes of the network's input that training mirrors, each by itself; ``None`` where that cannot be told.

    Args:
        config: the content of a train.yaml, unresolved.
    """
    steps = random_transforms(config)
    if steps is None:
        return None
    dims = len(config.get("roi_size") or (0, 0, 0))
    return tuple(sorted({axis for step in _single(steps) for axis in _mirrored(step, dims)}))


def describe_augmentation(config: Mapping[str, Any]) -> list[str] | None:
    """What each random transform of a train.yaml does, with range and probability; ``None`` as above."""
    steps = random_transforms(config)
    return None if steps is None else [_described(step, config.get("batch_size")) for step in steps]


def _mirrored(step: Transform, dims: int) -> tuple[int, ...]:
    if getattr(step, "prob", 1.0) <= 0:
        return ()
    if isinstance(step, mt.RandFlipd):
        axis = step.flipper.spatial_axis
        axes = (axis,) if isinstance(axis, int) else tuple(axis or ())
        return (axes[0] % dims,) if len(axes) == 1 else ()  # several at once are not a mirror image along one axis
    if isinstance(step, mt.RandAxisFlipd):
        return tuple(range(dims))
    if isinstance(step, RandNearestAffined) and step.settings["prob"] > 0:
        return tuple(axis for axis, flip in enumerate(step.settings["flip"]) if flip)
    return ()


def _single(steps: Sequence[Transform]) -> Iterator[Transform]:
    """Transforms, those inside ``Compose``, ``SomeOf`` and ``OneOf`` one by one."""
    for step in steps:
        yield from _single(step.transforms) if isinstance(step, mt.Compose) else (step,)


# ---------------------------------------------------------------------- read from the config
def _of_pipeline(config: Mapping[str, Any], chain: Mapping[str, Any]) -> list[Transform]:
    of, augment = (_component(config, chain.get(key)) for key in ("of", "augment"))
    if _own_name(of) not in _WITHOUT_CHANCE:
        raise _Unknown
    if augment is None:
        return []
    built = _RECIPES[_own_name(augment)](**{k: _value(config, v) for k, v in augment.items() if not k.startswith("_")})
    built += _value(config, chain.get("previous_augment", []))
    return [step for step in built if _is_random(step)]


def _component(config: Mapping[str, Any], item: Any) -> Any:
    """A component through plain references."""
    return _component(config, _at(config, item[1:])) if isinstance(item, str) and item.startswith("@") else item


def _own_name(component: Any) -> str:
    """The name of a component of ``medseg.transforms``.

    Raises:
        _Unknown: it is of another package.
    """
    package, _, name = str(component.get("_target_", "") if isinstance(component, Mapping) else "").rpartition(".")
    if package != "medseg.transforms" or name not in {*_RECIPES, *_WITHOUT_CHANCE}:
        raise _Unknown
    return name


def _of_component(config: Mapping[str, Any], step: Any) -> list[Transform]:
    """A component of a list, if it is random: by MONAI's name, or of ``medseg.transforms``."""
    name = str(step.get("_target_", "")) if isinstance(step, Mapping) else ""
    found = _OWN.get(name) or getattr(mt, name.removeprefix("monai.transforms."), None)
    if found is None and name.startswith("medseg.transforms.") and not name.rpartition(".")[2].startswith("Rand"):
        return []
    if not isinstance(found, type):
        raise _Unknown
    if not issubclass(found, Randomizable):
        return []
    built: Any = found(**{key: _value(config, value) for key, value in step.items() if not key.startswith("_")})
    return [built]


def _is_random(step: Transform) -> bool:
    return isinstance(step, Randomizable)


def _at(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("::"):
        if not isinstance(value, Mapping) or part not in value:
            raise _Unknown
        value = value[part]
    return value


def _value(config: Mapping[str, Any], item: Any) -> Any:
    """A value of the config with its references followed."""
    if isinstance(item, str) and item.startswith("@"):
        return _value(config, _at(config, item[1:].replace("#", "::")))
    if isinstance(item, str) and item.startswith("$"):
        raise _Unknown
    if isinstance(item, Mapping):
        if item.get("_target_") == "medseg.labels.LabelSpace.from_table":
            return LabelSpace.from_table(_value(config, item["table"]))
        if "_target_" in item:
            built = _of_component(config, item)
            if len(built) != 1:
                raise _Unknown
            return built[0]
        return {key: _value(config, value) for key, value in item.items()}
    return [_value(config, value) for value in item] if isinstance(item, list) else item


# ---------------------------------------------------------------------- in words
def _numbers(values: Any, sign: str = "") -> str:
    items = values if isinstance(values, (list, tuple)) else [values]
    return ", ".join(f"{sign}{v:.4g}" for v in items)


def _around(bounds: Sequence[float]) -> str:
    """``0.8 to 1.2`` of the range -0.2 to 0.2 around 1."""
    return f"{1 + min(bounds):.4g} to {1 + max(bounds):.4g}"


def _affine(step: Any) -> str:
    grid = (step.rand_affine if hasattr(step, "rand_affine") else step.rand_2d_elastic).rand_affine_grid
    parts = [
        (grid.rotate_range, "rotation up to {} rad"),
        (grid.scale_range, "size changed by up to {}"),
        (grid.shear_range, "shear up to {}"),
        (grid.translate_range, "shift up to {} voxels"),
    ]
    return ", ".join(text.format(_numbers([_largest(v) for v in values])) for values, text in parts if any(values))


def _largest(value: Any) -> float:
    values: Sequence[float] = value if isinstance(value, (list, tuple)) else [value]
    return max(abs(v) for v in values)


def _crop(size: Sequence[int], number: int, centre: str) -> str:
    many = "1 crop" if number == 1 else f"{number} crops"
    return f"{many} of {' × '.join(str(n) for n in size)}{centre}"


def _range(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:g} to {bounds[1]:g}"


def _channels(step: RandChannelsd) -> str:
    return "" if step.channel_prob == 1 else f", each channel with probability {step.channel_prob:g}"


def _nearest(step: RandNearestAffined) -> str:
    rotate, shift, zoom, flip = (step.settings[key] for key in ("rotate", "shift", "zoom", "flip"))
    axes = [str(axis) for axis, mirrored in enumerate(flip) if mirrored]
    return (
        f"rotation up to {_numbers(rotate)} degrees, shift up to {_numbers(shift)} of the size, zoom "
        f"{zoom[0]:g} to {zoom[1]:g}" + (f", axes {', '.join(axes)} mirrored half of the time" if axes else "")
    )


def _hermes_intensity(step: RandHermesIntensityd) -> str:
    others = "".join(f", {name} {chance:g}" for name, chance in step.chances.items())
    return f"brightness, shift, gamma, contrast, blur and noise, each with probability {step.chance:g}{others}"


_WORDS: dict[type, Callable[[Any], str]] = {
    mt.RandFlipd: lambda s: f"mirrored along axis {_numbers(s.flipper.spatial_axis)}",
    mt.RandAxisFlipd: lambda s: "mirrored along a random axis",
    mt.RandRotate90d: lambda s: f"up to {s.max_k} quarter turns in the plane of axes {_numbers(s.spatial_axes)}",
    mt.RandAffined: _affine,
    mt.RandZoomd: lambda s: f"zoom {_numbers(s.rand_zoom.min_zoom)} to {_numbers(s.rand_zoom.max_zoom)}",
    mt.Rand2DElasticd: lambda s: (
        f"elastic distortion by up to {max(s.rand_2d_elastic.deform_grid.magnitude):.4g} voxels"
    ),
    mt.RandScaleIntensityd: lambda s: f"intensity times {_around(s.scaler.factors)}",
    mt.RandShiftIntensityd: lambda s: f"intensity plus {s.shifter.offsets[0]:g} to {s.shifter.offsets[1]:g}",
    RandCommonNoised: lambda s: (
        f"Gaussian noise, deviation up to {s.rand_gaussian_noise.std:g}, the same in all channels"
    ),
    mt.RandGaussianNoised: lambda s: f"Gaussian noise, deviation up to {s.rand_gaussian_noise.std:g}",
    mt.RandGaussianSmoothd: lambda s: f"Gaussian blur, sigma {_range(s.rand_smooth.sigma_x)} voxels",
    mt.GaussianSmoothd: lambda s: f"Gaussian blur, sigma {_numbers(s.converter.sigma)} voxels",
    mt.RandCropByLabelClassesd: lambda s: _crop(
        s.cropper.spatial_size, s.cropper.num_samples, ", centres drawn by label, background included"
    ),
    mt.RandCropByPosNegLabeld: lambda s: _crop(
        s.cropper.spatial_size,
        s.cropper.num_samples,
        f", {s.cropper.pos_ratio:.0%} of the centres in a label",
    ),
    mt.RandSpatialCropd: lambda s: _crop(s.cropper.roi_size, 1, ", anywhere"),
    RandNearestAffined: _nearest,
    RandRotateScaled: lambda s: (
        f"rotation up to {_numbers(s.angles)} rad (probability {s.rotation_prob:g}), field of view times "
        f"{s.scaling[0]:g} to {s.scaling[1]:g} (probability {s.scaling_prob:g})"
    ),
    RandBlurd: lambda s: f"Gaussian blur, sigma {_range(s.sigma)} voxels{_channels(s)}",
    RandContrastd: lambda s: f"contrast times {_range(s.factors)}{_channels(s)}",
    RandLowResolutiond: lambda s: f"resolution times {_range(s.zoom)}{_channels(s)}",
    RandGammad: lambda s: f"gamma {_range(s.gamma)}{' of the inverted image' if s.invert else ''}{_channels(s)}",
    RandMorphologyd: lambda s: (
        f"labels of the earlier stage grown, shrunk, closed or opened by a ball of radius {_range(s.radius)} voxels"
    ),
    RandRemoveComponentd: lambda s: (
        f"of each label of the earlier stage a component below {s.largest:.0%} of the patch removed"
    ),
    RandHermesAffined: lambda s: "rotation up to 30 degrees, size 0.7 to 1.43, shear up to 0.1",
    RandHermesIntensityd: _hermes_intensity,
    RandSharedNoised: lambda s: f"noise, deviation {s.std:g}",
    RandLinearContrastd: lambda s: f"contrast times {s.factors[0]:g} to {s.factors[1]:g}",
}


def _foreground(step: RandForegroundCropd, batch_size: Any) -> str:
    known = around_label(batch_size, step.share) if isinstance(batch_size, int) else 0
    of = f"{known} of the {batch_size} cases of a batch ({step.share:.0%}, rounded)" if known else f"{step.share:.0%}"
    return _crop(step.roi_size, step.num_samples, f", {of} around a voxel of a label or lesion")


def _described(step: Transform, batch_size: Any = None) -> str:
    if isinstance(step, RandForegroundCropd):
        return _foreground(step, batch_size)
    if isinstance(step, mt.Compose):
        inside = "; ".join(_described(item, batch_size) for item in step.transforms)
        if isinstance(step, mt.SomeOf):
            return f"{step.min_num_transforms} to {step.max_num_transforms} of: {inside}"
        return inside
    words = _WORDS.get(type(step))
    text = words(step) if words is not None else type(step).__name__
    if isinstance(step, RandRotateScaled):
        return text  # with two of them
    chance = step.settings["prob"] if isinstance(step, RandNearestAffined) else getattr(step, "prob", 1.0)
    return text if chance == 1 else f"{text} (probability {chance:g})"

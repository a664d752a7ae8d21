"""Spacing, patch size and normalisation from an nnU-Net plans file (version 2, ``nnUNetPlans.json``).

nnU-Net orders axes as its readers give them, z, y, x of the file (2D images: rows, columns), and then by
``transpose_forward``; medseg plans 3D images in the order right, anterior, superior. Batch size, architecture and
training schedule are not taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from medseg.data.case_facts import CaseFacts
from medseg.errors import ConfigError, nearest
from medseg.storage import read_table

__all__ = ["CASCADE", "NnunetChoices", "NnunetPlans", "read_nnunet_plans"]

CASCADE = "3d_cascade_fullres"  # its name of what refines, at full resolution, the label maps of an earlier stage
_DEFAULT = {3: "3d_fullres", 2: "2d"}
_REORIENTS = "NibabelIOWithReorient"  # the one reader that turns images to RAS; others keep the file's axes


class NnunetChoices(NamedTuple):
    """What a plan takes over: mm (2D: ``None``) and voxels in the order of ``Plan``, one scheme per channel."""

    source: str
    spacing: tuple[float, ...] | None
    patch_size: tuple[int, ...]
    normalization: list[dict[str, Any]]


@dataclass(frozen=True)
class NnunetPlans:
    """A plans file and the configuration that the user chose; ``None``: ``3d_fullres``, of 2D images ``2d``."""

    path: Path
    table: Mapping[str, Any]
    configuration: str | None = None

    def choices(self, facts: Sequence[CaseFacts]) -> NnunetChoices:
        """What is taken for images such as these.

        Raises:
            ConfigError: the configuration does not fit the images, or holds what cannot be taken.
        """
        first = facts[0]
        dims = len(first.shape)
        name = self.configuration or _DEFAULT[dims]
        settings = _settings(self.path, self.table["configurations"], name)
        where = f"configuration '{name}' of {self.path}"
        if settings.get("previous_stage") and name != CASCADE:
            raise ConfigError(
                f"The {where} refines the segmentation of '{settings['previous_stage']}'; expected the name {CASCADE} "
                f"for that. Use it, or --configuration {_DEFAULT[dims]}."
            )
        patch = _numbers(settings, "patch_size", where)
        spacing = _numbers(settings, "spacing", where) if dims == 3 else None
        if spacing is not None and len(patch) == len(spacing) == 2:  # slices across the first axis, which keep theirs
            patch, spacing = [1.0, *patch], [float(self.table["original_median_spacing_after_transp"][0]), *spacing]
        if len(patch) != dims:
            others = [other for other in self.table["configurations"] if other.startswith(f"{dims}d")]
            raise ConfigError(
                f"The {where} has {len(patch)} axes, the images have {dims}; use --configuration with "
                f"{' or '.join(others) or 'a configuration of as many axes'}."
            )
        order = self._order(facts)
        return NnunetChoices(
            f"nnU-Net's {name} ({self.path.name})",
            tuple(spacing[axis] for axis in order) if spacing else None,
            tuple(int(patch[axis]) for axis in order),
            self._normalization(settings, first.channels, where),
        )

    def _order(self, facts: Sequence[CaseFacts]) -> list[int]:
        """Which of the plan's axes each of ours is."""
        dims = len(facts[0].shape)
        forward = list(self.table.get("transpose_forward", range(3)))
        if dims == 2:
            if forward != [0, 1, 2]:
                raise ConfigError(f"{self.path} transposes 2D images ({forward}); set roi_size with --set instead.")
            return [0, 1] if facts[0].picture else [1, 0]
        if sorted(forward) != [0, 1, 2]:
            raise ConfigError(f"{self.path}: 'transpose_forward' is {forward}; expected an order of 0, 1, 2.")
        orders = {case.ras_axes or (0, 1, 2) for case in facts}
        if self.table.get("image_reader_writer") == _REORIENTS:
            orders = {(0, 1, 2)}
        if len(orders) > 1:
            raise ConfigError(
                f"The images store their axes in {len(orders)} different orders, and the spacing of {self.path} is by "
                "stored axes; give it for right, anterior, superior: --set preprocess::spacing=[…] and roi_size=[…]."
            )
        (file_axes,) = orders
        return [forward.index(2 - axis) for axis in file_axes]  # the file's axis x is z, y, x's last

    def _normalization(self, settings: Mapping[str, Any], channels: int, where: str) -> list[dict[str, Any]]:
        names = list(settings.get("normalization_schemes", ()))
        if len(names) != channels:
            raise ConfigError(
                f"The {where} normalises {len(names)} channels, the images have {channels}; use the plans of this "
                "data set."
            )
        masks = list(settings.get("use_mask_for_norm", [False] * channels))
        figures = self.table.get("foreground_intensity_properties_per_channel", {})
        return [
            _scheme(name, bool(masks[channel]), figures.get(str(channel), {}), where)
            for channel, name in enumerate(names)
        ]


def read_nnunet_plans(path: str | Path, configuration: str | None = None) -> NnunetPlans:
    """Read a plans file.

    Raises:
        ConfigError: it is of version 1 (a pickle) or no plans file, or has no such configuration.
        DataError: missing, or not valid JSON.
    """
    path = Path(path)
    if path.suffix == ".pkl":
        raise ConfigError(
            f"{path} is a pickle of nnU-Net 1, which could run code and is not opened; expected nnUNetPlans.json of "
            "version 2."
        )
    table = read_table(path, "the plans of nnU-Net 2")
    if not isinstance(table.get("configurations"), Mapping) or not table["configurations"]:
        raise ConfigError(f"{path} has no 'configurations'; expected nnUNetPlans.json of nnU-Net 2. Name that file.")
    if configuration is not None:
        _settings(path, table["configurations"], configuration)
    return NnunetPlans(path, table, configuration)


def _settings(path: Path, configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration with what it inherits."""
    chain: list[Mapping[str, Any]] = []
    following: Any = name
    while following:
        if following not in configurations or len(chain) == len(configurations):
            raise ConfigError(
                f"{path} has no configuration '{following}'.{nearest(str(following), configurations)} "
                f"It has {', '.join(configurations)}; choose with --configuration."
            )
        chain.append(configurations[following])
        following = chain[-1].get("inherits_from")
    return {key: value for settings in reversed(chain) for key, value in settings.items()}


def _numbers(settings: Mapping[str, Any], key: str, where: str) -> list[float]:
    values = settings.get(key)
    if not isinstance(values, list) or not all(_positive(value) for value in values):
        raise ConfigError(f"The {where} has {key} {values!r}; expected positive numbers. Fix the file.")
    return [float(value) for value in values]


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _scheme(name: str, masked: bool, figures: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A scheme of ``NormalizeChannelsd``."""
    if name == "ZScoreNormalization":
        return {"kind": "case", "nonzero": masked}
    if name == "RGBTo01Normalization":
        return {"kind": "fixed", "lower": 0.0, "upper": 255.0, "mean": 0.0, "std": 255.0}
    if name != "CTNormalization":
        raise ConfigError(
            f"The {where} normalises by {name}; medseg takes CTNormalization, ZScoreNormalization and "
            "RGBTo01Normalization. Leave the plans out, and set spacing and roi_size with --set."
        )
    keys = {"lower": "percentile_00_5", "upper": "percentile_99_5", "mean": "mean", "std": "std"}
    lacking = [key for key in keys.values() if not isinstance(figures.get(key), (int, float))]
    if lacking:
        raise ConfigError(
            f"The {where} normalises CT, but its intensity properties lack {', '.join(lacking)}; plan again with "
            "nnU-Net."
        )
    return {"kind": "fixed", **{ours: float(figures[theirs]) for ours, theirs in keys.items()}}

"""Plans beside those of nnU-Net's own planner (nnU-Net 2.8.1) for six public data sets, and for made-up sizes of
large CT images and of MR images with thick slices.

``nnunet_planner.json`` holds sizes and spacings of their training cases as medseg reads them (number, size, spacing and
size of the content where it is smaller), and what nnU-Net's four planners chose; its axes are in nnU-Net's order, and
``order`` is the place of each of ours in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.bundle.arguments import planned_arguments
from medseg.data import CaseFacts, Plan, PlanSettings, make_plan, read_datalist

_SETS = json.loads(Path(__file__).with_name("nnunet_planner.json").read_text())
_MILLIMETRES = ("spacing", "low_resolution")
_MEMORY = {"M": 8.0, "L": 24.0, "XL": 40.0}

# Where a plan differs from nnU-Net's: its key -> why. All else is equal.
_COLOUR = "colour by figures of the set: a z-score of each channel of each image would remove what the stain tells"
_LIKE_NNUNET = {"DSB2018_nuclei": {"normalization": _COLOUR}}
_STEP = "multiples of one step, rounded down: patches that reach into padding teach the norms its statistics"
_DEFAULT: dict[str, dict[str, str]] = {
    "Task04_Hippocampus": {
        "roi_size": _STEP,
        "batch_size": "nnU-Net's smallest, which takes 2/5 of the time of a step",
    },
    "FetalBrainAtlas": {"roi_size": _STEP, "masks_zeros": "by the share of zeros, of which a box does not tell"},
    "CT_spleen_crop": {"roi_size": _STEP},
    "STS_MR_T1": {"roi_size": _STEP},
    "LargeCT": {
        "roi_size": "by voxels alone, longer where cases are",
        "strides": "of another patch",
        "low_resolution": "one resolution, which the user may change",
    },
    "ThickMR": {
        "roi_size": _STEP,
        **dict.fromkeys(("kernels", "strides", "features"), "six levels at most; a kernel may become 1 again below"),
    },
    "DSB2018_nuclei": {
        "batch_size": "batch norm needs some images, however few there are",
        **dict.fromkeys(("kernels", "strides", "features"), "six levels at most, and 320 channels in 2D too"),
        "normalization": _COLOUR,
    },
}


@pytest.fixture(scope="module", params=_SETS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def planned(name: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    table = _SETS[name]
    path = tmp_path_factory.mktemp("list") / "list.json"
    suffix = ".png" if table["picture"] else ".nii.gz"
    cases = [{"image": f"{i}{suffix}", "label": f"l{i}{suffix}"} for i in range(2)]
    labels = {str(value): f"l{value}" if value else "background" for value in range(table["labels"])}
    channels = {str(place): channel for place, channel in enumerate(table["channels"])}
    path.write_text(json.dumps({"modality": channels, "labels": labels, "training": cases}))
    datalist, facts = read_datalist(path), list(_facts(table))

    def make(**asked: Any) -> Plan:
        return make_plan(datalist, facts, PlanSettings(device_type="cuda", free_memory_gib=64.0, **asked))

    return make


def _facts(table: dict[str, Any]) -> Iterator[CaseFacts]:
    values = [np.linspace(0, 200, 100, dtype=np.float32)] * table["in_channels"]
    for number, shape, spacing, content in table["cases"]:
        size = {"shape": tuple(shape), "ras_shape": tuple(shape), "content_shape": tuple(content or shape)}
        for _ in range(number):
            yield CaseFacts(
                "case",
                spacing=tuple(spacing),
                ras_spacing=tuple(spacing),
                channels=table["in_channels"],
                intensity=values,
                zero_share=table["zero_share"],
                picture=table["picture"],
                **size,
            )


def _theirs(name: str, planner: str = "default") -> dict[str, Any]:
    """With our order of the axes."""
    row, order = _SETS[name]["nnunet"][planner], _SETS[name]["order"]
    found = {key: [row[key][axis] for axis in order] for key in ("roi_size", "spacing") if key in row}
    found |= {key: [[level[axis] for axis in order] for level in row[key]] for key in ("kernels", "strides")}
    low = row["low_resolution"]
    found["low_resolution"] = None if low is None else [low[axis] for axis in order]
    return found | {"batch_size": row["batch_size"], "features": row["features"]} | {
        key: row[key] for key in ("normalization", "masks_zeros") if key in row
    }  # fmt: skip


def _ours(plan: Plan) -> dict[str, Any]:
    network = planned_arguments("DynUNet", plan)
    kinds = {"case": "ZScoreNormalization", "fixed": "CTNormalization"}
    return {
        "roi_size": list(plan.roi_size),
        "spacing": list(plan.spacing or [1.0] * plan.spatial_dims),
        "kernels": network["kernel_size"],
        "strides": network["strides"],
        "features": network["filters"],
        "batch_size": plan.batch_size,
        "low_resolution": plan.low_resolution and list(plan.low_resolution),
        "normalization": [kinds[scheme["kind"]] for scheme in plan.normalization],
        "masks_zeros": [bool(scheme.get("nonzero")) for scheme in plan.normalization],
    }


def _differing(ours: dict[str, Any], theirs: dict[str, Any]) -> set[str]:
    return {
        key
        for key, value in theirs.items()
        if ours[key] != (pytest.approx(value, rel=1e-3) if value and key in _MILLIMETRES else value)
    }


def test_the_recipe_of_nnunet_is_planned_as_nnunet_plans(name: str, planned: Any) -> None:
    ours, theirs = _ours(planned(like_nnunet=True)), _theirs(name)
    assert {key: (ours[key], theirs[key]) for key in _differing(ours, theirs) ^ set(_LIKE_NNUNET.get(name, {}))} == {}


@pytest.mark.parametrize("preset", _MEMORY)
def test_presets_of_the_residual_network_are_nnunets(name: str, preset: str, planned: Any) -> None:
    plan, theirs = planned(like_nnunet=True, residual=True, memory_gb=_MEMORY[preset]), _theirs(name, preset)
    keys = ("roi_size", "batch_size", "low_resolution")
    assert not _differing(_ours(plan), {key: theirs[key] for key in keys})


def test_further_configurations_are_planned_as_nnunet_plans(name: str, planned: Any) -> None:
    """Slices of volumes across the axis of their coarsest spacing, and large cases at a lower resolution."""
    order = _SETS[name]["order"]
    for preset, found in _SETS[name].get("configurations", {}).items():
        asked = {} if preset == "default" else {"residual": True, "memory_gb": _MEMORY[preset]}
        for configuration, theirs in found.items():
            plan = planned(like_nnunet=True, configuration=configuration, **asked)
            axes = [axis for axis in order if len(order) == len(theirs["roi_size"]) or axis]
            place = [sorted(axes).index(axis) for axis in axes]
            theirs = theirs | {key: [theirs[key][i] for i in place] for key in ("roi_size", "spacing") if key in theirs}
            theirs |= {k: [[n[i] for i in place] for n in theirs[k]] for k in ("kernels", "strides") if k in theirs}
            seen = plan.seen()
            assert (plan.slice_axis is not None) == (configuration == "2d")
            assert {k: (_ours(seen)[k], theirs[k]) for k in _differing(_ours(seen), theirs)} == {}, (preset, theirs)


def test_other_plans_differ_for_a_reason(name: str, planned: Any) -> None:
    ours, theirs = _ours(planned()), _theirs(name)
    assert {key: (ours[key], theirs[key]) for key in _differing(ours, theirs) ^ set(_DEFAULT.get(name, {}))} == {}

"""What is taken from nnU-Net's plans, in our order of axes, and what is refused."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.data import CaseFacts, PlanSettings, make_plan, read_datalist
from medseg.data.nnunet_plans import NnunetPlans, read_nnunet_plans
from medseg.errors import ConfigError, DataError, MedsegError

# The form that nnU-Net 2 writes, of a CT + MR set whose files have 0.7 x 0.8 x 5 mm along x, y, z.
PLANS: dict[str, Any] = {
    "dataset_name": "Dataset042_Both",
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": [5.0, 0.8, 0.7],
    "original_median_shape_after_transp": [40, 512, 480],
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {
        "2d": {
            "batch_size": 12,
            "patch_size": [512, 448],
            "spacing": [0.8, 0.7],
            "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
            "use_mask_for_norm": [False, True],
        },
        "3d_lowres": {"inherits_from": "3d_fullres", "spacing": [5.0, 1.6, 1.4], "next_stage": "3d_cascade_fullres"},
        "3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [28, 256, 224],
            "median_image_size_in_voxels": [40.0, 512.0, 480.0],
            "spacing": [5.0, 0.8, 0.7],
            "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
            "use_mask_for_norm": [False, True],
            "architecture": {"network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet"},
        },
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    },
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {
        "0": {"max": 900.0, "mean": 80.5, "median": 82.0, "min": -500.0, "percentile_00_5": -120.0,
              "percentile_99_5": 240.0, "std": 55.5},
        "1": {"max": 9.0, "mean": 4.0, "median": 4.0, "min": 0.0, "percentile_00_5": 0.0, "percentile_99_5": 8.0,
              "std": 2.0},
    },
}  # fmt: skip


def _facts(ras_axes: tuple[int, ...] = (0, 1, 2), channels: int = 2, shape: tuple[int, ...] = (480, 512, 40)) -> Any:
    spacing = (0.7, 0.8, 5.0)[: len(shape)]
    facts = {"shape": shape, "spacing": spacing, "ras_axes": ras_axes, "channels": channels}
    ras = {"ras_shape": tuple(shape[a] for a in ras_axes), "ras_spacing": tuple(spacing[a] for a in ras_axes)}
    return [CaseFacts("c", **facts, **ras, intensity=[np.linspace(-200, 300, 99, dtype=np.float32)] * channels)]


def _read(folder: Path, configuration: str | None = None, **changes: Any) -> NnunetPlans:
    (folder / "nnUNetPlans.json").write_text(json.dumps(PLANS | changes))
    return read_nnunet_plans(folder / "nnUNetPlans.json", configuration)


def test_axes_are_turned_from_z_y_x_to_right_anterior_superior(tmp_path: Path) -> None:
    taken = _read(tmp_path).choices(_facts())
    assert (taken.spacing, taken.patch_size) == ((0.7, 0.8, 5.0), (224, 256, 28))
    second = _read(tmp_path, "3d_cascade_fullres").choices(_facts())
    assert second[1:] == _read(tmp_path, "3d_fullres").choices(_facts())[1:]
    low = _read(tmp_path, "3d_lowres").choices(_facts())  # the rest is inherited
    assert (low.spacing, low.patch_size) == ((1.4, 1.6, 5.0), (224, 256, 28))
    # nnU-Net puts the coarsest axis first: here it is y, and what it writes is y, z, x
    transposed = _read(tmp_path, transpose_forward=[1, 0, 2], transpose_backward=[1, 0, 2]).choices(_facts())
    assert (transposed.spacing, transposed.patch_size) == ((0.7, 5.0, 0.8), (224, 28, 256))
    slices = _read(tmp_path, "2d").choices(_facts())
    assert (slices.spacing, slices.patch_size) == ((0.7, 0.8, 5.0), (448, 512, 1))
    cyclic = _read(tmp_path, transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0]).choices(_facts())
    assert (cyclic.spacing, cyclic.patch_size) == ((5.0, 0.7, 0.8), (28, 224, 256))
    # a file stored with its slices from right to left: nnU-Net goes by stored axes, unless its reader reorients
    sagittal = _facts(ras_axes=(2, 0, 1))
    assert _read(tmp_path).choices(sagittal).spacing == (5.0, 0.7, 0.8)
    assert _read(tmp_path).choices(sagittal).spacing == sagittal[0].ras_spacing
    reoriented = _read(tmp_path, image_reader_writer="NibabelIOWithReorient").choices(sagittal)
    assert reoriented.spacing == (0.7, 0.8, 5.0)
    with pytest.raises(ConfigError, match="store their axes in 2 different orders"):
        _read(tmp_path).choices([*_facts(), *sagittal])


def test_the_plan_takes_them_with_their_source(tmp_path: Path) -> None:
    table = {"modality": {"0": "CT", "1": "T1"}, "labels": {"0": "background", "1": "x"}}
    (tmp_path / "l.json").write_text(json.dumps(table | {"training": [{"image": ["a", "b"], "label": "c"}]}))
    datalist = read_datalist(tmp_path / "l.json")
    plan = make_plan(datalist, _facts(), PlanSettings(nnunet=_read(tmp_path)))
    assert (plan.spacing, plan.roi_size) == ((0.7, 0.8, 5.0), (224, 256, 28))
    assert plan.normalization == [
        {"kind": "fixed", "lower": -120.0, "upper": 240.0, "mean": 80.5, "std": 55.5},
        {"kind": "case", "nonzero": True},
    ]
    source = "nnU-Net's 3d_fullres (nnUNetPlans.json)"
    assert [plan.reasons[key] for key in ("spacing", "roi_size", "normalization")] == [source] * 3
    own = make_plan(datalist, _facts(), PlanSettings(nnunet=_read(tmp_path), roi_size=[32, 32, 8], spacing=[1, 1, 5]))
    assert (own.spacing, own.roi_size, own.reasons["spacing"]) == ((1, 1, 5), (32, 32, 8), "set by you")
    whole = make_plan(datalist, _facts(), PlanSettings(nnunet=_read(tmp_path), whole_volume=True, scale=1))
    assert (whole.spacing, whole.roi_size) == ((0.7, 0.8, 5.0), (480, 512, 40))  # no window cuts them


def test_pictures_keep_rows_and_columns(tmp_path: Path) -> None:
    settings = {"patch_size": [192, 256], "spacing": [1.0, 1.0], "use_mask_for_norm": [False] * 3}
    settings["normalization_schemes"] = ["RGBTo01Normalization"] * 3
    facts = _facts((0, 1), 3, (200, 300))
    facts[0].picture = True
    taken = _read(tmp_path, configurations={"2d": settings}).choices(facts)
    assert (taken.spacing, taken.patch_size) == (None, (192, 256))
    assert taken.normalization[0] == {"kind": "fixed", "lower": 0.0, "upper": 255.0, "mean": 0.0, "std": 255.0}
    facts[0].picture = False  # a 2D volume file is x, y
    assert _read(tmp_path, configurations={"2d": settings}).choices(facts).patch_size == (256, 192)


def _changed(key: str, value: Any) -> dict[str, Any]:
    configurations = deepcopy(PLANS["configurations"])
    configurations["3d_fullres"][key] = value
    return {"configurations": configurations}


@pytest.mark.parametrize(
    ("configuration", "changes", "sentence"),
    [
        (None, _changed("patch_size", [256]), "has 1 axes, the images have 3; use --configuration with 3d_lowres or"),
        (
            "second",
            {"configurations": PLANS["configurations"] | {"second": PLANS["configurations"]["3d_cascade_fullres"]}},
            "refines the segmentation of '3d_lowres'; expected the name 3d_cascade_fullres for that",
        ),
        ("3d_fulres", {}, "has no configuration '3d_fulres'. Did you mean '3d_fullres'"),
        (None, {"configurations": {}}, "has no 'configurations'; expected nnUNetPlans.json"),
        (None, _changed("inherits_from", "3d_lowres"), "has no configuration"),  # a circle
        (None, _changed("patch_size", [28, 0, 224]), "has patch_size .*; expected positive numbers"),
        (None, _changed("spacing", None), "has spacing None; expected positive numbers"),
        (None, {"transpose_forward": [0, 0, 1]}, "'transpose_forward' is .*; expected an order of 0, 1, 2"),
        (None, _changed("normalization_schemes", ["CTNormalization"]), "normalises 1 channels, the images have 2"),
        (None, _changed("normalization_schemes", ["NoNormalization"] * 2), "normalises by NoNormalization; medseg"),
        (None, {"foreground_intensity_properties_per_channel": {}}, "lack percentile_00_5, percentile_99_5, mean, std"),
    ],
)
def test_what_cannot_be_taken(
    configuration: str | None, changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(MedsegError, match=sentence):
        _read(tmp_path, configuration, **changes).choices(_facts())


def test_other_files_are_no_plans(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a pickle of nnU-Net 1, which could run code and is not opened"):
        read_nnunet_plans(tmp_path / "nnUNetPlansv2.1_plans_3D.pkl")
    with pytest.raises(DataError, match="nnUNetPlans.json not found"):
        read_nnunet_plans(tmp_path / "nnUNetPlans.json")

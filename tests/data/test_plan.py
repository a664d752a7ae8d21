"""The plan's choices from facts: spacing, window, normalisation, mirroring, repeats, cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.data import CaseFacts, PlanSettings, make_plan, read_datalist
from medseg.data.datalist import Datalist
from medseg.errors import DataError


@pytest.fixture
def datalist(tmp_path: Path) -> Any:
    def make(modality: str | dict[str, str] = "MRI", labels: dict[str, str] | None = None) -> Datalist:
        table = {
            "modality": {"0": modality} if isinstance(modality, str) else modality,
            "labels": labels or {"0": "background", "1": "lesion"},
            "training": [{"image": f"{i}.nii.gz", "label": f"l{i}.nii.gz"} for i in range(4)],
        }
        path = tmp_path / "list.json"
        path.write_text(json.dumps(table))
        return read_datalist(path)

    return make


def _facts(shape: tuple[int, ...], spacing: tuple[float, ...], channels: int = 1, **more: Any) -> list[CaseFacts]:
    ramp = np.linspace(-200, 300, 1001, dtype=np.float32)
    common: dict[str, Any] = {"channels": channels, "intensity": [ramp] * channels, "zero_share": 0.0} | more
    return [
        CaseFacts(str(i), shape=shape, spacing=spacing, ras_shape=shape, ras_spacing=spacing, **common)
        for i in range(4)
    ]


def test_window_stays_inside_the_median_image_and_the_limit(datalist: Any) -> None:
    small = make_plan(datalist(), _facts((35, 50, 36), (1.0, 1.0, 1.0)), PlanSettings(device_type="cpu"))
    assert small.roi_size == (32, 48, 32)
    large = make_plan(datalist(), _facts((200, 180, 160), (1.0, 1.0, 1.0)), PlanSettings(device_type="cpu"))
    assert np.prod(large.roi_size) <= 96_000
    assert all(n % 8 == 0 for n in large.roi_size)
    gpu = make_plan(datalist(), _facts((200, 180, 160), (1.0, 1.0, 1.0)), PlanSettings(device_type="cuda"))
    assert np.prod(gpu.roi_size) > 10 * np.prod(large.roi_size)
    assert not gpu.light
    wide = make_plan(datalist(), _facts((200, 180, 160), (1.0, 1.0, 1.0)), PlanSettings(device_type="cpu", roi_step=32))
    assert all(n % 32 == 0 for n in wide.roi_size)


def test_coarse_slices_keep_their_spacing_and_turn_in_plane_only(datalist: Any) -> None:
    facts = _facts((256, 256, 30), (0.8, 0.8, 5.0))
    facts[0].ras_spacing = (0.8, 0.8, 4.0)
    plan = make_plan(datalist(), facts)
    assert plan.spacing is not None
    assert plan.spacing[:2] == (0.8, 0.8)
    assert 4.0 <= plan.spacing[2] < 5.0  # the 10th percentile, not the median
    assert plan.rotate[0] == plan.rotate[1] == 0.0 < plan.rotate[2] and plan.coarse_axis == 2


def test_one_rule_says_which_axis_is_coarse(datalist: Any) -> None:
    def axis(shape: tuple[int, ...], spacing: tuple[float, ...], like_nnunet: bool) -> int | None:
        asked = PlanSettings(like_nnunet=like_nnunet, roi_size=(16, 64, 64))
        return make_plan(datalist(), _facts(shape, spacing), asked).coarse_axis

    thin = (24, 96, 96)
    assert [axis(thin, (1.0, 1.0, 1.0), like) for like in (False, True)] == [None, None]  # nnU-Net's: of ties the last
    assert [axis(thin, (3.0, 1.0, 1.0), like) for like in (False, True)] == [None, 0]
    assert [axis(thin, (1.0, 1.0, 3.5), like) for like in (False, True)] == [2, None]


def test_each_channel_is_normalised_by_its_modality(datalist: Any) -> None:
    plan = make_plan(datalist({"0": "PET SUV", "1": "CT HU", "2": "T1gd"}), _facts((64, 64, 64), (2.0, 2.0, 2.0), 3))
    pet, ct, mr = plan.normalization
    assert (pet["kind"], pet["lower"]) == ("fixed", 0.0)
    assert ct["lower"] == pytest.approx(-197.5)  # 0.5th percentile of the ramp from -200 to 300
    assert ct["upper"] == pytest.approx(297.5)
    assert ct["std"] > 0
    assert mr == {"kind": "case", "nonzero": False}


def test_skull_stripped_images_are_cropped_and_scored_over_the_brain(datalist: Any) -> None:
    plan = make_plan(datalist(), _facts((100, 100, 100), (1.0, 1.0, 1.0), zero_share=0.6))
    assert plan.crop_foreground
    assert plan.normalization == [{"kind": "case", "nonzero": True}]


def test_left_and_right_are_not_mirrored(datalist: Any) -> None:
    facts = _facts((64, 64, 64), (1.0, 1.0, 1.0))
    assert make_plan(datalist(), facts).flip_axes == [0]
    sided = datalist(labels={"0": "background", "1": "left kidney", "2": "right kidney"})
    assert make_plan(sided, facts).flip_axes == []
    for across, axes in ((0, []), (2, [0])):  # slices from the side have no sides
        mm = tuple(6.0 if axis == across else 1.0 for axis in range(3))
        sliced = make_plan(datalist(), _facts((64, 64, 64), mm), PlanSettings(configuration="2d"))
        assert (sliced.slice_axis, sliced.flip_axes) == (across, axes)


def test_small_sets_get_epochs_of_useful_length_and_large_ones_a_cache_on_disk(datalist: Any) -> None:
    facts = _facts((64, 64, 64), (1.0, 1.0, 1.0))
    plan = make_plan(datalist(), facts, PlanSettings(free_memory_gib=8.0))
    assert plan.repeats * 4 == 100  # 50 iterations of 2
    asked = make_plan(datalist(), facts, PlanSettings(repeats=1))
    assert (asked.repeats, asked.long_epochs) == (1, 25_000)  # of 2 iterations
    assert plan.cache == "cache"
    assert make_plan(datalist(), facts, PlanSettings(free_memory_gib=0.001)).cache == "persistent"
    room = 2 * plan.cache_gib
    assert make_plan(datalist(), facts, PlanSettings(free_memory_gib=room)).cache == "cache"
    shared = make_plan(datalist(), facts, PlanSettings(free_memory_gib=room, processes=2))
    assert (
        shared.cache == "persistent" and "GiB after preprocessing in each of 2 processes, " in shared.reasons["cache"]
    )


def test_two_dimensional_colour_images(datalist: Any) -> None:
    facts = _facts((256, 320), (1.0, 1.0), 3)
    for case in facts:
        case.intensity = [np.linspace(0, 255, 100, dtype=np.float32)] * 3
    plan = make_plan(datalist("RGB"), facts)
    assert (plan.spatial_dims, plan.spacing, plan.in_channels) == (2, None, 3)
    assert plan.flip_axes == [0, 1]
    sided = datalist("RGB", labels={"0": "background", "1": "lung_left", "2": "lung_right"})
    assert make_plan(sided, facts).flip_axes == []
    assert len(plan.normalization) == 3
    assert plan.normalization[0]["upper"] == 255.0


def test_user_values_win_and_every_choice_has_a_reason(datalist: Any) -> None:
    facts = _facts((64, 64, 64), (1.0, 1.0, 1.0))
    plan = make_plan(datalist(), facts, PlanSettings(roi_size=[24, 24, 24], spacing=[2.0, 2.0, 2.0]))
    assert (plan.roi_size, plan.spacing) == ((24, 24, 24), (2.0, 2.0, 2.0))
    assert {"spacing", "roi_size", "normalization", "batch_size", "cache", "flip_axes", "light"} <= set(plan.reasons)
    assert plan.reasons_by_id()["preprocess::spacing"] == "set by you"
    few = make_plan(datalist(), facts, PlanSettings(batch_size=5))
    assert (few.batch_size, few.reasons["batch_size"]) == (5, "set by you")
    assert "epochs of 49 iterations" in few.reasons["repeats"]


def test_sets_that_mix_dimensions_or_have_no_sound_case_are_refused(datalist: Any) -> None:
    mixed = _facts((64, 64, 64), (1.0, 1.0, 1.0))[:2] + _facts((64, 64), (1.0, 1.0))[2:]
    with pytest.raises(DataError, match="mixes"):
        make_plan(datalist(), mixed)
    with pytest.raises(DataError, match="no usable case"):
        make_plan(datalist(), [])


def test_networks_of_whole_volumes_get_a_window_that_holds_every_case(datalist: Any) -> None:
    facts = _facts((35, 50, 36), (1.0, 1.0, 1.0))
    facts[1].shape = facts[1].ras_shape = (41, 48, 40)
    plan = make_plan(datalist(), facts, PlanSettings(whole_volume=True))
    assert (plan.roi_size, plan.scale, plan.batch_size) == ((41, 50, 40), 1.0, 1)
    half = make_plan(datalist(), facts, PlanSettings(whole_volume=True, scale=0.5))
    assert (half.roi_size, half.scale) == ((21, 25, 20), 0.5)
    assert half.reasons["scale"] == "set by you"
    large = make_plan(datalist(), _facts((240, 240, 155), (1.0, 1.0, 1.0)), PlanSettings(whole_volume=True))
    assert large.scale < 1 and "limit" in large.reasons["scale"]
    assert 0.8 * 4 * 96_000 < np.prod(large.roi_size) <= 1.05 * 4 * 96_000
    outlier = _facts((40, 50, 40), (1.0, 1.0, 1.0)) * 10
    outlier.append(_facts((40, 50, 4000), (1.0, 1.0, 1.0))[0])
    plan = make_plan(datalist(), outlier, PlanSettings(whole_volume=True))
    assert (plan.roi_size, plan.scale) == ((40, 50, 40), 1.0)  # one long case is cropped, the others stay as they are


def test_a_scale_also_shrinks_what_windows_slide_over(datalist: Any) -> None:
    plan = make_plan(datalist(), _facts((80, 80, 80), (1.0, 1.0, 1.0)), PlanSettings(scale=0.5))
    assert plan.median_shape == (40, 40, 40) and max(plan.roi_size) <= 40

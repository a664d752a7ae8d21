"""What a training is told is held against a run by the run's own files; copied bundles are known by their names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medseg.bundle.compose import user
from medseg.bundle.draft import Draft
from medseg.bundle.folder import Bundle
from medseg.data import read_datalist
from medseg.data.phantom import write_phantom
from medseg.errors import ConfigError
from medseg.workflows.same_settings import hold_settings, refuse_other
from medseg.workflows.start import _options, _own_places
from medseg.workflows.train_settings import TrainSettings

OVERRIDES = {"learning_rate": 0.1, "+train::handlers": [{"_target_": "StatsHandler"}], "~early_stop": None}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    """The settings of a run that is written, but not trained."""
    folder = tmp_path_factory.mktemp("copied")
    settings = TrainSettings(
        output=folder / "run",
        json_list=write_phantom(output=folder / "phantom", cases=2),
        bundle="ssh_unet_btcv_ct_segmentation",
        overlays=("gsm",),
        fold=0,
        epochs=3,
        overrides=OVERRIDES,
    )
    datalist = read_datalist(settings.json_list)
    draft = _own_places(Draft.copied(Bundle(str(settings.bundle)), settings.overlays, datalist))
    draft = draft.over(user(settings.overrides))
    draft.over(*_options(settings, datalist, draft, 2)).write(folder / "run")
    return settings


def test_a_run_has_the_settings_that_it_was_told(told: TrainSettings) -> None:
    for same in (told, replace(told, device="cuda:3", overrides={**OVERRIDES, "num_workers": 7, "cache": "plain"})):
        held = hold_settings(same, Path(told.output))
        assert (held.changed, held.unknown) == ({}, ())


@pytest.mark.parametrize(
    ("other", "ids"),
    [
        ({"bundle": "hnoseg_xs_brats23_mri_segmentation"}, {"bundle"}),
        ({"overlays": ()}, {"overlays"}),
        ({"overlays": ("tsm_vfn",)}, {"overlays"}),
        ({"epochs": 4}, {"epochs"}),
        ({"fold": 1}, {"fold"}),
        ({"seed": 5}, {"seed"}),
        ({"max_minutes": 1.0}, {"max_minutes"}),
        ({"overrides": {**OVERRIDES, "+train::handlers": [{"_target_": "GarbageCollector"}]}}, {"train::handlers"}),
        ({"overrides": {**OVERRIDES, "~train::handlers": None}}, {"train::handlers"}),
        ({"overrides": {**OVERRIDES, "early_stop": 3}}, {"early_stop"}),
        ({"overrides": {"learning_rate": 0.1}}, {"train::handlers"}),
    ],
)
def test_what_differs_is_named(told: TrainSettings, other: dict[str, Any], ids: set[str]) -> None:
    found = set(hold_settings(replace(told, **other), Path(told.output)).changed)
    assert ids <= {id_.rstrip("0123456789:").removesuffix("::_target_").rstrip("0123456789:") for id_ in found}


def test_long_values_are_shown_from_where_they_differ() -> None:
    steps = [{"_target_": "RandScaleIntensityd", "prob": 0.3, "factors": 0.2}] * 4
    with pytest.raises(ConfigError) as refusal:
        refuse_other(Path("run"), {"augment::intensity": (steps, [*steps[:3], {"_target_": "RandBlurd"}])})
    assert "RandScaleIntensityd" in str(refusal.value) and "RandBlurd" in str(refusal.value)
    assert len(str(refusal.value)) < 400

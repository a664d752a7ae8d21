"""A study file is read into frozen values; what is wrong in it is named with the nearest right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.bundle.build import named_recipes
from medseg.errors import ConfigError
from medseg.shipped import find_list
from medseg.workflows.study_file import Budget, read_study
from medseg.workflows.study_members import Member

STUDIES = Path(__file__).parents[2] / "studies"
BUNDLE = "ssh_unet_btcv_ct_segmentation"
SOUND: dict[str, Any] = {
    "networks": ["ssh_unet", "UNet"],
    "data": {"toy": {"json_list": "list.json", "folds": [0, 1]}},
    "budget": {"iterations": 10},
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**SOUND, **changes}, sort_keys=False))
    return path


def test_methods_follow_recipes_and_configurations(tmp_path: Path) -> None:
    long = {"network": "UNet", "recipe": "nnunet", "configuration": "3d_lowres"}
    networks = {"UNet": None, "long": long, "x": {"bundle": BUNDLE}}
    study = read_study(written(tmp_path, networks=networks, recipe="standard", configuration="2d"))
    found = [Member(study, tmp_path, one, study.data[0], 0, 0).training() for one in study.networks]
    assert [one.recipe for one in found] == ["standard", "nnunet", "light"]
    assert [one.configuration for one in found] == ["2d", "3d_lowres", None]


@pytest.mark.parametrize("name", ["recipe_ablation", "recipe_ablation_2d", "recipe_ablation_nnunet"])
def test_an_ablation_changes_its_first_method(name: str) -> None:
    study = read_study(STUDIES / f"{name}.yaml")
    assert len({one.network for one in study.networks}) == 1 and len(study.seeds) >= 3
    assert study.networks[0].name == "light" and not study.networks[0].settings
    assert {one.name for one in study.networks} >= set(named_recipes()) - (
        {"nnunet"} if name == "recipe_ablation" else set()
    )


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_lists_of_a_study_are_found_once_the_folder_of_its_data_is_named(file: Path) -> None:
    """A relative list lies beside the study or is shipped; others stand with their whole path, for users to replace."""
    lists = [find_list(one.json_list) for one in read_study(file).data]
    assert all(one.is_file() or (one.is_absolute() and STUDIES not in one.parents) for one in lists)


def test_a_study_is_read(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("{}")
    networks = {"wide": {"network": "UNet", "settings": {"network_def::channels": [8, 16]}}, "ssh_unet": None}
    study = read_study(written(tmp_path, networks=networks), {"budget::iterations": 5, "seeds": [3, 4]})
    assert [(one.name, one.network) for one in study.networks] == [("wide", "UNet"), ("ssh_unet", None)]
    assert study.data[0].json_list == str(tmp_path / "list.json") and study.budget == Budget(iterations=5)
    assert study.seeds == [3, 4] and study.checkpoint == "last" and study.equal


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sedes": [1]}, "unknown entry 'sedes'. Did you mean 'seeds'?"),
        ({"data": {"toy": {"json_lst": "a"}}}, "unknown entry 'json_lst'. Did you mean 'json_list'?"),
        ({"data": {"toy": {}}}, "'json_list' is missing"),
        ({"data": {}}, "The study has no data"),
        ({"networks": ["ssh_unet"]}, "one network"),
        ({"networks": ["ssh_unet", "ssh_unett"]}, "ssh_unett"),
        ({"networks": {"a/b": None, "UNet": None}}, "'a/b' names a folder"),
        ({"networks": {"x": {"bundle": "nowhere"}, "UNet": None}}, "bundle 'nowhere' not found"),
        ({"budget": {}}, "no entry"),
        ({"budget": {"iterations": 5, "cpu_seconds": 3}}, "iterations and cpu_seconds"),
        ({"budget": {"cpu_seconds": -1}}, "above 0"),
        ({"budget": {"cpu_seconds": float("nan")}}, "above 0"),
        ({"budget": {"cpu_seconds": float("inf")}}, "above 0"),
        ({"budget": {"iterations": 6}, "validations": 50}, "50 validations in 6 iterations"),
        ({"search": {"holdout": 0}}, "holdout 0 and share 0.25: expected shares above 0, to 0.5 and to 1"),
        ({"search": {"share": 100}}, "holdout 0.25 and share 100"),
        ({"search": {"learning_rates": [0.1, 0.1]}}, "search::learning_rates: 0.1 is given twice"),
        ({"seeds": [0, 1, 0]}, "seeds: 0 is given twice"),
        ({"data": {"toy": {"json_list": "a", "folds": [0, 0]}}}, "data::toy::folds: 0 is given twice"),
        ({"checkpoint": "best"}, "with 0 validations"),
        ({"seeds": "one"}, "seeds is a string instead of a list"),
        ({"data": {"toy": {"json_list": "a", "transfer": "toi"}}}, "no data 'toi'. Did you mean 'toy'?"),
        ({"data": {"toy": {"json_list": "a", "transfer": "toy"}}}, "leads back"),
        ({"external": {"x": {"json_list": "a", "labels": {}, "trained_on": "t"}}}, "no data 't'"),
        ({"score": "dise"}, "score 'dise' is unknown. Did you mean 'dice'?"),
        ({"processes": 0}, "processes"),
        ({"recipe": "nnunett"}, "No recipe 'nnunett'. Did you mean 'nnunet'?"),
        ({"networks": {"x": {"recipe": "lite"}, "UNet": None}}, "No recipe 'lite'"),
        *(
            ({"networks": {"x": {"bundle": BUNDLE, **own}, "UNet": None}}, "a bundle has a training of its own")
            for own in ({"recipe": "light"}, {"configuration": "2d"})
        ),
        ({"configuration": "3d_lowers"}, "3d_lowers: expected 2d, 3d_fullres, 3d_lowres"),
        ({"networks": {"x": {"configuration": "3d"}, "UNet": None}}, "--configuration 3d: expected 2d"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_study(written(tmp_path, **changes))
    assert said in str(refusal.value)

"""Bundles from their recipes: the committed configs are the built ones; recipes say what differs, and where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medseg.bundle.build import RECIPE, BundleRecipe, build_bundle, recipe_folders
from medseg.bundle.folder import Bundle
from medseg.cli import main
from medseg.errors import ConfigError, ModelError
from medseg.storage import read_yaml
from medseg.version import __version__

BUNDLES = Path(__file__).parents[2] / "bundles"


@pytest.mark.parametrize("bundle", sorted(path.parent for path in BUNDLES.glob("*/docs")), ids=lambda path: path.name)
def test_the_committed_configs_are_the_built_ones(bundle: Path, tmp_path: Path) -> None:
    """After a change of a recipe or of ``medseg/bundle/base``: `medseg bundle build`."""
    copy = tmp_path / bundle.name
    (copy / "configs").mkdir(parents=True)
    for name in (RECIPE, "configs/metadata.json"):
        shutil.copyfile(bundle / name, copy / name)
    build_bundle(copy)
    assert (copy / "LICENSE").read_bytes() == (bundle / "LICENSE").read_bytes()
    built = {path.name: path.read_bytes() for path in copy.glob("configs/*.yaml")}
    assert built == {path.name: path.read_bytes() for path in bundle.glob("configs/*.yaml")}
    assert not [name for name, text in built.items() if b"$" in text]
    needed = json.loads((bundle / "configs" / "metadata.json").read_text())["required_packages_version"]
    assert needed["medseg"] == __version__  # whose components the configs name


def test_a_recipe_is_short() -> None:
    for folder in recipe_folders():
        assert len((folder / RECIPE).read_text().splitlines()) <= 40, folder.name


def test_hnoseg_and_fnoseg_differ_in_one_line() -> None:
    texts = [(BUNDLES / f"{name}_brats23_mri_segmentation" / RECIPE).read_text() for name in ("hnoseg", "fnoseg")]
    lines = [[line for line in text.splitlines() if line[:1] != "#"] for text in texts]
    assert sum(one != two for one, two in zip(*lines, strict=True)) == 1


def write(folder: Path, text: str) -> Path:
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps({"name": "Mine"}))
    (folder / RECIPE).write_text(text)
    return folder


def test_the_origin_of_every_value(tmp_path: Path) -> None:
    recipe = BundleRecipe.read(write(tmp_path, "base: [operators]\ntrain:\n\n  epochs: 3\n") / RECIPE)
    train = recipe.config("train")
    assert train.value("epochs") == 3
    assert str(train.origin("epochs")) == f"{tmp_path / RECIPE}:4"
    for id_, file in (("learning_rate", "operators.yaml"), ("clip_norm", "common.yaml")):
        origin = train.origin(id_)
        assert origin and origin.kind == "base" and file in origin.place
    assert recipe.config("inference").value("roi_size") == train.value("roi_size")


def test_overlays_are_changed_by_later_recipes(tmp_path: Path) -> None:
    text = """
base: [slice_shift]
evaluate:
  tolerance: 2.0
  ~ema_decay: null
  validate::key_metric::mean_dice::surface: false
mine:
  about: "Overlay on train.yaml: of my own."
  epochs: 7
"""
    folder = build_bundle(write(tmp_path, text))
    evaluate = read_yaml(folder / "configs" / "evaluate.yaml")
    assert evaluate["tolerance"] == 2.0 and "ema_decay" not in evaluate
    assert evaluate["validate::key_metric"]["mean_dice"]["surface"] is False
    assert (folder / "configs" / "mine.yaml").read_text() == "# Overlay on train.yaml: of my own.\nepochs: 7\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("base: [opertors]\n", "No base 'opertors' for a recipe. Did you mean 'operators'"),
        ("base: [operators]\ntrain: 3\n", "section 'train' is not a mapping; expected config ids"),
        ("base: [operators]\ntrain:\n  a::b: 3\n", "recipe.yaml, line 3: 'a::b' is below something"),
    ],
)
def test_a_faulty_recipe(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_bundle(write(tmp_path, text))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "base: [operators]\n")
    assert main(["bundle", "build", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"
    assert {"train.yaml", "inference.yaml", "evaluate.yaml"} <= {path.name for path in tmp_path.glob("configs/*")}
    assert main(["bundle", "build", "hnoseg_brats23_mri"]) == 4
    assert "No bundle 'hnoseg_brats23_mri'. Did you mean" in capsys.readouterr().err
    with pytest.raises(ModelError, match=f"no {RECIPE}; expected a bundle's folder"):
        build_bundle(tmp_path / "configs")


def test_a_copy_of_a_bundle_of_medsegs_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, copy = "qtseg_busi_ultrasound_segmentation", tmp_path / "mine"
    assert main(["bundle", "build", name, "--output", str(copy)]) == 0
    files = [path.relative_to(BUNDLES / name) for path in (BUNDLES / name).glob("*/*") if path.parent.name != "models"]
    for path in (*files, Path(RECIPE), Path("LICENSE")):
        assert (copy / path).read_bytes() == (BUNDLES / name / path).read_bytes()
    assert main(["bundle", "build", name, "--output", str(copy)]) == 2
    assert main(["bundle", "build", "--output", str(tmp_path / "all")]) == 2
    said = capsys.readouterr().err
    assert f"--output {copy} exists already; name a new folder." in said and "name the bundle" in said


def test_a_bundles_name_is_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "hnoseg_brats23_mri_segmentation"
    monkeypatch.chdir(tmp_path)
    assert Bundle(name).root == BUNDLES / name
    (tmp_path / name).mkdir()
    assert Bundle(name).root == tmp_path / name  # a folder of this name comes first
    with pytest.raises(ModelError, match=f"Did you mean '{name}'"):
        Bundle("hnoseg_brats23").config("train")

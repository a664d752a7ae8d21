"""The wheel: what is in it, and that an installed medseg does all that a checkout does."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = "ssh_unet_btcv_ct_segmentation"
FOLDERS = {"medseg": "medseg", "bundles": "medseg/_bundles", "data_json": "medseg/_data_json"}  # in the wheel
USED = ("models/model.pt", "eval/metrics.json", "log.txt")  # what a bundle of a used checkout has as well

STEPS = """
import sys
import medseg
from medseg.cli import main
from medseg.data import read_datalist
from medseg.data.split_file import read_split

assert medseg.__file__.startswith(sys.argv[1]), medseg.__file__
small = ["--set", "roi_size=[32,32,16]", "--set", "repeats=1", "--epochs", "1", "--device", "cpu"]
for status, *command in (
    (0, "phantom", "--output", "phantom", "--cases", "6"),
    (0, "train", "--network", "UNet", "--json_list", "phantom/dataset.json", "--output", "run", *small),
    (0, "validate", "--run", "run", "--device", "cpu"),
    (0, "infer", "--run", "run", "--output", "out", "--device", "cpu", "phantom/imagesTs/organs_006.nii.gz"),
    (0, "report", "--run", "run"),
    (0, "check", "--bundle", "hnoseg_xs_brats23_mri_segmentation"),
    (0, "config", "NAME", "learning_rate"),
    (0, "bundle", "build", "NAME", "--output", "mine"),
    (0, "bundle", "build", "mine"),
    (2, "bundle", "build", "NAME"),
    (2, "bundle", "build"),
    (3, "check", "--json_list", "btcv"),
    (4, "infer", "--bundle", "NAME", "--output", "none", "phantom/imagesTs/organs_006.nii.gz"),
    (4, "export", "NAME", "--output", "none"),
    (4, "package", "NAME", "--output", "none.zip"),
):
    found = main(command)
    assert found == status, (command, found)
assert medseg.load("NAME").label_space.num_channels == 14
assert read_datalist("hermes/bcv").label_space.num_channels > 10
assert len(read_split("btcv").sections["validation"]) == 6
""".replace("NAME", NAME)


def kept(folder: str) -> list[str]:
    """The files of a folder that belong to the repository."""
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("the checkout is not a git repository")
    return listed.stdout.splitlines()


def test_every_package_is_listed() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "medseg").rglob("*.py")}
    assert set(config["options"]["packages"].split()) == found | {
        "medseg._bundles",
        "medseg._citation",
        "medseg._data_json",
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a checkout that was used."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    for name in USED:
        for bundle in (NAME, "mine"):
            path = source / "bundles" / bundle / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("used")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(source)], check=True)
    (made,) = folder.glob("medseg-*.whl")
    return made


@pytest.mark.slow
def test_it_holds_the_repository_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {
        f"{place}{name.removeprefix(folder)}" for folder, place in FOLDERS.items() for name in kept(folder)
    }


@pytest.mark.slow
def test_installed_it_does_the_quickstarts_steps(wheel: Path, tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True)
    before = {path: path.stat().st_mtime_ns for path in site.rglob("*") if path.suffix in (".yaml", ".json")}
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(site)],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (work / "run" / "report.html").is_file() and (work / "out" / "organs_006.nii.gz").is_file()
    assert f"{NAME} is part of the installed medseg, which is not written into." in done.stderr
    assert (work / "mine" / "configs" / "train.yaml").read_bytes() == (
        ROOT / "bundles" / NAME / "configs" / "train.yaml"
    ).read_bytes()
    after = {path: path.stat().st_mtime_ns for path in site.rglob("*") if path.suffix in (".yaml", ".json")}
    assert after == before  # nothing is written into an installation
    assert not list(site.rglob("log.txt")) and not list(work.glob("none*"))

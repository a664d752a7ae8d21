"""A bundle as a zip and back; every way in which an archive can lie is refused, and leaves nothing behind."""

from __future__ import annotations

import io
import json
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from medseg.bundle.package import CHECKSUMS, pack, unpack
from medseg.cli import main
from medseg.errors import ConfigError, MedsegError, ModelError

BUNDLE = Path(__file__).parents[2] / "bundles" / "ssh_unet_btcv_ct_segmentation"


@pytest.fixture
def run(tmp_path) -> Path:
    """A bundle as a run folder leaves it: weights, and much that must stay behind."""
    folder = tmp_path / "home" / "tiny_ct_segmentation"
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("eval"))
    config = folder / "configs" / "train.yaml"
    config.write_text(config.read_text().replace("dataset_dir: /data/btcv", f"dataset_dir: {tmp_path}/images  # here"))
    table = {"training": [{"image": "a/ü 1.nii.gz", "label": "b.nii.gz"}]}
    (folder / "configs" / "datalist.json").write_text(json.dumps(table, ensure_ascii=False))
    for name in (
        *("models/model.pt", "models/.hidden.pt", "models/notes.py", "checkpoints/last.pt", "cache/x.pt"),
        *("predictions/patient_7.nii.gz", "log.txt", "run.json", "metrics_per_case.csv", "configs/x.pyc"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"weights " * 100)
    (folder / "docs" / "link.md").symlink_to("/etc/hostname")
    return folder


@pytest.fixture
def package(run, tmp_path) -> Path:
    return pack(run, tmp_path / "out" / "tiny.zip")


def test_the_bundle_and_nothing_else_is_packed(package, run):
    with zipfile.ZipFile(package) as archive:
        names = archive.namelist()
        text = archive.read("tiny_ct_segmentation/configs/train.yaml").decode()
    kept = {name.removeprefix("tiny_ct_segmentation/") for name in names}
    assert {"LICENSE", "docs/README.md", "configs/metadata.json", "models/model.pt", CHECKSUMS} <= kept
    assert {name.partition("/")[0] for name in kept} == {"LICENSE", "docs", "configs", "models", CHECKSUMS}
    assert not {"models/.hidden.pt", "models/notes.py", "configs/x.pyc", "docs/link.md"} & kept
    assert "dataset_dir: /data  # here" in text
    assert str(run.parents[1]) not in text


def test_equal_bundles_give_equal_bytes(package, run, tmp_path):
    assert pack(run, tmp_path / "again.zip").read_bytes() == package.read_bytes()


def test_it_comes_back_equal_and_other_tools_can_check_it(package, run, tmp_path):
    folder = unpack(package, tmp_path / "in")
    assert folder == tmp_path / "in" / "tiny_ct_segmentation"
    for name in ("models/model.pt", "configs/inference.yaml", "configs/datalist.json"):
        same = (folder / name).read_bytes() == (run / name).read_bytes()
        assert same or "dataset_dir" in (run / name).read_text()
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--quiet", CHECKSUMS], cwd=folder, check=True)
    with pytest.raises(ConfigError, match="exists already"):
        unpack(package, tmp_path / "in")
    assert list((tmp_path / "in").iterdir()) == [folder]


@pytest.mark.parametrize("text", ["~/x", "{home}/x", "{root}/models/model.pt", "/etc"])
def test_a_path_of_this_machine_is_named(text, run, tmp_path):
    path = run / "configs" / "evaluate.yaml"
    value = text.format(home=Path.home(), root=run)
    if text.startswith("~"):
        value = str(Path.home())
    path.write_text(path.read_text() + f'\nmy_dir: "{value}"\n')
    with pytest.raises(ModelError, match="configs/evaluate.yaml: .*relative to dataset_dir"):
        pack(run, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_what_is_no_bundle_or_no_name(run, tmp_path):
    with pytest.raises(ModelError, match="is no bundle: configs/metadata.json is missing"):
        pack(tmp_path, tmp_path / "x.zip")
    with pytest.raises(ConfigError, match="expected FILE.zip"):
        pack(run, tmp_path / "x.tar")
    (tmp_path / "x.zip").touch()
    with pytest.raises(ConfigError, match="exists already"):
        pack(run, tmp_path / "x.zip")


# ---------------------------------------------------------------------- archives that lie
def rewritten(package: Path, change: str) -> Path:
    """A copy of the archive with one lie."""
    path = package.with_name(f"{change.replace(' ', '_')}.zip")
    top = "tiny_ct_segmentation"
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            data = source.read(info)
            if change == "changed" and info.filename.endswith("/train.yaml"):
                data += b"\n"
            if change == "missing" and info.filename.endswith("/train.yaml"):
                continue
            if change == "no list" and info.filename.endswith(CHECKSUMS):
                continue
            target.writestr(info, data)
        name = {
            "parent": f"{top}/../../evil",
            "absolute": "/tmp/evil",
            "drive": "C:/evil",
            "backslash": f"{top}\\..\\evil",
            "dot": f"{top}/./evil",
            "control": f"{top}/a\nb",
            "unlisted": f"{top}/configs/extra.yaml",
            "two folders": "other/evil",
            "beside": "evil",
            "twice": f"{top}/CONFIGS/train.yaml",
        }.get(change)
        if name:
            target.writestr(zipfile.ZipInfo(name), b"x")
        if change in ("link", "device"):
            info = zipfile.ZipInfo(f"{top}/docs/link")
            info.external_attr = ((stat.S_IFLNK if change == "link" else stat.S_IFCHR) | 0o777) << 16
            target.writestr(info, b"/etc/passwd")
        if change == "bomb":
            target.writestr(f"{top}/models/x.pt", bytes(8 << 20))
        for number in range(1100 if change == "many" else 0):
            target.writestr(f"{top}/docs/{number}.md", b"")
    return path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("parent", r"member 'tiny_ct_segmentation/../../evil' leaves the target folder"),
        ("absolute", "member '/tmp/evil' leaves the target folder"),
        ("drive", "member 'C:/evil' leaves"),
        ("backslash", "leaves the target folder"),
        ("dot", "leaves the target folder"),
        ("control", "leaves the target folder"),
        ("link", "'tiny_ct_segmentation/docs/link' is a link or a device, expected plain files"),
        ("device", "is a link or a device"),
        ("twice", "CONFIGS/train.yaml' is there twice"),
        ("two folders", "it holds other, tiny_ct_segmentation, expected one folder"),
        ("beside", "it holds evil, tiny_ct_segmentation, expected one folder"),
        ("bomb", r"models/x.pt' grows from \d+ to 8388608 bytes"),
        ("many", r"it has \d+ members, expected at most 1000"),
        ("changed", r"sha256 of 'configs/train.yaml' differs \(.*… ≠ .*…\); the file was changed or damaged"),
        ("missing", "'configs/train.yaml' is listed and not there"),
        ("unlisted", "'configs/extra.yaml' is not in checksums.sha256"),
        ("no list", "it has no checksums.sha256; expected an archive that `medseg package` wrote"),
    ],
)
def test_an_archive_that_lies_is_refused(change, sentence, package, tmp_path):
    path = rewritten(package, change)
    target = tmp_path / "in"
    with pytest.raises(ModelError, match=sentence) as refusal:
        unpack(path, target)
    assert str(refusal.value).startswith(f"{path} refused: ")
    assert not target.exists() or list(target.iterdir()) == []
    assert not (tmp_path / "evil").exists() and not Path("/tmp/evil").exists()


def test_the_size_is_limited(package, tmp_path, capsys):
    assert main(["unpack", str(package), "--output", str(tmp_path / "in"), "--max_gib", "0.00001"]) == 4
    assert "GiB unpacked, allowed are 1e-05 (--max_gib)" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "text", "flipped"])
def test_a_damaged_archive(damage, package, tmp_path):
    data = bytearray(package.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "text":
        data = bytearray(b"<html>")
    else:
        place = data.index(b"PK\x01\x02") // 2
        data[place] ^= 255
    package.write_bytes(data)
    with pytest.raises(MedsegError, match="is no sound zip archive|refused: sha256"):
        unpack(package, tmp_path / "in")
    assert not (tmp_path / "in" / "tiny_ct_segmentation").exists()


def test_a_member_that_grows_beyond_what_it_declares(package, tmp_path):
    """The directory of the archive is changed: it declares 10 bytes for a member that holds more."""
    data = bytearray(package.read_bytes())
    name = b"tiny_ct_segmentation/LICENSE"
    entry = data.rindex(name) - 46  # in the central directory
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + 24 : entry + 28] = (10).to_bytes(4, "little")
    package.write_bytes(data)
    with pytest.raises(ModelError, match="is no sound zip archive"):
        unpack(package, tmp_path / "in")


def test_by_command(run, tmp_path, capsys):
    assert main(["package", str(run), "--output", str(tmp_path / "x.zip")]) == 0
    assert main(["unpack", str(tmp_path / "x.zip"), "--output", str(tmp_path / "in")]) == 0
    assert f"bundle: {tmp_path / 'in' / 'tiny_ct_segmentation'}" in capsys.readouterr().out
    assert main(["unpack", str(tmp_path / "absent.zip"), "--output", str(tmp_path / "in2")]) == 4
    assert "absent.zip not found" in capsys.readouterr().err
    with zipfile.ZipFile(io.BytesIO((tmp_path / "x.zip").read_bytes())) as archive:
        assert archive.testzip() is None

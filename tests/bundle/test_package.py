"""A bundle as a zip file: complete, without this machine's traces, and unpacked only if it is sound."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from medseg.bundle.package import package, unpack
from medseg.cli import main
from medseg.errors import ConfigError, ModelError
from medseg.shipped import find_list
from medseg.weights import read_state_dict, save_file

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(ROOT / "bundles" / "ssh_unet_btcv_ct_segmentation", folder)
    text = (folder / "configs" / "train.yaml").read_text()
    (folder / "configs" / "train.yaml").write_text(text.replace("/data/btcv", f"{tmp_path}/secret place"))
    save_file({"a": torch.arange(3.0)}, folder / "models" / "model.pt")
    save_file({"a": torch.zeros(1)}, folder / "models" / "initial.pt")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.pt").write_bytes(b"state")
    (folder / "log.txt").write_text("log")
    return folder


def test_there_and_back(bundle: Path, tmp_path: Path) -> None:
    members = package(bundle, tmp_path / "mine.zip")
    assert {"mine/SHA256SUMS", "mine/models/model.pt", "mine/configs/train.yaml", "mine/LICENSE"} <= set(members)
    assert not [name for name in members if "checkpoints" in name or "log.txt" in name or "initial" in name]
    folder = unpack(tmp_path / "mine.zip", tmp_path / "there")
    assert folder == tmp_path / "there" / "mine"
    assert torch.equal(read_state_dict(folder / "models" / "model.pt")["a"], torch.arange(3.0))
    for file in folder.rglob("*"):
        assert not file.is_file() or str(tmp_path).encode() not in file.read_bytes(), file
    text = (folder / "configs" / "train.yaml").read_text()
    assert "dataset_dir: data\n" in text and "name: configs/btcv.json}" in text
    assert (folder / "configs" / "btcv.json").read_bytes() == find_list("btcv").read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        unpack(tmp_path / "mine.zip", tmp_path / "there")
    with pytest.raises(ConfigError, match="new file"):
        package(bundle, tmp_path / "mine.zip")


def test_a_folder_without_weights_is_not_packed(bundle: Path, tmp_path: Path) -> None:
    (bundle / "models" / "model.pt").unlink()
    with pytest.raises(ModelError, match="model.pt is missing"):
        package(bundle, tmp_path / "a.zip")
    with pytest.raises(ModelError, match="is not a bundle"):
        package(tmp_path, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def change(archive: Path, changed: Path, add: dict[str, bytes], drop: str = "", mode: int = 0o644) -> Path:
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(changed, "w") as new:
        for info in old.infolist():
            if info.filename != drop:
                new.writestr(info, add.pop(info.filename, None) or old.read(info))
        for name, content in add.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            new.writestr(info, content)
    return changed


@pytest.mark.parametrize(
    ("add", "drop", "mode", "sentence"),
    [
        ({"../../x": b"1"}, "", 0o644, "member '../../x' leaves the target folder"),
        ({"/tmp/x": b"1"}, "", 0o644, "member '/tmp/x' leaves"),
        ({"m/..\\x": b"1"}, "", 0o644, "leaves the target folder"),
        ({"m/link": b"/etc/passwd"}, "", 0o120777, "'m/link' is a link"),
        ({"m/extra.py": b"1"}, "", 0o644, "'extra.py' is not listed"),
        ({"other/file": b"1"}, "", 0o644, "expected one folder"),
        ({"m/LICENSE": b"another"}, "", 0o644, "'LICENSE' differs from its checksum"),
        ({}, "m/LICENSE", 0o644, "'LICENSE' is missing"),
        ({}, "m/SHA256SUMS", 0o644, "no SHA256SUMS"),
    ],
)
def test_what_is_unsound_is_refused_and_leaves_nothing(
    bundle: Path, tmp_path: Path, add: dict[str, bytes], drop: str, mode: int, sentence: str
) -> None:
    package(bundle, tmp_path / "m.zip")
    bad = change(tmp_path / "m.zip", tmp_path / "bad.zip", add, drop, mode)
    with pytest.raises(ModelError, match=sentence.replace("..", r"\.\.")):
        unpack(bad, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a_cut_or_too_large_archive_is_refused(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(bundle, tmp_path / "m.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "m.zip").read_bytes()[:500])
    with pytest.raises(ModelError, match="cannot be unpacked"):
        unpack(tmp_path / "cut.zip", tmp_path / "out")
    monkeypatch.setattr("medseg.bundle.package._LARGEST", 100)
    with pytest.raises(ModelError, match="after unpacking"):
        unpack(tmp_path / "m.zip", tmp_path / "out")


def test_equal_bundles_give_equal_bytes_and_other_tools_can_check_them(bundle: Path, tmp_path: Path) -> None:
    package(bundle, tmp_path / "m.zip")
    (tmp_path / "again").mkdir()
    package(bundle, tmp_path / "again" / "m.zip")
    assert (tmp_path / "m.zip").read_bytes() == (tmp_path / "again" / "m.zip").read_bytes()
    folder = unpack(tmp_path / "m.zip", tmp_path / "there")
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def test_links_and_hidden_files_stay_behind(bundle: Path, tmp_path: Path) -> None:
    (bundle / "docs" / "link.md").symlink_to("/etc/hostname")
    (bundle / "docs" / ".notes.md").write_text("mine")
    assert not [name for name in package(bundle, tmp_path / "m.zip") if "link" in name or "notes" in name]


@pytest.mark.parametrize("place", ["home", "bundle", "existing", "datalist"])
def test_a_path_of_this_machine_is_named(place: str, bundle: Path, tmp_path: Path) -> None:
    path = bundle / "configs" / ("datalist.json" if place == "datalist" else "evaluate.yaml")
    value = {"home": f"{Path.home()}/x", "bundle": f"{bundle}/x", "existing": "/etc"}.get(place, f"{bundle}/a.nii.gz")
    old = path.read_text() if path.exists() else ""
    path.write_text(f'{old}\nmy_dir: "{value}"\n' if place != "datalist" else json.dumps({"training": [value]}))
    with pytest.raises(ModelError, match=f"configs/{path.name}: '{value}'.*Make them relative"):
        package(bundle, tmp_path / "m.zip")
    assert not (tmp_path / "m.zip").exists()


@pytest.mark.parametrize(
    ("name", "mode", "content", "sentence"),
    [
        ("C:/x", 0o644, b"1", "leaves the target folder"),
        ("m/./x", 0o644, b"1", "leaves the target folder"),
        ("m/a\nb", 0o644, b"1", "leaves the target folder"),
        ("x", 0o644, b"1", "expected one folder"),
        ("m/CONFIGS/train.yaml", 0o644, b"1", "appears twice"),
        ("m/tty", 0o020644, b"", "'m/tty' is a link or a device"),
        ("m/models/x.pt", 0o644, bytes(8 << 20), "grows from [0-9]+ to 8388608 bytes"),
    ],
)
def test_more_lies_of_archives(
    bundle: Path, tmp_path: Path, name: str, mode: int, content: bytes, sentence: str
) -> None:
    package(bundle, tmp_path / "m.zip")
    with zipfile.ZipFile(tmp_path / "m.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    with pytest.raises(ModelError, match=sentence):
        unpack(tmp_path / "m.zip", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a_member_that_is_larger_than_it_declares(bundle: Path, tmp_path: Path) -> None:
    """The archive's directory is changed: it declares 10 bytes for a file that holds 11 thousand."""
    package(bundle, tmp_path / "m.zip")
    data = bytearray((tmp_path / "m.zip").read_bytes())
    entry = data.rindex(b"m/LICENSE") - 46  # in the central directory
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + 24 : entry + 28] = (10).to_bytes(4, "little")
    (tmp_path / "m.zip").write_bytes(data)
    with pytest.raises(ModelError, match="cannot be unpacked"):
        unpack(tmp_path / "m.zip", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_many_members(bundle: Path, tmp_path: Path) -> None:
    package(bundle, tmp_path / "m.zip")
    with zipfile.ZipFile(tmp_path / "m.zip", "a") as archive:
        for number in range(1001):
            archive.writestr(f"m/docs/{number}", b"")
    with pytest.raises(ModelError, match="members, more than 1000"):
        unpack(tmp_path / "m.zip", tmp_path / "out")


def test_by_command(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["package", str(bundle), "--output", str(tmp_path / "m.zip")]) == 0
    assert main(["unpack", str(tmp_path / "m.zip"), "--output", str(tmp_path / "in")]) == 0
    assert f"bundle: {tmp_path / 'in' / 'm'}" in capsys.readouterr().out
    assert main(["unpack", str(tmp_path / "absent.zip"), "--output", str(tmp_path / "in2")]) == 4
    assert "absent.zip not found" in capsys.readouterr().err

"""A bundle as one zip file with checksums, and back, safely: nothing in an archive is believed before it is checked."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from medseg.bundle.folder import PREVIOUS
from medseg.data.content import content_hash
from medseg.data.run_settings import ORIGINS
from medseg.errors import ConfigError, ModelError, ResourceError, few
from medseg.settings import File, Folder, takes
from medseg.shipped import find_bundle, find_list, shipped_name
from medseg.storage import read_json, read_yaml
from medseg.submission.archive import write_zip

__all__ = ["SUMS", "PackageSettings", "UnpackSettings", "package", "unpack"]

SUMS = "SHA256SUMS"  # as `sha256sum --check` reads it
_LARGEST = 20 * 2**30  # bytes after unpacking; the largest published networks have 2
_MOST = 1000  # members
_GROWTH = 1000  # of a member; deflate's own limit is 1032, texts reach 20
_BLOCK = 1 << 20
_CONFIGS = (".yaml", ".yml", ".json")
_JSON_LIST = re.compile(r"^(json_list: )([\w/]+)$", re.MULTILINE)
_DATA_DIR = re.compile(r"^(\s*\"?dataset_dir\"?: ).*?(,?)$", re.MULTILINE)


# ---------------------------------------------------------------------- packing
@dataclass(frozen=True)
class PackageSettings:
    """What is packed where.

    Attributes:
        folder: run or bundle folder with weights in models/.
        output: new .zip file; its name without suffix is the folder in the archive.
    """

    folder: Folder = field(metadata={"positional": "DIR"})
    output: File


@takes(PackageSettings)
def package(settings: PackageSettings) -> list[str]:
    """Write a run or bundle as one zip file with checksums, without what only this machine needs.

    It holds configs, docs, licence, weights and a shipped datalist that the configs name. Omitted are checkpoints,
    logs, caches, predictions, links, and the folder of the images, which becomes ``data`` in the configs.

    Returns:
        The archive's members.

    Raises:
        ConfigError: the output is not a zip file or exists.
        ModelError: the folder is not a bundle, has no weights, or names other paths of this machine in its configs.
    """
    root, target = find_bundle(settings.folder).resolve(), Path(settings.output)
    if target.suffix != ".zip" or target.exists():
        raise ConfigError(f"--output {target}: expected a new file that ends in .zip; name another.")
    stages = (root, root / PREVIOUS)  # the latter of a cascade
    found = [path for stage in stages for path in _plain_files(stage / "configs")]
    found = [path for path in found if path.suffix in (*_CONFIGS, ".conf")]
    places = [stage / ORIGINS for stage in stages]  # which name places of this machine
    configs = [path for path in found if path not in places]
    if not any(path.name in ("train.yaml", "inference.yaml") for path in configs):
        raise ModelError(f"{root} is not a bundle: configs/ has neither train.yaml nor inference.yaml.")
    text = "".join(path.read_text(encoding="utf-8") for path in configs)
    weights = [path for stage in stages for path in _plain_files(stage / "models")]
    weights = [path for path in weights if path.name == "model.pt" or path.name in text]
    if root / "models" / "model.pt" not in weights:
        raise ModelError(f"{root / 'models' / 'model.pt'} is missing; train the bundle or import weights first.")
    others = [path for stage in stages for path in (*_plain_files(stage / "docs"), stage / "LICENSE")]
    others = [path for path in (*others, root / "metrics_per_case.csv") if path.is_file()]
    with tempfile.TemporaryDirectory() as scratch:
        files = {path.relative_to(root).as_posix(): path for path in (*configs, *others, *weights)}
        for name in [name for name in files if name.endswith(_CONFIGS) and not name.endswith("/datalist.json")]:
            files[name], lists = _portable(files[name], Path(scratch) / name.replace("/", "_"))
            files |= lists
        _refuse_machine_paths(root, files)
        sums = Path(scratch) / SUMS
        sums.write_text("".join(f"{content_hash(path)}  {name}\n" for name, path in files.items()), encoding="utf-8")
        members = {f"{target.stem}/{name}": path for name, path in {SUMS: sums, **files}.items()}
        write_zip(members, target)
    return list(members)


def _plain_files(folder: Path) -> list[Path]:
    """Files below a folder by name; no links, nothing hidden."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _portable(config: Path, copy: Path) -> tuple[Path, dict[str, Path]]:
    """A config that names neither a folder of this machine nor a shipped datalist, and the lists that it names then."""
    place = '"data"' if config.suffix == ".json" else "data"
    text = _DATA_DIR.sub(lambda match: f"{match[1]}{place}{match[2]}", config.read_text(encoding="utf-8"))
    lists = {}
    named = _JSON_LIST.search(text)
    if named is not None and shipped_name(named[2]) and find_list(named[2]).suffix == ".json":
        place = f"configs/{named[2].replace('/', '_')}.json"
        lists[place] = find_list(named[2])
        text = _JSON_LIST.sub(rf"\1{{_target_: medseg.workflows.inside, root: '@bundle_root', name: {place}}}", text)
    copy.write_text(text, encoding="utf-8")
    return copy, lists


def _refuse_machine_paths(root: Path, files: dict[str, Path]) -> None:
    """Texts of configs and datalists that are paths here: in a home folder, in the bundle, or absolute and existing."""
    homes = [str(path) for path in (Path.home(), root, Path.cwd()) if len(path.parts) > 2 or path == Path.home()]

    def local(text: str) -> bool:
        absolute = text.startswith(("/", "~/")) or re.match(r"[A-Za-z]:[\\/]", text) is not None
        return any(home in text for home in homes) or (absolute and len(text) > 1 and Path(text).expanduser().exists())

    named = []
    for name, path in files.items():
        if name.endswith(_CONFIGS):
            loaded = read_json(path) if name.endswith(".json") else read_yaml(path, ModelError)
            named += [f"{name}: '{text}'" for text in dict.fromkeys(_texts(loaded)) if local(text)]
    if named:
        raise ModelError(
            f"{root} names paths that only this machine has: {few(named)}. "
            "Make them relative, to the folder of the images or with @bundle_root."
        )


def _texts(value: Any) -> Iterator[str]:
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(item)
    if isinstance(value, str):
        yield value


# ---------------------------------------------------------------------- unpacking
@dataclass(frozen=True)
class UnpackSettings:
    """What is unpacked where.

    Attributes:
        archive: zip file of `medseg package`.
        output: folder for the bundle's folder.
    """

    archive: File = field(metadata={"positional": "FILE"})
    output: Folder


@takes(UnpackSettings)
def unpack(settings: UnpackSettings) -> Path:
    """Unpack a bundle of `medseg package`, after a check of every member and checksum; else nothing is written.

    Returns:
        The bundle's folder below ``output``.

    Raises:
        ConfigError: the folder exists.
        ModelError: no zip file, a member that would leave the folder, is a link or lacks its checksum, or content that
            differs from its checksum or is too large.
        ResourceError: the disk has too little room, or cannot be written.
    """
    path, parent = Path(settings.archive), Path(settings.output)
    if not path.is_file():
        raise ModelError(f"{path} not found; name an archive that `medseg package` wrote.")
    try:
        with zipfile.ZipFile(path) as opened:
            members = _checked_members(opened, path)
            target = parent / PurePosixPath(members[0].filename).parts[0]
            if target.exists():
                raise ConfigError(f"{target} exists; name another --output folder, or remove it.")
            parent.mkdir(parents=True, exist_ok=True)
            needed, free = sum(member.file_size for member in members), shutil.disk_usage(parent).free
            if needed > free:
                raise ResourceError(f"{path} needs {needed >> 20} MiB, {parent} has {free >> 20} left; free some.")
            with tempfile.TemporaryDirectory(dir=parent, prefix=".partial_") as scratch:
                found = dict(_extract(opened, member, Path(scratch)) for member in members)
                _check_sums(Path(scratch) / SUMS, found, path)
                (Path(scratch) / "done").mkdir()
                for item in [item for item in Path(scratch).iterdir() if item.name != "done"]:
                    os.replace(item, Path(scratch) / "done" / item.name)
                os.replace(Path(scratch) / "done", target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be unpacked ({error}); copy or download it again.") from error
    except OSError as error:
        raise ResourceError(f"{path} could not be written to {parent} ({error}); fix that and repeat.") from error
    return target


def _checked_members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The files of the archive, after all checks that need no extraction."""
    infos = archive.infolist()
    if len(infos) > _MOST:
        raise ModelError(f"{path} refused: it has {len(infos)} members, more than {_MOST}.")
    seen = set()
    for info in infos:
        name = info.filename
        parts = name.removesuffix("/").split("/")
        plain = name.isprintable() and not set(name) & {"\\", ":"} and "\\" not in info.orig_filename
        if not plain or any(part in ("", ".", "..") for part in parts):
            raise ModelError(f"{path} refused: member '{info.orig_filename}' leaves the target folder.")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ModelError(f"{path} refused: member '{name}' is a link or a device.")
        if info.flag_bits & 1:
            raise ModelError(f"{path} refused: member '{name}' is encrypted.")
        if name.lower() in seen:
            raise ModelError(f"{path} refused: member '{name}' appears twice.")
        if info.file_size > _GROWTH * max(info.compress_size, 1):
            raise ModelError(
                f"{path} refused: member '{name}' grows from {info.compress_size} to {info.file_size} bytes."
            )
        seen.add(name.lower())
    members = [info for info in infos if not info.is_dir()]
    if len({info.filename.partition("/")[0] for info in infos}) != 1 or any("/" not in m.filename for m in members):
        raise ModelError(f"{path} refused: expected one folder with a bundle, as `medseg package` writes it.")
    size = sum(info.file_size for info in members)
    if size > _LARGEST:
        raise ModelError(f"{path} refused: {size / 2**30:.3g} GiB after unpacking, more than {_LARGEST / 2**30:.3g}.")
    if not members:
        raise ModelError(f"{path} refused: it is empty.")
    return members


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> tuple[str, str]:
    """Write one member below ``folder``, never more than it declares; its name in the bundle and its SHA-256."""
    name = member.filename.partition("/")[2]
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), member.file_size
    with archive.open(member) as source, (folder / name).open("xb") as copy:
        while block := source.read(min(_BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise zipfile.BadZipFile(f"member '{member.filename}' is larger than it declares")
            digest.update(block)
            copy.write(block)
    return name, digest.hexdigest()


def _check_sums(sums: Path, found: dict[str, str], path: Path) -> None:
    if found.pop(SUMS, None) is None:
        raise ModelError(f"{path} refused: it has no {SUMS}; pack it with `medseg package`.")
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    stated = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in {**stated, **found}:
        if name not in stated or name not in found:
            raise ModelError(f"{path} refused: '{name}' is {'not listed' if name in found else 'missing'}.")
        if found[name] != stated[name]:
            raise ModelError(f"{path} refused: '{name}' differs from its checksum; copy or download it again.")

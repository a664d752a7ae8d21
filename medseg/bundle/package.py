"""A bundle as one zip with checksums, and back; nothing in an archive is believed before it is checked.

The zip holds ``configs``, ``docs``, ``models``, ``LICENSE`` and ``checksums.sha256``, which ``sha256sum -c`` reads, in one
folder of the bundle's name. Equal bundles give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from medseg.errors import ConfigError, ModelError, ResourceError

__all__ = ["CHECKSUMS", "MAX_GIB", "machine_paths", "pack", "unpack"]

CHECKSUMS = "checksums.sha256"
MAX_GIB = 8.0  # of an unpacked bundle; the largest published networks have some hundred MiB
_MAX_MEMBERS = 1000
_MAX_RATIO = 1000  # deflate's own limit is 1032; weights reach 1.1, text 20
_WANTED = {
    "configs": (".yaml", ".yml", ".json", ".conf"),
    "docs": (".md", ".txt", ".png", ".jpg", ".svg"),
    "models": (".pt", ".ts", ".pt2", ".onnx"),
}
_FILES = ("LICENSE", "large_files.yml")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's first day
_BLOCK = 1 << 20
_DATASET_DIR = re.compile(r"^(\s*[\"']?dataset_dir[\"']?\s*:\s*)(.*?)(,?\s*(?:#.*)?)$", re.MULTILINE)


# ---------------------------------------------------------------------- packing
def pack(bundle: str | Path, output: str | Path) -> Path:
    """Write a bundle's configs, docs, licence and weights to a zip; caches, predictions, logs and scores stay behind.

    ``dataset_dir``, which names a folder of this machine, becomes ``/data``.

    Raises:
        ModelError: the folder is no bundle, or a file in it names another path of this machine.
        ConfigError: ``output`` does not end in ``.zip``, or exists.
    """
    root, target = Path(bundle).resolve(), Path(output)
    if target.suffix != ".zip":
        raise ConfigError(f"{target} is no name for an archive; expected FILE.zip.")
    if target.exists():
        raise ConfigError(f"{target} exists already; name another --output, or remove it.")
    if not (root / "configs" / "metadata.json").is_file():
        raise ModelError(f"{root} is no bundle: configs/metadata.json is missing; make one with `medseg new-bundle`.")
    content = {path.relative_to(root).as_posix(): _cleaned(path) for path in _members(root)}
    named = [f"{name}: {found}" for name, data in content.items() for found in machine_paths(name, data, root)]
    if named:
        raise ModelError(
            f"{root} names paths of this machine, which others do not have: {'; '.join(named[:5])}"
            f"{'; …' if len(named) > 5 else ''}. Make them relative to dataset_dir or bundle_root."
        )
    content[CHECKSUMS] = "".join(f"{_digest(data)}  {name}\n" for name, data in content.items()).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".partial")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            member = zipfile.ZipInfo(f"{root.name}/{name}", _EPOCH)
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(member, data)
    os.replace(temporary, target)
    return target


def _members(root: Path) -> Iterator[Path]:
    """The files that belong to a bundle, in a fixed order; links are left out."""
    for folder, suffixes in _WANTED.items():
        for path in sorted((root / folder).rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
            if path.is_file() and not path.is_symlink() and path.suffix in suffixes and not hidden:
                yield path
    yield from (root / name for name in _FILES if (root / name).is_file())


def _cleaned(path: Path) -> bytes:
    data = path.read_bytes()
    if path.parent.name != "configs" or path.suffix not in (".yaml", ".yml", ".json") or path.name == "datalist.json":
        return data
    place = json.dumps("/data") if path.suffix == ".json" else "/data"
    return _DATASET_DIR.sub(lambda match: f"{match[1]}{place}{match[3]}", data.decode("utf-8")).encode()


def machine_paths(name: str, data: bytes, root: Path) -> list[str]:
    """Texts of a config or datalist that are paths of this machine: in a home folder, in the bundle, or existing.

    Args:
        name: file name; other kinds than YAML and JSON hold none.
        data: its content.
        root: the bundle's folder.
    """
    if not name.endswith((".yaml", ".yml", ".json")):
        return []
    homes = (str(Path.home()), str(root), str(Path.cwd()))

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                yield from texts(item)
        elif isinstance(value, str):
            yield value

    def local(text: str) -> bool:
        inside = any(len(home) > 1 and home in text for home in homes)
        absolute = text.startswith(("/", "~")) or re.match(r"[A-Za-z]:[\\/]", text) is not None
        return inside or (absolute and text not in ("/", "/data") and Path(text).expanduser().exists())

    return list(dict.fromkeys(text for text in texts(yaml.safe_load(data.decode("utf-8"))) if local(text)))


# ---------------------------------------------------------------------- unpacking
def unpack(file: str | Path, output: str | Path, *, max_gib: float = MAX_GIB) -> Path:
    """Check an archive of ``pack``, then extract it below ``output``; all of it or nothing.

    Args:
        file: the zip.
        output: the folder that will hold the bundle's folder.
        max_gib: largest size when unpacked.

    Returns:
        The bundle's folder.

    Raises:
        ModelError: damaged, a member that leaves the folder or is no plain file, too large, a file that is not listed,
            missing or changed.
        ConfigError: the bundle's folder exists already.
        ResourceError: the disk has too little room.
    """
    path, parent = Path(file), Path(output)
    if not path.is_file():
        raise ModelError(f"{path} not found; name an archive that `medseg package` wrote.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked(path, archive, max_gib)
            name = PurePosixPath(members[0].filename).parts[0]
            target = parent / name
            if target.exists():
                raise ConfigError(f"{target} exists already; name another --output folder, or remove it.")
            needed = sum(member.file_size for member in members)
            parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(parent).free
            if needed > free:
                raise ResourceError(f"{path} needs {needed >> 20} MiB unpacked, {parent} has {free >> 20}; free some.")
            temporary = parent / f".partial_{name}"
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                found = {m.filename.partition("/")[2]: _extract(archive, m, temporary) for m in members}
                _compare(path, found, temporary)
                os.replace(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ModelError(f"{path} is no sound zip archive ({error}); copy it again.") from error
    except OSError as error:
        raise ResourceError(
            f"{path} could not be unpacked to {parent} ({error}); mend that, then repeat it."
        ) from error
    return target


def _checked(path: Path, archive: zipfile.ZipFile, max_gib: float) -> list[zipfile.ZipInfo]:
    """The members that are files, after the checks that need no extraction."""

    def refuse(reason: str) -> ModelError:
        return ModelError(f"{path} refused: {reason}. Nothing was extracted; get the archive from its author again.")

    infos = archive.infolist()
    if len(infos) > _MAX_MEMBERS:
        raise refuse(f"it has {len(infos)} members, expected at most {_MAX_MEMBERS}")
    tops, seen = set(), set()
    for info in infos:
        name = info.filename
        parts = name.removesuffix("/").split("/")
        absolute = name.startswith("/") or "\\" in info.orig_filename or ":" in parts[0]
        if absolute or any(part in ("", ".", "..") for part in parts) or not name.isprintable():
            raise refuse(f"member '{info.orig_filename}' leaves the target folder")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise refuse(f"member '{name}' is a link or a device, expected plain files")
        if info.flag_bits & 1:
            raise refuse(f"member '{name}' is encrypted")
        if name.lower() in seen:
            raise refuse(f"member '{name}' is there twice")
        if info.file_size > _MAX_RATIO * max(info.compress_size, 1):
            raise refuse(f"member '{name}' grows from {info.compress_size} to {info.file_size} bytes")
        seen.add(name.lower())
        tops.add(parts[0])
    files = [info for info in infos if not info.is_dir()]
    size = sum(info.file_size for info in files)
    if size > max_gib * 2**30:
        raise refuse(f"it has {size / 2**30:.3g} GiB unpacked, allowed are {max_gib:g} (--max_gib)")
    if len(tops) != 1 or any("/" not in info.filename for info in files) or not files:
        raise refuse(f"it holds {', '.join(sorted(tops)[:3]) or 'nothing'}, expected one folder")
    return files


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> str:
    """Write one member below ``target``, never more than it declares; its SHA-256."""
    place = target / member.filename.partition("/")[2]
    place.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), member.file_size
    with archive.open(member) as source, place.open("xb") as sink:
        while block := source.read(min(_BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise zipfile.BadZipFile(f"member '{member.filename}' is larger than it declares")
            digest.update(block)
            sink.write(block)
    return digest.hexdigest()


def _compare(path: Path, found: dict[str, str], folder: Path) -> None:
    """Hold the extracted files against the list of checksums."""
    listing = folder / CHECKSUMS
    if CHECKSUMS not in found:
        raise ModelError(f"{path} refused: it has no {CHECKSUMS}; expected an archive that `medseg package` wrote.")
    lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    del found[CHECKSUMS]
    for name in sorted(listed.keys() | found.keys()):
        if name not in found:
            raise ModelError(f"{path} refused: '{name}' is listed and not there; get the archive again.")
        if name not in listed:
            raise ModelError(f"{path} refused: '{name}' is not in {CHECKSUMS}; get the archive from its author again.")
        if listed[name] != found[name]:
            raise ModelError(
                f"{path} refused: sha256 of '{name}' differs ({found[name][:12]}… ≠ {listed[name][:12]}…); the file was "
                "changed or damaged, get the archive again."
            )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""A bundle as one zip file with checksums, and back, safely."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from medseg.errors import ConfigError, ModelError
from medseg.submission.archive import write_zip

__all__ = ["package", "unpack"]

_SUMS = "SHA256SUMS"  # as `sha256sum --check` reads it
_LARGEST = 20 * 2**30  # bytes after unpacking; the largest published networks have 2
_DATA_DIR = re.compile(r"^dataset_dir: .*$", re.MULTILINE)


def package(folder: str | Path, output: str | Path) -> list[str]:
    """Write a run or bundle as a zip file: configs, docs, licence and weights, each with its checksum.

    Left out is what only this machine needs: checkpoints, logs, caches, predictions, and the folder of the images,
    which becomes ``data`` in the configs.

    Args:
        folder: of a run or a bundle, with weights in ``models/``.
        output: ``….zip``; its name without suffix is the folder in the archive.

    Returns:
        The archive's members.

    Raises:
        ConfigError: the output is no zip file or exists.
        ModelError: the folder is no bundle, or has no weights.
    """
    root, target = Path(folder).resolve(), Path(output)
    if target.suffix != ".zip" or target.exists():
        raise ConfigError(f"--output {target}: expected a new file that ends in .zip; name another.")
    configs = sorted(path for path in (root / "configs").glob("*") if path.is_file())
    if not any(path.name in ("train.yaml", "inference.yaml") for path in configs):
        raise ModelError(f"{root} is no bundle: configs/ has neither train.yaml nor inference.yaml.")
    text = "".join(path.read_text(encoding="utf-8") for path in configs if path.suffix != ".pt")
    weights = [path for path in sorted((root / "models").glob("*")) if path.name == "model.pt" or path.name in text]
    if not any(path.name == "model.pt" for path in weights):
        raise ModelError(f"{root / 'models' / 'model.pt'} is missing; train the bundle or import weights first.")
    others = [path for path in sorted((root / "docs").rglob("*")) if path.is_file()]
    others += [path for path in (root / "LICENSE", root / "metrics_per_case.csv") if path.is_file()]
    with tempfile.TemporaryDirectory() as scratch:
        files = {path.relative_to(root).as_posix(): path for path in (*configs, *others, *weights)}
        for name in [name for name in files if name.endswith((".yaml", ".yml"))]:
            files[name] = _without_data_dir(files[name], Path(scratch) / Path(name).name)
        sums = Path(scratch) / _SUMS
        sums.write_text("".join(f"{_digest(path)}  {name}\n" for name, path in files.items()), encoding="utf-8")
        members = {f"{target.stem}/{name}": path for name, path in {_SUMS: sums, **files}.items()}
        write_zip(members, target)
    return list(members)


def unpack(archive: str | Path, output: str | Path) -> Path:
    """Unpack what ``package`` wrote; nothing is written before every member was checked.

    Returns:
        The bundle's folder below ``output``.

    Raises:
        ConfigError: the folder exists.
        ModelError: no zip file, a member that would leave the folder, is a link or lacks its checksum, or content that
            differs from its checksum or is too large.
    """
    path = Path(archive)
    try:
        with zipfile.ZipFile(path) as opened:
            names = _checked_members(opened, path)
            target = Path(output) / names[0].parts[0]
            if target.exists():
                raise ConfigError(f"{target} exists; name another --output folder, or remove it.")
            Path(output).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=output, prefix=".partial_") as scratch:
                for name in names:
                    file = Path(scratch).joinpath(*name.parts)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(name.as_posix()) as source, file.open("wb") as copy:
                        shutil.copyfileobj(source, copy, 1 << 20)
                _check_sums(Path(scratch) / names[0].parts[0], path)
                os.replace(Path(scratch) / names[0].parts[0], target)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ModelError(f"{path} cannot be unpacked ({error}); copy or download it again.") from error
    return target


def _checked_members(archive: zipfile.ZipFile, path: Path) -> list[PurePosixPath]:
    members = [info for info in archive.infolist() if not info.is_dir()]
    for info in members:
        name = PurePosixPath(info.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in info.filename or ":" in info.filename:
            raise ModelError(f"{path} refused: member '{info.filename}' leaves the target folder.")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ModelError(f"{path} refused: member '{info.filename}' is a link.")
    names = [PurePosixPath(info.filename) for info in members]
    if len({name.parts[0] for name in names}) != 1 or any(len(name.parts) < 2 for name in names):
        raise ModelError(f"{path} refused: expected one folder with a bundle, as `medseg package` writes it.")
    if len(set(names)) < len(names):
        raise ModelError(f"{path} refused: a member appears twice.")
    size = sum(info.file_size for info in members)
    if size > _LARGEST:
        raise ModelError(f"{path} refused: {size / 2**30:.0f} GiB after unpacking, more than {_LARGEST // 2**30}.")
    return names


def _check_sums(folder: Path, path: Path) -> None:
    sums = folder / _SUMS
    if not sums.is_file():
        raise ModelError(f"{path} refused: it has no {_SUMS}; pack it with `medseg package`.")
    stated = {
        name: digest for digest, _, name in (line.partition("  ") for line in sums.read_text("utf-8").splitlines())
    }
    present = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    del present[_SUMS]
    for name in {**stated, **present}:
        if name not in stated or name not in present:
            raise ModelError(f"{path} refused: '{name}' is {'not listed' if name in present else 'missing'}.")
        if _digest(present[name]) != stated[name]:
            raise ModelError(f"{path} refused: '{name}' differs from its checksum; copy or download it again.")


def _without_data_dir(config: Path, copy: Path) -> Path:
    copy.write_text(_DATA_DIR.sub("dataset_dir: data", config.read_text(encoding="utf-8")), encoding="utf-8")
    return copy


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

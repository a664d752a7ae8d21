"""Get a published bundle: the one command that touches the network, after asking, and only for what its hash names."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, urlsplit

from medseg.bundle.package import SUMS, unpack
from medseg.data.content import content_hash
from medseg.errors import ConfigError, ModelError, ResourceError
from medseg.settings import Folder, takes

__all__ = ["FetchSettings", "address_of", "fetch"]

_HUB = "https://huggingface.co/{name}/resolve/main"
_LARGEST = 20 * 2**30  # bytes of a file
_BLOCK = 1 << 20
_SECONDS = 60  # without an answer
_LINE = re.compile(r"([0-9a-f]{64})  ([^\\:]+)")


@dataclass(frozen=True)
class FetchSettings:
    """What is fetched.

    Attributes:
        source: OWNER/NAME on huggingface.co, address of such a repository's files, or of a zip of `medseg package`.
        sha256: SHA-256 of the zip file, or of the repository's SHA256SUMS, which `medseg publish` prints.
        output: folder for the bundle's folder.
        yes: download without asking.
    """

    source: str = field(metadata={"positional": "NAME|URL"})
    sha256: str
    output: Folder
    yes: bool = False


@takes(FetchSettings)
def fetch(settings: FetchSettings) -> Path:
    """Download a published bundle, once you agree, and check every file by its SHA-256.

    What is there of a download that was stopped is kept, and the same command resumes it.

    Returns:
        The bundle's folder.

    Raises:
        ConfigError: the source or the hash is not valid, the folder exists, or nobody agreed.
        ModelError: a file is not what its hash says.
        ResourceError: the network or the server does not answer.
    """
    address = address_of(settings.source)
    if not re.fullmatch(r"[0-9a-f]{64}", settings.sha256):
        raise ConfigError(f"--sha256 {settings.sha256} is not valid; expected 64 digits 0-9a-f, as published with it.")
    name = Path(urlsplit(address.removesuffix("/resolve/main")).path).name
    target = Path(settings.output) / name.removesuffix(".zip")
    if not name.strip("."):
        raise ConfigError(f"{settings.source} names no bundle; expected an address that ends in its name.")
    if target.exists():
        raise ConfigError(f"{target} exists; expected a new folder. Name another --output, or remove it.")
    _agree(address, target, yes=settings.yes)
    scratch = target.with_name(f".partial_{target.name}_{settings.sha256[:8]}")
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        if name.endswith(".zip"):
            unpack(_download(address, scratch / name, settings.sha256), output=settings.output)
            shutil.rmtree(scratch, ignore_errors=True)
        else:
            sums = _download(f"{address}/{SUMS}", scratch / SUMS, settings.sha256)
            for digest, file in _listed(sums):
                _download(f"{address}/{quote(file)}", scratch / file, digest)
            os.replace(scratch, target)
    finally:
        with contextlib.suppress(OSError):
            scratch.rmdir()  # where nothing came, nothing is kept
    return target


def address_of(source: str) -> str:
    """Address of a published folder's files, or of a zip file.

    Raises:
        ConfigError: neither OWNER/NAME nor an address.
    """
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        return _HUB.format(name=source)
    if urlsplit(source).scheme in ("http", "https") and urlsplit(source).hostname:
        return source.rstrip("/")
    raise ConfigError(f"'{source}' is not valid; expected OWNER/NAME, or an address that begins with http. Correct it.")


def _agree(address: str, target: Path, *, yes: bool) -> None:
    if yes:
        return
    question = f"Download {address} to {target}?"
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody can be asked here; say --yes to agree.")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("Nothing was downloaded; answer y, or say --yes, to agree.")


def _listed(sums: Path) -> list[tuple[str, str]]:
    """(SHA-256, file) of the lines of SHA256SUMS; each file lies in the folder."""
    found = []
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None or any(part in ("", ".", "..") for part in match[2].split("/")):
            raise ModelError(f"{SUMS} is damaged: '{line[:80]}' is not a SHA-256 and a file in the folder.")
        found.append((match[1], match[2]))
    return found


def _download(address: str, file: Path, digest: str) -> Path:
    """A file whose SHA-256 is known; it is there as a whole, or as ``.part``."""
    if file.is_file() and content_hash(file) == digest:
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            resumed = answer.status == 206
            size = have if resumed else 0
            with part.open("ab" if resumed else "wb") as copy:
                while block := answer.read(_BLOCK):
                    size += len(block)
                    if size > _LARGEST:
                        raise ModelError(f"{address} refused: larger than {_LARGEST >> 30} GiB.")
                    copy.write(block)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: all of it is there
            raise ResourceError(f"{address} answers {error.code} {error.reason}; check its name, or repeat.") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ResourceError(
            f"{address} cannot be reached ({reason}); repeat the command where there is a network, or copy the folder "
            "or zip file here by other means and use it with --bundle or `medseg unpack`."
        ) from error
    if (found := content_hash(part)) != digest:
        part.unlink()
        raise ModelError(f"{address} has the SHA-256 {found}, expected {digest}; it is damaged or another file.")
    os.replace(part, file)
    return file

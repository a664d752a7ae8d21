"""Zip archives: the same files give the same bytes; written whole or not at all."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from medseg.errors import ResourceError
from medseg.storage import whole_file

__all__ = ["write_zip"]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of zip files: their time is not part of a submission


def write_zip(files: Mapping[str, Path], output: Path) -> None:
    """Write ``{member name: file}`` in the order given, read the archive back, then give it its name.

    Raises:
        ResourceError: the disk is full, or what was written does not read back.
    """
    with whole_file(output) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for member, file in files.items():
                info = zipfile.ZipInfo(member, _EPOCH)
                info.compress_type = zipfile.ZIP_STORED if member.endswith(".gz") else zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                with file.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, 1 << 20)
        with zipfile.ZipFile(temporary) as archive:
            if archive.namelist() != list(files) or archive.testzip() is not None:
                raise ResourceError(f"{output} does not read back as it was written; check the disk and try again.")

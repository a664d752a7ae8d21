"""What comes with medseg, by name: bundles (``ssh_unet_btcv_ct_segmentation``) and datalists (``btcv``,
``hermes/universal``).

An installed medseg has them in the package; a checkout, and what is installed from it as editable, beside it.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "citation_file",
    "find_bundle",
    "find_list",
    "is_installed",
    "shipped_bundles",
    "shipped_lists",
    "shipped_name",
]

_PACKAGE = Path(__file__).parent
_SUFFIXES = (".json", ".yaml")


def find_bundle(place: str | Path) -> Path:
    """The folder of a bundle: ``place`` itself, unless it is the name of a shipped one and not a folder."""
    path = Path(place)
    return path if path.is_dir() else shipped_bundles().get(str(place), path)


def find_list(path: str | Path) -> Path:
    """The file of a datalist: ``path`` itself, unless it is the name of a shipped one and not a file."""
    name = shipped_name(path)
    return Path(path) if name is None else shipped_lists()[name]


def shipped_name(path: str | Path) -> str | None:
    """``path`` as the name of a shipped datalist; ``None`` where it is a file, or not the name of one."""
    name = Path(path).as_posix()
    return name if not Path(path).is_file() and name in shipped_lists() else None


def shipped_bundles() -> dict[str, Path]:
    """Name -> folder of the bundles."""
    return {path.parent.name: path.parent for path in sorted(_folder("bundles").glob("*/recipe.yaml"))}


def shipped_lists() -> dict[str, Path]:
    """Name -> file of the datalists."""
    root = _folder("data_json")
    found = sorted(path for path in root.rglob("*") if path.suffix in _SUFFIXES)
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in found}


def citation_file() -> Path:
    """``CITATION.cff``: medseg and the papers of the five systems."""
    installed = _PACKAGE / "_citation" / "CITATION.cff"
    return installed if installed.is_file() else _PACKAGE.parent / "CITATION.cff"


def is_installed(path: Path) -> bool:
    """Whether a file or folder is part of the installed package, which nothing is written into."""
    return path.resolve().is_relative_to(_PACKAGE.resolve())


def _folder(name: str) -> Path:
    installed = _PACKAGE / f"_{name}"
    return installed if installed.is_dir() else _PACKAGE.parent / name

"""Whose weights a file holds and on what terms: a text in the documents of its bundle, which goes with them."""

from __future__ import annotations

from pathlib import Path

from medseg.storage import write_text

__all__ = ["notice_file", "read_notice", "write_notice"]


def notice_file(weights: str | Path) -> Path:
    """The notice of a file of weights: ``docs/weights_license.txt`` of a bundle, else beside the file."""
    path = Path(weights)
    if path.parent.name == "models":
        return path.parents[1] / "docs" / "weights_license.txt"
    return path.with_name(f"{path.name}.license.txt")


def read_notice(weights: str | Path) -> str:
    """What is said of a file of weights; empty where nothing is."""
    path = notice_file(weights)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def write_notice(weights: str | Path, text: str) -> Path:
    """Say something of a file of weights; returns the notice's file."""
    path = notice_file(weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path

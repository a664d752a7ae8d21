"""The log of a run, ``log.txt`` in its folder."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path

__all__ = ["log_to", "remove_log", "show_log"]

logger = logging.getLogger("medseg")


def log_to(run: str | Path) -> None:
    """Send medseg's log to ``log.txt`` in the run's folder as well."""
    path = Path(run).resolve() / "log.txt"
    if path.is_file() and any(handler.baseFilename == str(path) for handler in _files()):
        return
    _close_files()
    show_log()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.info("command: %s", shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def show_log() -> None:
    """Let medseg's lines be seen where nobody set up a log: MONAI's own command does not."""
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())
    if logger.getEffectiveLevel() > logging.INFO and logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def remove_log(run: str | Path) -> None:
    """Remove the log of a run that did not come about."""
    _close_files()
    (Path(run) / "log.txt").unlink(missing_ok=True)


def _files() -> list[logging.FileHandler]:
    return [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]


def _close_files() -> None:
    for handler in _files():
        logger.removeHandler(handler)
        handler.close()

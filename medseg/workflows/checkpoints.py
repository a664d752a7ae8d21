"""The weights that a run keeps, by their names."""

from __future__ import annotations

from pathlib import Path

from medseg.bundle.folder import folds_hint
from medseg.errors import ModelError

__all__ = ["WEIGHTS", "kept_checkpoints", "weights_of"]

WEIGHTS = "models/model.pt"


def kept_checkpoints(run: Path) -> dict[str, Path]:
    """Name -> file of the weights that a run keeps: ``best``, ``best_<metric>`` …, ``last``; a bundle has ``best``."""
    folder = run / "checkpoints"
    found = {"best": run / WEIGHTS} | {path.stem: path for path in sorted(folder.glob("best_*.pt"))}
    return {name: path for name, path in (found | {"last": folder / "last.pt"}).items() if path.is_file()}


def weights_of(run: Path, checkpoint: str) -> Path:
    """The weights file for a name of ``kept_checkpoints``, or a path.

    Raises:
        ModelError: there is none.
    """
    kept = kept_checkpoints(run)
    path = kept.get(checkpoint) or (run / WEIGHTS if checkpoint == "best" else Path(checkpoint))
    if not path.is_file():
        known = f" This one keeps {', '.join(kept)}." if kept else ""
        raise ModelError(
            f"No weights at {path}. Train it first, import weights with `medseg import-weights`, or name a "
            f"file with --checkpoint.{known}{folds_hint(run)}"
        )
    return path.resolve()

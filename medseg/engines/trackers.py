"""Where curves and images of a training go besides ``metrics.csv``: TensorBoard, MLflow, Weights & Biases, or nowhere.

All write into the run's folder. Nothing is sent: MLflow gets a database file of the run unless its own variable
MLFLOW_TRACKING_URI names another place, Weights & Biases works offline unless WANDB_MODE says otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import ConfigError, nearest

__all__ = ["TRACKERS", "Tracker", "check_tracker", "make_tracker"]

_EXPERIMENT = "medseg"


class Tracker:
    """Takes what a training has to show; this one keeps nothing of it.

    Args:
        directory: the run's folder.
        epoch: first epoch that is written; TensorBoard's curves lose what was written of it and later ones before.
    """

    def __init__(self, directory: Path, epoch: int) -> None:
        pass

    def settings(self, values: Mapping[str, str]) -> None:
        """Hyperparameters: name -> value."""

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """Points of curves: name, such as ``dice/liver``, -> value."""

    def image(self, name: str, pixels: np.ndarray, epoch: int) -> None:
        """An image ``(row, column, 3)`` of uint8."""

    def flush(self) -> None:
        """Write what waits."""

    def close(self) -> None:
        """Nothing follows."""


class TensorBoardTracker(Tracker):
    """Event files in ``tensorboard/``."""

    def __init__(self, directory: Path, epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(directory / "tensorboard"), purge_step=epoch)

    def settings(self, values: Mapping[str, str]) -> None:
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(dict(values), {"mean_dice": 0.0}):  # a curve's name; the number is not used
            self.writer.file_writer.add_summary(summary)

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)

    def image(self, name: str, pixels: np.ndarray, epoch: int) -> None:
        self.writer.add_image(name, pixels, epoch, dataformats="HWC")

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class MLflowTracker(Tracker):
    """A run in ``mlflow.db`` of the run's folder, its images in ``mlflow/``; ``mlflow ui`` reads both."""

    def __init__(self, directory: Path, epoch: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{directory.resolve() / 'mlflow.db'}"
        images = None if "MLFLOW_TRACKING_URI" in os.environ else (directory.resolve() / "mlflow").as_uri()
        self.client = mlflow.MlflowClient(tracking_uri=place)
        known = self.client.get_experiment_by_name(_EXPERIMENT)
        experiment = known.experiment_id if known else self.client.create_experiment(_EXPERIMENT, images)
        name = directory.resolve().name
        found = self.client.search_runs([experiment], f"tags.`medseg.run` = '{directory.resolve().as_posix()}'")
        tags = {"medseg.run": directory.resolve().as_posix()}
        run = found[0] if found else self.client.create_run(experiment, tags=tags, run_name=name)
        self.run: str = run.info.run_id

    def settings(self, values: Mapping[str, str]) -> None:
        known = self.client.get_run(self.run).data.params
        for name, value in values.items():
            if _plain(name) not in known:  # MLflow refuses to change one
                self.client.log_param(self.run, _plain(name), value)

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, _plain(name), value, step=epoch)

    def image(self, name: str, pixels: np.ndarray, epoch: int) -> None:
        self.client.log_image(self.run, pixels, artifact_file=f"{_plain(name)}/epoch_{epoch}.png")

    def close(self) -> None:
        self.client.set_terminated(self.run)


class WandbTracker(Tracker):
    """An offline run in ``wandb/``; ``wandb sync`` sends it if the user wants that.

    A resumed training writes a further folder there of the same run id, which ``wandb sync --append`` joins.
    """

    def __init__(self, directory: Path, epoch: int) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_DISABLE_GIT", "true")
        import wandb

        self.image_type = wandb.Image
        earlier = sorted((directory / "wandb").glob("*run-*-*"))  # …run-TIME-ID
        self.run: Any = wandb.init(
            project=_EXPERIMENT,
            name=directory.resolve().name,
            id=earlier[-1].name.rpartition("-")[2] if earlier else None,
            resume="allow" if earlier else None,
            dir=str(directory),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, symlink=False),
        )
        core = Path(self.run.dir).parent / "logs" / "debug-core.log"
        if core.is_symlink():  # to the user's cache; a run whose links lead out of it cannot be resumed
            core.unlink()

    def settings(self, values: Mapping[str, str]) -> None:
        self.run.config.update(dict(values), allow_val_change=True)

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        self.run.log({**values, "epoch": epoch}, step=epoch)

    def image(self, name: str, pixels: np.ndarray, epoch: int) -> None:
        self.run.log({name: self.image_type(pixels)}, step=epoch)

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "mlflow": MLflowTracker,
    "wandb": WandbTracker,
    "none": Tracker,
}


def check_tracker(name: str) -> None:
    """Refuse a tracker that cannot work here, before a training begins.

    Raises:
        ConfigError: there is none of this name, or its package is not installed.
    """
    if name not in TRACKERS:
        raise ConfigError(f"No tracker '{name}'.{nearest(name, TRACKERS)} Use one of {', '.join(TRACKERS)}.")
    if name in ("mlflow", "wandb") and find_spec(name) is None:
        raise ConfigError(
            f"--tracker {name} needs the package {name}, which is not installed; install it with "
            f"`pip install medseg[{name}]`, or use --tracker tensorboard."
        )


def make_tracker(name: str, directory: str | Path, epoch: int = 0) -> Tracker:
    """The tracker of a name that ``check_tracker`` takes."""
    return TRACKERS[name](Path(directory), epoch)


def _plain(name: str) -> str:
    """A name of the characters that MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", name)

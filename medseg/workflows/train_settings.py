"""What a training is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medseg.bundle.config_check import check_ranges
from medseg.bundle.plan_layer import LIGHT, check_recipe
from medseg.data.plan_grid import CASCADE
from medseg.engines.trackers import check_tracker
from medseg.errors import ConfigError
from medseg.networks import network_target
from medseg.settings import File, Folder
from medseg.shipped import find_bundle
from medseg.weights.configs import network_of, read_original
from medseg.workflows.folds import fold_runs
from medseg.workflows.new_bundle import given_nnunet
from medseg.workflows.run_limits import refuse_double
from medseg.workflows.transfer import TransferRequest

__all__ = ["TrainSettings"]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What a training is told.

    Attributes:
        output: run folder.
        json_list: datalist (Decathlon JSON), or YAML that joins several.
        data_dir: base directory for relative paths (default: the list's).
        network: name of `medseg networks`, MONAI class or dotted path. A bundle is planned for it.
        bundle: bundle folder, or name of one of medseg's own.
        from_original: config of an original system. One of the five: .ini, .yaml, cfg.json or .py, .sh with the
            command. A bundle is planned for its network and settings; it is read as data, never executed. What follows
            from the images, such as channels and labels, is the datalist's.
        recipe: light, standard or nnunet. It is for --network. Light learns soon on a CPU; standard is
            light with further changes; nnunet is nnU-Net's training. The plan fills what depends on the data.
        fold: validation fold, or all: one run per fold. The default is the validation section, else fold 0. The runs of
            all folds lie below the run folder.
        epochs: number of epochs (default: the bundle's).
        iterations: number of iterations, instead of --epochs. They are those of all processes together, rounded up to
            full epochs.
        max_minutes: minutes of the training, instead of --epochs. They decide on the learning-rate
            schedule and the end; the last validation counts. Reading the images is never cut short, and one validation
            always takes place.
        select: weights that the run delivers. The default is the recipe's, else the best, chosen by validation; the
            final ones are for comparisons, since the best of more validations is better by chance alone.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        tracker: place of curves and images besides metrics.csv. All are written into the run folder; nothing is sent.
        seed: random seed.
        overrides: config values, such as learning_rate=0.01.
        overlays: further configs of a bundle, such as gsm.
        transfer: source of the first weights: run, bundle or file. A head of other labels starts from scratch. Of the
            runs of `--fold all` each fold starts from that of its own number.
        encoder_weights: weights of the network's encoder alone. The rest of the network starts from scratch.
        reinitialize: with --transfer: further parameters from scratch, by patterns of their names such as 'decoder*'.
        partial: with --transfer: skip weights that do not fit. Without it they are refused.
        new_tasks_only: with --transfer: train only tasks that the run lacks. The run is one on several data sets;
            its old tasks predict as before.
        nnunet_plans: with --network: nnUNetPlans.json of nnU-Net 2. Its spacing, patch size and normalisation are used.
        configuration: nnU-Net's name of what is trained, such as 2d. For --network; one of these plans, or 2d,
            3d_fullres, 3d_lowres or 3d_cascade_fullres. 2d trains a 2D network on the slices of volumes across their
            coarsest axis, 3d_lowres works at a coarser spacing where cases are much larger than the patch,
            3d_cascade_fullres refines the label maps of --previous. The default is 3d_fullres, of 2D images 2d.
        previous: validated run that the cascade refines. Such as one of 3d_lowres; a folder of folds stands for its
            runs. Together they hold out every case. The run of the same fold is copied into the new one.
        replay: with --transfer: share of cases from the run's data sets. For a run on several data sets.
        distill: with --transfer: weight of keeping old answers. For a run on several data sets.
        dry_run: show the plan with each value's origin, without training.
    """

    output: Folder
    json_list: File
    data_dir: Folder | None = None
    network: str | None = field(default=None, metadata={"or": ("bundle", "from_original")})
    bundle: Folder | None = None
    from_original: File | None = None
    recipe: str = "light"
    fold: int | Literal["all"] | None = None
    epochs: int | None = None
    iterations: int | None = None
    max_minutes: float | None = None
    select: Literal["best", "final"] | None = None
    device: str | None = None
    tracker: Literal["tensorboard", "mlflow", "wandb", "none"] = "tensorboard"
    seed: int = 0
    overrides: Mapping[str, Any] | None = field(default=None, metadata={"option": "set"})
    overlays: Sequence[str] = field(default=(), metadata={"option": "overlay"})
    transfer: Folder | File | None = None
    encoder_weights: File | None = None
    reinitialize: Sequence[str] = ()
    partial: bool = False
    new_tasks_only: bool = False
    nnunet_plans: File | None = None
    configuration: str | None = None
    previous: Sequence[Folder] = ()
    replay: float | None = None
    distill: float | None = None
    dry_run: bool = False

    def transfer_request(self) -> TransferRequest | None:
        """What is asked of the weights that the training starts from; ``None`` from scratch.

        Raises:
            ConfigError: a source or the run of a fold is missing, or a number is out of range.
        """
        how = (self.reinitialize, self.partial, self.new_tasks_only, self.replay, self.distill)
        if self.encoder_weights is not None:
            if self.transfer is not None or any(how[1:3]) or how[3:] != (None, None):
                raise ConfigError(
                    "--encoder_weights fill the encoder alone; --transfer and its options but --reinitialize start the "
                    "whole network. Leave one of them out."
                )
            path = Path(self.encoder_weights).expanduser().resolve()
            return TransferRequest(path, self.reinitialize, encoder=True)
        if self.transfer is not None:
            source = find_bundle(Path(self.transfer).expanduser()).resolve()
            return TransferRequest(self._own_fold(source) if fold_runs(source) else source, *how)
        if any(how[:3]) or how[3:] != (None, None):
            raise ConfigError(
                "--reinitialize, --partial, --new_tasks_only, --replay and --distill say how to use the weights of "
                "another training; name their source with --transfer."
            )
        return None

    def _own_fold(self, source: Path) -> Path:
        """The run of the same fold, which has not seen this fold's validation cases."""
        names = [folder.name for folder in fold_runs(source)]
        if (own := f"fold{self.fold}") not in names:
            raise ConfigError(
                f"--transfer {source} holds the runs {', '.join(names)}; expected one of this training's fold, "
                f"{'which is not given' if self.fold is None else own}. Name one of them, or give --fold."
            )
        return source / own

    def check(self) -> None:
        """Refuse what can be told before any data are read.

        Raises:
            ConfigError: settings that contradict each other or are out of range, or an unknown network.
        """
        if [self.network, self.bundle, self.from_original].count(None) != 2:
            raise ConfigError(
                "Give one of a network (--network), a bundle (--bundle) and an original's config (--from_original)."
            )
        check_tracker(self.tracker)
        overrides = self.overrides or {}
        refuse_double("train", overrides, epochs=self.epochs)
        if self.iterations is not None and "epochs" in overrides:
            raise ConfigError(
                f"--iterations {self.iterations} and --set epochs={overrides['epochs']} contradict each other; leave "
                "one out."
            )
        check_ranges(
            {
                "fold": self.fold,
                "epochs": self.epochs,
                "iterations": self.iterations,
                "max_minutes": self.max_minutes,
                "seed": self.seed,
            }
        )
        check_ranges({key: value for key, value in overrides.items() if key != "roi_size"})  # needs the images' axes
        self.transfer_request()
        nnunet = given_nnunet(self.nnunet_plans, self.configuration)
        if self.network is None and (nnunet, self.configuration) != (None, None):
            raise ConfigError(
                "--nnunet_plans and --configuration are for --network: a bundle has a plan of its own. Leave one of "
                "them out."
            )
        if (self.configuration == CASCADE) != bool(self.previous):
            raise ConfigError(
                f"--configuration {CASCADE} refines the label maps of earlier runs, which --previous names; expected "
                "both or none of them. Give the other one too."
            )
        check_recipe(self.recipe)
        if self.network is None and self.recipe != LIGHT:
            raise ConfigError(
                "--recipe is for --network: a bundle and an original's config have a training of their own. Leave one "
                "of them out."
            )
        if self.iterations is not None and self.epochs is not None:
            raise ConfigError("--iterations and --epochs both say how long to train; give one of them.")
        if self.network is not None:
            network_target(self.network)
        if self.from_original is not None:
            network_of(read_original(self.from_original))

"""What turns the bundle of one data set into universal training as Hermes trains (arXiv 2306.02416): every image is
asked for the tasks of its own data set only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from medseg.data.datalist import Datalist
from medseg.data.plan import Plan
from medseg.data.union import is_union
from medseg.errors import ConfigError
from medseg.networks import network_class
from medseg.networks.layers.task_conditioned import TaskConditioned

__all__ = [
    "is_universal",
    "universal_evaluation",
    "universal_inference",
    "universal_plan",
    "universal_published",
    "universal_train",
]

_SPACING = [1.5, 1.5, 1.5]  # mm, as published for all data sets
_CPU_ITERATIONS, _GPU_ITERATIONS = 50, 400  # per epoch, whatever the number of cases; 400 as published
_RATE = 0.002  # of LAMB, as published
_MANY_CHANGES = 0.2  # chance of each intensity change for MR, published; 0.1 for others
_TASKS = {"_target_": "medseg.engines.PrepareTasks", "label_space": "@label_space"}
_PREPROCESSING = "$t.hermes_preprocessing({keys}, label_space=@label_space, **@preprocess)"


def is_universal(network: str, datalist: Datalist) -> bool:
    """Whether a bundle trains several data sets together.

    Raises:
        ConfigError: the datalist is a union, and the network cannot be asked for tasks.
    """
    if not is_union(datalist.label_space):
        return False
    if not issubclass(network_class(network), TaskConditioned):
        raise ConfigError(
            f"{datalist.path} joins several data sets with labels of their own, and '{network}' cannot be asked for "
            "tasks: it would take what a data set leaves out for background. Use hermes_resunet or hermes_medformer."
        )
    return True


def universal_plan(datalist: Datalist) -> dict[str, Any]:
    """Overrides that a plan starts from: rows for every task and modality, and the published spacing."""
    space = datalist.label_space
    return {
        "network_def::out_channels": max(max(space.task_ids) + 1, int(datalist.table.get("capacity", 0))),
        "network_def::num_modalities": max(space.modalities.values(), default=-1) + 1,
        "preprocess::spacing": _SPACING,
    }


def universal_train(config: Mapping[str, Any], datalist: Datalist, plan: Plan) -> dict[str, Any]:
    """The train.yaml of a universal bundle from that of ``bundle.generate``."""
    preprocess = {"spacing": config["preprocess"]["spacing"], "roi_size": "@roi_size"}
    train, validate = dict(config["train"]), dict(config["validate"])
    changes: dict[str, Any] = {
        "learning_rate": _RATE,
        "schedule": "exp_poly",
        "warmup": 0.025,
        "clip_norm": None,  # LAMB has its own
        "ema_decay": 0.99,
        "repeats": 1,
        "new_tasks": None,
        "learn_also": [],
        "validation_cases": None,
        "weights": _weights(datalist),
        "iterations": _CPU_ITERATIONS if plan.light else _GPU_ITERATIONS,
        "preprocess": preprocess,
        "augment": {"intensity_of": {name: _MANY_CHANGES for name in _mr_datasets(datalist)}},
        "average": "$e.make_average(@network, @ema_decay, ramp=True)",
        "loss": {"_target_": "medseg.losses.TaskLoss"},
        "optimizer": {
            "_target_": "medseg.optimizers.Lamb",
            **{key: config["optimizer"][key] for key in ("params", "lr", "weight_decay")},
        },
        "lr_scheduler": {**config["lr_scheduler"], "warmup": "@warmup"},
    }
    train["preprocessing"] = {
        "_target_": "Compose",
        "transforms": _PREPROCESSING.format(keys="['image', 'label']")
        + " + t.hermes_augmentation(@roi_size, **@augment)",
    }
    train["dataloader"] = {**train["dataloader"], "weights": "@weights", "iterations": "@iterations"}
    keep = {"_target_": "medseg.engines.KeepOldTasks", "network": "@network", "average": "@average"}
    train["handlers"] = [
        *train["handlers"],
        {**keep, "new_tasks": "@new_tasks", "learn_also": "@learn_also"},
    ]  # after the average is updated
    train["trainer"] = {**train["trainer"], "prepare_batch": dict(_TASKS)}
    validate["dataloader"] = {**validate["dataloader"], "per_dataset": "@validation_cases"}
    validate["preprocessing"] = {
        "_target_": "Compose",
        "transforms": _PREPROCESSING.format(keys="['image', 'label']"),
    }
    validate["postprocessing"] = {
        "_target_": "Compose",
        "transforms": [{"_target_": "medseg.transforms.TasksToLabelsd", "keys": "pred", "label_space": "@label_space"}],
    }
    validate["key_metric"] = {
        "mean_dice": {"_target_": "medseg.engines.TaskScores", "label_space": "@label_space"},
    }
    validate["additional_metrics"] = {}
    validate["evaluator"] = {**validate["evaluator"], "prepare_batch": {**_TASKS, "training": False}}
    changed = {**config, **changes, "train": train, "validate": validate}
    # What is new stands with the other settings, before the components that refer to it.
    order = [key for key in config if key not in ("network_def",)]
    first = order[: order.index("device")]
    return {
        key: changed[key]
        for key in (*first, "warmup", "weights", "iterations", "validation_cases", "new_tasks", "learn_also")
    } | changed


def _mr_datasets(datalist: Datalist) -> list[str]:
    """Data sets whose images are neither CT nor PET, in the datalist's order."""
    cases = [case for section in datalist.sections.values() for case in section]
    others = {case.dataset or "" for case in cases if case.modality not in ("ct", "pet")}
    return [name for name in dict.fromkeys(case.dataset or "" for case in cases) if name in others]


def _weights(datalist: Datalist) -> dict[str, float]:
    """The union's, or such that a data set of four times the cases is drawn twice as often."""
    counts = Counter(case.dataset or "" for case in datalist.sections["training"])
    return dict(datalist.table.get("weights") or {name: count**-0.5 for name, count in counts.items()})


def universal_evaluation(config: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluate.yaml overlay of a universal bundle: each image's own tasks on its own grid."""
    to_source, save = config["validate::postprocessing::transforms"]
    scores = {**config["validate::key_metric::mean_dice"], "_target_": "medseg.engines.TaskScores"}
    return {
        **config,
        "validation_cases": None,
        "validate::preprocessing::transforms": _PREPROCESSING.format(keys="['image']")
        + " + t.load(['label'], @label_space)",
        "validate::postprocessing::transforms": [
            {**to_source, "_target_": "medseg.transforms.TasksToSourceGridd"},
            save,
        ],
        "validate::key_metric::mean_dice": scores,
    }


def universal_published() -> dict[str, Any]:
    """The evaluate_published.yaml overlay on evaluate.yaml, Hermes's protocol: no way back to the images' own grid,
    half steps, each task thresholded by itself, Dice alone.
    """
    return {
        "validate::preprocessing::transforms": _PREPROCESSING.format(keys="['image', 'label']"),
        "validate::inferer": {
            "_target_": "medseg.inferers.HalfStepWindow",
            "roi_size": "@roi_size",
            "sw_batch_size": "@sw_batch_size",
        },
        "validate::postprocessing::transforms": [],
        "validate::key_metric::mean_dice": {
            "_target_": "medseg.engines.TaskMapScores",
            "label_space": "@label_space",
            "output_dir": "@score_dir",
            "facts": {"space": "model", "weights": "@ckpt_path", "section": "@section", "fold": "@fold"},
        },
    }


def universal_inference(config: Mapping[str, Any]) -> dict[str, Any]:
    """The inference.yaml of a universal bundle: ``tasks`` and ``modality`` say what is asked for."""
    to_source, save = config["postprocessing"]["transforms"]
    inference = {
        **config,
        "preprocessing": {"_target_": "Compose", "transforms": _PREPROCESSING.format(keys="['image']")},
        "inferer": {
            "_target_": "medseg.inferers.TaskPasses",
            "window": "@window",
            "label_space": "@label_space",
            "tasks": "@tasks",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {**to_source, "_target_": "medseg.transforms.TasksToSourceGridd", "tasks": "@tasks"},
                save,
            ],
        },
        "evaluator": {
            **config["evaluator"],
            "prepare_batch": {"_target_": "medseg.engines.PreparePasses", "label_space": "@label_space"},
        },
    }
    first = {key: config[key] for key in list(config)[: list(config).index("mirror_axes") + 1]}
    return first | {"tasks": None, "window": config["inferer"]} | inference

"""The configs of a generated bundle as dictionaries: training, evaluation, inference, ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.bundle.case_parts import BEHIND, case_dataset, case_loader, case_run
from medseg.data.datalist import Datalist
from medseg.data.plan import Plan
from medseg.networks import network_class

__all__ = ["ensemble_config", "evaluate_config", "inference_config", "multi_gpu_config", "train_config"]

_IMPORTS = ["$import medseg.workflows as w", "$import medseg.transforms as t", "$import medseg.engines as e"]


def train_config(network_def: Mapping[str, Any], datalist: Datalist, plan: Plan) -> dict[str, Any]:
    """The train.yaml of a generated bundle as a dictionary."""
    space = datalist.label_space
    plain_loss = space.mode == "softmax" and not space.has_ignore
    loss = (
        {"_target_": "DiceCELoss", "include_background": False, "to_onehot_y": True, "softmax": True}
        if plain_loss
        else {"_target_": "medseg.losses.MaskedDiceCELoss", "label_space": "@label_space"}
    )
    mode = getattr(network_class(network_def["_target_"]), "reparameterization", None)
    return {
        "imports": list(_IMPORTS),
        "bundle_root": ".",
        "dataset_dir": str(datalist.data_dir.resolve()),
        "json_list": "$@bundle_root + '/configs/datalist.json'",
        "output_dir": "$@bundle_root",
        "ckpt_dir": "$@output_dir + '/checkpoints'",
        "fold": None,
        "seed": 0,
        "epochs": 50,
        "val_interval": 5,
        "max_minutes": None,
        "learning_rate": plan.learning_rate,
        "learning_rate_factors": {},
        "weight_decay": 0.00001,
        **({"reparameterization": mode} if mode else {}),
        "schedule": "cosine",
        "batch_size": plan.batch_size,
        "repeats": plan.repeats,
        "accumulation_steps": 1,
        "clip_norm": 12.0,
        "ema_decay": None,
        "early_stop": None,
        "key_metrics": {},
        "precision": "fp32" if plan.light else "bf16",
        "compile": False,
        "num_workers": 0 if plan.light else 4,
        "cache": plan.cache,
        "cache_dir": "$@output_dir + '/cache'",
        "roi_size": list(plan.roi_size),
        **({} if plan.whole_volume else {"overlap": 0.5, "sw_batch_size": 4}),
        "device": "$w.device()",
        "labels": space.to_table(),
        "label_space": {"_target_": "medseg.labels.LabelSpace.from_table", "table": "@labels"},
        "preprocess": {
            "spacing": list(plan.spacing) if plan.spacing is not None else None,
            "crop_foreground": plan.crop_foreground,
            **({"color": plan.color, "longest": plan.longest} if plan.spatial_dims == 2 else {}),
            "scale": plan.scale,
            "normalization": plan.normalization,
            "roi_size": "@roi_size",
        },
        "augment": {
            "flip_axes": list(plan.flip_axes),
            "rotate": list(plan.rotate),
            "scale": 0.15,
            "samples_per_case": plan.samples_per_case,
        },
        "network_def": dict(network_def),
        "initial": {"path": None, "reinitialize": [], "partial": False},
        "network": "$w.distribute(w.start_from(@network_def, **@initial), @device)",
        "average": "$e.make_average(@network, @ema_decay)",
        "loss": loss,
        "optimizer": _optimizer(reparameterized=mode is not None),
        "lr_scheduler": {
            "_target_": "medseg.optimizers.make_schedule",
            "optimizer": "@optimizer",
            "name": "@schedule",
            "steps": "$@epochs * len(@train::dataloader)",
        },
        "checkpoint": {
            "_target_": "medseg.engines.Checkpoint",
            "directory": "@ckpt_dir",
            "model_path": "$@output_dir + '/models/model.pt'",
            "network": "@network",
            "optimizer": "@optimizer",
            "lr_scheduler": "@lr_scheduler",
            "average": "@average",
            "evaluator": "@validate::evaluator",
            "key_metrics": "@key_metrics",
        },
        "train": _train_section(),
        "validate": _validate_section(plan.whole_volume),
        "initialize": ["$w.initialize(@seed)"],
        "run": ["$@train::trainer.run()"],
        "finalize": ["$w.finalize()"],
    }


def _optimizer(reparameterized: bool) -> dict[str, Any]:
    """AdamW; of networks whose large kernels are to be trained in the frequency domain, wrapped for that."""
    plain = {
        "_target_": "torch.optim.AdamW",
        "params": {
            "_target_": "medseg.optimizers.parameter_groups",
            "network": "@network",
            "learning_rate": "@learning_rate",
            "factors": "@learning_rate_factors",
        },
        "lr": "@learning_rate",
        "weight_decay": "@weight_decay",
    }
    if not reparameterized:
        return plain
    return {
        "_target_": "medseg.optimizers.frequency_reparameterized",
        "network": "@network",
        "mode": "@reparameterization",
        "initial": "$'effective' if @initial::path else 'raw'",
        "optimizer": plain,
    }


def _train_section() -> dict[str, Any]:
    return {
        "preprocessing": {
            "_target_": "Compose",
            "transforms": "$t.preprocessing(['image', 'label'], label_space=@label_space, **@preprocess)"
            " + t.augmentation(@roi_size, label_space=@label_space, **@augment)",
        },
        "dataset": {
            "_target_": "medseg.data.make_dataset",
            "data": "$w.cases(@json_list, @dataset_dir, @fold, 'training')",
            "transform": "@train::preprocessing",
            "kind": "@cache",
            "cache_dir": "@cache_dir",
            "seed": "@seed",
            "repeats": "@repeats",
        },
        "dataloader": {
            "_target_": "medseg.data.make_loader",
            "dataset": "@train::dataset",
            "batch_size": "@batch_size",
            "shuffle": True,
            "num_workers": "@num_workers",
            "persistent_workers": True,
        },
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [
            {"_target_": "medseg.engines.Attach", "handler": "@checkpoint"},
            {"_target_": "medseg.engines.RandomStreams", "seed": "@seed"},
            {"_target_": "medseg.engines.UpdateAverage", "average": "@average", "network": "@network"},
            {"_target_": "LrScheduleHandler", "lr_scheduler": "@lr_scheduler", "print_lr": False, "epoch_level": False},
            {"_target_": "ValidationHandler", "validator": "@validate::evaluator", "interval": "@val_interval"},
            {
                "_target_": "medseg.engines.RunLog",
                "directory": "@output_dir",
                "optimizer": "@optimizer",
                "evaluator": "@validate::evaluator",
            },
            {
                "_target_": "medseg.engines.EarlyStop",
                "evaluator": "@validate::evaluator",
                "val_interval": "@val_interval",
                "patience": "@early_stop",
            },
            {"_target_": "medseg.engines.Progress"},
            {"_target_": "medseg.engines.TimeLimit", "minutes": "@max_minutes", "checkpoint": "@checkpoint"},
        ],
        "trainer": {
            "_target_": "medseg.engines.SegmentationTrainer",
            "device": "@device",
            "max_epochs": "@epochs",
            "train_data_loader": "@train::dataloader",
            "network": "@network",
            "optimizer": "@optimizer",
            "loss_function": "@loss",
            "inferer": "@train::inferer",
            "train_handlers": "@train::handlers",
            "accumulation_steps": "@accumulation_steps",
            "precision": "@precision",
            "clip_norm": "@clip_norm",
            "compile_network": "@compile",
        },
    }


def _inferer(whole_volume: bool) -> dict[str, Any]:
    if whole_volume:
        return {"_target_": "medseg.inferers.WholeVolume", "precision": "@precision"}
    return {
        "_target_": "medseg.inferers.SlidingWindow",
        "roi_size": "@roi_size",
        "overlap": "@overlap",
        "sw_batch_size": "@sw_batch_size",
        "precision": "@precision",
    }


def _validate_section(whole_volume: bool) -> dict[str, Any]:
    return {
        "preprocessing": {
            "_target_": "Compose",
            "transforms": "$t.preprocessing(['image', 'label'], label_space=@label_space, **@preprocess)",
        },
        "dataset": {
            "_target_": "medseg.data.make_dataset",
            "data": "$w.cases(@json_list, @dataset_dir, @fold, 'validation')",
            "transform": "@validate::preprocessing",
            "kind": "@cache",
            "cache_dir": "@cache_dir",
        },
        "dataloader": {"_target_": "medseg.data.make_loader", "dataset": "@validate::dataset"},
        "inferer": _inferer(whole_volume),
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "medseg.transforms.LogitsToLabelsd", "keys": "pred", "label_space": "@label_space"}
            ],
        },
        "key_metric": {"mean_dice": {"_target_": "medseg.engines.CaseScores", "label_space": "@label_space"}},
        "additional_metrics": {
            "mean_iou": {"_target_": "MeanIoUHandler", "output_transform": "$e.target_maps(@label_space)"}
        },
        "handlers": [],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@validate::dataloader",
            "network": "$e.evaluated_network(@network, @average)",
            "inferer": "@validate::inferer",
            "postprocessing": "@validate::postprocessing",
            "key_val_metric": "@validate::key_metric",
            "additional_metrics": "@validate::additional_metrics",
            "val_handlers": "@validate::handlers",
        },
    }


def evaluate_config() -> dict[str, Any]:
    """The evaluate.yaml overlay: source grid, surface metrics, predictions kept.

    ``section`` says which cases are scored; who names another than ``validation`` keeps its scores apart by
    ``score_dir``.
    """
    return {
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "section": "validation",
        "score_dir": "@output_dir",
        "prediction_dir": "$@score_dir + '/predictions'",
        "tolerance": 1.0,
        "ema_decay": None,
        "initial::path": None,
        "validate::preprocessing::transforms": "$t.preprocessing(['image'], **@preprocess) + t.load(['label'], "
        "@label_space)",
        "validate::dataset": case_dataset(
            "$w.cases(@json_list, @dataset_dir, @fold, @section)", "@validate::preprocessing", label=True
        ),
        "validate::dataloader": case_loader("@validate::dataset", 3),
        "validate::evaluator::_target_": "medseg.engines.CaseEvaluator",
        "validate::postprocessing::transforms": [
            {
                "_target_": "medseg.transforms.ToSourceGridd",
                "keys": "pred",
                "transform": "@validate::preprocessing",
                "label_space": "@label_space",
            },
            {
                "_target_": "medseg.transforms.SaveLabelsd",
                "keys": "pred",
                "output_dir": "@prediction_dir",
                "label_space": "@label_space",
            },
        ],
        "validate::key_metric::mean_dice": {
            "_target_": "medseg.engines.CaseScores",
            "label_space": "@label_space",
            "surface": True,
            "tolerance": "@tolerance",
            "output_dir": "@score_dir",
            "facts": {"space": "source", "weights": "@ckpt_path", "section": "@section", "fold": "@fold"},
        },
        "validate::handlers": [{"_target_": "medseg.engines.LoadWeights", "network": "@network", "path": "@ckpt_path"}],
        "run": [case_run("@validate::evaluator", "@score_dir")],
    }


def inference_config(train: Mapping[str, Any]) -> dict[str, Any]:
    """The inference.yaml that goes with a train.yaml."""
    dims = len(train["roi_size"])
    same = (
        "roi_size",
        "overlap",
        "sw_batch_size",
        "precision",
        "device",
        "labels",
        "label_space",
        "preprocess",
        "network_def",
    )
    return {
        "imports": list(_IMPORTS),
        "bundle_root": ".",
        "dataset_dir": train["dataset_dir"],
        "json_list": "$@bundle_root + '/configs/datalist.json'",
        "section": "test",
        "output_dir": "$@bundle_root + '/predictions'",
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "mirror_axes": [],
        **{key: train[key] for key in same if key in train},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": "$t.preprocessing(['image'], **@preprocess)"},
        "dataset": case_dataset("$w.section(@json_list, @dataset_dir, @section)", "@preprocessing", label=False),
        "dataloader": case_loader("@dataset", dims),
        "inferer": {**train["validate"]["inferer"], "mirror_axes": "@mirror_axes"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "medseg.transforms.ToSourceGridd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "label_space": "@label_space",
                },
                {
                    "_target_": "medseg.transforms.SaveLabelsd",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "label_space": "@label_space",
                },
            ],
        },
        "handlers": [{"_target_": "medseg.engines.LoadWeights", "network": "@network", "path": "@ckpt_path"}],
        "evaluator": {
            "_target_": "medseg.engines.CaseEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "behind": BEHIND[dims],
        },
        "initialize": ["$w.initialize(0)"],
        "run": [case_run("@evaluator", "@output_dir")],
        "finalize": ["$w.finalize()"],
    }


def ensemble_config() -> dict[str, Any]:
    """The ensemble.yaml overlay on an inference.yaml: bundles, or several weights of this one, joined on the source
    images' own grid.
    """
    return {
        "output_dir": "$@bundle_root + '/predictions_ensemble'",
        "members": None,
        "member_weights": None,
        "method": "mean",
        "ensemble": {
            "_target_": "medseg.workflows.joined",
            "bundle_root": "@bundle_root",
            "device": "@device",
            "members": "@members",
            "method": "@method",
            "weights": "@member_weights",
        },
        "preprocessing": {"_target_": "Compose", "transforms": "$t.load(['image'])"},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "medseg.transforms.LogitsToLabelsd",
                    "keys": "pred",
                    "label_space": "@label_space",
                    "threshold": 0.5,
                },
                {
                    "_target_": "medseg.transforms.SaveLabelsd",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "label_space": "@label_space",
                },
            ],
        },
        "handlers": [],
        "evaluator::network": "@ensemble",
    }


def multi_gpu_config() -> dict[str, Any]:
    """The overlay that the model zoo expects; train.yaml itself already adapts to torchrun."""
    return {"device": "$w.device()", "initialize": ["$w.initialize(@seed)"], "finalize": ["$w.finalize()"]}

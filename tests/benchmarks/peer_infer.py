"""Inference of one NIfTI file by a plain MONAI script, or by nnU-Net's own predictor, with a given network.

    python peer_infer.py monai|nnunet SETTINGS.json IMAGE OUTPUT

An interpreter that has MONAI, and nnunetv2 for ``nnunet``, is enough. Settings: ``arguments`` of MONAI's SegResNet,
``weights`` (a file), ``roi_size``, ``overlap``, ``normalization`` (lower, upper, mean, std).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch


def network(settings: dict[str, Any]) -> torch.nn.Module:
    from monai.networks.nets import SegResNet

    net = SegResNet(**settings["arguments"])
    net.load_state_dict(torch.load(settings["weights"], weights_only=True))
    return net.eval()


def by_monai(settings: dict[str, Any], image: str, output: str) -> None:
    from monai import transforms as mt
    from monai.data import decollate_batch
    from monai.inferers import sliding_window_inference

    scheme = settings["normalization"]
    steps = mt.Compose(
        [
            mt.LoadImaged("image", ensure_channel_first=True),
            mt.Orientationd("image", axcodes="RAS", labels=None),
            mt.Spacingd("image", pixdim=(1.0, 1.0, 1.0)),
            mt.ThresholdIntensityd("image", scheme["upper"], above=False, cval=scheme["upper"]),
            mt.ThresholdIntensityd("image", scheme["lower"], above=True, cval=scheme["lower"]),
            mt.NormalizeIntensityd("image", scheme["mean"], scheme["std"]),
        ]
    )
    after = mt.Compose(
        [
            mt.Invertd("pred", steps, "image", nearest_interp=False),
            mt.AsDiscreted("pred", argmax=True),
            mt.SaveImaged("pred", output_dir=output, print_log=False),
        ]
    )
    data = steps({"image": image})
    with torch.no_grad():
        batch = data["image"][None]
        logits = sliding_window_inference(
            batch, settings["roi_size"], 4, network(settings), settings["overlap"], mode="gaussian"
        )
    after({**data, "pred": decollate_batch(logits.softmax(1))[0]})


def by_nnunet(settings: dict[str, Any], image: str, output: str) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    scheme, size = settings["normalization"], settings["roi_size"]
    intensities = {
        "mean": scheme["mean"],
        "std": scheme["std"],
        "percentile_00_5": scheme["lower"],
        "percentile_99_5": scheme["upper"],
    }
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    kinds = {"data": {"order": 3}, "seg": {"is_seg": True, "order": 1}, "probabilities": {"order": 1}}
    configuration: dict[str, Any] = {
        "data_identifier": "generated",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": size,
        "median_image_size_in_voxels": size,
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        "architecture": {"network_class_name": "given", "arch_kwargs": {}, "_kw_requires_import": []},
    }
    for kind, own in kinds.items():
        configuration[f"resampling_fn_{kind}"] = "resample_data_or_seg_to_shape"
        configuration[f"resampling_fn_{kind}_kwargs"] = resampling | own
    plans = {
        "dataset_name": "Dataset001_generated",
        "plans_name": "plans",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "foreground_intensity_properties_per_channel": {"0": intensities},
        "configurations": {"3d_fullres": configuration},
    }
    labels = {"background": 0} | {f"label {n}": n for n in range(1, settings["arguments"]["out_channels"])}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    net = network(settings)
    predictor = nnUNetPredictor(
        tile_step_size=1 - settings["overlap"],
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    manager = PlansManager(plans)
    chosen = manager.get_configuration("3d_fullres")
    predictor.manual_initialization(net, manager, chosen, [net.state_dict()], dataset, "nnUNetTrainer", None)
    Path(output).mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential([[image]], [str(Path(output) / "map")])


if __name__ == "__main__":
    kind, given, image, output = sys.argv[1:]
    {"monai": by_monai, "nnunet": by_nnunet}[kind](json.loads(Path(given).read_text()), image, output)

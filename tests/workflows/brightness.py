"""A network without training, and runs of it: label k where the image's value is nearest to k."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image
from torch import nn

from medseg.bundle.compose import command
from medseg.bundle.draft import Draft
from medseg.bundle.trust import remember_own
from medseg.data import PlanSettings, inspect_cases, make_plan, read_datalist
from medseg.networks import create_network
from medseg.weights import save_file

SPACING = (1.0, 1.0, 2.0)
STEP = 50  # of the image's values from label to label


class Brightness(nn.Module):
    """``-(x - k)^2`` times one weight as the logit of label k."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.levels = out_channels
        self.sharpness = nn.Parameter(torch.tensor(10.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = torch.arange(self.levels, device=x.device).reshape(1, -1, *[1] * (x.dim() - 2))
        return -self.sharpness * (x[:, :1] - levels) ** 2


def write_cases(
    folder: Path,
    *,
    dims: int = 3,
    blobs: bool = True,
    validation: int = 8,
    folds: int = 0,
    labelled_test: bool = False,
) -> Path:
    """Two training cases, the validation cases (or folds of them) and a test case; returns the datalist.

    Label 1, organ: one box, and with ``blobs`` a far blob of its brightness that the reference lacks (2D: 4 pixels,
    3D: 8 voxels of 2 mm³). Label 2, lesion: two boxes, both true. Boxes move from case to case.
    """
    entries = []
    for number in range(2 + validation + 1):
        label = np.zeros((26, 24, 14)[:dims], np.uint8)
        shift = number % 4
        label[(slice(3 + shift, 12 + shift), slice(4, 12), slice(3, 8))[:dims]] = 1
        for start in (2, 10):
            label[(slice(start + shift, start + 4 + shift), slice(16, 20), slice(3, 6))[:dims]] = 2
        image = label.copy()
        if blobs:
            image[(slice(22, 24), slice(10, 12), slice(10, 12))[:dims]] = 1
        entries.append(_write(folder, f"case_{number}", image * STEP, label))
    last = entries.pop()
    test = last if labelled_test else {"image": last["image"]}
    sections: dict[str, list] = {"training": entries[:2], "validation": entries[2:], "test": [test]}
    if folds:
        sections = {"training": [{**entry, "fold": i % folds} for i, entry in enumerate(entries[2:])], "test": [test]}
    table = {
        "name": "bright",
        "modality": {"0": "MR"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        **sections,
    }
    (folder / "list.json").write_text(json.dumps(table))
    return folder / "list.json"


def _write(folder: Path, name: str, image: np.ndarray, label: np.ndarray) -> dict[str, str]:
    for kind, values in (("image", image), ("label", label)):
        if image.ndim == 2:
            Image.fromarray(values).save(folder / f"{name}_{kind}.png")
        else:
            nibabel.save(nibabel.Nifti1Image(values, np.diag([*SPACING, 1.0])), folder / f"{name}_{kind}.nii.gz")
    suffix = ".png" if image.ndim == 2 else ".nii.gz"
    return {"image": f"{name}_image{suffix}", "label": f"{name}_label{suffix}"}


def write_run(folder: Path, datalist_path: Path, *, dims: int = 3, fold: int | None = None, mean: float = 0.0) -> Path:
    """A run folder with weights, as if trained; ``mean`` is subtracted from the image's values."""
    datalist = read_datalist(datalist_path)
    facts = inspect_cases(datalist.sections["training"], datalist.label_space, datalist.channels)
    plan = make_plan(datalist, facts, PlanSettings(roi_size=(16,) * dims))
    plan.spacing = SPACING if dims == 3 else None
    plan.normalization = [{"kind": "fixed", "lower": 0, "upper": 10 * STEP, "mean": mean, "std": STEP}]
    plan.crop_foreground = False
    arguments = {"spatial_dims": dims, "in_channels": 1, "out_channels": 3}
    name = f"{__name__}.Brightness"
    run = Draft.planned(name, arguments, datalist, plan).over(command({"fold": fold, "device": "cpu"})).write(folder)
    remember_own({"network_def::_target_": name})  # as `train` does of a network that the user names
    save_file(create_network(name, **arguments).state_dict(), run / "models" / "model.pt")
    return run


def label_map(path: Path) -> np.ndarray:
    """The values of a NIfTI or PNG file."""
    return np.asarray(Image.open(path)) if path.suffix == ".png" else np.asarray(nibabel.load(path).dataobj)


def values_of(folder: Path, names: Sequence[str]) -> list[np.ndarray]:
    return [label_map(folder / name) for name in names]

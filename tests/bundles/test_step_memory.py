"""The forecast of a training step's memory, and the plan for a GPU that has little of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medseg.bundle import plan_for_network
from medseg.bundle.step_memory import free_gpu_bytes, kept_for_backward, step_bytes
from medseg.data import CaseFacts, Plan, read_datalist
from medseg.data.run_settings import SET
from medseg.engines.trainer import heads_of
from medseg.networks import checkpointed, create_network

GIB = 2**30
_LEVELS = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3}
NETWORKS: dict[str, dict[str, Any]] = {
    "DynUNet": {**_LEVELS, "filters": [8, 16, 32, 64], "deep_supervision": True, "deep_supr_num": 2},
    "SegResNet": {"init_filters": 8},
    "ssh_unet": {},
    "hnoseg_xs": {},
}


class Alive(TorchDispatchMode):
    """Notes every storage that an operation returns, without holding it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)):
            storage = tensor.untyped_storage()
            self.made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return result

    def bytes(self, network: torch.nn.Module) -> int:
        own = {tensor.untyped_storage()._cdata for tensor in network.parameters()}
        return sum(size for key, (ref, size) in self.made.items() if key not in own and not ref.expired())


@pytest.mark.parametrize("name", NETWORKS)
def test_forecast_is_what_is_alive_before_the_backward(name: str) -> None:
    """On a CPU, counted by what lives there, not by what autograd says that it keeps."""
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, **NETWORKS[name]}
    network, size = create_network(name, **arguments).train(), (32, 32, 32)
    with torch.device("meta"):
        paper = create_network(name, **arguments).train()
    forecast = sum(kept_for_backward(paper, torch.zeros(1, 1, *size, device="meta")))
    with Alive() as alive:
        heads = heads_of(network(torch.zeros(1, 1, *size)), 5)
        loss = DeepSupervisionLoss(DiceCELoss(to_onehot_y=True, softmax=True))(heads, torch.zeros(1, 1, *size))
    assert loss.requires_grad
    assert forecast == pytest.approx(alive.bytes(network), rel=0.15)


class Peak(Alive):
    """Notes the most bytes that are alive at once."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.most = network, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.made = {key: one for key, one in self.made.items() if not one[0].expired()}
        self.most = max(self.most, self.bytes(self.network))
        return result


def test_forecast_with_checkpointing_is_what_is_alive_at_most() -> None:
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}
    x = torch.zeros(1, 1, 32, 32, 32)
    found = {}
    for checkpointing in (False, True):
        network = create_network("hnoseg_xs", **arguments).train()
        network = checkpointed(network) if checkpointing else network
        forecast = step_bytes("hnoseg_xs", arguments, x.shape[2:], 1, checkpointing=checkpointing)
        with Peak(network) as peak:
            DiceCELoss(to_onehot_y=True, softmax=True)(network(x), x).backward()
        assert forecast == pytest.approx(peak.most, rel=0.3)
        found[checkpointing] = forecast
    assert found[True] < 0.8 * found[False]


def test_memory_that_an_earlier_training_left_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [3 * GIB]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", kept.clear)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (8 * GIB - sum(kept), 8 * GIB))
    assert free_gpu_bytes() == 8 * GIB


def test_plan_for_a_gpu_of_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "lesion"}, "training": []}
    (tmp_path / "list.json").write_text(json.dumps(table | {"training": [{"image": "i.nii.gz", "label": "l.nii.gz"}]}))
    datalist, shape = read_datalist(tmp_path / "list.json"), (200, 180, 160)
    where = {"shape": shape, "ras_shape": shape, "spacing": (1.0,) * 3, "ras_spacing": (1.0,) * 3}
    facts = [CaseFacts("a", channels=1, intensity=[np.linspace(0, 1, 9)], **where)]

    def planned(free_gib: int | None, network: str = "SegResNet", **overrides: Any) -> Plan:
        free = None if free_gib is None else free_gib * GIB
        monkeypatch.setattr("medseg.bundle.arguments.free_gpu_bytes", lambda: free)
        plan, arguments = plan_for_network(network, datalist, facts, 4, "cuda", overrides)
        needed = step_bytes(network, arguments, plan.roi_size, plan.batch_size)
        assert needed is not None
        if free is not None and not overrides:
            assert 0.4 * free < needed <= 0.9 * free or free_gib == 80
            assert (
                f"a training step needs about {needed / GIB:.1f} GiB, the GPU has {free_gib}.0 GiB free"
                in (plan.reasons["roi_size"])
            )
        return plan

    usual, large = planned(None), planned(80)
    assert (large.roi_size, large.batch_size) == (usual.roi_size, usual.batch_size) == ((128, 128, 128), 2)
    assert large.cache == "device" and "they fit on the GPU beside a training step, 80.0 GiB" in large.reasons["cache"]
    assert planned(80, augment_on_device=False).cache == usual.cache == "cache"
    small = planned(2)
    assert small.reasons["roi_size"].endswith("; smaller than usual for that") and not caplog.records
    assert math.prod(small.roi_size) < math.prod(usual.roi_size)
    assert small.batch_size == 2
    assert math.prod(planned(2, checkpointing=True).roi_size) > math.prod(small.roi_size)
    smallest = planned(1)
    assert smallest.batch_size == 1 and smallest.reasons["batch_size"].startswith("2 would not fit: a training step")
    mine = planned(2, roi_size=[128, 128, 128], batch_size=2)
    assert (mine.roi_size, mine.batch_size, mine.reasons["roi_size"]) == ((128, 128, 128), 2, SET)
    assert "GPU has 2.0 GiB free: use a smaller roi_size" in caplog.text

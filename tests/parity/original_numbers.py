"""Numbers of the original programs, read from this folder or from a full set, and what ours must make of them."""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from monai.networks.layers import DropPath
from torch import Tensor, nn

from medseg.losses import ExponentialLogLoss, PearsonLoss
from medseg.networks import create_network
from medseg.weights import import_original, import_with_report
from medseg.weights.original import architectures

__all__ = [
    "FOLDER",
    "LOSSES",
    "PUBLISHED_XS",
    "STAGES",
    "Numbers",
    "check_comparator",
    "check_large_kernels",
    "check_loss",
    "check_operator",
    "check_published_operator",
    "check_published_qtseg",
    "check_ssh_unet",
    "import_part",
    "read",
    "read_full",
]

FOLDER = Path(__file__).parent
PUBLISHED_XS = {
    "in_channels": 4,
    "out_channels": 4,
    "filters": 24,
    "num_modes": (10, 14, 14),
    "num_transform_blocks": [3] * 8,
}


def _dice_term(gamma: float) -> ExponentialLogLoss:
    return ExponentialLogLoss(dice_weight=1, ce_weight=0, gamma_dice=gamma, smooth_nr=0, smooth_dr=1e-7)


# The original's Dice loss is MONAI's.
LOSSES: dict[str, nn.Module] = {
    "pcc": PearsonLoss(),
    "dice": DiceLoss(smooth_nr=0, smooth_dr=1e-7),
    "expdice_0_3": _dice_term(0.3),
    "expdice_0_7": _dice_term(0.7),
    "expdice_1": _dice_term(1.0),
}


@dataclass(frozen=True)
class Numbers:
    """One fixture: what its sidecar says, and its arrays by name."""

    facts: dict[str, Any]
    arrays: dict[str, Tensor]

    @property
    def weights(self) -> dict[str, Tensor]:
        """The original's state dict."""
        named = [(key.partition("/"), value) for key, value in self.arrays.items()]
        return {key: _single(value) for (group, _, key), value in named if group in ("sd", "state")}

    def compare(self, found: Tensor, name: str, *, atol: float, rtol: float = 0) -> None:
        """Hold ``found`` against an array, value by value."""
        torch.testing.assert_close(*self._pair(found, name), atol=atol, rtol=rtol)

    def compare_norms(self, found: Tensor, name: str, *, part: float) -> None:
        """Hold the norm of the difference below a part of the array's norm; for results of rounded numbers."""
        found, expected = self._pair(found, name)
        assert found.shape == expected.shape
        assert float((found - expected).norm() / expected.norm()) < part, name

    def share_of_equals(self, found: Tensor, name: str) -> float:
        """Share of values that are those of a float16 array after rounding; tighter than its resolution."""
        found, expected = self._pair(found, name)
        return float((found.half() == expected.half()).float().mean())

    def _pair(self, found: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Both, each n-th value where no more is kept."""
        step = self.facts.get("every", {}).get(name)
        return found if step is None else found.flatten()[::step], self.arrays[name].to(found.dtype)


def _single(value: Tensor) -> Tensor:
    return value.float() if value.dtype == torch.float16 else value


def read(name: str) -> Numbers:
    """A small fixture of this folder, as ``cut_originals`` wrote it."""
    facts = json.loads((FOLDER / f"{name}.json").read_text())
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        flat = {kind: np.ascontiguousarray(file[kind].T).view(kind).ravel() for kind in file.files}
    arrays: dict[str, Tensor] = {}
    start: Counter[str] = Counter()
    for key, (kind, *shape) in facts["arrays"].items():
        end = start[kind] + math.prod(shape)
        arrays[key] = torch.from_numpy(flat[kind][start[kind] : end].reshape(shape))
        start[kind] = end
    assert start == {kind: values.size for kind, values in flat.items()}
    return Numbers(facts, arrays | {alias: arrays[key] for alias, key in facts["aliases"].items()})


def read_full(path: Path) -> Numbers:
    """A fixture of a full set; ``path`` has no suffix."""
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    return Numbers(json.loads(path.with_suffix(".json").read_text()), arrays)


def import_part(numbers: Numbers, architecture: str, arguments: dict[str, Any], without: Iterable[str]) -> nn.Module:
    """Our network with a part of the original's weights; exactly those of the modules in ``without`` are NaN."""
    original = architectures(numbers.facts["system"])[architecture]
    name, ours = original.network(dict(arguments))
    network = create_network(name, **ours)
    state = original.convert(numbers.weights, network).state
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    parts = tuple(f"{part}." for part in without)
    assert all(key.startswith(parts) for key in missing)
    assert all(any(key.startswith(part) for key in missing) for part in parts)
    own = network.state_dict()
    for key in missing:
        own[key].copy_(torch.full_like(own[key], math.nan if own[key].is_floating_point() else 0))
    return network


def check_operator(numbers: Numbers) -> None:
    """Probabilities in slabs, at once and in float64; gradients of the input and of every weight."""
    facts, arrays = numbers.facts, numbers.arrays
    network, report = import_with_report("ibm", facts["class"], facts["args"], numbers.weights)
    assert report.parameters == facts["num_params"]
    assert sorted(report.taken.values()) == sorted(numbers.weights) and not report.dropped
    last = facts["args"].get("output_activation", "softmax")

    def probabilities(x: Tensor) -> Tensor:
        return network(x).softmax(1) if last == "softmax" else getattr(torch, last)(network(x))

    x, expected = arrays["input"].clone(), arrays["output"]
    with torch.no_grad():
        torch.testing.assert_close(probabilities(x), expected, rtol=0, atol=2e-5)
        network.double()
        torch.testing.assert_close(probabilities(x.double()).float(), expected, rtol=0, atol=1e-5)
        network.float()
    x.requires_grad_()
    result = probabilities(x)
    torch.testing.assert_close(result.detach(), expected, rtol=0, atol=2e-5)
    weight = torch.from_numpy(np.sin(0.37 * np.arange(result.numel()) + 0.3).astype(np.float32)).view_as(result)
    (result * weight).sum().backward()
    assert x.grad is not None
    gradient, sample = x.grad.flatten()[:: int(arrays["grad_input_step"])], arrays["grad_input_sample"]
    assert (gradient - sample).norm() < 1e-3 * sample.norm()
    for ours, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.norm().item() == pytest.approx(facts["grad_norms"][report.taken[ours]], rel=1e-3)


def check_published_operator(numbers: Numbers, dtype: torch.dtype) -> None:
    """HNOSeg-XS of the published size: probabilities and voxels per label on images that a seed gives."""
    network = import_original("ibm", "HNOSegXS", PUBLISHED_XS, numbers.weights).eval().to(dtype)
    for number, case in enumerate(numbers.facts["cases"]):
        image = np.random.default_rng(case["input_seed"]).standard_normal(case["shape"], dtype=np.float32)
        with torch.no_grad():
            result = network(torch.from_numpy(image).to(dtype)).softmax(1)
        sample = numbers.arrays[f"out64_sample{number}"].to(dtype)
        atol = 5e-4 if dtype == torch.float32 else 1e-7
        torch.testing.assert_close(result.flatten()[::97], sample, rtol=0, atol=atol)
        counts = torch.bincount(result.argmax(1).flatten(), minlength=4)
        assert (counts - torch.tensor(case["label_counts"])).abs().max() <= 2


def check_loss(numbers: Numbers, name: str) -> None:
    """Value in float32 and float64, and the gradient."""
    loss, values, arrays = LOSSES[name], numbers.facts[name], numbers.arrays
    prediction, target = arrays["pred"].clone().requires_grad_(), arrays["target"]
    value = loss(prediction, target)
    value.backward()
    assert value.item() == pytest.approx(values["float32"], abs=1e-6)
    torch.testing.assert_close(prediction.grad, arrays[f"{name}/grad"], rtol=1e-4, atol=1e-7)
    exact = loss(prediction.detach().double(), target.double())
    assert exact.item() == pytest.approx(values["float64"], abs=1e-12)


def noise(seed: str, count: int) -> np.ndarray:
    """A hash of place and name, from 0 to 1: the source of all numbers in QTSeg's fixtures of the published size."""
    x = (np.arange(count, dtype=np.uint64) + np.uint64(zlib.crc32(seed.encode()))) % 2**32
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor) % 2**32
    return ((x ^ (x >> np.uint64(16))).astype(np.float64) + 0.5) / 2**32


def closed_form(key: str, shape: Sequence[int]) -> Tensor:
    """The weight of that name that was given to the original QTSeg."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    u = noise(key, int(np.prod(shape)))
    s = 2 * u - 1
    if key.endswith(("positional_encoding_gaussian_matrix", "mask_tokens.weight")):
        value = 3**0.5 * s
    elif key.endswith("gamma"):
        value = np.full_like(s, 0.5)
    elif key.endswith("running_mean"):
        value = 0.1 * s
    elif key.endswith("running_var"):
        value = 0.5 + u
    elif key.endswith("weight") and len(shape) > 1:
        transposed = any(part in key for part in ("conv_transpose", ".SUB_s", ".output_upscaling_s"))
        value = s * (3 / (shape[0] if transposed else np.prod(shape[1:]))) ** 0.5
    else:
        value = 1 + 0.2 * s if key.endswith("weight") else 0.05 * s
    return torch.from_numpy(value.reshape(shape).astype(np.float32))


def check_published_qtseg(numbers: Numbers, shapes: Mapping[str, Sequence[int]]) -> None:
    """QTSeg of the published size, weights and image by formula: logits, and their mean and largest."""
    facts = numbers.facts
    state = {key: closed_form(key, shape) for key, shape in shapes.items()}
    image = (2 * noise("input", int(np.prod(facts["input_shape"]))) - 1).astype(np.float32)
    network = import_original("qtseg", "QTSeg", facts["args"], state).eval()
    with torch.no_grad():
        output = network(torch.from_numpy(image).view(facts["input_shape"]))
    atol = facts["suggested_tolerance_atol"]
    assert float(output.mean()) == pytest.approx(facts["output_mean"], abs=atol)
    assert float(output.abs().max()) == pytest.approx(facts["output_absmax"], abs=atol)
    numbers.compare(output, "output_masks", atol=atol)


def check_ssh_unet(numbers: Numbers, execution: str, *, rounded: bool = False) -> None:
    """Logits, within the sidecar's tolerance unless the weights are rounded; keys, aliases and parameters."""
    facts, state = numbers.facts, numbers.weights
    network, report = import_with_report("sshunet", "SSHUNet", facts["constructor"], state)
    assert report.parameters == facts["n_params"]
    assert len(report.taken) + len(report.dropped) == len(state) == facts["n_state_keys"]
    assert len(report.taken) == facts["n_unique_tensors"]
    network.execution = execution
    network.train(facts["mode"] == "train")
    with torch.no_grad():
        result = network(numbers.arrays["input"])
    if isinstance(result, list):  # the original stacks the heads at full size
        result = torch.stack([F.interpolate(head, size=result[0].shape[2:]) for head in result], dim=1)
    if rounded:
        numbers.compare_norms(result, "output", part=3e-3)
    else:
        numbers.compare(result, "output", **facts["tolerance"])


def check_large_kernels(numbers: Numbers, method: str) -> None:
    """Logits and encoder's features of a UX-Net, by one way of convolving."""
    facts = numbers.facts
    network, report = import_with_report("repux", facts["architecture"], facts["constructor"], numbers.weights)
    assert report.parameters == facts["parameters"]
    assert len(report.taken) == len(numbers.weights)
    for module in network.modules():
        if hasattr(module, "method"):
            module.method = method
    network.eval()
    with torch.no_grad():
        for _ in range(2):  # the second time with kept spectra
            numbers.compare(network(numbers.arrays["input"]), "output", atol=5e-5)
            for level, feature in enumerate(network.encode(numbers.arrays["input"])):
                numbers.compare(feature, f"encoder_out/{level}", atol=5e-5)


# Stages of the comparators' fixtures: the original's name -> our module, whose output it is.
STAGES: dict[str, dict[str, str]] = {
    "transbts": {
        **{f"unet/skip{number}": f"levels.{number - 1}" for number in (1, 2, 3)},
        "unet/out": "levels.3",
        **{f"transformer/{number}": f"transformer.{number - 1}" for number in (1, 2, 3, 4)},
        "decoder/8": "maps",
        **{f"decoder/{number}": f"decoders.{4 - number}" for number in (4, 3, 2)},
    },
    "nnformer": {
        "patch_embed": "stem",
        **{f"encoder/{number}": f"norms.{number}" for number in range(4)},
        **{f"decoder/{number}": f"decoder.{2 - number}" for number in range(3)},
    },
    "resenc_unet": {},
    "mednext": {},
}


def check_comparator(
    numbers: Numbers, dtype: torch.dtype, played: Sequence[str] = (), without: Sequence[str] = ()
) -> None:
    """Logits of every head, stages, and gradients where they are kept, within the sidecar's tolerance.

    Args:
        numbers: the fixture.
        dtype: of the network.
        played: stages whose outputs are the original's in the place of ours.
        without: our modules whose weights are not kept.
    """
    facts, arrays = numbers.facts, numbers.arrays
    architecture, exact = facts["architecture"], dtype == torch.float64
    if without:
        network, theirs = import_part(numbers, architecture, facts["constructor"], without), {}
    else:
        network, report = import_with_report("comparators", architecture, facts["constructor"], numbers.weights)
        assert len(report.taken) + len(report.dropped) == len(numbers.weights)
        unused = sum(numbers.weights[key].numel() for key in report.dropped if not key.endswith("_index"))
        assert report.parameters + unused == facts["parameters"]
        theirs = report.taken
    network.to(dtype).train("deep/1" in arrays)
    for module in network.modules():
        if isinstance(module, (DropPath, nn.Dropout)):
            module.eval()
    kept = {name: module for name, module in STAGES[architecture].items() if f"stage/{name}" in arrays}
    found: dict[str, Tensor] = {}
    for name, module in kept.items():
        stage = arrays[f"stage/{name}"].to(dtype) if name in played else None
        network.get_submodule(module).register_forward_hook(
            lambda _, __, out, name=name, stage=stage: found.update({name: out}) if stage is None else stage
        )
    result = network(arrays["input"].to(dtype))
    heads = result if isinstance(result, list) else [result]
    atol = 5e-6 if exact else 2e-4
    assert set(found) == set(kept) - set(played)
    for name, out in found.items():
        numbers.compare(out, f"stage/{name}", atol=atol)
    if "stage/logits" in arrays:  # the authors' TransBTS returns probabilities
        numbers.compare(heads[0], "stage/logits", atol=atol)
        heads = [heads[0].softmax(1)]
    names = ["output"] + sorted(name for name in arrays if name.startswith("deep/"))
    assert len(heads) == len(names)
    for head, name in zip(heads, names, strict=True):
        if name in arrays:
            numbers.compare(head, name, atol=atol)
    sum(head.square().mean() for head in heads).backward()  # type: ignore[union-attr]
    for ours, parameter in network.named_parameters():
        expected = arrays.get(f"grad/{theirs.get(ours)}")
        if expected is not None:
            assert parameter.grad is not None
            distance = (parameter.grad - expected.to(dtype)).abs().max() / expected.abs().max()
            assert float(distance) < (1e-6 if exact else 1e-4), ours

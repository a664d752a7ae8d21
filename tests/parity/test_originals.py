"""Each published network and loss against numbers of its original program that lie in this folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cut_originals import CUTS
from original_numbers import (
    FOLDER,
    LOSSES,
    check_comparator,
    check_large_kernels,
    check_loss,
    check_operator,
    check_published_operator,
    check_published_qtseg,
    check_ssh_unet,
    import_part,
    read,
)
from torch import Tensor

from medseg.optimizers import frequency_mask
from medseg.weights.original import architectures, systems

OPERATORS = ("hnosegxs", "hnoseg", "fnoseg", "fno", "hartleymha", "vnetds")

# Our modules, and the original's whose outputs are kept: played back in the place of ours, or compared with them.
PLAYED = {
    "hermes_resunet": {
        "encoder_priors.1": "prior_init_fuse_3",
        "encoder_priors.2": "prior_init_fuse_4",
        "decoder_priors.0": "prior_fuse_5",
        "decoder_priors.1": "prior_fuse_6",
    },
    "hermes_medformer": {"encoder_priors.1": "down3", "encoder_priors.2": "down4", "decoder_priors.0": "up1"},
}
COMPARED = {
    "hermes_resunet": {"encoder_priors.0": "prior_init_fuse_2"},
    "hermes_medformer": {"encoder_priors.0": "down2", "map_fusion": "map_fusion", "decoder_priors.1": "up2"},
}
FIRST = {"hermes_resunet": "prior_init_fuse_2", "hermes_medformer": "down2"}  # compared before anything is played back
# Nothing but what is played back reads these.
BESIDE = {
    "hermes_resunet": ("encoder.2", "encoder.3", "decoder.0", "decoder.1"),
    "hermes_medformer": ("merging.2", "merging.3", "maps.1", "maps.2", "map_reduction.0"),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_neural_operators(name: str) -> None:
    check_operator(read(f"ibm_{name}"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_hnoseg_xs_of_the_published_size(dtype: torch.dtype) -> None:
    check_published_operator(read("ibm_hnosegxs_published"), dtype)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["ibm_loss_3d", "ibm_loss_2d_missing"])
def test_losses(name: str, loss: str) -> None:
    check_loss(read(name), loss)


@pytest.mark.parametrize("name", PLAYED)
def test_hermes(name: str) -> None:
    """From the image to every head; the deeper scales of prior attention are the original's own outputs, in float16."""
    numbers = read(name)
    facts, arrays = numbers.facts, numbers.arrays
    network = import_part(numbers, facts["architecture"], facts["constructor"], [*PLAYED[name], *BESIDE[name]])
    assert sum(p.numel() for p in network.parameters()) == facts["parameters"]

    def play(theirs: str, out: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(arrays.get(f"mid/{theirs}.{i}", ours).to(ours) for i, ours in enumerate(out))

    for ours, theirs in PLAYED[name].items():
        network.get_submodule(ours).register_forward_hook(lambda _, __, out, theirs=theirs: play(theirs, out))
    found: dict[str, Any] = {}
    for ours, theirs in COMPARED[name].items():
        network.get_submodule(ours).register_forward_hook(lambda _, __, out, to=theirs: found.update({to: list(out)}))
    with torch.no_grad():
        heads, kind = network.train()(
            arrays["in/image"].float(), arrays["in/tgt_idx"], arrays["in/mod_idx"], return_modality=True
        )
    for theirs, out in found.items():
        for i, part in enumerate(out):
            numbers.compare_norms(part, f"mid/{theirs}.{i}", part=1e-3)
            if theirs == FIRST[name]:  # nothing rounded went in: ours rounds to the same float16, but for borders
                assert numbers.share_of_equals(part, f"mid/{theirs}.{i}") > 0.95, theirs
    for head, output in zip(heads if isinstance(heads, list) else [heads], facts["outputs"], strict=True):
        numbers.compare_norms(head, f"out/{output}", part=1e-3)
    numbers.compare_norms(kind, "out/modality_logits", part=1e-3)


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("name", ["repuxnet", "uxnet"])
def test_large_kernels(name: str, method: str) -> None:
    check_large_kernels(read(f"repux_{name}"), method)


def test_masks_of_repuxnet() -> None:
    for name, mask in read("repux_masks").arrays.items():
        kernel, alpha = name.removeprefix("mask_k").split("_a")
        assert torch.equal(frequency_mask((int(kernel),) * 3, float(alpha)), mask), name


@pytest.mark.parametrize("execution", ["fast", "lean"])
@pytest.mark.parametrize("name", ["tsm", "gsm", "gsf"])
def test_ssh_unet(name: str, execution: str) -> None:
    check_ssh_unet(read(f"sshunet_{name}"), execution)


def test_view_fusion() -> None:
    """Weights rounded to float16."""
    check_ssh_unet(read("sshunet_vfn"), "fast", rounded=True)


def test_qtseg_of_the_published_size() -> None:
    numbers = read("qtseg_dma")
    check_published_qtseg(numbers, numbers.facts["shapes"])


def test_mqm_of_qtseg() -> None:
    """Bridge and decoder, from the encoder's outputs; weights rounded to float16."""
    numbers = read("qtseg_mqm")
    network = import_part(numbers, "QTSeg", numbers.facts["args"], ["encoder"]).eval()
    assert sum(p.numel() for p in network.parameters()) == numbers.facts["n_params"]
    with torch.no_grad():
        logits = network.decoder(network.bridge([numbers.arrays[f"encoder/{level}"] for level in range(3)]))
    numbers.compare_norms(logits, "low_res_masks", part=3e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("name", "played", "without"),
    [
        ("transbts", ("unet/out", "decoder/8"), ("levels.3", "maps")),
        ("nnformer", ("encoder/2", "encoder/3"), ("stages.2", "stages.3", "merges.2")),
        ("resenc_unet", (), ()),
        ("mednext", (), ()),
    ],
)
def test_comparators(name: str, played: tuple[str, ...], without: tuple[str, ...], dtype: torch.dtype) -> None:
    check_comparator(read(f"comparators_{name}"), dtype, played, without)


def test_every_original_class_has_its_numbers() -> None:
    facts = [read(name).facts for name in CUTS]
    found = {(fact["system"], fact.get("class") or fact["architecture"]) for fact in facts if fact["system"]}
    known = {(system, name) for system in systems() for name in architectures(system)}
    assert found == known - {("qtseg", "FPNEncoder")}  # the encoder of QTSeg alone


def test_files_are_small_and_hold_numbers_only() -> None:
    files = [path for path in FOLDER.iterdir() if path.suffix in (".npz", ".json")]
    assert {path.stem for path in files} == set(CUTS)
    total = 0
    for name in CUTS:
        pair = FOLDER / f"{name}.npz", FOLDER / f"{name}.json"
        with np.load(pair[0], allow_pickle=False) as arrays:
            assert all(arrays[kind].dtype == np.uint8 for kind in arrays.files)
        size = sum(path.stat().st_size for path in pair)
        assert size <= 300_000, name
        total += size
    assert total <= 4_400_000
    assert all(value.isfinite().all() for name in CUTS for value in read(name).arrays.values())

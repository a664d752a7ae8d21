"""Cuts the small fixtures of this folder from the full sets of the original programs' numbers.

    python tests/parity/cut_originals.py FULL_SET tests/parity

``CUTS`` says what each takes. A fixture is a pair of files. ``NAME.npz`` holds one array of bytes per kind of number:
all values of that kind one after the other, first byte of each value, second byte of each, and so on, which compresses
better and loses nothing. ``NAME.json`` holds what the original's sidecar says, and ``arrays``: name -> [kind, *shape]
in the order of the values. Every value is the original's; what is a part or is rounded stands in ``CUTS``.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["CUTS", "Cut", "cut"]


@dataclass(frozen=True)
class Cut:
    """What a small fixture takes of a full one; patterns of array names are those of ``fnmatch``.

    Attributes:
        source: full fixture, without suffix.
        system: as ``import_original`` names it; "" for losses and masks.
        architecture: the original's class where the sidecar names none.
        facts: fields of the sidecar that are taken.
        without: arrays that are not taken.
        every: only each n-th value of the flattened array is taken.
        first: only the first sample of the batch is taken.
        rounded: float32 weights that are rounded to float16.
        keys: table of the original keys and shapes of weights that a formula gives; kept as ``shapes``.
    """

    source: str
    system: str = ""
    architecture: str = ""
    facts: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    every: Mapping[str, int] = field(default_factory=dict)
    first: tuple[str, ...] = ()
    rounded: tuple[str, ...] = ()
    keys: str = ""


_IBM = ("class", "args", "num_params", "grad_norms")
_REPUX = ("architecture", "constructor", "parameters")
_SSH = ("constructor", "n_params", "n_state_keys", "n_unique_tensors", "mode", "tolerance")
_HERMES = ("architecture", "constructor", "parameters", "outputs")
_COMPARATOR = ("architecture", "constructor", "parameters")
_LOSSES = ("pcc", "dice", "expdice_0_3", "expdice_0_7", "expdice_1")


def _operator(source: str) -> Cut:
    return Cut(f"ibm/{source}", "ibm", facts=_IBM)


def _large_kernel(source: str) -> Cut:
    return Cut(f"repux/{source}", "repux", facts=_REPUX, every={"output": 41, "encoder_out/*": 13})


def _shifted(source: str) -> Cut:
    return Cut(f"sshunet/{source}", "sshunet", "SSHUNet", _SSH)


CUTS = {
    "ibm_hnosegxs": _operator("hnosegxs_3d_a"),
    "ibm_hnosegxs_published": Cut("ibm/published_hnosegxs", "ibm", "HNOSegXS", ("cases",), without=("out_sample*",)),
    "ibm_hnoseg": _operator("hnoseg_3d_a"),
    "ibm_fnoseg": _operator("fnoseg_3d_a"),
    "ibm_fno": _operator("fno_3d_a"),
    "ibm_hartleymha": _operator("hartleymha_3d_a"),
    "ibm_vnetds": _operator("vnetds_3d_a"),
    "ibm_loss_3d": Cut("ibm/loss_3d_a", facts=_LOSSES, without=("corrcoef", "dice_coef")),
    "ibm_loss_2d_missing": Cut("ibm/loss_2d_missing", facts=_LOSSES, without=("corrcoef", "dice_coef")),
    # The weights of the attention at the deeper scales do not fit: there the original's own outputs (float16) are
    # played back, and the rest of the network runs from the image to the logits.
    "hermes_resunet": Cut(
        "hermes/resunet_a",
        "hermes",
        facts=_HERMES,
        without=(
            *(f"sd/{part}.*" for part in ("down3", "prior_init_fuse_3", "down4", "prior_init_fuse_4")),
            *(f"sd/{part}.*" for part in ("up1", "prior_fuse_5", "up2", "prior_fuse_6")),
            *("mid/down2", "mid/prior_init_fuse_[34].0", "mid/up1", "mid/prior_fuse_5.0"),
            *("grad/*", "in/label", "out/single_*"),
        ),
        first=("in/*", "mid/*", "out/*"),
        every={"out/logits*": 31, "mid/prior_init_fuse_2.0": 5},
    ),
    "hermes_medformer": Cut(
        "hermes/medformer_a",
        "hermes",
        facts=_HERMES,
        without=(
            *(f"sd/{part}.*" for part in ("down3", "down4", "up1")),
            "mid/down1.0",
            "grad/*",
            "in/label",
            "out/single_*",
        ),
        first=("in/*", "mid/*", "out/*"),
        every={"out/logits*": 31},
    ),
    "repux_repuxnet": _large_kernel("repuxnet_k7"),
    "repux_uxnet": _large_kernel("uxnet_k7"),
    "repux_masks": Cut("repux/bfr_masks", without=("mask_k21_a1",)),
    # The published size; RECIPE.md's formula gives every weight and the image.
    "qtseg_dma": Cut(
        "qtseg/dma_full_recipe_128",
        "qtseg",
        "QTSeg",
        ("args", "n_params", "input_shape", "output_mean", "output_absmax", "suggested_tolerance_atol"),
        without=("input",),
        every={"output_masks": 5},
        keys="qtseg/state_dict_keys_qtseg_dma_v0.3.1_2class.txt",
    ),
    # The encoder is the one of DMA; here its outputs are the input.
    "qtseg_mqm": Cut(
        "qtseg/mqm_small_binary",
        "qtseg",
        "QTSeg",
        ("args", "n_params"),
        without=("sd/image_encoder.*", "input", "bridge/*", "output_*", "target", "grad/*", "train_mode/*"),
        first=("encoder/*", "low_res_masks"),
        rounded=("sd/*",),
        every={"low_res_masks": 3},
    ),
    "sshunet_tsm": _shifted("tsm"),
    "sshunet_gsm": _shifted("gsm_affine"),
    "sshunet_gsf": Cut("sshunet/gsf", "sshunet", "SSHUNet", _SSH, first=("input", "output")),
    # What does not fit is played back: TransBTS behind its third level and between transformer and decoder, nnFormer at
    # the two coarsest stages of its encoder.
    "comparators_transbts": Cut(
        "comparators/transbts_b",
        "comparators",
        facts=_COMPARATOR,
        without=(
            *("state/linear_encoding.*", "state/pre_head_ln.*", "state/Unet.EnBlock4_*", "state/Enblock8_*"),
            *("stage/unet/skip[12]", "stage/tokens", "stage/transformer/1", "stage/decoder/[234]", "grad/*", "output"),
        ),
        first=("input", "stage/*"),
        every={"stage/logits": 3},
    ),
    "comparators_nnformer": Cut(
        "comparators/nnformer_a",
        "comparators",
        facts=_COMPARATOR,
        without=(
            *("state/model_down.layers.[23].*", "state/*.relative_position_index", "stage/encoder/0"),
            *("stage/decoder/*", "grad/*"),
        ),
        every={"output": 17, "stage/patch_embed": 5, "stage/encoder/1": 5},
    ),
    "comparators_resenc_unet": Cut(
        "comparators/resenc_unet_tiny", "comparators", facts=_COMPARATOR, every={"output": 17, "deep/*": 5}
    ),
    "comparators_mednext": Cut(
        "comparators/mednext_b_tiny", "comparators", facts=_COMPARATOR, every={"output": 61, "deep/[12]": 17}
    ),
    "sshunet_vfn": Cut("sshunet/tsm_vfn", "sshunet", "SSHUNet", _SSH, rounded=("sd/*",)),
}


def cut(name: str, full_set: Path, folder: Path) -> None:
    """Write ``NAME.npz`` and ``NAME.json`` into a folder."""
    rule = CUTS[name]
    sidecar = json.loads((full_set / f"{rule.source}.json").read_text())
    facts: dict[str, Any] = {"source": rule.source, "system": rule.system}
    facts |= {key: sidecar[key] for key in rule.facts}
    if rule.architecture:
        facts["architecture"] = rule.architecture
    arrays: dict[str, list[Any]] = {}
    aliases: dict[str, str] = {}
    values: dict[str, list[np.ndarray]] = {}
    seen: dict[tuple[bytes, tuple[int, ...]], str] = {}
    with np.load(full_set / f"{rule.source}.npz", allow_pickle=False) as full:
        for key in full.files:
            if _any(key, rule.without):
                continue
            value = full[key]
            if _any(key, rule.first):
                value = value[:1]
            if steps := [step for pattern, step in rule.every.items() if fnmatch(key, pattern)]:
                value = value.flatten()[:: steps[0]]
                facts.setdefault("every", {})[key] = steps[0]
            if _any(key, rule.rounded) and value.dtype == np.float32:
                value = value.astype(np.float16)
            if (first := seen.setdefault((value.tobytes(), value.shape), key)) != key and value.size > 64:
                aliases[key] = first
                continue
            kind = value.dtype.name
            arrays[key] = [kind, *value.shape]
            values.setdefault(kind, []).append(value.ravel())
    if rule.keys:
        rows = [row.split("\t") for row in (full_set / rule.keys).read_text().splitlines() if not row.startswith("#")]
        facts["shapes"] = {key: list(ast.literal_eval(shape)) for key, shape, _ in rows}
    facts |= {"arrays": arrays, "aliases": aliases}
    packed = {kind: _bytes_apart(np.concatenate(parts)) for kind, parts in values.items()}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **packed)
    (folder / f"{name}.json").write_text(json.dumps(facts, separators=(",", ":")) + "\n")


def _any(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(key, pattern) for pattern in patterns)


def _bytes_apart(flat: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(flat.view(np.uint8).reshape(-1, flat.itemsize).T)


if __name__ == "__main__":
    for each in CUTS:
        cut(each, Path(sys.argv[1]), Path(sys.argv[2]))

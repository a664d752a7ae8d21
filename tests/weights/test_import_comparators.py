"""TransBTS, nnFormer, ResEnc U-Net and MedNeXt: numbers of the original programs, key tables, counts, refusals."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from full_set import FULL_SET
from original_numbers import STAGES, check_comparator, read_full
from torch import Tensor

from medseg.errors import ConfigError, ModelError
from medseg.weights import import_original, import_with_report

FIXTURES = FULL_SET / "comparators"
NAMES = ("transbts_a", "transbts_b", "nnformer_a", "nnformer_b", "resenc_unet_tiny", "mednext_b_tiny")
TINY_TRANSBTS = {"num_classes": 2, "img_dim": 16, "embedding_dim": 8, "base_channels": 2, "num_groups": 1} | {
    "num_heads": 2,
    "num_layers": 1,
    "hidden_dim": 8,
    "auxillary_output_layers": [1],
}
TINY_NNFORMER = {"crop_size": [16, 32, 32], "embedding_dim": 4, "num_heads": [1, 1, 1, 1], "num_classes": 2}
TINY_RESENC = {"input_channels": 1, "num_classes": 2, "n_stages": 2, "features_per_stage": [2, 4]} | {
    "kernel_sizes": [[3, 3], [3, 3]],
    "strides": [[1, 1], [2, 2]],
    "n_blocks_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_op": "torch.nn.modules.conv.Conv2d",
}
TINY_MEDNEXT = {"in_channels": 1, "n_channels": 2, "n_classes": 2, "do_res": True, "do_res_up_down": True}


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_the_original(name: str, dtype: torch.dtype) -> None:
    check_comparator(read_full(FIXTURES / name), dtype)


def by_recipe(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The weight of that name that was given to the original at its full width."""
    r = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32).standard_normal(shape)
    if key.endswith("running_mean"):
        value = 0.2 * r
    elif key.endswith("running_var"):
        value = 0.5 + np.abs(r)
    elif key.endswith("bias"):
        value = 0.15 * r
    elif key.endswith("relative_position_bias_table"):
        value = 0.7 * r
    elif key.endswith("position_embeddings"):
        value = 0.5 * r
    elif len(shape) == 1:
        value = 1 + 0.2 * r
    elif key.endswith("up.weight") or (key.startswith("DeUp") and key.endswith("conv2.weight")):
        value = r / np.sqrt(shape[0])
    else:
        value = r / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))


def table(name: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Original key -> shape, kind."""
    lines = (FIXTURES / f"state_dict_keys_{name}.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return {row[0]: (() if row[1] == "scalar" else tuple(map(int, row[1].split("x"))), row[3]) for row in rows}


def own_shapes(architecture: str, arguments: dict[str, Any], keys: list[str]) -> dict[str, tuple[int, ...]]:
    """Original key -> our tensor's shape, by the import of scalars of these names."""
    from medseg.networks import create_network
    from medseg.weights.original import architectures

    original = architectures("comparators")[architecture]
    name, ours = original.network(dict(arguments))
    with torch.device("meta"):
        network = create_network(name, **ours)
    state = {key: torch.zeros(()) for key in keys if not key.endswith("_index")}
    conversion = original.convert(state, network)
    own = network.state_dict()
    assert set(conversion.state) == set(own)
    return {theirs: tuple(own[key].shape) for key, theirs in conversion.origin.items()}


@pytest.mark.usefixtures("full_set")
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["transbts", "nnformer"])
def test_numbers_of_the_full_width(architecture: str) -> None:
    numbers = read_full(FIXTURES / f"{architecture}_fullwidth")
    facts, arrays = numbers.facts, numbers.arrays
    shapes = own_shapes(architecture, facts["constructor"], list(table(architecture)))
    state = {
        key: torch.tensor(0) if key.endswith("num_batches_tracked") else by_recipe(key, shape, facts["seed"])
        for key, shape in shapes.items()
    }
    network, report = import_with_report("comparators", architecture, facts["constructor"], state)
    assert report.parameters + (67_072 if architecture == "transbts" else 0) == facts["parameters"]
    found: dict[str, Tensor] = {}
    for name, module in STAGES[architecture].items():
        network.get_submodule(module).register_forward_hook(lambda _, __, out, name=name: found.update({name: out}))
    with torch.no_grad():
        logits = network.eval()(arrays["input"])
    (sampled,) = (name for name in arrays if name.startswith("output_every_"))
    step = int(sampled.rpartition("_")[2])
    expected = arrays[sampled]
    torch.testing.assert_close(logits[:, :, ::step, ::step, ::step], expected.float(), atol=2e-4, rtol=0)
    for name, out in found.items():
        mean, deviation = arrays[f"stage_mean_std/{name}"]
        assert float(out.mean()) == pytest.approx(float(mean), abs=1e-5)
        assert float(out.std()) == pytest.approx(float(deviation), abs=1e-5)


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("transbts", {"num_classes": 5}, 31_577_285),
        ("transbts_authors", {"num_classes": 4, "num_channels": 4, "img_dim": 128}, 32_987_588),
        ("nnformer", {"num_classes": 5}, 149_265_629),
        ("nnformer_synapse", {"crop_size": [64, 128, 128], "deep_supervision": True}, 150_054_210),
        (
            "nnformer_tumor",
            {"variant": "tumor", "crop_size": [128] * 3, "embedding_dim": 96, "num_heads": [3, 6, 12, 24]}
            | {"patch_size": [4, 4, 4], "input_channels": 4, "num_classes": 4},
            37_606_726,
        ),
    ],
)
def test_key_tables(name: str, arguments: dict[str, Any], count: int) -> None:
    """Every key has its place and shape; the count is the published one, unused parameters included."""
    rows = table(name)
    shapes = own_shapes(name.partition("_")[0], arguments, list(rows))
    assert all(rows[key][0] == shape for key, shape in shapes.items())
    left = {key for key in rows if key not in shapes}
    assert {key.rpartition(".")[2] if key.endswith("_index") else key.partition(".")[0] for key in left} == (
        {"linear_encoding", "pre_head_ln"} if name.startswith("transbts") else {"relative_position_index"}
    )
    assert sum(int(np.prod(shape)) for shape, kind in rows.values() if kind == "parameter") == count


def test_an_index_of_other_windows_is_refused() -> None:
    key = "model_down.layers.0.blocks.0.attn.relative_position_index"
    with pytest.raises(ModelError, match="not the index of the published nnFormer"):
        import_original("comparators", "nnformer", TINY_NNFORMER, {key: torch.zeros(64, 64, dtype=torch.int64)})


@pytest.mark.parametrize(
    ("architecture", "arguments", "sentence"),
    [
        ("transbts", TINY_TRANSBTS | {"num_layers": 2}, "reads layer 1 of 2"),
        ("transbts", TINY_TRANSBTS | {"positional_encoding_type": "fixed"}, "'fixed' has no equal here"),
        ("transbts", TINY_TRANSBTS | {"img_dims": 16}, "Did you mean 'img_dim'"),
        ("nnformer", TINY_NNFORMER | {"variant": "acdc"}, "no variant 'acdc'"),
        ("resenc_unet", TINY_RESENC | {"nonlin": "torch.nn.ReLU"}, "nonlin 'torch.nn.ReLU' has no equal"),
        ("resenc_unet", TINY_RESENC | {"n_conv_per_stage_decoder": [1, 2]}, "one number for all stages"),
        ("mednext", TINY_MEDNEXT | {"do_res": False}, "do_res False has no equal"),
    ],
)
def test_what_has_no_equal_is_refused(architecture: str, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        import_original("comparators", architecture, arguments)


def test_second_names_of_a_resenc_unet_are_dropped() -> None:
    """nnU-Net's checkpoints name the tensors of the encoder four times; its plans also give the class of the layers."""
    network = import_original("comparators", "resenc_unet", TINY_RESENC)
    state: dict[str, Tensor] = {}
    for key, value in network.state_dict().items():
        theirs = (
            key.replace(".adn.N.", ".norm.")
            .replace("encoder.0.", "encoder.stages.0.blocks.")
            .replace("encoder.1.", "encoder.stages.1.blocks.")
            .replace(".adjust.", ".skip.1.")
            .replace("decoder.0.", "decoder.stages.0.convs.")
            .replace("ups.", "decoder.transpconvs.")
            .replace("heads.", "decoder.seg_layers.")
        )
        theirs = f"encoder.stem.convs.0.{theirs[5:]}" if theirs.startswith("stem.") else theirs
        state[theirs] = value
        if theirs.startswith("encoder."):
            second = theirs.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1.")
            state |= {second: value, f"decoder.{theirs}": value, f"decoder.{second}": value}
    _, report = import_with_report("comparators", "resenc_unet", TINY_RESENC, state)
    assert len(report.taken) == len(network.state_dict())
    assert all("all_modules" not in key and "decoder.encoder" not in key for key in report.taken.values())
    assert all(reason.startswith("the same tensor as encoder.") for reason in report.dropped.values())
    some = next(key for key in state if "all_modules" in key)
    with pytest.raises(ModelError, match="two names of one tensor"):
        import_original("comparators", "resenc_unet", TINY_RESENC, state | {some: state[some] + 1})

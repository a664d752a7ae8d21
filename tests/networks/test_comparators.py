"""TransBTS, nnFormer, ResEnc U-Net and MedNeXt beyond what every network promises: published sizes, quirks, heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets.mednext import create_mednext
from torch import nn

from medseg.errors import ConfigError
from medseg.networks import create_network
from medseg.networks.cost import count_parameters, multiply_adds_of
from medseg.networks.layers.nnunet_topology import nnunet_topology
from medseg.networks.layers.window_attention import WindowAttention, WindowBlock
from medseg.networks.nnunet_patch import nnunet_patch
from medseg.networks.resenc_unet import ResidualBlock

TINY: dict[str, dict[str, Any]] = {
    "transbts": {"img_size": 16, "base_channels": 2, "embed_dim": 8, "num_heads": 2, "num_layers": 1, "mlp_dim": 8}
    | {"norm_groups": 1},
    "nnformer": {"img_size": 32, "embed_dim": 4, "depths": (1, 1, 1), "num_heads": (1, 1, 1), "window_size": (2, 2, 2)}
    | {"deep_supervision": True},
    "resenc_unet": {"strides": (1, (2, 2, 1), 2), "features": (2, 3, 4), "blocks": (1, 1, 1)},
    "mednext": {"size": "S", "features": 2, "deep_supervision": True},
}


def tiny(name: str, **changed: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_network(name, spatial_dims=3, in_channels=1, out_channels=3, **TINY[name] | changed)


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("nnformer", [(20, 33, 18), (10, 17, 9)]),
        ("resenc_unet", [(20, 33, 18), (10, 17, 18)]),
        ("mednext", [(20, 33, 18), (10, 17, 9), (5, 9, 5), (3, 5, 3), (2, 3, 2)]),
    ],
)
def test_deep_supervision_gives_a_list_in_training(name: str, heads: list[tuple[int, ...]]) -> None:
    network, x = tiny(name), torch.randn(1, 1, 20, 33, 18)
    assert [tuple(head.shape) for head in network.train()(x)] == [(1, 3, *size) for size in heads]
    assert network.eval()(x).shape == (1, 3, 20, 33, 18)
    alone = tiny(name, deep_supervision=False).train()
    assert alone(x).shape == (1, 3, 20, 33, 18)
    assert count_parameters(alone) < count_parameters(network)


@pytest.mark.parametrize("name", ["transbts", "resenc_unet", "mednext"])
def test_a_volume_of_one_step_keeps_voxels_to_normalise(name: str) -> None:
    sides = {"transbts": (8, 8, 8), "resenc_unet": (4, 4, 2), "mednext": (16, 16, 16)}
    result = tiny(name).train()(torch.randn(1, 1, *sides[name]))
    assert all(head.isfinite().all() for head in (result if isinstance(result, list) else [result]))


@pytest.mark.parametrize(
    ("name", "changed", "sentence"),
    [
        ("transbts", {"spatial_dims": 1}, "spatial_dims is 1"),
        ("transbts", {"num_heads": 3}, "embed_dim is 8 and base_channels 2"),
        ("nnformer", {"spatial_dims": 1}, "spatial_dims is 1"),
        ("nnformer", {"patch_size": (3, 4, 4)}, r"patch_size \[3, 4, 4\], expected an even number"),
        ("nnformer", {"num_heads": (1, 1)}, r"depths is \[1, 1, 1\]"),
        ("resenc_unet", {"spatial_dims": 1}, "spatial_dims is 1"),
        ("resenc_unet", {"blocks": (1, 1)}, "strides has 3 stages"),
        ("mednext", {"spatial_dims": 1}, "spatial_dims is 1"),
        ("mednext", {"size": "XL"}, "No size 'XL' of MedNeXt"),
        ("mednext", {"blocks": (1, 2)}, "expected nine numbers each"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        create_network(name, **{"spatial_dims": 3, "in_channels": 1, "out_channels": 3, **TINY[name], **changed})


# ---------------------------------------------------------------------- TransBTS
def test_transbts_predicts_alike_twice_and_reads_positions_as_they_are() -> None:
    """The released program drops channels in evaluation too."""
    network, x = tiny("transbts").eval(), torch.randn(1, 1, 16, 16, 16)
    nn.init.normal_(network.positions)  # type: ignore[arg-type]
    assert torch.equal(network(x), network(x))
    assert network._positions([2, 2, 2]) is network.positions  # type: ignore[operator]
    wide = network._positions([2, 2, 4])  # type: ignore[operator]
    assert wide.shape == (1, 16, 8)
    torch.testing.assert_close(wide[0, 0], network.positions[0, 0])  # type: ignore[index]


# ---------------------------------------------------------------------- nnFormer
@pytest.mark.parametrize(("dims", "window", "used"), [(3, 4, 115), (3, 6, 291), (3, 3, 57), (2, 4, 49), (2, 8, 225)])
def test_offsets_share_position_biases_in_3d(dims: int, window: int, used: int) -> None:
    attention = WindowAttention(dims, 2, 1, window=window)
    assert len(attention.index.unique()) == used
    assert int(attention.index.max()) < len(attention.bias_table)


def test_nnformer_has_the_windows_and_rates_of_the_specification() -> None:
    with torch.device("meta"):
        network = create_network("nnformer", spatial_dims=3, in_channels=1, out_channels=5)

    def table(stages: str) -> list[list[tuple[int, int, float]]]:
        return [
            [(b.attention.window, b.attention.shift, round(35 * b.drop_path.drop_prob, 3)) for b in stage]
            for stage in network.get_submodule(stages)
        ]

    assert table("stages") == [
        [(4, 0, 0), (4, 2, 1)],
        [(4, 0, 2), (4, 2, 3)],
        [(6, 0, 4), (6, 0, 5)],
        [(3, 0, 6), (3, 0, 7)],
    ]
    assert table("decoder") == [[(6, 0, 0), (6, 0, 1.4)], [(4, 0, 2.8), (4, 2, 4.2)], [(4, 0, 5.6), (4, 2, 7)]]


def test_rolled_tokens_do_not_see_each_other() -> None:
    """In a shifted block, a token at one end is not moved by one at the other end, which shares its window."""
    torch.manual_seed(0)
    block = WindowBlock(2, 4, 1, window=4, shift=2).eval()
    x = torch.randn(1, 8, 8, 4)
    other = x.clone()
    other[:, -1] = torch.randn(8, 4)
    moved = (block(x) - block(other)).detach().abs().amax(dim=(0, 2, 3)) > 1e-6
    assert moved.tolist() == [False] * 6 + [True] * 2


@pytest.mark.parametrize(
    ("name", "size", "channels", "expected"),
    [
        ("transbts", 96, 8, 119.43),
        ("nnformer", 96, 5, 176.41),
        ("nnformer", 96, 8, 176.92),
        ("resenc_unet", 96, 5, 302.7),
    ],
)
def test_multiply_adds_are_those_of_the_original(name: str, size: int, channels: int, expected: float) -> None:
    with torch.device("meta"):
        network = create_network(name, spatial_dims=3, in_channels=1, out_channels=channels)
    found = multiply_adds_of(network, (1, 1, size, size, size)).total / 1e9
    assert found == pytest.approx(expected, rel=1e-3)


# ---------------------------------------------------------------------- ResEnc U-Net
def test_a_residual_block_begins_as_its_shortcut() -> None:
    network = tiny("resenc_unet")
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    x = torch.randn(1, 2, 8, 8, 8)
    assert torch.equal(blocks[0](x), nn.functional.leaky_relu(x, 0.01))


@pytest.mark.parametrize(
    ("stages", "out_channels", "count"), [(6, 5, 102_352_185), (6, 16, 102_361_040), (7, 5, 141_892_990)]
)
def test_resenc_unet_has_the_original_number_of_parameters(stages: int, out_channels: int, count: int) -> None:
    strides = [1] + [2] * (stages - 1)
    with torch.device("meta"):
        network = create_network(
            "resenc_unet", spatial_dims=3, in_channels=1, out_channels=out_channels, strides=strides
        )
    assert count_parameters(network) == count


# Of the planner of nnU-Net 2.8.1.
@pytest.mark.parametrize(
    ("name", "spacing", "shape", "classes", "cases", "patch", "batch", "stages"),
    [
        ("L", (1, 1, 1), (36, 50, 35), 3, 208, (40, 56, 40), 146, 4),
        ("L", (2.5, 0.8, 0.8), (103, 512, 512), 2, 30, (64, 320, 256), 2, 7),
        ("M", (1, 0.78, 0.78), (482, 512, 512), 3, 105, (128, 128, 128), 2, 6),
        ("XL", (1, 0.78, 0.78), (482, 512, 512), 3, 105, (224, 256, 224), 2, 6),
        ("M", (5, 1.5625, 1.5625), (20, 320, 320), 3, 26, (20, 320, 256), 2, 7),
        ("L", (1.0, 1.0), (600, 800), 2, 100, (640, 896), 16, 8),
        ("L", (1, 1, 1), (138, 169, 138), 4, 387, (160, 192, 160), 3, 6),
    ],
)
def test_presets_are_nnunets(
    name: str,
    spacing: tuple[float, ...],
    shape: tuple[int, ...],
    classes: int,
    cases: int,
    patch: tuple[int, ...],
    batch: int,
    stages: int,
) -> None:
    memory = {"M": 8, "L": 24, "XL": 40}[name]
    preset = nnunet_patch(spacing, shape, out_channels=classes, num_cases=cases, memory_gb=memory, residual=True)
    assert (preset.roi_size, preset.batch_size, len(preset.strides)) == (patch, batch, stages)
    with torch.device("meta"):
        network = create_network(
            "resenc_unet",
            spatial_dims=len(patch),
            in_channels=1,
            out_channels=classes,
            strides=preset.strides,
            kernel_sizes=preset.kernels,
        )
    assert [n % s for n, s in zip(patch, network.scales[-1], strict=True)] == [0] * len(patch)  # type: ignore[index]


def test_thick_slices_are_halved_late() -> None:
    kernels, strides = nnunet_topology((20, 320, 256), (5, 1.5625, 1.5625))
    assert strides == [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2], [1, 2, 2]]
    assert kernels == [[1, 3, 3], *[[3, 3, 3]] * 6]
    assert nnunet_topology((96, 96, 96), (1, 1, 1)) == ([[3, 3, 3]] * 5, [[1, 1, 1], *[[2, 2, 2]] * 4])
    assert nnunet_topology((4, 6, 5), None) == ([[3, 3, 3]] * 2, [[1, 1, 1], [2, 2, 2]])
    assert len(nnunet_topology((128, 128), None, max_stages=4)[1]) == 4


# ---------------------------------------------------------------------- MedNeXt
def test_size_s_is_monais() -> None:
    """The other sizes of MONAI's have blocks of other widths where they halve."""
    ours = create_network("mednext", spatial_dims=3, in_channels=1, out_channels=2, size="S").eval()
    theirs = create_mednext("S", out_channels=2).eval()
    theirs.load_state_dict(ours.get_submodule("network").state_dict())
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize(("size", "count"), [("B", 10_526_405), ("M", 17_549_061), ("L", 61_779_365)])
def test_mednext_has_the_published_number_of_parameters(size: str, count: int) -> None:
    with torch.device("meta"):
        assert (
            count_parameters(create_network("mednext", spatial_dims=3, in_channels=1, out_channels=5, size=size))
            == count
        )
        assert count_parameters(create_mednext(size, out_channels=5)) < count

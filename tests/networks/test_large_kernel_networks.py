"""3D RepUX-Net and 3D UX-Net beyond what every network promises: cost, padding, blocks, export, compilation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks import create_network
from medseg.networks.layers.large_kernel import DepthwiseConv
from medseg.networks.layers.large_kernel_unetr import ChannelNorm
from medseg.networks.repuxnet import RepUXBlock
from medseg.networks.uxnet import UXBlock

TINY: dict[str, Any] = {"depths": (1, 2, 1, 1), "feature_size": (3, 4, 5, 6), "hidden_size": 7}
BOTH = pytest.mark.parametrize("name", ["repuxnet", "uxnet"])


def tiny(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    network = create_network(name, spatial_dims=3, in_channels=2, out_channels=3, **TINY | options)
    for module in network.modules():
        if isinstance(module, UXBlock) and module.gamma is not None:
            nn.init.normal_(module.gamma, 0.5, 0.1)  # the first value, 1e-6, hides the blocks
    return network.eval()


def counted(network: nn.Module, size: int) -> tuple[float, float]:
    """Multiply-adds of the convolutions at ``size``^3, and the figure of the tool that the publications used (thop):
    transposed convolutions by output voxels, and 2 or 4 per number of instance or batch norm.
    """
    exact = tool = 0.0

    def conv(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal exact, tool
        per_output = math.prod(module.weight.shape[1:])
        exact += output.numel() * per_output
        tool += output.numel() * per_output

    def transposed(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal exact, tool
        exact += inputs[0].numel() * math.prod(module.weight.shape[1:])
        tool += output.numel() * math.prod(module.weight.shape[2:]) * module.in_channels

    def norm(factor: int) -> Callable[..., None]:
        def add(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal tool
            tool += factor * output.numel()

        return add

    hooks = {nn.Conv3d: conv, DepthwiseConv: conv, nn.ConvTranspose3d: transposed}
    hooks |= {nn.InstanceNorm3d: norm(2), nn.BatchNorm3d: norm(4)}
    for module in network.modules():
        if type(module) in hooks:
            module.register_forward_hook(hooks[type(module)])
    network.eval()(torch.zeros(1, 1, size, size, size))
    return exact / 1e9, tool / 1e9


@pytest.mark.parametrize(
    ("name", "kernel", "classes", "parameters", "giga", "by_tool"),
    [
        ("repuxnet", 21, 5, 65_827_829, 703.04, 757.45),
        ("repuxnet", 21, 16, 65_828_368, 703.51, 757.92),
        ("uxnet", 7, 5, 53_006_069, 577.40, 631.76),
        ("uxnet", 21, 5, 65_847_989, 703.15, 757.51),
    ],
)
def test_parameters_and_multiply_adds(
    name: str, kernel: int, classes: int, parameters: int, giga: float, by_tool: float
) -> None:
    with torch.device("meta"):
        network = create_network(name, spatial_dims=3, in_channels=1, out_channels=classes, kernel_size=kernel)
        exact, tool = counted(network, 96)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert exact == pytest.approx(giga, rel=2e-5)
    assert tool == pytest.approx(by_tool, rel=5e-4)


@BOTH
@pytest.mark.parametrize(("size", "padded"), [((17, 32, 30), (32, 32, 32)), ((9, 16, 16), (16, 16, 32))])
def test_padding_at_the_end_and_no_change_where_none_is_needed(
    name: str, size: tuple[int, ...], padded: tuple[int, ...]
) -> None:
    network = tiny(name, kernel_size=5)
    x = torch.randn(1, 2, *size)
    larger = torch.zeros(1, 2, *padded)
    larger[..., : size[0], : size[1], : size[2]] = x
    with torch.no_grad():
        expected = network(larger)[..., : size[0], : size[1], : size[2]]
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-5)


@BOTH
def test_forms_of_the_convolution_give_the_same_logits(name: str) -> None:
    x = torch.randn(1, 2, 32, 16, 48)
    logits = {}
    for method in ("direct", "fft", "auto"):
        with torch.no_grad():
            logits[method] = tiny(name, kernel_size=21, conv_method=method)(x)
    for method in ("fft", "auto"):
        assert (logits[method] - logits["direct"]).abs().max() < 2e-5


@BOTH
def test_gradients_of_both_forms_agree(name: str) -> None:
    x = torch.randn(2, 2, 32, 16, 16)
    found = {}
    for method in ("direct", "fft"):
        network = tiny(name, kernel_size=7, conv_method=method).double().train()
        network(x.double()).square().mean().backward()
        found[method] = {key: p.grad for key, p in network.named_parameters()}
    for key, gradient in found["direct"].items():
        torch.testing.assert_close(found["fft"][key], gradient, rtol=1e-6, atol=1e-10, msg=key)


def test_the_repux_block_has_no_residual_and_norms_after_the_convolution() -> None:
    block = RepUXBlock(3, 4, 5, "auto").eval()
    x = torch.randn(2, 4, 6, 7, 8)
    with torch.no_grad():
        block.norm.running_mean.normal_()
        block.norm.running_var.uniform_(0.5, 2)
        scale = (block.norm.running_var + 1e-5).rsqrt().view(-1, 1, 1, 1)
        normed = (block.conv(x) - block.norm.running_mean.view(-1, 1, 1, 1)) * scale
        torch.testing.assert_close(block(x), nn.functional.gelu(normed))


def test_the_ux_block_mixes_no_channels_and_scales_what_it_adds() -> None:
    torch.manual_seed(0)
    block = UXBlock(3, 4, 5, drop_path=0.0, layer_scale=0.5, method="auto").eval()
    x = torch.randn(1, 4, 6, 6, 6)
    with torch.no_grad():
        features = torch.randn(1, 4, 6, 6, 6)
        other = features.clone()
        other[:, 2] += 1
        changed = (block.reduce(block.act(block.expand(features))) != block.reduce(block.act(block.expand(other)))).any(
            dim=(0, 2, 3, 4)
        )
        assert changed.tolist() == [False, False, True, False]
        added = block(x) - x
        block.gamma.mul_(2)
        torch.testing.assert_close(block(x) - x, 2 * added)
        fresh = UXBlock(3, 4, 5, drop_path=0.0, layer_scale=1e-6, method="auto")
        assert (fresh(x) - x).abs().max() < 1e-5
    assert UXBlock(3, 4, 5, drop_path=0.0, layer_scale=0.0, method="auto").gamma is None


def test_stochastic_depth_rises_to_its_rate() -> None:
    network = tiny("uxnet", drop_path_rate=0.4)
    rates = [module.drop_path.drop_prob for module in network.modules() if isinstance(module, UXBlock)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    block = UXBlock(3, 2, 3, drop_path=0.5, layer_scale=0.5, method="auto").train()
    x = torch.randn(64, 2, 4, 4, 4)
    torch.manual_seed(0)
    with torch.no_grad():
        added = block(x) - x
        kept = added.flatten(1).any(dim=1)
        torch.testing.assert_close(added[kept], 2 * (block.eval()(x) - x)[kept], rtol=1e-3, atol=1e-5)
    assert 16 < int(kept.sum()) < 48


def test_the_channel_norm_is_layer_norm_over_channels() -> None:
    norm, x = ChannelNorm(5), torch.randn(2, 5, 3, 4, 6)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    expected = nn.functional.layer_norm(x.movedim(1, -1), (5,), norm.weight, norm.bias, eps=1e-6).movedim(-1, 1)
    torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-5)
    half = norm.bfloat16()(x.bfloat16())
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.05)


@BOTH
def test_bf16_training(name: str) -> None:
    network = tiny(name, kernel_size=9).train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.randn(2, 2, 32, 32, 16))
    logits.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@BOTH
@pytest.mark.filterwarnings("ignore")
def test_onnx(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    network = tiny(name, kernel_size=9, depths=(1, 0, 0, 1))
    x = torch.randn(1, 2, 32, 16, 16)
    path = tmp_path / "network.onnx"
    torch.onnx.export(network, (x,), str(path), dynamo=True, verbose=False)
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert "Conv" in kinds and not any("DFT" in kind or "fft" in kind for kind in kinds)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(y), network(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kernel_size": 6}, "use odd numbers"),
        ({"depths": (1, 1, 1)}, "one per stage"),
        ({"feature_size": (1, 2, 3, 0)}, "one per stage"),
        ({"drop_path_rate": 1.0}, "expected a probability"),
        ({"conv_method": "dirct"}, "No method 'dirct'"),
    ],
)
def test_refusals(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        tiny("uxnet", **options)
    with pytest.raises(ConfigError, match="expected 2 or 3"):
        create_network("repuxnet", spatial_dims=1, in_channels=1, out_channels=2)

"""QTSeg against the original's order of operations, and what it does with sizes, formats and wrong options."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from reference_qtseg import forward as original
from torch import Tensor

from medseg.errors import ConfigError
from medseg.networks import QTSeg
from medseg.networks.layers.dual_mix_layer import ChannelAttention
from medseg.networks.layers.query_decoder import QueryDecoder

SMALL: dict[str, Any] = {"width": 4, "depths": (1, 1, 2), "num_heads": 2, "mlp_dim": 12}
VARIANTS: dict[str, tuple[int, dict[str, Any]]] = {
    "dma": (2, SMALL),
    "dma_many": (7, SMALL),
    "dma_identity": (1, {**SMALL, "bridge": "identity"}),
    "mqm": (2, {**SMALL, "decoder": "mqm"}),
    "mqm_many": (7, {**SMALL, "decoder": "mqm", "num_heads": 4}),
    "mqm_identity": (3, {**SMALL, "decoder": "mqm", "bridge": "identity", "depths": (2, 1, 1)}),
}


def closed_form(name: str) -> QTSeg:
    """A variant in float64 whose weights are sines, so that no file is needed."""
    classes, options = VARIANTS[name]
    net = QTSeg(2, 2, classes, **options).double()
    for i, (key, value) in enumerate(sorted(net.state_dict().items())):
        if value.is_floating_point():
            wave = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * 0.7 + i).view(value.shape)
            scale = max(1, value[0].numel()) ** -0.5 if value.dim() > 1 else 0.3
            value.copy_(wave.abs() + 0.5 if key.endswith(("running_var", "norm.weight")) else wave * scale)
    return net


def closed_form_input(height: int = 64, width: int = 32, batch: int = 2) -> Tensor:
    count = batch * 2 * height * width
    return torch.sin(torch.arange(count, dtype=torch.float64) * 0.37).view(batch, 2, height, width)


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_the_original_order_of_operations(name: str) -> None:
    net = closed_form(name).eval()
    x = closed_form_input()
    before = x.clone()
    with torch.no_grad():
        expected = original(net, x)
        torch.testing.assert_close(net(x), expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(net(x), expected, rtol=1e-8, atol=1e-9)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["dma", "dma_many", "mqm", "mqm_many"])
def test_gradients_equal_the_originals(name: str) -> None:
    net = closed_form(name).train()
    x = closed_form_input().requires_grad_()
    leaves = [x, *net.parameters()]
    ours = torch.autograd.grad(net(x).square().mean(), leaves)
    theirs = torch.autograd.grad(original(net, x).square().mean(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["dma", "mqm"])
@pytest.mark.parametrize("size", [(33, 70), (5, 64), (64, 1)])
def test_padding_is_zeros_at_the_bottom_and_right(name: str, size: tuple[int, int]) -> None:
    net = closed_form(name).eval()
    x = closed_form_input(*size)
    padded = torch.zeros(2, 2, *(-(-n // 32) * 32 for n in size), dtype=torch.float64)
    padded[:, :, : size[0], : size[1]] = x
    with torch.no_grad():
        torch.testing.assert_close(net(x), net(padded)[:, :, : size[0], : size[1]])


def test_parts_of_the_finest_level_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    net = closed_form("dma").eval()
    x = closed_form_input(160, 96)
    with torch.no_grad():
        expected = net(x)
        monkeypatch.setattr("medseg.networks.kernels.row_parts._PART", 14 * 2 * 16)
        torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("name", ["dma", "mqm"])
def test_bfloat16_autocast(name: str) -> None:
    torch.manual_seed(0)
    classes, options = VARIANTS[name]
    net = QTSeg(2, 2, classes, **options)
    x = torch.randn(2, 2, 64, 64)
    exact = net(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = net(x)
        rough.float().square().mean().backward()
    assert (rough.float() - exact).abs().mean() < 0.25 * exact.abs().mean()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_likeness_of_channels_in_half_precision() -> None:
    """It is a sum over all pixels, which float16 cannot hold."""
    torch.manual_seed(0)
    attention = ChannelAttention()
    torch.nn.init.constant_(attention.gamma, 0.5)
    pixels = 100 * torch.randn(1, 1024, 8)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16):
        torch.testing.assert_close(attention(pixels).float(), attention(pixels.half()).float(), rtol=0.01, atol=0.5)
        assert attention(pixels).isfinite().all()


def test_initial_weights() -> None:
    net = QTSeg(2, 3, 2, width=16)
    assert all(float(p.detach()) == 0 for key, p in net.named_parameters() if key.endswith("gamma"))
    assert float(net.decoder.levels[0].frequencies.std()) == pytest.approx(1, rel=0.3)
    assert isinstance(net.decoder, QueryDecoder) and net.decoder.levels[2].final_norm.eps == 1e-5


def to_export(decoder: str) -> tuple[QTSeg, list[Tensor]]:
    """A network and images of two sizes."""
    torch.manual_seed(0)
    net = QTSeg(2, 1, 2, decoder=decoder, width=2, depths=(1, 1, 1), num_heads=2, mlp_dim=4).eval()
    return net, [torch.randn(2, 1, 64, 96), torch.randn(1, 1, 96, 64)]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::UserWarning")
@pytest.mark.parametrize("decoder", ["dma", "mqm"])
def test_torchscript_and_onnx_of_two_sizes(decoder: str) -> None:
    net, images = to_export(decoder)
    with torch.no_grad():
        traced = torch.jit.trace(net, images[0], check_trace=False)
        for image in images:
            torch.testing.assert_close(traced(image), net(image), rtol=0, atol=1e-4)
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
        pytest.importorskip("onnx", reason="needs the extra 'export'")
        file, axes = io.BytesIO(), {0: "batch", 2: "rows", 3: "columns"}
        free = {"image": axes, "logits": axes}
        names: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": free}
        torch.onnx.export(net, (images[0],), file, dynamo=False, opset_version=18, **names)
        session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
        for image in images:
            result = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
            torch.testing.assert_close(result, net(image), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["dma", "mqm"])
def test_export_of_two_sizes(decoder: str) -> None:
    net, images = to_export(decoder)
    batch, rows, columns = (torch.export.Dim(name, max=64) for name in ("batch", "rows", "columns"))
    with torch.no_grad():
        program = torch.export.export(net, (images[0],), dynamic_shapes=({0: batch, 2: 32 * rows, 3: 32 * columns},))
        for image in images:
            torch.testing.assert_close(program.module()(image), net(image), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decoder": "dme"}, "Did you mean 'dma'"),
        ({"bridge": "mlff2"}, "mlfd, identity"),
        ({"depths": (1, 2)}, "three positive"),
        ({"depths": (1, 0, 1)}, "three positive"),
        ({"num_heads": 3}, "num_heads 3"),
        ({"width": 0}, "positive numbers"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words), torch.device("meta"):
        QTSeg(2, 1, 2, **{**SMALL, **options})


def test_images_only() -> None:
    with pytest.raises(ConfigError, match="expected 2"):
        QTSeg(3, 1, 2)

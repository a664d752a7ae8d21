"""The large-kernel depth-wise convolution against torch's own: numbers, gradients, graphs, and the choice of a form."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.kernels import conv_choice
from medseg.networks.kernels import fft_depthwise as kernel
from medseg.networks.kernels.fft_depthwise import TransformPlan, fast_length, fft_depthwise
from medseg.networks.layers.large_kernel import DepthwiseConv

# Spatial size and kernel: larger and smaller kernels than the volume, odd and even sizes, unequal axes, one voxel.
CASES = [
    ((9, 8, 7), (5, 5, 5)),
    ((6, 6, 6), (21, 21, 21)),
    ((12, 5, 1), (7, 3, 9)),
    ((16, 11), (9, 5)),
    ((4, 13), (11, 11)),
]


def torchs(layer: DepthwiseConv) -> nn.Module:
    """The same convolution by torch."""
    kernel = tuple(layer.weight.shape[2:])
    conv = (nn.Conv2d, nn.Conv3d)[len(kernel) - 2](
        layer.groups, layer.groups, kernel, padding=[k // 2 for k in kernel], groups=layer.groups
    )
    conv.load_state_dict(layer.state_dict())
    return conv.to(layer.weight.dtype)


def made(kernel: tuple[int, ...], method: str, channels: int = 3) -> DepthwiseConv:
    torch.manual_seed(0)
    return DepthwiseConv(len(kernel), channels, kernel, method=method)


@pytest.mark.parametrize("method", ["direct", "fft", "auto"])
@pytest.mark.parametrize(("size", "kernel"), CASES)
def test_numbers_and_gradients_are_torchs(size: tuple[int, ...], kernel: tuple[int, ...], method: str) -> None:
    layer = made(kernel, method).double()
    reference = torchs(layer)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    y, expected = layer(x), reference(other)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, other.grad, rtol=0, atol=1e-12)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, reference.get_parameter(name).grad, rtol=0, atol=1e-11)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(layer.eval()(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("longest", "transforms"), [(0, 3), (150, 2), (2**14, 1)])
def test_axes_one_by_one_and_joined(longest: int, transforms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_LONGEST", longest)
    assert len(TransformPlan.of((9, 8, 7), (5, 7, 3)).lengths) == transforms
    fast, direct = made((5, 7, 3), "fft").double(), made((5, 7, 3), "direct").double()
    x = torch.randn(2, 3, 9, 8, 7, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(x)
    results = []
    for layer in (fast, direct):
        y = layer(x)
        results.append((y, *torch.autograd.grad(y, (x, layer.weight), weights)))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(fast.eval()(x), results[1][0], rtol=0, atol=1e-11)


def test_cropping_changes_no_bit() -> None:
    layer = made((21, 21, 21), "direct")
    x = torch.randn(1, 3, 6, 5, 7)
    with torch.no_grad():
        assert torch.equal(layer(x), torchs(layer)(x))


def test_gradcheck() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 3, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fft_depthwise, (x, weight))
    only_x = torch.autograd.grad(fft_depthwise(x, weight.detach()).sum(), x)[0]
    assert only_x.shape == x.shape


def test_single_precision_at_the_published_kernel() -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv(3, 2, 21, method="fft")
    x = torch.randn(1, 2, 14, 13, 12)
    with torch.no_grad():
        exact = torchs(layer.double())(x.double())
        difference = (layer.float().eval()(x) - exact).abs().max()
    assert difference < 3e-6 * exact.abs().max()


def test_the_kept_spectrum_follows_the_weight() -> None:
    layer, other = made((5, 5, 5), "fft").eval(), made((5, 5, 5), "fft").eval()
    x = torch.randn(1, 3, 7, 7, 7)

    def check() -> None:
        with torch.no_grad():
            for size in (7, 6):
                view = x[..., :size]
                torch.testing.assert_close(layer(view), torchs(layer)(view), rtol=0, atol=1e-5)

    check()
    first = layer._kept._spectrum
    check()
    assert first is not None
    with torch.no_grad():
        layer.weight.mul_(2)  # in place, as optimisers do
    check()
    other.weight.data.neg_()
    layer.load_state_dict(other.state_dict())
    check()
    layer.weight = nn.Parameter(torch.rand(3, 1, 5, 5, 5))
    check()
    layer.train()
    assert layer._kept._spectrum is None
    layer.weight.data.neg_()  # leaves no trace that could be seen, so training mode forgets
    layer.eval()
    check()
    x = x.double()
    layer.double()
    check()
    assert list(layer.state_dict()) == ["weight", "bias"]
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin._kept._spectrum is None
        with torch.no_grad():
            assert torch.equal(twin(x), layer(x))


def test_inference_mode() -> None:
    with torch.inference_mode():
        layer = made((5, 5, 5), "fft").eval()
        x = torch.randn(1, 3, 7, 7, 7)
        torch.testing.assert_close(layer(x), torchs(layer)(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_autocast(training: bool) -> None:
    layer = made((5, 5, 5), "fft").train(training)
    x = torch.randn(1, 3, 8, 8, 8, requires_grad=True)
    with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16):
        y = layer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), torchs(layer)(x.bfloat16().float()), rtol=0.02, atol=0.02)
    if training:
        y.float().sum().backward()
        assert layer.weight.grad.dtype == torch.float32
        assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("method", ["auto", "fft"])
def test_compiled_in_one_graph(method: str) -> None:
    layer = made((9, 9, 9), method)
    x = torch.randn(2, 3, 8, 8, 8, requires_grad=True)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    y = compiled(x)
    torch.testing.assert_close(y, layer(x))
    y.square().sum().backward()
    gradient = layer.weight.grad.clone()
    layer.weight.grad = None
    layer(x).square().sum().backward()
    torch.testing.assert_close(gradient, layer.weight.grad)
    layer.eval()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), layer(x))


def test_exported_as_a_plain_convolution_for_any_size() -> None:
    layer = made((9, 9, 9), "fft").eval()
    x = torch.randn(1, 3, 6, 6, 6)
    depth = torch.export.Dim("depth", min=2, max=64)
    exported = torch.export.export(layer, (x,), dynamic_shapes=({2: depth},))
    called = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert any("conv3d" in name for name in called)
    assert not any("medseg" in name or "fft" in name for name in called)
    with torch.no_grad():
        larger = torch.randn(1, 3, 13, 6, 6)
        torch.testing.assert_close(exported.module()(larger), layer(larger), rtol=0, atol=1e-5)
        traced = torch.jit.trace(layer, x)
        torch.testing.assert_close(traced(larger), layer(larger), rtol=0, atol=1e-5)


def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    layer = made((9, 9, 9), "fft").eval()
    x = torch.randn(1, 3, 6, 6, 6)
    path = tmp_path / "layer.onnx"
    torch.onnx.export(layer, (x,), str(path), dynamo=True, verbose=False)
    assert "Conv" in {node.op_type for node in onnx.load(path).graph.node}
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(y), layer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("spatial", "kernel", "gradients", "form"),
    [
        ((48,) * 3, (21,) * 3, False, "fft"),
        ((24,) * 3, (21,) * 3, False, "fft"),
        ((6,) * 3, (11,) * 3, False, "direct"),
        ((24,) * 3, (5,) * 3, False, "direct"),
        ((6,) * 3, (11,) * 3, True, "fft"),
        ((24,) * 3, (7,) * 3, True, "fft"),
        ((24,) * 3, (1,) * 3, True, "direct"),
    ],
)
def test_the_rule_for_a_cpu(spatial: tuple[int, ...], kernel: tuple[int, ...], gradients: bool, form: str) -> None:
    assert conv_choice.cheaper(spatial, kernel, gradients=gradients, device_type="cpu") == form


@pytest.mark.parametrize("size", [24, 48])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_gpu_takes_transforms_for_7_and_21_by_a_rule(size: int, gradients: bool) -> None:
    class Elsewhere(Tensor):
        device = torch.device("cuda")

    x = torch.empty(1, 3, size, size, size).as_subclass(Elsewhere).requires_grad_(gradients)
    taken = [conv_choice.choose("auto", x, torch.empty(3, 1, k, k, k)) for k in (3, 7, 21)]
    assert taken == ["direct", "fft", "fft"]


def test_memory_of_the_graph_is_input_and_weight() -> None:
    layer = made((5, 5, 5), "fft")
    saved: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(tuple(t.shape)), lambda t: t):
        layer(torch.randn(1, 3, 8, 8, 8, requires_grad=True))
    assert sorted(saved) == [(1, 3, 8, 8, 8), (3, 1, 5, 5, 5)]


def test_saved_whole_models_hold_no_spectrum() -> None:
    layer = made((9, 9, 9), "fft").eval()
    with torch.no_grad():
        layer(torch.randn(1, 3, 24, 24, 24))
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    assert buffer.tell() < 4 * layer.weight.numel() + 20_000


def test_fast_lengths() -> None:
    assert [fast_length(n) for n in (2, 7, 11, 34, 58, 68, 3364)] == [2, 8, 12, 36, 64, 72, 3456]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((3, 2, 4), "use odd numbers"),
        ((3, 2, (3, 3)), "2 or 3 axes"),
        ((1, 2, 3), "2 or 3 axes"),
    ],
)
def test_refusals(arguments: tuple, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        DepthwiseConv(*arguments)
    with pytest.raises(ConfigError, match="No method 'ftt'"):
        DepthwiseConv(3, 2, 3, method="ftt")

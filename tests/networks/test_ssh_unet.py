"""SSH-UNet against the original's order of operations, and what it does with sizes, modes and wrong options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss
from reference_ssh_unet import forward as original
from torch import Tensor

from medseg.errors import ConfigError
from medseg.networks import SSHUNet

SMALL: dict[str, Any] = {
    "kernel_size": [(1, 3, 3)] * 3,
    "strides": [(1, 1, 1), (2, 2, 2), (2, 2, 2)],
    "filters": [4, 8, 12],
}
FOUR: dict[str, Any] = {"kernel_size": [(1, 3, 3)] * 4, "strides": [1, 2, 2, 2], "filters": [4, 8, 10, 12]}
VARIANTS: dict[str, dict[str, Any]] = {
    "tsm": {**SMALL},
    "gsm": {**SMALL, "gate_type": "gsm", "norm_name": ("instance", {"affine": True}), "gate_pos": [-1, 0]},
    "gsf": {**SMALL, "gate_type": "gsf", "gate_in_bottleneck": False},
    "basic": {**SMALL, "gate_type": "gsf", "gate_dec": False, "do_basic": True, "gate_pos": []},
    "batch": {**FOUR, "norm_name": "batch", "gate_pos": [1]},
    "mixed": {**SMALL, "kernel_size": [(1, 3, 3), 3, (1, 3, 5)], "strides": [1, (1, 2, 2), 2], "trans_bias": False},
    "second": {**SMALL, "gate_type": "gsm", "shift_after": "second"},
    "vfn": {**SMALL, "vfn": True},
    "vfn_aligned": {**SMALL, "gate_type": "gsf", "vfn": True, "align_views": True},
    "heads": {**FOUR, "deep_supervision": True, "deep_supr_num": 2},
}


def closed_form(name: str, **more: Any) -> SSHUNet:
    """A variant in float64 whose weights are sines, so that no file is needed."""
    net = SSHUNet(3, 2, 3, **{**VARIANTS[name], **more}).double()
    for i, (key, value) in enumerate(sorted(net.state_dict().items())):
        if value.is_floating_point():
            wave = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * 0.7 + i).view(value.shape)
            scale = max(1, value[0].numel()) ** -0.5 if value.dim() > 1 else 0.3
            value.copy_(wave.abs() + 0.5 if key.endswith("running_var") else wave * scale)
    return net


def closed_form_input(size: tuple[int, ...] = (16, 16, 16)) -> Tensor:
    count = 2 * 2 * size[0] * size[1] * size[2]
    return torch.sin(torch.arange(count, dtype=torch.float64) * 0.37).view(2, 2, *size)


@pytest.mark.parametrize("execution", ["fast", "lean"])
@pytest.mark.parametrize("name", VARIANTS)
def test_equals_the_original_order_of_operations(name: str, execution: str) -> None:
    net = closed_form(name, execution=execution).train(name == "heads")
    x = closed_form_input()
    before = x.clone()
    expected = original(net, x)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            result = net(x)
        for ours, theirs in zip(result if isinstance(result, list) else [result], expected, strict=name == "heads"):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert torch.equal(x, before)


@pytest.mark.parametrize("execution", ["fast", "lean"])
@pytest.mark.parametrize("name", ["tsm", "gsm", "gsf", "heads", "vfn"])
def test_gradients_equal_the_originals(name: str, execution: str) -> None:
    net = closed_form(name, execution=execution).train()
    x = closed_form_input()[:1].requires_grad_()
    leaves = [x, *net.parameters()]
    heads = net(x)
    loss = sum(head.square().mean() for head in (heads if isinstance(heads, list) else [heads]))
    ours = torch.autograd.grad(loss, leaves)
    theirs = torch.autograd.grad(sum(head.square().mean() for head in original(net, x)), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_batch_norm_in_training_is_over_all_views() -> None:
    ours, theirs = closed_form("batch").train(), closed_form("batch").train()
    x = closed_form_input()
    torch.testing.assert_close(ours(x), original(theirs, x)[0])
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["tsm", "vfn", "vfn_aligned", "mixed"])
@pytest.mark.parametrize("size", [(17, 9, 12), (8, 16, 16), (3, 4, 5)])
def test_any_size(name: str, size: tuple[int, int, int]) -> None:
    net = SSHUNet(3, 1, 2, **VARIANTS[name]).eval()
    with torch.no_grad():
        y = net(torch.randn(1, 1, *size))
    assert y.shape == (1, 2, *size) and y.isfinite().all()


def test_padding_is_zeros_at_the_end() -> None:
    net = closed_form("gsm").eval()
    x = closed_form_input((13, 16, 16))
    padded = torch.zeros(2, 2, 16, 16, 16, dtype=torch.float64)
    padded[:, :, :13] = x
    with torch.no_grad():
        torch.testing.assert_close(net(x), net(padded)[:, :, :13])


def test_views_of_a_box_are_those_of_the_cube() -> None:
    # Without shifts and normalisation over the volume, a box inside a cube of zeros would be the same only by chance;
    # batch norm in evaluation has no such coupling, and the shifts reach one slice per block.
    net = closed_form("batch").eval()
    box = closed_form_input((16, 16, 32))
    with torch.no_grad():
        whole = net(box)
        views = [net._trunk(box.transpose(2, 2 + v) if v else box, 1)[0] for v in range(3)]
        summed = views[0] + views[1].transpose(2, 3) + views[2].transpose(2, 4)
        torch.testing.assert_close(whole, net.output_block.fuse(summed))


def test_deep_supervision_goes_into_monais_loss() -> None:
    net = SSHUNet(3, 1, 3, **VARIANTS["heads"]).train()
    heads = net(torch.randn(1, 1, 16, 20, 13))
    assert [tuple(h.shape[2:]) for h in heads] == [(16, 20, 13), (8, 10, 7), (4, 5, 4)]
    target = torch.randint(0, 3, (1, 1, 16, 20, 13)).float()
    DeepSupervisionLoss(DiceCELoss(to_onehot_y=True, softmax=True))(heads, target).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_heads_rest_in_evaluation() -> None:
    net = SSHUNet(3, 1, 3, **VARIANTS["heads"]).eval()
    net.deep_supervision_heads[0].fuse = None  # calling it would fail
    assert isinstance(net(torch.randn(1, 1, 16, 16, 16)), Tensor)


def test_dropout_is_random_in_training_only() -> None:
    net = SSHUNet(3, 1, 2, **SMALL, dropout=0.5)
    x = torch.randn(1, 1, 8, 8, 8)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_initial_weights() -> None:
    net = SSHUNet(3, 1, 2, **{**SMALL, "filters": [8, 64, 64], "gate_type": "gsm"})
    weight = net.bottleneck.conv2.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (1 + 0.01**2) / (64 * 9)) ** 0.5, rel=0.05)
    assert all(float(p.detach().abs().sum()) == 0 for key, p in net.named_parameters() if key.endswith("bias"))


def test_bfloat16_autocast() -> None:
    torch.manual_seed(0)
    net = SSHUNet(3, 1, 2, **SMALL)
    x = torch.randn(1, 1, 16, 16, 16)
    exact = net(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = net(x)
        rough.float().square().mean().backward()
    assert (rough.float() - exact).abs().mean() < 0.1 * exact.abs().mean()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gate_type": "tms"}, "Did you mean 'tsm'"),
        ({"gate_pos": [2]}, "positions -1"),
        ({"gate_pos": [-2]}, "positions -1"),
        ({"execution": "leen"}, "Did you mean 'lean'"),
        ({"shift_after": "first"}, "both, second"),
        ({"strides": [1, 3, 2]}, "1 or 2"),
        ({"strides": [2, 2, 2]}, "first"),
        ({"kernel_size": [(1, 3, 3), (1, 2, 2), 3]}, "odd"),
        ({"kernel_size": [(1, 3), 3, 3]}, "three per level"),
        ({"kernel_size": [3, 3]}, "as many"),
        ({"filters": [8, 16]}, "one per level"),
        ({"filters": [2, 8, 8]}, "at least 4"),
        ({"upsample_kernel_size": [1, 1]}, "strides"),
        ({"norm_name": "instanz"}, "norm_name"),
        ({"act_name": "leakyrelo"}, "act_name"),
        ({"dropout": 1.5}, "probability"),
        ({"deep_supervision": True, "deep_supr_num": 2}, "1 to 1"),
        ({"deep_supervision": True, "strides": [1, (1, 2, 2), 2]}, "equal strides"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words), torch.device("meta"):
        SSHUNet(3, 1, 2, **{**SMALL, **options})


def test_volumes_only() -> None:
    with pytest.raises(ConfigError, match="expected 3"):
        SSHUNet(2, 1, 2)

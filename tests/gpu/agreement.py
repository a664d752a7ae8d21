"""What a GPU has to give as a CPU does: checks that take two devices, and say what differs.

They run with a CPU on both sides too, so that a planted fault shows that they can fail.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from augmented_cases import case, steps_of
from monai.losses import DiceCELoss
from monai.transforms import Compose, RandGaussianNoised
from network_contract import BF16, error, heads, image, small
from torch import Tensor, nn

from medseg.engines import SegmentationTrainer
from medseg.networks import catalog, network_class
from medseg.transforms.delayed import Delayed, change_batch
from medseg.transforms.delayed_forms import delayed
from medseg.transforms.recipes import DRAWN

_FLOAT32 = 1e-4
_GRADIENT = 1e-3


def pair(name: str, device: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """A small network on the CPU, its copy on the device, and an image on the CPU."""
    dims = catalog()[name].spatial_dims[-1]
    net = small(network_class(name), dims)
    return net, copy.deepcopy(net).to(device), image(dims, batch=2)


def forward(name: str, device: str) -> Iterator[str]:
    """Logits in float32, and in bf16 within the bound that holds on a CPU."""
    net, other, x = pair(name, device)
    with torch.no_grad():
        expected = heads(net(x))
        found = error(heads(other(x.to(device))), expected)
        if not found <= _FLOAT32:
            yield f"float32 differs by {found:.2g}, expected at most {_FLOAT32}"
        with torch.autocast(device.partition(":")[0], torch.bfloat16):
            found = error(heads(other(x.to(device))), expected)
    if not found <= BF16:
        yield f"bf16 differs by {found:.2g}, expected at most {BF16}"


def gradients(name: str, device: str) -> Iterator[str]:
    """Gradients of all weights together in float32."""
    net, other, x = pair(name, device)
    found = []
    for one in (other, net):
        torch.manual_seed(2)  # of stochastic depth
        weights = [p for p in one.parameters() if p.requires_grad]
        loss = sum(y.square().mean() for y in heads(one(x.to(weights[0].device))))
        found.append([g for g in torch.autograd.grad(loss, weights, allow_unused=True) if g is not None])  # type: ignore[arg-type]
    if not (difference := error(*found)) <= _GRADIENT:
        yield f"gradients differ by {difference:.2g}, expected at most {_GRADIENT}"


def trainer(
    net: nn.Module, x: Tensor, device: str, precision: str, steps: int = 1, **options: Any
) -> SegmentationTrainer:
    """A trainer of a network with two channels in and three out."""
    label = (x[:, :1] > 0).long()
    return SegmentationTrainer(
        device=torch.device(device), max_epochs=1, train_data_loader=[{"image": x, "label": label}] * steps,
        network=net, optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3),
        loss_function=DiceCELoss(to_onehot_y=True, softmax=True), precision=precision, clip_norm=12.0, **options,
    )  # fmt: skip


def step(name: str, device: str, precision: str = "bf16") -> Iterator[str]:
    """One training step changes the weights, and leaves them finite."""
    _, net, x = pair(name, device)
    before = [p.detach().clone() for p in net.parameters()]
    run = trainer(net, x, device, precision)
    run.run()
    if not torch.isfinite(torch.tensor(run.loss_sum)) or run.non_finite:
        yield f"the loss is {run.loss_sum} in {precision}"
    if not all(p.isfinite().all() for p in net.parameters()):
        yield f"weights are not finite after a step in {precision}"
    if run.grad_scaler.is_enabled() is not (precision == "fp16"):
        yield "fp16 alone has a scaler, expected one exactly there"
    if all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True)):
        yield f"a step in {precision} changed nothing"


def compiled(name: str, device: str) -> Iterator[str]:
    """The compiled network gives its own logits."""
    _, net, x = pair(name, device)
    with torch.no_grad():
        expected = net(x.to(device))
        net.compile(dynamic=False)
        found = error([net(x.to(device))], [expected])
    if not found <= _FLOAT32:
        yield f"compiled it differs by {found:.2g}, expected at most {_FLOAT32}"


def resumed(name: str, device: str) -> Iterator[str]:
    """Two steps, saved and loaded between, give the weights of two steps without a break, bit by bit."""

    def stepped(net: nn.Module, state: Any, count: int) -> tuple[nn.Module, Any]:
        run = trainer(net, x, device, "fp16", steps=count)
        if state is not None:
            run.optimizer.load_state_dict(state["optimizer"])
            run.grad_scaler.load_state_dict(state["scaler"])
        run.run()
        return net, {"optimizer": run.optimizer.state_dict(), "scaler": run.grad_scaler.state_dict()}

    _, net, x = pair(name, device)
    whole, _ = stepped(copy.deepcopy(net), None, 2)
    first, state = stepped(copy.deepcopy(net), None, 1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.pt"
        torch.save({"network": first.state_dict(), **state}, file)
        state = torch.load(file, weights_only=True, map_location=device)
    net.load_state_dict(state["network"])
    again, _ = stepped(net, state, 1)
    different = [n for n, p in again.state_dict().items() if not torch.equal(p, whole.state_dict()[n])]
    if different:
        yield f"{len(different)} weights differ after resuming, such as {different[0]}"


def augmented(recipe: str, device: str) -> Iterator[str]:
    """Random changes of a batch on the device are those of the single cases; noise has its deviation, and again."""
    roi, found = (12, 10, 8), []
    for noisy in (False, True):
        steps = [s for s in steps_of(recipe, roi, None if noisy else 1.0) if noisy == isinstance(s, RandGaussianNoised)]
        if noisy:
            steps[0].prob = 1.0
            cases = [dict(image=torch.ones(2, 32, 32, 32), label=torch.zeros(1, 32, 32, 32)) for _ in range(4)]
        else:
            cases = [case(roi, number) for number in range(4)]
        now, later = Compose(steps), Compose(delayed(steps))
        expected = [_first(now.set_random_state(seed)(one)) for seed, one in enumerate(cases)]
        drawn = [_first(later.set_random_state(seed)(one)) for seed, one in enumerate(cases)]
        forms = [step for step in later.transforms if isinstance(step, Delayed)]
        image, label, numbers = (
            torch.stack([torch.as_tensor(one[key]) for one in drawn]) for key in ("image", "label", DRAWN)
        )
        numbers = numbers.pin_memory() if device.startswith("cuda") else numbers
        for _ in range(2):
            there = image.to(device), label.to(device)
            with _no_waits(device):
                found.append(change_batch(forms, *there, numbers, non_blocking=True))
        if not all(torch.equal(*pair) for pair in zip(*found[-2:], strict=True)):
            yield "the same numbers give other voxels"
        images, labels = (torch.stack([torch.as_tensor(one[key]) for one in expected]) for key in ("image", "label"))
        if noisy:
            difference = float((found[-1][0].cpu().std((1, 2, 3, 4)) / images.std((1, 2, 3, 4)) - 1).abs().max())
        else:
            difference = error([found[-1][0]], [images])
            if not (wrong := float((found[-1][1].cpu() != labels).float().mean())) <= 0.002:
                yield f"{wrong:.2g} of the labels differ, expected at most 0.002"
        if not difference <= (0.02 if noisy else _FLOAT32):
            yield f"{'the deviation of noise' if noisy else 'the image'} differs by {difference:.2g}"


@contextlib.contextmanager
def _no_waits(device: str) -> Iterator[None]:
    """An error where a GPU is waited for."""
    if not device.startswith("cuda"):
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _first(made: Any) -> dict[str, Any]:
    """A case, or the first of those that were cut from it."""
    return made[0] if isinstance(made, list) else made

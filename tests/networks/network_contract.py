"""What every registered network promises: checks that take a class and its facts, and say what it breaks."""

from __future__ import annotations

import inspect
import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from medseg.data.plan import Plan
from medseg.networks.catalog import NetworkFacts
from medseg.networks.kernels.channels_last import lay_out

SIDE = {2: 32, 3: 16}
ODD = {2: (27, 33), 3: (13, 18, 15)}
_PUBLISHED_SIDE = {2: 256, 3: 96}
BF16 = 0.05  # relative error of logits that bf16 may make at random weights

Check = Callable[[type[nn.Module], NetworkFacts, int], Iterator[str]]


def plan(spatial_dims: int, *, light: bool = True, side: int | None = None) -> Plan:
    roi = (side or SIDE[spatial_dims],) * spatial_dims
    return Plan(
        spatial_dims=spatial_dims, in_channels=2, out_channels=3, spacing=(1.0,) * spatial_dims, roi_size=roi,
        median_shape=roi, normalization=[], crop_foreground=False, flip_axes=[], rotate=[], batch_size=1,
        samples_per_case=1, repeats=1, cache="cache", cache_gib=0.0, learning_rate=0.005, light=light,
    )  # fmt: skip


def built(cls: type[nn.Module], of: Plan) -> nn.Module:
    """The network that the plan gets."""
    arguments: dict[str, Any] = cls.planned_arguments(of) if hasattr(cls, "planned_arguments") else {}
    return cls(of.spatial_dims, of.in_channels, of.out_channels, **arguments)


def small(cls: type[nn.Module], dims: int) -> nn.Module:
    torch.manual_seed(0)
    return built(cls, plan(dims)).eval()


def image(dims: int, size: tuple[int, ...] | None = None, batch: int = 1) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 2, *(size or (SIDE[dims],) * dims))


def heads(result: Any) -> list[Tensor]:
    return list(result) if isinstance(result, (list, tuple)) else [result]


def distance(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest expected value; infinite between shapes."""
    if found.shape != expected.shape:
        return math.inf
    return float((found.detach() - expected).abs().max() / expected.abs().max())


def error(found: Any, expected: Any) -> float:
    """Norm of the difference relative to that of the expected values, over all heads."""
    pairs = [(a.detach().double().cpu(), b.detach().double().cpu()) for a, b in zip(found, expected, strict=True)]
    difference = sum(float((a - b).square().sum()) for a, b in pairs)
    return float((difference / sum(float(b.square().sum()) for _, b in pairs)) ** 0.5)


# ---------------------------------------------------------------------- checks
def signature(cls: type[nn.Module], facts: NetworkFacts, dims: int) -> Iterator[str]:
    """``spatial_dims, in_channels, out_channels`` first; keyword-only with defaults after that."""
    first, rest = (list(inspect.signature(cls).parameters.values())[part] for part in (slice(3), slice(3, None)))
    if [p.name for p in first] != ["spatial_dims", "in_channels", "out_channels"]:
        yield f"its first parameters are {', '.join(p.name for p in first)}"
    yield from (f"{p.name} is not keyword-only" for p in rest if p.kind is not p.KEYWORD_ONLY)
    yield from (f"{p.name} has no default" for p in rest if p.default is p.empty)


def parameters(cls: type[nn.Module], facts: NetworkFacts, dims: int) -> Iterator[str]:
    """The stated count is that of the defaults at the stated channels."""
    if dims == facts.spatial_dims[-1]:
        with torch.device("meta"):
            count = sum(p.numel() for p in cls(dims, *facts.channels).parameters())
        if count != facts.parameters:
            yield f"it has {count} parameters, {facts.parameters} are stated"


def sizes(cls: type[nn.Module], facts: NetworkFacts, dims: int) -> Iterator[str]:
    """One finite tensor of the input's size and type in evaluation, whatever the size; the input stays."""
    net = small(cls, dims)
    for size in ((SIDE[dims],) * dims, ODD[dims]):
        x = image(dims, size)
        before = x.clone()
        with torch.no_grad():
            y = net(x)
        if not isinstance(y, Tensor) or y.shape != (1, 3, *size) or y.dtype != x.dtype:
            yield f"at {size} it returns {getattr(y, 'shape', type(y))}"
        elif not y.isfinite().all():
            yield f"at {size} it returns values that are not finite"
        if not torch.equal(x, before):
            yield "it changes its input"


def logits(cls: type[nn.Module], facts: NetworkFacts, dims: int) -> Iterator[str]:
    """No bounded, one-sided or normalised function ends it, in training or evaluation.

    Logits grow with the weights, to both sides and in each channel for itself. What a softmax, sigmoid, tanh, ReLU or
    logarithm of these returns does not, however large the weights are.
    """
    for training in (False, True):
        net, x = small(cls, dims).train(training), image(dims, batch=2)
        for _ in range(6):
            with torch.no_grad():
                free = [bool(y.min() < -1 and y.max() > 1 and y.sum(1).std() > 1e-3 * y.std()) for y in heads(net(x))]
                if all(free):
                    break
                for parameter in net.parameters():
                    parameter.mul_(2)
        else:
            yield f"in {'training' if training else 'evaluation'} it returns no logits: they stay bounded or normalised"


def gradients(cls: type[nn.Module], facts: NetworkFacts, dims: int) -> Iterator[str]:
    """Every weight learns; with gradients, and in the memory layout of trainings, the logits are the same."""
    net, x = small(cls, dims), image(dims)
    with torch.no_grad():
        quiet = net(x)
    if distance(lay_out(net)(x), quiet) > 1e-4:
        yield "its logits differ with gradients, or where trainings have them in memory"
    sum(y.square().mean() for y in heads(net.train()(image(dims, batch=2)))).backward()  # type: ignore[union-attr]
    yield from (
        f"{name} has no finite gradient"
        for name, p in net.named_parameters()
        if p.grad is None or not p.grad.isfinite().all()
    )


def half(cls: type[nn.Module], facts: NetworkFacts, dims: int) -> Iterator[str]:
    """Under autocast in bf16 its logits are those of float32, within ``BF16``."""
    if dims == facts.spatial_dims[-1]:
        net, x = small(cls, dims), image(dims, batch=2)
        with torch.no_grad():
            expected = heads(net(x))
            with torch.autocast("cpu", torch.bfloat16):
                found = error(heads(net(x)), expected)
        if not found <= BF16:
            yield f"bf16 differs by {found:.2g}, expected at most {BF16}"


def meta(cls: type[nn.Module], facts: NetworkFacts, dims: int) -> Iterator[str]:
    """It is built and runs without memory, small and as published, in training and evaluation."""
    published = _PUBLISHED_SIDE[dims]
    for of in (plan(dims), plan(dims, side=published), plan(dims, light=False, side=published)):
        x = torch.zeros(2, 2, *of.roi_size, device="meta")
        try:
            with torch.device("meta"), torch.no_grad():
                net = built(cls, of)
                net.train()(x)
                y = net.eval()(x)
        except Exception as error:  # whatever it is, it says why
            yield f"at {of.roi_size} on the meta device: {error}"
        else:
            if y.device.type != "meta" or y.shape != (2, 3, *of.roi_size):
                yield f"at {of.roi_size} on the meta device it returns {y.device} {tuple(y.shape)}"


def traced(cls: type[nn.Module], facts: NetworkFacts, dims: int) -> Iterator[str]:
    """A trace of one image takes a batch."""
    net, x = small(cls, dims), image(dims)
    pair = torch.cat((x, x.flip(2)))
    with torch.no_grad():
        if distance(torch.jit.trace(net, x, check_trace=False)(pair), net(pair)) > 1e-3:
            yield "its trace returns other logits"


def scripted(cls: type[nn.Module], facts: NetworkFacts, dims: int) -> Iterator[str]:
    """TorchScript compiles it for any size and batch, or its facts say why not."""
    net = small(cls, dims)
    try:
        script = _reread(torch.jit.script(net))
    except Exception as error:  # the compiler has errors of many kinds
        if not facts.unscripted:
            yield f"it is not scripted, and its facts do not say why: {error}"
        return
    if facts.unscripted:
        yield "it is scripted, but its facts say that it is not"
    for size in ((SIDE[dims],) * dims, ODD[dims]):
        x = image(dims, size, batch=2)
        with torch.no_grad():
            if distance(script(x), net(x)) > 1e-4:
                yield f"at {size} its script returns other logits"
    training = net.train()(image(dims, batch=2))
    if type(script.train()(image(dims, batch=2))) is not type(training):
        yield "in training its script returns another type"


def _reread(script: Any) -> Any:
    """Some scripts are compiled and saved, and cannot be read."""
    file = io.BytesIO()
    torch.jit.save(script, file)
    file.seek(0)
    return torch.jit.load(file)


def exported(cls: type[nn.Module], facts: NetworkFacts, dims: int) -> Iterator[str]:
    """A program of ``torch.export`` with a free batch size returns its logits."""
    net, x = small(cls, dims), image(dims, batch=2)
    with torch.no_grad():
        program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        if distance(program.module()(x[:1]), net(x[:1])) > 1e-3:
            yield "its program returns other logits"


CHECKS: tuple[Check, ...] = (signature, parameters, sizes, logits, gradients, half, meta, traced, scripted, exported)

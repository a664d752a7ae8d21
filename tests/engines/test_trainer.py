"""SegmentationTrainer: precision, clipping, accumulation, deep supervision, losses that are not finite."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.losses import DeepSupervisionLoss, DiceCELoss
from torch import nn

from medseg.data import make_dataset, make_loader
from medseg.engines import RandomStreams, SegmentationTrainer, UpdateAverage, make_average
from medseg.engines.patch_by_patch import PatchByPatch, memory_advice
from medseg.errors import ConfigError, ModelError, ResourceError

DICE_CE = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)


def batches(count: int = 4, scale: float = 1.0) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": scale * torch.randn(1, 1, 8, 8, 8, generator=generator),
            "label": torch.randint(0, 3, (1, 1, 8, 8, 8), generator=generator).to(torch.int16),
            "case_id": [f"case{i}"],
        }
        for i in range(count)
    ]


class Heads(nn.Module):
    """Two heads in training mode, the second at half size."""

    def __init__(self, stacked: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 3, 3, padding=1)
        self.stacked = stacked

    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        if not self.training:
            return y
        return torch.stack([y, y * 0.5], 1) if self.stacked else [y, nn.functional.avg_pool3d(y, 2)]


def make_trainer(data: Any = None, network: nn.Module | None = None, **options: Any) -> SegmentationTrainer:
    torch.manual_seed(0)
    network = nn.Conv3d(1, 3, 3, padding=1) if network is None else network
    options = {"loss_function": DICE_CE, "max_epochs": 1, "lr": 0.1} | options
    return SegmentationTrainer(
        device="cpu",
        train_data_loader=batches() if data is None else data,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=options.pop("lr")),
        **options,
    )


def trained(**options: Any) -> torch.Tensor:
    trainer = make_trainer(**options)
    trainer.run()
    return torch.cat([p.detach().flatten() for p in trainer.network.parameters()])


def test_bf16_on_cpu_is_close_to_fp32() -> None:
    full, half = trained(), trained(precision="bf16")
    assert not torch.equal(full, half)
    assert torch.allclose(full, half, atol=0.01)


@pytest.mark.parametrize("shape", [(2, 2, 4), (2, 8, 8), (1, 4, 4)])
def test_gradients_in_bf16_where_kernels_are_larger_than_feature_maps(shape: tuple[int, ...]) -> None:
    """A CPU that multiplies bf16 would read these from memory that was never written; here it holds NaN."""
    conv = nn.Conv3d(16, 16, 3, padding=1, stride=1 + (shape[0] == 1))
    network = make_trainer(network=conv, precision="bf16").network
    x, weight = torch.randn(1, 16, *shape), conv.weight.detach().double().requires_grad_()
    torch.nn.functional.conv3d(
        x.double(), weight, conv.bias.detach().double(), conv.stride, 1
    ).square().sum().backward()
    for _ in range(3):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(x).float().square().sum()
        for size in (10, 12, 14, 16, 18, 20):
            unused = [torch.full((2**size,), math.nan) for _ in range(8)]
            del unused
        loss.backward()
        assert (conv.weight.grad - weight.grad).norm() < 0.02 * weight.grad.norm()


def test_fp16_scales_and_keeps_the_scale() -> None:
    trainer = make_trainer(precision="fp16")
    trainer.run()
    state = trainer.grad_scaler.state_dict()
    assert state["scale"] > 1 and state["_growth_tracker"] == 4
    assert torch.allclose(trained(), trained(precision="fp16"), atol=0.01)


@pytest.mark.parametrize("options", [{"precision": "fp8"}, {"clip_norm": 0}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make_trainer(**options)


@pytest.mark.parametrize("steps", [1, 2])
def test_clipping_bounds_each_step(steps: int) -> None:
    """With SGD and learning rate 1 the step is the clipped gradient; the loss is scaled to make it long."""
    trainer = make_trainer(
        clip_norm=0.01, accumulation_steps=steps, lr=1.0, loss_function=lambda y, t: 100 * DICE_CE(y, t)
    )
    places = []

    def note(engine: Any) -> None:
        places.append(torch.cat([p.detach().flatten().clone() for p in engine.network.parameters()]))

    trainer.add_event_handler(Events.STARTED | Events.ITERATION_COMPLETED, note)
    trainer.run()
    lengths = [float((b - a).norm()) for a, b in zip(places, places[1:], strict=False)]
    expected = [0.01] * 4 if steps == 1 else [0.0, 0.01] * 2
    assert lengths == pytest.approx(expected, abs=1e-6)


def test_accumulation_equals_a_larger_batch() -> None:
    pairs = batches()
    joined = [
        {key: torch.cat([a[key], b[key]]) for key in ("image", "label")}
        for a, b in zip(pairs[::2], pairs[1::2], strict=True)
    ]
    loss = nn.CrossEntropyLoss()

    def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return loss(logits, labels[:, 0].long())

    small = trained(data=pairs, accumulation_steps=2, loss_function=cross_entropy)
    assert torch.allclose(small, trained(data=joined, loss_function=cross_entropy), atol=1e-6)


def test_accumulation_steps_at_the_end_of_the_epoch() -> None:
    trainer = make_trainer(data=batches(3), accumulation_steps=2)
    stepping = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: stepping.append(engine.steps_now()))
    trainer.run()
    assert stepping == [False, True, True]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("stacked", [False, True])
def test_deep_supervision(stacked: bool, wrapped: bool) -> None:
    """A list of heads, or DynUNet's stack, with the plain loss or with one that is wrapped already."""
    loss = DeepSupervisionLoss(DICE_CE) if wrapped else DICE_CE
    trainer = make_trainer(data=batches(1), network=Heads(stacked), loss_function=loss)
    batch = batches(1)[0]
    torch.manual_seed(0)
    heads = trainer.network.train()(batch["image"])
    heads = heads.unbind(1) if stacked else heads
    expected = float(DeepSupervisionLoss(DICE_CE)(list(heads), batch["label"].float()).detach())
    first = heads[0].detach().clone()
    trainer.run()
    output = trainer.state.output[0]
    assert float(output["loss"]) == pytest.approx(expected, abs=1e-6)
    assert torch.equal(output["pred"], first[0])
    assert trainer.loss_sum == pytest.approx(expected, abs=1e-6)


def test_non_finite_steps_change_nothing() -> None:
    data = batches(3)
    data[1]["image"][:] = torch.nan
    without = [data[0], data[2]]
    assert torch.equal(trained(data=data), trained(data=without))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_non_finite_part_of_an_accumulated_step(precision: str) -> None:
    data = batches(4)
    data[2]["image"][:] = torch.nan  # the first of the second pair; the pair's last loss is finite
    options: dict[str, Any] = {"accumulation_steps": 2, "precision": precision}
    trainer = make_trainer(data=data, **options)
    trainer.run()
    assert trainer.non_finite == 1
    kept = torch.cat([p.detach().flatten() for p in trainer.network.parameters()])
    assert torch.equal(kept, trained(data=data[:2], **options))


def test_stops_after_ten_non_finite_steps(caplog: pytest.LogCaptureFixture) -> None:
    data = batches(12)
    for batch in data[1:]:
        batch["image"][:] = torch.inf
    trainer = make_trainer(data=data)
    with caplog.at_level(logging.WARNING, "medseg"), pytest.raises(ModelError, match="case10"):
        trainer.run()
    assert trainer.state.iteration == 11
    assert all(torch.isfinite(p).all() for p in trainer.network.parameters())


def test_compile_is_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: calls.append(options))
    network = Heads()
    keys = list(network.state_dict())
    trainer = make_trainer(network=network, compile_network=True)
    assert calls == [{"dynamic": False}]
    assert trainer.network is network and list(network.state_dict()) == keys


def test_without_a_compiler_the_network_trains_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    networks = Heads(), Heads()
    networks[1].load_state_dict(networks[0].state_dict())
    expected = make_trainer(network=networks[0])
    expected.run()

    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one.")

    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled(self, backend=backend))
    trainer = make_trainer(network=networks[1], compile_network=True)
    trainer.run()
    assert trainer.losses == expected.losses
    (record,) = [record for record in caplog.records if record.name == "medseg"]
    assert "cannot be compiled (Failed to find C compiler) and trains without" in record.getMessage()


def test_average_follows_the_steps() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.BatchNorm3d(3))
    average = make_average(network, 0.5)
    assert average is not None
    trainer = make_trainer(network=network, accumulation_steps=2, train_handlers=[UpdateAverage(average, network)])
    trainer.run()
    assert int(average.n_averaged) == 2
    assert not torch.equal(average.module[0].weight, network[0].weight)
    assert average.module[1].running_mean.abs().sum() > 0


def test_average_with_a_ramp() -> None:
    """The decays are 0, 1/2, 2/3, ..., until the limit is reached: a plain mean at first (Hermes's published table)."""
    network = nn.Linear(1, 1, bias=False)
    average = make_average(network, 0.75, ramp=True)
    assert average is not None
    means = []
    for value in (1.0, 2.0, 6.0, 3.0, 0.0):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update_parameters(network)
        means.append(float(average.module.weight.detach()))
    assert means == pytest.approx([1, 1.5, 3, 3, 2.25])


def test_the_average_reads_nothing_from_the_device() -> None:
    network = nn.BatchNorm1d(2, device="meta")  # whose values nobody can read
    average = make_average(network, 0.75, ramp=True)
    assert average is not None
    for _ in range(3):
        average.update_parameters(network)
    assert int(average.n_averaged) == 3


@pytest.mark.parametrize("length", [2, 6])
def test_epoch_length_differs_from_the_loader(length: int) -> None:
    """Every epoch draws the same cases again where it starts from, whatever the loader's length."""
    data = [{"image": torch.full((1, 4, 4, 4), float(i)), "label": torch.zeros(1, 4, 4, 4)} for i in range(4)]
    from monai.transforms import Compose

    def seen(epochs: int, start: int = 0) -> list[float]:
        loader = make_loader(make_dataset(data, Compose([]), kind="plain"), shuffle=True)
        trainer = make_trainer(
            data=loader, epoch_length=length, max_epochs=epochs, train_handlers=[RandomStreams(0)], lr=0.0
        )
        values: list[float] = []

        def resume(engine: Any) -> None:
            engine.state.iteration, engine.state.epoch = start * length, start

        trainer.add_event_handler(Events.STARTED, resume)
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: values.append(float(engine.state.batch[0]["image"].mean()))
        )
        trainer.run()
        return values

    undisturbed = seen(3)
    assert len(undisturbed) == 3 * length
    assert seen(3, start=2) == undisturbed[2 * length :]


# ---------------------------------------------------------------------- no room on the GPU
class Full(nn.Module):
    """Has room for some patches at once, as a GPU for their activations."""

    error = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.25 GiB is "
        "free."
    )

    def __init__(self, room: int = 1, norm: type[nn.Module] = nn.InstanceNorm3d) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), norm(4), nn.GELU(), nn.Conv3d(4, 3, 1))
        self.room, self.calls = room, 0

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.calls += 1
        if len(x) > self.room:
            raise self.error
        y = self.body(x)
        return [y, nn.functional.avg_pool3d(y, 2)]


def stepped(room: int, **options: Any) -> tuple[SegmentationTrainer, torch.Tensor]:
    """After one step on three patches in float64, with a loss over the whole batch together."""
    torch.manual_seed(0)
    image = torch.randn(3, 1, 8, 8, 8, dtype=torch.float64)
    data = [{"image": image, "label": torch.randint(0, 3, (3, 1, 8, 8, 8)), "case_id": ["a", "b", "c"]}]
    torch.manual_seed(0)
    loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True)
    trainer = make_trainer(data=data, network=Full(room, **options).double(), loss_function=loss)
    trainer.run()
    return trainer, torch.cat([p.grad.flatten() for p in trainer.network.parameters()])


def test_without_room_the_step_is_the_same(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg.engines.trainer._in_float32", lambda predictions: predictions)  # float64 throughout
    whole, expected = stepped(3)
    assert not whole.patch_by_patch and not caplog.records
    single, gradients = stepped(1)
    assert single.patch_by_patch and single.network.calls == 1 + 2 * 3  # refused; then each forward and again
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-14)
    (record,) = caplog.records
    assert "no room for 3 patches at once (3.00 GiB more were needed, 1.25 GiB are free)" in record.getMessage()


@pytest.mark.parametrize("text", ["cuFFT error: CUFFT_INTERNAL_ERROR", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"])
def test_without_room_by_the_libraries_words(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Full, "error", RuntimeError(text))
    assert stepped(1)[0].patch_by_patch
    with pytest.raises(
        ResourceError, match=rf"The GPU is out of memory \({text.split()[-1]}\) for a training step on 3"
    ):
        stepped(0)


@pytest.mark.parametrize(
    ("room", "norm", "reason"),
    [
        (0, nn.InstanceNorm3d, "one by one they do not fit either. Use --set batch_size=1"),
        (1, nn.BatchNorm3d, "its batch norms need them all at once. Use --set batch_size=1, or --set precision=bf16."),
    ],
)
def test_without_room_nor_an_equal_step(room: int, norm: type[nn.Module], reason: str) -> None:
    with pytest.raises(ResourceError) as caught:
        stepped(room, norm=norm)
    expected = (
        "The GPU is out of memory (3.00 GiB more were needed, 1.25 GiB are free) for a training step on 3 patches"
    )
    assert str(caught.value).startswith(expected) and reason in str(caught.value)


def test_smaller_patch_is_named() -> None:
    advice = memory_advice(
        torch.OutOfMemoryError("CUDA out of memory."), torch.empty(1, 1, 128, 96, 16), "so", half=True, blocks=True
    )
    assert advice.endswith("on 1 patch of 128×96×16; so. Use --set roi_size=[96,64,16], or --set checkpointing=true.")


def test_patches_keep_their_arguments() -> None:
    def network(x: torch.Tensor, *, scale: torch.Tensor, twice: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        y = x * scale.view(-1, 1)
        return y * (1 + twice), [y]

    x, scale = torch.ones(2, 3, requires_grad=True), torch.tensor([1.0, 5.0])
    first, (second,) = PatchByPatch()(x, network, scale=scale, twice=True)
    assert first.tolist() == [[2.0] * 3, [10.0] * 3] and second.tolist() == [[1.0] * 3, [5.0] * 3]

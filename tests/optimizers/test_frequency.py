"""Frequency re-parameterisation: masks, the six modes against their goldens, and the released program's fault."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from full_set import FULL_SET
from monai.bundle import ConfigParser
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from medseg.errors import ConfigError
from medseg.networks import create_network
from medseg.networks.repuxnet import RepUXBlock
from medseg.optimizers import frequency_mask, frequency_reparameterized
from medseg.optimizers.frequency import MODES
from medseg.weights import import_original

FIXTURES = FULL_SET / "repux"
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": lambda p: AdamW(p, lr=0.01, weight_decay=0.01),
    "sgd": lambda p: SGD(p, lr=0.1, momentum=0.9),
}
TINY: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "kernel_size": 7,
    "depths": [1, 1, 1, 1],
    "feature_size": [2, 3, 3, 4],
    "hidden_size": 4,
}


@pytest.mark.usefixtures("full_set")
def test_masks_of_the_original() -> None:
    arrays = np.load(FIXTURES / "bfr_masks.npz")
    for name in arrays:
        kernel, alpha = name.removeprefix("mask_k").split("_a")
        assert np.array_equal(frequency_mask((int(kernel),) * 3, float(alpha)), arrays[name]), name


def test_masks_of_any_kernel() -> None:
    mask = frequency_mask((3, 5, 1), 2.0)
    assert mask.shape == (3, 5, 1)
    assert mask[1, 2, 0] == 1
    assert mask[0, 0, 0] == pytest.approx(2 / (5**0.5 + 2))
    assert torch.equal(mask, mask.flip((0, 1)))
    assert float(frequency_mask((21, 21, 21)).mean()) == pytest.approx(0.099565, abs=1e-6)
    with pytest.raises(ConfigError, match="positive length"):
        frequency_mask((3,), 0)


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("form", ["direct", "fft"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_of_the_goldens(name: str, mode: str, form: str) -> None:
    arrays = {key: torch.from_numpy(value) for key, value in np.load(FIXTURES / "bfr_steps.npz").items()}
    group = f"{mode if mode == 'as_released' else f'ref_{mode}'}_{name}"
    block = RepUXBlock(3, 3, 5, form)
    block.load_state_dict(_ours(arrays, "start/"))
    optimizer = frequency_reparameterized(OPTIMIZERS[name](block.parameters()), block, mode=mode)
    kernel = block.conv.weight
    # Batch norm takes the bias away, so its gradient is rounding noise, of which Adam makes steps of full size.
    noise = {"conv.bias", "norm.running_mean", "norm.num_batches_tracked"} if name == "adamw" else set()
    for step in range(1, 6):
        optimizer.zero_grad()
        loss = (block(arrays["x"][step - 1]) - arrays["target"][step - 1]).square().mean()
        assert float(loss.detach()) == pytest.approx(float(arrays[f"{group}/loss"][step - 1]), abs=1e-6)
        loss.backward()
        if f"{group}/ignored_weight_grad/step{step}" in arrays:
            expected = arrays[f"{group}/ignored_weight_grad/step{step}"]
            torch.testing.assert_close(kernel.grad, expected, rtol=0, atol=1e-6)
        optimizer.step()
        if step in (1, 2, 5):
            state = dict(block.state_dict())
            if mode == "effective":  # the golden is the raw kernel
                state["conv.weight"] = optimizer.state[kernel]["frequency_raw"]
                assert torch.equal(state["conv.weight"] * arrays["mask"], kernel)
            for key, expected in _ours(arrays, f"{group}/step{step}/").items():
                if key not in noise:
                    torch.testing.assert_close(state[key], expected, rtol=0, atol=1e-6)
    golden = _ours(arrays, f"{group}/step5/")
    block.load_state_dict({key: golden[key] for key in noise & golden.keys()}, strict=False)
    block.eval()
    with torch.no_grad():
        y = block(arrays["x"][0])
    torch.testing.assert_close(y, arrays[f"{group}/eval_after_step5/output_on_x0"], rtol=0, atol=1e-5)
    if mode == "as_released":  # evaluation shrank it once more
        assert torch.equal(kernel, arrays[f"{group}/eval_after_step5/dwconv.weight"])


def _ours(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = {key.removeprefix(prefix): value.clone() for key, value in arrays.items() if key.startswith(prefix)}
    return {key.replace("dwconv", "conv"): value for key, value in found.items()}


@pytest.mark.usefixtures("full_set")
def test_the_released_network_changes_with_every_evaluation() -> None:
    name = "repuxnet_k7_training_mode_flag"
    arrays, sidecar = np.load(FIXTURES / f"{name}.npz"), json.loads((FIXTURES / f"{name}.json").read_text())
    state = {key[6:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("state/")}
    network = import_original("repux", "repuxnet", sidecar["constructor"], state).eval()
    frequency_reparameterized(AdamW(network.parameters()), network, mode="as_released")
    for call in (1, 2, 3):
        with torch.no_grad():
            y = network(torch.from_numpy(arrays["input"]))
        np.testing.assert_allclose(y, arrays[f"output_call{call}"], atol=5e-5, rtol=0)


def trained(mode: str, steps: int = 6, make: Callable[..., Optimizer] = AdamW) -> tuple[Tensor, Tensor]:
    """The first stage's kernel before and after a few steps of the whole network."""
    torch.manual_seed(0)
    network = create_network("repuxnet", **TINY)
    kernel = network.stages[0][0].conv.weight
    optimizer = frequency_reparameterized(make(network.parameters(), lr=0.01), network, mode=mode)
    before = kernel.detach().clone()
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(2, 1, 16, 16, 32)).square().mean().backward()
        optimizer.step()
    return before, kernel.detach()


@pytest.mark.parametrize("mode", ["effective", "update", "decay", "none"])
def test_taps_off_the_centre_have_moved_and_are_not_merely_scaled(mode: str) -> None:
    before, after = trained(mode)
    outer = frequency_mask((7, 7, 7)) < 0.25
    moved = (after - before)[:, 0, outer].abs()
    assert (moved > 1e-4).double().mean() > 0.9
    shrunk = frequency_mask((7, 7, 7)) ** 6 * before  # all that the released program ever does to a kernel
    assert (after - shrunk)[:, 0, outer].abs().max() > 1e-3
    assert after[:, 0, outer].abs().mean() > 1e-3


def test_the_farther_out_the_slower() -> None:
    mask = frequency_mask((7, 7, 7))
    for mode in ("effective", "update"):
        before, after = trained(mode, steps=1, make=lambda p, lr: Adam(p, lr=lr))
        steps = (after - before).abs().amax(dim=0)[0]  # Adam's first step is lr per tap
        torch.testing.assert_close(steps, 0.01 * mask, rtol=0.02, atol=1e-6)
    before, after = trained("gradient", steps=1, make=lambda p, lr: Adam(p, lr=lr))
    torch.testing.assert_close((after - before).abs().amax(dim=0)[0], torch.full_like(mask, 0.01), rtol=0.02, atol=1e-6)


def test_the_released_program_never_trains_its_kernels() -> None:
    before, after = trained("as_released")
    shrunk = before.clone()
    for _ in range(6):
        shrunk *= frequency_mask((7, 7, 7))
    assert torch.equal(after, shrunk)


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_goes_on_with_the_same_bits(mode: str) -> None:
    def start() -> tuple[nn.Module, Optimizer]:
        torch.manual_seed(0)
        block = RepUXBlock(3, 2, 5, "auto")
        return block, frequency_reparameterized(AdamW(block.parameters(), lr=0.01), block, mode=mode)

    def run(block: nn.Module, optimizer: Optimizer, steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            optimizer.zero_grad()
            block(torch.randn(2, 2, 6, 6, 6)).square().mean().backward()
            optimizer.step()

    whole, optimizer = start()
    run(whole, optimizer, range(4))
    first, optimizer = start()
    run(first, optimizer, range(2))
    states = (first.state_dict(), optimizer.state_dict())
    second, optimizer = start()
    second.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    run(second, optimizer, range(2, 4))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_kernels_are_not_read_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    block, reads = RepUXBlock(3, 2, 5, "auto"), []
    optimizer = frequency_reparameterized(SGD(block.parameters(), lr=1e-3), block, mode="effective")
    monkeypatch.setattr(torch, "equal", lambda *pair: reads.append(pair) or (pair[0] == pair[1]).all())
    for step in range(3):
        if step == 2:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        block(torch.randn(1, 2, 6, 6, 6)).square().mean().backward()
        reads.clear()
        optimizer.step()
        assert bool(reads) == (step != 1)  # in the first step, and after loading


def test_weights_that_are_loaded_later_keep_their_function() -> None:
    donor = RepUXBlock(3, 2, 5, "auto")
    for initial, late in (("raw", True), ("effective", False), ("effective", True)):
        block = RepUXBlock(3, 2, 5, "auto")
        if not late:
            block.load_state_dict(donor.state_dict())
        optimizer = frequency_reparameterized(SGD(block.parameters(), lr=1e-3), block, initial=initial)
        if late:
            block.load_state_dict(donor.state_dict())
        block(torch.randn(2, 2, 6, 6, 6)).square().mean().backward()
        optimizer.step()
        torch.testing.assert_close(block.conv.weight, donor.conv.weight, rtol=1e-2, atol=1e-3)


def test_a_checkpoint_of_another_mode_is_refused() -> None:
    block = RepUXBlock(3, 2, 5, "auto")
    plain = AdamW(block.parameters())
    states = [plain.state_dict()]
    states.append(frequency_reparameterized(AdamW(block.parameters()), block, mode="update").state_dict())
    states.append(frequency_reparameterized(AdamW(block.parameters()), block, alpha=2).state_dict())
    ours = frequency_reparameterized(AdamW(block.parameters()), block)
    ours.load_state_dict(ours.state_dict())
    for state in states:
        with pytest.raises(ConfigError, match="frequency mode"):
            ours.load_state_dict(state)


def test_which_layers() -> None:
    network = create_network("uxnet", **TINY)  # has grouped 1x1x1 convolutions and a 7^3 stem with one input channel
    optimizer = frequency_reparameterized(SGD(network.parameters(), lr=1.0), network, mode="gradient")
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    scaled = {name for name, p in network.named_parameters() if not bool((p.grad == 1).all())}
    assert scaled == {f"stages.{i}.0.conv.weight" for i in range(4)}

    other = nn.Sequential(nn.Conv2d(1, 2, 5), nn.Conv2d(2, 2, (3, 5), groups=2), nn.ConvTranspose2d(2, 2, 3, groups=2))
    before = [p.detach().clone() for p in other.parameters()]
    frequency_reparameterized(AdamW(other.parameters()), other, layers=["0"])
    assert torch.equal(other[0].weight, before[0] * frequency_mask((5, 5)))
    assert all(torch.equal(p, b) for p, b in list(zip(other.parameters(), before, strict=True))[1:])
    frequency_reparameterized(AdamW(other.parameters()), other, alpha=0.5)
    assert torch.equal(other[1].weight, before[2] * frequency_mask((3, 5), 0.5))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mode": "efective"}, "Did you mean 'effective'"),
        ({"initial": "new"}, "No initial 'new'"),
        ({"layers": ["stage.*"]}, "no depth-wise convolution that this optimiser trains among"),
    ],
)
def test_refusals(options: dict[str, Any], sentence: str) -> None:
    network = create_network("repuxnet", **TINY)
    with pytest.raises(ConfigError, match=sentence):
        frequency_reparameterized(AdamW(network.parameters()), network, **options)
    with pytest.raises(ConfigError, match="no depth-wise"):
        frequency_reparameterized(AdamW(network.head.parameters()), network)


def test_in_a_bundles_yaml() -> None:
    groups = {"_target_": "medseg.optimizers.parameter_groups", "network": "@network", "learning_rate": 0.0001}
    config = ConfigParser(
        {
            "network": {"_target_": "medseg.networks.RepUXNet", **TINY},
            "optimizer": {
                "_target_": "medseg.optimizers.frequency_reparameterized",
                "network": "@network",
                "mode": "update",
                "initial": {"path": None},
                "optimizer": {"_target_": "torch.optim.AdamW", "params": groups, "lr": 0.0001},
            },
        }
    )
    optimizer = config.get_parsed_content("optimizer")
    assert isinstance(optimizer, AdamW)
    assert optimizer.state_dict()["param_groups"][0]["frequency_mode"] == "update"

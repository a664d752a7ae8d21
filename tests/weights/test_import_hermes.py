"""Hermes: numbers, gradients and keys of the original; what the import refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_set import FULL_SET
from torch import nn

from medseg.errors import ConfigError, ModelError
from medseg.losses import TaskLoss, TaskTarget
from medseg.weights import import_original, import_with_report, read_state_dict
from medseg.weights.original import ImportReport

FIXTURES = FULL_SET / "hermes"

COUNTS = {"hermes_resunet": 60_884_998, "hermes_medformer": 47_129_990}
NAMES = ("resunet_a", "medformer_a")
TINY = {"base_ch": 8, "num_block": [1, 1, 1, 1], "tn": 3, "mn": 2}
TINY_M = {
    "base_chan": 8,
    "chan_num": [8, 16, 16, 16, 16, 16, 8, 8],
    "num_heads": [1] * 8,
    "trans_num": [0, 1, 1, 1, 1, 1, 0, 0],
    "tn": 3,
    "mn": 2,
}


def load(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], nn.Module, ImportReport]:
    """Sidecar, arrays, the network with the original's weights, and the report."""
    sidecar = json.loads((FIXTURES / f"{name}.json").read_text())
    arrays = {key: torch.from_numpy(value) for key, value in np.load(FIXTURES / f"{name}.npz").items()}
    state = {key[3:]: value.float() for key, value in arrays.items() if key.startswith("sd/")}
    network, report = import_with_report("hermes", sidecar["architecture"], sidecar["constructor"], state)
    assert report.parameters == sidecar["parameters"]
    assert len(report.taken) == len(state) and not report.dropped
    return sidecar, arrays, network, report


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_the_original(name: str) -> None:
    sidecar, arrays, network, _ = load(name)
    x, tasks, modality = arrays["in/image"].float(), arrays["in/tgt_idx"], arrays["in/mod_idx"]
    with torch.no_grad():
        logits, kind = network.train()(x, tasks, modality, return_modality=True)
        heads = logits if isinstance(logits, list) else [logits]
        assert len(heads) == len(sidecar["outputs"])
        for head, output in zip(heads, sidecar["outputs"], strict=True):
            torch.testing.assert_close(head, arrays[f"out/{output}"], rtol=0, atol=2e-4)
        torch.testing.assert_close(kind, arrays["out/modality_logits"], rtol=0, atol=1e-5)
        alone = network.eval()(x[:1], tasks[:1], modality[:1])
        torch.testing.assert_close(alone, arrays["out/single_logits0"], rtol=0, atol=2e-4)


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_of_the_original(name: str) -> None:
    sidecar, arrays, network, report = load(name)
    tasks, modality = arrays["in/tgt_idx"], arrays["in/mod_idx"]
    shape = sidecar["label_shape"]
    bits = np.unpackbits(arrays["in/label"].numpy(), count=int(np.prod(shape)))
    annotated = (tasks >= 0) & (tasks != sidecar["constructor"]["tn"] - 1)
    target = TaskTarget(torch.from_numpy(bits.reshape(shape)), annotated, modality)
    loss = TaskLoss()(network.train()(arrays["in/image"].float(), tasks, modality, return_modality=True), target)
    assert float(loss.detach()) == pytest.approx(sidecar["loss"]["total"], abs=1e-5)
    loss.backward()  # in float64 ours differ from the fixture as much: its float32 is the less exact
    gradients = {report.taken[key]: p.grad for key, p in network.named_parameters()}
    for key, value in arrays.items():
        if key.startswith("grad/"):
            torch.testing.assert_close(gradients[key[5:]], value, rtol=0, atol=2e-3 * float(value.abs().max()))
    for key, norm in sidecar["grad_norms"].items():
        assert float(gradients[key].norm()) == pytest.approx(norm, rel=2e-3, abs=1e-6), key


@pytest.mark.parametrize("architecture", COUNTS)
def test_published_parameters(architecture: str) -> None:
    with torch.device("meta"):
        assert import_with_report("hermes", architecture, {})[1].parameters == COUNTS[architecture]


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("architecture", COUNTS)
def test_key_tables(architecture: str) -> None:
    lines = (FIXTURES / f"state_dict_keys_{architecture}.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    state = {
        key: torch.tensor(float(i)).expand([int(n) for n in shape.split("x")]) for i, (key, shape) in enumerate(rows)
    }
    network, report = import_with_report("hermes", architecture, {}, state)
    assert sorted(report.taken.values()) == sorted(state) and not report.dropped
    ours = network.state_dict()
    assert all(torch.equal(ours[key], state[theirs].reshape(ours[key].shape)) for key, theirs in report.taken.items())


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("name", NAMES)
def test_wrapped_and_foreign_keys(name: str) -> None:
    sidecar = json.loads((FIXTURES / f"{name}.json").read_text())
    arrays = np.load(FIXTURES / f"{name}.npz")
    state = {f"module._orig_mod.{key[3:]}": torch.from_numpy(arrays[key]) for key in arrays if key.startswith("sd/")}
    arguments = ("hermes", sidecar["architecture"], sidecar["constructor"])
    assert len(import_with_report(*arguments, state)[1].taken) == len(state)
    with pytest.raises(ModelError, match="1 unexpected"):
        import_original(*arguments, {**state, "extra.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match="1 missing"):
        import_original(*arguments, dict(list(state.items())[1:]))


def test_checkpoint_gives_its_averaged_weights(tmp_path: Path) -> None:
    last, average = {"module.a": torch.zeros(1)}, {"module.a": torch.ones(1)}
    content = {"epoch": 3, "model_state_dict": last, "ema_model_state_dict": average, "optimizer_state_dict": {}}
    torch.save(content, tmp_path / "checkpoint.pth")
    assert torch.equal(read_state_dict(tmp_path / "checkpoint.pth")["module.a"], torch.ones(1))
    torch.save({"epoch": 3, "model_state_dict": last}, tmp_path / "checkpoint.pth")
    assert torch.equal(read_state_dict(tmp_path / "checkpoint.pth")["module.a"], torch.zeros(1))


@pytest.mark.parametrize(
    ("architecture", "options", "words"),
    [
        ("hermes_resunet", {"block": "Bottleneck"}, "expected 'BasicBlock'"),
        ("hermes_resunet", {"norm": "bn"}, "expected 'in'"),
        ("hermes_resunet", {"num_blok": [1]}, "Did you mean 'num_block'"),
        ("hermes_resunet", {"scale": [[2, 2, 2]]}, "scales has 1 entries, expected 4"),
        ("hermes_resunet", {"base_ch": 4}, "base_channels is 4"),
        ("hermes_resunet", {"num_block": [1, 1]}, "num_blocks has 2"),
        ("hermes_medformer", {"proj_type": "linear"}, "expected 'depthwise'"),
        ("hermes_medformer", {"chan_num": [8, 16, 16, 16, 16, 16, 16, 8]}, "expected .* as published"),
        ("hermes_medformer", {"trans_num": [1] * 8}, "trans_num=.* is not built here"),
        ("hermes_medformer", {"num_heads": [3] * 8}, "channels 16 must be a multiple of their 3 heads"),
        ("hermes_medformer", {"conv_num": [1]}, "num_blocks is .*, expected 8 numbers"),
    ],
)
def test_what_is_not_built(architecture: str, options: dict[str, Any], words: str) -> None:
    tiny = TINY if architecture == "hermes_resunet" else TINY_M
    with pytest.raises(ConfigError, match=words):
        import_original("hermes", architecture, {**tiny, **options})

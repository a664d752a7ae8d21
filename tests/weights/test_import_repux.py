"""3D RepUX-Net's and 3D UX-Net's original checkpoints: numbers of the original programs, key tables, counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from full_set import FULL_SET
from original_numbers import check_large_kernels, read_full

from medseg.cli import main
from medseg.errors import ConfigError, ModelError
from medseg.weights import import_original, import_with_report

FIXTURES = FULL_SET / "repux"

NAMES = [f"{network}_k{kernel}" for network in ("repuxnet", "uxnet") for kernel in (7, 21)]
TINY: dict[str, Any] = {
    "out_channels": 2,
    "kernel_size": 5,
    "depths": [1, 0, 0, 1],
    "feature_size": [2, 3, 3, 4],
    "hidden_size": 4,
}


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("method", ["direct", "fft", "auto"])
@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_the_original(name: str, method: str) -> None:
    check_large_kernels(read_full(FIXTURES / name), method)


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("repuxnet_k21", {"out_channels": 5}, 65_827_829),
        ("uxnet_k7", {"out_channels": 5}, 53_006_069),
        ("uxnet_k21", {"out_channels": 5, "kernel_size": 21}, 65_847_989),
    ],
)
def test_key_tables(name: str, arguments: dict[str, Any], count: int) -> None:
    _, *lines = (FIXTURES / f"state_dict_keys_{name}.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    state = {
        key: torch.tensor(float(number) + 1).expand([int(n) for n in shape.split("x")] if shape != "scalar" else [])
        for number, (key, shape, _, _) in enumerate(rows)
    }
    network, report = import_with_report("repux", name.partition("_")[0], arguments, state)
    assert report.parameters == count
    assert len(report.taken) == len(rows) == len(set(report.taken.values()))
    assert not report.dropped
    own = network.state_dict()
    assert len(own) == len(rows)
    for ours, theirs in report.taken.items():
        assert own[ours].flatten()[0] == state[theirs].flatten()[0].to(own[ours].dtype)
    buffers = {row[0] for row in rows if row[3] == "buffer"}
    assert {report.taken[ours] for ours, _ in network.named_buffers()} == buffers


def original_keys(network: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Our state dict under the original's names, by the inverse of the rule."""
    pairs = (("downsamples.", f"{prefix}.downsample_layers."), ("stages.", f"{prefix}.stages."))
    renamed = {}
    for key, value in network.state_dict().items():
        theirs = key
        for ours, other in pairs:
            theirs = other + theirs[len(ours) :] if theirs.startswith(ours) else theirs
        head, _, rest = theirs.partition(".")
        number, _, tail = rest.partition(".")
        if head == "norms":
            theirs = f"{prefix}.norm{number}.{tail}"
        elif head == "skips":
            theirs = f"encoder{int(number) + 1}.{tail}"
        elif head == "upsamples":
            theirs = f"decoder{5 - int(number)}.{tail}"
        elif head in ("refine", "head"):
            theirs = f"{ {'refine': 'decoder1', 'head': 'out'}[head] }.{rest}"
        parts = theirs.split(".")
        if parts[1] == "stages":
            parts[4] = {"conv": "dwconv", "expand": "pwconv1", "reduce": "pwconv2"}.get(parts[4], parts[4])
        renamed[".".join(parts)] = value
    return renamed


@pytest.mark.parametrize("name", ["repuxnet", "uxnet"])
def test_wrappers_leftovers_and_strictness(name: str) -> None:
    prefix = f"{name}_3d"
    state = original_keys(import_original("repux", name, TINY), prefix)
    wrapped = {f"module.{key}": value for key, value in state.items()}
    extra = {"module.decoder1.layer.conv3.conv.weight": torch.zeros(2, 2, 1, 1, 1)}
    _, report = import_with_report("repux", name, TINY, wrapped | extra)
    assert list(report.dropped) == list(extra)
    assert len(report.taken) == len(state)
    with pytest.raises(ModelError, match="1 unexpected"):
        import_original("repux", name, TINY, {**state, "extra.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match="head of 2 channels"):
        import_original("repux", name, {**TINY, "out_channels": 3}, state)
    with pytest.raises(ConfigError, match="Did you mean 'kernel_size'"):
        import_original("repux", name, {"kernel_sizes": 7})


def test_the_report_says_whether_the_kernels_are_more_than_their_centre() -> None:
    state = original_keys(import_original("repux", "repuxnet", TINY), "repuxnet_3d")
    lines = import_with_report("repux", "repuxnet", TINY, state)[1].notes
    assert len(lines) == 2
    assert "100.0% of the taps" in lines[0]
    kernel = state["repuxnet_3d.stages.0.0.dwconv.weight"]
    centre = kernel[:, :, 2, 2, 2].clone()
    kernel.zero_()
    kernel[:, :, 2, 2, 2] = centre
    lines = import_with_report("repux", "repuxnet", TINY, state)[1].lines()
    assert any("stages.0.0" in line and "0.0% of the taps" in line and "sum is 0 centres" in line for line in lines)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = import_original("repux", "uxnet", TINY)
    config, checkpoint, output = tmp_path / "original.json", tmp_path / "best_metric_model.pth", tmp_path / "model.pt"
    config.write_text(json.dumps({"architecture": "uxnet", "constructor": TINY}))
    torch.save(original_keys(network, "uxnet_3d"), checkpoint)
    arguments = ["--system", "repux", "--config", str(config), "--checkpoint", str(checkpoint)]
    assert main(["import-weights", *arguments, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "0 dropped" in printed
    assert "off the centre" in printed
    loaded = torch.load(output, weights_only=True)
    assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())

"""SSH-UNet's original checkpoints: numbers of the original program, key tables, counts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_set import FULL_SET
from original_numbers import check_ssh_unet, read_full

from medseg.cli import main
from medseg.errors import ConfigError, ModelError
from medseg.networks.layers.slice_shift import create_shift
from medseg.weights import import_original, import_with_report

FIXTURES = FULL_SET / "sshunet"

PUBLISHED: dict[str, Any] = {
    "in_channels": 1,
    "out_channels": 14,
    "gate_type": "tsm",
    "gate_pos": [0, 1, 2],
    "gate_in_bottleneck": True,
    "gate_dec": True,
    "kernel_size": [[1, 3, 3]] * 5,
    "strides": [[1, 1, 1]] + [[2, 2, 2]] * 4,
    "norm_name": "instance",
    "trans_bias": True,
}
TINY = {**PUBLISHED, "out_channels": 2, "filters": [4, 8, 8], "gate_pos": [0]}
TINY |= {"kernel_size": PUBLISHED["kernel_size"][:3], "strides": PUBLISHED["strides"][:3]}

# Appendix "Parameter counts" of the description: options besides the published ones, and the count.
COUNTS: list[tuple[dict[str, Any], int]] = [
    ({}, 6_480_142),
    ({"gate_type": "gsm"}, 6_513_854),
    ({"gate_type": "gsf"}, 6_488_886),
    ({"vfn": True}, 11_096_076),
    ({"vfn": True, "gate_type": "gsm"}, 11_129_788),
    ({"vfn": True, "gate_type": "gsf"}, 11_104_820),
    ({"out_channels": 16}, 6_480_208),
    ({"out_channels": 16, "gate_type": "gsm"}, 6_513_920),
    ({"out_channels": 16, "gate_type": "gsf"}, 6_488_952),
    ({"out_channels": 16, "vfn": True}, 12_509_504),
    ({"out_channels": 16, "vfn": True, "gate_type": "gsm"}, 12_543_216),
    ({"out_channels": 16, "vfn": True, "gate_type": "gsf"}, 12_518_248),
    ({"gate_type": "gsm", "gate_dec": False}, 6_501_752),
    ({"gate_type": "gsm", "gate_in_bottleneck": False}, 6_505_212),
    ({"gate_type": "gsm", "gate_pos": [-1, 0, 1, 2]}, 6_514_720),
    ({"kernel_size": [[3, 3, 3]] * 5}, 16_839_502),
    ({"deep_supervision": True, "deep_supr_num": 2}, 6_503_530),
]


def original_keys(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Our state dict of a TSM network under the original's names, by the inverse of the rule, without aliases."""
    renamed = {}
    for key, value in network.state_dict().items():
        path, _, last = key.rpartition(".")
        renamed[f"{path}.conv.{last}".replace(".up.", ".transp_conv.").replace(".block.", ".conv_block.")] = value
    return renamed


@pytest.mark.parametrize(("options", "count"), COUNTS)
def test_parameter_counts(options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        _, report = import_with_report("sshunet", "SSHUNet", {**PUBLISHED, **options})
    assert report.parameters == count


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("execution", ["fast", "lean"])
@pytest.mark.parametrize("name", ["gsf", "gsf_vfn", "gsm_affine", "gsm_vfn", "tsm", "tsm_deepsup_train", "tsm_vfn"])
def test_numbers_of_the_original(name: str, execution: str) -> None:
    check_ssh_unet(read_full(FIXTURES / name), execution)


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("name", ["tsm_enc", "tsm_dec", "gsm_enc", "gsm_dec", "gsf_enc", "gsf_dec"])
def test_shift_modules_of_the_original(name: str, memory: torch.memory_format) -> None:
    facts = json.loads((FIXTURES / "modules_c12.json").read_text())[name]
    arrays = {
        key.partition("/")[2]: torch.from_numpy(value)
        for key, value in np.load(FIXTURES / "modules_c12.npz").items()
        if key.startswith(f"{name}/")
    }
    shift = create_shift(facts["type"], facts["channels"], decoder=facts["decoder"])
    names = {"conv3D": "gate", "channel_conv1": "fusion.0", "channel_conv2": "fusion.1"}
    state = {key[3:]: value for key, value in arrays.items() if key.startswith("sd/")}
    shift.load_state_dict({f"{names[k.split('.')[0]]}.{k.split('.')[1]}": value for k, value in state.items()})
    x = arrays["input"].contiguous(memory_format=memory)
    with torch.no_grad():
        if "gate" in arrays:
            gate = torch.cat(shift.gates(x[:, : getattr(shift, "gated", None)]), dim=1)
            torch.testing.assert_close(gate, arrays["gate"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(shift(x), arrays["output"], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("name", ["amos_tsm", "amos_tsm_vfn", "gsf", "gsm", "tsm", "tsm_vfn"])
def test_key_tables(name: str) -> None:
    header, *lines = (FIXTURES / f"state_dict_keys_{name}.txt").read_text().splitlines()
    facts = dict(part.split("=", 1) for part in header[2:].replace("[0, 1, 2]", "").split() if "=" in part)
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    arguments = {**PUBLISHED, "gate_type": facts["gate_type"], "vfn": facts["vfn"] == "True"}
    arguments["out_channels"] = int(facts["out_channels"])
    tensors: dict[str, torch.Tensor] = {}
    for number, (key, shape, _, alias) in enumerate(rows):
        size = [int(n) for n in shape.split("x")]
        tensors[key] = tensors[alias] if alias != "-" else torch.tensor(float(number)).expand(size)
    network, report = import_with_report("sshunet", "SSHUNet", arguments, tensors)
    assert {key for key in report.dropped} == {row[0] for row in rows if row[3] != "-"}
    assert all(
        reason == f"the same tensor as {alias}" for (key, _, _, alias) in rows if (reason := report.dropped.get(key))
    )
    for ours, theirs in report.taken.items():
        assert torch.equal(network.state_dict()[ours], tensors[theirs])


def test_aliases_must_agree() -> None:
    network = import_original("sshunet", "SSHUNet", TINY)
    state = original_keys(network)
    key, alias = "bottleneck.conv1.conv.weight", "skip_layers.next_layer.next_layer.conv1.conv.weight"
    _, report = import_with_report("sshunet", "SSHUNet", TINY, {**state, alias: state[key].clone()})
    assert report.dropped == {alias: f"the same tensor as {key}"}
    with pytest.raises(ModelError, match="different values"):
        import_original("sshunet", "SSHUNet", TINY, {alias: state[key] + 1, **state})
    only_alias = {alias if k == key else k: v for k, v in state.items()}
    assert alias in import_with_report("sshunet", "SSHUNet", TINY, only_alias)[1].taken.values()


def test_loading_is_strict() -> None:
    state = original_keys(import_original("sshunet", "SSHUNet", TINY))
    wrapped = {f"module.{key}": value for key, value in state.items()}
    assert len(import_with_report("sshunet", "SSHUNet", TINY, wrapped)[1].taken) == len(state)
    with pytest.raises(ModelError, match="1 unexpected"):
        import_original("sshunet", "SSHUNet", TINY, {**state, "extra.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match="1 missing"):
        import_original("sshunet", "SSHUNet", TINY, dict(list(state.items())[1:]))
    with pytest.raises(ModelError, match="head of 2 channels"):
        import_original("sshunet", "SSHUNet", {**TINY, "out_channels": 3}, state)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    for arguments, words in (
        (("shunet", "SSHUNet", TINY), "Did you mean 'sshunet'"),
        (("sshunet", "SSHUnet", TINY), "Did you mean 'SSHUNet'"),
        (("sshunet", "SSHUNet", {**TINY, "gate_typ": "tsm"}), "Did you mean 'gate_type'"),
        (("sshunet", "SSHUNet", {"in_channels": 1}), "needs out_channels"),
    ):
        with pytest.raises(ConfigError, match=words):
            import_original(*arguments)


def test_defaults_are_the_originals() -> None:
    bare = {key: value for key, value in TINY.items() if key not in ("norm_name", "trans_bias")}
    network = import_original("sshunet", "SSHUNet", bare)
    assert network.input_block.norm1.affine and network.upsamples[0].up.bias is None


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = import_original("sshunet", "SSHUNet", TINY).eval()
    config, checkpoint, output = (
        tmp_path / "config.yaml",
        tmp_path / "0model_fold0.pt",
        tmp_path / "models" / "model.pt",
    )
    config.write_text(json.dumps({"constructor": TINY}))
    torch.save({"epoch": 3, "best_acc": 0.5, "state_dict": original_keys(network), "optimizer": {}}, checkpoint)
    arguments = ["--system", "sshunet", "--config", str(config), "--checkpoint", str(checkpoint)]
    assert main(["import-weights", *arguments, "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "0 dropped" in said and "states the licence Apache-2.0" in said
    assert "Apache-2.0" in (tmp_path / "docs" / "weights_license.txt").read_text()
    loaded = torch.load(output, weights_only=True)
    assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())

    config.write_text("gate_type: [")
    assert main(["import-weights", *arguments]) == 2
    config.write_text(json.dumps(TINY))
    checkpoint.write_bytes(b"no checkpoint")
    assert main(["import-weights", *arguments]) == 4

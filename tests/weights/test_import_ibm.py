"""The neural-operator family's original checkpoints: numbers, gradients, key tables, counts, config files, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_set import FULL_SET
from original_numbers import PUBLISHED_XS, check_operator, check_published_operator, read_full
from torch import Tensor, nn

from medseg.cli import main
from medseg.errors import ConfigError, ModelError
from medseg.weights import import_original, import_with_report

FIXTURES = FULL_SET / "ibm"

BRATS = {"in_channels": 4, "out_channels": 4, "filters": 24, "num_modes": (10, 14, 14)}
XS = PUBLISHED_XS
CHAIN = {**BRATS, "num_transform_blocks": 24}
OLD = {**CHAIN, "filters": 12, "num_transform_blocks": 32, "use_deep_supervision": True, "use_block_concat": False}
FNO = {"weights_type": "individual", "use_bias_conv_branch": True, "use_block_skip": False, "num_modes": (4, 6, 6)}
MHA = {**CHAIN, "filters": 12, "num_transform_blocks": 16, "num_heads": 4, "patch_size": (2, 2, 2)}
VNET = {"in_channels": 4, "out_channels": 4, "base_num_filters": 24, "num_blocks": [1, 2, 3, 3, 3]}
RIGHT = {"right_leg_indexes": [0, 1, 2, 3, 4]}

# Section "Parameter counts" of the description.
COUNTS: list[tuple[str, dict[str, Any], int]] = [
    ("HNOSegXS", XS, 28_248),
    ("HNOSegXS", {**XS, "in_channels": 1}, 27_672),
    ("HNOSegXS", {**XS, "in_channels": 1, "out_channels": 3}, 27_648),
    ("HNOSegXS", {**XS, "num_transform_blocks": [3] * 10}, 35_232),
    ("HNOSegXS", {**XS, "num_transform_blocks": [3] * 10, "in_channels": 1}, 34_656),
    ("HNOSegXS", {**XS, "num_transform_blocks": [4] * 8}, 32_856),
    ("HNOSegXS", {**XS, "num_transform_blocks": [2] * 12}, 35_304),
    ("NeuralOperatorSeg", {**CHAIN, "transform_type": "Hartley"}, 57_360),
    ("NeuralOperatorSeg", {**CHAIN, "transform_type": "Fourier"}, 71_184),
    ("NeuralOperatorSeg", {**CHAIN, "transform_type": "Fourier", **FNO}, 15_941_136),
    ("NeuralOperatorSeg", {**OLD, "transform_type": "Hartley"}, 11_372),
    ("NeuralOperatorSeg", {**OLD, "transform_type": "Fourier"}, 15_980),
    ("HartleyMHASeg", MHA, 45_356),
    ("HartleyMHASeg", {**MHA, "use_block_concat": False}, 40_556),
    ("VNetDS", {**VNET, **RIGHT}, 22_547_764),
    ("VNetDS", VNET, 22_544_856),
    ("VNetDS", {**VNET, **RIGHT, "base_num_filters": 12}, 5_641_624),
]
TABLES = {
    "hnosegxs": ("HNOSegXS", XS),
    "hnoseg": ("NeuralOperatorSeg", {**CHAIN, "transform_type": "Hartley"}),
    "fnoseg": ("NeuralOperatorSeg", {**CHAIN, "transform_type": "Fourier"}),
    "fno": ("NeuralOperatorSeg", {**CHAIN, "transform_type": "Fourier", **FNO}),
    "hartleymha": ("HartleyMHASeg", MHA),
    "vnetds": ("VNetDS", {**VNET, **RIGHT}),
}


CASES = [
    *("fno_2d", "fno_3d_a", "fnoseg_3d_a", "hartleymha_2d", "hartleymha_3d_a", "hnoseg_2d", "hnoseg_3d_a"),
    *("hnosegxs_2d", "hnosegxs_3d_a", "hnosegxs_3d_clip", "hnosegxs_opts", "vnetds_2d", "vnetds_3d_a", "vnetds_snn"),
]


@pytest.mark.parametrize(("architecture", "arguments", "count"), COUNTS)
def test_parameter_counts(architecture: str, arguments: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        _, report = import_with_report("ibm", architecture, arguments)
    assert report.parameters == count


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("name", CASES)
def test_numbers_of_the_original(name: str) -> None:
    check_operator(read_full(FIXTURES / name))


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_published_network(dtype: torch.dtype) -> None:
    check_published_operator(read_full(FIXTURES / "published_hnosegxs"), dtype)


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("table", TABLES)
def test_key_tables(table: str) -> None:
    lines = (FIXTURES / f"state_dict_keys_{table}.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    state = {key: torch.zeros([int(n) for n in shape.strip("(),").split(",") if n]) for key, shape in rows}
    _, report = import_with_report("ibm", *TABLES[table], state)
    assert sorted(report.taken.values()) == sorted(state)


TINY = {"in_channels": 2, "out_channels": 3, "filters": 3, "num_transform_blocks": [1, 2, 1], "num_modes": [2, 2, 2]}
INI = """
[main]
output_dir = '~/experiments'
[input_lists]
data_dir = '~/data'
list_dir = ${data_dir}/lists
[input_args]
idx_x_modalities = [0, 2]
[model]
model_name = 'HNOSegXS'
out_channels = 3
filters = 3
num_transform_blocks = [1, 2] + [1]
num_modes = (2, 2, 2)
[optimizer]
optimizer_name = 'Adamax'
"""


def original_keys(network: nn.Module) -> dict[str, Tensor]:
    return {
        key.replace(".weight", ".op.weight") if ".conv_blocks." in key else key: value
        for key, value in network.state_dict().items()
    }


def test_loading_is_strict() -> None:
    state = original_keys(import_original("ibm", "HNOSegXS", TINY))
    wrapped = {f"module.{key}": value for key, value in state.items()}
    assert len(import_with_report("ibm", "HNOSegXS", TINY, wrapped)[1].taken) == len(state)
    with pytest.raises(ModelError, match="1 unexpected"):
        import_original("ibm", "HNOSegXS", TINY, {**state, "extra.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match="1 missing"):
        import_original("ibm", "HNOSegXS", TINY, dict(list(state.items())[1:]))


def test_unknown_arguments() -> None:
    for architecture, arguments, words in (
        ("HNOSegXS", {**TINY, "filter": 3}, "Did you mean 'filters'"),
        ("HNOSegXs", TINY, "Did you mean 'HNOSegXS'"),
        ("NeuralOperatorSeg", TINY, "needs transform_type"),
        ("NeuralOperatorSeg", {**TINY, "transform_type": "Hartly"}, "Did you mean 'Hartley'"),
    ):
        with pytest.raises(ConfigError, match=words):
            import_original("ibm", architecture, arguments)


@pytest.mark.parametrize("kind", ["model.pt", "checkpoint.pt"])
def test_command(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The original's config and either of its files; a checkpoint also holds NumPy numbers and an optimiser."""
    network = import_original("ibm", "HNOSegXS", TINY)
    config, checkpoint, output = tmp_path / "config.ini", tmp_path / kind, tmp_path / "models" / "model.pt"
    config.write_text(INI.replace("[1, 2] + [1]", "[1, 2, 1]"))
    state: dict[str, Any] = original_keys(network)
    if kind == "checkpoint.pt":
        optimizer = torch.optim.Adamax(network.parameters())
        state = {"epoch": 7, "model_state_dict": state, "optimizer_state_dict": optimizer.state_dict()}
        state |= {"min_loss": np.float64(0.25), "best_epoch": 6, "scheduler_state_dict": {"T_cur": 3}}
    torch.save(state, checkpoint)
    arguments = ["import-weights", "--system", "ibm", "--config", str(config), "--checkpoint", str(checkpoint)]
    assert main([*arguments, "--output", str(output)]) == 0
    assert "0 dropped" in capsys.readouterr().out
    loaded = torch.load(output, weights_only=True)
    assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (INI, "num_transform_blocks: '[1, 2] + [1]' is not a Python literal"),
        (INI.replace("model_name", "name"), "no model_name"),
        ("filters = 3", "is not a config of"),
        (INI.replace("[model]", "[models]"), "No section: 'model'"),
    ],
)
def test_config_files_that_cannot_be_read(text: str, words: str, tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "config.ini"
    config.write_text(text if "[1, 2] + [1]" in words else text.replace("[1, 2] + [1]", "[1, 2, 1]"))
    assert main(["import-weights", "--system", "ibm", "--config", str(config), "--checkpoint", "none.pt"]) == 2
    assert words in capsys.readouterr().err

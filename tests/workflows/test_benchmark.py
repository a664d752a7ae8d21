"""The benchmark: what is measured, in which order, and what bad input gets."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medseg.bundle import planned_arguments
from medseg.bundle.parts import initialize
from medseg.cli import main
from medseg.errors import ConfigError, ResourceError
from medseg.networks import catalog, create_network
from medseg.networks.cost import count_parameters
from medseg.reports.tables import digits, grouped, markdown_table, scaled
from medseg.storage import read_yaml
from medseg.workflows import benchmark as module
from medseg.workflows import benchmark_commands, benchmark_steps
from medseg.workflows.benchmark import BenchmarkSettings, benchmark
from medseg.workflows.benchmark_result import ProcessCost
from medseg.workflows.benchmark_table import command_lines

MIB = 2**20


class Hungry(nn.Module):
    """A convolution that also needs ``mib`` MiB for its weights, and as much again while it runs."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, *, mib: int = 1) -> None:
        super().__init__()
        self.layer = nn.Conv3d(in_channels, out_channels, 1)
        self.weight = nn.Parameter(torch.ones(mib * MIB // 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * (self.weight * 2).mean()


HUNGRY = f"{__name__}.Hungry"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Two settings of one network, by the command, with every part at work: what it wrote, and what it said."""
    path = tmp_path_factory.mktemp("benchmark") / "new" / "result.json"
    arguments = ["--network", f"small={HUNGRY}", "--network", f"large={HUNGRY}", "--set", "large.mib=64"]
    arguments += ["--size", "8,8,8", "--device", "cpu", "--threads", "1", "--repeats", "6", "--output", str(path)]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["benchmark", *arguments, "--debug"]) == 0
    return json.loads(path.read_text()), said.getvalue()


@pytest.fixture
def measured(result: tuple[dict[str, Any], str]) -> dict[str, Any]:
    return result[0]


def test_every_figure_is_there_and_right(measured: dict[str, Any]) -> None:
    small, large = measured["networks"]
    assert [entry["name"] for entry in (small, large)] == ["small", "large"]
    assert large["parameters"] == 64 * MIB // 4 + 4
    assert small["forward"]["multiply_adds"] == large["forward"]["multiply_adds"] == 2 * 8**3
    assert small["forward"]["ratio"] == [1.0, 1.0, 1.0]
    median, low, high = large["forward"]["ratio"]
    assert 1 < low <= median <= high
    # Weights, and the product: twice 64 MiB; the library's own memory makes no more than a few.
    grown = large["forward"]["peak_memory_bytes"] - small["forward"]["peak_memory_bytes"]
    assert grown / MIB == pytest.approx(2 * 63, abs=8)


def test_the_conditions_are_recorded(measured: dict[str, Any]) -> None:
    conditions = measured["conditions"]
    assert conditions["torch"] == torch.__version__
    assert (conditions["device"], conditions["threads"], conditions["repeats"]) == ("cpu", 1, 6)
    assert conditions["device_name"]
    assert conditions["arguments"] == "planned"
    assert "two FLOP" in measured["conventions"]["multiply_adds"]


def test_the_table_says_the_same(result: tuple[dict[str, Any], str]) -> None:
    measured, text = result
    row = next(line for line in text.splitlines() if line.startswith("| large"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "16 777 220"
    assert cells[3].startswith(scaled(measured["networks"][1]["forward"]["seconds"][0], 1e-3))
    assert "1 thread" in text and "6 turns" in text


def test_turns_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(benchmark_steps, "timer", lambda: float(next(clock)))
    order: list[str] = []
    seconds = benchmark_steps._turns([lambda: order.append("a"), lambda: order.append("b")], 3)
    assert "".join(order) == "abbaab"
    assert seconds == [[1.0] * 3, [1.0] * 3]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux records the peak")
def test_a_training_step_needs_gradients_and_the_optimisers_state() -> None:
    setup = BenchmarkSettings({}, size=(8, 8, 8), device="cpu", threads=1).conditions()
    arguments = module._arguments({"x": HUNGRY}, setup, {"x": {"mib": 32}}, published=False)["x"]
    candidate = benchmark_steps.Candidate("x", HUNGRY, arguments)
    forward, training = (benchmark_steps.peak_memory(candidate, setup, step) for step in ("forward", "train"))
    # Weights and a product; then their gradient and AdamW's two moments as well.
    assert forward is not None and training is not None
    assert forward / MIB == pytest.approx(2 * 32, abs=16)
    assert training / MIB > 4 * 32


def test_float32_is_the_same_in_runs_and_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TF32, which torch has for convolutions by default."""
    setup = BenchmarkSettings({}, size=(8, 8, 8), device="cpu", threads=1).conditions()
    arguments = module._arguments({"x": HUNGRY}, setup, {"x": {"mib": 1}}, published=False)["x"]
    candidate = benchmark_steps.Candidate("x", HUNGRY, arguments)
    for start in (lambda: initialize(0), lambda: benchmark_steps.times([candidate], setup, "forward", 6)):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
        start()
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("name", list(catalog()))
def test_published_means_what_the_catalogue_says(name: str) -> None:
    """The constructor's defaults, whatever the size and the device; the plan's arguments are others."""
    dims = catalog()[name].spatial_dims[-1]
    setup = BenchmarkSettings({}, size=(32,) * dims, device="cpu").conditions()
    published = module._arguments({name: name}, setup, {}, published=True)[name]
    assert set(published) <= {"spatial_dims", "in_channels", "out_channels", "img_size"}
    with torch.device("meta"):
        count = count_parameters(create_network(name, **published))
    assert count > 0.5 * catalog()[name].parameters  # but for the channels of input and output


@pytest.mark.parametrize("name", list(catalog()))
def test_every_registered_network_is_counted(name: str) -> None:
    """A training step, on the meta device, with nothing that is not counted."""
    dims = catalog()[name].spatial_dims[-1]
    setup = BenchmarkSettings({}, size=(32,) * dims, batch_size=2, device="cpu").conditions()
    arguments = planned_arguments(name, module._plan(setup))
    parameters, counts = module._on_paper(benchmark_steps.Candidate(name, name, arguments), setup, ("train",))
    assert parameters > 0
    assert counts["train"].total > 1e6
    assert counts["train"].not_counted == ()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"networks": {}}, "Nothing to measure"),
        ({"networks": {"shs_unet": "shs_unet"}}, "Did you mean 'ssh_unet'"),
        ({"size": (32, 0, 32)}, "positive integers"),
        ({"size": (32,)}, "two or three"),
        ({"size": (32, 32)}, "takes 3 spatial axes; size .32, 32. has 2"),
        ({"batch_size": 0}, "batch_size: expected a positive integer, got 0"),
        ({"repeats": 5}, "at least 6, got 5"),
        ({"command": "infer", "empty": 1.0}, "empty 1.0 is outside"),
        ({"recipe": "nnunet"}, "use it with --command train"),
        ({"command": "train", "recipe": "nnunett"}, "Did you mean 'nnunet'"),
        ({"configuration": "2d"}, "use it with --command, or leave it out"),
        ({"command": "infer", "configuration": "2D"}, "expected 2d, 3d_fullres.*Did you mean '2d'"),
        ({"command": "train", "train": True}, "--train measures a step of networks"),
        ({"precision": "fp8"}, "precision 'fp8' is unknown"),
        ({"device": "gpu"}, "Device 'gpu' is unknown"),
        ({"arguments": {"ssh_unet": {"gate_tpye": "gsm"}}}, "Did you mean 'gate_type'"),
        ({"arguments": {"sshunet": {"gate_type": "gsm"}}}, "which is not measured.*'ssh_unet'"),
        ({"networks": {"qtseg": "qtseg"}, "size": (32, 32), "train": True}, "qtseg cannot run 'train'.*batch_size"),
        ({"networks": {"UNETR": "UNETR"}, "size": (30, 30, 30)}, "UNETR does not take size"),
    ],
)
def test_bad_input_gets_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    arguments: dict[str, Any] = {"networks": {"ssh_unet": "ssh_unet"}, "size": (32, 32, 32), "device": "cpu"} | changes
    with pytest.raises(ConfigError, match=sentence):
        benchmark(**arguments)


def test_numbers_and_tables() -> None:
    assert [scaled(v) for v in (0.0123456, 1.0, 12.345, 123456.0, None)] == ["0.0123", "1.00", "12.3", "123456", "–"]
    assert (grouped(1234567), digits(0.5, 2, sign=True), digits(float("nan"))) == ("1 234 567", "+0.50", "–")
    assert markdown_table(["a", "b"], [["x|y", "10"]]).splitlines() == [
        "| a    |   b |",
        "|------|----:|",
        "| x\\|y |  10 |",
    ]


def test_a_command_is_measured_beside_its_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are faked, but for the first: their cost and words, and the network's own process."""
    called: list[str] = []

    def cost(words: list[str], environment: object) -> ProcessCost:
        called.append(" ".join(words[1:]))
        if "infer" in words:
            assert main(words[words.index("infer") :]) == 0
        return ProcessCost(6.0, 8.0, 2 * MIB) if "infer" in words else ProcessCost(1.0, 1.0, MIB)

    monkeypatch.setattr(benchmark_commands, "process_cost", cost)
    monkeypatch.setattr(benchmark_commands, "_PATCH", (16, 16, 16))
    monkeypatch.setattr(
        benchmark_commands, "_in_fresh_process", lambda *args: (benchmark_commands.network_alone(*args)[0], 2.0)
    )
    layer, arguments = {"layer": "monai.networks.blocks.Convolution"}, {"layer": benchmark_commands._LAYER}
    (row,) = benchmark(
        layer,
        arguments=arguments,
        command="infer",
        size=(32, 16, 16),
        repeats=1,
        empty=0.5,
        output=tmp_path / "rows.json",
    )
    assert (row.patches, row.ratio, row.volumes) == (3, 2.0, MIB / (4 * 32 * 16 * 16))
    assert any("cli infer --device cpu" in words for words in called) and "-c import torch" in called
    assert json.loads((tmp_path / "rows.json").read_text())[0]["network_seconds"] == 2.0
    assert "|  2.00 |      2.00 |" in command_lines([row])[0]


def test_a_recipe_is_measured_with_its_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_commands, "_PATCH", (16, 16, 16))
    work = benchmark_commands.Work("DynUNet", (16, 16, 16), 2, recipe="standard")
    bundle = benchmark_commands.prepare(tmp_path, work)
    assert read_yaml(bundle / "configs" / "train.yaml")["recipe"] == "standard" and "recipe standard" in work.name
    patches, seconds = benchmark_commands.network_alone("train", bundle, work, 1)
    assert patches == 2 * benchmark_commands._ITERATIONS and seconds > 0


def test_a_2d_network_is_measured_on_the_slices_of_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_commands, "_PATCH", (16, 16, 16))
    arguments = {"init_filters": 16}
    work = benchmark_commands.Work("SegResNet", (24, 16, 6), 2, arguments, configuration="2d")
    bundle = benchmark_commands.prepare(tmp_path, work)
    train = read_yaml(bundle / "configs" / "train.yaml")
    assert (train["configuration"], train["roi_size"]) == ("2d", [16, 16, 1]) and "configuration 2d" in work.name
    assert train["network_def"]["network"]["init_filters"] == 16
    assert benchmark_commands.network_alone("infer", bundle, work, 1)[0] == 2 * 6


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells it")
def test_processes_are_measured_with_their_children() -> None:
    hungry = "b = bytearray(64 << 20); import time; time.sleep(0.1)"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{hungry}'])"
    cost = benchmark_commands.process_cost([sys.executable, "-c", nested], os.environ)
    assert cost.peak_bytes > 64 * MIB and 0 < cost.cpu_seconds < 10 and cost.wall_seconds > 0.1
    with pytest.raises(ResourceError, match="status 3 .last words.; it was to be"):
        benchmark_commands.process_cost([sys.executable, "-c", "print('last words'); raise SystemExit(3)"], os.environ)

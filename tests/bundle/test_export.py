"""Exported networks: every registered one in every format, read back and compared; what cannot be is said."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medseg.bundle.arguments import planned_arguments
from medseg.bundle.export import FORMATS, TOLERANCE, Exported, chosen_formats, export_network, other_size
from medseg.bundle.onnx_norms import write_out_instance_norms
from medseg.data.plan import Plan
from medseg.errors import ConfigError, ModelError
from medseg.networks import catalog, create_network

pytestmark = pytest.mark.filterwarnings("ignore")
onnx = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs the extra `export`")
WINDOW = {2: (32, 48), 3: (16, 8, 16)}
OTHER = {2: (64, 80), 3: (24, 16, 32)}
ANY_WINDOWS = {2: [(32, 48), (64, 80)], 3: [(32, 16, 32), (48, 32, 64)]}  # no axis of one voxel at any level


def small(name: str, dims: int, **more: Any) -> nn.Module:
    window = WINDOW[dims]
    plan = Plan(
        spatial_dims=dims, in_channels=2, out_channels=3, spacing=(1.0,) * dims, roi_size=window, median_shape=window,
        normalization=[], crop_foreground=False, flip_axes=[], rotate=[], batch_size=1, samples_per_case=1, repeats=1,
        cache="cache", cache_gib=0.0, learning_rate=0.005, light=True,
    )  # fmt: skip
    torch.manual_seed(0)
    return create_network(name, **planned_arguments(name, plan, more)).eval()


FEW_GATES = {"gate_pos": [0], "gate_dec": False, "shift_after": "second"}  # recording any size of many takes minutes
ANY_SIZE: dict[str, tuple[str, int, dict[str, Any]]] = {
    **{f"ssh_unet-{gate}": ("ssh_unet", 3, {"gate_type": gate, **FEW_GATES}) for gate in ("tsm", "gsf")},
    "SegResNet": ("SegResNet", 3, {}),
    "UNet-2D": ("UNet", 2, {"channels": [4, 8], "strides": [2]}),
}


@onnx
@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims", "more"), ANY_SIZE.values(), ids=ANY_SIZE)
def test_every_format_agrees_with_the_network_at_two_sizes(name, dims, more, tmp_path):
    sizes = ANY_WINDOWS[dims]
    exported = export_network(small(name, dims, **more), 2, sizes, tmp_path)
    assert tuple(exported) == FORMATS
    for fmt, made in exported.items():
        assert (tmp_path / made.file).stat().st_size > 0
        assert made.multiples_of is not None, f"{fmt}: {made.note}"
        assert [tuple(row.size) for row in made.parity] == sizes
        assert all(row.difference <= TOLERANCE for row in made.parity)


def onnx_runner(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


# How a stranger reads each format.
READERS: dict[str, Callable[[Path], Callable[[Tensor], Tensor]]] = {
    "torchscript": lambda path: torch.jit.load(str(path)),
    "torch_export": lambda path: torch.export.load(path).module(),
    "onnx": onnx_runner,
}


def wrong_files(directory: Path, exported: dict[str, Exported], network: nn.Module) -> Iterator[str]:
    """The contract of every exporter: its file, read anew, returns the network's logits for images it has not seen."""
    for fmt, made in exported.items():
        run = READERS[fmt](directory / made.file)
        for row in made.parity:
            x = torch.randn(1, 2, *row.size, generator=torch.Generator().manual_seed(7))
            with torch.no_grad():
                expected, found = network(x), run(x)
            allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
            if found.shape != expected.shape or not (found - expected).abs().max() <= allowed:
                yield f"{made.file} does not return the network's logits at {row.size}"
            if not row.difference <= TOLERANCE * max(1.0, row.largest_logit):
                yield f"the record of {made.file} states a difference of {row.difference}"


class Sound(nn.Module):
    """A network of any size with what exporters stumble over: instance norm and interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.InstanceNorm2d(4), nn.Conv2d(4, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(self.layers(x), scale_factor=2.0)


def test_every_format_has_a_reader() -> None:
    assert tuple(READERS) == FORMATS


@pytest.mark.parametrize("fmt", [pytest.param(fmt, marks=onnx if fmt == "onnx" else ()) for fmt in FORMATS])
def test_each_file_returns_the_networks_logits(fmt: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Sound().eval()
    exported = export_network(network, 2, [(16, 16), (24, 32)], tmp_path, formats=[fmt])
    assert exported[fmt].multiples_of is not None
    assert list(wrong_files(tmp_path, exported, network)) == []


def test_a_planted_exporter_of_probabilities_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It compares the network with itself, so that only who reads the file notices."""
    network = Sound().eval()

    def of_probabilities(recorder: Any, method: str, any_size: bool, path: Path) -> Any:
        image = recorder.expected[0][0]
        torch.export.save(torch.export.export(nn.Sequential(network, nn.Softmax(1)), (image,)), path)
        return network

    monkeypatch.setattr("medseg.bundle.export._Recorder._torch_export", of_probabilities)
    exported = export_network(network, 2, [(16, 16)], tmp_path, formats=["torch_export"])
    assert list(wrong_files(tmp_path, exported, network)) == [
        "model.pt2 does not return the network's logits at [16, 16]"
    ]


@onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", catalog())
def test_every_registered_network_is_exported_in_every_format(name, tmp_path):
    """TorchScript at two sizes; programs at the window, since recording them for any size takes long."""
    dims = catalog()[name].spatial_dims[-1]
    network = small(name, dims)
    exported = export_network(network, 2, [WINDOW[dims], OTHER[dims]], tmp_path, formats=["torchscript"])
    exported |= export_network(network, 2, [WINDOW[dims]], tmp_path, formats=["torch_export", "onnx"])
    assert tuple(exported) == FORMATS
    assert all(made.note or made.multiples_of for made in exported.values()), "a file of one size says why"
    assert list(wrong_files(tmp_path, exported, network)) == []


class Frozen(nn.Module):
    """Its forward turns the size into numbers, so that a recording holds for one size only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        grid = torch.linspace(0, 1, int(x.shape[2]))[:, None].expand(int(x.shape[2]), int(x.shape[3]))
        return self.conv(x) * grid


class OneWindow(Frozen):
    """Like a transformer with positions: any other size is an error."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] != 16:
            raise ValueError("expects 16 rows")
        return self.conv(x)


class Endless(nn.Module):
    """Nothing can record a forward that leaves torch."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() + float(x.numpy().mean()))


class Forgetful(nn.Module):
    """Scripting and tracing lose its memory: every call gives another result."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


def test_a_network_that_freezes_its_size_is_exported_for_the_window_and_the_record_says_so(tmp_path):
    made = export_network(Frozen(), 1, [(16, 16), (24, 32)], tmp_path, formats=["torch_export"])["torch_export"]
    assert made.multiples_of is None
    assert [row.size for row in made.parity] == [[16, 16]]
    assert "for any size" in made.note
    program = torch.export.load(tmp_path / made.file).module()
    x = torch.randn(1, 1, 16, 16)
    assert program(x).shape == (1, 2, 16, 16)


def test_a_network_of_one_window(tmp_path):
    made = export_network(OneWindow(), 1, [(16, 16), (24, 32)], tmp_path, formats=["torchscript"])["torchscript"]
    assert (made.multiples_of, made.note) == (None, "the network takes this size only")
    with pytest.raises(ModelError, match=r"OneWindow does not take \(1, 24, 16\) \(expects 16 rows\)"):
        export_network(OneWindow(), 1, [(24, 16)], tmp_path)


@pytest.mark.parametrize("fmt", ["torchscript", "torch_export"])
def test_what_differs_from_the_network_is_not_kept(fmt, tmp_path):
    with pytest.raises(ModelError, match=f"Forgetful cannot be exported to {fmt} \\(.*differs by"):
        export_network(Forgetful(), 1, [(16, 16)], tmp_path, formats=[fmt])
    assert list(tmp_path.iterdir()) == []


def test_an_axis_that_does_not_vary_stays_fixed(tmp_path):
    network = nn.Conv3d(1, 2, 3, padding=1)
    made = export_network(network, 1, [(16, 8, 8), (24, 8, 12)], tmp_path, formats=["torch_export"])["torch_export"]
    assert made.multiples_of == [8, 8, 4]
    program = torch.export.load(tmp_path / made.file).module()
    assert program(torch.zeros(1, 1, 40, 8, 4)).shape == (1, 2, 40, 8, 4)
    with pytest.raises(AssertionError, match="Guard failed"):
        program(torch.zeros(1, 1, 16, 12, 8))


@onnx
def test_instance_norms_keep_their_digits_in_onnx(tmp_path):
    """onnxruntime's own sum over 400 000 voxels loses digits that the means of means keep."""
    import onnxruntime

    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.InstanceNorm3d(2, affine=True)).eval()
    nn.init.zeros_(network[0].bias)
    x = torch.randn(1, 1, 72, 72, 80, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = deepcopy(network).double()(x.double())
    program = torch.onnx.export(network, (x,), dynamo=True, opset_version=20, verbose=False)
    errors = []
    for written_out in (False, True):
        if written_out:
            assert write_out_instance_norms(program.model) == 1
        program.save(tmp_path / "net.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
        result = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        errors.append(float(abs(result - exact.numpy()).max()))
    assert errors[1] < errors[0] / 5


def test_torchscript_carries_metadata_and_config(tmp_path):
    network = nn.Conv2d(1, 2, 1)
    export_network(
        network, 1, [(8, 8)], tmp_path, formats=["torchscript"], metadata={"version": "1.2.3"}, config={"roi_size": [8]}
    )
    files = {"metadata.json": "", "inference.json": ""}
    torch.jit.load(str(tmp_path / "model.ts"), _extra_files=files)
    assert json.loads(files["metadata.json"])["version"] == "1.2.3"
    assert json.loads(files["inference.json"]) == {"roi_size": [8]}


@pytest.mark.parametrize("roi", [(96, 96, 96), (32, 32, 32), (40, 56, 40), (64, 64), (512, 32)])
def test_the_other_size_differs_in_every_axis_and_divides_alike(roi):
    other = other_size(roi)
    assert all(a != b and a % 32 == b % 32 and b >= 32 for a, b in zip(roi, other, strict=True))
    assert len(set(other)) > 1


def test_formats_and_their_packages(monkeypatch):
    assert chosen_formats("torchscript") == ("torchscript",)
    with pytest.raises(ConfigError, match="Format 'torchscrip' is unknown. Did you mean 'torchscript'?"):
        chosen_formats("torchscrip")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(
        ConfigError, match=r"needs the extra `export` \(onnxscript not .*pip install 'medseg\[export\]'"
    ):
        chosen_formats("all")
    assert chosen_formats("torch_export") == ("torch_export",)


def test_a_stub_path_is_made(tmp_path: Path) -> None:
    made = export_network(nn.Conv2d(1, 1, 1), 1, [(8, 8)], tmp_path / "a" / "b", formats=["torch_export"])
    assert (tmp_path / "a" / "b" / made["torch_export"].file).is_file()

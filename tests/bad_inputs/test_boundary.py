"""Errors of the system, of memory, of workers and of the terminal (numbers 2, 47, 53, 54, 66 and 67 of the matrix, and
what has no number): always of the family, never an internal one.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from medseg.bundle.compose import load_workflow
from medseg.bundle.config_check import check_arguments
from medseg.bundle.parts import device
from medseg.cli import main
from medseg.data import read_datalist
from medseg.engines.trainer import refusal_of
from medseg.errors import ConfigError, DataError, MedsegError, ModelError, ResourceError
from medseg.faults import as_ours, unwrapped
from medseg.storage import whole_file, write_json

_ALLOCATION = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000000 bytes."
_NO_ENGINE = "GET was unable to find an engine to execute this computation"
_CUDA = "CUDA out of memory. Tried to allocate 11.00 GiB. GPU 0 has 23.5 GiB of which 8.00 GiB is free."


def _raised(error: Exception) -> MedsegError:
    """As a library wraps it twice."""
    with pytest.raises(MedsegError) as caught, unwrapped("/out"):
        try:
            try:
                raise error
            except Exception as cause:
                raise RuntimeError("applying transform <X>") from cause
        except RuntimeError as cause:
            raise RuntimeError("Failed to evaluate '@train::trainer'") from cause
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space"), ResourceError, "/out: the disk is full. Free disk space, or name another"),
        (OSError(errno.EROFS, "Read-only", "/d/a"), ResourceError, "/d/a: the disk is read-only. Name a folder that"),
        (OSError(errno.EACCES, "denied", "/d/a"), ResourceError, "/d/a: no permission. Change the permissions"),
        (OSError(errno.EMFILE, "many"), ResourceError, "/out: too many open files. Raise the limit"),
        (OSError(errno.EIO, "Input/output error", "/d"), ResourceError, "/d: the system reports 'Input/output error'"),
        (OSError(errno.ENAMETOOLONG, "long", "/d/a"), ConfigError, "/d/a: the name is too long. Use a name"),
        (FileNotFoundError(errno.ENOENT, "No such", "/d/a"), DataError, "/d/a: not found. It was moved or deleted"),
        (NotADirectoryError(errno.ENOTDIR, "Not", "/d/a"), ConfigError, "a part of the path is a file. Name a folder"),
        (MemoryError(), ResourceError, "The machine is out of memory. Use a smaller patch (--set roi_size="),
        (RuntimeError(_ALLOCATION), ResourceError, "out of memory (8000000000 bytes more were needed)"),
        (torch.OutOfMemoryError(_CUDA), ResourceError, "out of memory (11.00 GiB more were needed, 8.00 GiB"),
        (RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"), ResourceError, "GPU is out of memory (CUFFT_INTERNAL_E"),
        (RuntimeError(_NO_ENGINE), ResourceError, "The GPU is out of memory (unable to find an engine"),
        (RuntimeError("CUDA error: out of memory"), ResourceError, "The GPU is out of memory. Use a smaller patch"),
        (RuntimeError("cuFFT error: CUFFT_INVALID_SIZE"), ResourceError, "The device failed (cuFFT error"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), ResourceError, "was killed (Killed)"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), ResourceError, "loader process died"),
        (RuntimeError("unable to write </torch_1>: No space left on device (28)"), ResourceError, "disk is full"),
        (RuntimeError("received 0 items of ancdata"), ResourceError, "too many open files"),
        (RuntimeError("CUDA error: device-side assert triggered"), ResourceError, "The device failed"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), DataError, "is not valid utf-8"),
        (DataError("b is wrong."), DataError, "b is wrong."),
    ],
)  # fmt: skip
def test_errors_of_the_system(error: Exception, kind: type, sentence: str) -> None:
    found = _raised(error)
    assert type(found) is kind
    assert sentence in str(found)


def test_own_faults_stay_internal() -> None:
    for error in (KeyError("x"), TypeError("x"), RuntimeError("mat1 and mat2 shapes cannot be multiplied")):
        assert as_ours(error) is None


class _Cases(Dataset):
    def __init__(self, how: str) -> None:
        self.how = how

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        with unwrapped("a.nii.gz"):
            if self.how == "damaged":
                raise RuntimeError("applying transform") from DataError("a.nii.gz is damaged: cut.\nCopy it again.")
            raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("how", "kind", "sentence"),
    [
        ("killed", ResourceError, r"A loader process was killed \(Killed\).*--set num_workers=0"),
        ("damaged", DataError, r"^a.nii.gz is damaged: cut.\nCopy it again.$"),
        ("failing", ResourceError, r"^a.nii.gz: the system reports 'Input/output error'"),
    ],
)
def test_67_loader_processes(how: str, kind: type[MedsegError], sentence: str) -> None:
    with pytest.raises(kind, match=sentence), unwrapped():
        list(DataLoader(_Cases(how), num_workers=1))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), SystemExit(143), KeyboardInterrupt(), KeyError("x")])
def test_66_a_file_is_written_whole_or_not_at_all(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": "ü"})
    kind = ResourceError if isinstance(error, OSError) else type(error)
    with pytest.raises(kind) as caught, whole_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text(encoding="utf-8") == '{\n "a": "ü"\n}\n'
    assert [item.name for item in path.parent.iterdir()] == ["a.json"]
    if isinstance(error, OSError):
        assert str(caught.value).endswith("name another --output folder. The old file is kept.")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mps", ResourceError), ("cuda:99", ResourceError), ("meta", ConfigError), ("cpu'", ConfigError),
     ("", ConfigError), ("cpu') or __import__('os').abort() #", ConfigError), ("@seed", ConfigError)],
)  # fmt: skip
def test_53_devices(study: Any, name: str, kind: type[MedsegError]) -> None:
    with pytest.raises(kind, match="use cpu|Use --device cpu"):
        device(name)
    path = study.write([study.case("a"), study.case("b")])
    result = study.run(
        "train", "--network", "UNet", "--json_list", path, "--output", study.folder / "r", "--device", name
    )
    assert result.status == kind.status, result.err
    assert result.err.startswith("error: Device")


def test_a_gpu_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch, "zeros", lambda *size, device: None)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert [device("cpu"), device("cuda:3")] == [torch.device("cpu"), torch.device("cuda:3")]
    assert current == [torch.device("cuda:3")]


def test_a_device_is_a_component_of_the_config() -> None:
    bundle = sorted((Path(__file__).parents[2] / "bundles").glob("hnoseg*"))[0]
    override = {"device": {"_target_": "medseg.workflows.device", "name": "cpu'"}}
    with pytest.raises(ConfigError, match='Device "cpu\'" is unknown'):
        load_workflow(bundle, "infer", override).parser.get_parsed_content("device")


def test_unknown_components() -> None:
    for target, nearest in (("DiceCELos", "Did you mean 'DiceCELoss'"), ("medseg.losses.PearsonLos", "'PearsonLoss'")):
        with pytest.raises(ConfigError, match=f"No component '{target}'.*{nearest}"):
            check_arguments({"train": {"loss": {"_target_": target}}})


def test_a_network_that_refuses_the_patch() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 2), nn.InstanceNorm3d(2))
    patch = torch.zeros(1, 1, 2, 2, 2)
    sentence = "Sequential does not take 1 patches of 2×2×2 with 1 channels: Expected more"
    with pytest.raises(ModelError, match=sentence), refusal_of(network, patch):
        network(patch)
    for text in (_CUDA, _NO_ENGINE):
        with pytest.raises(RuntimeError, match=text), refusal_of(network, patch):
            raise RuntimeError(text)


def test_over_long_names(study: Any) -> None:
    name = "a" * 300
    result = study.check([study.case("sound"), study.case("bad", image=f"{name}.nii.gz")])
    assert result.status == 3
    assert "1 file is missing" in result.err or "not found" in result.err
    result = study.run("check", "--json_list", study.folder / f"{name}.json")
    assert result.status == 2
    assert "the name is too long. Use a name of fewer" in result.err
    with pytest.raises(ConfigError, match="too long"):
        read_datalist(f"{name}.json")


def test_a_label_deleted_meanwhile(study: Any) -> None:
    path = study.write([study.case(name) for name in "abcd"])
    cases = [case.to_dict() for case in read_datalist(path).sections["training"]]
    (study.folder / "c_label.nii.gz").unlink()
    from medseg.data import make_dataset
    from medseg.labels import LabelSpace
    from medseg.transforms import load

    steps = load(["image", "label"], LabelSpace.from_table({"labels": {"liver": 1}}))
    from monai.transforms import Compose

    dataset = make_dataset(cases, Compose(steps), kind="plain")
    with pytest.raises(DataError, match=r"c_label.nii.gz: not found. It was moved or deleted"):
        [dataset[i] for i in range(4)]


def test_sigterm_ends_a_command_with_143(study: Any, monkeypatch: Any, capsys: Any) -> None:
    from medseg.networks.listing import networks

    def run(settings: Any) -> list[Any]:
        with whole_file(study.folder / "a") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)
        return []

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(networks, "of", run)
    assert main(["networks"]) == 143
    assert list(study.folder.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def _networks(output: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = f"'{sys.executable}' -m medseg.cli networks {output}"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, env=os.environ | environment
    )


def test_streams_that_are_left_full_or_of_another_encoding() -> None:
    left = _networks("| true", PYTHONUNBUFFERED="1")
    assert (left.returncode, left.stderr) == (0, "")
    if Path("/dev/full").exists():
        full = _networks("> /dev/full")
        assert full.returncode == 5
        assert full.stderr == (
            "error: The output of the command: the disk is full. Free disk space, or name another --output folder.\n"
        )
    plain = _networks("", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert plain.returncode == 0
    assert "\\u2026" in plain.stdout


def test_source_tree_that_is_not_installed(tmp_path: Path, monkeypatch: Any) -> None:
    import importlib.metadata

    from medseg.engines.run_facts import RunFacts, read_facts, write_facts

    found = importlib.metadata.version

    def version(name: str) -> str:
        if name == "medseg":
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    write_facts(tmp_path, RunFacts(mean_dice=np.nan))
    assert read_facts(tmp_path).versions["medseg"]

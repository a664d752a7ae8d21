"""A run that is stopped at any moment and started again ends exactly like one that nothing disturbed."""

from __future__ import annotations

import csv
import gc
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import SegResNet
from torch.utils.checkpoint import checkpoint

from medseg.bundle.folder import Bundle
from medseg.engines import RandomStreams
from medseg.errors import ConfigError, ModelError
from medseg.weights import load_file
from medseg.workflows import train
from medseg.workflows.cleanup import store_rules, stored_rules
from medseg.workflows.probabilities import store_temperature, stored_temperature

Train = Callable[..., Path]

RICH = {
    "augment_on_device": True,
    "cache": "device",
    "accumulation_steps": 2,
    "ema_decay": 0.8,
    "early_stop": 2,
    "num_workers": 0,
}
PERSISTENT = {"num_workers": 2}


class Killed(BaseException):
    """The process's sudden death: nothing more is written."""


def read_rows(run: Path) -> list[dict[str, str]]:
    """``metrics.csv`` without the column that measures time."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def differing(first: Any, second: Any, name: str = "") -> list[str]:
    """The places where two states differ in one bit."""
    if isinstance(first, dict):
        keys = set(first) ^ set(second)
        return sorted(map(str, keys)) + [
            d for k in first if k in second for d in differing(first[k], second[k], f"{name}.{k}")
        ]
    if isinstance(first, (list, tuple)):
        return [d for i, pair in enumerate(zip(first, second, strict=True)) for d in differing(*pair, f"{name}[{i}]")]
    same = torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
    return [] if same else [name]


def assert_same_run(run: Path, undisturbed: Path) -> None:
    state, expected = (load_file(folder / "checkpoints" / "last.pt") for folder in (run, undisturbed))
    for one in (state, expected):
        del one["elapsed_seconds"]
    assert differing(state, expected) == []
    assert read_rows(run) == read_rows(undisturbed)
    for name in ("losses.csv", "validation_dice.csv"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()
    for name in ("models/model.pt", "checkpoints/best.pt"):
        assert differing(load_file(run / name), load_file(undisturbed / name)) == []


@contextmanager
def at_iteration(number: int, action: Callable[[], None]) -> Iterator[None]:
    """Do something at the start of one iteration of a training in this process."""
    original = RandomStreams._iteration

    def iteration(self: RandomStreams, engine: Any) -> None:
        original(self, engine)
        if engine.state.iteration == number:
            action()

    RandomStreams._iteration = iteration  # type: ignore[method-assign]
    try:
        yield
    finally:
        RandomStreams._iteration = original  # type: ignore[method-assign]


def stop(train: Callable[[], Path], number: int, sent: int | None = None) -> int | None:
    """Train until an iteration, then die, or send this process a signal; returns the exit status after a signal."""

    def act() -> None:
        if sent is None:
            raise Killed
        for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
            os.kill(process, sent)  # as torchrun and schedulers do: the loader's workers get it, too

    status = None
    with at_iteration(number, act):
        try:
            train()
        except Killed:
            pass
        except SystemExit as error:
            status = error.code
        else:
            pytest.fail("the training was not stopped")
    gc.collect()  # the loader's workers leave now; a later fork would keep their pipes open, and waiting takes seconds
    return status


@pytest.fixture(scope="module")
def rich_run(tiny_train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Undisturbed: accumulation, averaged weights, early stopping, no worker."""
    return tiny_train(tmp_path_factory.mktemp("rich") / "run", epochs=4, settings=RICH)


@pytest.fixture(scope="module")
def plain_run(tiny_train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Undisturbed: two workers that live through the epochs."""
    return tiny_train(tmp_path_factory.mktemp("plain") / "run", settings=PERSISTENT)


def test_killed_in_the_middle_of_an_epoch(tiny_train: Train, rich_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stop(lambda: tiny_train(run, epochs=4, settings=RICH), 11)
    assert load_file(run / "checkpoints" / "last.pt")["iteration"] == 8
    tiny_train(run, epochs=4, settings=RICH)
    assert_same_run(run, rich_run)


def test_killed_while_the_last_state_was_written(tiny_train: Train, rich_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stop(lambda: tiny_train(run, epochs=4, settings=RICH), 15)
    last = run / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    # The first state written after that is interrupted too: the whole state must survive the damaged one.
    stop(lambda: tiny_train(run, epochs=4, settings=RICH), 13)
    assert load_file(run / "checkpoints" / "previous.pt")["iteration"] == 8
    tiny_train(run, epochs=4, settings=RICH)
    assert_same_run(run, rich_run)


def test_killed_between_the_renames(tiny_train: Train, rich_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stop(lambda: tiny_train(run, epochs=4, settings=RICH), 13)
    folder = run / "checkpoints"
    os.replace(folder / "last.pt", folder / "last.pt.new")  # what a kill after the first rename leaves
    assert load_file(folder / "previous.pt")["iteration"] == 8
    tiny_train(run, epochs=4, settings=RICH)
    assert_same_run(run, rich_run)


@pytest.mark.parametrize(("number", "status", "workers"), [(signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 0)])
def test_signal_saves_between_iterations(
    tiny_train: Train, plain_run: Path, tmp_path: Path, number: int, status: int, workers: int
) -> None:
    run, settings = tmp_path / "run", {"num_workers": workers}
    before = signal.getsignal(number)
    assert stop(lambda: tiny_train(run, settings=settings), 6, number) == status
    assert signal.getsignal(number) is before
    assert load_file(run / "checkpoints" / "last.pt")["iteration"] == 6
    tiny_train(run, settings=settings)
    assert_same_run(run, plain_run)


def test_signal_waits_for_the_optimiser_step(tiny_train: Train, rich_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert stop(lambda: tiny_train(run, epochs=4, settings=RICH), 9, signal.SIGTERM) == 143
    assert load_file(run / "checkpoints" / "last.pt")["iteration"] == 10
    tiny_train(run, epochs=4, settings=RICH)
    assert_same_run(run, rich_run)


def test_loss_does_not_depend_on_workers(tiny_train: Train, plain_run: Path, tmp_path: Path) -> None:
    run = tiny_train(tmp_path / "run", settings={"num_workers": 2, "train::dataloader::persistent_workers": False})
    alone = tiny_train(tmp_path / "alone", settings={"num_workers": 0})
    assert_same_run(run, plain_run)
    assert_same_run(alone, plain_run)


def test_another_seed_gives_another_run(tiny_train: Train, plain_run: Path, tmp_path: Path) -> None:
    run = tiny_train(tmp_path / "run", epochs=1, seed=1)
    assert read_rows(run)[0]["loss"] != read_rows(plain_run)[0]["loss"]


def test_finished_run_does_nothing(
    tiny_train: Train, plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a plan would choose another cache now, since there is less memory; the run keeps its own."""
    monkeypatch.setattr("medseg.data.plan.available_gib", lambda: 0.0)
    run = tmp_path / "run"
    shutil.copytree(plain_run, run)
    before = {path: path.stat().st_mtime_ns for path in sorted(run.rglob("*")) if path.suffix in (".pt", ".csv")}
    tiny_train(run, settings=PERSISTENT)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_run_of_another_version_keeps_its_own_wiring(tiny_train: Train, plain_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain_run, run)
    config = run / "configs" / "train.yaml"
    text = config.read_text()
    older = text.replace("tracker: tensorboard\n", "").replace(", tracker: '@tracker'", "")
    config.write_text(older.replace("configuration: 3d_fullres\n", ""))  # what its plan did not name yet
    assert text != older != config.read_text()
    tiny_train(run, settings=PERSISTENT)
    config.write_text(text.replace("weight_decay: ", "weight_decay: 1"))
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        tiny_train(run, settings={**PERSISTENT, "weight_decay": 0.5})


def test_run_killed_after_its_last_state(tiny_train: Train, plain_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain_run, run)
    facts = (run / "run.json").read_text().replace('"finished"', '"started"')
    (run / "run.json").write_text(facts)
    tiny_train(run, settings=PERSISTENT)
    assert_same_run(run, plain_run)
    assert '"finished"' in (run / "run.json").read_text()


def test_early_stopped_run_stays_stopped(tiny_train: Train, tmp_path: Path) -> None:
    """Also where the kill came between its last state and the end of the command."""
    settings = {"num_workers": 0, "early_stop": 1, "learning_rate": 1e-9}  # no score gets better
    run = tiny_train(tmp_path / "run", epochs=6, settings=settings)
    epochs = len(read_rows(run))
    assert epochs < 6
    (run / "run.json").write_text((run / "run.json").read_text().replace('"finished"', '"started"'))
    tiny_train(run, epochs=6, settings=settings)
    assert len(read_rows(run)) == epochs
    assert load_file(run / "checkpoints" / "last.pt")["iteration"] == 4 * epochs


LONGER = [{"epochs": 2}, {"epochs": None, "iterations": 8}, {"epochs": None, "settings": {"epochs": 2}}]


def contents(run: Path) -> dict[Path, bytes]:
    """All files of a run but its log."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "log.txt"}


@pytest.fixture(scope="module")
def short_run(tiny_train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished after one epoch, with what is fitted to its weights."""
    run = tiny_train(tmp_path_factory.mktemp("short") / "run", epochs=1)
    store_rules(Bundle(run), {"box": {"keep_largest": True}})
    store_temperature(Bundle(run), 2.5)
    return run


@pytest.mark.parametrize("longer", LONGER)
def test_more_epochs_go_on(tiny_train: Train, short_run: Path, tmp_path: Path, longer: dict[str, Any]) -> None:
    run = shutil.copytree(short_run, tmp_path / "run")
    weights = load_file(run / "checkpoints" / "last.pt")["network"]
    tiny_train(run, **longer)
    assert [row["epoch"] for row in read_rows(run)] == ["1", "2"]
    assert float(read_rows(run)[0]["learning_rate"]) == 0  # the cosine of one epoch had come down to 0
    state = load_file(run / "checkpoints" / "last.pt")
    assert state["iteration"] == 8 and differing(state["network"], weights)
    assert not stored_rules(Bundle(run)) and stored_temperature(Bundle(run)) == 1
    before = contents(run)
    for shorter in ({"epochs": 1}, {"epochs": None, "iterations": 4}, {"epochs": None, "settings": {"epochs": 1}}):
        with pytest.raises(ConfigError, match="was started with 2 epochs; expected no fewer, got 1"):
            tiny_train(run, **shorter)
    for same in ({}, *LONGER):
        tiny_train(run, **{"epochs": None} | same)
    assert contents(run) == before


def test_a_copied_run_starts_without_what_was_fitted(short_run: Path, datalist: Path, tmp_path: Path) -> None:
    run = train(bundle=short_run, json_list=datalist, output=tmp_path / "run", epochs=1, device="cpu")
    assert not stored_rules(Bundle(run)) and stored_temperature(Bundle(run)) == 1


def test_another_interval_of_validations_is_used_or_refused(
    tiny_train: Train, short_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = shutil.copytree(short_run, tmp_path / "run")
    before = contents(run)
    with pytest.raises(ConfigError, match="val_interval: 1 -> 3"):
        tiny_train(run, epochs=1, settings={"val_interval": 3})
    assert contents(run) == before
    with caplog.at_level("INFO", "medseg"):
        tiny_train(run, epochs=4, settings={"val_interval": 3})
    assert [row["epoch"] for row in read_rows(run) if row["mean_dice"]] == ["1", "3"]
    assert "val_interval 3 set by you" in " ".join(caplog.text.split())


def test_checkpointing_changes_no_number(
    tiny_train: Train, datalist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return checkpoint(*args, **kwargs)

    monkeypatch.setattr("medseg.networks.checkpointing.checkpoint", counted)
    settings = {"num_workers": 0, "network_def::norm": "INSTANCE"}  # dropout draws the same again
    undisturbed = tiny_train(tmp_path / "plain", epochs=2, settings=settings)
    assert not calls
    settings["checkpointing"] = True
    stop(lambda: tiny_train(tmp_path / "run", epochs=2, settings=settings), 6)
    assert_same_run(tiny_train(tmp_path / "run", epochs=2, settings=settings), undisturbed)
    assert calls
    with pytest.raises(ConfigError, match="UNet has no block to compute again"):
        train(network="UNet", json_list=datalist, output=tmp_path / "refused", overrides={"checkpointing": True})
    assert not (tmp_path / "refused").exists()


def test_patch_by_patch_stays(
    tiny_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forward = SegResNet.forward

    def full(network: SegResNet, x: torch.Tensor) -> Any:
        if torch.is_grad_enabled() and len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(network, x)

    monkeypatch.setattr(SegResNet, "forward", full)
    settings = {"batch_size": 2, "network_def::norm": "INSTANCE", "num_workers": 0}
    for epochs in (1, 2):
        run = tiny_train(tmp_path / "run", epochs=epochs, settings=settings)
    assert json.loads((run / "run.json").read_text())["patch_by_patch"] is True
    assert sum("the GPU has no room for 2 patches" in record.getMessage() for record in caplog.records) == 1


def test_own_errors_come_out_of_monais_expressions(tiny_train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="overlap"):
        tiny_train(tmp_path / "run", settings={"overlap": 1.5})


def test_no_whole_state_left(tiny_train: Train, plain_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain_run, run)
    (run / "run.json").write_text((run / "run.json").read_text().replace('"finished"', '"started"'))
    for name in ("last.pt", "previous.pt"):
        (run / "checkpoints" / name).write_bytes(b"nothing")
    with pytest.raises(ModelError, match="No other state is left"):
        tiny_train(run, settings=PERSISTENT)


@pytest.mark.slow
def test_command_killed_for_real(
    datalist: Path, tiny_train: Train, plain_run: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """SIGKILL to the command at whatever it is doing after its second epoch."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "medseg.cli", "train", "--network=SegResNet", f"--json_list={datalist}"]
    command += [f"--output={run}", "--epochs=3", "--device=cpu"]
    command += [f"--set={key}={json.dumps(value)}" for key, value in (settings | PERSISTENT).items()]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while not (run / "metrics.csv").exists() or len(read_rows(run)) < 2:
            assert process.poll() is None and time.monotonic() < deadline, process.stderr.read().decode()
            time.sleep(0.005)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    tiny_train(run, settings=PERSISTENT)
    assert_same_run(run, plain_run)

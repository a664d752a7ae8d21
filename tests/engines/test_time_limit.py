"""A training of given length uses its time and ends with a score, whatever the machine does meanwhile."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medseg.engines import CaseScores, Checkpoint, SegmentationTrainer, time_limit
from medseg.errors import ConfigError
from medseg.weights import load_file

Train = Callable[..., Path]


class Clock:
    """Seconds of training that pass by what is done: a step takes ``step(now)``, a validation case ``case``."""

    def __init__(self) -> None:
        self.now = 0.0
        self.case = 1.0
        self.equal = False  # whether all scores are
        self.step: Callable[[float], float] = lambda now: 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    iterate = SegmentationTrainer._iteration

    def iteration(self: Any, engine: Any, batch: Any) -> Any:
        clock.now += clock.step(clock.now)
        return iterate(self, engine, batch)

    score = CaseScores.score

    def slow_score(self: Any, *args: Any) -> Any:
        clock.now += clock.case
        table = score(self, *args)
        return {label: {name: 0.5 for name in row} for label, row in table.items()} if clock.equal else table

    monkeypatch.setattr(SegmentationTrainer, "_iteration", iteration)
    monkeypatch.setattr(CaseScores, "score", slow_score)
    monkeypatch.setattr(Checkpoint, "elapsed_seconds", property(lambda self: self._elapsed + clock.now))
    still = SimpleNamespace(monotonic=lambda: 0.0, strftime=time.strftime)  # preparing takes no time
    monkeypatch.setattr("medseg.workflows.training.time", still)
    monkeypatch.setattr(time_limit, "validation_seconds", lambda evaluator, most: 2 * clock.case)
    return clock


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def facts(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


def minutes(seconds: float) -> dict[str, Any]:
    return {"max_minutes": seconds / 60}


@pytest.mark.parametrize(
    "step",
    [
        lambda now: 1.0,
        lambda now: 1.0 if now < 50 else 4.0,  # another process starts
        lambda now: 4.0 if now < 50 else 1.0,
        lambda now: 60.0 if now < 1 else 1.0,  # much is done for the first time
    ],
)
def test_the_time_is_used_however_fast_the_machine_is(
    tiny_train: Train, tmp_path: Path, clock: Clock, step: Callable[[float], float]
) -> None:
    clock.step = step
    run = tiny_train(tmp_path / "run", epochs=2, **minutes(100))
    assert 95 <= clock.now <= 105
    last = rows(run)[-1]
    assert last["mean_dice"] and float(last["learning_rate"]) == 0
    rates = [float(row["learning_rate"]) for row in rows(run)]
    assert rates == sorted(rates, reverse=True) and len({*rates}) == len(rates) > 5
    found = facts(run)
    assert found["schedule_completed"] and found["iterations"] == int(last["iteration"])
    scored = [row for row in rows(run) if row["mean_dice"]]
    assert 2 <= len(scored) == found["validations"] <= 0.12 * 100 / 2 + 1


def test_a_long_validation_ends_in_time(tiny_train: Train, tmp_path: Path, clock: Clock) -> None:
    """The last epoch is cut for it, and it is the only one."""
    clock.case = 15.0
    run = tiny_train(tmp_path / "run", **minutes(100))
    assert 95 <= clock.now <= 105 and facts(run)["validations"] == 1 and rows(run)[-1]["mean_dice"]


def test_no_time_at_all_gives_a_score(tiny_train: Train, tmp_path: Path) -> None:
    settings = minutes(1e-7)
    run = tiny_train(tmp_path / "run", epochs=6, **settings)
    (row,) = rows(run)
    assert row["iteration"] == "1" and row["mean_dice"]
    state = load_file(run / "checkpoints" / "last.pt")
    assert state["iteration"] == 1 and state["best_metric_epoch"] == 1
    (run / "run.json").write_text((run / "run.json").read_text().replace('"finished"', '"started"'))
    tiny_train(run, epochs=6, **settings)  # was over, and stays so
    assert rows(run) == [row] and facts(run)["schedule_completed"]


def test_a_killed_run_goes_on_with_what_is_left(tiny_train: Train, tmp_path: Path, clock: Clock) -> None:
    class Killed(BaseException):
        pass

    def step(now: float) -> float:
        if now > 60:
            raise Killed
        return 1.0

    clock.step, run = step, tmp_path / "run"
    with pytest.raises(Killed):
        tiny_train(run, **minutes(100))
    before = load_file(run / "checkpoints" / "last.pt")["elapsed_seconds"][0]
    assert before > 50
    clock.now, clock.step = 0.0, lambda now: 1.0
    tiny_train(run, **minutes(100))
    assert 95 <= before + clock.now <= 105
    rates = [float(row["learning_rate"]) for row in rows(run)]
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] == 0  # after the warm-up
    assert facts(run)["validations"] == sum(row["mean_dice"] != "" for row in rows(run))


def test_more_time_goes_on(tiny_train: Train, tmp_path: Path, clock: Clock) -> None:
    run = tiny_train(tmp_path / "run", **minutes(60))
    spent, epochs = clock.now, len(rows(run))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "log.txt"}
    tiny_train(run, **minutes(60))
    tiny_train(run, epochs=None)  # no budget is named: the run keeps its own
    for fewer, said in (
        (minutes(30), "was started with 1 minute; expected no fewer, got 0.5"),
        ({"epochs": 1}, f"was trained for {epochs}"),
    ):
        with pytest.raises(ConfigError, match=said):
            tiny_train(run, **fewer)
    assert before == {path: path.read_bytes() for path in before}
    clock.now = 0.0
    tiny_train(run, **minutes(120))
    assert 110 <= spent + clock.now <= 125 and facts(run)["schedule_completed"]
    clock.now = 0.0
    epochs = len(rows(run)) + 2
    tiny_train(run, epochs=None, iterations=4 * epochs)
    assert rows(run)[-1]["epoch"] == str(epochs) and "max_minutes: null" in (run / "configs/train.yaml").read_text()


def test_epochs_of_the_config_are_shares_of_the_time(tiny_train: Train, tmp_path: Path, clock: Clock) -> None:
    """No weights are chosen before ``select_after`` of the planned epochs; early stopping counts validations."""
    clock.equal = True
    settings = {"checkpoint::select_after": 5, "val_interval": 7, "early_stop": 2}
    run = tiny_train(tmp_path / "run", epochs=10, settings=settings, **minutes(100))
    scored = [int(row["iteration"]) for row in rows(run) if row["mean_dice"]]
    best = load_file(run / "checkpoints" / "best.pt")["epoch"]
    assert 40 < int(rows(run)[best - 1]["iteration"]) < 70
    assert len([iteration for iteration in scored if iteration > int(rows(run)[best - 1]["iteration"])]) == 2
    assert clock.now < 95 and not facts(run)["schedule_completed"]


def test_without_a_limit_nothing_changes(tiny_train: Train, tmp_path: Path) -> None:
    found = facts(tiny_train(tmp_path / "run", epochs=2))
    assert (found["iterations"], found["validations"], found["schedule_completed"]) == (8, 2, True)
    assert found["cpu_seconds"] > 0 and found["training_seconds"] > 0


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_given_number_of_validations_is_kept(tiny_train: Train, tmp_path: Path, clock: Clock, number: int) -> None:
    run = tiny_train(tmp_path / "run", settings={"num_validations": number}, **minutes(100))
    found = facts(run)
    assert found["validations"] == number == sum(row["mean_dice"] != "" for row in rows(run))
    assert found["schedule_completed"] and 95 <= clock.now <= 105


def test_the_clock_of_the_cpu_is_not_the_one_on_the_wall(
    tiny_train: Train, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a second of CPU time, while others let it last ten on the wall."""
    clock.step = lambda now: 10.0
    monkeypatch.setattr(Checkpoint, "cpu_elapsed_seconds", property(lambda self: self._cpu + clock.now / 10))
    run = tiny_train(tmp_path / "run", settings={"num_validations": 0, "clock": "cpu"}, **minutes(50))
    assert 48 <= facts(run)["cpu_seconds"] <= 52 and clock.now >= 480
    assert facts(run)["schedule_completed"]


def test_an_unknown_clock_is_refused() -> None:
    with pytest.raises(ConfigError, match="clock 'sun' is unknown"):
        time_limit.TimeLimit(1.0, None, clock="sun")

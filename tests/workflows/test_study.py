"""A study trains, scores and compares what its file says, resumes where it was killed, and refuses unequal members."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from medseg.data import read_datalist, write_datalist
from medseg.data.phantom import write_phantom
from medseg.engines.run_facts import read_facts
from medseg.errors import CasesFailed, ConfigError, ResourceError
from medseg.metrics import Scores
from medseg.metrics.seeds import crossed_mean, training_difference
from medseg.storage import read_json, read_yaml
from medseg.workflows.study import study
from medseg.workflows.study_file import read_study
from medseg.workflows.study_members import command_line, inequalities, plan_members
from medseg.workflows.study_running import _run, run_member

QUICK = {"roi_size": [16, 16, 16], "batch_size": 1, "preprocess::spacing": [12.0, 12.0, 12.0]}


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases of three subjects in two folds."""
    listed = write_phantom(output=tmp_path_factory.mktemp("phantom"), cases=6)
    table: dict[str, Any] = read_json(listed)
    for number, entry in enumerate(table["training"]):
        entry |= {"subject": f"s{number // 2}", "fold": number // 2 % 2}
    return write_datalist(table, listed)


def written(folder: Path, datalist: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    content: dict[str, Any] = {
        "networks": {"UNet": None, "SegResNet": None, "small": {"network": "SegResNet"}},
        "data": {"toy": {"json_list": str(datalist)}},
        "budget": {"iterations": 3},
        "settings": QUICK,
        "device": "cpu",
    }
    path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    return path


@pytest.mark.slow
def test_seeds_folds_and_subjects_end_in_one_table(tmp_path: Path, datalist: Path) -> None:
    root = tmp_path / "studied"
    networks = {"UNet": None, "SegResNet": None}
    result = study(written(tmp_path, datalist, networks=networks, seeds=[0, 1]), output=root, jobs=0)
    assert not isinstance(result, list)
    (one,) = result.data
    assert (one.cases, one.subjects, one.seeds, one.folds) == (6, 3, 2, 2) and not result.missing
    table = {}
    for name in ("UNet", "SegResNet"):
        seeds = []
        for seed in (0, 1):
            scores = Scores.read(root / "runs" / "toy" / name / f"seed{seed}")
            means = [np.nanmean([row["dice"] for row in rows.values()]) for rows in scores.cases.values()]
            seeds.append(np.reshape(means, (3, 2)).mean(axis=1))  # two cases a subject
        table[name] = np.stack(seeds, axis=1)
    expected = crossed_mean(table["UNet"])
    assert one.methods[0].mean == pytest.approx(expected.mean)
    assert np.isnan(one.methods[0].interval).all()  # of three subjects
    difference = training_difference(table["UNet"], table["SegResNet"])
    assert one.differences[0].mean == pytest.approx(difference.mean)
    assert np.isnan(one.differences[0].p_value)
    text = " ".join(result.methods)
    assert "in 8 trainings with 2 seeds" in text and "Every training took 3 iterations" in text
    assert "followed the recipe light in the configuration 3d_fullres. " in text
    assert "There were 0 validations" in text and "the last iteration were scored" in text
    again = study(tmp_path / "study.yaml", output=root, jobs=0)
    assert not isinstance(again, list) and again.data[0].methods == one.methods


@pytest.mark.slow
def test_a_search_takes_part_in_no_fold_that_it_is_scored_on(tmp_path: Path, datalist: Path) -> None:
    search = {"learning_rates": [1e-9, 0.01], "share": 0.5}
    networks = {"UNet": None, "SegResNet": None}
    data = {"toy": {"json_list": str(datalist), "folds": [1]}}
    path = written(tmp_path, datalist, search=search, networks=networks, data=data, budget={"iterations": 40})
    root = tmp_path / "studied"
    members = plan_members(read_study(path), root)
    assert [member.stage for member in members] == [0, 0, 0, 0, 1, 1]
    with pytest.raises(ConfigError, match="needs search/toy/UNet/rate1e-09/fold1"):
        run_member(members[4])
    result = study(path, output=root, jobs=0)
    held_out = {case.id for case in read_datalist(datalist).split(1)[1]}
    for trial in members[:4]:
        facts = read_facts(trial.folder)
        assert facts.iterations == 20
        assert not held_out & {*(facts.training_cases or ()), *(facts.validation_cases or ())}
    rates = [read_yaml(member.folder / "configs" / "train.yaml")["learning_rate"] for member in members[4:]]
    best = [
        max(pair, key=lambda member: Scores.read(member.folder).mean_dice).rate for pair in (members[:2], members[2:4])
    ]
    assert rates == best and not isinstance(result, list)
    assert any("best of 2 (1e-09, 0.01)" in sentence for sentence in result.methods)


def test_another_search_does_not_take_the_list_of_an_older_one(tmp_path: Path, datalist: Path) -> None:
    data = {"toy": {"json_list": str(datalist), "folds": [1]}}  # which trains on two subjects
    path = written(tmp_path, datalist, search={"learning_rates": [0.1, 0.01]}, data=data)
    member = plan_members(read_study(path), tmp_path)[0]
    listed = Path(member.training().json_list)
    assert member.training().json_list == listed
    table: dict[str, Any] = read_json(listed)
    for entry in table["training"]:  # as if others were held out
        entry["fold"] = 1 - entry["fold"]
    write_datalist(table, listed)
    with pytest.raises(ConfigError, match="other settings .search::holdout: "):
        member.training()


def test_number_formats_are_alike_where_a_method_asks(tmp_path: Path, datalist: Path) -> None:
    for number, settings in enumerate([{}, {"precision": "bf16"}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = written(folder, datalist, networks={"UNet": None, "SegResNet": {"settings": settings}})
        members = plan_members(read_study(path), folder)
        first, second = (next(one for one in members if one.network.name == name) for name in ("UNet", "SegResNet"))
        for member, precision in ((first, "fp32"), (second, "bf16")):
            (member.folder / "configs").mkdir(parents=True)
            (member.folder / "configs" / "train.yaml").write_text(f"precision: {precision}\n")
        assert inequalities(second, [first, second]) == ({"precision": ("fp32", "bf16")} if settings else {})


@pytest.mark.slow
def test_cases_that_the_first_weights_have_seen_are_told(tmp_path: Path, datalist: Path) -> None:
    """Fine-tuning on the source's own cases, in another fold, and an external list of the same images."""
    listed = str(datalist)
    labels = {name: int(value) for value, name in read_json(datalist)["labels"].items()}
    changes: dict[str, Any] = {
        "networks": {"UNet": None, "SegResNet": None},
        "data": {
            "first": {"json_list": listed, "folds": [1]},
            "tuned": {"json_list": listed, "folds": [0], "transfer": "first"},
        },
        "external": {"same": {"json_list": listed, "labels": labels, "trained_on": "tuned"}},
    }
    result = study(written(tmp_path, datalist, **changes), output=tmp_path / "studied", jobs=0)
    assert not isinstance(result, list)
    first, tuned = (" ".join(one.warnings) for one in result.data)
    assert "trained on" not in first
    for name in ("UNet", "SegResNet"):
        assert f"{name}/seed0: The run was trained on 4 of these 4 cases" in tuned
        assert f"{name}: The run was trained on 6 of these 6 cases" in " ".join(result.external[0].biases)
    scores = tmp_path / "studied" / "runs" / "tuned" / "UNet" / "seed0" / "fold0" / "scores" / "external_same"
    before, made = Scores.read(scores).definition, (scores / "metrics.json").stat().st_mtime_ns
    again = {"output": tmp_path / "studied", "jobs": 0}
    study(tmp_path / "study.yaml", **again)
    assert (scores / "metrics.json").stat().st_mtime_ns == made
    changes["external"]["same"]["labels"] = dict(zip(labels, [*labels.values()][::-1], strict=True))
    study(written(tmp_path, datalist, **changes), **again)  # the set has another definition now
    assert Scores.read(scores).definition != before
    changes["external"]["same"]["folds"] = [9]
    with pytest.raises(ConfigError, match="external::same: fold 9 of tuned is not trained; these are: 0"):
        study(written(tmp_path, datalist, **changes), **again)


@pytest.mark.slow
def test_members_that_are_not_alike_stop_the_study(tmp_path: Path, datalist: Path) -> None:
    networks = {"UNet": None, "SegResNet": {"settings": {"batch_size": 2}}}
    path = written(tmp_path, datalist, networks=networks)
    with pytest.raises(ConfigError, match=r"SegResNet/seed0/fold0 was trained with batch_size 2, .* with 1"):
        study(path, output=tmp_path / "studied", jobs=0)
    result = study(path, output=tmp_path / "studied", jobs=0, overrides={"equal": False})
    assert not isinstance(result, list)
    assert "SegResNet was trained with batch_size 2, the first method with 1." in result.data[0].warnings


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, datalist: Path) -> Path:
    """A folder with a study file and its finished study."""
    folder = tmp_path_factory.mktemp("finished")
    data = {"toy": {"json_list": str(datalist), "folds": [0], "settings": {"learning_rate": 0.01}}}
    study(written(folder, datalist, networks=["UNet", "SegResNet"], data=data), output=folder / "studied", jobs=0)
    return folder


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"budget::iterations": 4}, "train::trainer::epoch_length: 3 -> 4"),
        ({"budget": {"cpu_seconds": 4.0}}, "max_minutes: None -> "),
        ({"data::toy::settings": {"learning_rate": 0.1}}, "learning_rate: 0.01 -> 0.1"),
        ({"data::toy::settings": {}}, "learning_rate: 0.01 -> None"),
        ({"recipe": "standard"}, "recipe: 'light' -> 'standard'"),
        ({"configuration": "2d"}, "configuration: '3d_fullres' -> '2d'"),
        ({"networks": {"UNet": {"network": "DynUNet"}, "SegResNet": None}}, "_target_: .*UNet' -> .*DynUNet'"),
        (
            {"networks": {"UNet": {"bundle": "ssh_unet_btcv_ct_segmentation"}, "SegResNet": None}},
            r"bundle: \[\] -> \['ssh_unet_btcv",
        ),
        ({"processes": 2}, "processes: 1 -> 2"),
    ],
)
def test_members_of_an_older_study_file_are_refused(finished: Path, overrides: dict[str, Any], said: str) -> None:
    """Before anything runs, and in a summary; also where the others are not trained yet."""
    file, root = finished / "study.yaml", finished / "studied"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    for how in ({"jobs": 0}, {"summary": True}, {"dry_run": True}, {"member": "0"}):
        with pytest.raises(ConfigError, match=rf"/runs/toy/UNet/seed0/fold0 holds a run with other settings .*{said}"):
            study(file, output=root, overrides={**overrides, "equal": False}, **how)
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_a_finished_study_serves_on_another_machine(finished: Path, datalist: Path, tmp_path: Path) -> None:
    """Its folder, its data and the number of workers have changed; an earlier version kept no origins and names."""
    root = Path(shutil.copytree(finished / "studied", tmp_path / "moved"))
    place = Path(shutil.copytree(datalist.parent, tmp_path / "data")) / datalist.name
    moved = {"data::toy::json_list": str(place), "settings::num_workers": 3}
    result = study(finished / "study.yaml", output=root, summary=True, overrides=moved)
    assert not isinstance(result, list) and not result.missing
    assert not any("earlier version" in warning for warning in result.data[0].warnings)
    config = root / "runs" / "toy" / "UNet" / "seed0" / "fold0" / "configs" / "train.yaml"
    config.with_name("origin.json").unlink()
    config.write_text(config.read_text().replace("recipe: light\n", ""))
    result = study(finished / "study.yaml", output=root, summary=True, overrides=moved)
    assert not isinstance(result, list)
    warning = result.data[0].warnings[0]
    assert warning.startswith("runs/toy/UNet/seed0/fold0: trained by an earlier version, which did not record where ")
    assert "settings come from and the recipe; these are not compared" in warning
    assert "where settings come from and the recipe" in (root / "study.html").read_text()
    with pytest.raises(ConfigError, match="learning_rate: 0.01 -> 0.1"):
        study(finished / "study.yaml", output=root, summary=True, overrides={"settings::learning_rate": 0.1} | {
            "data::toy::settings": {}
        })  # fmt: skip


@pytest.mark.slow
def test_a_killed_study_resumes(tmp_path: Path, datalist: Path) -> None:
    """SIGKILL of the study ends its members with their state saved; the same command does the rest."""
    networks = {"UNet": None, "SegResNet": None}
    data = {"toy": {"json_list": str(datalist), "folds": [0]}}
    path = written(tmp_path, datalist, networks=networks, data=data, budget={"cpu_seconds": 3})
    root = tmp_path / "studied"
    command = [sys.executable, "-m", "medseg.cli", "study", str(path), "--output", str(root), "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    state = root / "runs" / "toy" / "UNet" / "seed0" / "fold0" / "checkpoints" / "last.pt"
    until = time.monotonic() + 300
    while not state.is_file() and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    locks = [root / "runs" / "toy" / name / "seed0" / "fold0" / ".lock" for name in networks]
    while any(lock.exists() for lock in locks) and time.monotonic() < until:
        time.sleep(0.1)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| UNet" in done.stdout and f"page: {root}/study.html" in done.stdout
    for name in networks:
        facts = read_facts(root / "runs" / "toy" / name / "seed0" / "fold0")
        assert facts.schedule_completed and facts.cpu_seconds is not None and 2.5 < facts.cpu_seconds < 4.5


@pytest.mark.slow
def test_a_member_that_fails_leaves_the_others(tmp_path: Path, datalist: Path) -> None:
    networks = {"UNet": None, "SegResNet": {"settings": {"network_def::init_filters": 3}}, "small": {"network": "UNet"}}
    data = {name: {"json_list": str(datalist), "folds": [0]} for name in ("toy",)}
    path = written(tmp_path, datalist, networks=networks, data=data)
    with pytest.raises(ConfigError, match="No data set is complete"):
        study(path, output=tmp_path / "studied", jobs=0)
    with pytest.raises(CasesFailed, match="members failed, such as"):
        both = {**networks, "SegResNet": None}
        more = {**data, "other": {"json_list": str(datalist), "folds": [1], "settings": {"network_def::wrong": 3}}}
        study(written(tmp_path, datalist, networks=both, data=more), output=tmp_path / "other", jobs=0)
    assert "Not done: runs/other/UNet/seed0/fold1" in (tmp_path / "other" / "study.html").read_text()


def test_what_would_run_is_shown_and_written_for_slurm(tmp_path: Path, datalist: Path) -> None:
    search = {"learning_rates": [0.1, 0.01]}
    table: dict[str, Any] = read_json(datalist)
    for number, entry in enumerate(table["training"]):  # each fold trains on three subjects
        entry |= {"subject": f"s{number}", "fold": number % 2}
    apart = write_datalist(table, datalist.with_name("apart.json"))
    path, root = written(tmp_path, apart, search=search, processes=2), tmp_path / "studied"
    lines = study(path, output=root, dry_run=True)
    assert isinstance(lines, list) and lines[0] == "search/toy/UNet/rate0.1/fold0"
    assert any(line.startswith("  medseg train --output") and "learning_rate=0.1" in line for line in lines)
    assert not (root / "runs").exists()
    study(path, output=root, slurm=True, overrides={"seeds": [0, 1]})
    array, submit = ((root / name).read_text() for name in ("members.sh", "submit.sh"))
    assert "--set 'seeds=[0, 1]' --member $SLURM_ARRAY_TASK_ID" in array and "#SBATCH --signal" in array
    assert "--array=0-11" in submit and "--dependency=afterany:$stage0 --array=12-23" in submit
    for script in ("members.sh", "submit.sh"):
        assert subprocess.run(["bash", "-n", root / script], check=False).returncode == 0
    with pytest.raises(ConfigError, match="Did you mean"):
        study(path, output=root, member="runs/toy/UNet/seed0/fold9")


def test_torchrun_takes_a_command_as_it_is(tmp_path: Path, datalist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own options begin like ours: ``--run`` is short for ``--run_path``."""
    from torch.distributed.run import get_args_parser

    started: list[list[str]] = []

    class Ended:
        def __init__(self, words: list[str], **_: Any) -> None:
            started.append(words)

        def wait(self) -> int:
            return 7

        def terminate(self) -> None:
            pass

    monkeypatch.setattr(subprocess, "Popen", Ended)
    (member, *_) = plan_members(read_study(written(tmp_path, datalist, processes=2)), tmp_path)
    for name, settings in (("train", member.training()), ("validate", member.scorings()[0])):
        with pytest.raises(ResourceError, match=f"`medseg {name}` under torchrun ended with status 7"):
            _run(name, None, member, settings)
        asked = get_args_parser().parse_args(started[-1][3:])
        assert (asked.training_script, asked.module, asked.nproc_per_node) == ("medseg.cli", True, "2")
        assert asked.training_script_args == command_line(name, settings)


def test_a_command_is_what_its_settings_say(tmp_path: Path, datalist: Path) -> None:
    from medseg.cli.parser import CommandParser
    from medseg.cli.values import values

    member = plan_members(read_study(written(tmp_path, datalist)), tmp_path)[0]
    parser = CommandParser("train")
    given = values(parser.options, parser.parse(command_line("train", member.training())[1:]))
    asked = member.training()
    assert {name: given[name] for name in ("network", "fold", "epochs", "device", "overrides")} == {
        name: getattr(asked, name) for name in ("network", "fold", "epochs", "device", "overrides")
    }

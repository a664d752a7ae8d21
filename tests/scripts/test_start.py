"""The two commands of a fresh checkout: help, setup and its failures, and what is skipped when called again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def modules(monkeypatch, tmp_path):
    """The scripts as modules, at work in a temporary repository."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in ("environment", "quickstart", "run_tests"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import environment
    import quickstart
    import run_tests

    for name in environment._PINS:
        (tmp_path / name).write_text("pinned")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(quickstart, "ROOT", tmp_path)
    monkeypatch.setattr(quickstart, "FOLDER", tmp_path / "runs" / "quickstart")
    return environment, quickstart, run_tests


COMMANDS = sorted(path for path in SCRIPTS.glob("*.py") if path.stem != "environment")


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_help_does_nothing(path, tmp_path):
    """``--help`` ends with 0 from any folder, quickly, with the bare standard library for the two commands."""
    isolated = ["-S"] if path.stem in ("quickstart", "run_tests") else []
    environment = {"PYTHONPATH": "" if isolated else str(SCRIPTS.parent), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        [sys.executable, *isolated, str(path), "--help"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: ") and not list(tmp_path.iterdir())


def test_old_python(modules):
    environment = modules[0]
    with pytest.raises(environment.SetupError, match="Python 3.9 is too old; medseg needs 3.10"):
        environment.check_python((3, 9))
    environment.check_python((3, 10))


def test_installs_once_and_again_when_pins_change(modules, monkeypatch, tmp_path, capsys):
    environment = modules[0]
    installed = []
    monkeypatch.setattr(environment, "_make_venv", lambda: (tmp_path / ".venv").mkdir())
    monkeypatch.setattr(environment, "_check_venv", lambda python: None)
    monkeypatch.setattr(environment, "_install", lambda python, extra: installed.append(extra))
    environment.prepare("dev")
    monkeypatch.setattr(environment, "_make_venv", lambda: None)
    environment.prepare("dev")
    assert installed == ["dev"] and "up to date" in capsys.readouterr().out
    (tmp_path / "constraints.txt").write_text("other versions")
    environment.prepare("dev")
    environment.prepare("test")
    assert installed == ["dev", "dev", "test"]


def test_failed_installation_leaves_no_stamp(modules, monkeypatch, tmp_path):
    environment = modules[0]

    def fail(python, extra):
        raise environment.SetupError("no")

    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(environment, "_make_venv", lambda: None)
    monkeypatch.setattr(environment, "_check_venv", lambda python: None)
    monkeypatch.setattr(environment, "_install", fail)
    with pytest.raises(environment.SetupError):
        environment.prepare("dev")
    assert not list((tmp_path / ".venv").iterdir())


def test_install_shows_errors(modules, monkeypatch, capfd):
    """pip's own words come through, and its status becomes a sentence."""
    environment = modules[0]
    with pytest.raises(environment.SetupError, match="its messages are above"):
        environment._install(Path(sys.executable), "no-such-place")  # the temporary repository is no project
    assert "ERROR" in capfd.readouterr().err.upper()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("NewConnectionError: Temporary failure in name resolution", "no network"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: ResolutionImpossible", "messages are above"),
    ],
)
def test_pip_failures(modules, said, sentence):
    assert sentence in modules[0].pip_failure(said)


def test_missing_venv_module(modules, monkeypatch):
    environment = modules[0]
    monkeypatch.setattr(
        environment.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "No module named venv")
    )
    with pytest.raises(environment.SetupError, match="python3-venv"):
        environment._make_venv()


def test_broken_venv(modules, tmp_path):
    environment = modules[0]
    with pytest.raises(environment.SetupError, match="does not start.*delete"):
        environment._check_venv(tmp_path / "python")
    environment._check_venv(Path(sys.executable))


def test_errors_become_sentences(modules, capsys):
    environment = modules[0]

    def job(arguments):
        raise environment.SetupError("the cause.")

    assert environment.main(job, []) == 5
    assert capsys.readouterr().err == "error: the cause.\n"


def test_stream_returns_the_status(modules, capfd):
    environment = modules[0]
    assert environment.stream([sys.executable, "-c", "print('hello'); raise SystemExit(3)"]) == 3
    assert capfd.readouterr().out == "hello\n"
    assert environment.stream([sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"]) == 143


def test_quickstart_goes_on(modules, monkeypatch, capsys):
    """Steps with results are skipped; a failing step stops with its status; ``--fresh`` starts from scratch."""
    _, quickstart, _ = modules
    called = []

    def stream(command):
        called.append(command[3])
        if called == ["phantom", "train"]:
            return 143
        result = next(
            step[1]
            for step in quickstart.steps(quickstart.FOLDER, quickstart.MINUTES, quickstart.CASES)
            if step[2] == command[3:]
        )
        result.parent.mkdir(parents=True, exist_ok=True)
        content = {"status": "finished", "mean_dice": 0.9, "labels": {"liver": {"dice": {"mean": 0.9}}}, "cases": {}}
        result.write_text(json.dumps(content))
        return 0

    monkeypatch.setattr(quickstart, "prepare", lambda extra: Path("python"))
    monkeypatch.setattr(quickstart, "stream", stream)
    assert quickstart.quickstart([]) == 143
    assert quickstart.quickstart([]) == 0
    steps = ["train", "validate", "train", "validate", "compare", "ensemble", "export", "infer", "report"]
    assert called == ["phantom", "train", *steps]
    assert capsys.readouterr().out.count("mean Dice 0.900 (liver 0.900") == 3
    assert quickstart.quickstart([]) == 0
    assert len(called) == 11 and capsys.readouterr().out.count("done already") == 10
    assert quickstart.quickstart(["--fresh"]) == 0
    assert called[11:] == ["phantom", *steps]
    assert quickstart.FOLDER.is_dir() and capsys.readouterr().out.endswith("comparison.html\n")  # the page, last


def test_quickstart_steps_are_valid_commands(modules):
    """Every step's arguments are taken by the command line as it is."""
    from medseg.cli.parser import CommandParser

    for _, _, (name, *arguments) in modules[1].steps(modules[1].FOLDER, 2.5, 12):
        parser = CommandParser(name)
        assert not parser.missing(parser.parse(arguments))


def test_run_tests_runs_everything(modules, monkeypatch, capsys):
    _, _, run_tests = modules
    called = []

    def stream(command):
        called.append(" ".join(command[2:]))
        return int(command[2] == "mypy")

    monkeypatch.setattr(run_tests, "prepare", lambda extra: Path("python"))
    monkeypatch.setattr(run_tests, "stream", stream)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run_tests.run_tests(["-k", "metrics"]) == 1
    checks = ["ruff check .", "ruff format --check .", "mypy"]
    assert called == [
        *checks,
        "pytest -m slow or not slow --numprocesses=2 --dist=loadfile --no-loadscope-reorder -k metrics",
    ]
    assert run_tests.run_tests(["-n", "0"]) == 1 and called[-1] == "pytest -m slow or not slow -n 0"
    assert "FAILED: mypy" in capsys.readouterr().out
    monkeypatch.setattr(run_tests, "stream", lambda command: 5 if command[2] == "pytest" else 0)
    assert run_tests.run_tests([]) == 5

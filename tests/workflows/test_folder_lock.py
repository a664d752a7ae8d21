"""One writer at a time in a folder: the holder is named, and a lock that nobody holds any more is recognised."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from medseg.cli import main
from medseg.errors import ConfigError, ResourceError
from medseg.workflows.folder_lock import LOCK, Holder, only_writer


def lock(folder: Path, holder: Holder, age: float = 0.0) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / LOCK
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (time.time() - age,) * 2)


@pytest.fixture
def other() -> Holder:
    """A process that lives, beside this one."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        here = Holder.here()
        began = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        yield replace(here, pid=process.pid, began=began)
        process.kill()


def test_held_until_the_end_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), only_writer(tmp_path / "run"):
        with only_writer(tmp_path / "run"):  # nested
            (tmp_path / "run" / "file").touch()
        assert Holder(**json.loads((tmp_path / "run" / LOCK).read_text())).pid == os.getpid()
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]
    with pytest.raises(ConfigError, match="is a file; expected a folder"), only_writer(tmp_path / "run" / "file"):
        pass
    with only_writer(tmp_path / "empty"):
        pass
    assert not (tmp_path / "empty").exists()


def test_a_second_writer_is_refused(tmp_path: Path, other: Holder, capsys: pytest.CaptureFixture[str]) -> None:
    """By a process of this machine, of another one whose lock is fresh, or one whose lock is just being written."""
    holders: tuple[Any, ...] = (other, replace(other, host="elsewhere", pid=1))
    for holder in holders:
        lock(tmp_path, holder)
        named = f"is being written by process {holder.pid} on {holder.host} since {holder.since}; .* delete .*{LOCK}"
        with pytest.raises(ResourceError, match=named), only_writer(tmp_path):
            pass
    (tmp_path / LOCK).write_text("")
    with pytest.raises(ResourceError, match="by another process"), only_writer(tmp_path):
        pass


@pytest.mark.parametrize(
    ("gone", "age"),
    [
        ({"boot": "another"}, 0.0),
        ({"began": 1}, 0.0),  # the number belongs to a later process
        ({"pid": 2**22 + 1}, 0.0),  # above the largest
        ({"host": "elsewhere"}, 3600.0),
    ],
)
def test_a_stale_lock_is_replaced(tmp_path: Path, other: Holder, gone: dict[str, Any], age: float) -> None:
    lock(tmp_path, replace(other, **gone), age)
    with only_writer(tmp_path):
        assert Holder(**json.loads((tmp_path / LOCK).read_text())).pid == os.getpid()
    assert not list(tmp_path.iterdir())


def test_damaged_lock(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_bytes(b"[1, 2")
    os.utime(tmp_path / LOCK, (time.time() - 3600,) * 2)
    with only_writer(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_every_writing_command_asks(tmp_path: Path, other: Holder, capsys: pytest.CaptureFixture[str]) -> None:
    lock(tmp_path, other)
    (tmp_path / "image.nii.gz").touch()
    run, output = ["--run", str(tmp_path)], ["--output", str(tmp_path)]
    infer = ["infer", str(tmp_path / "image.nii.gz"), "--run", str(tmp_path / "run"), *output]
    for command in (["validate", *run], ["postprocess", *run], infer, ["ensemble", *run, *run, *output]):
        assert main(command) == 5, command
        assert f"process {other.pid}" in capsys.readouterr().err

"""Small data sets to spoil, and commands run in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medseg.cli import main

SHAPE = (12, 10, 8)


def squeeze(text: str) -> str:
    """Without white space: tables are wrapped."""
    return "".join(text.split())


@dataclass
class Result:
    """What a command said: exit status, standard output, standard error, and the table's rows without white space."""

    status: int
    out: str
    err: str
    log: str

    def rows(self, text: str | None = None) -> list[tuple[str, str, str]]:
        lines = (self.err if text is None else text).splitlines()
        head = next(i for i, line in enumerate(lines) if line.startswith("  case ") and "what to do" in line)
        second, third = lines[head].index("problem"), lines[head].index("what to do")
        rows: list[list[str]] = []
        for line in lines[head + 1 :]:
            cells = [line[:second], line[second:third], line[third:]]
            if cells[0].strip():
                rows.append(["", "", ""])
            rows[-1] = [old + squeeze(new) for old, new in zip(rows[-1], cells, strict=True)]
        return [(case, problem, remedy) for case, problem, remedy in rows]

    def has(self, case: str, problem: str, remedy: str) -> None:
        """Assert that the table of errors has a row with these three parts."""
        _find(self.rows(), case, problem, remedy)

    def warns(self, case: str, problem: str, remedy: str) -> None:
        """Assert that the table of warnings has a row with these three parts."""
        _find(self.rows(self.log), case, problem, remedy)


def _find(rows: list[tuple[str, str, str]], *parts: str) -> None:
    wanted = [squeeze(part) for part in parts]
    assert any(all(want in cell for want, cell in zip(wanted, row, strict=True)) for row in rows), (wanted, rows)


class Study:
    """A folder with images, labels and a datalist."""

    def __init__(self, folder: Path, capsys: Any, caplog: Any) -> None:
        self.folder = folder
        self._capsys, self._caplog = capsys, caplog
        self.random = np.random.default_rng(0)
        self.labels = 0

    def save(self, name: str, array: np.ndarray, affine: np.ndarray | None = None) -> str:
        image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine, dtype=array.dtype)
        nibabel.save(image, self.folder / name)
        return name

    def image(self, name: str, shape: tuple[int, ...] = SHAPE, affine: np.ndarray | None = None) -> str:
        return self.save(name, self.random.integers(-900, 900, shape).astype(np.int16), affine)

    def label(self, name: str, shape: tuple[int, ...] = SHAPE, affine: np.ndarray | None = None) -> str:
        values = np.zeros(shape, np.uint8)
        values[tuple(slice(2, 5) for _ in shape)] = 1
        values.flat[self.labels] = 1  # no two are alike
        self.labels += 1
        return self.save(name, values, affine)

    def case(self, name: str, **changes: Any) -> dict[str, Any]:
        """A sound case, its files written where they are not given."""
        case = dict(changes)
        case.setdefault("image", None) or case.update(image=self.image(f"{name}.nii.gz"))
        case.setdefault("label", None) or case.update(label=self.label(f"{name}_label.nii.gz"))
        return case

    def write(self, training: list[Any], **top: Any) -> Path:
        table = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": training, **top}
        path = self.folder / "list.json"
        path.write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
        return path

    def run(self, *arguments: Any) -> Result:
        self._capsys.readouterr()
        self._caplog.clear()
        status = main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return Result(status, captured.out, captured.err, "\n".join(r.getMessage() for r in self._caplog.records))

    def check(self, training: list[Any], *options: Any, **top: Any) -> Result:
        """``medseg check`` of these cases and, unless there are folds, one sound validation case."""
        if "validation" not in top and not any("fold" in case for case in training):
            top["validation"] = [self.case("validation_case")]
        return self.run("check", "--json_list", self.write(training, **top), *options)


@pytest.fixture
def study(tmp_path: Path, capsys: Any, caplog: Any, monkeypatch: Any) -> Study:
    monkeypatch.setenv("COLUMNS", "100")
    caplog.set_level("INFO", "medseg")
    return Study(tmp_path, capsys, caplog)

"""What every challenge owes: rules that are those it states, and predictions that break one are refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from medseg.data import Case
from medseg.datasets import datasets
from medseg.submission import ChallengeFacts, SubmittedCase
from medseg.transforms.reader import stem_of

ARCHIVE_VALUES = (0, 1, 2)  # where the archive says them
_STATED_NUMBER = re.compile(r"(\d+) (?:test |validation )?(?:images|pictures)")
_STATED_VALUES = re.compile(r"(?:\(([^)]*)\) )?values (\d.*)")  # of all names, or of those in parentheses


def ids(example: str, number: int) -> list[str]:
    """So many case ids, the first of which is the example."""
    *_, digits = re.finditer(r"\d+", example)
    first, width = int(digits[0]), len(digits[0])
    return [example[: digits.start()] + f"{first + n:0{width}}" + example[digits.end() :] for n in range(number)]


def values_of(facts: ChallengeFacts, one: SubmittedCase) -> tuple[int, ...]:
    """The values that the challenge takes in a label map."""
    return one.values or tuple(datasets()[facts.dataset].labels) or ARCHIVE_VALUES


def contradictions(facts: ChallengeFacts, chosen: Sequence[SubmittedCase]) -> list[str]:
    """Where what is checked is not what is stated in words."""
    rules = (*facts.documented, *facts.unverified)
    found = []
    numbers = [int(number) for rule in rules for number in _STATED_NUMBER.findall(rule)]
    if facts.number not in (numbers or [0]):
        found.append(f"{facts.number} cases; stated are {numbers}")
    member = chosen[0].member.replace(chosen[0].case.id, "X") if facts.suffix != ".zip" else chosen[0].member
    if not any(re.search(rf"(?<![\w/]){re.escape(member)}(?!\w|\.\w)", rule) for rule in rules):
        found.append(f"name {member} is not stated")
    matches = [match for rule in rules if (match := _STATED_VALUES.search(rule))]
    stated = [_values(m[2]) for m in matches if chosen[0].member.startswith(tuple((m[1] or "").split(", ")))]
    if (stated or datasets()[facts.dataset].labels) and values_of(facts, chosen[0]) not in stated:
        found.append(f"values {values_of(facts, chosen[0])}; stated are {stated}")
    return found


def _values(text: str) -> tuple[int, ...]:
    if match := re.match(r"(\d+) to (\d+)", text):
        return tuple(range(int(match[1]), int(match[2]) + 1))
    return tuple(map(int, re.findall(r"\d+", text)))


# ---------------------------------------------------------------------- predictions
def save(path: Path, values: Sequence[int], *, shape: tuple[int, ...] = (4, 3, 2), kind: str = "uint8") -> None:
    """A label map or, for an image, any values; a 2D file has no third axis."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values, kind)
    if path.suffix == ".png":
        Image.fromarray(np.resize(array, shape[:2])).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(np.resize(array, shape), np.diag([-1.5, -1.0, 3.0, 1.0])), path)


def build(facts: ChallengeFacts, example: str, folder: Path) -> list[Case]:
    """The images of all cases; returns the cases."""
    suffix = ".png" if datasets()[facts.dataset].spatial_dims == 2 else ".nii.gz"
    cases = [Case(name, (str(folder / "images" / f"{name}{suffix}"),)) for name in ids(example, facts.number or 9)]
    save(Path(cases[0].images[0]), [7, 9, 8])
    for case in cases:
        Path(case.images[0]).write_bytes(Path(cases[0].images[0]).read_bytes())
    return cases


def predict(facts: ChallengeFacts, chosen: Sequence[SubmittedCase], folder: Path) -> list[Path]:
    """Sound predictions."""
    files = [folder / Path(one.member).name for one in chosen]
    save(files[0], values_of(facts, chosen[0]))
    for file in files:
        file.write_bytes(files[0].read_bytes())
    return files


def _moved(file: Path) -> None:
    image = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), np.eye(4)), file)


def _renamed(file: Path) -> None:
    file.rename(file.with_name(f"{stem_of(file)}{'.tif' if file.suffix == '.png' else '.nrrd'}"))


def faults(values: Sequence[int], *, volumes: bool) -> dict[str, Callable[[Path], object]]:
    """What a submission must not have -> how a prediction is spoiled so."""
    foreign = next(value for value in range(1, 256) if value not in values)
    wider = {"float32": "float32", "int16": "int16"} if volumes else {}
    plain = {
        "no prediction": lambda file: file.unlink(),
        "expected to end with": _renamed,
        f"label values {foreign}; ": lambda file: save(file, [0, foreign]),
        "image 4×3": lambda file: save(file, values, shape=(5, 3, 2)),
        "cut short|damaged|cannot be read|not a": lambda file: file.write_bytes(
            file.read_bytes()[: file.stat().st_size // 2]
        ),
        "one file is expected": lambda file: file.with_name(f"{stem_of(file)}.mha").write_bytes(b"x"),
    }
    kinds = {f"voxel type {kind}": lambda file, kind=kind: save(file, values, kind=kind) for kind in wider}
    return plain | kinds | ({"spacing|corners": _moved} if volumes else {})

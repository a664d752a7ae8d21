"""The series of a folder or zip archive: grouped by UID and geometry, and chosen by rule or by name."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medseg.dicom.frames import Frame, damaged, ends_early, frames_of, read_header, readable
from medseg.dicom.paths import SERIES, Source, container_of, listing, sources
from medseg.dicom.stack import SAME_ORIENTATION, Stack
from medseg.errors import DataError

__all__ = ["Chosen", "LabelObject", "Scan", "Series", "choose", "find_series", "scan"]

_LABELS = ("RTSTRUCT", "SEG")
_NO_IMAGES = ("RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG")
_FEW = 3  # slices below which a series is not taken as a volume where there are others


@dataclass(frozen=True, eq=False)
class Series:
    """Frames of one series and one orientation.

    Attributes:
        name: name of the series in sentences, file and case names: modality and hash.
        uid, study, patient: identifiers, which are compared and never shown.
        modality: such as CT.
        number: series number; empty where the header does not say.
        description: the scanner's, by which a user may choose; never shown.
        frames: in no order.
        broken: files of it whose headers end early.
    """

    name: str
    uid: str
    study: str
    patient: str
    modality: str
    number: str
    description: str
    frames: tuple[Frame, ...]
    broken: tuple[Source, ...] = ()

    @property
    def kind(self) -> str:
        """ "localiser", "derived", or "" of original images."""
        return self.frames[0].kind

    @property
    def container(self) -> Path:
        """The deepest folder, or the archive, that holds its files."""
        return Path(os.path.commonpath([frame.source.folder for frame in self.frames]))

    @property
    def path(self) -> str:
        """What stands for the series where a path is expected."""
        return str(self.container / f"{self.name}{SERIES}")

    @property
    def about(self) -> str:
        """For sentences."""
        number = f", series {self.number}" if self.number else ""
        return f"{self.name}{number} ({len(self.frames)} slice{'s' * (len(self.frames) != 1)})"

    @property
    def files(self) -> list[Path]:
        """Its files in the order of their slices, each once."""
        return list(dict.fromkeys(frame.source.path for frame in sorted(self.frames, key=lambda frame: frame.place)))

    @cached_property
    def stack(self) -> Stack:
        """Its geometry.

        Raises:
            DataError: the slices are not a volume, or a file is damaged.
        """
        if self.broken:
            raise damaged(self.broken[0])
        return Stack.of(self.frames)

    def matches(self, wanted: str) -> bool:
        """Whether a user's word means it: name, UID, number, or a pattern of the description."""
        known = (self.name, self.uid, self.number)
        return wanted in known or fnmatch.fnmatch(self.description.lower(), wanted.lower())


@dataclass(frozen=True)
class LabelObject:
    """An RTSTRUCT or a DICOM-SEG.

    Attributes:
        source: its file.
        modality: which of them.
        series: UIDs of the series that it is drawn on.
        uid: its own.
    """

    source: Source
    modality: str
    series: frozenset[str]
    uid: str


@dataclass
class Scan:
    """What a place holds.

    Attributes:
        series: images, in the order of their names.
        labels: RTSTRUCT and DICOM-SEG.
        placeless: number of images without a place in the patient, or in colour.
    """

    series: list[Series] = field(default_factory=list)
    labels: list[LabelObject] = field(default_factory=list)
    placeless: int = 0


def scan(path: str | Path) -> Scan:
    """All DICOM below a folder, in a zip archive or in a file; read once as long as nothing changes.

    Raises:
        DataError: nothing is there, or a file is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} not found; expected a DICOM file, folder or zip archive. Fix the path.")
    return _scan(path, listing(path))


@lru_cache(64)
def _scan(path: Path, stamps: tuple[tuple[str, int, int], ...]) -> Scan:
    result = Scan()
    frames: dict[str, list[Frame]] = {}
    facts: dict[str, dict[str, str]] = {}
    broken: dict[str, list[Source]] = {}
    for source in sources(path):
        with readable(source):
            header = read_header(source)
            if header is None:
                continue
            modality, uid = str(header.get("Modality", "")), str(header.get("SeriesInstanceUID", ""))
            if modality in _LABELS:
                result.labels.append(
                    LabelObject(source, modality, _referenced(header), str(header.get("SOPInstanceUID")))
                )
            elif modality not in _NO_IMAGES:
                own = frames_of(header, source)
                if ends_early(header):
                    broken.setdefault(uid, []).append(source)
                result.placeless += not own
                frames.setdefault(uid, []).extend(own)
                facts.setdefault(uid, _facts(header))
    lost = [source for uid, own in broken.items() if not frames.get(uid) for source in own]  # of whichever series
    for uid, own in frames.items():
        folders = {frame.source.folder for frame in own}
        damage = (*broken.get(uid, ()), *(source for source in lost if source.folder in folders))
        for index, group in enumerate(_groups(own)):
            digest = hashlib.sha256(f"{uid}/{index}".encode()).hexdigest()[:10]
            kind = re.sub(r"\W", "", facts[uid]["modality"]) or "OT"
            result.series.append(Series(f"{kind}_{digest}", uid, frames=tuple(group), broken=damage, **facts[uid]))
    result.series.sort(key=lambda series: series.name)
    return result


def _facts(header: Any) -> dict[str, str]:
    keywords = {
        "study": "StudyInstanceUID",
        "patient": "PatientID",
        "modality": "Modality",
        "number": "SeriesNumber",
        "description": "SeriesDescription",
    }
    return {key: "" if header.get(keyword) is None else str(header.get(keyword)) for key, keyword in keywords.items()}


def _groups(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames of one kind and orientation, the largest group first."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            first = group[0]
            same = (first.kind, first.state) == (frame.kind, frame.state)
            if same and np.abs(first.axes - frame.axes).max() <= SAME_ORIENTATION:
                group.append(frame)
                break
        else:
            groups.append([frame])
    return sorted(groups, key=lambda group: -len(group))


def _referenced(header: Any) -> frozenset[str]:
    """UIDs of the series that a label object names, wherever in its sequences."""
    sequences = ["ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence"]
    sequences += ["RTReferencedSeriesSequence"]
    found: set[str] = set()
    for name in sequences:
        for item in header.get(name) or ():
            found |= {str(item.SeriesInstanceUID)} if "SeriesInstanceUID" in item else set()
            found |= _referenced(item)
    return frozenset(found)


# ---------------------------------------------------------------------- choice
@dataclass
class Chosen:
    """Series to work on.

    Attributes:
        series: them.
        notes: sentences on what is skipped.
        warnings: sentences on what may be wrong.
    """

    series: list[Series] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_series(path: str | Path) -> Series:
    """The one series that a path stands for: a name that ``Series.path`` gave, a folder, a zip, or a file, which stands
    for its series in its folder.

    Raises:
        DataError: there is none, or several studies are there.
    """
    path = Path(path)
    place = container_of(path)
    if place != path:
        named = [series for series in scan(place).series if series.name == path.stem]
        if not named:
            raise DataError(f"series {path.stem} is not where it was listed; expected its slices there. List it again.")
        return named[0]
    chosen = choose([path]).series
    if len(chosen) > 1:
        listed = ", ".join(series.name for series in chosen[:5])
        raise DataError(
            f"{path} holds {len(chosen)} DICOM series ({listed}); expected one. Name it as {path}/NAME{SERIES}, or "
            "give each a folder of its own."
        )
    return chosen[0]


def choose(paths: Iterable[str | Path], wanted: str | None = None) -> Chosen:
    """The series to work on, of files, folders and zip archives; what is skipped is named.

    Args:
        paths: a file stands for its series in its folder.
        wanted: ``all`` volumes, or what ``Series.matches``; default: of each study the original volume of the most
            slices, or a derived one where none is original.

    Raises:
        DataError: nothing is left.
    """
    chosen = Chosen()
    for path in map(Path, paths):
        file = path.is_file() and path.suffix.lower() != ".zip"
        found = [series for series in scan(path.parent if file else path).series if not file or path in series.files]
        if not found:
            colour = f" ({scan(path).placeless} images in colour or without a place)" if scan(path).placeless else ""
            raise DataError(
                f"{path} holds no DICOM image{colour}; expected slices with their place. Name their folder."
            )
        studies: dict[str, list[Series]] = {}
        for series in found:
            studies.setdefault(series.study, []).append(series)
        kept = [series for study in studies.values() for series in _choose(study, wanted, chosen)]
        if not kept:
            listed = "; ".join(series.about for series in found[:5])
            raise DataError(f"{path}: no DICOM series is '{wanted}'. It holds {listed}. Name one of these.")
        chosen.series = list({series.path: series for series in (*chosen.series, *kept)}.values())
    return chosen


def _choose(study: Sequence[Series], wanted: str | None, chosen: Chosen) -> list[Series]:
    """The series of one study that are taken."""
    if wanted not in (None, "all"):
        return [series for series in study if series.matches(str(wanted))]
    rank = {"": 0, "derived": 1, "localiser": 2}
    best = min((rank[series.kind], len(series.frames) < _FEW) for series in study)
    usable = [series for series in study if (rank[series.kind], len(series.frames) < _FEW) == best]
    usable.sort(key=lambda series: (-len(series.frames), series.name))
    taken = usable if wanted == "all" else usable[:1]
    reasons = {series.name: series.kind or "too few slices" for series in study}
    reasons |= {series.name: "fewer or as many slices" for series in usable[1:]}
    left = [
        f"{series.about} is skipped: {reasons[series.name]} (see --series)." for series in study if series not in taken
    ]
    chosen.notes += left
    chosen.warnings += [
        f"{series.about} is {series.kind}: no original volume is there. Check that it is the right image."
        for series in taken
        if series.kind
    ]
    return taken

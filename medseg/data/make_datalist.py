"""Make a datalist from a user's folder: cases by its layout, grids held against each other, folds, labels, modality."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

from medseg.data.case import matched, name_cases
from medseg.data.datalist_file import root_entry, write_datalist
from medseg.data.entry import Entry
from medseg.data.files import Unreadable, Volume, read_grid, read_volume
from medseg.data.findings import Finding
from medseg.data.folds import assign_folds, stratified_folds, subject_of
from medseg.data.geometry import check_same_grid
from medseg.data.layouts import Found, read_layout
from medseg.data.mask_values import MaskValues, edge_values, jpeg_finding, mixed_finding, soft_finding
from medseg.data.palette import read_palette, write_label_values
from medseg.data.split_file import Split, read_split
from medseg.data.subjects import guess_subjects
from medseg.data.voxels import count_values
from medseg.errors import ConfigError, DataError, few, nearest
from medseg.settings import File, Folder, Named, Names, takes
from medseg.transforms.picture import looks_grey
from medseg.transforms.reader import is_2d_file

__all__ = ["MadeDatalist", "MakeDatalistSettings", "make_datalist"]

_FOLDS = 5
_PICTURE_VALUES = 50  # more grey values than this in masks are an image's


@dataclass
class MadeDatalist:
    """What ``make_datalist`` wrote.

    Attributes:
        path: the file.
        root: base directory for its relative paths.
        sections: section -> number of cases.
        folds: number of folds.
        warnings: sentences about what may be wrong.
        notes: sentences about what was recognised.
    """

    path: Path
    root: Path
    sections: dict[str, int] = field(default_factory=dict)
    folds: int = 0
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MakeDatalistSettings:
    """From what a datalist is made, and how its folds are.

    Attributes:
        output: datalist to write (JSON).
        folder: MSD, nnU-Net raw data, BIDS, DICOM, images and labels. DICOM with RTSTRUCT or DICOM-SEG.
        layout: layout of the folder (default: by what it holds).
        images: folder of the training images, instead of DIR.
        labels: folder of their labels (of BIDS: which derivatives).
        test: folder of images without labels.
        modality: names of the channels, such as CT or T1,FLAIR. Of BIDS: which; of 2D images: RGB or grey, as they are.
        label_names: names of the values 0, 1, …, such as background,liver (default: the layout's, else those
            found). Of masks as 2D images: names of the values in order, such as 0 and 255. Of DICOM: which structures
            are labels, of which later ones overwrite earlier ones.
        palette: colours of painted masks: polyp=#00FF00. Or a file of such lines; the background is black, if it is not
            named. The label maps are written beside the datalist, in <its name>_labels.
        image_pattern: pattern of image names, such as '{case}_0000.nii.gz'. Or '{case}/imaging.nii.gz'.
        label_pattern: pattern of label names, such as '{case}_seg.nii.gz'.
        channels: channels by name: 'T1={case}_t1.nii.gz'. Default: {case}_0000, {case}_0001, … where
            they exist.
        series: DICOM series: UID, number, description or all. A description may have wildcards, such as 'T1*';
            default: those with labels.
        case_pattern: regular expression for DICOM case ids in folder names. Its first group, or the whole match;
            default: a hash of the series' UID, which tells nothing of the patient.
        num_folds: number of folds (default: those of the folder, else 5). At most the number of subjects.
        splits: nnU-Net's splits, a datalist, or one such as btcv. Its sections and folds are
            taken; default: the splits_final.json that lies beside an nnU-Net folder.
        stratify: key of equal shares in every fold, or 'labels'. Of BIDS also a column of its
            participants.tsv.
        subject_pattern: regular expression for the subject in a case's name, such as '^(sub-[0-9]+)' (default: a
            guess). Its first group, or the whole match; a subject stays in one fold. '.*': each case is a
            subject of its own.
        name: name of the data set (default: the folder's).
        seed: random seed of the folds.
        overwrite: new file in the place of an existing one.
        strict: treat warnings as errors.
    """

    output: File
    _: KW_ONLY
    folder: Folder | None = field(default=None, metadata={"positional": "DIR"})
    layout: Literal["nnunet", "msd", "bids", "pairs", "dicom"] | None = None
    images: Folder | None = None
    labels: Folder | None = None
    test: Folder | None = None
    modality: Names = ()
    label_names: Names = ()
    palette: Named | None = None
    image_pattern: str | None = None
    label_pattern: str | None = None
    channels: Mapping[str, str] | None = field(default=None, metadata={"option": "channel"})
    series: str | None = None
    case_pattern: str | None = None
    num_folds: int | None = field(default=None, metadata={"option": "folds"})
    splits: File | str | None = None
    stratify: str | None = None
    subject_pattern: str | None = None
    name: str | None = None
    seed: int = 0
    overwrite: bool = False
    strict: bool = False

    def of_layout(self) -> dict[str, Any]:
        """Arguments of the layout's ``read``."""
        names = ("images", "labels", "test", "image_pattern", "label_pattern", "channels", "series", "case_pattern")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@takes(MakeDatalistSettings)
def make_datalist(settings: MakeDatalistSettings) -> MadeDatalist:
    """Make a datalist from a folder: MSD, nnU-Net raw data, BIDS, DICOM, or folders of images and labels.

    Folds are created by subject, or taken from a split.

    Raises:
        ConfigError: the output exists, or an argument cannot be used.
        DataError: no case, files on differing grids, labels that cannot be read, or a split that does not fit.
    """
    output, num_folds, splits, stratify = Path(settings.output), settings.num_folds, settings.splits, settings.stratify
    if output.exists() and not settings.overwrite:
        raise ConfigError(f"{output} exists; name another --output, or allow it with --overwrite.")
    if num_folds is not None and num_folds < 1:
        raise ConfigError(f"folds: expected a positive integer, got {num_folds}; 5 is usual.")
    if splits is not None and (num_folds is not None or stratify is not None):
        raise ConfigError("--splits takes the folds of another list; omit it, or omit --folds and --stratify.")
    found = read_layout(
        Path(settings.folder) if settings.folder else None,
        settings.layout,
        settings.of_layout(),
        {"modality": settings.modality, "label_names": settings.label_names, "output": output},
    )
    for case in found.sections["training"] if settings.subject_pattern else ():
        case["subject"] = matched(str(settings.subject_pattern), case["case_id"], "subject_pattern")
    if settings.palette:
        _recolor(found, settings)
    _refuse_grids(found)
    channels = {str(i): channel for i, channel in enumerate(_modality(settings.modality, found))}
    labels = _labels(settings.label_names, found)
    about = {key: value for key, value in found.about.items() if key != "label_space" or not settings.label_names}
    source = splits or (found.splits if num_folds is None and stratify is None else None)
    if source is not None:
        split = read_split(source)
        sections = _split(found, split)
        about |= {"known_overlaps": split.known_overlaps} if split.known_overlaps else {}
    else:
        sections = _with_folds(found, num_folds, stratify, settings.seed)
    if settings.strict and found.warnings:
        raise DataError(" ".join(found.warnings) + " Fix this, or allow it without --strict.")
    table = {"name": settings.name or found.name, "modality": channels, "labels": labels, **about}
    table |= root_entry(found.root, output.parent)
    write_datalist(table | _entries(sections, found.root), output, found.root)
    folds = {case["fold"] for case in sections["training"] if "fold" in case}
    counts = {key: len(cases) for key, cases in sections.items()}
    return MadeDatalist(output, found.root, counts, len(folds), found.warnings, found.notes)


def _entries(sections: Mapping[str, Sequence[Entry]], root: Path) -> dict[str, list[Entry]]:
    """Sections of the file: paths below the root; a case id only where the file names would give another."""
    cases = [case for group in sections.values() for case in group]
    # The folder is resolved, the file is not: it may be a link to anywhere.
    absolute = {file: file.parent.resolve() / file.name for case in cases for file in _files(case)}
    images = [[str(absolute[file]) for file in case["image"]] for case in cases]
    derived = name_cases(images, root)
    unique = len({case["case_id"] for case in cases}) == len(cases)
    own = {id(case) for case, name in zip(cases, derived, strict=True) if unique and case["case_id"] != name}
    return {name: [_entry(case, absolute, root, id(case) in own) for case in group] for name, group in sections.items()}


def _entry(case: Entry, absolute: Mapping[Path, Path], root: Path, named: bool) -> Entry:
    paths = {file: absolute[file].relative_to(root).as_posix() for file in _files(case)}
    images = [paths[file] for file in case["image"]]
    entry: Entry = {"image": images if len(images) > 1 else images[0]}
    if case.get("label"):
        entry["label"] = paths[case["label"]]
    return entry | {k: v for k, v in case.items() if k not in ("image", "label") and (named or k != "case_id")}


def _files(case: Entry) -> list[Path]:
    return [*case["image"], *([case["label"]] if case.get("label") else [])]


def _recolor(found: Found, settings: MakeDatalistSettings) -> None:
    """Write the label maps of masks painted in colours, and let the cases have these.

    Raises:
        ConfigError: labels are named twice, or the palette cannot be used.
        DataError: labels are not 2D images, or have other colours.
    """
    assert settings.palette is not None
    if settings.label_names:
        raise ConfigError("--palette names the labels; leave out --label_names.")
    palette = read_palette(settings.palette)
    cases = [case for group in found.sections.values() for case in group if case.get("label")]
    if odd := next((case["label"] for case in cases if not is_2d_file(case["label"])), None):
        raise DataError(f"{odd} is not a 2D image; --palette is for masks painted in colours. Leave it out.")
    output = Path(settings.output)
    folder = output.with_name(f"{output.stem}_labels").resolve()
    for case in cases:
        target = folder / f"{case['case_id']}.png"
        write_label_values(case["label"], palette, target)
        case["label"] = target
    found.root = Path(os.path.commonpath([found.root.resolve(), folder]))
    found.labels = {str(value): name for value, name in enumerate(palette)}
    found.notes.append(f"{len(cases)} label maps were made of the painted masks, in {folder}.")


# ---------------------------------------------------------------------- grids
def _refuse_grids(found: Found) -> None:
    """Refuse cases whose files lie on differing grids, by their headers alone."""
    cases = [case for cases in found.sections.values() for case in cases]
    wrong = {case["case_id"]: finding for case in cases if (finding := _grid_problem(case))}
    if wrong:
        first, (message, remedy, _) = next(iter(wrong.items()))
        others = f"; so are {len(wrong) - 1} others: {few(list(wrong)[1:])}" if len(wrong) > 1 else ""
        raise DataError(f"{first}: {message}. {remedy.removesuffix('.')}{others}.")


def _grid_problem(case: Entry) -> Finding | None:
    try:
        first, *others = [read_grid(file) for file in _files(case)]
    except Unreadable as error:
        return Finding(*error.args)
    whats = [f"channel {index}" for index in range(1, len(case["image"]))] + ["label"]
    for other, what in zip(others, whats, strict=False):
        for finding in check_same_grid(first, other, what):
            return finding
    return None


# ---------------------------------------------------------------------- folds
def _split(found: Found, split: Split) -> dict[str, list[Entry]]:
    sections = split.apply(found.sections)
    found.warnings += split.warnings
    found.notes.append(f"Sections and folds are those of {split.source}.")
    return {"training": [], "validation": [], **sections}


def _with_folds(found: Found, num_folds: int | None, stratify: str | None, seed: int) -> dict[str, list[Entry]]:
    """The sections with folds in the training cases: the layout's own where nothing else is asked for."""
    training = found.sections["training"]
    if num_folds is None and stratify is None and any("fold" in case for case in training):
        found.notes.append("Folds are those that the folder's list has; create others with --folds.")
        return found.sections
    if not any("subject" in case for case in training):
        _guess_subjects(found)
    subjects, number = len({subject_of(case) for case in training}), num_folds or _FOLDS
    if subjects < number:
        what = "subjects" if any("subject" in case for case in training) else "cases"
        found.warnings.append(f"{subjects} {what} cannot give {number} folds; using {subjects}.")
        number = subjects
    if stratify is None:
        return found.sections | {"training": assign_folds(training, number, seed)}
    folds = stratified_folds([subject_of(case) for case in training], _traits(found, stratify), number, seed)
    return found.sections | {"training": [{**case, "fold": fold} for case, fold in zip(training, folds, strict=True)]}


def _guess_subjects(found: Found) -> None:
    """Write the subjects that the names of the training cases suggest, and say so."""
    training = found.sections["training"]
    guess = guess_subjects([case["case_id"] for case in training])
    if guess is None:
        found.notes.append(
            f"Names tell no subjects: each of the {len(training)} cases counts as a subject of its own. If several are "
            "of one, such as two sides or visits, name it with --subject_pattern, so that it stays in one fold."
        )
        return
    one, other = guess.example
    if not guess.sure:
        found.warnings.append(
            f"Names such as {one} and {other} may be of one subject ('{guess.subjects[one]}'), whose cases must stay "
            "in one fold; they are taken for different ones. If so, name the subject with --subject_pattern."
        )
        return
    for case in training:
        case["subject"] = guess.subjects[case["case_id"]]
    found.notes.append(
        f"Subjects are guessed from the names: {one} and {other} are of subject '{guess.subjects[one]}' "
        f"({guess.number} subjects of {len(training)} cases), and a subject stays in one fold. Name others with "
        "--subject_pattern; with --subject_pattern '.*' each case is a subject of its own."
    )


def _traits(found: Found, key: str) -> list[set[str]]:
    """What each training case holds of ``key``."""
    training = found.sections["training"]
    if key == "labels":
        counts = [count_values(_read(case["label"], mask=True).channels[0]) for case in training]
        return [{f"{value:g}" for value in values if value} for values in counts]
    rows = [case | found.traits.get(case["case_id"], {}) for case in training]
    if lacking := [row["case_id"] for row in rows if key not in row]:
        common = set.intersection(*(set(row) for row in rows)) - {"image", "label", "case_id", "fold"}
        raise ConfigError(
            f"--stratify {key}: {few(lacking)} have no '{key}'.{nearest(key, common)} Known: labels, "
            f"{', '.join(sorted(common)) or 'no other'}."
        )
    return [{str(row[key])} for row in rows]


# ---------------------------------------------------------------------- modality and labels
def _modality(names: Sequence[str], found: Found) -> list[str]:
    """Names of the channels: the user's, the layout's, or those that the files tell."""
    files = [case["image"] for case in found.sections["training"]]
    number = len(files[0])
    if not names and found.modality:
        return found.modality
    if not names and number == 1 and all(is_2d_file(images[0]) for images in files):
        return ["grey" if all(_is_grey(images[0]) for images in files) else "RGB"]
    if not names:
        found.warnings.append("No modality is given: MR is taken (normalised per case); use --modality CT for CT.")
        return ["MR"] if number == 1 else [f"MR {i}" for i in range(number)]
    expected = len(found.modality) or (number if number > 1 else len(names))
    if len(names) != expected:
        raise ConfigError(
            f"{expected} channels per case, but {len(names)} modality names ({', '.join(names)}); give one each."
        )
    return list(names)


def _is_grey(path: Path) -> bool:
    try:
        return looks_grey(path)
    except OSError as error:  # Pillow cannot tell; what is wrong with the file, the reader says
        _read(path)
        raise DataError(f"{path} is not a valid 2D image ({error}); export it again.") from error


def _read(path: Path, mask: bool = False) -> Volume:
    try:
        return read_volume(path, mask=mask)
    except Unreadable as error:
        raise DataError(". ".join(error.args)) from error


def _labels(names: Sequence[str], found: Found) -> Mapping[str, Any]:
    """The user's, the layout's, or Decathlon's ``labels``: values that have no name are read from the files, and always
    those of 2D masks, whose values are often spread over 0 to 255.
    """
    if found.labels and not names:
        return found.labels
    files = [case["label"] for case in found.sections["training"]]
    images_2d = all(is_2d_file(path) for path in files)
    if names and not images_2d:
        return {str(value): name for value, name in enumerate(names)}
    masks = [_values(path) for path in files]
    values = {0.0}.union(*(mask.values for mask in masks))
    if jpeg := jpeg_finding(masks):
        raise DataError(f"The label files: {jpeg.message}. {jpeg.remedy}")
    if any(not float(value).is_integer() for value in values) or len(values) > (_PICTURE_VALUES if images_2d else 256):
        raise DataError(
            f"The label files hold {len(values)} values, {min(values):g} to {max(values):g}; expected a few whole "
            "numbers. Are images listed as labels, or have the masks soft edges?"
            + ("" if images_2d else " Otherwise name the labels with --label_names.")
        )
    # As many names as values are the user's word that each value is a label.
    odd = (soft_finding(masks) or mixed_finding(masks)) if images_2d and len(names) != len(values) else None
    if odd:
        raise DataError(
            f"The label files: {odd.message}. {odd.remedy} If each value is a label, name all {len(values)}, "
            "background first: --label_names."
        )
    present = [int(value) for value in sorted(values)]
    if len(present) == 1:
        raise DataError("All label files are background throughout; expected a label. Name the labels: --label_names.")
    if names:
        return _named(names, present, found)
    if images_2d and present == [0, 255]:
        found.notes.append("The masks hold 0 and 255: 255 is the label 'foreground'; rename it with --label_names.")
        return {"0": "background", "255": "foreground"}
    shown = ", ".join(map(str, present[1:]))
    found.warnings.append(f"Labels are named by the values found ({shown}); give names with --label_names.")
    return {"0": "background", **{str(value): f"label {value}" for value in present[1:]}}


def _values(path: Path) -> MaskValues:
    label = _read(path, mask=True).channels[0]
    edges = edge_values(label) if is_2d_file(path) else frozenset[float]()
    return MaskValues(frozenset(count_values(label)), edges, path.suffix.lower() in (".jpg", ".jpeg"))


def _named(names: Sequence[str], values: Sequence[int], found: Found) -> dict[str, str]:
    """Names for the values 0, 1, 2, …, or in order for as many other values, such as 0 and 255."""
    if values[-1] < len(names):
        return {str(value): name for value, name in enumerate(names)}
    pairs = ", ".join(f"{value} is '{name}'" for value, name in zip(values, names, strict=False))
    if len(values) != len(names):
        raise DataError(
            f"The masks hold the values {', '.join(map(str, values))}, --label_names has {len(names)} names "
            f"({', '.join(names)}); expected one name per value, background first. Add or remove names."
        )
    found.notes.append(f"Names are given to the mask values in their order: {pairs}.")
    return {str(value): name for value, name in zip(values, names, strict=True)}

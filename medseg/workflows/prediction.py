"""Predict: files, a folder or a datalist section -> label maps in the original image space."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Literal

from medseg.bundle.folder import Bundle
from medseg.bundle.parts import finalize, start_distributed
from medseg.data import Case, read_datalist
from medseg.data.case import complete_channels, name_cases, numbered_channels
from medseg.data.dicom_cases import dicom_cases, is_dicom_input
from medseg.data.fit import image_channels
from medseg.engines.ranks import is_main, on_main, share
from medseg.errors import CasesFailed, ConfigError, DataError
from medseg.inferers.prediction_folder import PredictionFolder, background_predictions
from medseg.labels import BACKGROUND
from medseg.labels.viewer_files import write_viewer_files
from medseg.settings import File, Folder, takes
from medseg.storage import write_json
from medseg.transforms import IMAGE_SUFFIXES, SaveLabelsd, is_2d_file
from medseg.transforms.picture import is_grey
from medseg.transforms.reader import KNOWN, stem_of
from medseg.transforms.save import LabelOutput
from medseg.workflows.checkpoints import kept_checkpoints, weights_of
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.inference import Inference, InferenceSettings
from medseg.workflows.joined_runs import joined_runs
from medseg.workflows.label_output import label_output, refuse_format
from medseg.workflows.previews import draw_previews, refuse_previews
from medseg.workflows.probabilities import TEMPERATURE, ProbabilitySettings, saving, saving_joined
from medseg.workflows.run_folder import refuse_run_folder
from medseg.workflows.run_limits import check_channels
from medseg.workflows.validation import warn_of_background

__all__ = ["PredictSettings", "collect_cases", "predict", "predict_checkpoints"]

logger = logging.getLogger("medseg")


def collect_cases(
    inputs: Sequence[str | Path], num_channels: int = 1, *, series: str | None = None, case_pattern: str | None = None
) -> list[Case]:
    """Image files and folders -> cases.

    A case of several channels is a group of files ``<case>_0000``, ``<case>_0001``, … (nnU-Net's naming) in one folder.

    Args:
        inputs: files and folders.
        num_channels: number of channels of a case.
        series, case_pattern: choice and names of DICOM series (``dicom_cases``).

    Raises:
        DataError: nothing is there, a channel file is missing, or a file is named twice.
    """
    files: list[Path] = []
    dicom = [place for place in map(Path, inputs) if is_dicom_input(place)]
    for place in map(Path, inputs):
        if place in dicom:
            continue
        if place.is_dir():
            found = sorted(
                p for p in place.iterdir() if p.name.lower().endswith(IMAGE_SUFFIXES) and not p.name.startswith(".")
            )
            if not found:
                raise DataError(f"Folder {place} holds no image. Known: {KNOWN}.")
            files += found
        else:
            files.append(place)  # missing files are reported with the other problems of cases
    images: list[list[Path]] = [[file] for file in files]
    if num_channels > 1 and any(stem_of(file).endswith("_0000") and not _is_color(file) for file in files):
        numbered, others = numbered_channels(files)
        images = [*complete_channels(numbered, num_channels), *([file] for file in others)]
    root = os.path.commonpath([file.parent.absolute() for file in files]) if files else ""
    names = name_cases([[file.absolute() for file in group] for group in images], root)
    cases = [Case(name, tuple(map(str, group))) for name, group in zip(names, images, strict=True)]
    return cases + (dicom_cases(dicom, series, case_pattern) if dicom else [])


def _is_color(file: Path) -> bool:
    """Whether one file already is a case of three channels."""
    try:
        return is_2d_file(file) and not is_grey(file)
    except OSError:  # damaged: the check says how
        return False


@dataclass(frozen=True)
class PredictSettings(ProbabilitySettings, InferenceSettings):
    """What is segmented, into which folder; and with which weights, and how.

    Attributes:
        bundle: run folder, or bundle with models/model.pt. It may be the name of one of medseg's own. A folder
            of folds, or of `medseg best`, stands for its runs, whose probabilities are averaged.
        output: folder for the label maps.
        inputs: image files or folders. Several channels: <case>_0000, <case>_0001, ….
        cases: cases of a datalist that was read already.
        json_list: datalist, instead of files.
        data_dir: base directory for relative paths (default: the list's).
        section: section of the datalist (default: test).
        modality: modality, for a run on several data sets, such as ct.
        series: DICOM series: UID, number, description or all. A description may have wildcards, such as 'T1*';
            default: each study's original volume of the most slices.
        case_pattern: regular expression for DICOM case ids in folder names. Its first group, or the whole match;
            default: a hash of the series' UID, which tells nothing of the patient.
        format: format of the label maps (default: the image's). NIfTI for DICOM; 2D images always get PNG.
        dicom_reference: source series, for dicom-seg and rtstruct. A folder; needed where the images are not DICOM.
        preview: draw each case as previews/<case>.png. Contours of the label map in three planes; a 2D image
            beside its label map in colours.
        viewer_files: names and colours of the labels for viewers. ITK-SNAP, FSLeyes, 3D Slicer and MITK, in viewers.
        overwrite: predict all cases again (default: only those whose images, weights or settings changed).
    """

    bundle: Folder = field(metadata={"option": ("run", "bundle")})
    output: Folder
    _: KW_ONLY
    inputs: Sequence[str | Path] = field(default=(), metadata={"positional": "IMAGE"})
    cases: Sequence[Case] = field(default=(), metadata={"option": None})
    json_list: File | None = None
    data_dir: Folder | None = None
    section: str | None = None
    modality: str | None = None
    series: str | None = None
    case_pattern: str | None = None
    format: Literal["nifti", "nrrd", "seg.nrrd", "dicom-seg", "rtstruct"] | None = None
    dicom_reference: Folder | None = None
    preview: bool = False
    viewer_files: bool = False
    overwrite: bool = False


@takes(PredictSettings)
@writes_into("output")
def predict(settings: PredictSettings) -> list[Path]:
    """Segment files and folders, a datalist's section or ``cases`` of one with a run or bundle.

    A prediction that ``output`` holds is kept if it was made from the same images, weights, settings and version
    (``PredictionFolder``), else made again. A case that cannot be read or that fails is reported, listed in
    ``output/failures.json`` and skipped; the others are done. Under torchrun every process makes the same call and
    takes its share of the cases.

    Returns:
        The label maps of this call's cases.

    Raises:
        CasesFailed: some cases failed.
        ConfigError: ``output`` is the images' folder, or holds files of the predictions' names from elsewhere,
            or an option is not what the run allows.

    Examples:
        >>> [path.name for path in medseg.predict("runs/first", "out", inputs=["phantom/imagesTs"], device="cpu")]
        ['organs_006.nii.gz', 'organs_007.nii.gz']
    """
    target = Path(settings.output).resolve()
    refuse_run_folder(target)
    _refuse_idle(settings)
    inference = _saving(Inference.of(Bundle(settings.bundle), settings), settings)
    cases = inference.conditioned(_cases(settings, inference), settings.modality)
    if settings.preview:
        refuse_previews(settings.format)
    refuse_format(settings.format, settings.dicom_reference, cases)
    start_distributed()
    origin = inference.origin(settings.device)
    predictions = PredictionFolder(target, origin, settings.format)
    run = inference.bundle.root.resolve().name
    written = label_output(settings.format, settings.dicom_reference, run, origin.weights[0])
    files = predictions.require_apart(cases)

    def prepare() -> list[Case]:
        """The cases that are left to do."""
        target.mkdir(parents=True, exist_ok=True)
        if inference.of_tasks:
            names = {"0": BACKGROUND, **{str(i): name for i, name in enumerate(inference.label_space.labels, 1)}}
            write_json(target / "labels.json", names)
        return predictions.pending(cases, overwrite=settings.overwrite, beside=settings.kinds)

    todo = on_main(prepare)
    failed: CasesFailed | None = None
    try:
        if todo:
            _run(inference, todo, predictions, written)
    except CasesFailed as error:
        failed = error
    if is_main():
        done = sum(file.is_file() for file in files.values())
        warn_of_background(background_predictions(list(files.values())), done)
        if settings.preview:
            draw_previews(inference, cases, files, target / "previews")
        if settings.viewer_files:
            write_viewer_files(target / "viewers", inference.label_space, {case.dataset for case in cases})
    finalize()
    if failed is not None:
        raise failed
    return list(files.values())


def _cases(settings: PredictSettings, inference: Inference) -> Sequence[Case]:
    """The cases that are asked for.

    Raises:
        ConfigError: the channels of the datalist are in another order than in training.
        DataError: there is none.
    """
    if settings.inputs:
        channels = int(image_channels(inference.recipe.tree))
        return collect_cases(settings.inputs, channels, series=settings.series, case_pattern=settings.case_pattern)
    if settings.json_list is None:
        if not settings.cases:
            raise DataError("Nothing to segment: name image files or folders, or a datalist with --json_list.")
        return settings.cases
    datalist, section = read_datalist(settings.json_list, settings.data_dir), settings.section or "test"
    check_channels(inference.bundle, datalist)
    cases = datalist.cases(section)
    if not cases:
        raise DataError(f"Section '{section}' of {settings.json_list} is empty; name another with --section.")
    return cases


def _saving(inference: Inference, settings: PredictSettings) -> Inference:
    """What is asked for beside the label maps is saved, calibrated unless predictions are to be raw."""
    recipe = inference.recipe
    if inference.members:
        return replace(inference, recipe=saving_joined(recipe, settings, place=inference.bundle.config("ensemble")))
    temperature = float(recipe.tree.get(TEMPERATURE, 1.0)) if settings.postprocess else 1.0
    place = inference.bundle.config("inference")
    steps = "postprocessing::transforms"
    return replace(inference, recipe=saving(recipe, steps, settings, temperature=temperature, place=place))


def _run(inference: Inference, cases: Sequence[Case], predictions: PredictionFolder, written: LabelOutput) -> None:
    """Segment cases, of which this process takes its share.

    Raises:
        CasesFailed: some cases failed.
    """
    known = {case.id: case for case in cases}
    workflow = inference.workflow(share(cases), predictions.folder)
    evaluator = workflow.parser.get_parsed_content("evaluator")
    for step in evaluator.postprocessing.transforms:
        if isinstance(step, SaveLabelsd):
            step.written = written
    evaluator.done = lambda data: predictions.add(known[data["case_id"]], background=not bool(data["pred"].any()))
    workflow.run()
    if len(evaluator.seen) < len(workflow.parser.get_parsed_content("dataset").data):
        raise ConfigError(
            "The config's 'run' does not run its evaluator; expected medseg.engines.run_cases. Restore it."
        )


def _refuse_idle(settings: PredictSettings) -> None:
    """Options that would be read by nobody.

    Raises:
        ConfigError: naming them.
    """
    if settings.inputs and settings.json_list is not None:
        raise ConfigError("Name either image files or a datalist (--json_list), not both.")
    idle = [
        name
        for name, value in (("--section", settings.section), ("--data_dir", settings.data_dir))
        if value is not None
    ]
    if not settings.inputs and (settings.series is not None or settings.case_pattern is not None):
        raise ConfigError(
            "--series and --case_pattern are for folders and files of DICOM; name these, or leave them out."
        )
    if settings.json_list is None and idle:
        raise ConfigError(f"{' and '.join(idle)}: of a datalist; name that with --json_list, or leave them out.")


@takes(PredictSettings)
def predict_checkpoints(settings: PredictSettings) -> dict[Path, list[Path]]:
    """Segment images, folders or a datalist's section, in the original image space.

    Returns:
        Folder -> label maps: ``output``, or ``output/<name>`` of every checkpoint that the run keeps, where the
        settings' ``checkpoint`` is all.

    Raises:
        CasesFailed: some cases failed, with any of them; the others are done.
        ModelError: nothing is kept.
    """
    if settings.checkpoint != "all":
        return {Path(settings.output): predict.of(settings)}
    root = Bundle(settings.bundle).root
    if joined_runs(root) is not None:
        raise ConfigError(
            f"--checkpoint all is for one run; {root} holds several. Name one of them, or one checkpoint."
        )
    kept = kept_checkpoints(root)
    if not kept:
        weights_of(root, "best")  # says what to do
    done: dict[Path, list[Path]] = {}
    failed: CasesFailed | None = None
    for name in kept:
        try:
            done[Path(settings.output) / name] = predict.of(
                replace(settings, output=Path(settings.output) / name, checkpoint=name)
            )
        except CasesFailed as error:
            failed = error
    if failed is not None:
        raise failed
    return done

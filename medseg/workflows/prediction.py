"""Predict: files, a folder or a datalist section -> label maps on the images' own grids."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

from medseg.bundle import TRAINED_AXES
from medseg.bundle.compose import config_files, merged_config, used_config, with_changes
from medseg.bundle.own_words import user_speaks
from medseg.bundle.parts import device as choose_device
from medseg.bundle.parts import device_component, finalize, start_distributed
from medseg.data import Case, read_datalist
from medseg.data.case import complete_channels, name_cases, numbered_channels, stem_of
from medseg.data.content import content_hash
from medseg.data.inspect import inspect_case
from medseg.data.intensities import Expected
from medseg.engines.ranks import gather, is_main, on_main, share
from medseg.errors import CasesFailed, ConfigError, DataError
from medseg.inferers.prediction_folder import Origin, PredictionFolder, background_predictions
from medseg.labels import BACKGROUND, LabelSpace
from medseg.settings import File, Folder, Names, takes
from medseg.storage import read_table, write_json
from medseg.transforms import IMAGE_SUFFIXES, is_2d_file
from medseg.transforms.picture import is_grey
from medseg.workflows.case_stream import run_cases
from medseg.workflows.checks import model_spacing, unfit
from medseg.workflows.evaluation import kept_checkpoints, warn_of_background, weights_of
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.run_limits import (
    check_channels,
    check_use,
    mirrored_axes,
    refuse_double,
    trained_config,
    warn_changed,
)

__all__ = ["PredictSettings", "collect_cases", "predict", "predict_checkpoints"]

logger = logging.getLogger("medseg")


def collect_cases(inputs: Sequence[str | Path], num_channels: int = 1) -> list[Case]:
    """Image files and folders -> cases.

    A case of several channels is a group of files ``<case>_0000``, ``<case>_0001``, … (nnU-Net's naming) in one folder.

    Raises:
        DataError: nothing is there, a channel file is missing, or a file is named twice.
    """
    files: list[Path] = []
    for item in map(Path, inputs):
        if item.is_dir():
            found = sorted(
                p for p in item.iterdir() if p.name.lower().endswith(IMAGE_SUFFIXES) and not p.name.startswith(".")
            )
            if not found:
                raise DataError(f"Folder {item} holds no image. Known: {' '.join(IMAGE_SUFFIXES)}.")
            files += found
        else:
            files.append(item)  # missing files are reported with the other problems of cases
    images: list[list[Path]] = [[file] for file in files]
    if num_channels > 1 and any(stem_of(file).endswith("_0000") and not _is_color(file) for file in files):
        numbered, others = numbered_channels(files)
        images = [*complete_channels(numbered, num_channels), *([file] for file in others)]
    root = os.path.commonpath([file.parent.absolute() for file in files]) if files else ""
    names = name_cases([[file.absolute() for file in group] for group in images], root)
    return [Case(name, tuple(map(str, group))) for name, group in zip(names, images, strict=True)]


def _is_color(file: Path) -> bool:
    """Whether one file already is a case of three channels."""
    try:
        return is_2d_file(file) and not is_grey(file)
    except OSError:  # damaged: the check says how
        return False


@dataclass(frozen=True)
class PredictSettings:
    """What is segmented, with which weights, and how.

    Attributes:
        bundle: run folder, or bundle folder with models/model.pt.
        output: folder for the label maps.
        inputs: image files or folders; several channels: <case>_0000, <case>_0001, ….
        cases: cases of a datalist that was read already.
        json_list: datalist, instead of files.
        data_dir: base directory for relative paths in the datalist (default: its folder).
        section: section of the datalist (default: test).
        checkpoint: best, last, best_<metric> where it is kept, all, or a file.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        tta: average over mirror images along the axes that training mirrored.
        postprocess: cleaning by the rules that `medseg postprocess` stored in the run.
        tasks: names of the labels to segment, of a run on several data sets (default: all, or those of a case's own
            data set).
        modality: modality of the images, for a run on several data sets, such as ct.
        overrides: values of inference.yaml by their ids, such as overlap=0.25.
        overwrite: new predictions of all cases (default: of those whose images, weights or settings changed).
    """

    bundle: Folder = field(metadata={"option": ("run", "bundle")})
    output: Folder
    _: KW_ONLY
    inputs: Sequence[str | Path] = field(default=(), metadata={"positional": "IMAGE"})
    cases: Sequence[Case] = field(default=(), metadata={"option": None})
    json_list: File | None = None
    data_dir: Folder | None = None
    section: str | None = None
    checkpoint: str = "best"
    device: str | None = None
    tta: bool = False
    postprocess: bool = field(default=True, metadata={"option": "no_postprocess"})
    tasks: Names | None = None
    modality: str | None = None
    overrides: Mapping[str, Any] | None = field(default=None, metadata={"option": "set"})
    overwrite: bool = False


@takes(PredictSettings)
@writes_into("output")
@user_speaks("overrides", "output")
def predict(s: PredictSettings) -> list[Path]:
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
    """
    folder, target = Path(s.bundle).resolve(), Path(s.output).resolve()
    _refuse_run_folder(target)
    _refuse_idle(s)
    inputs, cases, json_list, section = s.inputs, s.cases, s.json_list, s.section or "test"
    overrides = dict(s.overrides or {})
    refuse_double("infer", overrides)
    config = merged_config(config_files(folder, "infer"))
    space = LabelSpace.from_table(config["labels"])
    in_channels = int(config["network_def"]["in_channels"])
    if inputs:
        cases = collect_cases(inputs, in_channels)
    elif json_list is not None:
        datalist = read_datalist(json_list, s.data_dir)
        cases = datalist.cases(section)
        check_channels(folder, datalist)
    elif not cases:
        raise DataError("Nothing to segment: name image files or folders, or a datalist with --json_list.")
    if not cases:
        raise DataError(f"Section '{section}' of {json_list} is empty; name another with --section.")
    cases, asked = _conditions(config, space, cases, s.tasks, s.modality)
    weights = weights_of(folder, s.checkpoint)
    used = used_config(folder, "infer", overrides)
    changed = check_use(trained_config(folder, config), used, overrides, own_weights=weights.is_relative_to(folder))
    warn_changed(changed)
    axes = mirrored_axes(folder, used, tta=s.tta, chosen=overrides.get("mirror_axes"))
    start_distributed()
    changes = overrides | {"output_dir": str(target), "ckpt_path": str(weights)} | asked
    if not s.postprocess and "cleanup" in config:
        changes["cleanup"] = {}
    if axes is not None:
        changes["mirror_axes"] = axes
    if s.device is not None:
        changes["device"] = device_component(s.device)
    origin = origin_of(config, changes, weights, choose_device(s.device).type)
    if changed:
        origin = replace(origin, settings={**origin.settings, "differs_from_training": changed})
    predictions = PredictionFolder(target, origin)
    files = predictions.require_apart(cases)

    def prepare() -> list[Case]:
        """The cases that are left to do."""
        target.mkdir(parents=True, exist_ok=True)
        if "tasks" in config:
            names = {"0": BACKGROUND, **{str(i): name for i, name in enumerate(space.labels, 1)}}
            write_json(target / "labels.json", names)
        return predictions.pending(cases, overwrite=s.overwrite)

    todo = share(on_main(prepare))
    color = bool(config["preprocess"].get("color"))
    dims = len(config["roi_size"])
    final = with_changes(config, overrides or {})
    spacing, channel_names = model_spacing(final), _channel_names(folder, in_channels)

    def check(case: Case) -> None:
        expected = Expected.of(final["preprocess"], channel_names, case.modality)
        _check(case, space, dims, spacing, ("RGB",) if color else None, expected)

    failures = gather(run_cases(folder, changes, todo, check, dims, predictions.add) if todo else {})
    if is_main():
        _write_failures(target, failures)
        warn_of_background(background_predictions(list(files.values())), len(cases) - len(failures))
    finalize()
    if failures:
        listed = "; ".join(f"{case}: {reason}" for case, reason in list(failures.items())[:5])
        raise CasesFailed(
            f"{len(failures)} of {len(cases)} cases failed, listed in {target / 'failures.json'}: {listed}"
        )
    return list(files.values())


def _refuse_run_folder(target: Path) -> None:
    """The folder of a run, and that of its validation predictions, which its scores are of, hold nothing else.

    Raises:
        ConfigError: it is one of them.
    """
    for run in (target, target.parent if target.name.startswith("predictions") else target):
        if (run / "configs" / "train.yaml").is_file():
            raise ConfigError(f"--output {target} belongs to the run {run} itself; name a folder of its own.")


def _refuse_idle(s: PredictSettings) -> None:
    """Options that would be read by nobody.

    Raises:
        ConfigError: naming them.
    """
    if s.inputs and s.json_list is not None:
        raise ConfigError("Name either image files or a datalist (--json_list), not both.")
    idle = [name for name, value in (("--section", s.section), ("--data_dir", s.data_dir)) if value is not None]
    if s.json_list is None and idle:
        raise ConfigError(f"{' and '.join(idle)}: of a datalist; name that with --json_list, or leave them out.")


def _conditions(
    config: Mapping[str, Any],
    space: LabelSpace,
    cases: Sequence[Case],
    tasks: Sequence[str] | None,
    modality: str | None,
) -> tuple[list[Case], dict[str, Any]]:
    """Cases with their modality, and the override of what a task-conditioned network is asked for.

    Raises:
        ConfigError: tasks or a modality for another network, or a modality that has to be told.
        DataError: no such task or modality.
    """
    if "tasks" not in config:
        if tasks or modality:
            raise ConfigError("--tasks and --modality are for networks trained on several data sets; leave them out.")
        return list(cases), {}
    if modality is not None:
        space.modality_id(modality)
    elif len(space.modalities) == 1:
        modality = next(iter(space.modalities))
    if modality is None and any(case.modality is None for case in cases):
        raise ConfigError(
            f"Images are normalised by modality; say their modality (--modality): {', '.join(space.modalities)}."
        )
    if tasks is not None:
        space.asked_labels(tasks)
    known = [replace(case, modality=case.modality or modality) for case in cases]
    return known, {} if tasks is None else {"tasks": list(tasks)}


@takes(PredictSettings)
def predict_checkpoints(s: PredictSettings) -> dict[Path, list[Path]]:
    """Segment image files, folders or a section of a datalist; label maps have the grid of the original images.

    Returns:
        Folder -> label maps: ``output``, or ``output/<name>`` of every checkpoint that the run keeps, where the
        settings' ``checkpoint`` is all.

    Raises:
        CasesFailed: some cases failed, with any of them; the others are done.
        ModelError: nothing is kept.
    """
    if s.checkpoint != "all":
        return {Path(s.output): predict.of(s)}
    kept = kept_checkpoints(Path(s.bundle))
    if not kept:
        weights_of(Path(s.bundle), "best")  # says what to do
    done: dict[Path, list[Path]] = {}
    failed: CasesFailed | None = None
    for name in kept:
        try:
            done[Path(s.output) / name] = predict.of(replace(s, output=Path(s.output) / name, checkpoint=name))
        except CasesFailed as error:
            failed = error
    if failed is not None:
        raise failed
    return done


# Ids of inference.yaml that say where things are and how the work is done, not what comes out.
_PLACES = {"imports", "bundle_root", "dataset_dir", "json_list", "section", "output_dir", "ckpt_path", "device"}
_PLACES |= {"sw_batch_size", "dataset", "dataloader", "network", "handlers", "initialize", "run", "finalize", "cleanup"}
_PLACES |= {TRAINED_AXES}


def origin_of(config: Mapping[str, Any], changes: Mapping[str, Any], weights: Path, device_type: str) -> Origin:
    """How predictions with an inference config come about.

    Args:
        config: merged ``inference.yaml``.
        changes: config id -> value.
        weights: file of the network's weights.
        device_type: ``cpu`` or ``cuda``, which may differ in precision.
    """
    final = with_changes(config, changes)
    settings = {key: value for key, value in final.items() if key not in _PLACES} | {"device_type": device_type}
    return Origin((content_hash(weights),), settings, final.get("cleanup") or {})


def _channel_names(folder: Path, channels: int) -> list[str]:
    """Modality of each channel by the bundle's metadata; empty strings where they do not say."""
    path = folder / "configs" / "metadata.json"
    described: Any = read_table(path, "metadata; restore it") if path.is_file() else {}
    for key in ("network_data_format", "inputs", "image", "channel_def"):
        described = described.get(key, {}) if isinstance(described, Mapping) else {}
    names = [str(described.get(str(channel), "")) for channel in range(channels)]
    return [names[0]] * channels if len(described) == 1 else names


def _check(
    case: Case,
    space: LabelSpace,
    dims: int,
    spacing: Sequence[float] | None,
    names: Sequence[str] | None,
    expected: Expected,
) -> None:
    """Read a case's images, refuse what the network cannot take, and warn where it was trained on other intensities.

    Raises:
        DataError: with all that is wrong.
    """
    facts = inspect_case(replace(case, label=None), space, names, intensities=False)
    found = [(p.message, p.remedy) for p in facts.problems if not p.warning]
    found += [problem] if not found and (problem := unfit(facts, dims, len(expected.names), spacing)) else []
    for finding in expected.check(facts.ranges, picture=facts.picture) if not found else ():
        facts.add(finding)
    for warning in (p for p in facts.problems if p.warning):
        logger.warning("%s: %s. %s", facts.case, warning.message, warning.remedy)
    if found:
        raise DataError(" ".join(f"{message}. {remedy}" for message, remedy in found))


def _write_failures(target: Path, failures: Mapping[str, str]) -> None:
    path = target / "failures.json"
    if failures:
        write_json(path, dict(failures))
    else:
        path.unlink(missing_ok=True)

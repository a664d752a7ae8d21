"""Predict: files, a folder or a datalist section -> label maps on the images' own grids."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.data import read_datalist
from medseg.data.datalist import case_ids, images_of
from medseg.data.inspect import inspect_case
from medseg.engines.ranks import gather, is_main, on_main, share
from medseg.errors import CasesFailed, ConfigError, DataError
from medseg.labels import BACKGROUND, LabelSpace
from medseg.transforms import IMAGE_SUFFIXES, is_2d_file
from medseg.transforms.picture import is_grey
from medseg.workflows.case_stream import run_cases
from medseg.workflows.checks import unfit
from medseg.workflows.compose import config_files, merged_config
from medseg.workflows.evaluation import kept_checkpoints, weights_of
from medseg.workflows.parts import finalize, start_distributed

__all__ = ["collect_cases", "predict", "predict_checkpoints"]

logger = logging.getLogger("medseg")


def collect_cases(inputs: Sequence[str | Path], num_channels: int = 1) -> list[dict[str, Any]]:
    """Image files and folders -> cases.

    A case of several channels is a group of files ``<case>_0000``, ``<case>_0001``, … (nnU-Net's naming) in one folder.

    Raises:
        DataError: nothing is there.
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
    cases: list[dict[str, Any]]
    if num_channels > 1 and any("_0000." in file.name and not _is_color(file) for file in files):
        groups: dict[str, list[str]] = {}
        for file in files:
            stem, _, rest = file.name.partition(".")
            groups.setdefault(str(file.with_name(f"{stem[:-5]}.{rest}")), []).append(str(file))
        cases = [{"image": sorted(group)} for group in groups.values()]
    else:
        cases = [{"image": str(file)} for file in files]
    root = files[0].parent if files else Path()
    for case, name in zip(cases, case_ids(cases, root), strict=True):
        case["case_id"] = name
    return cases


def _is_color(file: Path) -> bool:
    """Whether one file already is a case of three channels."""
    try:
        return is_2d_file(file) and not is_grey(file)
    except OSError:  # damaged: the check says how
        return False


def predict(
    bundle: str | Path,
    output: str | Path,
    *,
    inputs: Sequence[str | Path] = (),
    cases: Sequence[dict[str, Any]] = (),
    json_list: str | Path | None = None,
    data_dir: str | Path | None = None,
    section: str = "test",
    checkpoint: str = "best",
    device: str | None = None,
    tta: bool = False,
    postprocess: bool = True,
    tasks: Sequence[str] | None = None,
    modality: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Segment files and folders, a datalist's section or ``cases`` of one with a run or bundle.

    Predictions that ``output`` holds of the same weights are not made again. ``tta`` averages over all mirror images;
    ``postprocess`` applies the rules that `medseg postprocess` stored. A run on several data sets together segments
    ``tasks`` (default: all of them, or those of a case's own data set), and is told the ``modality`` of files. A case
    that cannot be read or that fails is reported, listed in ``output/failures.json`` and left out; the others are done.
    Under torchrun every process makes the same call and takes its share of the cases.

    Returns:
        The label maps of this call's cases.

    Raises:
        CasesFailed: some cases failed.
        ConfigError: ``output`` holds predictions of other weights or with other post-processing.
    """
    folder, target = Path(bundle).resolve(), Path(output).resolve()
    config = merged_config(config_files(folder, "infer"))
    space = LabelSpace.from_table(config["labels"])
    in_channels = int(config["network_def"]["in_channels"])
    if inputs:
        cases = collect_cases(inputs, in_channels)
    elif json_list is not None:
        cases = read_datalist(json_list, data_dir).cases(section)
    elif not cases:
        raise DataError("Nothing to segment: name image files or folders, or a datalist with --json_list.")
    if not cases:
        raise DataError(f"Section '{section}' of {json_list} is empty; name another with --section.")
    cases, asked = _conditions(config, space, cases, tasks, modality)
    weights = weights_of(folder, checkpoint)
    start_distributed()
    changes = dict(overrides or {}) | {"output_dir": str(target), "ckpt_path": str(weights)} | asked
    if not postprocess and "cleanup" in config:
        changes["cleanup"] = {}

    def prepare() -> list[dict[str, Any]]:
        """The cases that are left to do."""
        target.mkdir(parents=True, exist_ok=True)
        _refuse_other_predictions(target, weights, changes.get("cleanup", config.get("cleanup", {})), tasks)
        if "tasks" in config:
            names = {"0": BACKGROUND, **{str(i): name for i, name in enumerate(space.labels, 1)}}
            (target / "labels.json").write_text(json.dumps(names, indent=1, ensure_ascii=False) + "\n", "utf-8")
        todo = [case for case in cases if not _prediction(target, case).is_file()]
        if len(todo) < len(cases):
            logger.info("%d of %d cases are predicted already", len(cases) - len(todo), len(cases))
        return todo

    todo = share(on_main(prepare))
    if tta:
        changes["mirror_axes"] = list(range(len(config["roi_size"])))
    if device is not None:
        changes["device"] = f"$w.device('{device}')"
    color = bool(config["preprocess"].get("color"))
    dims = len(config["roi_size"])

    def check(case: Mapping[str, Any]) -> None:
        _check(case, space, dims, in_channels, ("RGB",) if color else None)

    failures = gather(run_cases(folder, changes, todo, check, dims) if todo else {})
    if is_main():
        _write_failures(target, failures)
    finalize()
    if failures:
        listed = "; ".join(f"{case}: {reason}" for case, reason in list(failures.items())[:5])
        raise CasesFailed(
            f"{len(failures)} of {len(cases)} cases failed, listed in {target / 'failures.json'}: {listed}"
        )
    return [_prediction(target, case) for case in cases]


def _conditions(
    config: Mapping[str, Any],
    space: LabelSpace,
    cases: Sequence[dict[str, Any]],
    tasks: Sequence[str] | None,
    modality: str | None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
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
    if modality is None and any("modality" not in case for case in cases):
        raise ConfigError(
            f"Images are normalised by modality; say their modality (--modality): {', '.join(space.modalities)}."
        )
    if tasks is not None:
        space.asked_labels(tasks)
    known = [{"modality": modality, **case} for case in cases]
    return known, {} if tasks is None else {"tasks": list(tasks)}


def predict_checkpoints(bundle: str | Path, output: str | Path, **settings: Any) -> dict[str, list[Path]]:
    """``predict`` with every checkpoint that a run keeps, into ``output/<name>``; name -> label maps.

    Raises:
        CasesFailed: some cases failed, with any of them; the others are done.
        ModelError: nothing is kept.
    """
    kept = kept_checkpoints(Path(bundle))
    if not kept:
        weights_of(Path(bundle), "best")  # says what to do
    done: dict[str, list[Path]] = {}
    failed: CasesFailed | None = None
    for name in kept:
        try:
            done[name] = predict(bundle, Path(output) / name, checkpoint=name, **settings)
        except CasesFailed as error:
            failed = error
    if failed is not None:
        raise failed
    return done


def _refuse_other_predictions(
    target: Path, weights: Path, cleanup: Mapping[str, Any], tasks: Sequence[str] | None = None
) -> None:
    """One folder holds one kind of predictions of one network: those of another would be taken for done."""
    record = target / "weights.json"
    content: dict[str, Any] = {"weights": str(weights), "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    content |= {"cleanup": cleanup} if cleanup else {}
    content |= {"tasks": list(tasks)} if tasks is not None else {}
    if record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        differs = "of other weights" if found["sha256"] != content["sha256"] else "with other post-processing"
        if found.get("tasks") != content.get("tasks"):
            differs = "of other tasks"
        keys = ("sha256", "cleanup", "tasks")
        if any((found.get(key) or None) != (content.get(key) or None) for key in keys):
            raise ConfigError(f"{target} holds predictions {differs}; use another --output folder, or empty it.")
    record.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _prediction(target: Path, case: Mapping[str, Any]) -> Path:
    return target / f"{case['case_id']}{'.png' if is_2d_file(images_of(case)[0]) else '.nii.gz'}"


def _check(case: Mapping[str, Any], space: LabelSpace, dims: int, channels: int, names: Sequence[str] | None) -> None:
    """Read a case's images and refuse what the network cannot take.

    Raises:
        DataError: with all that is wrong.
    """
    images = {key: value for key, value in case.items() if key != "label"}
    facts = inspect_case(images, space, names, intensities=False)
    found = [(p.message, p.remedy) for p in facts.problems if not p.warning]
    found += [problem] if not found and (problem := unfit(facts, dims, channels)) else []
    for warning in (p for p in facts.problems if p.warning):
        logger.warning("%s: %s. %s", facts.case, warning.message, warning.remedy)
    if found:
        raise DataError(" ".join(f"{message}. {remedy}" for message, remedy in found))


def _write_failures(target: Path, failures: Mapping[str, str]) -> None:
    path = target / "failures.json"
    if failures:
        path.write_text(json.dumps(dict(failures), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        path.unlink(missing_ok=True)

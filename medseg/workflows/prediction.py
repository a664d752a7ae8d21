"""Predict: files, a folder or a datalist section -> label maps on the images' own grids."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import list_data_collate
from monai.engines import SupervisedEvaluator

from medseg.data import read_datalist
from medseg.data.datalist import case_ids, images_of
from medseg.data.inspect import inspect_cases
from medseg.errors import CasesFailed, ConfigError, DataError, MedsegError, unwrapped
from medseg.labels import LabelSpace
from medseg.transforms import IMAGE_SUFFIXES, is_2d_file
from medseg.workflows.checks import unfit
from medseg.workflows.compose import config_files, load_workflow, merged_config
from medseg.workflows.evaluation import weights_of

__all__ = ["collect_cases", "predict"]

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
    if num_channels > 1 and any("_0000." in file.name for file in files):
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


def predict(
    bundle: str | Path,
    output: str | Path,
    *,
    inputs: Sequence[str | Path] = (),
    json_list: str | Path | None = None,
    data_dir: str | Path | None = None,
    section: str = "test",
    checkpoint: str = "best",
    device: str | None = None,
    tta: bool = False,
    overrides: Mapping[str, Any] | None = None,
    allow_expressions: bool = False,
) -> list[Path]:
    """Segment images with a run or bundle; predictions that ``output`` holds of the same weights are not made again.

    ``tta`` averages over all mirror images. A case that cannot be read or that fails is reported, listed in
    ``output/failures.json`` and left out; the others are done. ``allow_expressions`` runs what the bundle's configs
    name beyond known parts (``medseg.workflows.trust``).

    Returns:
        The label maps of this call's cases.

    Raises:
        CasesFailed: some cases failed.
        ConfigError: ``output`` holds predictions of other weights.
    """
    folder, target = Path(bundle).resolve(), Path(output).resolve()
    config = merged_config(config_files(folder, "infer"))
    space = LabelSpace.from_table(config["labels"])
    in_channels = int(config["network_def"]["in_channels"])
    if inputs:
        cases = collect_cases(inputs, in_channels)
    elif json_list is not None:
        cases = read_datalist(json_list, data_dir).cases(section)
    else:
        raise DataError("Nothing to segment: name image files or folders, or a datalist with --json_list.")
    if not cases:
        raise DataError(f"Section '{section}' of {json_list} is empty; name another with --section.")
    target.mkdir(parents=True, exist_ok=True)
    weights = weights_of(folder, checkpoint)
    _refuse_other_weights(target, weights)
    todo = [case for case in cases if not _prediction(target, case).is_file()]
    if len(todo) < len(cases):
        logger.info("%d of %d cases are predicted already", len(cases) - len(todo), len(cases))
    failures = _failed_checks(todo, space, len(config["roi_size"]), in_channels)
    changes = dict(overrides or {}) | {"output_dir": str(target), "ckpt_path": str(weights)}
    if tta:
        changes["mirror_axes"] = list(range(len(config["roi_size"])))
    if device is not None:
        changes["device"] = f"$w.device('{device}')"
    sound = [case for case in todo if case["case_id"] not in failures]
    if sound:
        _run(folder, changes, sound, failures, allow_expressions)
    _write_failures(target, failures)
    if failures:
        listed = "; ".join(f"{case}: {reason}" for case, reason in list(failures.items())[:5])
        raise CasesFailed(
            f"{len(failures)} of {len(cases)} cases failed, listed in {target / 'failures.json'}: {listed}"
        )
    return [_prediction(target, case) for case in cases]


def _refuse_other_weights(target: Path, weights: Path) -> None:
    """One folder holds the predictions of one network: those of another would be taken for done."""
    record = target / "weights.json"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if record.is_file() and json.loads(record.read_text(encoding="utf-8"))["sha256"] != digest:
        raise ConfigError(f"{target} holds predictions of other weights; use another --output folder, or empty it.")
    content = {"weights": str(weights), "sha256": digest}
    record.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _prediction(target: Path, case: Mapping[str, Any]) -> Path:
    return target / f"{case['case_id']}{'.png' if is_2d_file(images_of(case)[0]) else '.nii.gz'}"


def _failed_checks(cases: Sequence[Mapping[str, Any]], space: LabelSpace, dims: int, channels: int) -> dict[str, str]:
    failures = {}
    images_only = [{key: value for key, value in case.items() if key != "label"} for case in cases]
    for facts in inspect_cases(images_only, space):
        found = [(p.message, p.remedy) for p in facts.problems if not p.warning]
        found += [problem] if not found and (problem := unfit(facts, dims, channels)) else []
        for warning in (p for p in facts.problems if p.warning):
            logger.warning("%s: %s. %s", facts.case, warning.message, warning.remedy)
        if found:
            failures[facts.case] = " ".join(f"{message}. {remedy}" for message, remedy in found)
            logger.error("%s: %s", facts.case, failures[facts.case])
    return failures


def _run(
    folder: Path,
    changes: dict[str, Any],
    cases: Sequence[dict[str, Any]],
    failures: dict[str, str],
    allow_expressions: bool,
) -> None:
    """One engine for all cases, one run per case: a failure leaves the others alone."""
    workflow = load_workflow(folder, "infer", changes, allow_expressions=allow_expressions)
    parser = workflow.parser
    with unwrapped():
        preprocessing = parser.get_parsed_content("preprocessing")
        evaluator: SupervisedEvaluator = parser.get_parsed_content("evaluator")
    for number, case in enumerate(cases, 1):
        began = time.monotonic()
        try:
            evaluator.data_loader = [list_data_collate([preprocessing(dict(case))])]
            evaluator.state.epoch_length = 1
            evaluator.run()
        except MedsegError:
            raise  # weights or config: no case can succeed
        except Exception as error:  # any failure of one case must not stop the others
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
                reason = f"out of memory ({reason}). Use a smaller roi_size or --device cpu."
            logger.error("%s: %s", case["case_id"], reason)
            failures[str(case["case_id"])] = reason
            continue
        logger.info("%d/%d %s  %.1f s", number, len(cases), case["case_id"], time.monotonic() - began)


def _write_failures(target: Path, failures: Mapping[str, str]) -> None:
    path = target / "failures.json"
    if failures:
        path.write_text(json.dumps(dict(failures), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        path.unlink(missing_ok=True)

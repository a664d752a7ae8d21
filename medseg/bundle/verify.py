"""Acceptance of a bundle, offline and without data: the rules of the model zoo's verifier, and medseg's own.

Files, metadata, what the metadata say against what the configs say, the properties that MONAI's tools ask for, the
network's input and output, and TorchScript by MONAI's ``ckpt_export``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_net_in_out
from torch import nn

from medseg.bundle.compose import Workflow, command, resolve, user
from medseg.bundle.dump import dump_yaml
from medseg.bundle.folder import TASKS, Bundle
from medseg.bundle.metadata import output_names
from medseg.bundle.parts import device_component
from medseg.bundle.recipe import Layer, Recipe, split_id
from medseg.bundle.schema import check_metadata
from medseg.bundle.trust import judged
from medseg.data.findings import Problem
from medseg.errors import ConfigError, MedsegError
from medseg.faults import reason_of, unwrapped
from medseg.labels import LabelSpace
from medseg.storage import write_json
from medseg.weights import load_weights

__all__ = ["verify_bundle"]

_NEEDED = ("LICENSE", "configs/metadata.json", "configs/inference", "docs/README.md", "docs/data_license.txt")
_LARGE = 25 * 2**20  # the zoo's limit for a file that is not downloaded
_SMALL = 32  # voxels per axis for the network; the window where it takes no other
_TOLERANCE = 1e-4
_REMEDY = "Fix the bundle"


def verify_bundle(bundle: str | Path, overrides: Mapping[str, Any] | None = None) -> list[Problem]:
    """All that is wrong with a bundle, with what to do; warnings are for what it can do without.

    Args:
        bundle: its folder.
        overrides: config id -> value, such as a narrower network.

    Raises:
        ModelError: the folder is not a bundle, or its configs would run foreign code (``medseg.bundle.trust``).
    """
    folder = Bundle(bundle)
    folder.config("inference")  # no bundle without it
    _judge(folder)
    problems = [*_check_files(folder.root), *_check_texts(folder)]
    meta = folder.metadata
    problems += [_problem("configs/metadata.json", message) for message in check_metadata(meta)]
    problems += _check_agreement(folder)
    problems += _check_properties(folder)
    if not any(not problem.warning for problem in problems):
        with tempfile.TemporaryDirectory() as scratch:
            problems += _check_network(folder, overrides or {}, Path(scratch))
    return problems


def _problem(place: str, message: str, remedy: str = _REMEDY, warning: bool = False) -> Problem:
    what, _, expected = message.partition("; ")
    return Problem(place, what, f"{expected[:1].upper()}{expected[1:]}." if expected else remedy, warning=warning)


def _configs(root: Path) -> list[Path]:
    """The configs that MONAI may read; datalists and original settings beside them are data."""
    yamls = [path for path in sorted((root / "configs").glob("*")) if path.suffix in (".yaml", ".yml")]
    jsons = [root / "configs" / name for name in ("train.json", "inference.json")]
    return yamls + [path for path in jsons if path.is_file()]


def _judge(folder: Bundle) -> None:
    """Hold every config against the rule, merged as the commands would, before anything in it is evaluated.

    An overlay goes over the configs that it fits; one that fits none is judged as it stands.
    """
    tasks = [task for task in ("evaluate", "train", "infer") if all(map(folder.has, TASKS[task]))]
    bases = [folder.recipe(task) for task in tasks]
    meta = Layer({"_meta_": dict(folder.metadata)}, "bundle", str(folder.root / "configs" / "metadata.json"))
    for base in bases:
        judged(base.over(meta))
    known = {name for task in tasks for name in TASKS[task]}
    for path in (path for path in _configs(folder.root) if path.stem not in known):
        overlay = folder.layer(str(path), "overlay")
        for base, layer in (*((base, overlay) for base in bases), (Recipe(), _as_it_stands(overlay))):
            try:
                tree = base.over(layer)
            except ConfigError:
                continue
            judged(tree)
            break


def _as_it_stands(overlay: Layer) -> Layer:
    """Each entry of an overlay as an id of its own, nested where it patches."""
    changes: dict[str, Any] = {}
    for number, (key, value) in enumerate(overlay.changes.items()):
        top, *below = split_id(key)
        for part in reversed(below):
            value = {part: value}
        changes[f"{top} ({number})"] = value
    return replace(overlay, changes=changes)


# ---------------------------------------------------------------------- files and texts
def _check_files(root: Path) -> Iterator[Problem]:
    for name in _NEEDED:
        found = [path for path in root.glob(f"{name}*") if path.is_file()]
        if not any(path.stat().st_size for path in found):
            yield _problem(name, "missing or empty", "Write it; `medseg new-bundle` shows the form.")
    if not (root / "models" / "model.pt").is_file():
        remedy = "Train it, or import weights with `medseg import-weights`."
        yield _problem("models/model.pt", "no weights", remedy, warning=True)
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink() or path.suffix in (".py", ".so", ".pkl"):
            yield _problem(name, "a link, or code", "Leave it out: a bundle holds configs, texts and weights.")
        elif path.is_file() and path.stat().st_size > _LARGE and name.partition("/")[0] in ("configs", "docs"):
            yield _problem(name, f"{path.stat().st_size >> 20} MiB", "List it in large_files.yml instead.")


def _check_texts(folder: Bundle) -> Iterator[Problem]:
    for path in _configs(folder.root):
        place, text = f"configs/{path.name}", path.read_text(encoding="utf-8")
        for number in re.findall(r"(?<=[\s\[,:])\d+e-?\d+(?![\w.])", text):
            yield _problem(place, f"{number} is a string in YAML; write it with a point")
        if re.search(r"https?://", text):
            yield _problem(place, "an address: running the bundle would need the network", "Name a file instead.")
        content = folder.layer(str(path)).changes
        for section in ("train", "validate"):
            part = content.get(section)
            handlers = [part.get("handlers", [])] if isinstance(part, Mapping) else []
            handlers += [value for key, value in content.items() if key == f"{section}::handlers"]
            for listed in handlers:
                if not isinstance(listed, list) or not all(isinstance(h, Mapping) and "_target_" in h for h in listed):
                    yield _problem(
                        f"{place}, {section}::handlers", "no list of components; MONAI's check ends in an error"
                    )


# ---------------------------------------------------------------------- metadata and configs
def _check_agreement(folder: Bundle) -> Iterator[Problem]:
    place, inference = "configs/inference", folder.recipe("infer").tree
    try:
        formats = folder.metadata["network_data_format"]
        image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
        network, roi = inference["network_def"], inference["roi_size"]
        channels = output_names(LabelSpace.from_table(inference["labels"]), network.get("out_channels", 0))
    except (KeyError, TypeError, MedsegError) as error:
        yield _problem(place, f"{error} is missing or wrong, so that it cannot be held against the metadata")
        return
    said = (
        ("in_channels", network.get("in_channels"), image.get("num_channels")),
        ("out_channels", network.get("out_channels"), pred.get("num_channels")),
        ("roi_size", list(roi), image.get("spatial_shape")),
        ("roi_size", list(roi), pred.get("spatial_shape")),
        ("labels", channels, list((pred.get("channel_def") or {}).values())),
    )
    for name, own, described in said:
        if own != described:
            yield _problem(place, f"{name} is {own}, the metadata say {described}; make them equal")
    train = folder.recipe("train").tree if folder.has("train") else {}
    for name in ("network_def", "labels", "label_space", "preprocess", "roi_size"):
        if train and train.get(name) != inference.get(name):
            yield _problem(place, f"{name} differs from that of train.yaml; make them equal")


def _check_properties(folder: Bundle) -> Iterator[Problem]:
    """What ``ConfigWorkflow.check_properties`` asks, without building data sets."""
    for task, needed in TASKS.items():
        if not all(map(folder.has, needed)):
            continue
        try:
            with unwrapped():
                tree = resolve(folder, task).tree
                workflow: Any = Workflow(tree, "infer" if task in ("infer", "ensemble") else "train")
        except MedsegError as error:
            yield _problem(f"configs, {task}", str(error))
            continue
        if task == "ensemble":  # its parts are those of the members: MONAI's tools ask inference.yaml
            continue
        properties: Mapping[str, Any] = workflow.properties or {}
        for name, one in properties.items():
            if one["required"] and one["id"] not in workflow.parser:
                yield _problem(f"configs, {task}", f"'{one['id']}' is missing, which MONAI's tools read as {name}")
            if not one["required"] and not ConfigWorkflow._check_optional_id(workflow, name, one):
                yield _problem(f"configs, {task}", f"'{one.get('refer_id')}' must be '@{one['id']}'")


# ---------------------------------------------------------------------- the network
def _check_network(folder: Bundle, overrides: Mapping[str, Any], scratch: Path) -> Iterator[Problem]:
    """``verify_net_in_out`` and ``ckpt_export`` at a small size; random weights where there are none."""
    torch.manual_seed(0)
    meta = folder.metadata
    tree = resolve(folder, "infer", command({"device": device_component("cpu")}), user(overrides)).tree
    parser = Workflow(tree, "infer").parser
    network: nn.Module = parser.get_parsed_content("network_def").eval()
    weights, made = folder.root / "models" / "model.pt", scratch / "model.pt"
    if weights.is_file() and not overrides:
        try:
            load_weights(network, weights)
        except MedsegError as error:
            yield _problem("models/model.pt", str(error))
            return
    torch.save(network.state_dict(), made)
    window = [int(n) for n in parser.get_parsed_content("roi_size")]
    channels = meta["network_data_format"]["inputs"]["image"]["num_channels"]
    small = [min(n, _SMALL) for n in window]
    size = small if _takes(network, [1, channels, *small]) else window
    described = json.loads(json.dumps(meta))
    for side, name in (("inputs", "image"), ("outputs", "pred")):
        described["network_data_format"][side][name]["spatial_shape"] = size
    write_json(scratch / "metadata.json", described)
    # MONAI's commands get the tree that was judged, not the bundle's files.
    dump_yaml({key: value for key, value in tree.items() if key != "_meta_"}, scratch / "inference.yaml", "")
    files: dict[str, Any] = {
        "meta_file": str(scratch / "metadata.json"),
        "config_file": str(scratch / "inference.yaml"),
    }
    with warnings.catch_warnings(), _without_progress():
        warnings.simplefilter("ignore")
        try:
            verify_net_in_out("network_def", device="cpu", **files)
        except Exception as error:  # whatever it is, it is the answer of MONAI's own command
            yield _problem("network_def", f"verify_net_in_out: {reason_of(error)}")
            return
        example, full = [1, channels, *size], [1, channels, *window]
        yield from _check_torchscript(network, example, full, made, scratch / "model.ts", files)


@contextlib.contextmanager
def _without_progress() -> Iterator[None]:
    """MONAI's commands log each of their arguments."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _takes(network: nn.Module, shape: Sequence[int]) -> bool:
    try:
        with torch.no_grad():
            network(torch.zeros(*shape))
    except Exception:  # networks refuse a size in their own ways
        return False
    return True


def _check_torchscript(
    network: nn.Module,
    shape: Sequence[int],
    window: Sequence[int],
    weights: Path,
    target: Path,
    arguments: Mapping[str, Any],
) -> Iterator[Problem]:
    """``window``: the input's shape to name to the user."""
    image = torch.randn(*shape)
    reason = ""
    for use_trace in (False, True):
        shapes: dict[str, Any] = {"use_trace": True, "input_shape": list(shape)} if use_trace else {}
        try:
            ckpt_export("network_def", filepath=str(target), ckpt_file=str(weights), **shapes, **arguments)
            with torch.no_grad():
                own, exported = network(image), torch.jit.load(str(target))(image)
            difference = float((own - exported).abs().max() / own.abs().max().clamp(min=1))
        except Exception as error:  # scripting and tracing fail in their own ways
            reason = reason_of(error)
            continue
        if difference > _TOLERANCE:
            reason = f"TorchScript differs from the network by {difference:.2g}"
            continue
        if use_trace:
            say = f'Say `ckpt_export … --use_trace True --input_shape "{list(window)}"`, or use `medseg export`.'
            yield _problem("network_def", "ckpt_export cannot script this network", say, warning=True)
        return
    yield _problem("network_def", f"ckpt_export: {reason}")

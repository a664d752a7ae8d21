"""The model zoo's schema of ``metadata.json``, version 20240725, and the rules of its verifier, without a download.

Field names and types are those of the published schema; what MONAI Label and the zoo's ``verify_bundle`` ask beyond it
is here too: the names ``image`` and ``pred``, a label for each channel, a shape that can be built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["check_metadata"]

_TEXTS = (
    *("schema", "version", "monai_version", "pytorch_version", "numpy_version"),
    *("task", "description", "authors", "copyright"),
)
_MAY_BE_TEXT = ("name", "intended_use", "data_source", "data_type", "image_classes", "label_classes", "pred_classes")
_TYPES = ("image", "series", "tuples", "probabilities")
_FORMATS = ("hounsfield", "magnitude", "labels", "classes", "segmentation", "raw", "kspace", "points", "latent")
_SIZE = re.compile(r"(?=.*[\dnp])[\d\s+*/()np]+")  # "32*n": the verifier puts 1 for n and p


def check_metadata(meta: Mapping[str, Any]) -> Iterator[str]:
    """What the metadata lack or hold wrongly, each as ``field: what is wrong; what is expected``."""
    for name in _TEXTS:
        if not isinstance(meta.get(name), str) or not meta[name].strip():
            yield f"{name}: {meta.get(name)!r}; expected a string"
    for name in _MAY_BE_TEXT:
        if not isinstance(meta.get(name, ""), str):
            yield f"{name}: {meta[name]!r}; expected a string"
    if not str(meta.get("schema", "")).endswith("meta_schema_20240725.json"):
        yield f"schema: {meta.get('schema')!r}; expected the address of meta_schema_20240725.json"
    if not re.fullmatch(r"\d+\.\d+\.\d+", str(meta.get("version", ""))):
        yield f"version: {meta.get('version')!r}; expected three numbers such as 0.1.0"
    for name in ("changelog", "required_packages_version"):
        if not _texts_by_name(meta.get(name)):
            yield f"{name}: {meta.get(name)!r}; expected strings by name"
    if meta.get("version") not in (meta.get("changelog") or {}):
        yield f"changelog: version {meta.get('version')} is missing; expected a line on it"
    if "medseg" not in (meta.get("required_packages_version") or {}):
        yield "required_packages_version: medseg is missing; expected its version, since the configs name its parts"
    if "supported_apps" in meta and not _texts_by_name(meta["supported_apps"]):
        yield f"supported_apps: {meta['supported_apps']!r}; expected versions by application"
    if not isinstance(meta.get("eval_metrics", {}), Mapping):
        yield f"eval_metrics: {meta['eval_metrics']!r}; expected numbers by name"
    references = meta.get("references", [])
    if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
        yield f"references: {references!r}; expected a list of strings"
    yield from _data_format(meta.get("network_data_format"))


def _texts_by_name(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(text, str) for text in value.values())


def _data_format(formats: Any) -> Iterator[str]:
    if not isinstance(formats, Mapping):
        yield f"network_data_format: {formats!r}; expected inputs and outputs"
        return
    for side, first in (("inputs", "image"), ("outputs", "pred")):
        tensors = formats.get(side)
        if not isinstance(tensors, Mapping) or next(iter(tensors), None) != first:
            yield f"network_data_format::{side}: {tensors!r}; expected '{first}' first, which tools look for"
    for side in ("inputs", "outputs", "post_processed_outputs"):
        tensors = formats.get(side)
        for name, tensor in tensors.items() if isinstance(tensors, Mapping) else ():
            if isinstance(tensor, Mapping):
                yield from (f"network_data_format::{side}::{name}::{problem}" for problem in _tensor(tensor))
            elif not isinstance(tensor, (int, float, str, bool)):
                yield f"network_data_format::{side}::{name}: {tensor!r}; expected a description of a tensor"


def _tensor(tensor: Mapping[str, Any]) -> Iterator[str]:
    for field, known in (("type", _TYPES), ("format", _FORMATS)):
        if tensor.get(field) not in known:
            yield f"{field}: {tensor.get(field)!r}; expected one of {', '.join(known)}"
    channels, shape = tensor.get("num_channels"), tensor.get("spatial_shape")
    if not isinstance(channels, int) or isinstance(channels, bool) or channels < 1:
        yield f"num_channels: {channels!r}; expected a positive integer"
    sizes = shape if isinstance(shape, list) else []
    if len(sizes) < 2 or not all(isinstance(n, int) or _SIZE.fullmatch(str(n)) for n in sizes):
        yield f"spatial_shape: {shape!r}; expected a size per axis, such as 96 or '32*n' ('*' would be one voxel)"
    if not isinstance(tensor.get("dtype"), str):
        yield f"dtype: {tensor.get('dtype')!r}; expected a string such as float32"
    limits = tensor.get("value_range")
    if not isinstance(limits, list) or not all(isinstance(n, (int, float)) for n in limits):
        yield f"value_range: {limits!r}; expected a list of numbers, empty where it is not known"
    if not isinstance(tensor.get("is_patch_data", True), bool):
        yield f"is_patch_data: {tensor['is_patch_data']!r}; expected true or false"
    names: Any = tensor.get("channel_def")
    if not _texts_by_name(names) or list(names) != [str(i) for i in range(len(names))]:
        yield f"channel_def: {names!r}; expected names by number, from '0' on"
    elif len(names) != channels and tensor.get("format") not in ("labels", "classes"):
        yield f"channel_def: {len(names)} names for {channels} channels; expected one each"

#!/usr/bin/env python3
"""Segment one case with an exported network: python predict.py IMAGE [IMAGE ...] --output LABELS.nii.gz

A reference in one file: it needs numpy, scipy, nibabel (Pillow for 2D images) and onnxruntime or torch, and reads
deployment.json beside it. IMAGE: the case's channels in the order of deployment.json, or one file that holds them all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
Undo = Callable[[Array], Array]
Step = tuple[Array, Array, Undo | None]  # image, affine, the way back of one channel
_MM = {1: 1e3, 3: 1e-3}  # mm per unit of length, by its code in the header; others are mm
_PLACE = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_STORED: dict[int, Callable[[Array], Array]] = {  # EXIF orientation -> the rows as stored of a picture as shown
    2: np.fliplr,
    3: lambda values: np.rot90(values, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda values: np.rot90(values, 1),
    7: lambda values: np.rot90(values, 2).T,
    8: lambda values: np.rot90(values, -1),
}


def segment(
    paths: Sequence[str | Path], deployment: dict[str, Any], network: Callable[[Array], Array]
) -> tuple[Array, Any]:
    """Files of one case -> (raw label values in the original image space, its header)."""
    image, affine, header = load(paths, deployment["input"]["spatial_dims"])
    prepared, undo = preprocess(image, affine, deployment["preprocessing"])
    expect_channels(prepared, deployment["input"]["num_channels"])
    logits = infer(prepared, deployment["inference"], network)
    return decide(logits, undo, deployment["labels"]), header


def load(paths: Sequence[str | Path], spatial_dims: int) -> tuple[Array, Array, Any]:
    """(C, *spatial) float32, the 4 x 4 affine in mm and the NIfTI header; 2D images have neither: (row, column)."""
    channels: list[Array] = []
    affine, header = np.eye(4), None
    for path in paths:
        if str(path).lower().endswith(_PICTURES):
            from PIL import Image, ImageOps

            with Image.open(path) as picture:
                values = np.asarray(ImageOps.exif_transpose(picture))  # as viewers show it
        else:
            import nibabel

            image: Any = nibabel.load(path)
            values = np.asarray(image.dataobj)
            if header is None:
                header, mm = image.header, _MM.get(int(image.header["xyzt_units"]) & 7, 1.0)
                affine = np.diag([mm, mm, mm, 1.0]) @ image.affine
        values = values.astype(np.float32)
        channels += list(np.moveaxis(values, -1, 0)) if values.ndim > spatial_dims else [values]
    return np.stack(channels), affine, header


def expect_channels(image: Array, number: int) -> None:
    """Refuse an image of another number of channels than the network takes."""
    if len(image) != number:
        raise SystemExit(f"error: {len(image)} channels given, the network takes {number}.")


# ---------------------------------------------------------------------- preprocessing and its inverse
def preprocess(image: Array, affine: Array, steps: Sequence[dict[str, Any]]) -> tuple[Array, list[Undo]]:
    """Apply the steps; ``undo`` holds the inverse of each for one channel ``(*spatial)``, in the order applied."""
    undo: list[Undo] = []
    for step in steps:
        image, affine, inverse = _STEPS[step["step"]](image, affine, step)
        if inverse is not None:
            undo.append(inverse)
    return image, undo


def orient(image: Array, affine: Array, step: dict[str, Any]) -> Step:
    """Flip and permute axes to ``axcodes``."""
    from nibabel import orientations as nio

    source = nio.io_orientation(affine)
    target = nio.axcodes2ornt(step["axcodes"])
    there, back = nio.ornt_transform(source, target), nio.ornt_transform(target, source)
    turned = np.stack([nio.apply_orientation(channel, there) for channel in image])
    affine = affine @ nio.inv_ornt_aff(there, image.shape[1:])
    return turned, affine, lambda channel: nio.apply_orientation(channel, back)


def resample(image: Array, affine: Array, step: dict[str, Any]) -> Step:
    """Linear interpolation to ``spacing`` in mm; 0, or one within 0.001 mm, leaves an axis as it is. Beyond the border
    the nearest voxel counts.
    """
    from scipy.ndimage import affine_transform

    size, dims = image.shape[1:], image.ndim - 1
    axes = affine[:dims, :dims]
    upper = np.linalg.cholesky(axes.T @ axes).T
    target = np.eye(4)
    own, goal = np.diag(upper), np.array(step["spacing"])
    goal = np.where((goal > 0) & (abs(goal - abs(own)) > 1e-3), goal, abs(own))  # MONAI's tolerance
    target[:dims, :dims] = axes @ np.linalg.inv(upper) @ np.diag(np.sign(own) * goal)
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in size]))).T
    ahead = np.linalg.solve(target[:dims, :dims], axes) @ corners
    new_size = tuple(int(n) for n in np.round(np.ptp(ahead, axis=1) + 1))
    lowest = np.isclose(ahead - ahead.min(1, keepdims=True), 0, atol=1e-3).all(0)
    if lowest.any():  # the corner that all others lie ahead of
        place = axes @ corners[:, lowest][:, 0]
    else:  # sheared: equal centres
        place = axes @ (np.array(size) / 2) - target[:dims, :dims] @ (np.array(new_size) / 2)
    target[:dims, 3] = affine[:dims, 3] + place

    def between(values: Array, source: Array, goal: Array, shape: Sequence[int]) -> Array:
        mapping = np.linalg.solve(source, goal)
        arguments = {"offset": mapping[:dims, 3], "output_shape": tuple(shape), "order": 1, "mode": "nearest"}
        moved: Array = affine_transform(values, mapping[:dims, :dims], **arguments)
        return moved

    source = affine
    resampled = np.stack([between(channel, source, target, new_size) for channel in image])
    return resampled, target, lambda channel: between(channel, target, source, size)


def one_channel(image: Array, affine: Array, step: dict[str, Any]) -> Step:
    """The one channel of a 2D image that is stored as three equal ones."""
    equal = len(image) == 3 and bool((image == image[:1]).all())
    return image[:1] if equal else image, affine, None


def three_channels(image: Array, affine: Array, step: dict[str, Any]) -> Step:
    """A grey 2D image as three equal channels."""
    return np.repeat(image, 3, axis=0) if len(image) == 1 else image, affine, None


def crop(image: Array, affine: Array, step: dict[str, Any]) -> Step:
    """The bounding box of voxels that are above 0 (``positive``) or not 0 (``nonzero``) in any channel."""
    chosen = (image > 0 if step["keep"] == "positive" else image != 0).any(0)
    if not chosen.any():
        raise SystemExit("error: the image has no foreground to crop to.")
    places = np.argwhere(chosen)
    first = places.min(0)
    box = _box(first, places.max(0) + 1 - first)
    shape = image.shape[1:]

    def undo(channel: Array) -> Array:
        whole = np.zeros(shape, channel.dtype)
        whole[box] = channel
        return whole

    shift = np.eye(4)
    shift[: len(box), 3] = first
    return image[(slice(None), *box)], affine @ shift, undo


def normalize(image: Array, affine: Array, step: dict[str, Any]) -> Step:
    """Per channel: clip and scale by fixed figures, or z-score of the case."""
    schemes = step["channels"] * len(image) if len(step["channels"]) == 1 else step["channels"]
    expect_channels(image, len(schemes))
    return np.stack([_normalized(c, s) for c, s in zip(image, schemes, strict=True)]), affine, None


def _normalized(channel: Array, scheme: dict[str, Any]) -> Array:
    if scheme["kind"] == "case":
        inside = channel != 0 if scheme.get("nonzero") else np.ones(channel.shape, bool)
        if not inside.any():
            return channel
        values = channel[inside]
        deviation = values.std() or 1.0
        return np.where(inside, (channel - values.mean()) / deviation, channel).astype(np.float32)
    channel = np.clip(channel, scheme.get("lower"), scheme.get("upper"))
    scaled: Array = ((channel - scheme.get("mean", 0.0)) / max(scheme.get("std", 1.0), 1e-8)).astype(np.float32)
    return scaled


def scale_range(image: Array, affine: Array, step: dict[str, Any]) -> Step:
    """The range ``from`` to the range ``to``, clipped."""
    (a, b), (low, high) = step["from"], step["to"]
    scaled = (image - a) / (b - a) * (high - low) + low
    return (np.clip(scaled, low, high) if step["clip"] else scaled).astype(np.float32), affine, None


def pad(image: Array, affine: Array, step: dict[str, Any]) -> Step:
    """Zeros on both sides up to ``size``; the odd voxel goes to the end."""
    padded, inner = _padded(image, step["size"])
    shift = np.eye(4)
    shift[: len(inner), 3] = [-s.start for s in inner]
    return padded, affine @ shift, lambda channel: channel[inner]


def _padded(image: Array, goal: Sequence[int]) -> tuple[Array, tuple[slice, ...]]:
    """The image with zeros around it, and where it lies."""
    size = image.shape[1:]
    extra = np.maximum(np.subtract(goal, size), 0)
    before = extra // 2
    return np.pad(image, [(0, 0), *np.stack([before, extra - before], 1)]), _box(before, size)


def _box(first: Any, size: Any) -> tuple[slice, ...]:
    return tuple(slice(int(start), int(start + n)) for start, n in zip(first, size, strict=True))


_STEPS: dict[str, Callable[[Array, Array, dict[str, Any]], Step]] = {
    "one_channel": one_channel,
    "three_channels": three_channels,
    "orient": orient,
    "resample": resample,
    "crop": crop,
    "normalize": normalize,
    "scale_range": scale_range,
    "pad": pad,
}


# ---------------------------------------------------------------------- inference
def infer(image: Array, inference: dict[str, Any], network: Callable[[Array], Array]) -> Array:
    """Logits (K, *spatial) of an image (C, *spatial)."""
    if inference["kind"] == "whole":
        return mirrored(image, inference["mirror_axes"], network)
    roi = inference["roi_size"]
    image, inner = _padded(image, roi)
    weight = blending(roi, inference)
    places = [starts(n, r, inference) for n, r in zip(image.shape[1:], roi, strict=True)]
    total: Any = 0.0
    count = np.zeros(image.shape[1:], np.float32)
    for corner in itertools.product(*places):
        window = _box(corner, roi)
        logits = mirrored(np.ascontiguousarray(image[(slice(None), *window)]), inference["mirror_axes"], network)
        total = total if count.any() else np.zeros((len(logits), *count.shape), np.float32)
        total[(slice(None), *window)] += logits * weight
        count[window] += weight
    mean: Array = (total / count)[(slice(None), *inner)]
    return mean


def starts(size: int, roi: int, inference: dict[str, Any]) -> list[int]:
    """First voxels of the patches along one axis; the last patch ends at the border."""
    if size == roi:
        return [0]
    overlap = inference["overlap"]
    step = max(int(roi * (1 - overlap)), 1)
    if inference["even_spacing"]:
        windows = math.ceil((size - roi) / (roi * (1 - overlap))) + 1
        step = math.ceil((size - roi) / (windows - 1))
    return [min(n * step, size - roi) for n in range(math.ceil((size - roi) / step) + 1)]


def blending(roi: Sequence[int], inference: dict[str, Any]) -> Array:
    """Weights of a patch's voxels: equal, or a Gaussian that is at least ``least_weight``."""
    weight = np.ones(tuple(roi), np.float32)
    if inference["blending"] == "constant":
        return weight
    for axis, n in enumerate(roi):
        x = np.arange(n) - (n - 1) / 2
        line = np.exp(-(x**2) / (2 * (inference["sigma_scale"] * n) ** 2)).astype(np.float32)
        weight *= line.reshape([-1 if a == axis else 1 for a in range(len(roi))])
    return np.maximum(weight, max(float(weight.min()), inference["least_weight"]))


def mirrored(window: Array, axes: Sequence[int], network: Callable[[Array], Array]) -> Array:
    """Mean of the logits over all mirror images."""
    results = []
    for count in range(len(axes) + 1):
        for flips in itertools.combinations([axis + 1 for axis in axes], count):
            turned = np.ascontiguousarray(np.flip(window, flips)) if flips else window
            logits = network(turned[None])[0]
            results.append(np.flip(logits, flips) if flips else logits)
    mean: Array = sum(results[1:], results[0]) / len(results)
    return mean


def decide(logits: Array, undo: Sequence[Undo], labels: dict[str, Any]) -> Array:
    """Probabilities in the original image space, channel by channel; then the largest, or all above the threshold."""
    if labels["activation"] == "softmax":
        exponentials = np.exp(logits - logits.max(0))
        probabilities = exponentials / exponentials.sum(0)
    else:
        probabilities = 1 / (1 + np.exp(-logits))
    source = []
    for channel in probabilities:
        for inverse in reversed(undo):
            channel = inverse(channel)
        source.append(channel)
    if labels["activation"] == "softmax":
        chosen: Array = np.array(labels["values"], labels["dtype"])[np.argmax(source, axis=0)]
        return chosen
    result = np.full(source[0].shape, labels["background"], labels["dtype"])
    for channel, value in labels["paint"]:  # outer regions first
        result[source[channel] > labels["threshold"]] = value
    return result


# ---------------------------------------------------------------------- files
def usable(files: Sequence[Path]) -> Path:
    """The first exported file whose runtime is installed."""
    runtimes = {file: "onnxruntime" if file.suffix == ".onnx" else "torch" for file in files}
    found = next((file for file, runtime in runtimes.items() if find_spec(runtime)), None)
    if found is None:
        needed = " or ".join(f"{runtime} for {file.name}" for file, runtime in runtimes.items()) or "an exported file"
        raise SystemExit(f"error: no exported network can be run here; expected {needed}. Install one of them.")
    return found


def load_network(path: str | Path) -> Callable[[Array], Array]:
    """An exported file as a function of float32 arrays ``(1, C, *spatial)``."""
    if str(path).endswith(".onnx"):
        import onnxruntime

        quiet = onnxruntime.SessionOptions()
        quiet.log_severity_level = 3  # errors alone
        session = onnxruntime.InferenceSession(str(path), quiet, providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]
    import torch

    module = torch.jit.load(str(path)) if str(path).endswith(".ts") else torch.export.load(str(path)).module()

    def run(x: Array) -> Array:
        with torch.no_grad():
            logits: Array = module(torch.from_numpy(x)).numpy()
            return logits

    return run


def save(values: Array, header: Any, path: str | Path, source: str | Path) -> None:
    """NIfTI with all that its image's header says of the place, or a 2D image by the name's suffix, with the rows and
    the orientation tag of the source.
    """
    if str(path).lower().endswith(_PICTURES):
        from PIL import ExifTags, Image

        with Image.open(source) as picture:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        stored = _STORED.get(orientation)
        if stored is None:
            Image.fromarray(values).save(path)
            return
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        Image.fromarray(np.ascontiguousarray(stored(values))).save(path, exif=exif)
        return
    import nibabel

    made = nibabel.Nifti1Image(values, np.eye(4) if header is None else None)
    if header is not None:
        for field in _PLACE:
            made.header[field] = header[field]
        made.header["pixdim"][:4] = header["pixdim"][:4]
    nibabel.save(made, path)


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--output", required=True, metavar="FILE", help="label map to write")
    parser.add_argument("--model", metavar="FILE", help="default: the first one beside this script that can be run")
    options = parser.parse_args()
    deployment = json.loads((here / "deployment.json").read_text(encoding="utf-8"))
    files = [here / export["file"] for export in deployment["exports"].values()]
    network = load_network(options.model or usable([file for file in files if file.is_file()]))
    values, header = segment(options.images, deployment, network)
    save(values, header, options.output, options.images[0])


if __name__ == "__main__":
    main()

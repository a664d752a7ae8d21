"""The phantom: three small synthetic data sets, made in seconds without download, the same every time.

============  ==========================================================  ===========================================
kind          images                                                      what must be learned
============  ==========================================================  ===========================================
``organs``    CT-like volumes in HU: abdomen with bone, vessels, bowel    position and texture: organs share their
                                                                          intensities with each other and with bowel
``lesions``   MR-like volumes, T1, T2 and FLAIR: head without skull       the right channels: fluid and distractors
                                                                          look like lesions in one channel or two
``skin``      RGB photographs with one lesion, hairs and freckles         shape and size
============  ==========================================================  ===========================================

Anatomy is described in millimetres (RAS), then sampled on each case's own grid: spacings differ, some grids are coarse
along one axis, oblique, or stored in another orientation. Cases 0 and 1, 6 and 7, … are two visits of one subject, and
share its anatomy; folds keep them together. Every random number derives from (seed, kind, subject or case).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from medseg.data.folds import assign_folds
from medseg.data.randomness import derive_seed
from medseg.errors import ConfigError, nearest
from medseg.settings import Folder, takes
from medseg.storage import write_json

__all__ = ["KINDS", "PhantomSettings", "write_phantom"]

KINDS = ("organs", "lesions", "skin")
_TABLES: dict[str, dict[str, Any]] = {
    "organs": {
        "description": "Synthetic abdomen, CT-like",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "spleen", "3": "kidneys"},
    },
    "lesions": {
        "description": "Synthetic head with lesions, MR-like",
        "modality": {"0": "T1", "1": "T2", "2": "FLAIR"},
        "labels": {"0": "background", "1": "oedema", "2": "core"},
    },
    "skin": {
        "description": "Synthetic skin lesions, photographs",
        "modality": {"0": "RGB"},
        "labels": {"0": "background", "255": "lesion"},
    },
}
_TESTS = 2  # unlabelled images
_FOLDS = 5

Blob = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class PhantomSettings:
    """Which synthetic data set is written.

    Attributes:
        output: folder for the data set; files of the same name are replaced.
        kind: kind of the images; organs: CT-like; lesions: MR-like, three channels; skin: 2D photographs.
        cases: number of labelled cases, at least 2. Two more without label are the test section.
        seed: random seed. Another one gives other cases.
    """

    output: Folder
    kind: Literal["organs", "lesions", "skin"] = "organs"
    cases: int = 24
    seed: int = 0


@takes(PhantomSettings)
def write_phantom(settings: PhantomSettings) -> Path:
    """Write a small synthetic data set with its datalist, the same every time; no download.

    The folder holds ``imagesTr``, ``labelsTr``, ``imagesTs`` and ``dataset.json``.

    Returns:
        The datalist: Decathlon JSON with folds by subject.

    Raises:
        ConfigError: an unknown kind, or fewer than 2 cases.
    """
    kind, cases, seed = settings.kind, settings.cases, settings.seed
    if kind not in KINDS:
        raise ConfigError(f"Unknown phantom '{kind}'; expected one of {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    if cases < 2:
        raise ConfigError(f"{cases} cases are too few for a phantom; expected at least 2.")
    root = Path(settings.output)
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (root / name).mkdir(parents=True, exist_ok=True)
    make = {"organs": _organs, "lesions": _lesions, "skin": _skin}[kind]
    training, test = [], []
    for number in range(cases + _TESTS):
        labelled = number < cases
        # Every third pair of cases is one subject seen twice.
        subject = number - 1 if labelled and number % 6 == 1 else number
        channels, label, affine = make(_stream(seed, kind, 0, subject), _stream(seed, kind, 1, number))
        case_id = f"{kind}_{number:03d}"
        images = _write_images(root, "imagesTr" if labelled else "imagesTs", case_id, channels, affine)
        image = images[0] if len(images) == 1 else images
        if not labelled:
            test.append({"image": image})
            continue
        name = f"labelsTr/{case_id}{'.png' if affine is None else '.nii.gz'}"
        _write(root / name, label, affine)
        training.append({"case_id": case_id, "image": image, "label": name, "subject": f"s{subject:03d}"})
    folds = assign_folds(training, min(_FOLDS, len({case["subject"] for case in training})), seed)
    table = {
        "name": f"phantom_{kind}",
        **_TABLES[kind],
        "licence": "CC0-1.0",
        "numTraining": cases,
        "numTest": _TESTS,
        "training": [{key: value for key, value in case.items() if key != "case_id"} for case in folds],
        "test": test,
    }
    path = root / "dataset.json"
    write_json(path, table)
    return path


def _stream(seed: int, kind: str, use: int, number: int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, KINDS.index(kind), use, number))


# ---------------------------------------------------------------------- files
def _write_images(root: Path, folder: str, case_id: str, channels: np.ndarray, affine: np.ndarray | None) -> list[str]:
    if affine is None:
        paths = [f"{folder}/{case_id}.png"]
        _write(root / paths[0], channels, None)
        return paths
    single = len(channels) == 1
    paths = [f"{folder}/{case_id}{'' if single else f'_{i:04d}'}.nii.gz" for i in range(len(channels))]
    for path, channel in zip(paths, channels, strict=True):
        _write(root / path, np.round(channel).astype(np.int16), affine)
    return paths


def _write(path: Path, array: np.ndarray, affine: np.ndarray | None) -> None:
    if affine is None:
        Image.fromarray(array).save(path)
        return
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


# ---------------------------------------------------------------------- geometry
def _grid(rng: np.random.Generator, extent: float) -> tuple[np.ndarray, np.ndarray]:
    """A case's affine ``(4, 4)`` and the world coordinates of its voxels ``(*spatial, 3)``, mm, centred on 0."""
    shape = np.array([40, 40, 32])
    spacing = extent / 40 * rng.uniform(0.95, 1.05, 3)
    spacing[1] = spacing[0]
    if rng.random() < 0.25:  # thick slices
        shape[2] = 22
        spacing[2] *= 1.5
    rotation = _rotation(rng.normal(0, 0.1, 3)) if rng.random() < 0.4 else np.eye(3)
    axes = rotation * spacing
    if rng.random() < 0.3:  # stored from right to left and from front to back, as DICOM does
        axes = axes * (-1, -1, 1)
    if rng.random() < 0.2:  # slices first
        axes, shape = axes[:, [2, 0, 1]], shape[[2, 0, 1]]
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = -axes @ ((shape - 1) / 2)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return affine, index @ axes.T + affine[:3, 3]


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotations about the three axes, one after the other; radians."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        step = np.eye(3)
        i, j = [a for a in range(3) if a != axis]
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        result = result @ step
    return result


def _blob(rng: np.random.Generator, center: Any, radii: Any, *, rough: float = 0.1, vary: float = 1.0) -> Blob:
    """A wavy ellipsoid: a function of points ``(..., D)`` that is below 1 inside.

    ``vary`` scales the random changes of place (mm), size and direction, ``rough`` is the height of the waves.
    """
    dims = len(center)
    radii = np.array(radii) * (1 + vary * rng.normal(0, 0.08, dims))
    center = np.array(center) + vary * rng.normal(0, 1, dims) * 0.14 * radii
    angle = vary * rng.normal(0, 0.2, 3)
    turn = _rotation(angle) if dims == 3 else _rotation(angle * (0, 0, 1))[:2, :2]
    waves = rng.normal(0, 2.6, (4, dims))
    phases = rng.uniform(0, 2 * np.pi, 4)

    def depth(points: np.ndarray) -> np.ndarray:
        unit = (points - center) @ (turn / radii)
        result: np.ndarray = np.sqrt(np.einsum("...i,...i->...", unit, unit))
        near = result < 1 + 4 * rough  # elsewhere the waves cannot reach
        result[near] += rough * np.sin(unit[near] @ waves.T + phases).sum(axis=-1)
        return result

    return depth


def _texture(rng: np.random.Generator, shape: tuple[int, ...], grain: float) -> np.ndarray:
    """Random texture of mean 0 and deviation 1; ``grain``: its size in voxels, 0 for white noise."""
    noise = rng.normal(size=shape)
    if grain == 0:
        return noise
    smooth: np.ndarray = gaussian_filter(noise, grain)
    return smooth / float(smooth.std())


def _slope(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """A slow change over the field of view, about -1 to 1."""
    direction = rng.normal(size=points.shape[-1])
    ramp: np.ndarray = points @ direction
    return ramp / float(np.abs(ramp).max())


# ---------------------------------------------------------------------- organs
def _organs(subject: np.random.Generator, scan: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = 1 + subject.normal(0, 0.05)
    body = _blob(subject, (0, 0, 0), (100, 76, 260), rough=0.015, vary=0.2)
    wall = _blob(subject, (0, 2, 0), (86, 62, 260), rough=0.015, vary=0.2)
    spine = _blob(subject, (0, -46, 0), (15, 15, 260), rough=0.05, vary=0.3)
    vessel = _blob(subject, (6, -24, 0), (8, 8, 260), rough=0.02, vary=0.5)
    organs = [
        _blob(subject, (40, 10, 40), (40, 42, 34), rough=0.08),
        _blob(subject, (-52, -6, 42), (27, 36, 32), rough=0.07),
        _blob(subject, (-46, -20, -32), (25, 26, 36), rough=0.05),
        _blob(subject, (46, -20, -36), (25, 26, 36), rough=0.05),
    ]
    loops = [
        _blob(subject, subject.uniform((-60, 5, -80), (60, 48, 5)), subject.uniform(11, 20, 3), rough=0.1)
        for _ in range(8)
    ]
    stomach = _blob(subject, (-28, 34, 36), (22, 18, 26), rough=0.08)

    affine, points = _grid(scan, 216)
    points = points / size + scan.normal(0, 4, 3)  # another breath, another position on the table
    shape = points.shape[:-1]
    phase = scan.uniform(0, 1)  # of the contrast medium: brightens everything, kidneys most
    liver = 60 + 45 * phase + scan.normal(0, 6)
    spleen = liver + scan.normal(4, 8)
    kidney = liver + 25 + 35 * phase + scan.normal(0, 6)
    inner = wall(points) < 1
    image = np.full(shape, -1000.0)
    image[body(points) < 1] = -95
    image[inner] = 42
    image[inner] += 30 * _texture(scan, shape, 2.5)[inner] - 25
    for number, loop in enumerate(loops):  # one of four is filled to a kidney's brightness
        depth = loop(points)
        filling = (15.0, liver - 15, kidney, 30.0)[number % 4]
        image[(depth < 1) & inner] = liver - 5
        image[(depth < 0.75) & inner] = filling
    depth = stomach(points)
    image[(depth < 1) & inner] = liver
    image[(depth < 0.75) & inner] = spleen + 14 * _texture(scan, shape, 0)[(depth < 0.75) & inner]
    image[vessel(points) < 1] = kidney + 25
    label = np.zeros(shape, dtype=np.uint8)
    fine, coarse = _texture(scan, shape, 0.6), _texture(scan, shape, 1.6)
    for index, organ in zip((1, 2, 3, 3), organs, strict=True):
        depth = organ(points)
        mask = (depth < 1) & inner & (label == 0)
        label[mask] = index
        if index == 1:
            image[mask] = liver + 10 * fine[mask]
        elif index == 2:
            image[mask] = spleen + 14 * coarse[mask]
        else:  # bright cortex, darker marrow
            image[mask] = kidney + 18 * np.tanh(4 * (depth[mask] - 0.5))
    bone = spine(points) < 1
    image[bone] = 260 + 90 * _texture(scan, shape, 1)[bone]
    label[bone] = 0
    image = gaussian_filter(image, 0.5)  # partial volume
    image += 12 * _slope(scan, points) + 14 * scan.normal(size=shape)
    return np.clip(image, -1024, 3071)[None], label, affine


# ---------------------------------------------------------------------- lesions
def _lesions(subject: np.random.Generator, scan: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    head = _blob(subject, (0, 0, 0), (66, 82, 62), rough=0.02, vary=0.4)
    white = _blob(subject, (0, 0, 2), (52, 66, 47), rough=0.09, vary=0.4)
    ventricles = [_blob(subject, (side * 11, 2, 6), (7, 27, 12), rough=0.12) for side in (-1, 1)]
    sites = subject.uniform((-44, -54, -32), (44, 54, 38), (2, 3))
    tumours = [(_blob(subject, c, subject.uniform(17, 27, 3), rough=0.12), subject.uniform(0.5, 0.65)) for c in sites]
    cysts = [_blob(subject, subject.uniform(-45, 45, 3), subject.uniform(6, 11, 3)) for _ in range(3)]
    scars = [_blob(subject, subject.uniform(-45, 45, 3), subject.uniform(6, 11, 3)) for _ in range(3)]

    affine, points = _grid(scan, 176)
    points = points + scan.normal(0, 4, 3)
    shape = points.shape[:-1]
    brain = head(points) < 1
    # T1, T2, FLAIR of: grey matter, white matter, fluid, oedema, core; scars are dark in T1 and bright in FLAIR only.
    tissue = np.array([[480, 620, 470], [640, 470, 420], [220, 950, 190], [400, 800, 700], [300, 860, 480]], float)
    tissue *= 1 + scan.normal(0, 0.03, tissue.shape)
    kind = np.where(white(points) < 1, 1, 0)
    for cavity in (*ventricles, *cysts):
        kind[cavity(points) < 1] = 2
    label = np.zeros(shape, dtype=np.uint8)
    for tumour, core in tumours:
        depth = tumour(points)
        label[(depth < 1) & brain & (label == 0)] = 1
        label[(depth < core) & brain] = 2
    label[(kind == 2) & (label == 1)] = 0  # oedema does not fill the ventricles
    channels = np.moveaxis(tissue[kind], -1, 0).copy()
    for scar in scars:
        mask = scar(points) < 1
        channels[0][mask], channels[2][mask] = tissue[3, 0], tissue[3, 2]
    for index in (1, 2):
        channels[:, label == index] = tissue[2 + index][:, None]
    scale = scan.uniform(0.7, 1.4, 3)  # MR has no unit
    for channel, factor in zip(channels, scale, strict=True):
        channel += 30 * _texture(scan, shape, 1.2)
        channel *= 1 + 0.18 * _slope(scan, points)
        channel[:] = gaussian_filter(channel, 0.5) + 28 * scan.normal(size=shape)
        channel *= factor * brain
    return np.clip(channels, 0, 32767), label, affine


# ---------------------------------------------------------------------- skin
def _skin(subject: np.random.Generator, scan: np.random.Generator) -> tuple[np.ndarray, np.ndarray, None]:
    shape = (112, 128)
    tone = np.array([225, 180, 155]) * subject.uniform(0.72, 1.05)
    lesion = _blob(subject, subject.uniform((40, 42), (72, 86)), subject.uniform(15, 30, 2), rough=0.11)
    brown = tone * (subject.uniform(0.5, 0.72) * np.array([1.0, 0.85, 0.78]))
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).astype(float)
    points = points + scan.normal(0, 2, 2)
    depth = lesion(points)
    mask = depth < 1
    edge = np.clip((1.06 - depth) / 0.12, 0, 1)[..., None]  # soft border around depth 1
    patches = 1 + 0.1 * _texture(scan, shape, 4)[..., None]
    image = tone * (1 - edge) + brown * patches * edge
    for _ in range(14):  # freckles: the lesion's colour, but small
        spot = _blob(scan, scan.uniform((0, 0), shape), scan.uniform(2, 5, 2), rough=0.05)(points) < 1
        image[spot] = brown
    for _ in range(10):
        image[_hair(scan, shape)] = (45, 30, 25)
    shade = 1 + 0.18 * _slope(scan, points - points.mean((0, 1)))[..., None]
    image = gaussian_filter(image * shade, (0.5, 0.5, 0)) + 5 * scan.normal(size=(*shape, 3))
    return np.clip(image, 0, 255).astype(np.uint8), np.where(mask, 255, 0).astype(np.uint8), None


def _hair(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A curved line, one or two pixels wide."""
    start, middle, end = rng.uniform((-20, -20), np.array(shape) + 20, (3, 2))
    t = np.linspace(0, 1, 400)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    mask = np.zeros(shape, dtype=bool)
    for offset in ((0, 0), (1, 0)) if rng.random() < 0.5 else ((0, 0),):
        rows, columns = np.round(curve + offset).astype(int).T
        seen = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        mask[rows[seen], columns[seen]] = True
    return mask

"""nnU-Net's augmentation: how often, how far, on what, and the same again for the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai import transforms as mt
from monai.bundle import ConfigParser
from monai.data import Dataset
from monai.transforms import Compose

from medseg.bundle.build import BundleRecipe, named_recipes
from medseg.data import make_loader
from medseg.data.dataset import SeededDataset
from medseg.data.sampling import EpochSampler
from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.transforms import (
    RandBlurd,
    RandCommonNoised,
    RandContrastd,
    RandForegroundCropd,
    RandGammad,
    RandLowResolutiond,
    RandRotateScaled,
    channel_changes,
    patch_augmentation,
)
from medseg.transforms.batch_changes import blurred, with_noise
from medseg.transforms.patches import around_label
from medseg.transforms.recipes import augmentation, in_plane

SPACE = LabelSpace.from_table({"labels": {"background": 0, "large": 1, "small": 2}})
ANGLES = {"rotation": 0.5, "rotation_in_plane": 3.0, "rotation_elongated": 0.25}
DRAWS = 400


def rotate(roi: tuple[int, ...], **changed: Any) -> RandRotateScaled:
    options: dict[str, Any] = {**ANGLES, "scaling": (0.7, 1.4), "rotation_prob": 0.2, "scaling_prob": 0.2, **changed}
    return RandRotateScaled(["image", "label"], roi, **options)


IMAGE = torch.arange(2 * 8 * 6 * 4, dtype=torch.float32).reshape(2, 8, 6, 4) % 37
LABEL = (IMAGE[:1] > 20).short()
CHANGES = {
    "blur": (lambda: RandBlurd("image", 0.3, (0.5, 1.0), 0.5), 0.3 * 0.75),
    "contrast": (lambda: RandContrastd("image", 0.3, (0.75, 1.25)), 0.3),
    "low resolution": (lambda: RandLowResolutiond("image", 0.3, (0.5, 0.8), 0.5, coarse_axis=2), 0.3 * 0.75),
    "gamma": (lambda: RandGammad("image", 0.3, (0.7, 1.5)), 0.3),
    "inverted gamma": (lambda: RandGammad("image", 0.3, (0.7, 1.5), invert=True), 0.3),
    "rotation and scaling": (lambda: rotate((4, 4, 4)), 1 - 0.8 * 0.8),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_as_likely_as_said_and_else_the_identity(name: str) -> None:
    make, chance = CHANGES[name]
    change = make()
    data = {"image": IMAGE.clone(), "label": LABEL.clone()}
    plain = data if not isinstance(change, RandRotateScaled) else {k: v[:, 2:6, 1:5, 0:4] for k, v in data.items()}
    results = [change.set_random_state(seed)(data) for seed in range(DRAWS)]
    changed = [not torch.equal(result["image"], plain["image"]) for result in results]
    assert sum(changed) == pytest.approx(DRAWS * chance, abs=4 * (DRAWS * chance * (1 - chance)) ** 0.5)
    assert torch.equal(data["image"], IMAGE) and torch.equal(data["label"], LABEL)  # a cache holds these
    again = make().set_random_state(7)(data)["image"]
    assert torch.equal(again, results[7]["image"])
    if not isinstance(change, RandRotateScaled):
        assert all(result["label"] is data["label"] for result in results)
    assert all(torch.isfinite(result["image"]).all() for result in results)


def test_values_lie_in_their_ranges() -> None:
    drawn = [RandGammad("image", 1, (0.7, 1.5)).set_random_state(n)._around_one((0.7, 1.5)) for n in range(DRAWS)]
    assert 0.7 <= min(drawn) < 0.72 and 1.45 < max(drawn) <= 1.5
    assert np.mean(np.array(drawn) < 1) == pytest.approx(0.5, abs=0.1)  # not 3 / 8, as if uniform
    for bounds in ((1.2, 1.5), (0.5, 0.8)):  # on one side of 1
        one_sided = [RandGammad("image", 1, bounds).set_random_state(n).values(3) for n in range(DRAWS)]
        each(np.array(one_sided), *bounds)
    changed = RandGammad("image", 1, (0.7, 0.7))(dict(image=IMAGE))["image"]
    assert torch.allclose(changed.mean((1, 2, 3)), IMAGE.mean((1, 2, 3)), atol=1e-3)
    contrast = RandContrastd("image", 1, (1.25, 1.25))(dict(image=IMAGE))["image"]
    assert contrast.max() == IMAGE.max() and contrast.min() == IMAGE.min()
    coarse = RandLowResolutiond("image", 1, (0.5, 0.5), coarse_axis=2)(
        dict(image=IMAGE[:1, :1, :1] + torch.zeros(1, 8, 6, 1))
    )
    assert torch.equal(coarse["image"], IMAGE[:1, :1, :1] + torch.zeros(1, 8, 6, 1))  # differs along that axis alone


def test_brightness_and_noise_are_uniform() -> None:
    flat = torch.stack([torch.full((6, 6, 6), 2.0), torch.full((6, 6, 6), 4.0)])
    noise = mt.RandGaussianNoised("image", prob=1, std=0.1)
    found = torch.stack([noise.set_random_state(n)({"image": flat})["image"] - flat for n in range(DRAWS)])
    deviations = found.std((2, 3, 4)).numpy()
    assert np.quantile(deviations, [0.25, 0.5, 0.75]) == pytest.approx([0.025, 0.05, 0.075], abs=0.01)
    assert np.corrcoef(deviations.T)[0, 1] > 0.95  # one for all channels
    common = RandCommonNoised("image", prob=1, std=0.1)
    same = torch.stack([common.set_random_state(n)({"image": flat})["image"] - flat for n in range(DRAWS)])
    assert torch.allclose(same[:, 0], same[:, 1], atol=1e-6)
    assert np.quantile(same.std((2, 3, 4)), [0.25, 0.5, 0.75]) == pytest.approx([0.025, 0.05, 0.075], abs=0.01)
    ones = torch.ones(2)
    batch = with_noise(torch.zeros(2, 3, 6, 6, 6), 0 * ones, ones, [1, None], common=True)
    assert torch.equal(batch[0, 0], batch[0, 2]) and batch[0].std() > 0.8 and not batch[1].any()
    scale = mt.RandScaleIntensityd("image", factors=0.25, prob=1, channel_wise=True)
    changed = torch.stack([scale.set_random_state(n)({"image": flat})["image"] / flat for n in range(DRAWS)])
    each(changed[:, :, 0, 0, 0].numpy(), 0.75, 1.25)


def test_blur_and_resolution_are_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    image, sigmas, sizes = torch.zeros(1, 200, 8, 8), [], []
    monkeypatch.setattr(
        channel_changes, "blurred", lambda one, sigma, widest: sigmas.append(sigma[0, 0].tolist()) or one
    )
    blur, low = RandBlurd("image", 1, (0.5, 1.0)), RandLowResolutiond("image", 1, (0.5, 1.0))
    for number in range(DRAWS):
        blur.set_random_state(number)({"image": image})
    each(np.array(sigmas), 0.5, 1.0)
    smaller = channel_changes.interpolate
    monkeypatch.setattr(
        channel_changes,
        "interpolate",
        lambda x, size, mode: sizes.append(list(size)) or smaller(x, size=size, mode=mode),
    )
    for number in range(DRAWS):
        low.set_random_state(number)({"image": image})
    each(np.array(sizes[::2])[:, :1] / 200, 0.5, 1.0)
    assert all(size[1] == size[2] and abs(size[1] - size[0] / 25) <= 0.51 for size in sizes[::2])  # of all axes


def test_angles_are_uniform_and_the_field_of_view_is_one_factor() -> None:
    changes = [rotate((8, 8, 8), rotation_prob=1.0, scaling_prob=1.0).set_random_state(n) for n in range(DRAWS)]
    for one in changes:
        one.randomize()
    each(np.array([one.drawn[0] for one in changes if one.drawn]), -0.5, 0.5)
    factors = np.array([one.drawn[1] for one in changes if one.drawn])
    each(factors[:, :1], 0.7, 1.4)
    assert np.ptp(factors, axis=1).max() == 0
    alone = [rotate((8, 8, 8), scaling_prob=0.0).set_random_state(n) for n in range(DRAWS)]
    for one in alone:
        one.randomize()
    assert np.mean([one.drawn is not None for one in alone]) == pytest.approx(0.2, abs=0.08)


def each(values: np.ndarray, low: float, high: float) -> None:
    """Columns are uniform over the whole range, and do not depend on each other."""
    found = (values - low) / (high - low)
    assert found.min() >= 0 and found.max() <= 1 and (found.min(0) < 0.05).all() and (found.max(0) > 0.95).all()
    quartiles = np.quantile(found, [0.25, 0.5, 0.75], axis=0)
    assert quartiles == pytest.approx(np.repeat([[0.25], [0.5], [0.75]], found.shape[1], axis=1), abs=0.1)
    if found.shape[1] > 1:
        assert abs(np.corrcoef(found.T) - np.eye(found.shape[1])).max() < 0.2


def test_mirror_images_and_order(monkeypatch: pytest.MonkeyPatch) -> None:
    blur = RandBlurd("image", 0.2, (0.5, 1.0))
    steps = patch_augmentation(
        label_space=SPACE, spatial=rotate((4, 4, 4)), intensity=[blur], mirror_axes=[0, 2], balance="lesions"
    )
    kinds = [type(step).__name__ for step in steps]
    assert kinds[:4] == ["LesionsToIndicesd", "RandForegroundCropd", "RandRotateScaled", "RandBlurd"]
    flips = Compose(steps[4:6])
    corner = torch.zeros(1, 2, 2, 2)
    corner[0, 0, 0, 0] = 1
    found = [flips.set_random_state(n)({"image": corner, "label": corner}) for n in range(DRAWS)]
    places = np.array([np.argwhere(np.asarray(one["image"][0]))[0] for one in found])
    assert places.mean(0) == pytest.approx([0.5, 0, 0.5], abs=0.1)
    assert all(torch.equal(torch.as_tensor(one["image"]), torch.as_tensor(one["label"])) for one in found)


@pytest.mark.parametrize("name", named_recipes())
def test_numbers_depend_on_seed_epoch_and_case_and_not_on_workers(name: str) -> None:
    stated = BundleRecipe(("generated", name), ()).config("train").tree["augment"]
    filled = {"roi_size": [6, 6, 6], "foreground": 0.33, "coarse_axis": None, "label_space": None}
    open_ = {"samples_per_case": 1, "mirror_axes": [0, 1, 2], "flip_axes": [0], "rotate": 0.2}
    parser = ConfigParser({**filled, "augment": {**stated, **{k: v for k, v in open_.items() if k in stated}}})
    steps = parser.get_parsed_content("augment")(label_space=SPACE)

    def batches(seed: int, epoch: int, workers: int) -> list[torch.Tensor]:
        dataset = SeededDataset(Dataset([case(), case()], Compose(steps)), seed=seed, repeats=3)
        dataset.epoch.fill_(epoch)
        loader = make_loader(dataset, batch_size=2, shuffle=True, num_workers=workers)
        return [batch["image"] for batch in loader]

    one = torch.stack(batches(0, 1, 0))
    assert torch.equal(one, torch.stack(batches(0, 1, 2)))
    assert not torch.equal(one, torch.stack(batches(0, 2, 0))) and not torch.equal(one, torch.stack(batches(1, 1, 0)))


def test_angles_follow_the_patch() -> None:
    cases = {
        ((8, 8, 8), None): [0.5] * 3,
        ((8, 8, 2), 2): [0.0, 0.0, 3.0],
        ((8, 8), None): [3.0],
        ((8, 20), None): [0.25],
    }  # fmt: skip
    assert {key: rotate(key[0], coarse_axis=key[1]).angles for key in cases} == cases
    assert rotate((8, 8, 2), coarse_axis=2).margin[2] == 0  # its slices stay
    assert rotate((128,) * 3, rotation=np.pi / 6).margin == [39] * 3  # 206 voxels, where nnU-Net takes 205
    for seed in range(50):
        drawn = rotate((8, 8, 2), coarse_axis=2, rotation_prob=1.0, scaling_prob=1.0).set_random_state(seed)
        drawn.randomize()
        angles, factors = drawn.drawn or ([], [])
        assert (
            angles[:2] == [0, 0] and abs(angles[2]) <= 3 and factors[2] == 1 and 0.7 <= factors[0] == factors[1] <= 1.4
        )


@pytest.mark.parametrize(
    ("batch_size", "processes", "around"), [(2, 1, 1), (3, 1, 1), (12, 1, 4), (2, 2, 1), (1, 2, 1)]
)
def test_the_share_is_exact_in_every_batch_of_all_processes(batch_size: int, processes: int, around: int) -> None:
    drawn = [share_of(batch_size, processes, rank) for rank in range(processes)]
    assert np.concatenate(drawn, axis=1).sum(axis=1).tolist() == [around] * 10


def test_the_share_of_single_samples_is_that_of_the_epoch() -> None:
    assert share_of(1, 1, 0)[:, 0].tolist() == [False, False, False, True] + [False, False, True] * 2


def share_of(batch_size: int, processes: int, rank: int) -> np.ndarray:
    """Which samples of ten batches are around a label, (batches, samples)."""
    sampler = EpochSampler(range(10 * batch_size * processes), num_replicas=processes, rank=rank)
    sampler.batch_size, sampler.foreground = batch_size, 0.33
    return np.array(list(sampler)).reshape(10, batch_size) < 0


def case() -> dict[str, Any]:
    """Half of the volume is one label, one voxel the other."""
    label = torch.zeros(1, 12, 12, 12, dtype=torch.int16)
    label[:, :6], label[0, 11, 11, 11] = 1, 2
    return {"image": label.float() + 1, "label": label, "case_id": "c"}


def test_the_share_of_each_batch_is_around_a_label_whatever_its_size() -> None:
    steps = patch_augmentation(label_space=SPACE, spatial=rotate((2, 2, 2), rotation_prob=0, scaling_prob=0))
    dataset = SeededDataset(Dataset([case()], Compose(steps)), seed=0, repeats=240)
    loader = make_loader(dataset, batch_size=3, shuffle=True)
    assert dataset.foreground == 0.33
    last = [batch["label"][-1] for batch in loader]
    assert all((label > 0).any() for label in last)
    assert np.mean([bool((label == 2).any()) for label in last]) == pytest.approx(0.5, abs=0.15)
    first = [batch["label"][0] for batch in loader]
    assert np.mean([bool((label == 2).any()) for label in first]) < 0.1
    loader.sampler.skip = 3  # as a run that resumes: the rest of the epoch is the same
    resumed = [batch["label"] for batch in loader]
    loader.sampler.skip = 0
    assert all(torch.equal(a, b["label"]) for a, b in zip(resumed, list(loader)[1:], strict=True))


def test_lesions_are_drawn_whatever_their_size() -> None:
    lesions = case()
    lesions["label"][0, 8, 1:4, 1:4] = 2  # a second one of the label of one voxel, which touches nothing
    steps = patch_augmentation(
        label_space=SPACE, spatial=rotate((2, 2, 2), rotation_prob=0, scaling_prob=0), foreground=1.0, balance="lesions"
    )
    first, sample = steps[0], Compose(steps)
    sizes = [len(voxels) for voxels in first(lesions)["label_cls_indices"]]
    assert sizes == [0, 6 * 12 * 12, 9, 1]
    places = {1: 0, 9: 0, 2: 0}
    for seed in range(DRAWS):
        (patch,) = sample.set_random_state(seed)({**lesions, "image": ROWS})
        places[9 if patch["image"].max() >= 11 else 2 if patch["image"].max() >= 8 else 1] += 1
    assert np.array(list(places.values())) / DRAWS == pytest.approx(1 / 3, abs=0.1)
    nothing = {**case(), "label": torch.zeros(1, 12, 12, 12, dtype=torch.int16)}
    assert len(first(nothing)["label_cls_indices"]) == 1 and sample(nothing)[0]["image"].shape == (1, 2, 2, 2)
    with pytest.raises(ConfigError, match="labels or lesions"):
        patch_augmentation(label_space=SPACE, spatial=rotate((2, 2, 2)), balance="lesion")  # type: ignore[arg-type]


ROWS = torch.arange(12.0).reshape(1, 12, 1, 1).expand(1, 12, 12, 12).clone()


def test_a_patch_beyond_the_border_is_filled_with_zeros() -> None:
    crop = RandForegroundCropd(["image", "label"], (6, 6, 6), share=1.0, margin=(4, 4, 4))
    indices = [torch.arange(3), torch.tensor([]), torch.tensor([12**3 - 1])]
    (patch,) = crop({**case(), "label_cls_indices": indices})
    assert patch["image"].shape == (1, 14, 14, 14)
    assert patch["label"][0, 9, 9, 9] == 2 and not patch["image"][0, 10:].any()
    (empty,) = crop({**case(), "label_cls_indices": [torch.arange(3), torch.tensor([]), torch.tensor([])]})
    assert empty["image"].shape == (1, 14, 14, 14)


def test_monais_blur_of_a_slice_stays_in_its_plane() -> None:
    """Across it there is nothing; MONAI's filter would take that for 0."""
    monai = mt.RandGaussianSmoothd("image", prob=1.0, sigma_x=[1.0, 1.0], sigma_y=[1.0, 1.0], sigma_z=[1.0, 1.0])
    found = Compose(in_plane([monai], (15, 15, 1)))({"image": torch.ones(1, 15, 15, 1)})["image"]
    assert found.shape == (1, 15, 15, 1) and float(found[0, 7, 7, 0]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("size", [(15, 15, 15), (15, 15, 1), (3, 9)])
def test_a_blur_leaves_what_is_constant(size: tuple[int, ...]) -> None:
    """Nothing but the image's own values comes in: at its border, and across a slice, filters would take 0."""
    constant = {"image": torch.full((2, *size), 5.0)}
    found = RandBlurd("image", prob=1.0, sigma=[1.0, 1.0])(constant)["image"]
    assert torch.allclose(found, constant["image"], atol=1e-5)


def test_a_blur_is_that_of_monai_on_a_mirrored_image() -> None:
    image = torch.rand(1, 1, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    found = blurred(image, torch.tensor([[[0.5, 0.8, 1.0]]]), 1.0)[0, 0]
    mirrored = torch.as_tensor(np.pad(image[0, 0], 4, mode="reflect"))[None]
    assert torch.allclose(found, mt.GaussianSmooth([0.5, 0.8, 1.0])(mirrored)[0, 4:-4, 4:-4, 4:-4], atol=1e-4)
    assert torch.equal(blurred(image, torch.zeros(1, 1, 3), 1.0), image)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"coarse_axis": 7}, r"coarse_axis: expected some of the axes \[0, 1, 2\], got \[7\]"),
        ({"rotation_prob": 1.5}, "rotation_prob: expected a probability from 0 to 1, got 1.5"),
        ({"scaling_prob": -3}, "scaling_prob: expected a probability"),
        ({"scaling": [0, 0]}, r"scaling: expected a least and a largest number above 0, got \[0, 0\]"),
        ({"scaling": [1.4, 0.7]}, "scaling: expected a least"),
        ({"scaling": [0.7]}, "scaling: expected a least"),
        ({"rotation": -0.5}, "rotation: expected an angle from 0 on, in radians, got -0.5"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rotate((4, 4, 4), **change)


def test_ranges_and_axes_that_make_no_sense_are_refused() -> None:
    patches: dict[str, Any] = {"label_space": SPACE, "spatial": rotate((4, 4, 4))}
    crops: dict[str, Any] = {"label_space": SPACE, "intensity": []}
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: RandGammad("image", 0.3, (-1, 1.5)), "gamma: expected a least and a largest number above 0"),
        (lambda: RandLowResolutiond("image", 0.3, (0, 0)), "zoom: expected a least"),
        (lambda: RandBlurd("image", 1.5, (0.5, 1)), "prob: expected a probability"),
        (lambda: RandBlurd("image", 0.5, (0.5, 1), 1.5), "channel_prob: expected a probability"),
        (lambda: patch_augmentation(**patches, mirror_axes=[5]), r"mirror_axes: expected some of .*, got \[5\]"),
        (lambda: patch_augmentation(**{**patches, "mirror_axes": None}), "mirror_axes: expected some of"),
        (lambda: patch_augmentation(**{**patches, "samples_per_case": None}), "samples_per_case: expected a positive"),
        (lambda: augmentation((4, 4, 4), **crops, rotate=[0.1, 0.2]), "rotate: expected one angle or three"),
        (lambda: augmentation((4, 4, 4), **crops, scale=-2), "scale: expected a share from 0"),
        (lambda: augmentation((4, 4, 4), **crops, flip_axes=[3]), "flip_axes: expected some of"),
        (lambda: augmentation((4, 4, 4), **crops, affine_prob=2), "affine_prob: expected a probability"),
    ]
    for make, said in refused:
        with pytest.raises(ConfigError, match=said):
            make()


@pytest.mark.parametrize(
    ("cases", "share", "expected"),
    [(2, 0.33, 1), (2, 0.25, 0), (2, 0.26, 1), (2, 0.7, 1), (2, 0.75, 2), (4, 0.33, 1), (3, 0.33, 1), (1, 0.33, 0)],
)
def test_a_share_of_a_batch_is_rounded_as_by_nnunet(cases: int, share: float, expected: int) -> None:
    assert around_label(cases, share) == expected

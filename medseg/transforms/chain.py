"""The chain of transforms of a data set, from the parts that a config names once: what inference does as well, and what
training adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from monai.transforms import Compose, Transform

from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.transforms.delayed_forms import delayed
from medseg.transforms.previous import PreviousChannelsd
from medseg.transforms.recipes import load

__all__ = ["pipeline"]


def pipeline(
    of: Callable[..., list[Transform]] | None,
    keys: Sequence[str],
    *,
    label_space: LabelSpace | None = None,
    label_grid: str = "network",
    augment: Callable[[], list[Transform]] | None = None,
    augment_inside: bool = False,
    augment_on_device: bool = False,
    previous: Any = None,
    previous_augment: Sequence[Transform] = (),
) -> Compose:
    """Preprocessing, then augmentation; in a config::

        preprocess: {_target_: medseg.transforms.window_preprocessing, _mode_: callable, window: [-175, 250], …}
        preprocessing: {_target_: medseg.transforms.pipeline, of: "@preprocess", keys: [image]}

    Args:
        of: one of the preprocessings, with its settings; called with ``keys`` and, with a label, ``label_space``.
            ``None`` only loads.
        keys: ``["image"]`` or ``["image", "label"]``.
        label_space: encodes the label; needed with one.
        label_grid: ``network``: the label is resampled with the image; ``source``: it stays as it is stored, for scores
            in the original image space.
        augment: one of the augmentations, with its settings.
        augment_inside: ``of`` takes the random steps as ``random`` and has steps of its own after them.
        augment_on_device: random changes are drawn here for each case and made later for whole batches, by
            ``medseg.engines.PrepareAugmented``.
        previous: the stage before (``medseg.workflows.PreviousStage``), whose label map becomes further channels of the
            image, one per label of its ``label_space``.
        previous_augment: random changes of that label map, after ``augment``.

    Raises:
        ConfigError: an unknown ``label_grid``.
    """
    if label_grid not in ("network", "source"):
        raise ConfigError(f"label_grid is '{label_grid}'; use 'network' or 'source'.")
    if of is None:
        return Compose(load(keys, label_space))
    last: list[Transform] = []
    if previous is not None:
        of, last = partial(of, previous=previous), [PreviousChannelsd(len(previous.label_space.labels))]
    if "label" not in keys:
        return Compose([*of(keys), *last])
    if label_grid == "source":
        return Compose([*of([key for key in keys if key != "label"]), *last, *load(["label"], label_space)])
    random = [] if augment is None else augment()
    if augment_inside:
        return Compose(of(keys, label_space=label_space, random=random))
    random = delayed(random) if augment_on_device else random
    return Compose([*of(keys, label_space=label_space), *random, *previous_augment, *last])

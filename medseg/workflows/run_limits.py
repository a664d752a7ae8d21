"""What a run allows: options and overrides that contradict its data, its training or another option are refused, and
what may be changed on purpose is named.

``config_check`` judges a config by itself; this module holds it against the data and against the training.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medseg.bundle import TRAINED_AXES, accepts_roi
from medseg.bundle.config_check import check_roi
from medseg.bundle.folder import Bundle
from medseg.data import CaseFacts, Datalist
from medseg.data.fit import image_channels
from medseg.data.union import is_union
from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.transforms.augmentations import trained_mirror_axes
from medseg.workflows.checks import check_fit
from medseg.workflows.run_folder import differences

__all__ = [
    "check_arguments",
    "check_channels",
    "check_members",
    "check_training",
    "check_use",
    "mirrored_axes",
    "named_channels",
    "refuse_double",
    "refuse_reordered",
    "warn_changed",
]

logger = logging.getLogger("medseg")

# Ids that a command sets itself -> what to do instead.
_NOT_SET = {
    "train": {
        "fold": "use --fold",
        "seed": "use --seed",
        "max_minutes": "use --max_minutes",
        "device": "use --device",
        "dataset_dir": "use --data_dir",
        "json_list": "use --json_list",
        "output_dir": "use --output",
        "bundle_root": "use --output",
    },
    "infer": {
        "output_dir": "use --output",
        "ckpt_path": "use --checkpoint",
        "device": "use --device",
        "dataset_dir": "use --data_dir",
        "json_list": "use --json_list",
        "section": "use --section",
        "bundle_root": "use --run or --bundle",
        "tasks": "use --tasks",
    },
    "evaluate": {
        "ckpt_path": "use --checkpoint",
        "bundle_root": "use --run",
        "fold": "the run's own fold says which cases it was not trained on; leave it out",
    },
}
# Ids that say what a network is, and what it is given.
_IDENTITY = ("network_def", "labels")
_GRID = ("preprocess", "roi_size")


def refuse_double(task: str, overrides: Mapping[str, Any], **given: Any) -> None:
    """Refuse overrides of what a command sets itself, and of an option that says something else.

    Args:
        task: ``train``, ``infer`` or ``evaluate``.
        overrides: config id -> value.
        given: id -> value of an option that may also be overridden, ``None`` where it was not given.

    Raises:
        ConfigError: with what to do instead.
    """
    for key in overrides:
        if key in _NOT_SET[task]:
            raise ConfigError(f"--set {key}: expected an id that this command leaves to you; {_NOT_SET[task][key]}.")
    for key, value in given.items():
        if value is not None and key in overrides and overrides[key] != value:
            raise ConfigError(f"--{key} {value} and --set {key}={overrides[key]} contradict each other; leave one out.")


# ---------------------------------------------------------------------- training
def check_arguments(overrides: Mapping[str, Any], facts: Sequence[CaseFacts]) -> None:
    """Whether arguments that a user gives a network before it is planned are those of the images.

    Raises:
        ConfigError: naming the argument and the value that fits.
    """
    given = {key.removeprefix("network_def::"): value for key, value in overrides.items()}
    _expect(given, "spatial_dims", len(facts[0].shape), "the number of axes of the images")
    _expect(given, "in_channels", facts[0].channels, "the number of channels of the images")


def check_training(config: Mapping[str, Any], facts: Sequence[CaseFacts], datalist: Datalist) -> None:
    """Whether a final train.yaml's network, patch size and labels are those of the data.

    Args:
        config: its content, unresolved.
        facts: facts of the cases.
        datalist: that they are from.

    Raises:
        ConfigError: naming the id, the value and the one that fits.
        DataError: the images have other axes or channels than the network.
    """
    network, space = config.get("network_def"), LabelSpace.from_table(config["labels"])
    arguments = network if isinstance(network, Mapping) else {}
    if arguments and "in_channels" not in arguments:
        raise ConfigError(f"network_def has no in_channels; expected {facts[0].channels}, the images' number of them.")
    check_fit(facts, datalist, config)
    if is_union(space):
        least, out = max(space.task_ids) + 1, arguments.get("out_channels")
        if isinstance(out, int) and out < least:
            raise ConfigError(f"network_def::out_channels: {out} is too few for the {least} tasks of the datalist.")
    else:
        labels = f"one per label ({', '.join(space.channels)})"
        _expect(arguments, "out_channels", space.num_channels, labels)
    check_roi(config["roi_size"], len(facts[0].shape))
    _refuse_untrained_axes(config, trained_mirror_axes(config))


def _expect(arguments: Mapping[str, Any], name: str, value: int, why: str) -> None:
    given = arguments.get(name, value)
    if isinstance(given, str) and given[:1] in "$@":
        return
    if given != value or isinstance(given, bool):
        raise ConfigError(f"network_def::{name}: expected {value}, {why}, got {given!r}. Leave it out.")


# ---------------------------------------------------------------------- inference and validation
def check_use(
    trained: Mapping[str, Any], used: Mapping[str, Any], overrides: Mapping[str, Any], *, own_weights: bool = True
) -> dict[str, list[Any]]:
    """Hold a merged config for inference or validation against the training.

    Args:
        trained: the config of the training.
        used: the merged config, with the overrides.
        overrides: config id -> value, the user's alone: overlays are part of the bundle.
        own_weights: the weights are the run's own, so that its network is the one that they belong to.

    Returns:
        Id -> its values in training and now, of preprocessing and patch size.

    Raises:
        ConfigError: another network or other labels, or a patch size that the network does not take.
    """
    changed = {
        key: pair
        for top in (*_IDENTITY, *_GRID)
        if top in trained and top in used
        for key, pair in differences(trained[top], used[top], top).items()
    }
    for key, (before, after) in changed.items():
        top = key.partition("::")[0]
        if own_weights and top in _IDENTITY and any(given.partition("::")[0] == top for given in overrides):
            what = "weights belong to the network" if top == "network_def" else "outputs have the labels"
            raise ConfigError(
                f"--set {key}: {after!r}, but the run was trained with {before!r}, and its {what} of the training. "
                "Leave it out, or train another run."
            )
    space, definition = LabelSpace.from_table(used["labels"]), used["network_def"]
    if not is_union(space) and isinstance(definition, Mapping):
        _expect(definition, "out_channels", space.num_channels, f"one per label ({', '.join(space.channels)})")
    if "roi_size" in changed and "roi_size" in overrides and "overlap" in used:
        _refuse_roi(used)
    return {key: list(pair) for key, pair in changed.items() if key.partition("::")[0] in _GRID}


def warn_changed(changed: Mapping[str, Sequence[Any]]) -> None:
    """Log what ``check_use`` found."""
    for key, (before, after) in changed.items():
        logger.warning(
            "%s is %s here, the network was trained with %s: results are those of this setting, not of the training's. "
            "`medseg resolution` compares resolutions.",
            key,
            after,
            before,
        )


def _refuse_roi(config: Mapping[str, Any]) -> None:
    definition = dict(config["network_def"])
    target = definition.pop("_target_", "")
    if not isinstance(target, str) or "tasks" in config or {"in_channels", "out_channels"} - set(definition):
        return
    problem = accepts_roi(target, definition, config["roi_size"])
    if problem is not None:
        raise ConfigError(f"The network does not take roi_size {config['roi_size']} ({problem}); leave it as trained.")


def check_channels(bundle: Bundle, datalist: Datalist) -> None:
    """Hold the channels of a datalist against those that a run or bundle was trained with.

    Raises:
        ConfigError: the same channels in another order, which no number would show.
    """
    own, others = named_channels(bundle), list(datalist.channels)
    refuse_reordered(own, others, f"{datalist.path}", f"{bundle}")
    if len(own) == len(others) and not _same(own, others):
        logger.warning(
            "%s has the channels %s, %s was trained with %s: the network does not know such images.",
            datalist.path, ", ".join(others), bundle, ", ".join(own),
        )  # fmt: skip


def named_channels(bundle: Bundle) -> list[str]:
    """Names of the image channels that a run or bundle was trained with; empty where they are only numbered."""
    names = bundle.channel_names
    return [] if names == ["image"] or any(name.startswith("channel ") for name in names) else names


def refuse_reordered(first: Sequence[str], second: Sequence[str], where: str, other: str) -> None:
    """Refuse the same channels in another order.

    Raises:
        ConfigError: naming both.
    """
    if not _same(first, second) and sorted(map(str.casefold, first)) == sorted(map(str.casefold, second)):
        raise ConfigError(
            f"{where} has the image channels {', '.join(second)}, {other} {', '.join(first)}: the same in another "
            "order. List the images in one order."
        )


def _same(first: Sequence[str], second: Sequence[str]) -> bool:
    return [*map(str.casefold, first)] == [*map(str.casefold, second)]


def check_members(bundles: Sequence[Bundle]) -> None:
    """Whether runs can be joined: one number of axes, the same image channels in one order, one label table.

    Raises:
        ConfigError: naming the two runs that differ.
    """
    first, names = bundles[0], named_channels(bundles[0])
    space = LabelSpace.from_table(first.trained["labels"])
    for bundle in bundles[1:]:
        for name, value in (("spatial_dims", _spatial_dims), ("in_channels", image_channels)):
            own, other = value(first.trained), value(bundle.trained)
            if own != other:
                raise ConfigError(
                    f"{bundle} has {name} {other}, {first} has {own}: they take different images. Join runs on "
                    "the same images."
                )
        refuse_reordered(names, named_channels(bundle), str(bundle), str(first))
        others = LabelSpace.from_table(bundle.trained["labels"])
        if space.channels == others.channels and space.to_table() != others.to_table():
            raise ConfigError(
                f"{bundle} has the labels {others.to_table()}, {first} {space.to_table()}: the same names "
                "with other values. Join runs of one label table."
            )


def _spatial_dims(config: Mapping[str, Any]) -> Any:
    return config["network_def"].get("spatial_dims")


# ---------------------------------------------------------------------- test-time augmentation
def mirrored_axes(
    bundle: Bundle, used: Mapping[str, Any], *, tta: bool = False, chosen: Sequence[int] | None = None
) -> list[int] | None:
    """The axes of test-time augmentation: those that training mirrored.

    Args:
        bundle: bundle of the run, or the bundle itself.
        used: its merged config for inference or validation, with overrides.
        tta: all of them are asked for,
        chosen: or these.

    Returns:
        The axes to set; ``None`` leaves the config as it is.

    Raises:
        ConfigError: an axis that training did not mirror, or ``tta`` where it mirrored none or is not known to have.
    """
    trained = trained_mirror_axes(bundle.trained) if bundle.has("train") else None
    if trained is None and isinstance(used.get(TRAINED_AXES), list):
        trained = tuple(used[TRAINED_AXES])
    _refuse_untrained_axes(used, trained)
    if not tta:
        return None
    if "mirror_axes" not in used:
        raise ConfigError(
            f"--tta: inference.yaml of {bundle} has no id mirror_axes; leave --tta out, or give its inferer one."
        )
    if trained is None and not chosen:
        raise ConfigError(
            f"--tta: the configs of {bundle} do not tell which axes its training mirrored; name them with --set "
            "mirror_axes=[0], or leave --tta out."
        )
    if trained is not None and not trained:
        raise ConfigError(
            f"--tta: {bundle} was trained without mirror images, so its network does not know them, and averaging "
            "over them makes predictions worse. Leave --tta out."
        )
    return list(trained or ()) if chosen is None else None


def _refuse_untrained_axes(config: Mapping[str, Any], trained: Sequence[int] | None) -> None:
    """Wherever an inferer of the config gets its mirror axes from."""
    for axes in _mirror_axes(config):
        beyond = [] if trained is None else [axis for axis in axes if axis not in trained]
        if beyond:
            known = f"only axes {list(trained or ())}" if trained else "no axis"
            raise ConfigError(
                f"mirror_axes {list(axes)}: training mirrored {known}, so the network does not know mirror images "
                f"along {', '.join(map(str, beyond))}. Leave {'it' if len(beyond) == 1 else 'them'} out."
            )
        if trained is None and axes:
            logger.warning("mirror_axes %s: whether training mirrored them is not known.", list(axes))


def _mirror_axes(value: Any) -> Iterator[Sequence[int]]:
    """Every list of mirror axes in a config."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "mirror_axes" and isinstance(item, list):
                yield item
            else:
                yield from _mirror_axes(item)
    elif isinstance(value, list):
        for item in value:
            yield from _mirror_axes(item)

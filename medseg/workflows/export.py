"""Export a run or bundle: its network in several formats, what is needed around it as JSON, and a reference runner."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

import medseg
from medseg.bundle import deployment as about
from medseg.bundle import reference_runner
from medseg.bundle.compose import load_workflow
from medseg.bundle.export import chosen_formats, export_network, other_size
from medseg.bundle.folder import Bundle
from medseg.bundle.parts import device_component
from medseg.errors import ConfigError, ModelError, nearest
from medseg.faults import unwrapped
from medseg.inferers import TaskPasses
from medseg.labels import LabelSpace
from medseg.networks.layers.task_conditioned import FixedTasks, TaskConditioned
from medseg.settings import Folder, Size, takes
from medseg.storage import write_json
from medseg.weights import load_weights
from medseg.workflows.checkpoints import weights_of

__all__ = ["RUNNER", "ExportSettings", "export"]

logger = logging.getLogger("medseg")

RUNNER = "predict.py"


@dataclass(frozen=True)
class ExportSettings:
    """What is exported, and in which formats.

    Attributes:
        bundle: folder of a run, or of a bundle with models/model.pt.
        output: folder for the files; those of the same names are replaced.
        format: torchscript, torch_export, onnx (needs the extra `export`) or all.
        sizes: spatial sizes to compare at besides the patch size, such as 128,96,64 (default: one that differs from it
            in every axis).
        checkpoint: best, last or a file.
        overlays: further configs of the bundle, such as gsm.
        dataset: name of the data set whose labels the exported network segments, of a run on several data sets.
        modality: modality of the images, with --dataset, such as ct (default: unknown).
    """

    bundle: Folder = field(metadata={"positional": "RUN_OR_BUNDLE"})
    output: Folder
    _: KW_ONLY
    format: str = "all"
    sizes: Sequence[Size] | None = None
    checkpoint: str = "best"
    overlays: Sequence[str] = field(default=(), metadata={"option": "overlay"})
    dataset: str | None = None
    modality: str | None = None


@takes(ExportSettings)
def export(settings: ExportSettings) -> about.Deployment:
    """Export a trained network with all that is needed to use it without medseg.

    Writes ``model.ts``, ``model.pt2``, ``model.onnx``, ``deployment.json`` and ``predict.py`` to ``output``.

    Returns:
        What ``deployment.json`` says.

    Raises:
        ConfigError: an unknown format, a package of the extra ``export`` is missing, or a data set has to be named.
        ModelError: no weights, or a network that cannot be recorded.
    """
    formats, sizes, dataset, modality = (
        chosen_formats(settings.format),
        settings.sizes,
        settings.dataset,
        settings.modality,
    )
    folder, target = Bundle(settings.bundle).root, Path(settings.output).resolve()
    weights = weights_of(folder, settings.checkpoint)
    overrides = {"device": device_component("cpu")}
    parser = load_workflow(folder, "infer", overrides, settings.overlays).parser
    with unwrapped():
        network = parser.get_parsed_content("network_def")
        parts = {key: parser.get_parsed_content(key) for key in ("preprocessing", "inferer", "postprocessing")}
        space = parser.get_parsed_content("label_space")
    load_weights(network, weights)
    if isinstance(parts["inferer"], TaskPasses):
        network, space = _of_dataset(network, space, dataset, modality)
        parts["inferer"] = parts["inferer"].window
        modality = modality or "unknown"
    elif dataset or modality:
        raise ConfigError("--dataset and --modality are for networks trained on several data sets; leave them out.")
    metadata, config = parser.get("_meta_"), {key: parser.get(key) for key in parser.get() if key != "_meta_"}
    image = metadata["network_data_format"]["inputs"]["image"]
    if not isinstance(image.get("num_channels"), int):
        raise ModelError(f"metadata.json of {folder} does not state the image's num_channels; restore it.")
    window = [int(n) for n in parser.get_parsed_content("roi_size")]
    compared = [window, *([list(size) for size in sizes] if sizes else [list(other_size(window))])]
    exported = export_network(
        network, image["num_channels"], compared, target, formats=formats, metadata=metadata, config=config
    )
    deployment = about.Deployment(
        name=metadata.get("name", folder.name),
        version=metadata.get("version"),
        medseg_version=medseg.__version__,
        intended_use=metadata.get("intended_use"),
        dataset=dataset,
        modality=modality,
        input=about.NetworkInput(
            spatial_dims=len(window),
            num_channels=image["num_channels"],
            channels=list(image.get("channel_def", {}).values()),
            dtype="float32",
            layout="(1, channel, *spatial); spatial axes in the order of the file (NIfTI: x, y, z)",
        ),
        preprocessing=about.describe_preprocessing(parts["preprocessing"]),
        inference=about.describe_inference(parts["inferer"]),
        labels=about.describe_labels(space, parts["postprocessing"]),
        exports=exported,
    )
    if deployment.undescribed:
        logger.warning("no reference runner: it does not know %s", ", ".join(deployment.undescribed))
        (target / RUNNER).unlink(missing_ok=True)
    else:
        shutil.copyfile(reference_runner.__file__, target / RUNNER)
    write_json(target / "deployment.json", deployment)
    return deployment


def _of_dataset(
    network: TaskConditioned, space: LabelSpace, dataset: str | None, modality: str | None
) -> tuple[FixedTasks, LabelSpace]:
    """The network that is always asked for the tasks of one data set, and their labels by their channels.

    Raises:
        ConfigError: no such data set.
    """
    if dataset is None or dataset not in space.fragments:
        raise ConfigError(
            "A network that was trained on several data sets is exported for the tasks of one: name it with --dataset."
            f"{nearest(str(dataset), space.fragments)} It knows {', '.join(space.fragments)}."
        )
    tasks = space.dataset_tasks(dataset)
    labels = tuple(space.labels[index - 1] for index in tasks.values())
    own = LabelSpace(labels, {"": space.fragments[dataset]}, "sigmoid")
    return FixedTasks(network, [*tasks], space.modality_id(modality)), own

"""The table of commands: the function that a command calls, what is printed at its end, and two examples.

Options, defaults and help come from the function's settings class (``medseg.cli.options``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from medseg.cli import answers
from medseg.cli.parts import Parts

__all__ = ["COMMANDS", "Command"]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        function: dotted path of a function with ``takes(Settings)``; its docstring's first line is the help.
        answer: template of the settings ``s``, the function's ``result`` and, quoted for a shell,
            ``typed``; or a function that prints them.
        example: arguments of an example.
        another: arguments of another one.
        evaluates_bundles: whether it runs what a bundle's config holds, so that ``--trust_bundle`` allows it.
        parts: modules that add options.
        given: values of fields that are no options.
    """

    function: str
    answer: str | Callable[[Any, Any], None]
    example: str
    another: str
    _: KW_ONLY
    evaluates_bundles: bool = False
    parts: Parts | None = None
    given: Mapping[str, Any] = field(default_factory=dict)


_ARCHIVE = "the archive as unpacked is {facts.layout}. Where to get it: {facts.source}."
_DATA_SETS = Parts("data set", "medseg.datasets.dataset", "prepare", answers.data_set, _ARCHIVE)
_CHALLENGES = Parts(
    "challenge", "medseg.submission.challenge", "submitted", answers.challenge, "the archive is a {facts.suffix} file."
)

COMMANDS = {
    "init": Command(
        "medseg.workflows.init.init",
        answers.lines,
        "Task09_Spleen",
        "my_images --modality T1,FLAIR --output lists/mine.json",
    ),
    "train": Command(
        "medseg.workflows.training.train",
        "run: {result}",
        "--network ssh_unet --json_list data.json --output runs/first",
        "--network SegResNet --json_list data.json --fold all --output cv",
        evaluates_bundles=True,
    ),
    "validate": Command(
        "medseg.workflows.folds.evaluate_checkpoints",
        answers.validated,
        "--run runs/first",
        "--run runs/first --section test --set overlap=0.25",
        evaluates_bundles=True,
    ),
    "evaluate": Command(
        "medseg.workflows.scored_predictions.score_predictions",
        answers.scored,
        "--references refs --predictions out --labels a.json --output e",
        "--references a.json --predictions p --labels a.json --output e",
    ),
    "postprocess": Command(
        "medseg.workflows.postprocessing.postprocess",
        answers.postprocessed,
        "--run runs/first",
        "--run runs/cv --data_dir /data/btcv",
    ),
    "best": Command(
        "medseg.workflows.best.best",
        answers.chosen,
        "--run runs/unet --run runs/segresnet --output runs/best",
        "--run 2d=runs/cv2d --run 3d=runs/cv --no_pairs --output best",
        evaluates_bundles=True,
    ),
    "calibrate": Command(
        "medseg.workflows.calibration.calibrate",
        answers.calibrated,
        "--run runs/first",
        "--run runs/cv --data_dir /data/btcv --device cpu",
        evaluates_bundles=True,
    ),
    "infer": Command(
        "medseg.workflows.prediction.predict_checkpoints",
        answers.inferred,
        "--run runs/first --output out case.nii.gz folder_of_images",
        "--bundle unpacked/first --json_list data.json --output out --tta",
        evaluates_bundles=True,
    ),
    "ensemble": Command(
        "medseg.workflows.ensemble.ensemble",
        answers.joined,
        "--run runs/first --run runs/second --output runs/both",
        "--run runs/cv --weights dice --section test --output joined",
        evaluates_bundles=True,
    ),
    "submit": Command(
        "medseg.workflows.submission.submit",
        "written: {s.output}",
        "btcv --run runs/btcv --output btcv.zip",
        "amos --list",
        evaluates_bundles=True,
        parts=_CHALLENGES,
        given={"show": print},
    ),
    "compare": Command(
        "medseg.workflows.compare.compare",
        answers.compared,
        "--run runs/first --run runs/second --output runs/compared",
        "--run runs/cv1 --run runs/cv2 --score hd95 --output distances",
    ),
    "study": Command(
        "medseg.workflows.study.study",
        answers.studied,
        "study.yaml --output studied",
        "study.yaml --output studied --jobs 4 --set budget::iterations=500",
    ),
    "resolution": Command(
        "medseg.workflows.resolution.resolution",
        answers.rescaled,
        "--run runs/first --run runs/b --sizes 0.5 1 --output sizes",
        "--run runs/first --spacings 1 2 4 --output runs/spacings",
        evaluates_bundles=True,
    ),
    "report": Command(
        "medseg.reports.report.write_report",
        "report: {result}",
        "--run runs/first",
        "--run runs/first --data_dir /data",
    ),
    "export": Command(
        "medseg.workflows.export.export",
        answers.exported,
        "runs/first --output deployed",
        "runs/first --format onnx --sizes 128,96,64 --output deployed",
        evaluates_bundles=True,
    ),
    "priors": Command(
        "medseg.reports.priors.write_prior_picture",
        "figure: {result}",
        "--run runs/universal --output priors.png",
        "--run runs/universal --output priors.pdf",
    ),
    "check": Command(
        "medseg.workflows.soundness.check",
        answers.lines,
        "--json_list data.json --fold 0",
        "--bundle runs/first --strict",
        evaluates_bundles=True,
    ),
    "datalist": Command(
        "medseg.data.make_datalist.make_datalist",
        answers.listed,
        "Task09_Spleen --output spleen.json",
        "--images images --labels masks --output polyps.json",
    ),
    "export-nnunet": Command(
        "medseg.data.nnunet_export.export_nnunet",
        answers.exported_nnunet,
        "--json_list data.json --output nnunet",
        "--json_list a.json --output nnunet --dataset_id 7",
    ),
    "prepare": Command(
        "medseg.workflows.prepare.prepare",
        answers.prepared,
        "--list",
        "btcv --raw RawData --out btcv",
        parts=_DATA_SETS,
    ),
    "networks": Command("medseg.networks.listing.networks", answers.networks, "'hno*'", "nnformer --layers"),
    "cite": Command("medseg.workflows.cite.cite", answers.lines, "runs/first", "hnoseg_xs"),
    "metrics": Command("medseg.metrics.catalog.metrics", answers.lines, "", "'hd95*'"),
    "benchmark": Command(
        "medseg.workflows.benchmark.benchmark",
        answers.measured,
        "--network hnoseg --network SegResNet --size 96,96,96 --train",
        "--network fno --network x=fno --set x.filters=8 --size 64,64",
    ),
    "new-bundle": Command(
        "medseg.workflows.new_bundle.new_bundle",
        answers.planned,
        "--network hnoseg --json_list data.json --output bundles/mine",
        "--network UNet --json_list a.json --device cpu --output mine",
    ),
    "bundle build": Command(
        "medseg.bundle.build.build",
        answers.lines,
        "ssh_unet_btcv_ct_segmentation --output bundles/mine",
        "bundles/mine",
    ),
    "config": Command(
        "medseg.workflows.explain.explain",
        answers.lines,
        "runs/first learning_rate",
        "bundles/mine --task infer --overlay gsm",
    ),
    "import-weights": Command(
        "medseg.weights.importing.import_weights",
        answers.imported,
        "--system sshunet --config net.json --checkpoint best.pth",
        "--system ibm --config net.yaml --checkpoint ibm_best.pt",
    ),
    "package": Command(
        "medseg.bundle.package.package",
        answers.packed,
        "runs/first --output first.zip",
        "bundles/mine --output mine.zip",
    ),
    "unpack": Command(
        "medseg.bundle.package.unpack",
        "bundle: {result}\nnext: medseg infer --bundle {typed} --output DIR IMAGE",
        "first.zip --output unpacked",
        "mine.zip --output bundles",
    ),
    "publish": Command(
        "medseg.workflows.publish.publish",
        "repository: {s.output}\nSHA-256 of its SHA256SUMS: {result}\n"
        "next, where you have an account: hf upload OWNER/NAME {s.output}",
        "runs/first --output published/first",
        "bundles/mine --output published/mine",
    ),
    "fetch": Command(
        "medseg.workflows.fetch.fetch",
        "bundle: {result}\nnext: medseg infer --bundle {typed} --output DIR IMAGE",
        "OWNER/NAME --sha256 HASH --output bundles",
        "https://example.org/first.zip --sha256 HASH --output bundles",
    ),
    "phantom": Command(
        "medseg.data.phantom.write_phantom",
        "datalist: {result}",
        "--output phantom",
        "--kind lesions --cases 12 --seed 1 --output lesions",
    ),
    "doctor": Command(
        "medseg.workflows.doctor.doctor",
        answers.examined,
        "",
        "--report",
    ),
}

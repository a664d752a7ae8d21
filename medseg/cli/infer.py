"""``medseg infer``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from medseg.cli.validate import CHECKPOINT

HELP = "Segment image files, a folder or a datalist section; label maps come back on the images' own grids."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="IMAGE",
        help="image files or folders; several channels: <case>_0000, <case>_0001, …",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", metavar="DIR", help="run folder")
    what.add_argument("--bundle", metavar="DIR", help="bundle folder with models/model.pt")
    parser.add_argument("--json_list", metavar="FILE", help="datalist instead of files")
    parser.add_argument("--section", metavar="S", help="section of the datalist (default test)")
    parser.add_argument("--data_dir", metavar="DIR", help="what the datalist's paths are relative to")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the label maps")
    parser.add_argument("--checkpoint", default="best", metavar="C", help=CHECKPOINT)
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--tta", action="store_true", help="average over mirror images along the axes that training mirrored"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="predict all cases again (default: those whose images, weights or settings changed)",
    )
    parser.add_argument(
        "--no_postprocess", action="store_true", help="leave out what `medseg postprocess` stored in the run"
    )
    parser.add_argument(
        "--tasks",
        type=lambda text: text.split(","),
        metavar="A,B",
        help="of a run on several data sets: what to segment (default: all, or those of a case's own data set)",
    )
    parser.add_argument("--modality", metavar="M", help="of the images, for a run on several data sets, such as ct")
    parser.add_argument(
        "--set", action="append", default=[], metavar="ID=VALUE", help="any id of inference.yaml, such as overlap=0.25"
    )


def run(args: argparse.Namespace) -> int:
    from medseg.bundle.compose import parse_assignments
    from medseg.workflows.prediction import PredictSettings, predict, predict_checkpoints

    settings = PredictSettings(
        args.run or args.bundle,
        args.output,
        inputs=args.inputs,
        json_list=args.json_list,
        data_dir=args.data_dir,
        section=args.section,
        checkpoint=args.checkpoint,
        device=args.device,
        tta=args.tta,
        overwrite=args.overwrite,
        tasks=args.tasks,
        modality=args.modality,
        postprocess=not args.no_postprocess,
        overrides=parse_assignments(args.set),
    )
    if args.checkpoint == "all":
        for name, made in predict_checkpoints.of(settings).items():
            _summarize(made, f"{args.output}/{name}")
        return 0
    _summarize(predict.of(settings), args.output)
    return 0


def _summarize(label_maps: Sequence[Path], folder: str) -> None:
    from medseg.inferers.prediction_folder import background_predictions
    from medseg.metrics import background_note

    if note := background_note(background_predictions(label_maps), len(label_maps)):
        print(f"warning: {note}")
    print(f"{len(label_maps)} label maps in {folder}")

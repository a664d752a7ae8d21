"""``medseg infer``."""

from __future__ import annotations

import argparse

from medseg.cli import add_trust

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
    parser.add_argument("--section", default="test", metavar="S", help="section of the datalist (default test)")
    parser.add_argument("--data_dir", metavar="DIR", help="what the datalist's paths are relative to")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the label maps")
    parser.add_argument("--checkpoint", default="best", metavar="C", help="best, last or a file (default best)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N")
    parser.add_argument("--tta", action="store_true", help="average over mirror images of every axis")
    parser.add_argument(
        "--set", action="append", default=[], metavar="ID=VALUE", help="any id of inference.yaml, such as overlap=0.25"
    )
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    from medseg.workflows.compose import parse_assignments
    from medseg.workflows.prediction import predict

    done = predict(
        args.run or args.bundle,
        args.output,
        inputs=args.inputs,
        json_list=args.json_list,
        data_dir=args.data_dir,
        section=args.section,
        checkpoint=args.checkpoint,
        device=args.device,
        tta=args.tta,
        overrides=parse_assignments(args.set),
        allow_expressions=args.allow_expressions,
    )
    print(f"{len(done)} label maps in {args.output}")
    return 0

"""``medseg resolution``."""

from __future__ import annotations

import argparse

HELP = "Score runs at other resolutions than the one they were trained at: table, figure and JSON."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", action="append", required=True, metavar="DIR", help="run folder, repeat for each")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--sizes", nargs="+", type=float, default=[], metavar="F", help="voxels per axis, as fractions of the source's"
    )
    what.add_argument("--spacings", nargs="+", type=float, default=[], metavar="MM", help="isotropic voxel sizes in mm")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for resolution.md, .csv, .json and .png")
    parser.add_argument("--checkpoint", default="best", metavar="C", help="as of `medseg validate` (default best)")
    parser.add_argument(
        "--section", default="validation", metavar="S", help="section of the datalist (default validation)"
    )
    parser.add_argument("--data_dir", metavar="DIR", help="where the images are now (default: as in training)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N")


def run(args: argparse.Namespace) -> int:
    from medseg.reports.resolution import resolution_markdown
    from medseg.workflows.resolution import resolution

    content = resolution(
        args.run,
        args.output,
        sizes=args.sizes,
        spacings=args.spacings,
        checkpoint=args.checkpoint,
        section=args.section,
        data_dir=args.data_dir,
        device=args.device,
    )
    print(resolution_markdown(content))
    print(f"\nfigure: {args.output}/resolution.png")
    return 0

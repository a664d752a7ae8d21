"""``medseg priors``."""

from __future__ import annotations

import argparse

HELP = "Draw how alike the learned priors of tasks and modalities are, of a run on several data sets."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, metavar="DIR", help="run or bundle folder with models/model.pt")
    parser.add_argument("--output", required=True, metavar="FILE", help="picture: .png, .svg or .pdf")


def run(args: argparse.Namespace) -> int:
    from medseg.reports.priors import write_prior_picture

    print(f"picture: {write_prior_picture(args.run, args.output)}")
    return 0
